"""The empirical ROC of pairs: every distance is a threshold, nothing is smoothed; pairs may have weights."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

FAR_TARGETS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)


def allowed(count: int, rate: float) -> int:
    """Return how many of `count`, at least 1, are at most the share `rate`, 0 to 1.

    That is the largest k with k / count <= rate, in floating point as it stands: one in ten is 0.1, although
    0.1 is not quite a tenth.
    """
    k = min(int(rate * count) + 1, count)
    while k / count > rate:
        k -= 1
    return k


class Highest:
    """The `keep` highest of the scores that were added; `floor` is the least of them if there are so many."""

    def __init__(self, keep: int):
        self.keep, self.scores, self.floor = keep, np.empty(0, np.float32), -math.inf

    def add(self, scores: np.ndarray) -> None:
        """Add scores; none below `floor` needs to be."""
        self.scores = np.concatenate([self.scores, scores])
        if len(self.scores) >= self.keep:
            self.scores = np.partition(self.scores, -self.keep)[-self.keep :]
            self.floor = float(self.scores[0])


class Curve(NamedTuple):
    """What the thresholds accept, from none of the pairs to all.

    far : float (k + 1,), fraction of the different pairs accepted, ascending from 0 to 1;
    tar : float (k + 1,), fraction of the same pairs accepted;
    threshold : float (k + 1,), the largest that accepts them and no more, inf in the end.
    """

    far: np.ndarray
    tar: np.ndarray
    threshold: np.ndarray

    def tar_at(self, far: np.ndarray) -> np.ndarray:
        """Return TAR at the largest threshold whose false accept rate is at most `far`, for one or several.

        Exact: no interpolation. A `far` below 1 / (number of different pairs) cannot be resolved: the result
        is the rate before the first false accept.
        """
        return self.tar[self._at(far)]

    def threshold_at(self, far: np.ndarray) -> np.ndarray:
        """Return the largest threshold whose false accept rate is at most `far`, for one or several.

        It is the distance of the first pair that it refuses, of two people unless pairs tie.
        """
        return self.threshold[self._at(far)]

    def _at(self, far: np.ndarray) -> np.ndarray:
        return np.searchsorted(self.far, far, side="right") - 1

    def area(self) -> float:
        """Return the area under the curve, 0 to 1: how likely a same pair is nearer, ties half."""
        return float(np.trapz(self.tar, self.far))

    def equal_error(self) -> float:
        """Return the rate at which the line through the points has as many false accepts as rejects."""
        excess = self.far - (1 - self.tar)
        after = int(np.argmax(excess >= 0))  # never the first point: nothing is accepted there
        before = after - 1
        part = excess[before] / (excess[before] - excess[after])
        return float(self.far[before] + part * (self.far[after] - self.far[before]))


class Thresholds:
    """All thresholds at which the verdict on some pair changes.

    Parameters
    ----------
    distance : float (n,)
        A pair is accepted below the threshold, so equal distances are accepted together.
    issame : bool (n,)
        Both kinds among them.
    """

    def __init__(self, distance: np.ndarray, issame: np.ndarray):
        self._order = np.argsort(distance, kind="stable")
        self._same = issame[self._order]
        ascending = distance[self._order]
        # Where the pairs end that one more threshold accepts; before them, none.
        self._ends = np.append(0, np.flatnonzero(np.append(np.diff(ascending) > 0, True)) + 1)
        self._threshold = np.append(ascending, np.inf)[self._ends]

    def curve(self, weight: np.ndarray | None = None) -> Curve:
        """Return the curve; weight, float (n,), counts pair i weight[i] times (default: once).

        Whole weights give exactly the curve of pairs that are repeated so often. Some pair of either kind
        must have a weight above 0.
        """
        weight = np.ones(len(self._order)) if weight is None else weight[self._order]
        same, different = (self._accepted(weight * kind) for kind in (self._same, ~self._same))
        return Curve(different / different[-1], same / same[-1], self._threshold)

    def _accepted(self, weight: np.ndarray) -> np.ndarray:
        return np.append(0.0, np.cumsum(weight))[self._ends]
