"""Which photographs there are of whom: folders or a list, as one file that millions of them fit in."""

from __future__ import annotations

import array
import contextlib
import itertools
import json
import os
from pathlib import Path
from typing import Iterable, Iterator, NamedTuple

import numpy as np

from latse.errors import LatseError

FOLDERS = "put them into one folder for each person, or write a list"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Photograph(NamedTuple):
    """One photograph: whose (empty: nobody's), its path below the root, its bytes and time of change (ns).

    A path that ends in / stands for a person's folder without any photograph.
    """

    person: str
    path: str
    size: int
    changed: int


def listed(source: Path, root: Path | None = None) -> Iterator[Photograph]:
    """Iterate the photographs of a folder of people, or of a list file, in the order of the people's names.

    A folder has a folder for each person, in which all files are photographs, at any depth; links are
    followed, names that begin with a dot are passed over. A list has lines `path<TAB>person`, and paths are
    relative to `root`, by default the list's folder. Raises LatseError if the folder or the list cannot be
    read, or a line of the list is malformed.
    """
    try:
        if source.is_dir():
            yield from _in_folders(source)
        else:
            yield from _in_list(source, root or source.parent)
    except OSError as error:
        raise LatseError(f"cannot read {error.filename or source}: {error.strerror or error}") from error


def write_list(photographs: Iterable[Photograph], file: Path) -> int:
    """Write a line of JSON for each photograph; return how many."""
    count = 0
    with file.open("w", encoding="ascii") as output:
        for photograph in photographs:
            output.write(json.dumps(photograph) + "\n")
            count += 1
    return count


def read_list(file: Path, offset: int = 0) -> Iterator[Photograph]:
    """Iterate the photographs of a list that `write_list` wrote, from the byte `offset` on."""
    with file.open("rb") as lines:
        lines.seek(offset)
        for line in lines:
            yield Photograph(*json.loads(line))


def offsets(file: Path, step: int) -> list[int]:
    """Return the byte at which every `step`-th line begins."""
    return [offset for number, (offset, _) in enumerate(_lines(file)) if number % step == 0]


def _in_folders(root: Path) -> Iterator[Photograph]:
    for entry in sorted(_visible(root), key=os.DirEntry.is_dir):
        if entry.is_dir():
            paths = _below(root, entry.name, (root.stat(),))
            first = next(paths, f"{entry.name}/")  # of an empty folder: itself
            for path in itertools.chain([first], paths):
                yield _photograph(entry.name, root, path)
        else:
            yield _photograph("", root, entry.name)


def _below(root: Path, folder: str, above: tuple[os.stat_result, ...]) -> Iterator[str]:
    here = (root / folder).stat()
    if any(os.path.samestat(here, outer) for outer in above):
        return  # a link that leads back up
    for entry in _visible(root / folder):
        path = f"{folder}/{entry.name}"
        if entry.is_dir():
            yield from _below(root, path, (*above, here))
        else:
            yield path


def _visible(folder: Path) -> list[os.DirEntry]:
    with os.scandir(folder) as entries:
        return sorted((entry for entry in entries if entry.name[0] != "."), key=lambda entry: entry.name)


def _in_list(file: Path, root: Path) -> Iterator[Photograph]:
    """Read a list in two passes: whose each line is, then the lines person by person; 12 bytes for each."""
    numbers: dict[str, int] = {}
    person, offset = array.array("i"), array.array("q")
    for at, line in _lines(file):
        if line.strip():
            name = _split(file, at, line)[1]
            person.append(numbers.setdefault(name, len(numbers)))
            offset.append(at)
    names = list(numbers)
    rank = np.argsort(sorted(range(len(names)), key=names.__getitem__))
    order = np.argsort(rank[np.asarray(person)], kind="stable")
    before, paths = None, set()
    with file.open("rb") as lines:
        for row in order:
            lines.seek(offset[row])
            path, name = _split(file, offset[row], lines.readline())
            if name != before:
                before, paths = name, set()
            if path in paths:
                raise LatseError(f"{file} names {path} twice for {name}")
            paths.add(path)
            yield _photograph(name, root, path)


def _lines(file: Path) -> Iterator[tuple[int, bytes]]:
    """Iterate (the byte at which it begins, line)."""
    at = 0
    with file.open("rb") as lines:
        for line in lines:
            yield at, line
            at += len(line)


def _split(file: Path, at: int, line: bytes) -> tuple[str, str]:
    line = line[len(BYTE_ORDER_MARK) :] if at == 0 and line.startswith(BYTE_ORDER_MARK) else line
    path, tab, name = (os.fsdecode(part) for part in line.rstrip(b"\r\n").rpartition(b"\t"))
    if not (path and tab and name) or "\0" in path or path.endswith("/"):
        raise LatseError(f"{file}: the line at byte {at} is not a path, a tab and a person")
    return path, name


def _photograph(person: str, root: Path, path: str) -> Photograph:
    size, changed = 0, 0
    with contextlib.suppress(OSError):  # of a link that leads nowhere: the report will say so
        if not path.endswith("/"):
            status = (root / path).stat()
            size, changed = status.st_size, status.st_mtime_ns
    return Photograph(person, path, size, changed)
