"""A study's file: what its rows change of a recipe, on which data they learn, and which teach others."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, Sequence

from latse import recipe as recipes
from latse.errors import MOST, LatseError
from latse.eval.model_arguments import BASELINES
from latse.study.study_shown import NAME, Claim, Plot, Table, chosen, read_claims, read_plots, read_tables

NEEDED, OPTIONAL = ("recipe", "seeds", "rows"), ("noise", "means", "claims", "tables", "plots")
KINDS = ("mislabel", "distractor")
MEANS, DOMINANT = "means", "dominant"


class Outsider(NamedTuple):
    """A teacher that is no row: any model of `latse eval`, by which `latse filter --centres means` judges."""

    model: str
    centres: str


@dataclass(frozen=True)
class Row:
    """What a row is.

    Attributes
    ----------
    changes : dict
        Section of the recipe -> key -> value.
    noise : str or None
        On which noisy copy of the data it learns; None: on the data themselves.
    teacher : str, Outsider or None
        The row whose model of the same seed is its teacher, or one from elsewhere; None: it has no filter.
    start : str or None
        The row with whose model of the same seed it begins; None: with random parameters.
    centres : str or None
        By what a teacher that is a row judges, where not by rank: `DOMINANT` or `MEANS`.
    others : bool
        Whether it learns from the set of other people.
    model : str or None
        A baseline of `latse eval` that is judged instead of a network; it may learn from the row's data.
    """

    changes: dict[str, Any]
    noise: str | None = None
    teacher: str | Outsider | None = None
    start: str | None = None
    centres: str | None = None
    others: bool = False
    model: str | None = None

    @property
    def needs(self) -> list[str]:
        """The rows whose models it needs."""
        return [row for row in (self.teacher, self.start) if isinstance(row, str)]


@dataclass(frozen=True)
class Study:
    """What a study file says.

    Attributes
    ----------
    recipe : Path
        That the rows change.
    seeds : list of int
        At least one, each at least 0, none twice.
    rows : dict of str to Row
        By name, which is a folder's too, in the order of the file.
    order : list of str
        The names of the rows, each after those that it needs.
    noise : dict of str to dict
        By name, the fractions `mislabel` and `distractor` of a noisy copy, each from 0 to 1.
    claims : dict of str to Claim
        By what they say.
    tables, plots : dict of str to Table, dict of str to Plot
        By name.
    """

    recipe: Path
    seeds: list[int]
    rows: dict[str, Row]
    order: list[str]
    noise: dict[str, dict[str, float]]
    claims: dict[str, Claim]
    tables: dict[str, Table] = field(default_factory=dict)
    plots: dict[str, Plot] = field(default_factory=dict)


def read_study(path: str | os.PathLike) -> Study:
    """Read a study, shipped or a file; raise LatseError, naming file and key, if it is malformed."""
    path = recipes.find(path, shipped=recipes.STUDIES)
    if not path.exists():
        raise LatseError(f"cannot read the study {path}: {recipes.nothing(path, recipes.STUDIES)}")
    content = recipes.read_yaml(path, str(path))
    if not isinstance(content, dict) or not {*NEEDED} <= {*content} <= {*NEEDED, *OPTIONAL}:
        raise LatseError(
            f"{path} must hold the keys recipe, seeds and rows, perhaps noise, means, claims, tables "
            "and plots, and no others"
        )
    if not isinstance(content["recipe"], str):
        wrong = recipes.in_yaml(content["recipe"])
        raise LatseError(f"{path}: recipe is {wrong}, must be the name or the file of a recipe")
    noise = _noise(path, content.get("noise", {}))
    rows = _rows(path, content["rows"], noise)
    recipe, seeds = recipes.find(content["recipe"], path.parent), _seeds(f"{path}: seeds", content["seeds"])
    means = _means(path, content.get("means", []))
    names = [*rows]
    claims = read_claims(path, content.get("claims", {}), names)
    tables = read_tables(path, content.get("tables", {}), names)
    plots = read_plots(path, content.get("plots", {}), names)
    return Study(
        recipe,
        seeds,
        rows,
        _order(path, rows),
        noise,
        {said: claim.over_means(means) for said, claim in claims.items()},
        {name: replace(table, sets=means) for name, table in tables.items()},
        {name: plot._replace(sets=means) for name, plot in plots.items()},
    )


def part(study: Study, rows: Sequence[str] | None, seeds: Sequence[int] | None) -> Study:
    """Return a study of some rows, with those that they need, and of other seeds; None: as it is.

    What it claims and shows is of these rows only. `rows` may have `*`. Raises LatseError for a row that is
    none, and for a seed that is none or named twice.
    """
    wanted = {*chosen("--rows", rows, [*study.rows])} if rows else {*study.rows}
    for name in reversed(study.order):
        wanted |= {*study.rows[name].needs} if name in wanted else {*()}
    return replace(
        study,
        seeds=_seeds("--seeds", [*seeds]) if seeds else study.seeds,
        rows={name: row for name, row in study.rows.items() if name in wanted},
        order=[name for name in study.order if name in wanted],
        claims={sentence: claim for sentence, claim in study.claims.items() if {*claim.rows} <= wanted},
        tables={name: table.of(wanted) for name, table in study.tables.items() if table.of(wanted).rows},
    )


def _seeds(subject: str, seeds: Any) -> list[int]:
    are_numbers = isinstance(seeds, list) and all(type(seed) is int and 0 <= seed <= MOST for seed in seeds)
    wrong = f"{subject} is {recipes.in_yaml(seeds)}"
    if not are_numbers or not seeds:
        raise LatseError(f"{wrong}, must be a list of whole numbers from 0 to {MOST}")
    if len({*seeds}) < len(seeds):
        raise LatseError(f"{wrong}, must name each seed once")
    return seeds


def _means(path: Path, means: Any) -> tuple[str, ...]:
    if not isinstance(means, list) or not all(isinstance(name, str) for name in means):
        raise LatseError(f"{path}: means is {recipes.in_yaml(means)}, must be a list of sets of pairs")
    return tuple(means)


def _noise(path: Path, noise: Any) -> dict[str, dict[str, float]]:
    if not isinstance(noise, dict):
        raise LatseError(f"{path}: noise is {recipes.in_yaml(noise)}, must name fractions")
    for name, fractions in noise.items():
        if (
            not NAME.fullmatch(str(name))
            or not isinstance(fractions, dict)
            or not {*fractions} <= {*KINDS}
            or not all(type(value) in (int, float) and 0 <= value <= 1 for value in fractions.values())
        ):
            wrong = f"{recipes.in_yaml(name)}: {recipes.in_yaml(fractions)}"
            raise LatseError(
                f"{path}: the noise '{wrong}' must be named like a file and hold mislabel, distractor, or "
                "both, each from 0 to 1"
            )
    return {str(name): fractions for name, fractions in noise.items()}


def _rows(path: Path, rows: Any, noise: dict[str, dict[str, float]]) -> dict[str, Row]:
    if not isinstance(rows, dict) or not rows:
        raise LatseError(f"{path}: rows is {recipes.in_yaml(rows)}, must hold at least one row")
    read = {str(name): _row(path, name, row) for name, row in rows.items()}
    for name, row in read.items():
        if row.noise is not None and row.noise not in noise:
            raise LatseError(f"{path}: the row '{name}' has the noise {row.noise}, which is not described")
        if row.others and row.noise is not None:
            raise LatseError(f"{path}: the row '{name}' has noise, which the set of other people never has")
        for key, other in (("teacher", row.teacher), ("start", row.start)):
            if isinstance(other, str) and (other not in read or read[other].model):
                raise LatseError(
                    f"{path}: the row '{name}' has the {key} {other}, which is no row of a network"
                )
        if row.start and read[row.start].others != row.others:
            raise LatseError(f"{path}: the row '{name}' has the start {row.start}, which learns other people")
        teacher = read[row.teacher] if isinstance(row.teacher, str) else row
        if teacher.others != row.others and row.centres != MEANS:
            raise LatseError(
                f"{path}: the row '{name}' has the teacher {row.teacher}, which learns other people: write "
                f"{{row: {row.teacher}, centres: means}}"
            )
    return read


def _order(path: Path, rows: dict[str, Row]) -> list[str]:
    """Return the names of the rows, each after those that it needs; LatseError for a circle."""
    order: list[str] = []
    while left := [name for name in rows if name not in order]:
        ready = [name for name in left if {*rows[name].needs} <= {*order}]
        if not ready:
            raise LatseError(f"{path}: the row '{left[0]}' needs, by way of teachers and starts, itself")
        order += ready
    return order


def _row(path: Path, name: Any, content: Any) -> Row:
    if not NAME.fullmatch(str(name)) or not isinstance(content, (dict, type(None))):
        raise LatseError(
            f"{path}: the row '{recipes.in_yaml(name)}' must be named like a file and hold sections of a "
            "recipe"
        )
    changes = dict(content or {})
    others = changes.pop("others", False)
    if not isinstance(others, bool):
        wrong = recipes.in_yaml(others)
        raise LatseError(f"{path}: others of the row '{name}' is {wrong}, must be true or false")
    model = changes.pop("model", None)
    if model is not None and (model not in BASELINES or {*changes} - {"noise"}):
        must = f"the row '{name}' must hold model: one of {', '.join(BASELINES)}, perhaps noise, others"
        raise LatseError(f"{path}: {must}, and nothing else")
    named = {key: changes.pop(key, None) for key in ("noise", "teacher", "start")}
    if isinstance(named["teacher"], dict):
        centres = named["teacher"].get("centres")
        if {*named["teacher"]} == {"row", "centres"} and centres in (DOMINANT, MEANS):
            named["teacher"], named["centres"] = named["teacher"]["row"], centres
        else:
            named["teacher"] = _outsider(path, name, named["teacher"])
    for key, value in named.items():
        if not isinstance(value, (str, Outsider, type(None))):
            raise LatseError(
                f"{path}: the {key} of the row '{name}' is {recipes.in_yaml(value)}, must be a name"
            )
    return Row(changes, others=others, model=model, **named)


def _outsider(path: Path, name: Any, content: dict) -> Outsider:
    """Return a teacher from elsewhere, its file as seen from the folder of the study."""
    model = content.get("model")
    if {*content} != {"model", "centres"} or content["centres"] != MEANS or not isinstance(model, str):
        wrong = recipes.in_yaml(content)
        must = "must be a row, {row: NAME, centres: dominant or means} or {model: WHAT, centres: means}"
        raise LatseError(f"{path}: the teacher of the row '{name}' is {wrong}, {must}")
    return Outsider(model if model in BASELINES else str(path.parent / model), MEANS)
