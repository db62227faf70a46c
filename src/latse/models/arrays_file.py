"""Files of named arrays in MXNet's format, written and looked at piece by piece.

MXNet itself believes every length that is in a file, does not notice if the last kilobytes do not fit on the
disk, and holds all arrays in memory.
"""

from __future__ import annotations

import io
import os
import struct
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO, Iterable, Iterator, Mapping, NamedTuple, Union

import numpy as np

from latse.errors import LatseError
from latse.files import explained, replacing

LIST = 0x112
DENSE, SHAPED = 0xF993FAC9, 0xF993FAC8  # arrays with a kind of storage, of MXNet 1.x, and those before them
CPU = 1
TYPES = dict(enumerate(("f4", "f8", "f2", "u1", "i4", "i1", "i8", "?")))
SIZES = {kind: np.dtype(name).itemsize for kind, name in TYPES.items()} | {12: 2}  # of bfloat16
MOST_DIMENSIONS = 32
DIGEST, DIGEST_BYTES = "digest", 16
PIECE = 1 << 24


class Blocks(NamedTuple):
    """An array whose rows come in blocks, one after the other, float32."""

    shape: tuple[int, ...]
    rows: Iterable[np.ndarray]


class Place(NamedTuple):
    """Where an array begins in a file and where its numbers do, of which kind they are, and its shape."""

    begin: int
    offset: int
    kind: int
    shape: tuple[int, ...]


Writable = Union[Blocks, Any]  # or an mx.nd.NDArray


def write(path: str | os.PathLike, arrays: Mapping[str, Writable], digest: bool = False) -> None:
    """Write dense arrays with their names, atomically.

    Parameters
    ----------
    path : path
        An older file is replaced.
    arrays : mapping of str to mx.nd.NDArray or Blocks
        In this order.
    digest : bool, default False
        Whether another array follows, `digest`, uint8 (16,): blake2b of all bytes before it and of the names.

    Raises
    ------
    LatseError
        If the file cannot be written.
    """
    with replacing(path) as temporary, explained(f"cannot write {path}"), temporary.open("wb") as file:
        hashed = blake2b(digest_size=DIGEST_BYTES)

        def put(content: bytes | memoryview) -> None:
            file.write(content)
            hashed.update(content)

        names = [*arrays, *([DIGEST] if digest else [])]
        put(struct.pack("<QQQ", LIST, 0, len(names)))
        for array in arrays.values():
            for content in _entry(array):
                put(content)
        if digest:
            hashed.update("\n".join(arrays).encode())
            for content in _entry(np.frombuffer(hashed.digest(), np.uint8)):
                file.write(content)
        file.write(struct.pack("<Q", len(names)))
        for name in map(str.encode, names):
            file.write(struct.pack("<Q", len(name)) + name)


def places(path: str | os.PathLike) -> dict[str, Place]:
    """Return where the arrays of a file are, by name; by number where they have no names.

    Every version of the format is taken that MXNet 1.9.1 reads. The numbers themselves are not read. Raises
    LatseError unless the lengths in the file fit it, or if it cannot be read.
    """
    with explained(f"cannot read {path}"), Path(path).open("rb") as file:
        length = file.seek(0, io.SEEK_END)
        file.seek(0)
        try:
            return _Reader(file, length).places()
        except (_MalformedError, struct.error) as error:
            raise LatseError(f"{path} is damaged: it holds no MXNet parameters ({error})") from error


def check_digest(path: str | os.PathLike) -> None:
    """Raise LatseError if a file has a digest and is not what it was made of, or is no such file."""
    found = places(path)
    if DIGEST not in found:
        return
    hashed, end = blake2b(digest_size=DIGEST_BYTES), found[DIGEST].begin
    with explained(f"cannot read {path}"), Path(path).open("rb") as file:
        for start in range(0, end, PIECE):
            hashed.update(file.read(min(PIECE, end - start)))
    hashed.update("\n".join(name for name in found if name != DIGEST).encode())
    if read(path, found[DIGEST]).tobytes() != hashed.digest():
        raise LatseError(f"{path} is damaged: its digest is not that of its content")


def read(path: str | os.PathLike, place: Place, first: int = 0, rows: int | None = None) -> np.ndarray:
    """Return an array of a file, or some `rows` from the `first` on; LatseError if it cannot be read."""
    if place.kind not in TYPES:
        raise LatseError(f"{path} holds bfloat16, which numpy has not")
    dtype = np.dtype(TYPES[place.kind])
    shape = place.shape if rows is None else (rows, *place.shape[1:])
    size = int(np.prod(place.shape[1:], dtype=np.int64)) * dtype.itemsize
    with explained(f"cannot read {path}"):
        count = int(np.prod(shape, dtype=np.int64))
        numbers = np.fromfile(path, dtype, count, offset=place.offset + first * size)
    if len(numbers) < count:
        raise LatseError(f"{path} is damaged: it ends too early")
    return numbers.reshape(shape)


def _entry(array: Writable) -> Iterator[bytes | memoryview]:
    """Yield the bytes of an array: what it is, then its numbers."""
    if isinstance(array, Blocks):
        parts, dtype = array.rows, np.dtype(np.float32)
    else:
        numbers = array if isinstance(array, np.ndarray) else array.asnumpy()
        parts, dtype = [numbers], numbers.dtype
    (kind,) = (number for number, name in TYPES.items() if np.dtype(name) == dtype)
    shape = tuple(array.shape)
    yield struct.pack(f"<Iii{len(shape)}qiii", DENSE, 0, len(shape), *shape, CPU, 0, kind)
    left = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    for part in parts:
        content = memoryview(np.ascontiguousarray(part, dtype)).cast("B")
        left -= len(content)
        yield content
    if left:
        raise ValueError(f"blocks that are {left} bytes short of {shape}")


class _MalformedError(Exception):
    """What a file says does not fit it."""


class _Reader:
    def __init__(self, file: BinaryIO, length: int) -> None:
        self._file, self._length, self._left = file, length, length

    def places(self) -> dict[str, Place]:
        magic, _ = self._take("<QQ")
        if magic != LIST:
            raise _MalformedError("it does not begin like a list of arrays")
        (count,) = self._take("<Q")
        found = [self._place(number) for number in range(self._at_most(count, "arrays"))]
        (named,) = self._take("<Q")
        if self._at_most(named, "names") not in (0, count):
            raise _MalformedError(f"{count} arrays, {named} names")
        names = [self._name() for _ in range(named)]
        return dict(zip(names or map(str, range(count)), found))

    def _name(self) -> str:
        (length,) = self._take("<Q")
        if length > self._left:
            raise _MalformedError(f"a name takes {length} bytes, {max(self._left, 0)} are left")
        self._left -= length
        return self._file.read(length).decode(errors="replace")

    def _place(self, number: int) -> Place:
        begin = self._length - self._left
        (magic,) = self._take("<I")
        if magic == DENSE:
            (storage,) = self._take("<i")
            if storage != 0:
                raise _MalformedError(f"array {number} is not dense")
        shape = self._shape(number, "<q") if magic in (DENSE, SHAPED) else self._shape(number, "<I", magic)
        if not shape and magic in (DENSE, SHAPED):
            return Place(begin, self._length - self._left, 0, (0,))  # an array of nothing
        _, _, kind = self._take("<iii")
        if kind not in SIZES:
            raise _MalformedError(f"array {number} has numbers of the unknown type {kind}")
        place = Place(begin, self._length - self._left, kind, tuple(shape))
        size = SIZES[kind]
        for side in shape:
            size *= side
        self._skip(size, f"array {number}")
        return place

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
