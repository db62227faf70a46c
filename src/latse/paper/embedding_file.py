"""Embeddings of many images in a file that grows: a killed run goes on, and no run holds them all.

Layout: the 8 bytes `LATSEEM1`; the length of a header, uint32 little-endian; the header, JSON in UTF-8; a row
of float32 for each image in order. Rows that are not there yet are at the end.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Callable

import numpy as np
from tqdm import tqdm

from latse.errors import LatseError
from latse.files import explained, replacing

MAGIC = b"LATSEEM1"
AT_ONCE = 512  # rows that are made and written at a time


@dataclass(frozen=True)
class Reopened:
    """An array in a file, float (n, d), of which a part is read when it is asked for.

    What has been touched of a mapped file counts as this process's memory, and so do its neighbours. So rows
    are read by system calls; only where columns lie together the file is mapped for a moment.
    """

    path: str | os.PathLike
    dtype: np.dtype
    offset: int
    shape: tuple[int, ...]
    by_columns: bool = False

    @classmethod
    def of(cls, mapped: np.memmap) -> Reopened:
        """Return the same rows as a mapped array."""
        by_columns = not mapped.flags.c_contiguous
        return cls(mapped.filename, mapped.dtype, mapped.offset, mapped.shape, by_columns)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, part: slice | np.ndarray) -> np.ndarray:
        """Return a copy of some rows: a slice without a step, or positions in any order, int (m,)."""
        with explained(f"cannot read {self.path}"):
            if self.by_columns:
                return np.array(np.memmap(self.path, self.dtype, "r", self.offset, self.shape, "F")[part])
            with Path(self.path).open("rb") as file:
                if isinstance(part, slice):
                    first, end, _ = part.indices(len(self))
                    return self._rows(file, first, end - first)
                return np.concatenate([self._rows(file, int(position), 1) for position in part])

    def _rows(self, file: BinaryIO, first: int, count: int) -> np.ndarray:
        length = self.dtype.itemsize * self.shape[1]
        content = os.pread(file.fileno(), count * length, self.offset + first * length)
        if len(content) != count * length:
            raise LatseError(f"{self.path} has become shorter")
        return np.frombuffer(content, self.dtype).reshape(count, self.shape[1])


def embedded(
    path: Path, belongs: dict[str, str], count: int, embed: Callable[[np.ndarray], np.ndarray]
) -> Reopened:
    """Return the rows of a file, made as far as they are not there.

    Parameters
    ----------
    path : Path
        Of the file.
    belongs : dict of str to str
        What the rows are of: a file of others is refused.
    count : int
        Number of rows, at least 1.
    embed : callable
        Maps positions, int64 (m,), to rows, float32 (m, d).

    Raises
    ------
    LatseError
        If the file holds something else or cannot be written, or as `embed`.
    """
    asked = {**belongs, "images": count}
    if not path.exists():
        first = embed(np.arange(min(AT_ONCE, count)))
        header = json.dumps({"belongs": asked, "dimensions": first.shape[1]}).encode()
        with replacing(path) as temporary:
            temporary.write_bytes(
                MAGIC + len(header).to_bytes(4, "little") + header + first.astype("<f4").tobytes()
            )
    offset, dimensions = _read_header(path, asked)
    with explained(f"cannot write {path}"), path.open("r+b") as file:
        done = (file.seek(0, os.SEEK_END) - offset) // (4 * dimensions)
        file.seek(offset + done * 4 * dimensions)  # a row that was cut off is made again
        with tqdm(total=count, initial=done, desc="embed", unit="image") as progress:
            for start in range(done, count, AT_ONCE):
                positions = np.arange(start, min(start + AT_ONCE, count))
                file.write(embed(positions).astype("<f4").tobytes())
                file.flush()
                progress.update(len(positions))
    return Reopened(path, np.dtype("<f4"), offset, (count, dimensions))


def _read_header(path: Path, asked: dict) -> tuple[int, int]:
    """Return where the rows begin, and how many numbers each has; LatseError if they are of others."""
    with explained(f"cannot read {path}"), path.open("rb") as file:
        start = file.read(len(MAGIC) + 4)
        header = file.read(int.from_bytes(start[len(MAGIC) :], "little"))
    try:
        made = json.loads(header)
        belongs, dimensions = made["belongs"], int(made["dimensions"])
    except (ValueError, KeyError, TypeError) as error:
        raise LatseError(f"{path} is no file of embeddings: remove it") from error
    if not start.startswith(MAGIC) or belongs != asked:
        raise LatseError(f"{path} holds embeddings of another model or set: remove it, or name another --out")
    return len(start) + len(header), dimensions
