"""Insightface shards: `train.rec`, `train.idx` and `property` in one folder, written and read.

Layout (insightface's, https://github.com/deepinsight/insightface): record 0 is a header whose label is
[first identity record, one past the last]; the images follow from record 1 on; each identity record has the
label [first image record, one past the last]. A set without these extra records is read as well: then every
record is an image. `property` is one line, "classes,height,width".

The RecordIO framing (dmlc-core's recordio.h): magic, a word of 3 bits continuation flag and 29 bits length,
the bytes, padding to 4. A record's bytes start with MXNet's IRHeader: flag, label, two 64-bit ids; flag > 0
says how many float32 labels follow it.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import shutil
import tempfile
from pathlib import Path
from typing import Iterable, Iterator

import cv2
import numpy as np

from latse.errors import LatseError
from latse.files import locked, make_folder

MAGIC = 0xCED7230A
LENGTH_BITS = 0x1FFFFFFF  # of the second word of a frame; the upper three say which part of a record it is
FRAME, HEADER = 8, 24  # bytes of the RecordIO frame and of the IRHeader
LARGEST_EXACT = 2**24  # record numbers travel as float32 in the header and identity records


class Shard:
    """One insightface data set, opened for reading at random positions from any number of threads.

    Everything but the images themselves is checked on opening.

    Parameters
    ----------
    folder : path
        Holds `train.rec`, `train.idx` and `property`.

    Attributes
    ----------
    classes : int
        Number of identities, from `property`.
    image_size : (int, int)
        Height and width of the images, from `property`.
    labels : int64 array (n,)
        Identity of each image, 0 <= label < classes.
    records : int64 array (n,)
        Record number of each image.

    Raises
    ------
    LatseError
        If a file is missing, malformed or truncated, or a label does not fit `classes`.
    """

    def __init__(self, folder: str | os.PathLike):
        self.folder = Path(folder)
        self.classes, self.image_size = _read_property(self.folder / "property")
        self._file = self.folder / "train.rec"
        self._words = _open_words(self._file)
        index = _Index(self._file, self._words, *_read_index(self.folder / "train.idx"))
        rows = index.image_rows()
        self.records = index.keys[rows]
        self.labels = _checked_labels(self._file, self.records, index.label[rows], self.classes)
        self._starts = index.starts[rows]

    def __len__(self) -> int:
        return len(self.records)

    def digest(self) -> str:
        """Return 32 hexadecimal digits that stand for the set.

        Its index, labels and number of people, and of each image its length and the word in its middle: to
        read whole images would take minutes of a large set.
        """
        found = hashlib.blake2b(str(self.classes).encode(), digest_size=16)
        length = self._words[self._starts + 1] & LENGTH_BITS
        middle = self._words[self._starts + length // 8]
        for array in (self.records, self.labels, self._starts, length, middle):
            found.update(np.ascontiguousarray(array, np.int64))
        return found.hexdigest()

    def read(self, position: int) -> tuple[np.ndarray, int, int]:
        """Return (image uint8 (height, width, 3) RGB, label, record number) of the image at `position`.

        Raises LatseError naming file and record if it cannot be decoded or has another size.
        """
        record = int(self.records[position])
        content = _content(self._file, record, self._words, int(self._starts[position]))
        flag = int(content[:4].view("<u4")[0])
        image = decode(content[HEADER + 4 * flag :], f"{self._file}: record {record}", self.image_size)
        return image, int(self.labels[position]), record


def decode(encoded: np.ndarray, name: str, size: tuple[int, int]) -> np.ndarray:
    """Decode JPEG or PNG bytes (uint8 array (n,)) to uint8 (height, width, 3) RGB.

    Raises LatseError, beginning with `name`, if they are no image or not one of `size` (height, width).
    """
    image = cv2.imdecode(encoded, cv2.IMREAD_COLOR) if encoded.size else None
    if image is None:
        raise LatseError(f"{name} is not an image that can be decoded")
    if image.shape[:2] != tuple(size):
        raise LatseError(f"{name} is {image.shape[0]}x{image.shape[1]} pixels instead of {size[0]}x{size[1]}")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def write_shard(
    folder: str | os.PathLike,
    images_by_label: Iterable[tuple[int, bytes]],
    classes: int,
    image_size: tuple[int, int] = (112, 112),
) -> None:
    """Write an insightface data set; older files of the same names are replaced only when all is written.

    Parameters
    ----------
    folder : path
        Made if it does not exist.
    images_by_label : iterable of (int, bytes)
        Label (0 <= label < classes) and encoded JPEG or PNG of each image, in any order.
    classes : int
        Number of identities, for `property`.
    image_size : (int, int)
        Height and width, for `property`.

    Raises
    ------
    LatseError
        If there is no image, a label does not fit, or the folder cannot be written.
    """
    import mxnet as mx

    images = sorted(images_by_label, key=lambda item: item[0])
    _check_images(folder, images, classes)
    with staged(folder) as stage:
        output = mx.recordio.MXIndexedRecordIO(str(stage / "train.idx"), str(stage / "train.rec"), "w")

        def write(record: int, label: float | list[int], content: bytes = b"") -> None:
            output.write_idx(record, mx.recordio.pack(mx.recordio.IRHeader(0, label, record, 0), content))

        labels = [label for label, _ in images]
        ranges = _runs(labels, first=1)
        after_images = 1 + len(images)
        write(0, [after_images, after_images + len(ranges)])
        for record, (label, encoded) in enumerate(images, start=1):
            write(record, float(label), encoded)
        for record, span in enumerate(ranges, start=after_images):
            write(record, list(span))
        output.close()
        with _writing_into(folder):
            (stage / "property").write_text(f"{classes},{image_size[0]},{image_size[1]}\n")
        Shard(stage)  # MXNet's writer does not report a full disk; a truncated file shows here


@contextlib.contextmanager
def staged(folder: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary folder inside `folder`; on success its files replace those of the same names.

    All the older files go before the first new one comes, so that a kill at any moment leaves whole files
    of one set, never a mixture. A failure before that leaves the older files as they were, and what a killed
    process left behind goes at the next call.

    Raises LatseError if the folder cannot be written or another process is writing into it; what the body
    raises passes unchanged.
    """
    folder = make_folder(folder)
    with locked(folder), contextlib.ExitStack() as clean_up:
        with _writing_into(folder):
            for left in folder.glob(".staged-*"):
                shutil.rmtree(left)
            stage = Path(clean_up.enter_context(tempfile.TemporaryDirectory(prefix=".staged-", dir=folder)))
        yield stage
        with _writing_into(folder):
            _publish(stage, folder)


def _publish(stage: Path, folder: Path) -> None:
    files = sorted(stage.iterdir())
    for file in files:
        with file.open("rb") as handle:
            os.fsync(handle.fileno())
    for file in files:
        with contextlib.suppress(FileNotFoundError):
            (folder / file.name).unlink()
    for file in files:
        file.replace(folder / file.name)


@contextlib.contextmanager
def _writing_into(folder: str | os.PathLike) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LatseError(f"cannot write into {folder}: {error.strerror or error}") from error


class _Index:
    """The records that the .idx names, in ascending order of their numbers, with their checked headers.

    Attributes: keys, starts (in 4-byte words), flag, label (the first one), length (bytes), each (n,).
    """

    def __init__(self, file: Path, words: np.ndarray, keys: np.ndarray, offsets: np.ndarray):
        order = np.argsort(keys, kind="stable")
        self._file, self._words = file, words
        self.keys = keys[order]
        size = 4 * len(words)
        self._refuse(self.keys[1:] == self.keys[:-1], "stands twice in train.idx")
        offsets = offsets[order]
        self._refuse((offsets < 0) | (offsets > size - FRAME - HEADER), "lies past the end of the file")
        self._refuse(offsets % 4 != 0, "starts at no multiple of 4 bytes")
        self.starts = offsets // 4
        self._refuse(words[self.starts] != MAGIC, "does not start with RecordIO's magic number")
        self.length = (words[self.starts + 1] & LENGTH_BITS).astype(np.int64)
        self._refuse(4 * self.starts + FRAME + self.length > size, "is cut off: the file is truncated")
        self.flag = words[self.starts + 2].astype(np.int64)
        self._refuse(HEADER + 4 * self.flag > self.length, "is shorter than its labels")
        self.label = words[self.starts + np.where(self.flag > 0, 8, 3)].view("<f4")

    def image_rows(self) -> np.ndarray:
        """Rows of the images: those in the identities' ranges, or all where there is no header record."""
        if self.keys[0] != 0 or self.flag[0] == 0 or self.length[0] > HEADER + 4 * self.flag[0]:
            return np.arange(len(self.keys))
        identities = self._rows(*self._span(0))
        spans = [self._rows(*self._span(row)) for row in identities]
        rows = np.concatenate(spans) if spans else np.zeros(0, np.int64)
        if not len(rows):
            raise LatseError(f"{self._file}: the header record promises no image")
        return rows

    def _span(self, row: int) -> tuple[int, int]:
        start = self.starts[row]
        if self.flag[row] >= 2:
            first, last = self._words[start + 8 : start + 10].view("<f4")
            if 0 <= first <= last < np.inf:
                return int(first), int(last)
        raise LatseError(f"{self._file}: record {self.keys[row]} does not hold a range of records")

    def _rows(self, first: int, last: int) -> np.ndarray:
        low, high = np.searchsorted(self.keys, [first, last])
        if high - low != last - first:
            raise LatseError(f"{self._file}: train.idx lacks some of the records {first} to {last - 1}")
        return np.arange(low, high)

    def _refuse(self, wrong: np.ndarray, complaint: str) -> None:
        if wrong.any():
            raise LatseError(f"{self._file}: record {self.keys[np.argmax(wrong)]} {complaint}")


def _content(file: Path, record: int, words: np.ndarray, start: int) -> np.ndarray:
    """Bytes of one record; a record that holds the magic number itself is stored in parts around it."""
    parts = []
    while True:
        if start + 2 > len(words) or words[start] != MAGIC:
            raise LatseError(f"{file}: record {record} is cut off: the file is truncated")
        continuation, length = divmod(int(words[start + 1]), 1 << 29)
        padded = words[start + 2 : start + 2 + (length + 3) // 4]
        if 4 * len(padded) < length:
            raise LatseError(f"{file}: record {record} is cut off: the file is truncated")
        parts.append(padded.view(np.uint8)[:length])
        if continuation in (0, 3):
            break
        parts.append(words[start : start + 1].view(np.uint8))
        start += 2 + len(padded)
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _open_words(file: Path) -> np.ndarray:
    try:
        size = file.stat().st_size
        if size == 0 or size % 4:
            raise LatseError(f"{file} is {'truncated' if size else 'empty'} ({size} bytes)")
        return np.memmap(file, dtype="<u4", mode="r").view(np.ndarray)
    except OSError as error:
        raise LatseError(f"cannot read {file}: {error.strerror or error}") from error


def _read_text(file: Path) -> str:
    try:
        return file.read_text("ascii")
    except OSError as error:
        raise LatseError(f"cannot read {file}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise LatseError(f"{file} is not a text file") from error


def _read_property(file: Path) -> tuple[int, tuple[int, int]]:
    try:
        classes, height, width = (int(field) for field in _read_text(file).split(","))
    except ValueError as error:
        raise LatseError(f"{file} does not hold 'classes,height,width'") from error
    if min(classes, height, width) < 1:
        raise LatseError(f"{file} holds a number below 1")
    return classes, (height, width)


def _read_index(file: Path) -> tuple[np.ndarray, np.ndarray]:
    fields = _read_text(file).split()
    try:
        keys, offsets = np.array(fields, dtype=np.int64).reshape(-1, 2).T
    except (ValueError, OverflowError) as error:
        raise LatseError(f"{file} does not hold a record number and an offset in each line") from error
    if not len(keys):
        raise LatseError(f"{file} is empty")
    return keys, offsets


def _checked_labels(file: Path, records: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    wrong = ~((labels >= 0) & (labels < classes) & (labels == np.floor(labels)))
    if wrong.any():
        at = np.argmax(wrong)
        raise LatseError(
            f"{file}: record {records[at]} has the label {labels[at]:g}; property has {classes} classes"
        )
    return labels.astype(np.int64)


def _check_images(folder: str | os.PathLike, images: list[tuple[int, bytes]], classes: int) -> None:
    if not images:
        raise LatseError(f"no image to write into {folder}")
    if not 0 <= images[0][0] <= images[-1][0] < classes:
        raise LatseError(
            f"labels {images[0][0]} to {images[-1][0]} do not fit the {classes} classes of {folder}"
        )
    if 2 * len(images) >= LARGEST_EXACT:
        raise LatseError(
            f"{len(images)} images are too many for one data set: their numbers would not be exact"
        )


def _runs(labels: list[int], first: int) -> list[tuple[int, int]]:
    """(first, one past last) of each run of equal labels, counted from `first`."""
    ends = list(itertools.accumulate((len(list(run)) for _, run in itertools.groupby(labels)), initial=first))
    return list(zip(ends[:-1], ends[1:]))
