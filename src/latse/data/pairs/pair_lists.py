"""Which photographs make the pairs of a verification set: drawn from people's folders, or a list as LFW's."""

from __future__ import annotations

import functools
import math
import os
import random
import re
from pathlib import Path
from typing import Callable, NamedTuple

import numpy as np

from latse.data.photographs import photographs
from latse.data.photographs.list_formats import ListFormat, fields, is_file, recognise, refuse_outside
from latse.errors import LatseError, check_range
from latse.files import NAMES, read_lines

NUMBER, SPACES = re.compile("[0-9]{1,9}"), re.compile("[ \\t]+")
ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".pgm", ".ppm", ".tif", ".tiff", ".webp")
USUAL = 3000  # pairs of a kind, as in LFW and most sets since


class PairList(NamedTuple):
    """Pairs of photographs.

    files : list of m paths; person : int64 array (m,), whom each shows, the same number for the same person,
    None if that is not known; pairs : int64 array (n, 2), numbers of files; issame : bool array (n,);
    read_as : the format of the list that they come from, empty if they are drawn.
    """

    files: list[Path]
    person: np.ndarray | None
    pairs: np.ndarray
    issame: np.ndarray
    read_as: str = ""


def draw(
    folder: str | os.PathLike, same: int | None, different: int | None, folds: int = 10, seed: int = 0
) -> PairList:
    """Draw pairs, as `draw_pairs` does, of the photographs in a folder that has a folder for each person.

    It is read as `latse data pack` reads it; what is no image, by its first bytes, is passed over, which
    is said. Raises LatseError if the folder cannot be read or has not enough pairs.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise LatseError(f"{folder} is not a folder")
    images = [image for image in photographs.images_in(folder) if image.person]
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
    kinds = ("same", "one person"), ("different", "two people")
    for (_, whose), total, why in zip(kinds, there, ("no person has two photographs", "all show one person")):
        if not total:
            raise LatseError(f"there are no pairs of {whose}: {why}")
    for (kind, whose), number, total in zip(kinds, asked, there):
        even = asked[0] == asked[1]
        most, factor, option = (min(there), 2, "--pairs") if even else (total, 1, f"--{kind}")
        if number < folds:
            cure = f"give {option} {factor * folds} at least, or fewer --folds"
            raise LatseError(f"{number} pairs of {whose} do not make {folds} folds: {cure}")
        if number > total:
            cure = f"give {option} {factor * most} at most"
            if most < folds:
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
    """Read a list of pairs of photographs in `folder`, in its order; it has one of two formats.

    LFW's: `NAME N M` is a pair of one person, `NAME N OTHER M` one of two, and the photographs are
    NAME/NAME_0001.jpg, or have another ending (ENDINGS). The first line may say how many pairs follow: `10
    300`, ten folds of 300 of one person and 300 of two, or `1100`, 1100 of either kind. Fields are parted by
    tabs, or by spaces where a line has no tab. Two paths and a flag: `PATH PATH 0|1`, 1 for one person,
    parted by tabs, commas or spaces. People are the folders of the photographs, if that agrees with every
    flag. Raises LatseError if the list cannot be read, a line is none of these, or a photograph is missing.
    """
    form, lines = _recognised(file)
    numbered = functools.partial(_by_number, functools.lru_cache(maxsize=None)(_listed))
    find = numbered if form is LFW else _by_path
    files: dict[Path, int] = {}
    pairs, issame = [], []
    for number, line in lines:
        at = f"{file}, line {number}"
        *paths, same = find(Path(folder), at, *form.read(line))
        if paths[0] == paths[1]:
            raise LatseError(f"{at} pairs a photograph with itself")
        pairs.append([files.setdefault(path, len(files)) for path in paths])
        issame.append(same)
    pairs, issame = np.array(pairs, np.int64), np.array(issame, bool)
    folders: dict[Path, int] = {}
    person = np.array([folders.setdefault(path.parent, len(folders)) for path in files], np.int64)
    agree = (np.equal(*person[pairs].T) == issame).all()
    return PairList(list(files), person if agree else None, pairs, issame, str(form))


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


def _recognised(file: str | os.PathLike) -> tuple[ListFormat, list[tuple[int, str]]]:
    """Return the format of a list of pairs, and its lines without a first one that says how many follow."""
    lines = list(read_lines(file, NAMES))
    numbers = lines[0][1].split() if lines else []
    if len(numbers) not in (1, 2) or not all(map(NUMBER.fullmatch, numbers)):
        return recognise(file, (LFW, PATHS), lines), lines
    promised = 2 * math.prod(map(int, numbers))
    if len(lines) - 1 != promised:
        raise LatseError(f"{file} promises {promised} pairs in its first line, but {len(lines) - 1} follow")
    return recognise(file, (LFW,), lines[1:]), lines[1:]


def _lfw(line: str) -> tuple | None:
    """Return NAME, N, OTHER, M of a line of LFW's and whether it names one person, who is OTHER too then."""
    said = fields(line) if "\t" in line else SPACES.split(line)
    is_one = len(said) == 3
    if is_one:
        said.insert(2, said[0])
    if len(said) != 4 or not all((said[0], NUMBER.fullmatch(said[1]), said[2], NUMBER.fullmatch(said[3]))):
        return None
    return (*said, is_one)


def _two_paths(line: str) -> tuple[str, str, bool] | None:
    """Return two paths and whether they show one person."""
    for said in (fields(line), fields(line, ","), SPACES.split(line)):
        if len(said) == 3 and is_file(said[0]) and is_file(said[1]) and said[2] in ("0", "1"):
            return said[0], said[1], said[2] == "1"
    return None


def _by_number(
    listed: Callable, folder: Path, at: str, name: str, number: str, other: str, another: str, is_one: bool
) -> tuple[Path, Path, bool]:
    """Return the photographs of a line of LFW's, and whether they show one person."""
    if name == other and not is_one:
        raise LatseError(f"{at} names {name} as two people")
    found = []
    for person, text in ((name, number), (other, another)):
        refuse_outside(folder, person, at)
        stem = f"{person}_{int(text):04d}"
        found.append(listed(folder / person).get(stem))
        if found[-1] is None:
            raise LatseError(f"{at}: there is no photograph {folder / person / stem}.jpg")
    return found[0], found[1], is_one


def _by_path(folder: Path, at: str, first: str, second: str, is_one: bool) -> tuple[Path, Path, bool]:
    """Return the photographs of a line with their paths, and whether they show one person."""
    for path in (folder / first, folder / second):
        refuse_outside(folder, str(path), at)
        if not path.is_file():
            raise LatseError(f"{at}: there is no photograph {path}")
    return folder / first, folder / second, is_one


LFW = ListFormat("LFW's NAME N M and NAME N OTHER M", _lfw)
PATHS = ListFormat("PATH PATH 0|1", _two_paths)
