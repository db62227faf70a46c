"""Insightface sets: `train.rec`, `train.idx` and `property` in one folder, written and read.

Layout (insightface's, https://github.com/deepinsight/insightface): record 0 is a header whose label is
[first identity record, one past the last]; the images follow from record 1 on; each identity record has the
label [first image record, one past the last]. A set without these extra records is read as well: then every
record is an image. `property` is one line, "classes,height,width". A set may lie in several files,
`train-00000.rec`, `train-00001.rec`, …, each with its own .idx and laid out like a set of its own.

The RecordIO framing (dmlc-core's recordio.h): magic, a word of 3 bits continuation flag and 29 bits length,
the bytes, padding to 4. A record's bytes start with MXNet's IRHeader: flag, label, two 64-bit ids; flag > 0
says how many float32 labels follow it.

A float32 holds whole numbers exactly up to 2**24. A range that it would lose stands a second time, exact,
in the ids of its record; readers that look at the labels alone see it rounded.
"""

from __future__ import annotations

import array
import contextlib
import os
import re
import shutil
import struct
import tempfile
import warnings
import weakref
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import Iterable, Iterator

import cv2
import numpy as np
from tqdm import tqdm

from latse.data import image_header
from latse.errors import LatseError
from latse.files import locked, make_folder

MAGIC = 0xCED7230A
MAGIC_BYTES = struct.pack("<I", MAGIC)
FRAME = struct.Struct("<II")  # magic; continuation flag and length
HEADER = struct.Struct("<IfQQ")  # IRHeader: flag, label, id, id2
LENGTH = 1 << 29  # the frame's second word is divided by it into continuation flag and length
LARGEST_EXACT = 2**24  # up to it, float32 holds every whole number
LARGEST = 2**48  # record number
AT_ONCE = 1 << 16  # bytes of a record that are read before its length is known
CHUNK = 1 << 16  # records whose beginnings are read between two steps of the progress bar
SAMPLE = 1024  # images whose content digest() reads
# 8-bit colour, whatever it was; not turned by Exif data, as MXNet does not: faces are upright
AS_STORED = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
SET_FILE = re.compile(r"train(-\d{5})?\.(rec|idx)")
NO_MAGIC = "does not start with RecordIO's magic number"
CUT_OFF = "is cut off: the file is truncated"
SHORT = "is shorter than its labels"
# What a record starts with, frame and IRHeader and the first two of the labels that may follow.
START = np.dtype(
    [
        ("magic", "<u4"),
        ("word", "<u4"),
        ("flag", "<u4"),
        ("label", "<f4"),
        ("ids", "<u8", 2),
        ("labels", "<f4", 2),
    ]
)


class Shard:
    """One insightface data set, opened for reading at random positions from any number of threads.

    On opening, the index is checked against the length of the file, and the header, the identity records and
    the labels of each identity's first and last image are read: a large set opens within seconds. A record
    between those is checked when it is read. Files are read by `pread`, so that one which shrinks meanwhile
    is an error like any other.

    Parameters
    ----------
    folder : path
        Holds `property` and `train.rec`, `train.idx` or `train-00000.rec`, `train-00000.idx`, ….

    Attributes
    ----------
    classes : int
        Number of identities, from `property`.
    image_size : (int, int)
        Height and width of the images, from `property`.
    labels : int64 array (n,)
        Identity of each image, 0 <= label < classes.
    records : int64 array (n,)
        Number of each image, ascending: its record number, and where the set lies in several files, plus for
        each earlier file its largest record number + 1.

    Raises
    ------
    LatseError
        If a file is missing, malformed or truncated, or a label does not fit `classes`.
    """

    def __init__(self, folder: str | os.PathLike):
        self.folder = Path(folder)
        self.classes, self.image_size = read_property(self.folder / "property")
        self._files = [_RecordFile(path, self.classes) for path in _record_files(self.folder)]
        ends = np.cumsum([0] + [file.last + 1 for file in self._files])
        self._first = ends[:-1]
        self.records = np.concatenate([file.records + start for file, start in zip(self._files, self._first)])
        self.labels = np.concatenate([file.labels for file in self._files])
        self._starts = np.concatenate([file.starts for file in self._files])
        self._rooms = np.concatenate([file.rooms for file in self._files])
        images = [len(file.records) for file in self._files]
        self._file = np.repeat(np.arange(len(self._files), dtype=np.int32), images)

    def __len__(self) -> int:
        return len(self.records)

    def digest(self) -> str:
        """Return 32 hexadecimal digits that stand for the set.

        Its number of people, its index and labels, and the content of 1,024 images at even distances (of all,
        in a smaller set): to read every image would take minutes of a large set.
        """
        found = blake2b(str(self.classes).encode(), digest_size=16)
        for numbers in (self.records, self.labels, self._starts, [file.size for file in self._files]):
            found.update(np.ascontiguousarray(numbers, np.int64))
        for position in np.linspace(0, len(self) - 1, min(SAMPLE, len(self))).astype(np.int64):
            found.update(self.content(position))
        return found.hexdigest()

    def name(self, position: int) -> str:
        """Return how messages name the image at `position`: its file and the record number in that file."""
        number = self._file[position]
        return f"{self._files[number].path}: record {self.records[position] - self._first[number]}"

    def content(self, position: int) -> np.ndarray:
        """Return the encoded image at `position` as uint8 array (bytes,).

        Raises LatseError naming file and record if the record is cut off or has another label than `labels`.
        """
        try:
            return np.frombuffer(self._encoded(position), np.uint8)
        except ValueError as error:
            raise LatseError(f"{self.name(position)} {error}") from error

    def read(self, position: int) -> tuple[np.ndarray, int, int]:
        """Return (image uint8 (height, width, 3) RGB, label, record number) of the image at `position`.

        Raises LatseError naming file and record if it cannot be decoded or has another size.
        """
        image = cv2.cvtColor(self._image(position), cv2.COLOR_BGR2RGB)
        return image, int(self.labels[position]), int(self.records[position])

    def read_into(self, planes: np.ndarray, position: int, mirrored: bool) -> None:
        """Write the image at `position` into `planes`, contiguous uint8 (3, height, width) RGB.

        `mirrored` swaps left and right. Raises LatseError like `read`.
        """
        image = self._image(position)
        red, green, blue = planes
        cv2.split(cv2.flip(image, 1) if mirrored else image, [blue, green, red])

    def _image(self, position: int) -> np.ndarray:
        """Return the image as OpenCV has it, BGR."""
        try:
            return _decoded(self._encoded(position), self.image_size)
        except ValueError as error:
            raise LatseError(f"{self.name(position)} {error}") from error

    def _encoded(self, position: int) -> bytes:
        file = self._files[self._file[position]]
        data = file.read(int(self._starts[position]), int(self._rooms[position]))
        label, start = _label_and_start(data)
        if label != self.labels[position]:
            raise ValueError(f"has the label {label:g}; its identity has {self.labels[position]}")
        return data[start:]


def decode(encoded: bytes | np.ndarray, name: str, size: tuple[int, int]) -> np.ndarray:
    """Decode a JPEG or PNG (bytes, or uint8 array (n,)) to uint8 (height, width, 3) RGB.

    Grey, CMYK and 16-bit images become 8-bit RGB. Raises LatseError, beginning with `name`, if it is no image
    or not one of `size` (height, width); one that announces another size is not decoded, whatever its size.
    """
    try:
        return cv2.cvtColor(_decoded(bytes(encoded), tuple(size)), cv2.COLOR_BGR2RGB)
    except ValueError as error:
        raise LatseError(f"{name} {error}") from error


def _decoded(encoded: bytes, size: tuple[int, int]) -> np.ndarray:
    """Return an image as OpenCV has it, BGR; raise ValueError, saying what is wrong with it."""
    announced = image_header.announced(encoded)
    if announced and (announced.height, announced.width) != size:
        raise ValueError(f"is {announced.height}x{announced.width} pixels instead of {size[0]}x{size[1]}")
    readable = announced and not image_header.is_cut_off(encoded)
    image = cv2.imdecode(np.frombuffer(encoded, np.uint8), AS_STORED) if readable else None
    if image is None:
        raise ValueError("is not an image that can be decoded")
    return image


def encode(image: np.ndarray, quality: int = 100) -> bytes:
    """Encode uint8 (height, width, 3) RGB as JPEG of `quality` 1 to 100."""
    return cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


class ShardWriter:
    """Writes an insightface data set image by image; a context manager, used inside `staged(folder)`.

    Memory grows with the number of people only. On leaving without an error everything has been written
    and opened again as a check; after an error the files are closed and incomplete.

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

    Raises
    ------
    LatseError
        If an argument is out of range, no image came, or the folder cannot be written.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        classes: int,
        image_size: tuple[int, int] = (112, 112),
        shards: int = 1,
        images: int | None = None,
    ):
        if not 1 <= classes <= LARGEST_EXACT:
            raise LatseError(f"{folder}: {classes} people do not fit, only 1 to {LARGEST_EXACT}")
        if not 1 <= shards <= 99999:
            raise LatseError(f"{folder}: the number of shards is {shards}, must be 1 to 99999")
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
            raise LatseError(f"label {label} does not fit the {self._classes} classes of {self._folder}")
        if label < self._label:
            raise LatseError(f"{self._folder}: label {label} comes after {self._label}; labels must ascend")
        if len(encoded) >= LENGTH - HEADER.size:
            raise LatseError(f"{self._folder}: an image of {len(encoded)} bytes is too large for a record")
        with _writing_into(self._folder):
            if label != self._label:
                self._begin_person(label)
            self._outputs[-1].add(label, bytes(encoded))
        self._count += 1

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            for output in self._outputs:
                output.abandon()

    def _finish(self) -> None:
        if not self._outputs:
            raise LatseError(f"no image to write into {self._folder}")
        with _writing_into(self._folder):
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
        """Whether the current file is as near to its share as it gets, if people are alike."""
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

    Parameters
    ----------
    folder : path
        Made if it does not exist.
    images_by_label : iterable of (int, bytes)
        Label (0 <= label < classes) and encoded JPEG or PNG of each image, in any order.
    classes, image_size, shards
        As for `ShardWriter`, which does not need all images at once.

    Raises
    ------
    LatseError
        If there is no image, a label does not fit, or the folder cannot be written.
    """
    images = sorted(images_by_label, key=lambda item: item[0])
    with staged(folder) as stage, ShardWriter(stage, classes, image_size, shards, len(images)) as writer:
        for label, encoded in images:
            writer.add(label, encoded)


class _RecordOutput:
    """One .rec with its .idx being written: header, images, then a record for each person."""

    def __init__(self, stem: Path):
        self.images = 0
        self._next = 1
        self._people = array.array("q")  # first record of each
        self._rec = stem.with_suffix(".rec").open("wb", buffering=1 << 20)
        self._idx = stem.with_suffix(".idx").open("w", encoding="ascii")
        self._write(0, _packed_range(0, 0, 0))  # its place is kept: close() knows what belongs there

    def begin_person(self) -> None:
        self._people.append(self._next)

    def add(self, label: int, encoded: bytes) -> None:
        self._write(self._next, HEADER.pack(0, label, self._next, 0) + encoded)
        self._next += 1
        self.images += 1

    def close(self) -> None:
        after_images = self._next
        for first, last in zip(self._people, [*self._people[1:], after_images]):
            self._write(self._next, _packed_range(self._next, first, last))
            self._next += 1
        self._rec.seek(0)
        self._rec.write(_framed(_packed_range(0, after_images, self._next)))
        self._rec.close()
        self._idx.close()

    def abandon(self) -> None:
        for file in (self._rec, self._idx):
            with contextlib.suppress(OSError):
                file.close()

    def _write(self, record: int, content: bytes) -> None:
        self._idx.write(f"{record}\t{self._rec.tell()}\n")
        self._rec.write(_framed(content))


def _packed_range(record: int, first: int, last: int) -> bytes:
    """A header or identity record: the range as two float32 labels, where they lose it in the ids too."""
    labels = np.array([first, last], "<f4")
    exact = labels.astype(np.int64).tolist() == [first, last]
    return HEADER.pack(2, 0, *((record, 0) if exact else (first, last))) + labels.tobytes()


def _framed(content: bytes) -> bytes:
    """Frame a record; it is stored in parts around each magic number that it holds at a multiple of 4."""
    cuts, at = [], content.find(MAGIC_BYTES)
    while at >= 0:
        if at % 4 == 0:
            cuts.append(at)
        at = content.find(MAGIC_BYTES, at + (4 if at % 4 == 0 else 1))
    starts, ends = [0, *(cut + 4 for cut in cuts)], [*cuts, len(content)]
    flags = [1, *[2] * (len(cuts) - 1), 3] if cuts else [0]
    framed = []
    for flag, start, end in zip(flags, starts, ends):
        head = FRAME.pack(MAGIC, flag * LENGTH + end - start)
        framed += [head, content[start:end], bytes(-(end - start) % 4)]
    return b"".join(framed)


@contextlib.contextmanager
def staged(folder: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary folder inside `folder`; on success its files replace those of the same names.

    Where they are a data set, all .rec and .idx files of an older one go, however many it had. All the older
    files go before the first new one comes, so that a kill at any moment leaves whole files of one set, never
    a mixture. A failure before that leaves the older files as they were, and what a killed process left
    behind goes at the next call.

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
    # `property` goes first and comes last: without it, what else there is does not count as a set.
    files = sorted(stage.iterdir(), key=lambda file: (file.name == "property", file.name))
    for file in files:
        with file.open("rb") as handle:
            os.fsync(handle.fileno())
    older = [folder / file.name for file in reversed(files)]
    if (stage / "property").exists():
        older += _set_files(folder)  # of another number of shards
    for file in older:
        with contextlib.suppress(FileNotFoundError):
            file.unlink()
    for file in files:
        file.replace(folder / file.name)


@contextlib.contextmanager
def _writing_into(folder: str | os.PathLike) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LatseError(f"cannot write into {folder}: {error.strerror or error}") from error


class _RecordFile:
    """One .rec with its .idx, opened.

    Attributes: path; size, in bytes; last, the largest record number; and of each image, in the order of the
    record numbers: records, labels, starts, int64 (n,), and rooms, the bytes to the next record, int32 (n,).
    """

    def __init__(self, path: Path, classes: int):
        self.path = path
        self._handle, self.size = _opened(path)
        weakref.finalize(self, os.close, self._handle)
        index = _read_index(path.with_suffix(".idx"))
        self._keys, self._starts = index[:, np.argsort(index[0], kind="stable")]
        self._check_index()
        self.last = int(self._keys[-1])
        images, people = self._layout()
        self.records, self.starts = self._keys[images], self._starts[images]
        self.rooms = _rooms(self._starts, self.size)[images]
        labels = self._labels(images, people)
        self._check_labels(labels, classes)
        self.labels = labels.astype(np.int64)
        del self._keys, self._starts

    def read(self, start: int, room: int) -> bytes:
        """Return the bytes of the record at `start`; raise ValueError, saying what is wrong with it.

        A record that holds the magic number itself is stored in parts around it.
        """
        parts, flag = [], 1
        while flag in (1, 2):
            data = self._bytes(start, room)
            magic, word = FRAME.unpack(data[: FRAME.size].ljust(FRAME.size))
            if magic != MAGIC:
                raise ValueError(NO_MAGIC if len(data) >= FRAME.size else CUT_OFF)
            flag, length = divmod(word, LENGTH)
            if FRAME.size + length > len(data) and start + FRAME.size + length <= self.size:
                data = self._bytes(start, FRAME.size + length)
            if FRAME.size + length > len(data):
                raise ValueError(CUT_OFF)
            parts.append(data[FRAME.size : FRAME.size + length])
            start += FRAME.size + length + -length % 4
            room = FRAME.size
        return MAGIC_BYTES.join(parts)

    def _bytes(self, start: int, length: int) -> bytes:
        try:
            return os.pread(self._handle, length, start)
        except OSError as error:
            raise LatseError(f"cannot read {self.path}: {error.strerror}") from error

    def _check_index(self) -> None:
        everything = np.arange(len(self._keys))
        self._refuse(everything, (self._keys < 0) | (self._keys > LARGEST), "has a number out of range")
        self._refuse(everything[1:], self._keys[1:] == self._keys[:-1], "stands twice in the .idx")
        past = (self._starts < 0) | (self._starts > self.size - FRAME.size - HEADER.size)
        self._refuse(everything, past, "lies past the end of the file")
        self._refuse(everything, self._starts % 4 != 0, "starts at no multiple of 4 bytes")
        self._begin(np.array([np.argmax(self._starts)]))  # a file that lost its end shows here

    def _layout(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the images, and the rows [first, last) of each person among all rows, int (people, 2)."""
        rows = np.arange(len(self._keys))
        header = self._begin(rows[:1])
        if self._keys[0] != 0 or not header["flag"][0] or _content_length(header)[0] > 0:
            return rows, np.zeros((0, 2), np.int64)
        first, last = self._ranges(rows[:1], header)[0]
        identities = rows[first:last]
        people = self._ranges(identities, self._begin(identities))
        images = np.delete(rows, np.append(identities, 0))
        if not len(images):
            raise LatseError(f"{self.path}: the header record promises no image")
        return images, people[people[:, 0] < people[:, 1]]

    def _labels(self, images: np.ndarray, people: np.ndarray) -> np.ndarray:
        """Label of each image, float32; where a person's first and last image agree, only they are read."""
        labels, known = np.full(len(self._keys), np.nan, np.float32), np.zeros(len(self._keys), bool)
        found = _first_label(self._begin((people - [0, 1]).ravel())).reshape(-1, 2)
        for (first, last), (label, other) in zip(people, found):
            labels[first:last], known[first:last] = label, label == other
        unknown = images[~known[images]]
        labels[unknown] = _first_label(self._begin(unknown))
        return labels[images]

    def _begin(self, rows: np.ndarray) -> np.ndarray:
        """What the records of `rows` start with: START (n,)."""
        found = np.empty(len(rows), START)
        bar = tqdm(total=len(rows), desc=self.path.name, unit="record", leave=False, delay=1)
        for first in range(0, len(rows), CHUNK):
            starts = self._starts[rows[first : first + CHUNK]].tolist()
            read = [self._bytes(start, START.itemsize) for start in starts]
            bytes_ = b"".join(part.ljust(START.itemsize, b"\0") for part in read)
            found[first : first + CHUNK] = np.frombuffer(bytes_, START)
            bar.update(len(starts))
        bar.close()
        self._refuse(rows, found["magic"] != MAGIC, NO_MAGIC)
        length = found["word"].astype(np.int64) % LENGTH
        self._refuse(rows, self._starts[rows] + FRAME.size + length > self.size, CUT_OFF)
        self._refuse(rows, _content_length(found) < 0, SHORT)
        return found

    def _ranges(self, rows: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """The ranges that header and identity records hold, as rows [first, last): int64 (n, 2)."""
        ranges = starts["labels"]
        wrong = (starts["flag"] < 2) | ~((ranges[:, 0] >= 0) & (ranges[:, 0] <= ranges[:, 1]))
        self._refuse(rows, wrong | ~(ranges[:, 1] < 2.0**63), "does not hold a range of records")
        exact = (starts["ids"].astype(np.float32) == ranges).all(axis=1)
        numbers = np.where(exact[:, None], starts["ids"], ranges).astype(np.int64)
        found = np.searchsorted(self._keys, numbers)
        lacking = found[:, 1] - found[:, 0] != numbers[:, 1] - numbers[:, 0]
        if lacking.any():
            first, last = numbers[np.argmax(lacking)]
            raise LatseError(f"{self.path}: the .idx lacks some of the records {first} to {last - 1}")
        return found

    def _check_labels(self, labels: np.ndarray, classes: int) -> None:
        wrong = ~((labels >= 0) & (labels < classes) & (labels == np.floor(labels)))
        if wrong.any():
            at = np.argmax(wrong)
            raise LatseError(
                f"{self.path}: record {self.records[at]} has the label {labels[at]:g}; "
                f"property has {classes} classes"
            )

    def _refuse(self, rows: np.ndarray, wrong: np.ndarray, complaint: str) -> None:
        if wrong.any():
            raise LatseError(f"{self.path}: record {self._keys[rows[np.argmax(wrong)]]} {complaint}")


def _content_length(starts: np.ndarray) -> np.ndarray:
    """Bytes that follow the labels, int64 (n,); below 0 where a record is too short for what it announces.

    A record stored in parts (it holds the magic number) is judged by its first one, which may end anywhere.
    """
    flag, length = starts["flag"].astype(np.int64), starts["word"].astype(np.int64)
    found = length % LENGTH - HEADER.size - 4 * flag
    return np.where(length >= LENGTH, np.maximum(found, 0), found)


def _first_label(starts: np.ndarray) -> np.ndarray:
    return np.where(starts["flag"] > 0, starts["labels"][:, 0], starts["label"])


def _label_and_start(data: bytes) -> tuple[float, int]:
    """A record's (first) label and where its content starts; raises ValueError if the record is too short."""
    if len(data) < HEADER.size:
        raise ValueError(SHORT)
    flag, label, _, _ = HEADER.unpack_from(data)
    start = HEADER.size + 4 * flag
    if start > len(data):
        raise ValueError(SHORT)
    return (struct.unpack_from("<f", data, HEADER.size)[0] if flag else label), start


def _rooms(starts: np.ndarray, size: int) -> np.ndarray:
    """Bytes from each start to the next one, at least a frame's and at most AT_ONCE: int32 (n,)."""
    order = np.argsort(starts, kind="stable")
    rooms = np.empty(len(starts), np.int64)
    rooms[order] = np.diff(starts[order], append=size)
    return np.clip(rooms, FRAME.size, AT_ONCE).astype(np.int32)


def _record_files(folder: Path) -> list[Path]:
    """The .rec files of a set, in order."""
    single = folder / "train.rec"
    several = sorted(path for path in _set_files(folder) if path.suffix == ".rec" and path != single)
    if not several:
        return [single]
    if single.exists():
        raise LatseError(f"{folder} holds both train.rec and {several[0].name}: two sets in one folder")
    for number, path in enumerate(several):
        if path.name != f"train-{number:05d}.rec":
            raise LatseError(f"{folder} lacks train-{number:05d}.rec, but holds {path.name}")
    return several


def _set_files(folder: Path) -> list[Path]:
    """The .rec and .idx files in a folder, of however many shards."""
    return [path for path in folder.glob("train*") if SET_FILE.fullmatch(path.name)]


def _opened(file: Path) -> tuple[int, int]:
    """A file handle and the file's size in bytes."""
    try:
        handle = os.open(file, os.O_RDONLY)
        size = os.fstat(handle).st_size
    except OSError as error:
        raise LatseError(f"cannot read {file}: {error.strerror or error}") from error
    if size == 0 or size % 4:
        os.close(handle)
        raise LatseError(f"{file} is {'truncated' if size else 'empty'} ({size} bytes)")
    return handle, size


def _read_text(file: Path) -> str:
    try:
        return file.read_text("ascii")
    except OSError as error:
        raise LatseError(f"cannot read {file}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise LatseError(f"{file} is not a text file") from error


def read_property(file: Path) -> tuple[int, tuple[int, int]]:
    """Return number of classes and (height, width) of a `property`; raise LatseError if it says neither."""
    try:
        classes, height, width = (int(field) for field in _read_text(file).split(","))
    except ValueError as error:
        raise LatseError(f"{file} does not hold 'classes,height,width'") from error
    if min(classes, height, width) < 1:
        raise LatseError(f"{file} holds a number below 1")
    return classes, (height, width)


def _read_index(file: Path) -> np.ndarray:
    """Record numbers and where each starts, in the order of the file: int64 (2, n)."""
    text = _read_text(file)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a word that is no number is only a warning to numpy
            index = np.fromstring(text, np.int64, sep=" ").reshape(-1, 2).T
    except (ValueError, Warning) as error:
        raise LatseError(f"{file} does not hold a record number and an offset in each line") from error
    if not index.size:
        raise LatseError(f"{file} is empty")
    return index
