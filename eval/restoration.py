"""How like a decoder's faces are to the mean faces that it restores (eq. 12 and 13)."""

from __future__ import annotations

from typing import Callable, NamedTuple

import cv2
import numpy as np

from latse.eval.verification import distinct_images
from latse.models.runner import in_batches
from latse.symbols.losses import K1, K2, RADIUS, SIGMA

C1, C2 = K1**2, K2**2


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
    decoder: Callable[[np.ndarray], np.ndarray], images: np.ndarray, people: np.ndarray, batch_size: int
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
    batch_size : int
        Images that the decoder gets at a time, at least 1. Memory grows with it and with the people, not with
        the images.
    """
    first, _ = distinct_images(images)
    number, count = np.unique(people[first], return_inverse=True, return_counts=True)[1:]
    targets = np.stack([mean_face(images[first[number == person]]) for person in range(len(count))])

    def of_batch(rows: np.ndarray) -> np.ndarray:
        generated = (decoder(images[first[rows]]).astype(np.float64) + 1) / 2
        own, other = (targets[(number[rows] + shift) % len(targets)] for shift in (0, 1))
        return np.array([[*map(similarity, generated, faces)] for faces in (own, other)]).T

    of_generated = in_batches(of_batch, np.arange(len(first)), batch_size, "restoration").mean(axis=0)
    average = np.tensordot(count / len(first), targets, 1)
    of_average = np.average([similarity(average, target) for target in targets], weights=count)
    return Restoration(len(first), *map(float, of_generated), float(of_average))


def mean_face(images: np.ndarray) -> np.ndarray:
    """Return the mean of a person's images and their mirror images.

    uint8 (n, 3, H, W) become float64 (3, H, W) in [0, 1].
    """
    mean = images.mean(axis=0) / 255
    return (mean + mean[..., ::-1]) / 2


def similarity(face: np.ndarray, other: np.ndarray) -> float:
    """Return the SSIM (Wang et al. 2004) of two images (3, H, W) in [0, 1], as eq. 13 takes it.

    Equal to scikit-image's `structural_similarity(gaussian_weights=True, sigma=1.5,
    use_sample_covariance=False, data_range=1)` in a fraction of its time.
    """
    return float(np.mean([*map(_channel_similarity, face.astype(np.float64), other.astype(np.float64))]))


def _channel_similarity(x: np.ndarray, y: np.ndarray) -> float:
    """Return the same of one channel of each, (H, W): small enough to be computed in the cache."""
    mean_x, mean_y, squares, product = (_blurred(image) for image in (x, y, x * x + y * y, x * y))
    means, mean_squares = mean_x * mean_y, mean_x * mean_x + mean_y * mean_y
    luminance = (2 * means + C1) / (mean_squares + C1)
    return float(np.mean(luminance * (2 * (product - means) + C2) / (squares - mean_squares + C2)))


def _blurred(image: np.ndarray) -> np.ndarray:
    """Return the Gaussian means of the windows inside an image, (H - 10, W - 10) of (H, W)."""
    side, inside = 2 * RADIUS + 1, slice(RADIUS, -RADIUS)
    return cv2.GaussianBlur(image, (side, side), SIGMA)[inside, inside]
