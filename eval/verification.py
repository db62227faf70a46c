"""The standard verification protocol: ten folds, the threshold of each from the other nine.

It gives the accuracy that insightface's `verification.py` gives for the same embeddings, to the last bit:
flip-summed, L2-normalised, squared Euclidean distance, folds of scikit-learn's unshuffled `KFold`, thresholds
0 to 4 by 0.01, the first best one taken.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Callable, NamedTuple

import numpy as np
from sklearn.model_selection import KFold

from latse.errors import LatseError
from latse.eval.roc import FAR_TARGETS, Thresholds, allowed
from latse.models.features import unit

FOLDS = 10
THRESHOLDS = np.arange(0, 4, 0.01)
# Of insightface's VAL (validation rate).
VAL_THRESHOLDS = np.arange(0, 4, 0.001)
VAL_FAR = 1e-3
ROC_POINTS = 20  # in a decade of FAR
COSINE_BINS = np.linspace(-1, 1, 81)

# Maps images, uint8 (n, 3, 112, 112) RGB, to one embedding each, float (n, d).
Feature = Callable[[np.ndarray], np.ndarray]


class Accuracy(NamedTuple):
    """Mean and population standard deviation of the folds' accuracies, 0 to 1; mean of their thresholds."""

    accuracy: float
    std: float
    threshold: float


class Val(NamedTuple):
    """Mean and population standard deviation of the folds' true accept rates; mean false accept rate."""

    val: float
    std: float
    far: float


@dataclass(frozen=True)
class Verification:
    """What the protocol says about one embedding of one set of pairs. Rates and areas are 0 to 1.

    Attributes
    ----------
    accuracy, std, threshold : float
        As of `Accuracy`; the thresholds are squared Euclidean distances, 0 to 4.
    fold_accuracies : list of float
        The accuracies of the folds, in order.
    exact : Accuracy
        The same with thresholds taken from the distances themselves instead of the grid: `exact_accuracy`.
    val : Val or None
        insightface's VAL at FAR 0.001, None where it is not defined: `val_at_far`.
    tar_at_far : dict of str to float or None
        True accept rate by false accept rate, keys "0.1" to "1e-06": `roc.Curve.tar_at`.
    unresolved_far : list of str
        Keys of `tar_at_far` that allow less than one false accept: their TAR is at zero false accepts.
    threshold_at_far, cosine_at_far : dict of str to float or None
        The threshold of each of these rates, as a squared Euclidean distance and as a cosine similarity c,
        2 - 2·c: `roc.Curve.threshold_at`.
    auc, eer : float or None
        Area under the ROC curve, and rate of equal errors.
    roc : dict of str to list of float
        `far`, a logarithmic grid as far as the pairs resolve, and `tar`.
    histogram : dict of str to list of float
        `edges` of bins of cosine similarity, -1 to 1, and how many `same` and `different` pairs they hold.

    Where all pairs are of one kind, values by FAR, `auc` and `eer` are None and `roc` is empty.
    """

    accuracy: float
    std: float
    threshold: float
    fold_accuracies: list[float]
    exact: Accuracy
    val: Val | None
    tar_at_far: dict[str, float | None]
    unresolved_far: list[str]
    threshold_at_far: dict[str, float | None]
    cosine_at_far: dict[str, float | None]
    auc: float | None
    eer: float | None
    roc: dict[str, list[float]]
    histogram: dict[str, list[float]]


def flip_sum(feature: Feature, images: np.ndarray) -> np.ndarray:
    """Return the embedding of each image plus that of its mirror image, float64 (n, d).

    A set of pairs repeats its images (1,800 images of `orl.bin` are 100): each distinct one is embedded once.
    """
    first, inverse = distinct_images(images)
    images = images[first]
    plain, mirrored = feature(images), feature(images[..., ::-1])
    return (plain.astype(np.float64) + mirrored)[inverse]


def distinct_images(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find byte-identical images.

    Returns
    -------
    first
        int64 (m,), where each distinct image stands first, ascending.
    inverse
        int64 (n,), for each image its position in `first`.
    """
    numbers: dict[bytes, int] = {}
    digests = (hashlib.blake2b(image.tobytes()).digest() for image in images)
    inverse = np.array([numbers.setdefault(digest, len(numbers)) for digest in digests], np.int64)
    return np.unique(inverse, return_index=True)[1], inverse


def pair_distance(embedding: np.ndarray) -> np.ndarray:
    """Return the squared Euclidean distance of each pair's unit embeddings, float (n,) from (2n, d), 0 to 4.

    Raises LatseError if an embedding has no partner, or one is zero or not finite.
    """
    if len(embedding) % 2:
        raise LatseError(f"{len(embedding)} embeddings do not make pairs")
    directions = unit(embedding, "the embedding of image {}".format)
    return np.square(directions[0::2] - directions[1::2]).sum(axis=1)


def cosine_of(distance: np.ndarray) -> np.ndarray:
    """Return the cosine similarity, -1 to 1, of unit vectors at a squared Euclidean distance, 0 to 4."""
    return np.clip(1 - distance / 2, -1, 1)


def check_number(pairs: int, title: str = "") -> None:
    """Raise LatseError, which begins with `title`, if so many pairs cannot be judged."""
    if pairs < FOLDS:
        raise LatseError(f"{title}{pairs} pairs are too few for {FOLDS} folds")


def judge(distance: np.ndarray, issame: np.ndarray) -> Verification:
    """Apply the protocol to the distances of pairs: a pair is accepted where its distance < threshold.

    Parameters
    ----------
    distance : float (n,)
        Squared Euclidean, in the order of the file (the folds are runs of it).
    issame : bool (n,)
        Whether both images of a pair show one person.

    Raises
    ------
    LatseError
        If there are fewer pairs than folds, another number of flags, or a distance is not finite.
    """
    distance, issame = np.asarray(distance, np.float64), np.asarray(issame, bool)
    check_number(len(distance))
    if len(issame) != len(distance):
        raise LatseError(f"{len(distance)} distances, but {len(issame)} flags")
    if not np.isfinite(distance).all():
        raise LatseError(f"the distance of pair {np.argmin(np.isfinite(distance))} is not finite")
    accuracies, thresholds = GridFolds(distance, issame).judge()
    return Verification(
        *_summary(accuracies, thresholds),
        fold_accuracies=accuracies.tolist(),
        exact=exact_accuracy(distance, issame),
        val=val_at_far(distance, issame),
        **_rates(distance, issame),
        histogram=_histogram(distance, issame),
    )


class GridFolds:
    """The folds of the protocol on pairs as of `judge`, to be judged with several weights of the pairs."""

    def __init__(self, distance: np.ndarray, issame: np.ndarray):
        self._fold = np.empty(len(distance), np.int64)
        for number, (_, test) in enumerate(KFold(FOLDS).split(distance)):
            self._fold[test] = number
        self._sign = np.where(issame, 1.0, -1.0)
        # A pair is accepted from the first threshold on that is larger than its distance.
        accepted_from = np.searchsorted(THRESHOLDS, distance, side="right")
        self._cell = self._fold * (len(THRESHOLDS) + 1) + accepted_from

    def judge(self, weight: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return each fold's accuracy under the threshold that is best on the others, and that threshold.

        Among `THRESHOLDS` the first best one is taken. `weight`, float (n,), counts pair i weight[i] times
        (default: once); folds without weight are left out. Both results are float (10,) otherwise.
        """
        weight = np.ones(len(self._fold)) if weight is None else weight
        cells = FOLDS * (len(THRESHOLDS) + 1)
        gained = np.bincount(self._cell, weight * self._sign, cells).reshape(FOLDS, -1)[:, :-1]
        different = np.bincount(self._fold, weight * (self._sign < 0), FOLDS)
        right = np.cumsum(gained, axis=1) + different[:, None]
        best = np.argmax(right.sum(axis=0) - right, axis=1)
        size = np.bincount(self._fold, weight, FOLDS)
        there = np.flatnonzero(size)
        return right[there, best[there]] / size[there], THRESHOLDS[best[there]]


def exact_accuracy(distance: np.ndarray, issame: np.ndarray) -> Accuracy:
    """Judge the folds of the protocol with thresholds as fine as the distances.

    The candidates for a fold are the distances of the other nine, and the next number above the largest,
    which accepts all; the first best one is taken.
    """
    accuracies, thresholds = [], []
    for train, test in KFold(FOLDS).split(distance):
        candidates = np.unique(distance[train])
        candidates = np.append(candidates, np.nextafter(candidates[-1], np.inf))
        same, different = (np.sort(distance[train][kind]) for kind in (issame[train], ~issame[train]))
        falsely = np.searchsorted(different, candidates)  # counts the smaller ones
        best = np.argmax(np.searchsorted(same, candidates) - falsely)
        accuracies.append(np.mean((distance[test] < candidates[best]) == issame[test]))
        thresholds.append(candidates[best])
    return _summary(accuracies, thresholds)


def val_at_far(distance: np.ndarray, issame: np.ndarray, far: float = VAL_FAR) -> Val | None:
    """Judge the folds at a false accept rate, as insightface does for its VAL.

    The threshold of a fold is the one that has the rate `far` on the other nine, interpolated linearly
    between two neighbours of the grid 0 to 4 by 0.001; it is 0 where no threshold has so large a rate. The
    result is None where it is not defined: a fold lacks pairs of one kind, or several thresholds have exactly
    the wanted FAR, so that any of them would do.
    """
    rates = []
    for train, test in KFold(FOLDS).split(distance):
        threshold = _threshold_at_far(distance[train][~issame[train]], far)
        if threshold is None or issame[test].all() or not issame[test].any():
            return None
        accepted = distance[test] < threshold
        rates.append([np.mean(accepted[issame[test]]), np.mean(accepted[~issame[test]])])
    val, false = np.transpose(rates)
    return Val(float(np.mean(val)), float(np.std(val)), float(np.mean(false)))


def _threshold_at_far(different: np.ndarray, far: float) -> float | None:
    if not len(different):
        return None
    rates = np.searchsorted(np.sort(different), VAL_THRESHOLDS) / len(different)
    if np.count_nonzero(rates == far) > 1:
        return None
    if rates[-1] < far:
        return 0.0
    first = max(np.searchsorted(rates, far), 1)  # no distance is below the first threshold, which is 0
    neighbours = slice(first - 1, first + 1)
    return float(np.interp(far, rates[neighbours], VAL_THRESHOLDS[neighbours]))


def _rates(distance: np.ndarray, issame: np.ndarray) -> dict[str, Any]:
    """Return all fields of `Verification` that need pairs of both kinds."""
    keys, different = [str(far) for far in FAR_TARGETS], int((~issame).sum())
    if different in (0, len(issame)):
        by_far = ("tar_at_far", "threshold_at_far", "cosine_at_far")
        rates = {"unresolved_far": keys, "auc": None, "eer": None, "roc": {"far": [], "tar": []}}
        return {**rates, **{name: dict.fromkeys(keys) for name in by_far}}
    curve = Thresholds(distance, issame).curve()
    threshold = curve.threshold_at(FAR_TARGETS)
    far = np.logspace(-np.log10(different), 0, 1 + int(np.ceil(ROC_POINTS * np.log10(different))))
    far[0], far[-1] = 1 / different, 1  # the ends are points of the curve
    return {
        "tar_at_far": dict(zip(keys, curve.tar_at(FAR_TARGETS).tolist())),
        "unresolved_far": [str(far) for far in FAR_TARGETS if not allowed(different, far)],
        "threshold_at_far": dict(zip(keys, threshold.tolist())),
        "cosine_at_far": dict(zip(keys, cosine_of(threshold).tolist())),
        "auc": curve.area(),
        "eer": curve.equal_error(),
        "roc": {"far": far.tolist(), "tar": curve.tar_at(far).tolist()},
    }


def _histogram(distance: np.ndarray, issame: np.ndarray) -> dict[str, list[float]]:
    cosine = cosine_of(distance)
    same, different = (np.histogram(cosine[kind], COSINE_BINS)[0].tolist() for kind in (issame, ~issame))
    return {"edges": COSINE_BINS.tolist(), "same": same, "different": different}


def _summary(accuracies: np.ndarray, thresholds: np.ndarray) -> Accuracy:
    return Accuracy(float(np.mean(accuracies)), float(np.std(accuracies)), float(np.mean(thresholds)))
