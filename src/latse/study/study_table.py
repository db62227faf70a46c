"""What comes out of a study: the figures of each run, their mean and deviation over the seeds, and tables."""

from __future__ import annotations

import math
import statistics
from typing import Any, Mapping, Sequence

import numpy as np
from scipy import stats

from latse.study.study_file import Outsider, Study
from latse.text_table import NOTHING

# Title of a column of the table -> where its figure is in what a result says of one set.
COLUMNS = {
    "accuracy": ("accuracy",),
    "TAR@1%FAR": ("tar_at_far", "0.01"),
    "AUC": ("auc",),
    "SSIM": ("restoration", "ssim"),
}
LEVEL = 0.95
HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "undecided"


def report(study: Study, results: Mapping[tuple[str, int], Mapping[str, Any]]) -> dict[str, Any]:
    """Return what study.json says of a study, given the result of each row and seed."""
    rows = {}
    for name, row in study.rows.items():
        sets = {seed: results[name, seed]["sets"] for seed in study.seeds}
        rows[name] = {
            "changes": row.changes,
            "noise": row.noise,
            "teacher": row.teacher._asdict() if isinstance(row.teacher, Outsider) else row.teacher,
            "start": row.start,
            "sets": {
                title: {
                    column: summary([sets[seed][title] for seed in study.seeds], path)
                    for column, path in COLUMNS.items()
                }
                for title in sets[study.seeds[0]]
            },
            "identification": _ranks([results[name, seed]["identification"] for seed in study.seeds]),
            "seeds": sets,
        }
    claims = {
        sentence: {**claim._asdict(), **judge(rows[claim.better]["seeds"], rows[claim.than]["seeds"])}
        for sentence, claim in study.claims.items()
    }
    return {"recipe": study.recipe.stem, "noise": study.noise, "rows": rows, "claims": claims}


def _ranks(found: list[Mapping[str, Any] | None]) -> dict[str, Any]:
    """Return by number of distractors mean and deviation of rank 1 over the seeds; nothing if none has it."""
    sizes = found[0]["sizes"] if found[0] else ()
    return {f"rank 1 @{size}": summary(found, ("sizes", size, "rank_1")) for size in sizes}


def judge(better: Mapping[int, Any], than: Mapping[int, Any]) -> dict[str, Any]:
    """Judge the claim that a row is more accurate than another, paired by seed.

    Parameters
    ----------
    better, than : mapping of int to dict
        By seed, what the results of a row say of each set of pairs.

    Returns
    -------
    dict
        `effect`, the mean over seeds of the difference of the accuracies, each a mean over the sets of pairs;
        `interval`, the 95 % interval of that mean by Student's t, None of a single seed; `verdict`: `HOLDS`
        if the interval lies above 0, `FAILS` if below, else `UNDECIDED`; `sets`, the mean of each set. The
        interval says how far other seeds would move the effect, not what other people would.
    """
    titles = [*next(iter(better.values()))]  # the results of other seeds may have them in another order
    gains = [
        [sets[title]["accuracy"] - than[seed][title]["accuracy"] for title in titles]
        for seed, sets in better.items()
    ]
    differences = np.array(gains)
    by_seed = differences.mean(axis=1)
    effect, interval = float(by_seed.mean()), None
    if len(by_seed) > 1:
        half = float(stats.t.ppf(0.5 + LEVEL / 2, len(by_seed) - 1) * stats.sem(by_seed))
        interval = [effect - half, effect + half]
    low, high = interval or (-math.inf, math.inf)
    verdict = HOLDS if low > 0 else FAILS if high < 0 else UNDECIDED
    means = dict(zip(titles, differences.mean(axis=0).tolist()))
    return {"effect": effect, "interval": interval, "verdict": verdict, "sets": means}


def claim_table(claims: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """Return the cells of a table of claims, head first, from the `claims` of study.json, not none."""
    titles = [*next(iter(claims.values()))["sets"]]
    rows = []
    for sentence, claim in claims.items():
        interval = " to ".join(f"{100 * bound:+.2f}" for bound in claim["interval"] or ()) or NOTHING
        effects = [f"{100 * effect:+.2f}" for effect in (claim["effect"], *claim["sets"].values())]
        rows.append([sentence, claim["verdict"], effects[0], interval, *effects[1:]])
    return [["claim", "verdict", "points", f"{100 * LEVEL:g} % interval", *titles], *rows]


def summary(per_seed: Sequence[Mapping[str, Any] | None], path: tuple[str, ...]) -> dict[str, float] | None:
    """Return mean and standard deviation of a figure over the seeds; None if a seed has none."""
    values: list[Any] = list(per_seed)
    for key in path:
        values = [value and value.get(key) for value in values]
    if None in values:
        return None
    return {"mean": statistics.fmean(values), "std": statistics.stdev(values) if len(values) > 1 else 0.0}


def tables(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, list[list[str]]]:
    """Return a table for each set of pairs, its cells in percent, head first, from the `rows` of study.json.

    A column without a figure, such as SSIM where no row has a decoder, is left out. Another table is that of
    identification, if there is any.
    """
    found = {title: _table({row: what["sets"][title] for row, what in rows.items()}) for title in _sets(rows)}
    ranks = {row: what["identification"] for row, what in rows.items()}
    return {**found, "found first among distractors": _table(ranks)} if any(ranks.values()) else found


def _sets(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return [*next(iter(rows.values()))["sets"]]


def _table(rows: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    columns = [column for column in next(iter(rows.values())) if any(row[column] for row in rows.values())]

    def cell(figure: Mapping[str, float] | None) -> str:
        return NOTHING if figure is None else f"{100 * figure['mean']:.2f} ± {100 * figure['std']:.2f}"

    return [["", *columns], *([name, *(cell(row[key]) for key in columns)] for name, row in rows.items())]
