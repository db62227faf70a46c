"""Are two aligned faces one picture, re-encoded, resized, lit, mirrored or aligned anew?

Millions of pairs are told apart by *sketches*: histograms of gradients in 4x4 fields, whitened, of length 1.
What is left is laid one on the other by an affine map and compared in every small window. Brightness and
contrast count in neither, as both look at what is left when each window's own are taken away.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

SIDE = 112
FIELD, DIRECTIONS = 28, 12
SOFT = 2.0  # pixels of blur before gradients are taken
SHRUNK, FEW = 0.03, 10  # of the largest variance, SHRUNK + FEW / images is added to all before whitening

FINE, COARSE, WINDOW = 1.5, 6.0, 4.0  # pixels: blur, what a pixel is compared with, windows
STEPS = cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 50, 1e-4
FAINT = 4.0  # grey levels squared: what is fainter is noise
EVEN = 0.3  # the variance of a relief from which on a window counts as structured
BORDER = 11  # pixels at the edge that are not compared: there an alignment makes things up
LEAST_SEEN = 0.3  # of the image, that must be on both
WORST = 2  # per cent of the windows, that may be worse than the likeness


def gray(image: np.ndarray) -> np.ndarray:
    """Return uint8 (112, 112) of an image, uint8 (3, 112, 112) RGB."""
    return cv2.cvtColor(np.ascontiguousarray(image.transpose(1, 2, 0)), cv2.COLOR_RGB2GRAY)


def gradients(pictures: np.ndarray) -> np.ndarray:
    """Return the histograms of the gradients of pictures, uint8 (n, 112, 112): float32 (n, 192)."""
    field = (FIELD, FIELD)
    histogram = cv2.HOGDescriptor(
        (SIDE, SIDE), field, field, field, DIRECTIONS, 1, -1, 0, 0.2, True, 64, True
    )
    soft = (cv2.GaussianBlur(picture, (0, 0), SOFT) for picture in pictures)
    return np.stack([np.ravel(histogram.compute(picture)) for picture in soft])


class Sketch(NamedTuple):
    """What makes sketches of histograms: `mean`, float32 (192,), and `whitening`, float32 (192, 192)."""

    mean: np.ndarray
    whitening: np.ndarray

    @classmethod
    def of(cls, sample: np.ndarray) -> Sketch:
        """Take the mean and the variances of a sample of histograms, float32 (n, 192)."""
        mean = sample.mean(axis=0)
        variance, directions = np.linalg.eigh(np.cov(sample.T, bias=True))
        shrunk = SHRUNK + FEW / len(sample)
        variance = np.maximum(variance, 0) + shrunk * variance[-1] + np.finfo(np.float32).tiny
        return cls(mean, (directions / np.sqrt(variance)).astype(np.float32))

    def __call__(self, histograms: np.ndarray) -> np.ndarray:
        """Return sketches, float32 (n, 192), of length 1, or 0 for the mean itself."""
        rows = (histograms - self.mean) @ self.whitening
        return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(np.float32).tiny)


def relief(picture: np.ndarray) -> np.ndarray:
    """Return what `likeness` compares of a picture, uint8 (112, 112): float32 (112, 112).

    How far each pixel is from its neighbourhood, in terms of how far pixels there usually are.
    """
    soft = cv2.GaussianBlur(picture.astype(np.float32), (0, 0), FINE)
    apart = soft - cv2.GaussianBlur(soft, (0, 0), COARSE)
    variance = cv2.GaussianBlur(apart * apart, (0, 0), COARSE)
    return apart / np.sqrt(variance + variance.mean() + FAINT)


def likeness(one: np.ndarray, other: np.ndarray) -> float:
    """Return how alike two pictures are, given their reliefs: the correlation in all but the worst windows.

    1 for the same one, -1 where they cannot be laid one on the other.
    """
    try:
        _, place = cv2.findTransformECC(
            one, other, np.eye(2, 3, dtype=np.float32), cv2.MOTION_AFFINE, STEPS, None, 1
        )
    except cv2.error:  # it has not come to an end
        return -1.0
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    laid = cv2.warpAffine(other, place, (SIDE, SIDE), flags=how, borderMode=cv2.BORDER_REPLICATE)
    inner = np.zeros((SIDE, SIDE), np.float32)
    inner[BORDER:-BORDER, BORDER:-BORDER] = 1
    seen = (cv2.warpAffine(inner, place, (SIDE, SIDE), flags=how) > 0.99) & (inner > 0)
    if seen.mean() < LEAST_SEEN:
        return -1.0
    both, of_one, of_other = (
        cv2.GaussianBlur(product, (0, 0), WINDOW)[seen] for product in (one * laid, one * one, laid * laid)
    )
    return float(np.percentile((both + EVEN) / (np.sqrt(of_one * of_other) + EVEN), WORST))
