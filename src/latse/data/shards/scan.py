"""One record file read without trust: what stands at each place, as a table that `check` judges.

It imports neither mxnet nor anything that does, so that processes of its own can run it.
"""

from __future__ import annotations

import contextlib
import enum
import os
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO, Iterator

import cv2
import numpy as np

from latse.data import images
from latse.data.images import AS_STORED, Decode
from latse.data.shards.recordio import FRAME, LENGTH, MAGIC, MAGIC_BYTES, split
from latse.files import explained

LARGEST_RECORD = 1 << 26  # bytes; what claims to be longer holds no face, and would only fill the memory
LARGEST_IMAGE = 1 << 24  # pixels, likewise
MOST_PARTS = 100  # of one record, which is divided where it holds the magic number: no image does so often
BLOCK = 1 << 16  # bytes that are read at a time
FORMATS = ("common", "grey", "cmyk", "palette", "alpha", "16-bit")  # how an image is stored


class RecordState(enum.IntEnum):
    """What stands at a place of a record file; to SHORT there is no record, from EMPTY on no good image."""

    GOOD = 0
    PAST_END = 1
    MISALIGNED = 2
    NO_MAGIC = 3
    INSIDE = 4
    CUT_OFF = 5
    TOO_LONG = 6
    SHORT = 7
    EMPTY = 8
    NO_IMAGE = 9
    CUT_IMAGE = 10
    UNDECODABLE = 11
    DAMAGED = 12
    SIZE = 13


# A row of the table. `end` is where the next record starts, `size` the bytes of the encoded image, `ids` and
# `labels` what header and identity records hold, `format` the place in FORMATS; `pixels` a 64-bit hash of the
# decoded image.
ROW = np.dtype(
    [
        ("offset", "i8"),
        ("end", "i8"),
        ("state", "u1"),
        ("flag", "u4"),
        ("label", "f4"),
        ("labels", "f4", 2),
        ("ids", "u8", 2),
        ("size", "u4"),
        ("format", "u1"),
        ("height", "u2"),
        ("width", "u2"),
        ("pixels", "u8"),
    ]
)


class RecordError(Exception):
    """There is no whole record at a place; holds the RecordState that says why."""


def scan(path: str | os.PathLike, offsets: list[int], following: int | None = None) -> np.ndarray:
    """Return what stands at the offsets (bytes, ascending, of any value) of a .rec file: ROW (n,).

    `following` is the next offset that the index names: a record that runs past a good start is itself at
    fault. Raises LatseError if the file cannot be opened or read.
    """
    rows, end = [], 0
    with _opened(path) as (file, size), images.noting_damage() as decode:
        starts = [offset for offset in offsets if _is_start(file, offset, size)]
        starts += [] if following is None or not _is_start(file, following, size) else [following]
        behind = iter(starts)
        limit = next(behind, size)
        for offset in offsets:
            while limit <= offset and limit < size:
                limit = next(behind, size)
            try:
                if 0 <= offset < end and offset % 4 == 0:
                    raise RecordError(RecordState.INSIDE)
                content, end = read_record(file.fileno(), offset, limit)
                rows.append(_record(offset, end, content, decode))
            except RecordError as error:
                rows.append(_row(offset, offset, state=error.args[0]))
    return np.array(rows, ROW)


def walk(path: str | os.PathLike, start: int, stop: int) -> tuple[np.ndarray, int]:
    """Look for records between `start` and `stop`, where the index names none.

    Returns the whole records, ROW (n,), and the number of bytes that belong to none. Raises LatseError if the
    file cannot be opened or read.
    """
    rows, stray, free = [], 0, start  # `free`: up to where all is a record or stray
    with _opened(path) as (file, _), images.noting_damage() as decode:
        for place in _magics(file, start, stop):
            if place < free:
                continue
            with contextlib.suppress(RecordError):
                content, end = read_record(file.fileno(), place, stop)
                rows.append(_record(place, end, content, decode))
                stray += place - free
                free = end
    return np.array(rows, ROW), stray + max(stop - free, 0)


def read_record(handle: int, offset: int, limit: int) -> tuple[bytes, int]:
    """Return (a record's bytes, where the next one starts) of a file; no byte from `limit` on belongs to it.

    Of what turns out to be no record only the frames are read: a claimed length costs nothing. Raises
    RecordError.
    """
    spans: list[tuple[int, int]] = []
    flag, total = 1, 0
    while flag in (1, 2):
        flag, length = _frame(handle, offset, limit, first=not spans)
        end = offset + FRAME.size + length + -length % 4
        total += length
        if end > limit:
            raise RecordError(RecordState.CUT_OFF)
        if total > LARGEST_RECORD or len(spans) == MOST_PARTS:
            raise RecordError(RecordState.TOO_LONG)
        spans.append((offset + FRAME.size, length))
        offset = end
    parts = [os.pread(handle, length, start) for start, length in spans]
    if sum(map(len, parts)) < total:
        raise RecordError(RecordState.CUT_OFF)
    return MAGIC_BYTES.join(parts), offset


def judge(encoded: bytes, decode: Decode) -> dict[str, Any]:
    """Return what ROW tells of an encoded image; `decode` is what `images.noting_damage` yields."""
    header = images.announced(encoded)
    if header is None:
        return {"state": RecordState.NO_IMAGE if encoded else RecordState.EMPTY}
    found = {"format": _format(header), "height": header.height, "width": header.width}
    if header.height * header.width > LARGEST_IMAGE:
        return {**found, "state": RecordState.SIZE}
    if not _has_end(encoded, header.is_png) or _is_too_short(header, len(encoded)):
        return {**found, "state": RecordState.CUT_IMAGE}
    with contextlib.suppress(cv2.error):
        image, damage = decode(encoded, AS_STORED)
        if image is not None:
            found["height"], found["width"] = image.shape[:2]
            pixels = int.from_bytes(blake2b(image, digest_size=8).digest(), "little")
            return {**found, "state": RecordState.DAMAGED if damage else RecordState.GOOD, "pixels": pixels}
    return {**found, "state": RecordState.UNDECODABLE}


def _format(header: images.Announced) -> int:
    known = {0: "grey", 3: "palette", 4: "alpha", 6: "alpha"} if header.is_png else {1: "grey", 4: "cmyk"}
    is_deep = header.is_png and header.bits == 16
    return FORMATS.index("16-bit" if is_deep else known.get(header.kind, "common"))


def _has_end(encoded: bytes, is_png: bool) -> bool:
    """Tell whether an image has its end: a JPEG after its last scan, because thumbnails have ends too."""
    if is_png:
        return b"IEND" in encoded[-64:] and not images.is_cut_off(encoded)
    return encoded.rfind(b"\xff\xd9") > encoded.rfind(b"\xff\xda")


def _is_too_short(header: images.Announced, size: int) -> bool:
    """Tell whether so many bytes cannot be all of a JPEG: each block of 8x8 pixels takes a bit at least.

    Few bytes that claim many pixels would take long to decode.
    """
    return not header.is_png and header.height * header.width > 64 * 8 * size


def _record(offset: int, end: int, content: bytes, decode: Decode) -> np.void:
    parts = split(content)
    if parts is None:
        return _row(offset, end, state=RecordState.SHORT)
    header, encoded = parts
    found = judge(encoded, decode)
    found.update((side, min(found[side], 65535)) for side in ("height", "width") if side in found)
    labels = (*header.labels, 0, 0)[:2]
    named = {"flag": header.flag, "label": header.label, "labels": labels, "ids": header.ids}
    return _row(offset, end, size=len(encoded), **named, **found)


def _row(offset: int, end: int, **fields: Any) -> np.void:
    row = np.zeros((), ROW)
    for name, value in {"offset": offset, "end": end, **fields}.items():
        row[name] = value
    return row[()]


def _frame(handle: int, offset: int, limit: int, first: bool) -> tuple[int, int]:
    """Return the continuation flag and length at `offset`; raises RecordError."""
    if offset < 0 or offset >= limit:
        raise RecordError(RecordState.PAST_END if first else RecordState.CUT_OFF)
    if offset % 4:
        raise RecordError(RecordState.MISALIGNED)
    frame = os.pread(handle, FRAME.size, offset)
    if len(frame) < FRAME.size or offset + FRAME.size > limit:
        raise RecordError(RecordState.CUT_OFF)
    magic, word = FRAME.unpack(frame)
    if magic != MAGIC:
        raise RecordError(RecordState.NO_MAGIC if first else RecordState.CUT_OFF)
    flag, length = divmod(word, LENGTH)
    if (flag in (0, 1)) != first or flag > 3:
        raise RecordError(RecordState.INSIDE if first else RecordState.CUT_OFF)
    return flag, length


def _is_start(file: BinaryIO, offset: int, size: int) -> bool:
    with contextlib.suppress(RecordError):
        _frame(file.fileno(), offset, size, first=True)
        return True
    return False


def _magics(file: BinaryIO, start: int, stop: int) -> Iterator[int]:
    """Return where the magic number stands at a multiple of 4 from `start`, up to `stop`, ascending."""
    for place in range(start, stop, BLOCK):
        block = os.pread(file.fileno(), min(BLOCK, stop - place), place)
        words = np.frombuffer(block, "<u4", len(block) // 4)
        yield from (place + 4 * np.flatnonzero(words == MAGIC)).tolist()


@contextlib.contextmanager
def _opened(path: str | os.PathLike) -> Iterator[tuple[BinaryIO, int]]:
    with explained(f"cannot read {path}"), Path(path).open("rb", buffering=0) as file:
        yield file, os.fstat(file.fileno()).st_size
