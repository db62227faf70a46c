"""What can be wrong with a set, what is worth a remark, and the report of what was found."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any, Iterable, Iterator

import numpy as np

from latse.data.shards import scan
from latse.data.shards.recordio import LARGEST_EXACT
from latse.data.shards.scan import RecordState

# Kind -> meaning, in the unit in which it is counted. A fault is what training refuses, or what it takes and
# learns something wrong from.
FAULTS = {
    "no-images": "record files of which the index names no image",
    "property": "statements of `property` that do not fit what the set holds",
    "files": "files of the set that are missing",
    "length": "record files that are empty, or whose number of bytes is no multiple of 4",
    "joined": "labels that several files share though identity records name the people: they are strangers "
    "of two sets; give each set a folder of its own, and join these with `latse data merge SET… OUT`",
    "repeated": "labels that several ascending files without identity records share: they are strangers of "
    "two sets, to be joined with `latse data merge SET… OUT`, or one list was dealt out in turn",
    "index-line": "lines of an index that are not a record number and an offset",
    "index-twice": "record numbers that an index names twice",
    "past-end": "lines of an index whose offset lies outside the record file",
    "misaligned": "lines of an index whose offset is no multiple of 4",
    "no-magic": "records that do not start with RecordIO's magic number",
    "inside": "lines of an index whose offset lies inside another record",
    "cut-off": "records that are cut off by the end of the file or by the next record",
    "too-long": "records longer than 64 MiB",
    "short": "records shorter than their header and labels",
    "header": "header records that do not hold the range of the identity records",
    "identity": "identity records that do not hold a range of records that are there",
    "identity-mixed": "images whose label is not that of the first and the last of their identity record",
    "label": "images whose label is no whole number from 0 to classes - 1",
    "empty": "records without an image",
    "no-image": "records whose content is neither JPEG nor PNG",
    "cut-image": "images that are cut off",
    "undecodable": "images that cannot be decoded",
    "damaged": "images whose decoder finds corrupt data and makes up pixels",
    "size": "images of another size than `property` says",
    "duplicate-across": "images that show, pixel by pixel, the picture of another person",
}
REMARKS = {
    "gap": "classes without an image",
    "single": "people with one image",
    "duplicate-within": "images that repeat another one of the same person, pixel by pixel",
    "grey": "grey images, which decode to three equal channels",
    "cmyk": "CMYK images, whose colours decoders render differently",
    "palette": "PNG images with a palette",
    "alpha": "PNG images with transparency, which decoding drops",
    "16-bit": "PNG images of 16 bits, of which decoding keeps 8",
    "vector": "images with several labels, of which only the first is used",
    "no-header": "record files without header and identity records: each record is an image",
    "index-alone": "index files without a record file",
    "index-order": "lines of an index that are not in ascending order of number and offset",
    "offset-twice": "lines of an index that name a record which another line names: the image counts twice",
    "unnamed": "records that no line of an index names: they are not trained on",
    "stray": "bytes that belong to no record",
    "rounded": "header and identity records whose range float32 may have rounded, as it does from 16,777,216 "
    "on: the labels of the images count",
    "identity-several": "identity records whose images have several labels: each image's own counts",
    "identity-split": "people whose images several identity records name",
    "identity-others": "identity records that name records which are no images, too",
    "outside": "images that no identity record names",
    "named-twice": "images that several identity records name",
}
# What costs an image its place in a repaired set.
DROPPED = (
    *("offset-twice", "past-end", "misaligned", "no-magic", "inside", "cut-off", "too-long", "short"),
    *("label", "empty", "no-image", "cut-image", "undecodable", "damaged", "size", "duplicate-across"),
)
# What a clean copy takes for granted about them.
ASSUMED = {
    "identity-mixed": "each image's own label counts, whatever identity records say",
    "identity-several": "each image's own label counts, whatever identity records say",
    "vector": "of several labels of an image the first counts",
    "repeated": "a label that several files without identity records share is one person",
    "offset-twice": "a record that the index names twice is one image",
    "duplicate-across": "nobody knows whose a picture under several people is: every image of it is dropped",
}
STATES = {state: state.name.lower().replace("_", "-") for state in RecordState if state}
# A row of scan's table, its file's place in the list of files, its number there (-1: the index names none),
# whether it is an image, and the place in DROPPED, counted from 1, of what costs it its place.
ROW = np.dtype([*scan.ROW.descr, ("file", "u2"), ("key", "i8"), ("image", "?"), ("dropped", "u1")])


class Report:
    """What `check_set` found.

    Attributes
    ----------
    folder : Path
    files : list of Path
        The record files, in order.
    classes : int
        Of `property`, or of the content if `property` is of no use.
    image_size : (int, int)
        Height and width, likewise.
    rows : ROW array
        All records, those that the index does not name after the others of their file.
    faults, remarks : dict
        Kind -> list of places, each a dictionary: "file", "record" (its number in that file), "offset"
        (bytes), "line", "person", "classes" (a text such as "3-9"), as far as they apply, "detail", and
        "count" of what the kind counts, where it is not one.
    assumptions : list of str
        What a clean copy takes for granted where the set contradicts itself.
    """

    def __init__(self, folder: Path):
        self.folder, self.files = folder, []
        self.classes, self.image_size = 0, (0, 0)
        self.rows = np.zeros(0, ROW)
        self.faults: dict[str, list[dict]] = {}
        self.remarks: dict[str, list[dict]] = {}
        self.assumptions: list[str] = []

    @property
    def sound(self) -> bool:
        """Whether there is no fault."""
        return not self.faults

    @property
    def kept(self) -> np.ndarray:
        """Places in `rows` of the images that nothing is wrong with, int64 (n,)."""
        return np.flatnonzero(self.rows["image"] & (self.rows["dropped"] == 0))

    def add(self, kind: str, **place: Any) -> None:
        """Note one place where there is a fault or something to remark."""
        places = self.faults if kind in FAULTS else self.remarks
        places.setdefault(kind, []).append(place)

    @property
    def found(self) -> dict[str, list[dict]]:
        """Faults and remarks together."""
        return {**self.faults, **self.remarks}

    def mark(self, kind: str, rows: np.ndarray, details: Iterable[str] | str | None = None) -> None:
        """Note what is at these rows, a detail for all or one each; what is in DROPPED costs their place."""
        one = details is None or isinstance(details, str)
        for row, detail in zip(rows, itertools.repeat(details) if one else details):
            place = self.place(row)
            self.add(kind, **(place if detail is None else {**place, "detail": detail}))
        if kind in DROPPED:
            free = rows[self.rows["dropped"][rows] == 0]
            self.rows["dropped"][free] = 1 + DROPPED.index(kind)

    def place(self, row: int) -> dict[str, Any]:
        """Return file and record number (or the offset, if there is none) of a row."""
        entry = self.rows[row]
        named = {"record": int(entry["key"])} if entry["key"] >= 0 else {"offset": int(entry["offset"])}
        return {"file": self.files[entry["file"]].name, **named}

    def as_json(self) -> dict[str, Any]:
        """Return everything, for a JSON file."""
        counts = np.unique(self.rows["label"][self.kept], return_counts=True)[1]  # images of each person
        sizes, people = np.unique(counts, return_counts=True)
        return {
            "folder": str(self.folder),
            "sound": self.sound,
            "files": [path.name for path in self.files],
            "classes": self.classes,
            "image_size": list(self.image_size),
            "records": len(self.rows),
            "images": int(self.rows["image"].sum()),
            "sound_images": len(self.kept),
            "people": len(counts),
            "people_by_images": {str(size): int(number) for size, number in zip(sizes, people)},
            "faults": _listed(self.faults, FAULTS),
            "remarks": _listed(self.remarks, REMARKS),
            "assumptions": self.assumptions,
        }


def whole(rows: np.ndarray) -> np.ndarray:
    """Tell whether each row is a record with its labels, whatever its content: bool (n,)."""
    return (rows["state"] == RecordState.GOOD) | (rows["state"] >= RecordState.EMPTY)


def is_number(labels: np.ndarray) -> np.ndarray:
    """Tell whether each label is a whole number that a person may have: bool (n,)."""
    return (labels >= 0) & (labels < LARGEST_EXACT) & (labels == np.floor(labels))


def grouped(labels: np.ndarray, values: np.ndarray) -> Iterator[tuple[Any, np.ndarray]]:
    """Iterate each label and its values, both ascending by label; labels and values are (n,)."""
    order = np.argsort(labels, kind="stable")
    people, starts = np.unique(labels[order], return_index=True)
    return zip(people, np.split(values[order], starts[1:]))


def _listed(places: dict[str, list[dict]], meanings: dict[str, str]) -> list[dict[str, Any]]:
    """Return what there is of each kind; a place stands for `count` records, lines or people, or for one."""
    counts = {kind: sum(place.get("count", 1) for place in there) for kind, there in places.items()}
    return [
        {"kind": kind, "meaning": meanings[kind], "count": counts[kind], "places": places[kind]}
        for kind in meanings
        if kind in places
    ]
