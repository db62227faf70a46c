"""What a study's file says of its results: claims, tables and plots."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any, Collection, Mapping, NamedTuple, Sequence

from latse import recipe as recipes
from latse.errors import LatseError
from latse.study.study_columns import ACCURACY, DEFAULT, EACH, ON, column, is_mean

NAME = re.compile(r"[A-Za-z0-9][\w.+=-]*")
PAIR = "must name two rows, the better one first"
LONG = (
    "must be two rows, the better one first, or {better: ROW, than: ROW} or {gain: [ROW, ROW], "
    "over: [ROW, ROW]}, perhaps with by and sets"
)
WORDS = ("better", "than")
KINDS = {"dots": 1, "scatter": 2, "curve": 1}  # of plots -> how many columns


@dataclass(frozen=True)
class Claim:
    """That one row is better than another, or its gain is larger than that of another pair of rows.

    Attributes
    ----------
    gain : tuple of two str
        Two rows, the better one first.
    over : tuple of two str or None
        Two others, whose difference is less.
    by : str
        The column.
    sets : tuple of str
        The sets of pairs over which that column is a mean; none: all.
    """

    gain: tuple[str, str]
    over: tuple[str, str] | None = None
    by: str = ACCURACY
    sets: tuple[str, ...] = ()

    def over_means(self, sets: tuple[str, ...]) -> Claim:
        """Return the claim over these sets, if its column is a mean and it names none itself."""
        return self if self.sets or not is_mean(self.by) else replace(self, sets=sets)

    @property
    def rows(self) -> tuple[str, ...]:
        """The rows that it names."""
        return (*self.gain, *(self.over or ()))

    def as_dict(self) -> dict[str, Any]:
        """Return it as study.json has it."""
        if self.over:
            return {"gain": [*self.gain], "over": [*self.over], "by": self.by}
        better, than = self.gain
        return {"better": better, "than": than, "by": self.by}


@dataclass(frozen=True)
class Table:
    """Which rows stand together, heading -> column, and the row with which the others are compared.

    Means go over `sets`, none: over all.
    """

    rows: tuple[str, ...]
    columns: dict[str, str]
    base: str | None = None
    is_default: bool = False
    sets: tuple[str, ...] = ()

    def of(self, rows: Collection[str]) -> Table:
        """Return the table of those rows that are among `rows`; without its base if that is not."""
        base = self.base if self.base in rows else None
        return replace(self, rows=tuple(row for row in self.rows if row in rows), base=base)


class Plot(NamedTuple):
    """A picture of some rows: its kind, of `KINDS`, and its columns, of a curve its metric.

    Means go over `sets`, none: over all.
    """

    rows: tuple[str, ...]
    kind: str
    columns: tuple[str, ...]
    sets: tuple[str, ...] = ()


def chosen(subject: str, names: Any, rows: Sequence[str]) -> tuple[str, ...]:
    """Return the rows that a list names, in its order; a name may have `*`.

    Raises LatseError, whose sentence begins with `subject`, if it is no list, or a name is of no row.
    """
    if not isinstance(names, (list, tuple)) or not names:
        raise LatseError(f"{subject} is {recipes.in_yaml(names)}, must be a list of rows")
    found: dict[str, None] = {}
    for name in map(str, names):
        fitting = [row for row in rows if fnmatchcase(row, name)]
        if not fitting:
            raise LatseError(f"{subject} names {name}, which is no row")
        found.update(dict.fromkeys(fitting))
    return (*found,)


def read_claims(path: object, claims: Any, rows: Sequence[str]) -> dict[str, Claim]:
    """Return the claims of the file `path` by what they say; raise LatseError for a malformed one."""
    if not isinstance(claims, dict):
        raise LatseError(f"{path}: claims is {recipes.in_yaml(claims)}, must be sentences with two rows each")
    return {str(sentence): _claim(path, sentence, content, rows) for sentence, content in claims.items()}


def read_tables(path: object, tables: Any, rows: Sequence[str]) -> dict[str, Table]:
    """Return the tables of the file `path` by name; raise LatseError for a malformed one."""
    read = {}
    for name, content in _named(path, "tables", tables, {"rows", "columns", "base"}).items():
        subject = f"{path}: the table '{name}'"
        shown = chosen(f"{subject}: rows", content.get("rows"), rows)
        base = content.get("base")
        if base is not None and str(base) not in shown:
            raise LatseError(f"{subject} has the base {recipes.in_yaml(base)}, which is none of its rows")
        asked = content.get("columns", [*DEFAULT])
        columns = asked if isinstance(asked, dict) else _headings(subject, asked)
        for one in columns.values():
            _check_column(subject, one.replace(f"{ON}{EACH}", "") if isinstance(one, str) else one)
        columns = {str(heading): one for heading, one in columns.items()}
        read[name] = Table(shown, columns, base and str(base), "columns" not in content)
    return read


def read_plots(path: object, plots: Any, rows: Sequence[str]) -> dict[str, Plot]:
    """Return the plots of the file `path` by name; raise LatseError for a malformed one."""
    read = {}
    for name, content in _named(path, "plots", plots, {"rows", *KINDS}).items():
        subject = f"{path}: the plot '{name}'"
        kinds = [kind for kind in KINDS if kind in content]
        columns = content[kinds[0]] if len(kinds) == 1 else None
        columns = [columns] if isinstance(columns, str) else columns
        if not isinstance(columns, list) or len(columns) != KINDS[kinds[0]]:
            raise LatseError(
                f"{subject} must have one of dots: COLUMN, scatter: [COLUMN, COLUMN] and curve: METRIC"
            )
        for one in columns if kinds[0] != "curve" else ():
            _check_column(subject, one)
        shown = chosen(f"{subject}: rows", content.get("rows"), rows)
        read[name] = Plot(shown, kinds[0], tuple(map(str, columns)))
    return read


def _claim(path: object, sentence: Any, content: Any, rows: Sequence[str]) -> Claim:
    said = f"{path}: the claim '{recipes.in_yaml(sentence)}: {recipes.in_yaml(content)}'"
    if not isinstance(content, dict):
        return Claim(_pair(f"{said} {PAIR}", content, rows))
    keys = {*content} - {"by", "sets"}
    if keys == {*WORDS}:
        pairs = [_pair(f"{said} {PAIR}", [content[word] for word in WORDS], rows)]
    elif keys == {"gain", "over"}:
        pairs = [_pair(f"{said} {PAIR}, in gain and in over", content[key], rows) for key in ("gain", "over")]
    else:
        raise LatseError(f"{said} {LONG}")
    by, sets = content.get("by", ACCURACY), content.get("sets", [])
    if not isinstance(sets, list) or not all(isinstance(title, str) for title in sets):
        raise LatseError(f"{said} must have a list of sets of pairs in sets")
    _check_column(said, by, sets)
    return Claim(pairs[0], pairs[1] if len(pairs) > 1 else None, by, tuple(sets))


def _pair(sentence: str, pair: Any, rows: Sequence[str]) -> tuple[str, str]:
    are_rows = isinstance(pair, list) and len(pair) == 2 and all(str(row) in rows for row in pair)
    if not are_rows or pair[0] == pair[1]:
        raise LatseError(sentence)
    better, than = map(str, pair)
    return better, than


def _named(path: object, key: str, content: Any, keys: Collection[str]) -> dict[str, Mapping[str, Any]]:
    """Return the objects of a key by their names; raise LatseError if a name or a key in one is wrong."""
    if not isinstance(content, dict):
        raise LatseError(f"{path}: {key} is {recipes.in_yaml(content)}, must be names with rows each")
    for name, one in content.items():
        if not NAME.fullmatch(str(name)) or not isinstance(one, dict) or not {*one} <= {*keys}:
            wrong = f"{recipes.in_yaml(name)}: {recipes.in_yaml(one)}"
            must = f"must be named like a file and hold {', '.join(sorted(keys))}, and no others"
            raise LatseError(f"{path}: {key}: '{wrong}' {must}")
    return {str(name): one for name, one in content.items()}


def _headings(subject: str, columns: Any) -> dict[str, str]:
    if not isinstance(columns, list) or not columns or not all(isinstance(one, str) for one in columns):
        wrong = recipes.in_yaml(columns)
        raise LatseError(
            f"{subject}: columns is {wrong}, must be a list of columns, or headings with one each"
        )
    return {one: one for one in columns}


def _check_column(subject: str, name: Any, sets: Sequence[str] = ()) -> None:
    if not isinstance(name, str):
        raise LatseError(f"{subject}: {recipes.in_yaml(name)} is no column, which is a text")
    try:
        column(name, sets)
    except LatseError as error:
        raise LatseError(f"{subject}: {error}") from error
