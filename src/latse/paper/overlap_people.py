"""People who are in a training set and in test sets: test images against the means of training people."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from latse.errors import LatseError
from latse.eval.roc import Highest, allowed
from latse.train import means
from latse.train.means import Means, Rows, Settled

FAR = 1e-6  # by default, if the training set resolves it
ABOVE = 10  # comparisons above a threshold, that resolve its rate
MEASURED = 16384  # training images that the threshold is measured with, at most


class Threshold(NamedTuple):
    """The cosine above which a training person has an image, with the false accept rate `far`.

    It is measured by so many `comparisons` of training images with the means of other training people.
    """

    far: float
    cosine: float
    comparisons: int


class Hits(NamedTuple):
    """Test images above the threshold: image and person, int64 (n,), with the cosine, float32 (n,)."""

    image: np.ndarray
    person: np.ndarray
    cosine: np.ndarray


def measure(rows: Rows, settled: Settled, far: float | None, name: str) -> Threshold:
    """Return the threshold at a false accept rate, by default `FAR` or the smallest that can be measured.

    The impostors are members, images whose own person is the likeliest, and the means of all other people.

    Parameters
    ----------
    rows : Rows
        The embeddings of the training images, of length 1.
    settled : Settled
        The means of their people.
    far : float or None
        The rate, above 0 and below 1.
    name : str
        Of the training set, for an error.

    Raises
    ------
    LatseError
        If the rate is so small that fewer than `ABOVE` comparisons are above the threshold.
    """
    of, members = settled.means, np.flatnonzero(settled.members)
    chosen = members[np.linspace(0, len(members) - 1, min(MEASURED, len(members))).astype(np.int64)]
    comparisons = len(chosen) * np.sum(~of.nobody) - np.sum(~of.nobody[of.labels[chosen]])
    if comparisons <= ABOVE:
        raise LatseError(f"{name} has too few people to measure a false accept rate with")
    finest = ABOVE / int(comparisons)
    far = max(FAR, finest) if far is None else far
    if far < finest:
        raise LatseError(
            f"--far is {far:g}, but {comparisons} comparisons of images with the means of other people of "
            f"{name} resolve {finest:.2g} to 1"
        )
    highest = Highest(allowed(int(comparisons), far) + 1)
    for part in tqdm([*means.parts(len(chosen), len(of.sums))], "threshold", leave=False, disable=None):
        cosines = of.others(rows[chosen[part]], chosen[part]).ravel()
        highest.add(cosines[cosines >= max(highest.floor, -2)])
    return Threshold(far, float(highest.scores.min()), int(comparisons))


def find(of: Means, embeddings: np.ndarray, threshold: Threshold) -> Hits:
    """Return which test images, float32 (m, d) of length 1, are above the threshold, by image and person."""
    found = []
    for part in tqdm([*means.parts(len(embeddings), len(of.sums))], "people", leave=False, disable=None):
        cosines = of.cosines(embeddings[part])
        image, person = np.nonzero(cosines > threshold.cosine)
        found.append((part.start + image, person, cosines[image, person]))
    return Hits(*map(np.concatenate, zip(*found)))
