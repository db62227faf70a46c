"""Claims of a study, judged by the results of its rows."""

from __future__ import annotations

import math
from typing import Any, Mapping, Sequence

import numpy as np
from scipy import stats

from latse.errors import LatseError
from latse.study.study_columns import ON, Result, column
from latse.study.study_shown import Claim
from latse.text_table import NOTHING

LEVEL = 0.95
HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "undecided"
Results = Mapping["tuple[str, int]", Result]  # by row and seed; some may be missing


def judge(claim: Claim, results: Results) -> dict[str, Any]:
    """Judge a claim by the seeds with which all its rows have results.

    Returns
    -------
    dict
        `seeds`, how many; `effect`, the mean over seeds of the difference of the two rows in the claim's
        column, or of the difference of two such differences; `interval`, the 95 % interval of that mean by
        Student's t, None below two seeds; `verdict`: `HOLDS` if the interval lies above 0 (below, where less
        is better), `FAILS` if on the other side, else `UNDECIDED`; `sets`, the effect on each set of pairs,
        empty where the column is no mean over them. Without seeds the effects are None. The interval says how
        far other seeds would move the effect, not what other people would.
    """
    asked = column(claim.by, claim.sets)
    titles = claim.sets or [*next(iter(results.values()), {"sets": {}})["sets"]]
    effect, interval, seeds = difference(claim, results, claim.sets)
    each = titles if asked.is_by_set else ()
    low, high = (asked.sign * bound for bound in interval) if interval else (-math.inf, math.inf)
    low, high = min(low, high), max(low, high)
    return {
        "seeds": seeds,
        "effect": effect,
        "interval": interval,
        "verdict": HOLDS if low > 0 else FAILS if high < 0 else UNDECIDED,
        "sets": {title: difference(claim, results, [title])[0] for title in each},
    }


def difference(
    claim: Claim, results: Results, sets: Sequence[str]
) -> tuple[float | None, list[float] | None, int]:
    """Return a claim's effect on some sets, none: all, its interval, and the number of seeds: see `judge`."""
    signs, found = (1, -1, -1, 1), []
    of = column(claim.by, sets).of
    for seed in dict.fromkeys(seed for _, seed in results):
        values = [of(results[row, seed]) if (row, seed) in results else None for row in claim.rows]
        known = [sign * value for sign, value in zip(signs, values) if value is not None]
        found += [sum(known)] if len(known) == len(values) else []
    return (*mean_and_interval(found), len(found))


def mean_and_interval(values: Sequence[float]) -> tuple[float | None, list[float] | None]:
    """Return the mean over seeds and its 95 % interval by Student's t.

    None of no values; the interval is None of one.
    """
    if not len(values):
        return None, None
    mean = float(np.mean(values))
    if len(values) == 1:
        return mean, None
    half = float(stats.t.ppf(0.5 + LEVEL / 2, len(values) - 1) * stats.sem(values))
    return mean, [mean - half, mean + half]


def refuse_unknown_sets(sentences: Mapping[str, Claim], titles: Sequence[str]) -> None:
    """Raise LatseError if a claim names a set of pairs that is none of `titles`."""
    for sentence, claim in sentences.items():
        named = {*claim.sets, *filter(None, [claim.by.partition(ON)[2]])}
        for title in sorted(named - {*titles}):
            raise LatseError(f"the claim '{sentence}' is of the set {title}; there are {', '.join(titles)}")


def claim_table(claims: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """Return the cells of a table of claims, head first, from the `claims` of study.json, not none.

    Shares are in points, other figures as in the tables of the study.
    """
    titles = [*dict.fromkeys(title for claim in claims.values() for title in claim["sets"])]
    rows = []
    for sentence, claim in claims.items():
        asked = column(claim["by"])
        interval = " to ".join(asked.shown(bound, "+") for bound in claim["interval"] or ()) or NOTHING
        sets = [asked.shown(claim["sets"].get(title), "+") for title in titles]
        effect = asked.shown(claim["effect"], "+")
        rows.append([sentence, claim["verdict"], claim["by"], effect, interval, str(claim["seeds"]), *sets])
    return [["claim", "verdict", "by", "effect", f"{100 * LEVEL:g} % interval", "seeds", *titles], *rows]
