"""How like a decoder's faces are to the mean faces that it restores (eq. 12 and 13)."""

from __future__ import annotations

from typing import Callable, NamedTuple

import numpy as np
from skimage.metrics import structural_similarity

from latse.eval.verification import distinct_images


class Restoration(NamedTuple):
    """What was found on images of known people.

    Attributes
    ----------
    images : int
        Distinct ones.
    ssim : float
        Mean structural similarity (`similarity`) of what is generated from an image to the mean face of its
        person.
    ssim_to_other : float
        The same to the mean face of another person, the next one by number: no less where a decoder draws
        everybody alike.
    ssim_of_average : float
        The same of the average of all images to the mean faces.
    """

    images: int
    ssim: float
    ssim_to_other: float
    ssim_of_average: float


def judge_restoration(
    decoder: Callable[[np.ndarray], np.ndarray], images: np.ndarray, people: np.ndarray
) -> Restoration:
    """Compare what a decoder generates from images with the mean faces of their people.

    Parameters
    ----------
    decoder : callable
        Maps uint8 (m, 3, H, W) to float (m, 3, H, W) in [-1, 1].
    images : uint8 array (n, 3, H, W)
        RGB; byte-identical ones count once.
    people : int array (n,)
        The person on each image.
    """
    first, _ = distinct_images(images)
    images, number = images[first], np.unique(people[first], return_inverse=True)[1]
    targets = mean_faces(images, number)
    own, other = targets[number], targets[(number + 1) % len(targets)]
    generated = (decoder(images).astype(np.float64) + 1) / 2
    average = np.broadcast_to(own.mean(axis=0), own.shape)
    pairs = ((generated, own), (generated, other), (average, own))
    return Restoration(len(images), *(float(np.mean([*map(similarity, *pair)])) for pair in pairs))


def mean_faces(images: np.ndarray, number: np.ndarray) -> np.ndarray:
    """Return each person's mean image, mirror images included.

    uint8 (n, 3, H, W) and the numbers of their people, 0 to p - 1, become float64 (p, 3, H, W) in [0, 1].
    """
    means = np.stack([images[number == person].mean(axis=0) / 255 for person in range(number.max() + 1)])
    return (means + means[..., ::-1]) / 2


def similarity(face: np.ndarray, other: np.ndarray) -> float:
    """Return the SSIM (Wang et al. 2004) of two images (3, H, W) in [0, 1], as eq. 13 takes it."""
    return float(
        structural_similarity(
            face,
            other,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=1,
            channel_axis=0,
        )
    )
