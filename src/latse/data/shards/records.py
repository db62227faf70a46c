"""Insightface sets are read: one `Shard` over all files of a folder."""

from __future__ import annotations

import os
import warnings
import weakref
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

from latse.data import images
from latse.data.shards import recordio
from latse.data.shards.recordio import FRAME, HEADER, LARGEST_NUMBER, LENGTH, MAGIC, START
from latse.data.shards.scan import RecordError, RecordState, read_record
from latse.errors import LatseError
from latse.files import explained, read_text, refuse_irregular

CHUNK = 1 << 16  # records whose beginnings are read between two steps of the progress bar
SAMPLE = 1024  # images whose content digest() reads
NO_MAGIC = "does not start with RecordIO's magic number"
CUT_OFF = "is cut off: the file is truncated"
SHORT = "is shorter than its labels"
WRONG = {
    RecordState.NO_MAGIC: NO_MAGIC,
    RecordState.INSIDE: "starts inside another record",
    RecordState.TOO_LONG: "is longer than 64 MiB",
}


class Batch(NamedTuple):
    """Images of a set.

    image uint8 (B, 3, height, width) RGB 0..255; label float32 (B,); record int64 (B,), as `Shard.records`;
    mirrored bool (B,).
    """

    image: np.ndarray
    label: np.ndarray
    record: np.ndarray
    mirrored: np.ndarray

    def unmirrored(self) -> np.ndarray:
        """Return the images as the set holds them, uint8 (B, 3, height, width)."""
        return np.where(self.mirrored[:, None, None, None], self.image[..., ::-1], self.image)


class Shard:
    """One insightface data set, opened for reading at random positions from any number of threads.

    On opening, the index is checked against the length of the file, and the header, the identity records and
    the labels of each identity's first and last image are read: a large set opens within seconds. A record
    between those is checked when it is read. Files are read by `pread`, so that one which shrinks meanwhile
    is an error like any other.

    Raises LatseError if a file is missing, malformed or truncated, a label does not fit `classes`, or people
    of two sets share labels (`recordio.shared_people`, `recordio.repeated_people`).

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
    """

    def __init__(self, folder: str | os.PathLike):
        self.folder = Path(folder)
        files = _record_files(self.folder)
        self.classes, self.image_size = recordio.read_property(self.folder / "property")
        self._files = [_RecordFile(path, self.classes) for path in files]
        ends = np.cumsum([0] + [file.last + 1 for file in self._files])
        self._first = ends[:-1]
        self.records = np.concatenate([file.records + start for file, start in zip(self._files, self._first)])
        self.labels = np.concatenate([file.labels for file in self._files])
        self._starts = np.concatenate([file.starts for file in self._files])
        images = [len(file.records) for file in self._files]
        self._file = np.repeat(np.arange(len(self._files), dtype=np.int32), images)
        self._refuse_strangers()

    def __len__(self) -> int:
        return len(self.records)

    def digest(self) -> str:
        """Return 32 hexadecimal digits that stand for the set.

        Its number of people, its index and labels, and the content of 1,024 images at even distances (of all,
        in a smaller set): to read every image would take minutes of a large set.
        """
        hashed = blake2b(str(self.classes).encode(), digest_size=16)
        for numbers in (self.records, self.labels, self._starts, [file.size for file in self._files]):
            hashed.update(np.ascontiguousarray(numbers, np.int64))
        for position in np.linspace(0, len(self) - 1, min(SAMPLE, len(self))).astype(np.int64):
            hashed.update(self.content(position))
        return hashed.hexdigest()

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

    def batch(self, positions: np.ndarray, mirrored: np.ndarray | None = None) -> Batch:
        """Read the images at int (B,) positions, where `mirrored`, bool (B,), is true their mirror images.

        Raises LatseError like `read`.
        """
        mirrored = np.zeros(len(positions), bool) if mirrored is None else mirrored.astype(bool)
        image = np.empty((len(positions), 3, *self.image_size), np.uint8)
        for planes, position, mirror in zip(image, positions.tolist(), mirrored.tolist()):
            self.read_into(planes, position, mirror)
        return Batch(image, self.labels[positions].astype(np.float32), self.records[positions], mirrored)

    def read_into(self, planes: np.ndarray, position: int, mirrored: bool) -> None:
        """Write the image at `position` into `planes`, contiguous uint8 (3, height, width) RGB.

        `mirrored` swaps left and right. Raises LatseError like `read`, ValueError for planes of another size.
        """
        if planes.shape != (3, *self.image_size):
            raise ValueError(f"planes of {planes.shape} for images of {self.image_size}")
        image = self._image(position)
        red, green, blue = planes
        cv2.split(cv2.flip(image, 1) if mirrored else image, [blue, green, red])

    def _refuse_strangers(self) -> None:
        labels = [file.labels_in_order() for file in self._files]
        named = [file.names_people for file in self._files]
        shared, otherwise = recordio.shared_people(labels, named), ""
        if not len(shared):
            shared = recordio.repeated_people(labels, named)
            otherwise = "; if they are one list that was dealt out in turn, "
            otherwise += f"`latse data check {self.folder} --repair OUT` makes one set of it"
        if not len(shared):
            return
        holders = np.unique(self._file[self.labels == shared[0]])
        holders = sorted(holders, key=lambda number: not named[number])[:2]  # the rule is about named ones
        one, other = (self._files[number] for number in sorted(holders))
        shared = np.intersect1d(one.labels, other.labels)
        which = ", ".join(map(str, shared[:3])) + (f", … ({len(shared)} in all)" if len(shared) > 3 else "")
        raise LatseError(
            f"{one.path} and {other.path.name} share the labels {which}: two sets in one folder have "
            "strangers under one label; give each a folder of its own and join them with `latse data merge "
            f"SET… OUT`{otherwise}"
        )

    def _image(self, position: int) -> np.ndarray:
        """Return the image as OpenCV has it, BGR."""
        try:
            return images.decode_bgr(self._encoded(position), self.image_size)
        except ValueError as error:
            raise LatseError(f"{self.name(position)} {error}") from error

    def _encoded(self, position: int) -> bytes:
        parts = recordio.split(self._files[self._file[position]].read(int(self._starts[position])))
        if parts is None:
            raise ValueError(SHORT)
        header, encoded = parts
        if header.label != self.labels[position]:
            raise ValueError(f"has the label {header.label:g}; its identity has {self.labels[position]}")
        return encoded


class _RecordFile:
    """One .rec with its .idx, opened.

    Attributes: path; size, in bytes; last, the largest record number; names_people, whether it has identity
    records; and of each image, in the order of the record numbers: records, labels and starts, int64 (n,).
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
        self.names_people = len(people) > 0
        self.records, self.starts = self._keys[images], self._starts[images]
        labels = self._labels(images, people)
        wrong = ~((labels >= 0) & (labels < classes) & (labels == np.floor(labels)))
        complaint = f"has the label {labels[np.argmax(wrong)]:.9g}; property has {classes} classes, "
        complaint += f"whose labels are 0 to {classes - 1}"
        self._refuse(images, wrong, complaint)
        self.labels = labels.astype(np.int64)
        del self._keys, self._starts

    def labels_in_order(self) -> np.ndarray:
        """Return the labels as the images stand in the file, int64 (n,)."""
        return self.labels[np.argsort(self.starts, kind="stable")]

    def read(self, start: int) -> bytes:
        """Return the bytes of the record at `start`; raise ValueError, saying what is wrong with it."""
        try:
            with explained(f"cannot read {self.path}"):
                return read_record(self._handle, start, self.size)[0]
        except RecordError as error:
            raise ValueError(WRONG.get(error.args[0], CUT_OFF)) from error

    def _check_index(self) -> None:
        everything = np.arange(len(self._keys))
        self._refuse(
            everything, (self._keys < 0) | (self._keys > LARGEST_NUMBER), "has a number out of range"
        )
        self._refuse(everything[1:], self._keys[1:] == self._keys[:-1], "stands twice in the .idx")
        past = (self._starts < 0) | (self._starts > self.size - FRAME.size - HEADER.size)
        self._refuse(everything, past, "lies past the end of the file")
        self._refuse(everything, self._starts % 4 != 0, "starts at no multiple of 4 bytes")
        self._begin(np.array([np.argmax(self._starts)]))  # a file that lost its end shows here

    def _layout(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows of the images, and the rows [first, last) of each person, int (people, 2)."""
        rows = np.arange(len(self._keys))
        header = self._begin(rows[:1])
        if self._keys[0] != 0 or not header["flag"][0] or _content_length(header)[0] > 0:
            return rows, np.zeros((0, 2), np.int64)
        identities, starts = self._identities(header)
        people = self._ranges(identities, starts)
        images = np.delete(rows, np.append(identities, 0))
        if not len(images):
            raise LatseError(f"{self.path}: the header record promises no image")
        return images, people[people[:, 0] < people[:, 1]]

    def _identities(self, header: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows of the identity records, and what they start with.

        At the ends of a header's range that float32 may have rounded, they are told by having no content.
        """
        first, last = self._ranges(np.zeros(1, np.int64), header)[0]
        rows = np.arange(*np.searchsorted(self._keys, recordio.ranges(header).perhaps[0]))
        starts = self._begin(rows)
        surely = (rows >= first) & (rows < last)
        named = surely | ((starts["flag"] > 1) & (_content_length(starts) == 0))
        return rows[named], starts[named]

    def _labels(self, images: np.ndarray, people: np.ndarray) -> np.ndarray:
        """Return each image's label, float32; if a person's first and last agree, only they are read."""
        ends = _first_label(self._begin((people - [0, 1]).ravel())).reshape(-1, 2)
        labels = recordio.spread_labels(people, ends, len(self._keys))[images]
        unknown = np.isnan(labels)
        labels[unknown] = _first_label(self._begin(images[unknown]))
        return labels

    def _begin(self, rows: np.ndarray) -> np.ndarray:
        """Return what the records of `rows` start with: START (n,)."""
        begun = np.empty(len(rows), START)
        bar = tqdm(total=len(rows), desc=self.path.name, unit="record", leave=False, delay=1)
        for first in range(0, len(rows), CHUNK):
            starts = self._starts[rows[first : first + CHUNK]].tolist()
            with explained(f"cannot read {self.path}"):
                read = [os.pread(self._handle, START.itemsize, start) for start in starts]
            bytes_ = b"".join(part.ljust(START.itemsize, b"\0") for part in read)
            begun[first : first + CHUNK] = np.frombuffer(bytes_, START)
            bar.update(len(starts))
        bar.close()
        self._refuse(rows, begun["magic"] != MAGIC, NO_MAGIC)
        length = begun["word"].astype(np.int64) % LENGTH
        self._refuse(rows, self._starts[rows] + FRAME.size + length > self.size, CUT_OFF)
        self._refuse(rows, _content_length(begun) < 0, SHORT)
        return begun

    def _ranges(self, rows: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """Return what header and identity records name for sure, as rows [first, last): int64 (n, 2)."""
        found = recordio.ranges(starts)
        self._refuse(rows, ~found.valid, "does not hold a range of records")
        places = np.searchsorted(self._keys, found.surely)
        lacking = np.diff(places) != np.diff(found.surely)
        for first, last in found.surely[lacking[:, 0]][:1]:
            raise LatseError(f"{self.path}: the .idx lacks some of the records {first} to {last - 1}")
        return places

    def _refuse(self, rows: np.ndarray, wrong: np.ndarray, complaint: str) -> None:
        if wrong.any():
            raise LatseError(f"{self.path}: record {self._keys[rows[np.argmax(wrong)]]} {complaint}")


def _content_length(starts: np.ndarray) -> np.ndarray:
    """Return how many bytes follow the labels, int64 (n,); below 0 if a record is too short for them.

    A record stored in parts (it holds the magic number) is judged by its first one, which may end anywhere.
    """
    flag, length = starts["flag"].astype(np.int64), starts["word"].astype(np.int64)
    rest = length % LENGTH - HEADER.size - 4 * flag
    return np.where(length >= LENGTH, np.maximum(rest, 0), rest)


def _first_label(starts: np.ndarray) -> np.ndarray:
    return np.where(starts["flag"] > 0, starts["labels"][:, 0], starts["label"])


def _record_files(folder: Path) -> list[Path]:
    """Return the .rec files of a set, in order; LatseError if one is missing between them."""
    files = recordio.record_files(folder)
    for number, path in enumerate(files):
        if path.name not in ("train.rec", f"train-{number:05d}.rec"):
            raise LatseError(f"{folder} lacks train-{number:05d}.rec, but holds {path.name}")
    if not files:
        how = "`latse data pack` makes one of photographs"
        raise LatseError(f"{folder} is no training set: there is no train.rec ({how})")
    return files


def _opened(file: Path) -> tuple[int, int]:
    """Return a file handle and the file's size in bytes."""
    refuse_irregular(file)
    with explained(f"cannot read {file}"):
        handle = os.open(file, os.O_RDONLY)
        size = os.fstat(handle).st_size
    if size == 0 or size % 4:
        os.close(handle)
        raise LatseError(f"{file} is {'truncated' if size else 'empty'} ({size} bytes)")
    return handle, size


def _read_index(file: Path) -> np.ndarray:
    """Return the record numbers and where each starts, in the order of the file: int64 (2, n)."""
    refuse_irregular(file)
    text = read_text(file)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a word that is no number is only a warning to numpy
            index = np.fromstring(text, np.int64, sep=" ").reshape(-1, 2).T
    except (ValueError, Warning) as error:
        raise LatseError(f"{file} does not hold a record number and an offset in each line") from error
    if not index.size:
        raise LatseError(f"{file} is empty")
    return index
