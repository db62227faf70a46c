"""What faces can be told apart by without a trained network: references for a fair look at a result.

All work on the grey image less its own mean (so that raw pixels, once L2-normalised, are compared by
normalised cross-correlation). Their settings are fixed here; none was chosen by looking at the people under
test.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.pipeline import make_pipeline

from latse.data.shards.records import Shard
from latse.errors import LatseError
from latse.eval.verification import Feature
from latse.models.runner import in_batches

COMPONENTS = 100
TRAINING_IMAGES = 2000
BATCH_SIZE = 64  # images that are floats of three channels at a time
GREY = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


def raw_pixels(images: np.ndarray) -> np.ndarray:
    """Return the grey pixels less the image's mean, float32 (n, H·W) in -1..1 from uint8 (n, 3, H, W) RGB.

    Raises LatseError if there is no image.
    """
    return in_batches(_grey, images, BATCH_SIZE, "pixels")


def _grey(images: np.ndarray) -> np.ndarray:
    grey = np.tensordot(images.astype(np.float32) / 255, GREY, axes=(1, 0)).reshape(len(images), -1)
    return grey - grey.mean(axis=1, keepdims=True)


def whitened_pca(images: np.ndarray, label: np.ndarray) -> Feature:
    """Fit the first 100 principal components of `images`, each scaled to unit variance ('whitened').

    They are the images of the training people, uint8 (n, 3, H, W), RGB. `label`, int (n,), is not looked at:
    PCA needs no supervision.
    """
    return _fitted("pca", images, label, whiten=True)


def fisherfaces(images: np.ndarray, label: np.ndarray) -> Feature:
    """Fit Fisher's linear discriminants of the first 100 principal components.

    `images` are those of the training people, uint8 (n, 3, H, W), RGB. `label`, int (n,), says who is who: at
    least two people, one of them with two images.

    Source: Belhumeur, Hespanha, Kriegman 1997, Eigenfaces vs. Fisherfaces.
    """
    return _fitted("fisherfaces", images, label, LinearDiscriminantAnalysis())


def _fitted(title: str, images: np.ndarray, label: np.ndarray, *more: Any, whiten: bool = False) -> Feature:
    """Fit the principal components of grey pixels, and what makes more of them."""
    pixels = raw_pixels(images)
    # Centring takes one dimension away; a whitened component without variance would be noise divided by zero.
    components = min(COMPONENTS, min(pixels.shape) - 1)
    model = make_pipeline(PCA(components, whiten=whiten, svd_solver="full"), *more).fit(pixels, label)
    return lambda probes: in_batches(lambda part: model.transform(_grey(part)), probes, BATCH_SIZE, title)


def training_images(folder: str | os.PathLike) -> tuple[np.ndarray, np.ndarray]:
    """Read what the references are fitted to: a shard's first people, at most 2,000 images.

    Returns the images, uint8 (n, 3, H, W), RGB, and who is who, int64 (n,). Raises LatseError if the shard is
    unreadable, or these are fewer than two people, or one image of each.
    """
    shard = Shard(folder)
    positions = np.argsort(shard.labels, kind="stable")[:TRAINING_IMAGES]
    label = shard.labels[positions]
    if not 2 <= len(np.unique(label)) < len(label):
        raise LatseError(
            f"{folder}: pca and fisherfaces need two people or more, and two images of one of them"
        )
    return shard.batch(positions).image, label
