"""Encoded images on their way into a set, in files that appear whole or not at all.

So an interrupted command goes on with the files that are missing. A file is a line of JSON, for each image a
list that begins with its number of bytes, and the images one after the other.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Callable, Iterable, NamedTuple

from tqdm import tqdm

from latse.data import workers
from latse.files import replacing


class Chunk(NamedTuple):
    """A file of the spool, how many images it is of, and the task of making them."""

    file: Path
    images: int
    task: tuple

    def write(self, made: Iterable[tuple[list, bytes]]) -> None:
        """Write each image's entry (its bytes first) and content, which is empty where there is none."""
        entries, contents = zip(*made)
        with replacing(self.file) as temporary:
            temporary.write_bytes(b"".join([json.dumps(entries).encode("ascii"), b"\n", *contents]))

    def entries(self) -> list[list]:
        """Return the entry of each image."""
        with self.file.open("rb") as file:
            return json.loads(file.readline())

    def contents(self) -> list[bytes]:
        """Return the content of each image."""
        with self.file.open("rb") as file:
            return [file.read(entry[0]) for entry in json.loads(file.readline())]

    def is_whole(self) -> bool:
        """Tell whether the file is there, undamaged."""
        try:
            with self.file.open("rb") as file:
                sizes = [entry[0] for entry in json.loads(file.readline())]
                there = os.fstat(file.fileno()).st_size - file.tell()
            return len(sizes) == self.images and sum(sizes) == there
        except (FileNotFoundError, ValueError, TypeError, LookupError):
            return False


def step(images: int) -> int:
    """Return how many of `images` go into a file: many files for many processes, a large set in few.

    A kill costs each process one of them.
    """
    return min(1024, max(8, images // 1024))


def fill(
    chunks: list[Chunk], make: Callable, arguments: tuple, processes: int, advice: str, verb: str
) -> tuple[int, float]:
    """Make the files that are missing or damaged; return how many images that are, and processor seconds.

    `make`, `arguments`, `processes` and `advice` are those of `workers.run`; what `make` returns takes a
    chunk, which it writes, and `at`. The progress bar says `verb`.
    """
    missing = [chunk for chunk in chunks if not chunk.is_whole()]
    total, left = (sum(chunk.images for chunk in some) for some in (chunks, missing))
    seconds = 0.0
    with tqdm(total=total, initial=total - left, desc=verb, unit="image", smoothing=0.05) as bar:
        for kind, content in workers.run(make, arguments, missing, processes, advice):
            bar.update(kind == workers.AT)
            seconds += content if kind == workers.DONE else 0
    return left, seconds
