"""How far the figures of a set of pairs would move with other people: bootstrap over people.

The pairs of a person stand and fall together, so pairs are no sample of their own. People are drawn again,
with replacement, as many as there are; a pair then counts as often as both its people were drawn, one after
the other (the product), a same pair as often as its person. Source: Snijders and Borgatti 1999,
Non-parametric standard errors and tests for network statistics (the vertex bootstrap).

The interval of the accuracy errs on the wide side, and downwards: a sample holds fewer different people to
choose the thresholds by. Those of AUC, EER and TAR have no such choice in them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterator, Sequence

import numpy as np
from tqdm import tqdm

from latse.errors import LatseError
from latse.eval.eval_arguments import SAMPLES
from latse.eval.roc import FAR_TARGETS, Thresholds
from latse.eval.verification import GridFolds, cosine_of

LEVEL = 0.95


@dataclass(frozen=True)
class Intervals:
    """Percentile intervals [low, high] of what `verification.judge` says, from so many `samples`.

    The fraction `level` of the samples is between the two. TAR and thresholds are by false accept rate.
    `low` and `high` are the band of the ROC: TAR at each FAR that was asked for.
    """

    level: float
    samples: int
    accuracy: list[float]
    auc: list[float]
    eer: list[float]
    tar_at_far: dict[str, list[float]]
    threshold_at_far: dict[str, list[float]]
    cosine_at_far: dict[str, list[float]]
    low: list[float]
    high: list[float]


def intervals(
    distance: np.ndarray,
    issame: np.ndarray,
    people: np.ndarray,
    far: Sequence[float] = (),
    samples: int = SAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> Intervals:
    """Estimate intervals by drawing people again.

    Parameters
    ----------
    distance : float (n,)
        As of `verification.judge`.
    issame : bool (n,)
        Pairs of both kinds.
    people : int (2n,)
        The person on each image.
    far : sequence of float, optional
        False accept rates of the ROC's band, each 0 to 1.
    samples : int, default SAMPLES
        At least 1; each takes some 0.3 ms with 6,000 pairs.
    level : float, default LEVEL
        Between 0 and 1.
    seed : int, default 0
        The same draws the same people, so that models are compared on the same samples; at least 0.
    """
    curves, folds = Thresholds(distance, issame), GridFolds(distance, issame)
    rates, keys = np.array([*FAR_TARGETS, *far]), list(map(str, FAR_TARGETS))
    figures, tars, thresholds = np.empty((samples, 3)), *np.empty((2, samples, len(rates)))
    weights = pair_weights(people, issame, np.random.default_rng(seed))
    for i in tqdm(range(samples), desc="bootstrap", unit="sample", leave=False, delay=1):
        weight = next(weights)
        curve = curves.curve(weight)
        figures[i] = folds.judge(weight)[0].mean(), curve.area(), curve.equal_error()
        tars[i], thresholds[i] = curve.tar_at(rates), curve.threshold_at(rates)
    ends = [(1 - level) / 2, (1 + level) / 2]
    accuracy, auc, eer = np.quantile(figures, ends, axis=0).T.tolist()
    tar = np.quantile(tars, ends, axis=0)
    threshold = np.quantile(thresholds[:, : len(keys)], ends, axis=0)
    tar_at_far, threshold_at_far, cosine_at_far = (
        dict(zip(keys, bounds.T.tolist())) for bounds in (tar, threshold, cosine_of(threshold)[::-1])
    )
    low, high = tar[:, len(keys) :].tolist()
    return Intervals(
        level, samples, accuracy, auc, eer, tar_at_far, threshold_at_far, cosine_at_far, low, high
    )


def share_interval(
    found: np.ndarray, people: np.ndarray, samples: int = SAMPLES, level: float = LEVEL, seed: int = 0
) -> list[float]:
    """Estimate the interval [low, high] of a share, such as that of the mates that are found first.

    Parameters
    ----------
    found : bool (n,)
        Of what the share is.
    people : int (n,)
        Whose each is: people are drawn again, with all that is theirs.
    samples, level, seed : int, float, int
        As of `intervals`.
    """
    person = np.unique(people, return_inverse=True)[1]
    theirs, hits = np.bincount(person), np.bincount(person, weights=found)
    count = len(theirs)
    times = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), samples)
    ends = [(1 - level) / 2, (1 + level) / 2]
    return np.quantile(times @ hits / (times @ theirs), ends).tolist()


def pair_weights(
    people: np.ndarray, issame: np.ndarray, generator: np.random.Generator
) -> Iterator[np.ndarray]:
    """Draw people again and again, and give how often each pair then counts: float (n,), whole numbers.

    Draws that leave no same or no different pair, which occur with few people, are drawn anew.
    Raises LatseError if all pairs are of one kind.
    """
    if issame.all() or not issame.any():
        raise LatseError("intervals need pairs of one person and of two")
    names, person = np.unique(people, return_inverse=True)
    left, right = person[0::2], person[1::2]
    while True:
        drawn = generator.integers(len(names), size=len(names))
        times = np.bincount(drawn, minlength=len(names)).astype(np.float64)
        weight = np.where(issame, times[left], times[left] * times[right])
        if weight[issame].any() and weight[~issame].any():
            yield weight
