"""Lists of photographs in the formats that several programs write, told apart by all lines of a list."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Any, Callable, Iterable, NamedTuple, Sequence

from latse.errors import LatseError
from latse.files import SPACE

SHOWN = 80  # characters of a line that a message shows
WHOLE = re.compile(r"([0-9]{1,18})(\.0*)?")  # im2rec writes the label 3 as 3.000000


class ListFormat(NamedTuple):
    """One format of lists.

    title : one of its lines, as messages say it; read : maps a line to what it says, None if it is no line of
    this format; note : what else its reader should know
    """

    title: str
    read: Callable[[str], Any]
    note: str = ""

    def __str__(self) -> str:
        return f"{self.title}{self.note and '; '}{self.note}"


def refuse_outside(root: str | os.PathLike, path: str, at: str) -> None:
    """Raise LatseError, which says `at` which line, if a path of a list leads out of the folder `root`.

    Links in the folder may: they are its owner's.
    """
    folder = os.path.normpath(Path(root).absolute())
    whole = os.path.normpath(Path(folder, path))
    if os.path.commonpath([folder, whole]) != folder:
        raise LatseError(f"{at}: {path} leads out of {root}")


def recognise(
    file: str | os.PathLike, formats: Sequence[ListFormat], lines: Iterable[tuple[int, str]]
) -> ListFormat:
    """Return the one of the formats that every line has; `lines` are those of `latse.files.read_lines`.

    Raises LatseError, naming the line, for one that has none of the formats, or another one than the lines
    above it; also if there is no line, or all have two formats.
    """
    left, above = list(formats), 0
    for above, line in lines:
        fitting = [form for form in left if form.read(line)]
        if not fitting:
            raise LatseError(f"{file}, line {above}{_odd(line, formats, left)}")
        left = fitting
    if not above:
        raise LatseError(f"{file} is empty")
    if len(left) > 1:
        both = " and as ".join(form.title for form in left)
        raise LatseError(f"{file} can be read as {both}: names with an ending, as 1.jpg, tell which it is")
    return left[0]


def fields(line: str, separator: str = "\t") -> list[str]:
    """Return what stands between the separators, without white space around it."""
    return [field.strip(SPACE) for field in line.split(separator)]


def is_file(path: str) -> bool:
    """Tell whether a path in a list can be that of a file."""
    return bool(path) and "\0" not in path and not path.endswith("/")


def _odd(line: str, formats: Sequence[ListFormat], above: Sequence[ListFormat]) -> str:
    for form in formats:
        if form.read(line):
            titles = " or ".join(other.title for other in above)
            return f" is {form.title}, the lines above are {titles}: a list has one format"
    known = "; ".join(form.title for form in formats)
    return f": {line[:SHOWN]!r} has no format that is understood: {known}"


def _named(line: str) -> tuple[str, str] | None:
    """Return the path and the person of a line."""
    path, *person = fields(line)
    return (path, person[0]) if len(person) == 1 and person[0] and is_file(path) else None


def _im2rec(line: str) -> tuple[str, int] | None:
    """Return the path and the first label of a line."""
    *numbers, path = fields(line)
    if len(numbers) < 2 or not WHOLE.fullmatch(numbers[0]):
        return None
    return _labelled(path, *numbers[1:])


def _insightface(line: str) -> tuple[str, int] | None:
    """Return the path and the label of a line, behind which a box and points may stand."""
    flag, *others = fields(line)
    return _labelled(*others) if flag in ("0", "1") and len(others) > 1 else None


def _labelled(path: str, label: str, *numbers: str) -> tuple[str, int] | None:
    """Return path and label if they are such, and the others numbers."""
    whole = WHOLE.fullmatch(label)
    return (path, int(whole[1])) if whole and is_file(path) and all(map(_is_number, numbers)) else None


def _is_number(field: str) -> bool:
    try:
        return math.isfinite(float(field))
    except ValueError:
        return False


# What they read is (path, person), the person a name or a label.
PHOTOGRAPHS = (
    ListFormat("PATH<TAB>PERSON", _named),
    ListFormat("im2rec's NUMBER<TAB>LABEL<TAB>PATH", _im2rec, "of several labels the first counts"),
    ListFormat(
        "insightface's 0|1<TAB>PATH<TAB>LABEL",
        _insightface,
        "flags, boxes and points in it do not count, --aligned and --landmarks do",
    ),
)
