"""Files of arrays in MXNet's format, looked at before MXNet, which believes every length, reads them."""

from __future__ import annotations

import io
import os
import struct
from pathlib import Path
from typing import BinaryIO

from latse.errors import LatseError
from latse.files import explained

LIST = 0x112
DENSE, SHAPED = 0xF993FAC9, 0xF993FAC8  # arrays with a kind of storage, of MXNet 1.x, and those before them
SIZES = {0: 4, 1: 8, 2: 2, 3: 1, 4: 4, 5: 1, 6: 8, 7: 1, 12: 2}  # bytes of a number by its type
MOST_DIMENSIONS = 32


def check_arrays(path: str | os.PathLike) -> None:
    """Raise LatseError unless the lengths in a file of dense arrays fit the file, or if it cannot be read.

    Every version of the format is taken that MXNet 1.9.1 reads. The numbers themselves are not read.
    """
    with explained(f"cannot read {path}"), Path(path).open("rb") as file:
        length = file.seek(0, io.SEEK_END)
        file.seek(0)
        try:
            _Reader(file, length).check()
        except (_MalformedError, struct.error) as error:
            raise LatseError(f"{path} is damaged: it holds no MXNet parameters ({error})") from error


class _MalformedError(Exception):
    """What a file says does not fit it."""


class _Reader:
    def __init__(self, file: BinaryIO, length: int) -> None:
        self._file, self._left = file, length

    def check(self) -> None:
        magic, _ = self._take("<QQ")
        if magic != LIST:
            raise _MalformedError("it does not begin like a list of arrays")
        (count,) = self._take("<Q")
        for number in range(self._at_most(count, "arrays")):
            self._check_array(number)
        (names,) = self._take("<Q")
        if self._at_most(names, "names") not in (0, count):
            raise _MalformedError(f"{count} arrays, {names} names")
        for _ in range(names):
            (length,) = self._take("<Q")
            self._skip(length, "a name")

    def _check_array(self, number: int) -> None:
        (magic,) = self._take("<I")
        if magic == DENSE:
            (storage,) = self._take("<i")
            if storage != 0:
                raise _MalformedError(f"array {number} is not dense")
        shape = self._shape(number, "<q") if magic in (DENSE, SHAPED) else self._shape(number, "<I", magic)
        if not shape and magic in (DENSE, SHAPED):
            return  # an array of nothing
        _, _, kind = self._take("<iii")
        if kind not in SIZES:
            raise _MalformedError(f"array {number} has numbers of the unknown type {kind}")
        size = SIZES[kind]
        for side in shape:
            size *= side
        self._skip(size, f"array {number}")

    def _shape(self, number: int, side: str, dimensions: int | None = None) -> list[int]:
        count = self._take("<I")[0] if dimensions is None else dimensions
        if count > MOST_DIMENSIONS:
            raise _MalformedError(f"array {number} has {count} dimensions")
        shape = [self._take(side)[0] for _ in range(count)]
        if any(length < 0 for length in shape):
            raise _MalformedError(f"array {number} has the shape {tuple(shape)}")
        return shape

    def _take(self, form: str) -> tuple[int, ...]:
        size = struct.calcsize(form)
        self._left -= size
        return struct.unpack(form, self._file.read(size))

    def _at_most(self, count: int, what: str) -> int:
        if count > self._left:
            raise _MalformedError(f"{count} {what} are announced")
        return count

    def _skip(self, size: int, what: str) -> None:
        if size > self._left:
            raise _MalformedError(f"{what} takes {size} bytes, {max(self._left, 0)} are left")
        self._file.seek(size, io.SEEK_CUR)
        self._left -= size
