"""The class centres of a checkpoint, and the angles of embeddings to them."""

from __future__ import annotations

import os

import numpy as np

from latse.models import checkpoint

QUANTILES = (5, 25, 50, 75, 95)  # percent


def read_centres(prefix: str | os.PathLike, number: int) -> np.ndarray | None:
    """Return the class centres of a checkpoint as unit vectors, float32 (K, centres, D); None without any.

    Most losses have one centre a class. Zeros where one has no direction. Raises LatseError if a file is
    missing or damaged.
    """
    weights = checkpoint.load(prefix, number)[1].get("fc7_weight")
    if weights is None:
        return None
    centres = weights.asnumpy().astype(np.float32)
    centres = centres.reshape(len(centres), -1, centres.shape[-1])
    norms = np.linalg.norm(centres, axis=2, keepdims=True)
    return centres / np.where(norms == 0, 1, norms)


def cosines(embeddings: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Return the cosines of unit embeddings, float (m, D), with the nearest centre of each class: (m, K)."""
    products = embeddings @ centres.reshape(-1, centres.shape[-1]).T
    return products.reshape(len(embeddings), *centres.shape[:2]).max(axis=2)


def angles(cosine: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the angles in degrees, float (m,) each, to the own centre and to the nearest other one.

    `cosine` is float (m, K), at least two classes, `labels` int (m,).
    """
    at = np.arange(len(labels)), labels
    others = cosine.copy()
    others[at] = -np.inf
    own, other = (np.degrees(np.arccos(np.clip(one, -1, 1))) for one in (cosine[at], others.max(axis=1)))
    return own, other


def quantiles(degrees: np.ndarray) -> dict[str, float]:
    """Return the `QUANTILES` of angles, at least one, by percent."""
    return dict(zip(map(str, QUANTILES), np.percentile(degrees, QUANTILES).tolist()))
