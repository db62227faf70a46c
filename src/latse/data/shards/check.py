"""Everything that is wrong with an insightface set, and what is worth a remark: `check_set(folder)`.

`scan` reads the record files without trust; here the tables that it returns are judged, against each other,
the index and `property`. Nothing stops at the first fault.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import warnings
from pathlib import Path
from typing import Any, Iterable

import numpy as np
from tqdm import tqdm

from latse.data import workers
from latse.data.shards import scan
from latse.data.shards.recordio import LARGEST_EXACT, SET_FILE, ranges, read_property, record_files
from latse.data.shards.scan import RecordState
from latse.errors import LatseError
from latse.files import explained, refuse_irregular

RECORDS_AT_ONCE = 256  # one task of a process
SIDES = 1 << 16  # more than the pixels of a side

# Kind -> meaning. A fault makes the set unsound.
FAULTS = {
    "no-images": "the set holds no image",
    "property": "`property` does not fit what the set holds",
    "files": "record files and index files that do not belong together",
    "index-line": "lines of an index that are not a record number and an offset",
    "index-order": "lines of an index that are not in ascending order of number and offset",
    "index-twice": "record numbers that an index names twice",
    "offset-twice": "records that an index names under two numbers",
    "past-end": "offsets outside the record file",
    "misaligned": "offsets that are no multiple of 4",
    "no-magic": "records that do not start with RecordIO's magic number",
    "inside": "offsets inside another record",
    "cut-off": "records that are cut off by the end of the file or by the next record",
    "too-long": "records longer than 64 MiB",
    "short": "records shorter than their header and labels",
    "unnamed": "records that no line of an index names",
    "stray": "stretches of bytes that belong to no record",
    "header": "header records that do not hold the range of the identity records",
    "identity": "identity records that do not hold a range of images",
    "identity-mixed": "identity records whose images have several labels",
    "identity-split": "people whose images several identity records name",
    "outside": "images that no identity record names",
    "named-twice": "images that several identity records name",
    "label": "labels that are no number from 0 to classes - 1",
    "empty": "records without an image",
    "no-image": "contents that are neither JPEG nor PNG",
    "cut-image": "images that are cut off",
    "undecodable": "images that cannot be decoded",
    "damaged": "images whose decoder finds corrupt data",
    "size": "images of another size than `property` says",
    "duplicate-across": "pictures that stand under several people, pixel by pixel the same",
}
REMARKS = {
    "gap": "classes without an image",
    "single": "people with one image",
    "duplicate-within": "pictures that one person has more than once, pixel by pixel the same",
    "grey": "grey images, which decode to three equal channels",
    "cmyk": "CMYK images, whose colours decoders render differently",
    "palette": "PNG images with a palette",
    "alpha": "PNG images with transparency, which decoding drops",
    "16-bit": "PNG images of 16 bits, of which decoding keeps 8",
    "vector": "images with several labels, of which only the first is used",
    "no-header": "record files without header and identity records: each record is an image",
}
# What costs an image its place in a repaired set.
DROPPED = (
    *("offset-twice", "past-end", "misaligned", "no-magic", "inside", "cut-off", "too-long", "short"),
    *("label", "empty", "no-image", "cut-image", "undecodable", "damaged", "size", "duplicate-across"),
)
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
        (bytes), "line", "person" or "people" (a text such as "3-9"), as far as they apply, and "detail".
    """

    def __init__(self, folder: Path):
        self.folder, self.files = folder, []
        self.classes, self.image_size = 0, (0, 0)
        self.rows = np.zeros(0, ROW)
        self.faults: dict[str, list[dict]] = {}
        self.remarks: dict[str, list[dict]] = {}

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
        }


def check_set(folder: str | os.PathLike, processes: int = 1) -> Report:
    """Read a whole set and return all that is wrong with it.

    The folder holds `property`, `train.rec` and `train.idx`, or `train-00000.rec`, …. `processes` is how many
    decode the images; with 1, this one does. Raises LatseError if there is no record file in the folder, or
    one cannot be read.
    """
    report = Report(Path(folder))
    report.files = _record_files(report)
    numbers = range(len(report.files))
    parts = [_read_file(report, number, processes) for number in numbers]
    report.rows = parts[0] if len(parts) == 1 else np.concatenate(parts)
    people = [_judge_ranges(report, np.flatnonzero(report.rows["file"] == number)) for number in numbers]
    if not report.rows["image"].any():
        report.add("no-images")
    _mark_states(report)
    _judge_split(report, people)
    _judge_property(report)
    _judge_images(report)
    _judge_duplicates(report)
    _judge_people(report)
    return report


def _record_files(report: Report) -> list[Path]:
    """Return the record files of the folder in order; note those that lack something."""
    with explained(f"cannot read {report.folder}"):
        names = sorted(path.name for path in report.folder.iterdir() if SET_FILE.fullmatch(path.name))
    for name in (*names, "property"):
        refuse_irregular(report.folder / name)
    files = record_files(report.folder)
    if not files:
        raise LatseError(f"{report.folder} holds no train.rec")
    for name in names:
        if name.endswith(".idx") and name[:-4] + ".rec" not in names:
            report.add("files", file=name, detail="there is no record file for it")
    for number in range(int(files[-1].stem[6:] or 0)):
        if f"train-{number:05d}.rec" not in names:
            report.add("files", file=f"train-{number:05d}.rec", detail="is missing")
    return files


def _read_file(report: Report, number: int, processes: int) -> np.ndarray:
    """Return all records of a file, ROW (n,): those in the index in order of their numbers, then others."""
    path = report.files[number]
    keys, offsets = _read_index(report, path.with_suffix(".idx"))
    order = np.argsort(offsets, kind="stable")
    first = np.append(True, np.diff(offsets[order]) != 0)[: len(order)]
    named = _scan(path, offsets[order][first], processes)
    other = _unnamed(report, path, named, processes)
    place = np.empty(len(keys), np.int64)  # in `found`, of each line of the index
    place[order] = np.cumsum(first) - 1
    place = place[np.argsort(keys, kind="stable")]
    rows = np.zeros(len(keys) + len(other), ROW)
    for name in scan.ROW.names:
        rows[name][: len(keys)], rows[name][len(keys) :] = named[name][place], other[name]
    rows["key"][: len(keys)], rows["key"][len(keys) :], rows["file"] = np.sort(keys), -1, number
    return rows


def _scan(path: Path, offsets: np.ndarray, processes: int) -> np.ndarray:
    """Return what stands at the ascending offsets int64 (n,) of a file: scan.ROW (n,)."""
    starts = range(0, len(offsets), RECORDS_AT_ONCE)
    spans = (offsets[start : start + RECORDS_AT_ONCE + 1].tolist() for start in starts)
    tasks = ((path, span[:RECORDS_AT_ONCE], *span[RECORDS_AT_ONCE:]) for span in spans)
    rows = np.zeros(len(offsets), scan.ROW)
    with tqdm(total=len(offsets), desc=path.name, unit="record", leave=False) as bar:
        for start, part in zip(starts, workers.in_order(scan.scan, tasks, processes, path)):
            rows[start : start + len(part)] = part
            bar.update(len(part))
    return rows


def _unnamed(report: Report, path: Path, named: np.ndarray, processes: int) -> np.ndarray:
    """Return the records between those that were found, which the index does not name: scan.ROW (n,)."""
    whole = (named["state"] == RecordState.GOOD) | (named["state"] >= RecordState.SHORT)
    ends = np.maximum.accumulate(np.append(0, named["end"][whole]))
    with explained(f"cannot read {path}"):
        size = path.stat().st_size
    starts = np.append(named["offset"][whole], size)
    between = ends < starts
    gaps = [(path, int(end), int(start)) for end, start in zip(ends[between], starts[between])]
    bar = tqdm(gaps, desc=f"{path.name}: unnamed records", unit="gap", leave=False, delay=1)
    parts = [np.zeros(0, scan.ROW)]
    for (_, start, stop), (rows, stray) in zip(bar, workers.in_order(scan.walk, gaps, processes, path)):
        parts.append(rows)
        if stray:
            report.add("stray", file=path.name, offset=start, detail=f"{stray} bytes before {stop}")
    return np.concatenate(parts)


def _read_index(report: Report, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return record numbers and offsets of an index, int64 (n,) each; note what is wrong with its lines."""
    text = ""
    if path.exists():
        with explained(f"cannot read {path}"):
            text = path.read_text("latin1")
    else:
        report.add("files", file=path.name, detail="is missing")
    keys, offsets, lines = _numbers(report, path, text)
    wrong = np.flatnonzero((keys[1:] < keys[:-1]) | (offsets[1:] < offsets[:-1])) + 1
    if len(wrong):
        detail = f"{len(wrong)} lines come too late, this is the first"
        report.add("index-order", file=path.name, line=int(lines[wrong[0]]), detail=detail)
    ascending = np.sort(keys)
    for key in np.unique(ascending[1:][ascending[1:] == ascending[:-1]]):
        report.add("index-twice", file=path.name, record=int(key))
    return keys, offsets


def _numbers(report: Report, path: Path, text: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the record numbers, offsets and line numbers (from 1) of an index, int64 (n,) each."""
    count = text.count("\n") + (not text.endswith("\n"))
    with warnings.catch_warnings(), contextlib.suppress(ValueError, Warning):
        warnings.simplefilter("error")  # a word that is no number is only a warning to numpy
        fields = np.fromstring(text, np.int64, sep=" ")
        if len(fields) == 2 * count and fields[::2].min() >= 0:
            return fields[::2], fields[1::2], np.arange(1, count + 1)
    numbers = []
    for number, line in enumerate(text.splitlines(), start=1):
        match = re.fullmatch(r"\s*(\d{1,18})\s+(-?\d{1,18})\s*", line, re.ASCII)
        if match:
            numbers.append((int(match[1]), int(match[2]), number))
        elif line.strip():
            report.add("index-line", file=path.name, line=number, detail=repr(line[:40]))
    return tuple(np.array(numbers, np.int64).reshape(-1, 3).T)


def _judge_ranges(report: Report, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Tell the images of a file from its header and identity records, and judge these.

    Returns labels and rows of the identity records that name one person's images, (n,) each.
    """
    table = report.rows
    bare = _whole(table[rows]) & (table["flag"][rows] > 0) & (table["size"][rows] == 0)
    identity = bare & (table["flag"][rows] > 1)
    table["image"][rows] = ~identity
    named = rows[table["key"][rows] >= 0]
    keys, identity, bare = table["key"][named], identity[: len(named)], bare[: len(named)]
    if len(named) and keys[0] == 0 and bare[0]:
        table["image"][named[0]] = identity[0] = False
        _judge_header(report, named, identity)
    elif identity.any():
        report.mark("header", named[identity][:1], ["is an identity record, but there is no header record"])
    elif len(named):
        report.add("no-header", file=report.files[table["file"][named[0]]].name)
    if not identity.any():
        return np.zeros(0), np.zeros(0, np.int64)
    return _judge_identities(report, named, named[identity])


def _judge_header(report: Report, named: np.ndarray, identity: np.ndarray) -> None:
    """Judge the header record, the first of the rows `named`, of which `identity` (bool) says what is one."""
    table, keys = report.rows, report.rows["key"][named]
    first, last, valid = (column[0] for column in ranges(table[named[:1]]))
    if not valid:
        report.mark("header", named[:1], ["holds no range"])
        return
    low, high = np.searchsorted(keys, [first, last])
    if high - low != last - first:
        missing = last - first - (high - low)
        report.mark("header", named[:1], [f"names {first} to {last - 1}; the index lacks {missing} of them"])
    promised = np.zeros(len(named), bool)
    promised[low:high] = True
    report.mark("header", named[identity & ~promised], "is not in the header's range")
    other = named[promised & ~identity]
    table["image"][other[~_whole(table[other])]] = False
    report.mark("identity", other[_whole(table[other])], "holds no range")


def _judge_identities(report: Report, named: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Judge the identity records `rows` of a file against its rows `named`; returns as `_judge_ranges`."""
    table = report.rows
    keys, image, labels = table["key"][named], table["image"][named], table["label"][named]
    first, last, valid = ranges(table[rows])
    report.mark("identity", rows[~valid], "holds no range")
    rows, first, last = rows[valid], first[valid], last[valid]
    low, high = np.searchsorted(keys, first), np.searchsorted(keys, last)
    lacking = last - first - (high - low)
    details = [
        f"names {a} to {b - 1}; the index lacks {n} of them" for a, b, n in zip(first, last, lacking) if n
    ]
    report.mark("identity", rows[lacking != 0], details)
    others = np.append(0, np.cumsum(~image))
    wrong = others[high] - others[low] > 0
    report.mark("identity", rows[wrong], "names records that are no images")
    cover = np.bincount(low, minlength=len(named) + 1) - np.bincount(high, minlength=len(named) + 1)
    times = np.cumsum(cover)[:-1]
    report.mark("outside", named[image & (times == 0)])
    report.mark("named-twice", named[image & (times > 1)])
    known = np.flatnonzero(image & _whole(table[named]))
    low, high = np.searchsorted(known, low), np.searchsorted(known, high)
    some, labels = high > low, labels[known]
    rows, low, high = rows[some], low[some], high[some]
    changes = np.append(0, np.cumsum(labels[1:] != labels[:-1]))
    mixed = changes[high - 1] - changes[low] > 0
    report.mark("identity-mixed", rows[mixed])
    return labels[low[~mixed]], rows[~mixed]


def _judge_split(report: Report, people: list[tuple[np.ndarray, np.ndarray]]) -> None:
    """Note the people whom several identity records name, from what `_judge_ranges` returned of each file."""
    labels, rows = (np.concatenate(part) for part in zip(*people))
    _, person, counts = np.unique(labels, return_inverse=True, return_counts=True)
    several = counts[person] > 1
    report.mark("identity-split", rows[several], (f"person {label:g}" for label in labels[several]))


def _mark_states(report: Report) -> None:
    """Note what `scan` found of each record."""
    table = report.rows
    for state, kind in STATES.items():
        marked = table["state"] == state
        report.mark(kind, np.flatnonzero(marked & table["image"] if state >= RecordState.EMPTY else marked))
    report.mark("unnamed", np.flatnonzero(table["key"] < 0))
    named = np.flatnonzero((table["key"] >= 0) & _whole(table))
    order = named[np.lexsort((table["key"][named], table["offset"][named], table["file"][named]))]
    again = (np.diff(table["offset"][order]) == 0) & (np.diff(table["file"][order]) == 0)
    details = (f"is record {key}" for key in table["key"][order[:-1][again]])
    report.mark("offset-twice", order[1:][again], details)


def _judge_property(report: Report) -> None:
    """Take classes and size from `property`, or from the images where most of them contradict it."""
    table = report.rows
    images = table["image"] & _whole(table)
    labels, heights = table["label"][images], table["height"][images].astype(np.int64)
    labels = labels[_is_number(labels)]
    sizes = (heights * SIDES + table["width"][images])[heights > 0]
    classes = int(labels.max()) + 1 if len(labels) else 0
    shapes, counts = np.unique(sizes, return_counts=True)
    size = divmod(int(shapes[counts.argmax()]), SIDES) if len(shapes) else (0, 0)
    report.classes, report.image_size = classes, size
    try:
        stated, shape = read_property(report.folder / "property")
    except LatseError as error:
        report.add("property", file="property", detail=str(error))
        return
    beyond, other = int((labels >= stated).sum()), int((sizes != shape[0] * SIDES + shape[1]).sum())
    if 2 * beyond > len(labels):
        detail = (
            f"says {stated} classes, but {beyond} of {len(labels)} labels are beyond, up to {classes - 1}"
        )
        report.add("property", file="property", detail=detail)
    else:
        report.classes = stated
    if 2 * other > len(sizes):
        detail = "says {}x{} pixels, but {} of {} images are not, most are {}x{}"
        detail = detail.format(*shape, other, len(sizes), *size)
        report.add("property", file="property", detail=detail)
    else:
        report.image_size = shape


def _judge_images(report: Report) -> None:
    """Note labels out of range, sizes other than that of `property`, and what is remarkable of a format."""
    table = report.rows
    images = np.flatnonzero(table["image"] & _whole(table))
    label = table["label"][images]
    wrong = ~(_is_number(label) & (label < report.classes))
    report.mark("label", images[wrong], (f"label {value:g}" for value in label[wrong]))
    seen = images[np.isin(table["state"][images], (RecordState.GOOD, RecordState.DAMAGED))]
    height, width = report.image_size
    other = seen[(table["height"][seen] != height) | (table["width"][seen] != width)]
    report.mark("size", other, (f"{h}x{w}" for h, w in zip(table["height"][other], table["width"][other])))
    for number, kind in enumerate(scan.FORMATS[1:], start=1):
        report.mark(kind, images[table["format"][images] == number])
    report.mark("vector", images[table["flag"][images] > 1])


def _judge_duplicates(report: Report) -> None:
    table, kept = report.rows, report.kept
    order = kept[np.argsort(table["pixels"][kept], kind="stable")]
    pixels, labels = table["pixels"][order], table["label"][order]
    starts = np.flatnonzero(np.append(True, pixels[1:] != pixels[:-1])[: len(order)])
    sizes = np.diff(starts, append=len(order))
    for start, size in zip(starts[sizes > 1], sizes[sizes > 1]):
        group = order[start : start + size]
        across = np.ptp(labels[start : start + size]) > 0
        place = report.place(group[0])
        same = f"same as {place['file']} {list(place)[1]} {list(place.values())[1]}"
        if across:
            details = [f"person {label:g}, {same}" for label in labels[start : start + size]]
            details[0] = f"person {labels[start]:g}"
            report.mark("duplicate-across", group, details)
        else:
            report.mark("duplicate-within", group[1:], f"person {labels[start]:g}, {same}")


def _judge_people(report: Report) -> None:
    people, counts = np.unique(report.rows["label"][report.kept].astype(np.int64), return_counts=True)
    for person in people[counts == 1]:
        report.add("single", person=int(person))
    edges = np.concatenate([[-1], people, [report.classes]])
    for before, after in zip(edges[:-1], edges[1:]):
        if after - before > 1:
            text = str(before + 1) if after - before == 2 else f"{before + 1}-{after - 1}"
            report.add("gap", people=text, count=int(after - before - 1))


def _whole(rows: np.ndarray) -> np.ndarray:
    """Tell whether each row is a record with its labels, whatever its content: bool (n,)."""
    return (rows["state"] == RecordState.GOOD) | (rows["state"] >= RecordState.EMPTY)


def _is_number(labels: np.ndarray) -> np.ndarray:
    """Tell whether each label is a whole number that a person may have: bool (n,)."""
    return (labels >= 0) & (labels < LARGEST_EXACT) & (labels == np.floor(labels))


def _listed(places: dict[str, list[dict]], meanings: dict[str, str]) -> list[dict[str, Any]]:
    """Return what there is of each kind; a place stands for `count` records, lines or people, or for one."""
    counts = {kind: sum(place.get("count", 1) for place in there) for kind, there in places.items()}
    return [
        {"kind": kind, "meaning": meanings[kind], "count": counts[kind], "places": places[kind]}
        for kind in meanings
        if kind in places
    ]
