"""Which photographs there are of whom: folders or a list, as one file that millions of them fit in."""

from __future__ import annotations

import array
import contextlib
import itertools
import json
import os
import tempfile
from pathlib import Path
from typing import Callable, Iterable, Iterator, NamedTuple

import numpy as np

from latse.data.images import is_image_file
from latse.data.photographs.list_formats import PHOTOGRAPHS, recognise, refuse_outside
from latse.errors import LatseError
from latse.files import NAMES, explained, read_lines, refuse_irregular

FOLDERS = "put them into one folder for each person, or write a list"


class Photograph(NamedTuple):
    """One photograph: whose (empty: nobody's), its path below the root, its bytes and time of change (ns).

    A path that ends in / stands for a person's folder without any photograph.
    """

    person: str
    path: str
    size: int
    changed: int


def listed(
    source: Path, root: Path | None = None, say: Callable[[str], None] = print
) -> Iterator[Photograph]:
    """Iterate the photographs of a folder of people, or of a list file, in the order of the people's names.

    A folder has a folder for each person, in which all files are photographs, at any depth; links are
    followed, names that begin with a dot are passed over. A list has one of the formats
    `list_formats.PHOTOGRAPHS`, which `say` is told, and paths are relative to `root`, by default the list's
    folder; labels stand for people, in the order of numbers. Raises LatseError if the folder or the list
    cannot be read, or a line of the list is malformed.
    """
    try:
        if source.is_dir():
            yield from _in_folders(source)
        else:
            yield from _in_list(source, root or source.parent, say)
    except OSError as error:
        raise LatseError(f"cannot read {error.filename or source}: {error.strerror or error}") from error


def images_in(folder: Path, say: Callable[[str], None] = print) -> list[Photograph]:
    """Return the photographs in a folder of people that are images by their first bytes.

    Of other files `say` is told how many there are. Raises LatseError as `listed`.
    """
    files = [file for file in listed(folder) if not file.path.endswith("/")]
    images = [file for file in files if is_image_file(folder / file.path)]
    if len(images) < len(files):
        others = {file.path for file in files}.difference(image.path for image in images)
        first = next(file.path for file in files if file.path in others)
        say(told(len(others), folder / first))
    return images


def told(count: int, first: str | os.PathLike) -> str:
    """Return the sentence on `count` files, 1 or more, that are no images."""
    are = "file is no image" if count == 1 else "files are no images"
    return f"{count} {are} that OpenCV reads, first {first}"


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


def _in_list(file: Path, root: Path, say: Callable[[str], None]) -> Iterator[Photograph]:
    """Read a list: its format, whose each line is, then the lines person by person.

    In memory are 12 bytes for each, the paths in a temporary file.
    """
    refuse_irregular(file)  # it is read twice
    form = recognise(file, PHOTOGRAPHS, read_lines(file, NAMES))
    say(f"{file} is read as {form}")
    numbers: dict[str | int, int] = {}
    person, end = array.array("i"), array.array("q", [0])
    failure = "cannot write a temporary file (TMPDIR says where)"
    with explained(failure), tempfile.TemporaryFile() as paths:
        for number, line in read_lines(file, NAMES):
            path, name = form.read(line)
            refuse_outside(root, path, f"{file}, line {number}")
            person.append(numbers.setdefault(name, len(numbers)))
            end.append(end[-1] + paths.write(path.encode("utf-8", NAMES)))
        names = list(numbers)
        rank = np.argsort(sorted(range(len(names)), key=names.__getitem__))
        before, known = None, set()
        for row in np.argsort(rank[np.asarray(person)], kind="stable"):
            paths.seek(end[row])
            path, name = paths.read(end[row + 1] - end[row]).decode("utf-8", NAMES), names[person[row]]
            if name != before:
                before, known = name, set()
            if path in known:
                raise LatseError(f"{file} names {path} twice for {name}")
            known.add(path)
            yield _photograph(str(name), root, path)


def _lines(file: Path) -> Iterator[tuple[int, bytes]]:
    """Iterate (the byte at which it begins, line)."""
    at = 0
    with file.open("rb") as lines:
        for line in lines:
            yield at, line
            at += len(line)


def _photograph(person: str, root: Path, path: str) -> Photograph:
    size, changed = 0, 0
    with contextlib.suppress(OSError):  # of a link that leads nowhere: the report will say so
        if not path.endswith("/"):
            status = (root / path).stat()
            size, changed = status.st_size, status.st_mtime_ns
    return Photograph(person, path, size, changed)
