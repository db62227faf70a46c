"""A clean copy of a damaged set."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from tqdm import tqdm

from latse.data.shards import scan
from latse.data.shards.check import DROPPED, Report
from latse.data.shards.recordio import split
from latse.data.shards.shard_writer import ShardWriter
from latse.data.shards.staging import refuse_inside, refuse_set, staged
from latse.errors import LatseError
from latse.files import write_json


def repair(report: Report, out: str | os.PathLike) -> int:
    """Write the images of a set that nothing is wrong with into another folder.

    People keep their numbers, so that class centres of older models still fit. `out/repair.json` lists what
    was dropped and why, and what the index did not name and came back.

    Parameters
    ----------
    report : Report
        What `check_set` found of the set.
    out : path
        Outside the set's folder; holds no set.

    Returns
    -------
    int
        Number of images dropped.

    Raises
    ------
    LatseError
        If no image is left, the set has changed since it was checked, or `out` cannot be written or holds a
        set already.
    """
    refuse_inside(out, report.folder)
    refuse_set(out)
    table, kept = report.rows, report.kept
    if not len(kept):
        raise LatseError(f"{report.folder} holds no sound image to repair the set with")
    order = kept[np.argsort(table["label"][kept], kind="stable")]
    files = [path.open("rb") for path in report.files]
    try:
        with staged(out) as stage:
            with ShardWriter(stage, report.classes, report.image_size, len(files), len(order)) as writer:
                for place in tqdm(order, desc="repair", unit="image", leave=False):
                    row = table[place]
                    writer.add(int(row["label"]), _encoded(report, files[row["file"]], row))
            record = _record(report)
            write_json(stage / "repair.json", record)
    finally:
        for file in files:
            file.close()
    return len(record["dropped"])


def _encoded(report: Report, file: Any, row: np.void) -> bytes:
    """Return the encoded image of a row; raises LatseError if the file has changed since it was checked."""
    try:
        content, end = scan.read_record(file.fileno(), int(row["offset"]), int(row["end"]))
        parts = split(content)
    except (scan.RecordError, OSError):
        parts = None
    if parts and end == row["end"]:
        header, encoded = parts
        if len(encoded) == row["size"] and header.label == row["label"]:
            return encoded
    raise LatseError(f"{report.files[row['file']]} has changed while it was read")


def _record(report: Report) -> dict[str, Any]:
    """Return what repair.json holds."""
    table = report.rows
    lost = np.flatnonzero(table["image"] & (table["dropped"] > 0))
    reasons = {kind: _details(report, kind) for kind in DROPPED}
    dropped = []
    for row in lost:
        place, kind = report.place(row), DROPPED[table["dropped"][row] - 1]
        detail = reasons[kind].get(tuple(place.values()))
        dropped.append({**place, "reason": kind, **({"detail": detail} if detail else {})})
    back = [report.place(row) for row in report.kept if table["key"][row] < 0]
    return {
        "source": str(report.folder),
        "classes": report.classes,
        "image_size": list(report.image_size),
        "images": len(report.kept),
        "dropped": dropped,
        "unnamed_records_that_came_back": back,
        "faults": {kind: len(places) for kind, places in report.faults.items()},
    }


def _details(report: Report, kind: str) -> dict[tuple, str]:
    """Return the file and record number (or offset) -> what the report says about it."""
    return {
        tuple(list(place.values())[:2]): place["detail"]
        for place in report.faults.get(kind, [])
        if "detail" in place
    }
