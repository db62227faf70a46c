"""The files of an insightface set: `train.rec`, `train.idx` and `property` in one folder.

Layout (insightface's, https://github.com/deepinsight/insightface): record 0 is a header whose label is
[first identity record, one past the last]; the images follow from record 1 on; each identity record has the
label [first image record, one past the last]. A set without these extra records is read as well: then every
record is an image. `property` is one line, "classes,height,width". A set may lie in several files,
`train-00000.rec`, `train-00001.rec`, …, each with its own .idx and laid out like a set of its own; a person
whom an identity record names stands in one of them.

The RecordIO framing (dmlc-core's recordio.h): magic, a word of 3 bits continuation flag and 29 bits length,
the bytes, padding to 4. A record's bytes start with MXNet's IRHeader: flag, label, two 64-bit ids; flag > 0
says how many float32 labels follow it.

A float32 holds whole numbers exactly up to 2**24. A range that it would lose stands a second time, exact,
in the ids of its record; readers that look at the labels alone see it rounded.
"""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import NamedTuple, Sequence

import numpy as np

from latse.errors import LatseError
from latse.files import read_text, refuse_irregular

MAGIC = 0xCED7230A
MAGIC_BYTES = struct.pack("<I", MAGIC)
FRAME = struct.Struct("<II")  # magic; continuation flag and length
HEADER = struct.Struct("<IfQQ")  # IRHeader: flag, label, id, id2
LENGTH = 1 << 29  # the frame's second word is divided by it into continuation flag and length
LARGEST_NUMBER = 2**48  # of a record
LARGEST_EXACT = 2**24  # up to it, float32 holds every whole number
LONGEST = 60  # characters of a `property` that a sentence shows
SET_FILE = re.compile(r"train(-\d{5})?\.(rec|idx)")
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


def framed(content: bytes) -> bytes:
    """Frame a record; it is stored in parts around each magic number that it holds at a multiple of 4."""
    cuts = [magic.start() for magic in re.finditer(re.escape(MAGIC_BYTES), content) if magic.start() % 4 == 0]
    starts, ends = [0, *(cut + 4 for cut in cuts)], [*cuts, len(content)]
    flags = [1, *[2] * (len(cuts) - 1), 3] if cuts else [0]
    framed = []
    for flag, start, end in zip(flags, starts, ends):
        head = FRAME.pack(MAGIC, flag * LENGTH + end - start)
        framed += [head, content[start:end], bytes(-(end - start) % 4)]
    return b"".join(framed)


def packed_range(record: int, first: int, last: int) -> bytes:
    """Return a header or identity record: the range as two float32 labels, and in the ids if they lose it."""
    labels = np.array([first, last], "<f4")
    exact = labels.astype(np.int64).tolist() == [first, last]
    return HEADER.pack(2, 0, *((record, 0) if exact else (first, last))) + labels.tobytes()


class Header(NamedTuple):
    """What a record begins with: number of labels, the first one, up to two of them, and two ids."""

    flag: int
    label: float
    labels: tuple[float, ...]
    ids: tuple[int, int]


def split(content: bytes) -> tuple[Header, bytes] | None:
    """Return header and encoded image of a record; None if it is shorter than its labels."""
    if len(content) < HEADER.size:
        return None
    flag, label, *ids = HEADER.unpack_from(content)
    start = HEADER.size + 4 * flag
    if start > len(content):
        return None
    labels = struct.unpack_from(f"<{min(2, flag)}f", content, HEADER.size)
    return Header(flag, labels[0] if labels else label, labels, tuple(ids)), content[start:]


class Ranges(NamedTuple):
    """What header and identity records name.

    stated, surely, perhaps: int64 (n, 2), the first record and one past the last: as it is written, of the
    records that it names for sure, and of those that it may name. The three differ only where float32 may
    have rounded the range. valid: bool (n,), whether there is a range; where not, all is 0.
    """

    stated: np.ndarray
    surely: np.ndarray
    perhaps: np.ndarray
    valid: np.ndarray


def ranges(rows: np.ndarray) -> Ranges:
    """Return what header and identity records name; rows (n,) have the fields flag, ids and labels.

    Where the ids round to the labels, they are exact.
    """
    labels, ids = rows["labels"].astype(np.float64), rows["ids"]
    valid = (rows["flag"] > 1) & (labels[:, 0] >= 0) & (labels[:, 1] < 2.0**62)
    exact = (ids.astype(np.float32) == rows["labels"]).all(axis=1) & valid
    stated = np.where(valid, np.where(exact, ids.T, labels.T), 0).T.astype(np.int64)
    valid &= stated[:, 0] <= stated[:, 1]
    stated[~valid] = 0
    rounding = np.where(exact[:, None], 0, np.spacing(stated.astype(np.float32)) / 2).astype(np.int64)
    surely = stated + rounding * [1, -1]
    return Ranges(stated, np.maximum(surely, surely[:, :1]), stated - rounding * [1, -1], valid)


def spread_labels(people: np.ndarray, ends: np.ndarray, count: int) -> np.ndarray:
    """Return the label that a reader gives each record without reading it, float32 (count,).

    It is that of the first and the last image of its person; NaN where these differ, or nobody is named.

    Parameters
    ----------
    people : int array (n, 2)
        The places of each person's images, first and one past the last.
    ends : float32 array (n, 2)
        The labels of the first and the last of them.
    count : int
        How many records there are.
    """
    labels = np.full(count, np.nan, np.float32)
    for (first, last), (label, other) in zip(people, ends):
        labels[first:last] = label if label == other else np.nan
    return labels


def shared_people(labels: Sequence[np.ndarray], named: Sequence[bool]) -> np.ndarray:
    """Return the people who stand in several files of a set, though identity records name them.

    Such records name all images of a person, so that those in another file show a stranger: two sets lie in
    one folder. Files without identity records may share people; who splits a shuffled list makes such files.

    Parameters
    ----------
    labels : sequence of int64 arrays
        Person on each image of each file, at least 0.
    named : sequence of bool
        Whether the file holds identity records.

    Returns
    -------
    int64 array (m,)
        Their labels, ascending.
    """
    several = _several([np.unique(part) for part in labels])
    own = [np.intersect1d(several, part) for part, is_named in zip(labels, named) if is_named]
    return np.unique(np.concatenate([several[:0], *own]))


def repeated_people(labels: Sequence[np.ndarray], named: Sequence[bool]) -> np.ndarray:
    """Return the people who stand in several files without identity records whose labels ascend.

    Where an ascending list was cut into files, a label can only be the last of one and the first of the next.
    Any other that two such files share is that of two sets in one folder, or the list was dealt out in turn.

    Arguments and result are those of `shared_people`, each file's labels in the order of its images.
    """
    parts = [part for part, is_named in zip(labels, named) if len(part) and not is_named]
    parts = [part[np.append(True, part[1:] != part[:-1])] for part in parts if (part[1:] >= part[:-1]).all()]
    begun, ended = [part[:-1] for part in parts], [part[1:] for part in parts]  # what goes on, what began
    return np.union1d(_several(begun), _several(ended))


def _several(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Return what stands in several of the int64 arrays, each without repeats, ascending."""
    values, number = np.unique(np.concatenate([np.zeros(0, np.int64), *parts]), return_counts=True)
    return values[number > 1]


def set_files(folder: Path) -> list[Path]:
    """Return the .rec and .idx files in a folder, of however many shards."""
    return [path for path in folder.glob("train*") if SET_FILE.fullmatch(path.name)]


def record_files(folder: Path) -> list[Path]:
    """Return the .rec files in a folder, in order; raise LatseError if they are of two sets."""
    files = sorted(path for path in set_files(folder) if path.suffix == ".rec")
    if len(files) > 1 and files[-1].name == "train.rec":
        raise LatseError(f"{folder} holds both train.rec and {files[0].name}: two sets in one folder")
    return files


def read_property(file: Path) -> tuple[int, tuple[int, int]]:
    """Return number of classes and (height, width) of a `property`; raise LatseError if it says neither."""
    refuse_irregular(file)
    text = read_text(file)
    try:
        classes, height, width = (int(field) for field in text.split(","))
    except ValueError as error:
        raise LatseError(f"{file} does not hold 'classes,height,width'") from error
    begins = " ".join(text.split())[:LONGEST]
    if min(classes, height, width) < 1:
        raise LatseError(f"{file.parent} holds no person or no image: property is {begins}")
    if classes > LARGEST_EXACT:
        limit = f"labels are float32, which counts up to {LARGEST_EXACT} only"
        raise LatseError(f"{file} is {begins}: {limit}")
    return classes, (height, width)
