"""Points that are given: lines of CSV, path,x1,y1,…,x5,y5, in a table that millions of them fit in."""

from __future__ import annotations

import contextlib
import csv
import os
import sqlite3
from pathlib import Path
from typing import Iterator

import numpy as np

from latse.errors import LatseError
from latse.files import NAMES, SPACE, open_text, replacing


def read(file: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Iterate (path, points float64 (5, 2)) of a CSV file; a first line that begins with `path` is a header.

    Raises LatseError, naming the line, if it is not a path and ten finite numbers.
    """
    with open_text(file, NAMES) as lines:
        rows = csv.reader(line.strip(SPACE) + "\n" for line in lines)
        try:
            for number, row in enumerate(filter(None, rows)):
                if number or row[0] != "path":
                    yield row[0].strip(SPACE), _points(row[1:], f"{file}: line {rows.line_num}")
        except csv.Error as error:
            raise LatseError(f"{file}: line {rows.line_num} is not CSV: {error}") from error


def write_table(file: Path, table: Path) -> None:
    """Put the points of a CSV file into a table on disk; raise LatseError as `read`, or for a path twice."""
    path = ""
    try:
        with replacing(table) as temporary, contextlib.closing(sqlite3.connect(str(temporary))) as rows:
            rows.execute("PRAGMA journal_mode = OFF")  # a table that was not finished is thrown away
            rows.execute("CREATE TABLE landmarks (path BLOB PRIMARY KEY, points BLOB) WITHOUT ROWID")
            for path, points in read(file):
                rows.execute("INSERT INTO landmarks VALUES (?, ?)", (os.fsencode(path), points.tobytes()))
            rows.commit()
    except sqlite3.IntegrityError as error:
        raise LatseError(f"{file} names {path} twice") from error
    except sqlite3.OperationalError as error:
        raise LatseError(f"cannot write {table}: {error}") from error


class LandmarkTable:
    """Points by path, from a table that `write_table` wrote."""

    def __init__(self, table: Path):
        self._table = sqlite3.connect(str(table))

    def points(self, path: str) -> np.ndarray | None:
        """Return the points of a photograph, float64 (5, 2), None if there are none."""
        query = "SELECT points FROM landmarks WHERE path = ?"
        row = self._table.execute(query, (os.fsencode(path),)).fetchone()
        return row and np.frombuffer(row[0]).reshape(5, 2)


def _points(fields: list[str], name: str) -> np.ndarray:
    try:
        points = np.array(fields, float).reshape(5, 2)
    except ValueError:
        points = np.full((5, 2), np.nan)
    if not np.isfinite(points).all():
        raise LatseError(f"{name} is not a path and ten numbers x1,y1,…,x5,y5")
    return points
