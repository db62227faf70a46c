"""A clean copy of a damaged set."""

from __future__ import annotations

import contextlib
import os
from typing import Any

import numpy as np
from tqdm import tqdm

from latse.data.shards import scan
from latse.data.shards.findings import DROPPED, Report
from latse.data.shards.recordio import split
from latse.data.shards.shard_writer import ShardWriter
from latse.data.shards.staging import refuse_set, staged
from latse.errors import LatseError
from latse.files import write_json


def repair(report: Report, out: str | os.PathLike) -> int:
    """Write the images of a set that nothing is wrong with into another folder; return how many are dropped.

    `report` is what `check_set` found of the set; `out` lies outside the set's folder and holds no set.
    People keep their numbers, so that class centres of older models still fit. `out/repair.json` lists what
    was dropped and why, what the index did not name and came back, and what was assumed.

    Raises LatseError if no image is left, two sets lie in the folder, the set has changed since it was
    checked, or `out` does not fit or cannot be written.
    """
    refuse_set(out, report.folder)
    if "joined" in report.faults:
        raise LatseError(
            f"{report.folder} holds two sets whose people share labels, and no copy can tell them apart: "
            "give each set a folder of its own, and join these with `latse data merge SET… OUT`"
        )
    table, kept = report.rows, report.kept
    if not len(kept):
        raise LatseError(f"{report.folder} holds no sound image to repair the set with")
    order = kept[np.argsort(table["label"][kept], kind="stable")]
    with contextlib.ExitStack() as opened, staged(out) as stage:
        files = [opened.enter_context(path.open("rb")) for path in report.files]
        with ShardWriter(stage, report.classes, report.image_size, len(files), len(order)) as writer:
            for place in tqdm(order, desc="repair", unit="image", leave=False):
                row = table[place]
                writer.add(int(row["label"]), _encoded(report, files[row["file"]], row))
        record = _record(report)
        write_json(stage / "repair.json", record)
    return len(record["dropped"])


def _encoded(report: Report, file: Any, row: np.void) -> bytes:
    """Return the encoded image of a row; raises LatseError if the file has changed since it was checked."""
    with contextlib.suppress(scan.RecordError, OSError):
        content, end = scan.read_record(file.fileno(), int(row["offset"]), int(row["end"]))
        header, encoded = split(content) or (None, b"")
        if header and (end, len(encoded), header.label) == (row["end"], row["size"], row["label"]):
            return encoded
    raise LatseError(f"{report.files[row['file']]} has changed while it was read")


def _record(report: Report) -> dict[str, Any]:
    table = report.rows
    details = {
        (kind, *list(place.values())[:2]): place["detail"]
        for kind in DROPPED
        for place in report.found.get(kind, ())
        if "detail" in place
    }
    dropped = []
    for row in np.flatnonzero(table["image"] & (table["dropped"] > 0)):
        place, kind = report.place(row), DROPPED[table["dropped"][row] - 1]
        detail = details.get((kind, *place.values()))
        dropped.append({**place, "reason": kind, **({"detail": detail} if detail else {})})
    back = [report.place(row) for row in report.kept if table["key"][row] < 0]
    return {
        "source": str(report.folder),
        "classes": report.classes,
        "image_size": list(report.image_size),
        "images": len(report.kept),
        "dropped": dropped,
        "unnamed_records_that_came_back": back,
        "assumptions": report.assumptions,
        "faults": {kind["kind"]: kind["count"] for kind in report.as_json()["faults"]},
    }
