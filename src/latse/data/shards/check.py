"""Everything that is wrong with an insightface set, and what is worth a remark: `check_set(folder)`.

`scan` reads the record files without trust; here the tables that it returns are judged, against each other,
the index and `property`. Nothing stops at the first fault.
"""

from __future__ import annotations

import contextlib
import os
import re
import warnings
from pathlib import Path

import numpy as np
from tqdm import tqdm

from latse.data import workers
from latse.data.shards import scan
from latse.data.shards.findings import ASSUMED, ROW, STATES, Report, grouped, is_number, whole
from latse.data.shards.identities import judge_identities
from latse.data.shards.recordio import (
    LARGEST_EXACT,
    LARGEST_NUMBER,
    SET_FILE,
    read_property,
    record_files,
    repeated_people,
    shared_people,
)
from latse.data.shards.scan import RecordState
from latse.errors import LatseError
from latse.files import NAMES, SPACE, explained, read_text, refuse_irregular

RECORDS_AT_ONCE = 256  # one task of a process
SIDES = 1 << 16  # more than the pixels of a side
# What shows that an index is not as it was written: what it does not name is not left out on purpose.
INDEX = (
    *(
        "no-images",
        "files",
        "index-line",
        "index-twice",
        "offset-twice",
        "past-end",
        "misaligned",
        "no-magic",
    ),
    *("inside", "header", "identity"),
)


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
    named = [judge_identities(report, np.flatnonzero(report.rows["file"] == number)) for number in numbers]
    _judge_files(report)
    _judge_index(report)
    _judge_property(report)
    _judge_images(report)
    _judge_joined(report, named)
    _judge_duplicates(report)
    _judge_people(report)
    report.assumptions += dict.fromkeys(ASSUMED[kind] for kind in ASSUMED if kind in report.found)
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
            report.add("index-alone", file=name)
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
            report.add(
                "stray", file=path.name, offset=start, count=stray, detail=f"{stray} bytes before {stop}"
            )
    return np.concatenate(parts)


def _read_index(report: Report, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return record numbers and offsets of an index, int64 (n,) each; note what is wrong with its lines."""
    text = ""
    if path.exists():
        text = read_text(path, NAMES).rstrip(SPACE)  # whatever its bytes: a wrong line is reported
    else:
        report.add("files", file=path.name, detail="is missing")
    keys, offsets, lines = _numbers(report, path, text)
    wrong = np.flatnonzero((keys[1:] < keys[:-1]) | (offsets[1:] < offsets[:-1])) + 1
    if len(wrong):
        first = int(lines[wrong[0]])
        report.add("index-order", file=path.name, line=first, count=len(wrong), detail="is the first")
    ascending = np.sort(keys)
    for key in np.unique(ascending[1:][ascending[1:] == ascending[:-1]]):
        report.add("index-twice", file=path.name, record=int(key))
    return keys, offsets


def _numbers(report: Report, path: Path, text: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the record numbers, offsets and line numbers (from 1) of an index, int64 (n,) each."""
    count = text.count("\n") + 1
    with warnings.catch_warnings(), contextlib.suppress(ValueError, Warning):
        warnings.simplefilter("error")  # a word that is no number is only a warning to numpy
        fields = np.fromstring(text, np.int64, sep=" ")
        if len(fields) == 2 * count and fields[::2].min() >= 0 and fields[::2].max() <= LARGEST_NUMBER:
            return fields[::2], fields[1::2], np.arange(1, count + 1)
    numbers = []
    for number, line in enumerate(text.split("\n"), start=1):
        match = re.fullmatch(r"\s*(\d{1,18})\s+(-?\d{1,18})\s*", line, re.ASCII)
        if match and int(match[1]) <= LARGEST_NUMBER:
            numbers.append((int(match[1]), int(match[2]), number))
        elif line.strip():
            report.add("index-line", file=path.name, line=number, detail=repr(line[:40]))
    return tuple(np.array(numbers, np.int64).reshape(-1, 3).T)


def _judge_files(report: Report) -> None:
    """Note record files that training cannot open, and records that no index names."""
    table = report.rows
    for number, path in enumerate(report.files):
        with explained(f"cannot read {path}"):
            size = path.stat().st_size
        if size == 0 or size % 4:
            report.add("length", file=path.name, detail=f"{size} bytes")
        rows = np.flatnonzero(table["file"] == number)
        unnamed = table["key"][rows] < 0
        report.mark("unnamed", rows[unnamed])
        if not (table["image"][rows] & ~unnamed).any():
            report.add("no-images", file=path.name)


def _judge_unnamed(report: Report) -> None:
    """Leave out the records that an index does not name, if it is right in all that it names."""
    table = report.rows
    wrong = {Path(place["file"]).stem for kind in INDEX for place in report.found.get(kind, ())}
    for number, path in enumerate(report.files):
        rows = np.flatnonzero((table["file"] == number) & (table["key"] < 0) & table["image"])
        if not len(rows):
            continue
        fate = f"come back ({len(rows)}), as it is at fault elsewhere"
        if path.stem not in wrong:
            table["image"][rows] = False
            fate = f"stay out ({len(rows)}), as it is right in all that it names"
        report.assumptions.append(f"records of {path.name} that its index does not name {fate}")


def _judge_index(report: Report) -> None:
    """Note what lines of an index cannot name or name twice, and what becomes of what none names."""
    table = report.rows
    named = table["key"] >= 0
    _mark_states(report, named & (table["state"] < RecordState.EMPTY))
    rows = np.flatnonzero(named & whole(table))
    order = rows[np.lexsort((table["key"][rows], table["offset"][rows], table["file"][rows]))]
    again = (np.diff(table["offset"][order]) == 0) & (np.diff(table["file"][order]) == 0)
    details = (f"is record {key}" for key in table["key"][order[:-1][again]])
    report.mark("offset-twice", order[1:][again], details)
    _judge_unnamed(report)
    _mark_states(report, table["image"] & (~named | (table["state"] >= RecordState.EMPTY)))


def _mark_states(report: Report, rows: np.ndarray) -> None:
    """Note what `scan` found of each of the records, bool (n,)."""
    for state, kind in STATES.items():
        report.mark(kind, np.flatnonzero(rows & (report.rows["state"] == state)))


def _judge_property(report: Report) -> None:
    """Take classes and size from `property`, and from the images where they contradict it."""
    table = report.rows
    images = table["image"] & whole(table)
    labels, heights = table["label"][images], table["height"][images].astype(np.int64)
    labels = labels[is_number(labels)].astype(np.int64)
    sizes = (heights * SIDES + table["width"][images])[heights > 0]
    shapes, counts = np.unique(sizes, return_counts=True)
    size = divmod(int(shapes[counts.argmax()]), SIDES) if len(shapes) else (0, 0)
    report.classes, report.image_size = int(labels.max(initial=-1)) + 1, size
    try:
        stated, shape = read_property(report.folder / "property")
    except LatseError as error:
        report.add("property", file="property", detail=str(error))
        report.assumptions.append(
            f"`property` is useless: the images have {report.classes} classes and {size[0]}x{size[1]} pixels"
        )
        return
    _judge_classes(report, labels, stated)
    other = int((sizes != shape[0] * SIDES + shape[1]).sum())
    if 2 * other > len(sizes):
        detail = "says {}x{} pixels, but {} of {} images are not, most are {}x{}"
        report.add("property", file="property", detail=detail.format(*shape, other, len(sizes), *size))
        report.assumptions.append("the images have the right size, most of them {}x{} pixels".format(*size))
    else:
        report.image_size = shape


def _judge_classes(report: Report, labels: np.ndarray, stated: int) -> None:
    """Judge the classes that `property` states by the labels int64 (n,) that people may have.

    Labels beyond are believed, and `property` is at fault. Only one that stands on a single image, with no
    other person's number next to it, is taken for damage, unless most images have such labels.
    """
    people, counts = np.unique(labels, return_counts=True)
    gaps = np.diff(np.concatenate([[-2], people, [2 * LARGEST_EXACT]])) > 1
    alone = (people > stated) & (counts == 1) & gaps[:-1] & gaps[1:]
    alone &= 2 * alone.sum() <= len(labels)
    if alone.any():
        rule = "on one image alone, with no other person's number next to it, is damage"
        report.assumptions.append(f"a label beyond the {stated} classes of `property` that stands {rule}")
    beyond = (people >= stated) & ~alone
    report.classes = int(people[beyond].max(initial=stated - 1)) + 1
    if not beyond.any():
        return
    detail = f"says {stated} classes, that is labels from 0 to {stated - 1}, but there are labels up to "
    detail += f"{people[beyond][-1]}; people beyond: {beyond.sum()}, their images: {counts[beyond].sum()}"
    detail += "; labels begin with 1" if people[0] == 1 and people[beyond][-1] == stated else ""
    report.add("property", file="property", detail=detail)
    report.assumptions.append(
        f"the labels are right and `property` is not: {report.classes} classes instead of {stated}; people "
        "keep their numbers"
    )


def _judge_images(report: Report) -> None:
    """Note labels out of range, sizes other than that of `property`, and what is remarkable of a format."""
    table = report.rows
    images = np.flatnonzero(table["image"] & whole(table))
    label = table["label"][images]
    wrong = ~(is_number(label) & (label < report.classes))
    of = f"of {report.classes} classes, whose labels are 0 to {report.classes - 1}"
    report.mark("label", images[wrong], (f"label {value:.9g} {of}" for value in label[wrong]))
    seen = images[np.isin(table["state"][images], (RecordState.GOOD, RecordState.DAMAGED))]
    height, width = report.image_size
    other = seen[(table["height"][seen] != height) | (table["width"][seen] != width)]
    report.mark("size", other, (f"{h}x{w}" for h, w in zip(table["height"][other], table["width"][other])))
    for number, kind in enumerate(scan.FORMATS[1:], start=1):
        report.mark(kind, images[table["format"][images] == number])
    report.mark("vector", images[table["flag"][images] > 1])


def _judge_joined(report: Report, named: list[bool]) -> None:
    """Note the people whom files share as two sets do; `named` says which files have identity records."""
    table, count = report.rows, len(report.files)
    images = np.flatnonzero(table["image"] & whole(table) & is_number(table["label"]))
    images = images[np.argsort(table["offset"][images], kind="stable")]
    labels, files = table["label"][images].astype(np.int64), table["file"][images]
    of_files = [labels[files == number] for number in range(count)]
    for kind, find in (("joined", shared_people), ("repeated", repeated_people)):
        shared = np.isin(labels, find(of_files, named))
        for person, numbers in grouped(*np.divmod(np.unique(labels[shared] * count + files[shared]), count)):
            detail = ", ".join(report.files[number].name for number in numbers)
            report.add(kind, person=int(person), detail=detail)


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
            report.add("gap", classes=text, count=int(after - before - 1))
