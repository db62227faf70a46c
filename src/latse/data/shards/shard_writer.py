"""Insightface sets are written, by one image after another."""

from __future__ import annotations

import array
import contextlib
import os
from pathlib import Path
from typing import Iterable, Sequence

import numpy as np
from tqdm import tqdm

from latse.data.shards.recordio import HEADER, LARGEST_EXACT, LENGTH, framed, packed_range
from latse.data.shards.records import Shard
from latse.data.shards.staging import staged, writing_into
from latse.errors import LatseError, check_range

MOST_SHARDS = 99999  # their names have five digits


class ShardWriter:
    """Writes an insightface data set image by image; a context manager, used inside `staged(folder)`.

    Memory grows with the number of people only. On leaving without an error everything has been written and
    opened again as a check; after an error the files are closed and incomplete.

    Raises LatseError if an argument is out of range, no image came, or the folder cannot be written.

    Parameters
    ----------
    folder : path
        Exists.
    classes : int
        Number of identities, for `property`, 1 to 2**24 (labels are float32).
    image_size : (int, int)
        Height and width, for `property`.
    shards : int
        1: `train.rec`. More: up to so many files `train-00000.rec`, … of like size; a person is never split.
    images : int, optional
        How many images will come; needed if `shards` > 1.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        classes: int,
        image_size: tuple[int, int] = (112, 112),
        shards: int = 1,
        images: int | None = None,
    ):
        check_range(f"{folder}: the number of people", classes, 1, LARGEST_EXACT)
        check_range(f"{folder}: the number of shards", shards, 1, MOST_SHARDS)
        if shards > 1 and images is None:
            raise LatseError(f"{folder}: to make {shards} shards, the number of images must be known")
        self._folder, self._classes, self._image_size = Path(folder), classes, image_size
        self._shards, self._expected = shards, images
        self._outputs: list[_RecordOutput] = []
        self._label, self._people, self._count = -1, 0, 0

    def add(self, label: int, encoded: bytes | np.ndarray) -> None:
        """Write one encoded JPEG or PNG (bytes, or uint8 array (n,)); labels ascend, 0 <= label < classes.

        Raises LatseError if the label does not fit or the folder cannot be written.
        """
        if not 0 <= label < self._classes:
            raise LatseError(
                f"label {label} is none of 0 to {self._classes - 1}, the labels of {self._folder}"
            )
        if label < self._label:
            raise LatseError(f"{self._folder}: label {label} comes after {self._label}; labels must ascend")
        if len(encoded) >= LENGTH - HEADER.size:
            raise LatseError(f"{self._folder}: an image of {len(encoded)} bytes is too large for a record")
        with writing_into(self._folder):
            if label != self._label:
                self._begin_person(label)
            self._outputs[-1].add(label, bytes(encoded))
        self._count += 1

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            for output in self._outputs:
                output.abandon()

    def _finish(self) -> None:
        if not self._outputs:
            raise LatseError(f"no image to write into {self._folder}")
        with writing_into(self._folder):
            self._outputs[-1].close()
            (self._folder / "property").write_text("{},{},{}\n".format(self._classes, *self._image_size))
        if len(Shard(self._folder)) != self._count:
            raise LatseError(f"{self._folder} does not hold the {self._count} images written into it")

    def _begin_person(self, label: int) -> None:
        if not self._outputs or self._is_full():
            if self._outputs:
                self._outputs[-1].close()
            stem = "train" if self._shards == 1 else f"train-{len(self._outputs):05d}"
            self._outputs.append(_RecordOutput(self._folder / stem))
        self._outputs[-1].begin_person()
        self._label, self._people = label, self._people + 1

    def _is_full(self) -> bool:
        """Tell whether the current file is as near to its share as it gets, if people are alike."""
        others = len(self._outputs) - 1
        if self._shards - others == 1:
            return False
        here = self._outputs[-1].images
        share = (self._expected - self._count + here) / (self._shards - others)
        return here + self._count / self._people / 2 >= share


def write_shard(
    folder: str | os.PathLike,
    images_by_label: Iterable[tuple[int, bytes]],
    classes: int,
    image_size: tuple[int, int] = (112, 112),
    shards: int = 1,
) -> None:
    """Write an insightface data set; older files of a set are replaced only when all is written.

    Raises LatseError if there is no image, a label does not fit, or the folder cannot be written.

    Parameters
    ----------
    folder : path
        Made if it does not exist.
    images_by_label : iterable of (int, bytes)
        Label (0 <= label < classes) and encoded JPEG or PNG of each image, in any order.
    classes, image_size, shards : int, tuple of int, int
        As for `ShardWriter`, which does not need all images at once.
    """
    images = sorted(images_by_label, key=lambda item: item[0])
    with staged(folder) as stage, ShardWriter(stage, classes, image_size, shards, len(images)) as writer:
        for label, encoded in images:
            writer.add(label, encoded)


def write_images(
    folder: str | os.PathLike,
    sets: Sequence[Shard],
    source: np.ndarray,
    place: np.ndarray,
    labels: np.ndarray,
    classes: int,
    shards: int,
    doing: str,
) -> None:
    """Write images of other sets, byte for byte, in the order of their new labels.

    Parameters
    ----------
    folder, classes, shards : path, int, int
        As for `ShardWriter`.
    sets : sequence of Shard
        Images of one size.
    source, place, labels : int arrays (n,)
        Of each image, the number of its set, its position there, and its new label. Images of one label come
        in the order of these.
    doing : str
        What the progress bar is called.

    Raises
    ------
    LatseError
        As `ShardWriter`, or if an image cannot be read.
    """
    with ShardWriter(folder, classes, sets[0].image_size, shards, len(labels)) as writer:
        for image in tqdm(np.argsort(labels, kind="stable"), doing, unit="image", leave=False):
            writer.add(int(labels[image]), sets[source[image]].content(place[image]))


class _RecordOutput:
    """One .rec with its .idx being written: header, images, then a record for each person."""

    def __init__(self, stem: Path):
        self.images = 0
        self._next = 0
        self._people = array.array("q")  # first record of each
        self._rec = stem.with_suffix(".rec").open("wb", buffering=1 << 20)
        self._idx = stem.with_suffix(".idx").open("w", encoding="ascii")
        self._write(packed_range(0, 0, 0))  # its place is kept: close() knows what belongs there

    def begin_person(self) -> None:
        self._people.append(self._next)

    def add(self, label: int, encoded: bytes) -> None:
        self._write(HEADER.pack(0, label, self._next, 0) + encoded)
        self.images += 1

    def close(self) -> None:
        after_images = self._next
        for first, last in zip(self._people, [*self._people[1:], after_images]):
            self._write(packed_range(self._next, first, last))
        self._rec.seek(0)
        self._rec.write(framed(packed_range(0, after_images, self._next)))
        self._rec.close()
        self._idx.close()

    def abandon(self) -> None:
        for file in (self._rec, self._idx):
            with contextlib.suppress(OSError):
                file.close()

    def _write(self, content: bytes) -> None:
        self._idx.write(f"{self._next}\t{self._rec.tell()}\n")
        self._rec.write(framed(content))
        self._next += 1
