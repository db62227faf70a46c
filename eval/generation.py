"""How like generated faces are to what they should be: the person's mean face, and the true one."""

from __future__ import annotations

from typing import Mapping

import numpy as np

from latse.data.shards.records import Shard
from latse.eval.restoration import mean_face, similarity

SAMPLE = 2000  # images of a set whose mean stands for that of all


def likeness(faces: np.ndarray, targets: Mapping[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """Compare faces with targets.

    Parameters
    ----------
    faces : float (m, 3, H, W)
        In [0, 1].
    targets : mapping of str to ndarray
        The same of what each should be, by name.

    Returns
    -------
    dict
        By name of the targets the means of `ssim` (`restoration.similarity`) and `l1`, the absolute
        difference of pixels in 0..1.
    """
    return {
        name: {
            "ssim": float(np.mean([*map(similarity, faces, target)])),
            "l1": float(np.mean(np.abs(faces - target))),
        }
        for name, target in targets.items()
    }


def average_face(shard: Shard) -> np.ndarray:
    """Return the mean of images of a set, mirror images included: float64 (3, H, W) in [0, 1]."""
    chosen = np.linspace(0, len(shard) - 1, min(SAMPLE, len(shard))).astype(int)
    return mean_face(shard.batch(chosen).image)


def faces_of(shard: Shard, labels: np.ndarray) -> np.ndarray:
    """Return the mean face of each label's images, mirror images included: float64 (m, 3, H, W) in [0, 1]."""
    people, number = np.unique(labels, return_inverse=True)
    positions = (np.flatnonzero(shard.labels == person) for person in people)
    return np.stack([mean_face(shard.batch(own).image) for own in positions])[number]
