"""Which photographs make the pairs of a verification set: drawn from people's folders, or a list as LFW's."""

from __future__ import annotations

import functools
import os
import random
from pathlib import Path
from typing import NamedTuple

import numpy as np

from latse.data.images import is_image_file
from latse.data.photographs import photographs
from latse.errors import LatseError, check_range
from latse.files import explained

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".pgm", ".ppm", ".tif", ".tiff", ".webp")
USUAL = 3000  # pairs of a kind, as in LFW and most sets since


class PairList(NamedTuple):
    """Pairs of photographs.

    files : list of m paths; person : int64 array (m,), whom each shows, the same number for the same person;
    pairs : int64 array (n, 2), numbers of files; issame : bool array (n,).
    """

    files: list[Path]
    person: np.ndarray
    pairs: np.ndarray
    issame: np.ndarray


def draw(
    folder: str | os.PathLike, same: int | None, different: int | None, folds: int = 10, seed: int = 0
) -> PairList:
    """Draw pairs, as `draw_pairs` does, of the photographs in a folder that has a folder for each person.

    It is read as `latse data pack` reads it; what is no image, by its first bytes, is passed over. Raises
    LatseError if the folder cannot be read or has not enough pairs.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise LatseError(f"{folder} is not a folder")
    listed = photographs.listed(folder)
    images = [image for image in listed if image.person and is_image_file(folder / image.path)]
    if not images:
        raise LatseError(f"no photographs in {folder}/PERSON: {photographs.FOLDERS}")
    person = np.unique([image.person for image in images], return_inverse=True)[1]
    try:
        pairs, issame = draw_pairs(person, same, different, folds, seed)
    except LatseError as error:
        raise LatseError(f"{folder}: {error}") from error
    return PairList([folder / image.path for image in images], person, pairs, issame)


def draw_pairs(
    person: np.ndarray, same: int | None, different: int | None, folds: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draw pairs of one person and pairs of two; each is as likely as any of its kind, none stands twice.

    Raises LatseError if there are not so many pairs, or a number is out of range.

    Parameters
    ----------
    person : int array (n,)
        Whom each photograph shows, ascending.
    same, different : int or None
        How many of one person and of two, at least `folds`. None stands for as many as there are of both
        kinds, at most `USUAL`.
    folds : int
        How many equal parts the pairs lie in, as `in_folds` lays them.
    seed : int
        At least 0; the same gives the same pairs.

    Returns
    -------
    pairs : int64 array (same + different, 2)
    issame : bool array (same + different,)
    """
    check_range("the number of folds", folds, 1)
    check_range("the seed", seed, 0)
    photograph = np.arange(len(person))
    end = np.searchsorted(person, person, side="right")  # of the photographs of the same person
    ranges = (photograph + 1, end), (end, np.full(len(person), len(person)))
    there = tuple(int((high - low).sum()) for low, high in ranges)
    usual = max(folds, min(USUAL, *there))
    asked = tuple(usual if number is None else number for number in (same, different))
    _check_numbers(asked, there, folds)
    chance = random.Random(seed)
    drawn = [_draw(*kind, number, chance) for kind, number in zip(ranges, asked)]
    return in_folds(*drawn, folds)


def _check_numbers(asked: tuple[int, ...], there: tuple[int, ...], folds: int) -> None:
    """Raise LatseError, with the options that help, unless there are as many pairs of each kind as asked."""
    for kind, whose, number, total in zip(("same", "different"), ("one person", "two people"), asked, there):
        even = asked[0] == asked[1]
        most, factor, option = (min(there), 2, "--pairs") if even else (total, 1, f"--{kind}")
        if number < folds:
            cure = f"give {option} {factor * folds} at least, or fewer --folds"
            raise LatseError(f"{number} pairs of {whose} do not make {folds} folds: {cure}")
        if number > total:
            cure = f"give {option} {factor * most} at most" if most else "more photographs are needed"
            if 0 < most < folds:
                cure += f", --folds {most} at most"
            raise LatseError(f"{number} pairs of {whose} are asked for, there are {total}: {cure}")


def in_folds(same: np.ndarray, different: np.ndarray, folds: int) -> tuple[np.ndarray, np.ndarray]:
    """Lay pairs of either kind, int arrays (m, 2) and (n, 2), into folds that hold as many of each.

    Same pairs stand first in a fold. Where the parts are not even, a fold has one more of a kind. Returns
    pairs (m + n, 2) and issame, bool (m + n,).
    """
    ends = np.arange(1, folds)
    same_parts = np.split(same, np.ceil(ends * len(same) / folds).astype(int))
    different_parts = np.split(different, np.floor(ends * len(different) / folds).astype(int))
    laid = [part for fold in zip(same_parts, different_parts) for part in fold]
    issame = [np.full(len(part), number % 2 == 0) for number, part in enumerate(laid)]
    return np.concatenate(laid), np.concatenate(issame)


def read_pair_list(file: str | os.PathLike, folder: str | os.PathLike) -> PairList:
    """Read a list of pairs in LFW's format, in its order; photographs are `folder`/NAME/NAME_0001.jpg.

    The first line says how many pairs follow: `10 300`, ten folds of 300 of one person and 300 of two, or
    `1100`, 1100 of either kind. Then `NAME N M` is a pair of one person, `NAME N OTHER M` one of two. Fields
    are parted by tabs, or by spaces where a line has no tab. Photographs may have another ending (ENDINGS).
    Raises LatseError if the list cannot be read, a line is none of these, or a photograph is missing.
    """
    file, listed = Path(file), functools.lru_cache(maxsize=None)(_listed)
    try:
        with explained(f"cannot read {file}"):
            lines = file.read_text("utf-8").rstrip().splitlines()
    except UnicodeDecodeError as error:
        raise LatseError(f"{file} is not a text file") from error
    promised = _promised(file, lines[0] if lines else "")
    if len(lines) - 1 != promised:
        raise LatseError(f"{file} promises {promised} pairs in its first line, but {len(lines) - 1} follow")
    numbers: dict[Path, int] = {}
    names: dict[str, int] = {}
    person, pairs, issame = [], [], []
    for number, line in enumerate(lines[1:], start=2):
        at = f"{file}, line {number}"
        first, second = _photographs(at, line)
        for name, photograph in (first, second):
            stem = f"{name}_{photograph:04d}"
            path = listed(Path(folder, name)).get(stem)
            if path is None:
                raise LatseError(f"{at}: there is no photograph {Path(folder, name, stem)}.jpg")
            if numbers.setdefault(path, len(numbers)) == len(person):
                person.append(names.setdefault(name, len(names)))
            pairs.append(numbers[path])
        issame.append(first[0] == second[0])
    pairs = np.array(pairs, np.int64).reshape(-1, 2)
    return PairList(list(numbers), np.array(person, np.int64), pairs, np.array(issame, bool))


def _listed(folder: Path) -> dict[str, Path]:
    """Return the photographs in a person's folder by their names without endings."""
    try:
        files = [file for file in folder.iterdir() if file.suffix.lower() in ENDINGS]
    except (OSError, ValueError):
        return {}
    # Of several endings the first of ENDINGS counts.
    files.sort(key=lambda file: (ENDINGS.index(file.suffix.lower()), file.name), reverse=True)
    return {file.stem: file for file in files}


def _draw(low: np.ndarray, high: np.ndarray, number: int, chance: random.Random) -> np.ndarray:
    """Draw `number` of the pairs (i, j) with low[i] <= j < high[i], without making them all."""
    ends = np.cumsum(high - low)
    rank = np.array(chance.sample(range(int(ends[-1])), number), np.int64)
    first = np.searchsorted(ends, rank, side="right")
    return np.stack([first, high[first] - (ends[first] - rank)], axis=1)


def _promised(file: Path, line: str) -> int:
    numbers = [int(field) for field in line.split() if field.isdecimal() and len(field) < 10]
    if len(numbers) != len(line.split()) or len(numbers) not in (1, 2) or min(numbers) < 1:
        raise LatseError(
            f"{file}, line 1: {line!r} is neither folds and pairs, as '10 300', nor a number of pairs"
        )
    return 2 * int(np.prod(numbers))


def _photographs(at: str, line: str) -> tuple[tuple[str, int], tuple[str, int]]:
    fields = [field.strip() for field in (line.split("\t") if "\t" in line else line.split())]
    if len(fields) == 3:
        fields = [fields[0], fields[1], fields[0], fields[2]]
    elif len(fields) == 4 and fields[0] == fields[2]:
        raise LatseError(f"{at} names {fields[0]} as two people")
    if len(fields) != 4 or not all(field.isdecimal() and len(field) < 10 for field in fields[1::2]):
        raise LatseError(f"{at}: {line!r} is neither 'NAME N M' nor 'NAME N OTHER M'")
    first, second = (fields[0], int(fields[1])), (fields[2], int(fields[3]))
    if first == second:
        raise LatseError(f"{at} pairs a photograph with itself")
    return first, second
