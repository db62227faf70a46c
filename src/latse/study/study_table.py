"""What comes out of a study: the figures of each run, their mean and deviation over the seeds, and tables."""

from __future__ import annotations

import statistics
from typing import Any, Mapping, Sequence

from latse.recipe import in_yaml
from latse.study.study_claims import Results, difference, judge
from latse.study.study_columns import Column, averaged, column, expanded, in_set, is_mean
from latse.study.study_file import Outsider, Row, Study
from latse.study.study_shown import Claim, Table
from latse.text_table import NOTHING

# Title of a column of the table of one set -> where its figure is in what a result says of the set.
COLUMNS = {title: in_set(title) for title in ("accuracy", "TAR@1%FAR", "AUC", "SSIM")}


def report(study: Study, results: Results) -> dict[str, Any]:
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
        sentence: {**claim.as_dict(), **judge(claim, results)} for sentence, claim in study.claims.items()
    }
    return {"recipe": study.recipe.stem, "noise": study.noise, "rows": rows, "claims": claims}


def _ranks(found: list[Mapping[str, Any] | None]) -> dict[str, Any]:
    """Return by number of distractors mean and deviation of rank 1 over the seeds; nothing if none has it."""
    sizes = found[0]["sizes"] if found[0] else ()
    return {f"rank 1 @{size}": summary(found, ("sizes", size, "rank_1")) for size in sizes}


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


def named_table(study: Study, table: Table, results: Results) -> list[list[str]]:
    """Return the cells of a table that the study's file describes, head first.

    A figure is mean ± standard deviation over the seeds that have one; seeds are counted where some are
    missing. A default column without any figure is left out. With a `base` a column says by how much the
    first column's figure is above the base's, paired by seed, and its 95 % interval.
    """
    titles = [*next(iter(results.values()), {"sets": {}})["sets"]]
    columns = {
        heading: averaged(name, table.sets) for heading, name in expanded(table.columns, titles).items()
    }
    names = {heading for heading, one in columns.items() if heading == one.name}
    runs = {row: [results[row, seed] for seed in study.seeds if (row, seed) in results] for row in table.rows}
    cells = {
        heading: [_cell(one, [one.of(result) for result in found]) for found in runs.values()]
        for heading, one in columns.items()
    }
    shown = {
        heading: rows
        for heading, rows in cells.items()
        if not table.is_default or any(cell != NOTHING for cell in rows)
    }
    if table.base:
        heading, by = next(iter(columns.items()))
        shown[f"{heading} above {table.base}"] = [_gain(row, table, by.name, results) for row in table.rows]
    if any(len(found) < len(study.seeds) for found in runs.values()):
        shown["seeds"] = [f"{len(found)} of {len(study.seeds)}" for found in runs.values()]
    base = study.rows[table.base] if table.base else None
    what = [changes(study.rows[row], None if row == table.base else base) for row in table.rows]
    heads = ["", "what it changes", *(columns[key].label if key in names else key for key in shown)]
    return [heads, *([*row] for row in zip(table.rows, what, *shown.values()))]


def changes(row: Row, base: Row | None = None) -> str:
    """Return what a row changes of the recipe, or what is another than in the row `base`."""
    own, other = flat(row), flat(base) if base else {}
    said = [
        f"{key}: {in_yaml(value)}" for key, value in own.items() if key not in other or other[key] != value
    ]
    said += [f"{key} as in the recipe" if "." in key else f"no {key}" for key in other if key not in own]
    return ", ".join(said) or NOTHING


def flat(row: Row) -> dict[str, Any]:
    """Return section.key -> value of what a row changes, and those of noise, teacher, … that it has."""
    sections = {name: keys if isinstance(keys, Mapping) else {} for name, keys in row.changes.items()}
    found = {f"{name}.{key}": value for name, keys in sections.items() for key, value in keys.items()}
    teacher = row.teacher.model.rpartition("/")[2] if isinstance(row.teacher, Outsider) else row.teacher
    named = {"noise": row.noise, "teacher": teacher, "centres": row.centres, "start": row.start}
    named.update(others=row.others or None, model=row.model)
    return {**found, **{key: value for key, value in named.items() if value is not None}}


def _cell(one: Column, values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return NOTHING
    spread = f" ± {one.shown(statistics.stdev(known))}" if len(known) > 1 else ""
    return f"{one.shown(statistics.fmean(known))}{spread}"


def _gain(row: str, table: Table, by: str, results: Results) -> str:
    """Return by how much a row is above the table's base, with the interval."""
    if table.base is None or row == table.base:
        return NOTHING
    sets = table.sets if is_mean(by) else ()
    one, (effect, interval, _) = column(by), difference(Claim((row, table.base), by=by), results, sets)
    bounds = f" ({' to '.join(one.shown(bound, '+') for bound in interval)})" if interval else ""
    return f"{one.shown(effect, '+')}{bounds}"
