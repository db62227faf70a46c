"""The list of the images that a teacher refuses, and whom each looks like: for people to read and to edit.

A text with tabs between its columns. Lines that begin with # say what it belongs to, `KEY: VALUE`; then come
the names of the columns, then a line for each image, the clearest first.
"""

from __future__ import annotations

import csv
import io
import os
from typing import Any, Iterable, Iterator, Mapping, NamedTuple

import numpy as np

from latse.data.shards.names import read_names
from latse.data.shards.records import Shard
from latse.errors import LatseError
from latse.files import NAMES, read_text, write_text

NOBODY, NOBODY_WRITTEN = -1, "nobody"  # as a label; in a list, whose lines so never end in an empty column
LARGEST = 2**63 - 1
COLUMNS = (
    "record",
    "image",
    "label",
    "name",
    "rank",
    "likeliest other",
    "other's name",
    "own cosine",
    "other's cosine",
    "looks like",
)
FOR_PEOPLE = ("image", "name", "other's name")  # not read


class Refusals(NamedTuple):
    """Images that are refused; all arrays (m,).

    position : int64, in the order of `Shard.records`
    rank : int64, how many people are likelier than the label, at least 1: of image and mirror image the least
    other : int64, the likeliest other label, NOBODY (-1) if there is none
    own, best : float64, the cosines with the centres of the label and of `other`; -inf if there is none
    looks_like : int64, `other` if the image looks like that person, NOBODY if it looks like no other one
    """

    position: np.ndarray
    rank: np.ndarray
    other: np.ndarray
    own: np.ndarray
    best: np.ndarray
    looks_like: np.ndarray

    @classmethod
    def of(cls, columns: Iterable[np.ndarray]) -> Refusals:
        """Return numbers (m,) of any type as the columns."""
        kinds = [float if name in ("own", "best") else np.int64 for name in cls._fields]
        return cls(*(np.asarray(column).astype(kind) for column, kind in zip(columns, kinds)))

    def at(self, rows: np.ndarray) -> Refusals:
        """Return those of some rows."""
        return Refusals(*(column[rows] for column in self))

    def clearest_first(self) -> Refusals:
        """Return them in the order of the difference of the cosines, the largest first, then of position."""
        return self.at(np.lexsort((self.position, self.own - self.best)))


def write_list(path: str | os.PathLike, shard: Shard, refusals: Refusals, belongs: Mapping[str, Any]) -> None:
    """Write refusals of images of a set, with the lines `KEY: VALUE` that say what they belong to.

    Raises LatseError if the names beside the set are of another one, or the list cannot be written.
    """
    names = read_names(shard.folder, shard.classes)
    text = io.StringIO()
    for key, value in {"set": shard.digest(), **belongs}.items():
        text.write(f"# {key}: {value}\n")
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    writer.writerow(COLUMNS)
    for position, rank, other, own, best, looks_like in zip(*refusals):
        label = shard.labels[position]
        called = [" ".join((names[person] or "").split()) if person >= 0 else "" for person in (label, other)]
        likeliest, looks = (NOBODY_WRITTEN if who == NOBODY else who for who in (other, looks_like))
        place = [shard.records[position], shard.name(position), label, called[0], rank, likeliest, called[1]]
        writer.writerow([*place, *map(_cosine, (own, best)), looks])
    write_text(path, text.getvalue())


def read_list(path: str | os.PathLike, shard: Shard) -> tuple[int, Refusals]:
    """Read by which k a list's images are refused, and the images; lines may be missing, and in any order.

    Raises LatseError, naming the line, if the list cannot be read, may be cut off, is of another set, lacks a
    column, has a value that cannot be, or an image twice.
    """
    rows: dict[int, tuple] = {}
    text = read_text(path, NAMES)
    reader = csv.reader(io.StringIO(text), delimiter="\t")
    try:
        k, columns = _begun(path, reader, shard)
        _refuse_cut(path, text)
        for cells in filter(any, reader):
            row = _parsed(dict(zip(columns, cells)), shard)
            if row[0] in rows:
                raise ValueError(f"record {shard.records[row[0]]} is there twice")
            rows[row[0]] = row
    except (ValueError, csv.Error) as error:
        raise LatseError(f"{path}, line {reader.line_num}: {error}") from error
    return k, Refusals.of(zip(*rows.values()) if rows else [()] * len(Refusals._fields))


def _refuse_cut(path: str | os.PathLike, text: str) -> None:
    """Raise LatseError if a text does not end with a line break: of a label 12 may be left 1."""
    if not text.endswith("\n"):
        last = f"{path}, line {text.count(chr(10)) + 1}"
        what_to_do = "end it with one if it is whole, else write the list anew"
        raise LatseError(f"{last}: it has no line break at its end, so it may be cut off: {what_to_do}")


def _begun(path: str | os.PathLike, lines: Iterator[list[str]], shard: Shard) -> tuple[int, list[str]]:
    """Read what a list begins with, and return k and its columns."""
    belongs, columns = {}, []
    for cells in filter(any, lines):
        if not cells[0].startswith("#"):
            columns = cells
            break
        key, _, value = cells[0][1:].partition(":")
        belongs[key.strip()] = value.strip()
    for name in COLUMNS:
        if name not in (*columns, *FOR_PEOPLE):
            what = f"no column {name!r}; tabs must part the columns"
            raise LatseError(f"{path} is no list of `latse filter`: {what}")
    if "set" not in belongs:
        raise LatseError(
            f"{path} lacks the line `# set: …` that `latse filter` wrote: put it back at the top"
        )
    if belongs["set"] != shard.digest():
        raise LatseError(f"{path} lists images of another set than {shard.folder}")
    return _whole(belongs.get("k"), "`# k`"), columns


def _parsed(cells: Mapping[str, str], shard: Shard) -> tuple:
    """Return a row of `Refusals`; ValueError if a value cannot be."""
    record, rank = (_whole(cells.get(name), f"the column {name!r}") for name in ("record", "rank"))
    label = _whole(cells.get("label"), "the column 'label'", shard.classes - 1)
    other, looks_like = (_person(cells, name, shard.classes) for name in ("likeliest other", "looks like"))
    position = int(np.searchsorted(shard.records, record))
    if position == len(shard) or shard.records[position] != record:
        raise ValueError(f"the set has no image with the record {record}")
    if shard.labels[position] != label:
        raise ValueError(f"record {record} has the label {shard.labels[position]}, not {label}")
    if looks_like == label:
        raise ValueError(f"record {record} looks like its own label: without this line it stays there")
    own, best = (_real(cells, name) for name in ("own cosine", "other's cosine"))
    return position, rank, other, own, best, looks_like


def _person(cells: Mapping[str, str], name: str, classes: int) -> int:
    """Return a label or NOBODY, which may be written or left empty, but not be missing."""
    if name in cells and cells[name].strip() in ("", NOBODY_WRITTEN):
        return NOBODY
    return _whole(cells.get(name), f"the column {name!r}", classes - 1, f" or {NOBODY_WRITTEN}")


def _whole(text: str | None, what: str, most: int = LARGEST, otherwise: str = "") -> int:
    text = (text or "").strip()
    if not (text.isascii() and text.isdecimal() and int(text) <= most):
        until = "on" if most == LARGEST else f"to {most}"
        there = repr(text) if text else "nothing"
        raise ValueError(f"{what} has {there}, must be a whole number from 0 {until}{otherwise}")
    return int(text)


def _real(cells: Mapping[str, str], name: str) -> float:
    if name not in cells:
        raise ValueError(f"the column {name!r} has nothing, must be a number or empty")
    text = cells[name].strip().replace(",", ".")  # as a spreadsheet may write it
    try:
        return float(text or "-inf")
    except ValueError as error:
        raise ValueError(f"the column {name!r} has {text!r}, must be a number") from error


def _cosine(value: float) -> str:
    return f"{value:.4f}" if np.isfinite(value) else ""
