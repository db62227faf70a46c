"""Header and identity records are judged, as the reader of a set takes them."""

from __future__ import annotations

import numpy as np

from latse.data.shards.findings import Report, grouped, is_number, whole
from latse.data.shards.recordio import ranges, spread_labels


def judge_identities(report: Report, rows: np.ndarray) -> bool:
    """Tell the images of a file, whose rows these are, from header and identity records, and judge these.

    Returns whether the file has identity records that name images.
    """
    table = report.rows
    bare = whole(table[rows]) & (table["flag"][rows] > 0) & (table["size"][rows] == 0)
    identity = bare & (table["flag"][rows] > 1)
    table["image"][rows] = ~identity
    named = rows[table["key"][rows] >= 0]
    identity, bare = identity[: len(named)], bare[: len(named)]
    if len(named) and table["key"][named[0]] == 0 and bare[0]:
        table["image"][named[0]] = identity[0] = False
        _judge_header(report, named, identity)
    elif identity.any():
        report.mark("header", named[identity][:1], "is an identity record, but there is no header record")
    elif len(named):
        report.add("no-header", file=report.files[table["file"][named[0]]].name)
    return bool(identity.any()) and _judge_ranges(report, named, named[identity])


def _judge_header(report: Report, named: np.ndarray, identity: np.ndarray) -> None:
    """Judge the header record, the first of the rows `named`, of which `identity` (bool) says what is one."""
    table, keys = report.rows, report.rows["key"][named]
    found = ranges(table[named[:1]])
    if not found.valid[0]:
        report.mark("header", named[:1], "holds no range")
        return
    _mark_rounded(report, named[:1], found.surely, found.perhaps)
    (first, last), (low, high) = found.surely[0], np.searchsorted(keys, found.surely[0])
    wrong = [f"the index lacks {last - first - (high - low)} of them"] if high - low != last - first else []
    outside = named[identity & ((keys < found.perhaps[0, 0]) | (keys >= found.perhaps[0, 1]))]
    if len(outside):
        wrong.append(f"{len(outside)} identity records are others, the first is {table['key'][outside[0]]}")
    if wrong:
        stated = "names {} to {}".format(*(found.stated[0] - [0, 1]))
        report.mark("header", named[:1], "; ".join([stated, *wrong]))
    promised = np.zeros(len(named), bool)
    promised[low:high] = True
    other = named[promised & ~identity]
    table["image"][other[~whole(table[other])]] = False
    report.mark("identity", other[whole(table[other])], "holds no range")


def _judge_ranges(report: Report, named: np.ndarray, rows: np.ndarray) -> bool:
    """Judge the identity records `rows` of a file against its rows `named`; returns as `judge_identities`."""
    table = report.rows
    keys, image = table["key"][named], table["image"][named]
    found = ranges(table[rows])
    report.mark("identity", rows[~found.valid], "holds no range")
    rows, surely, perhaps = rows[found.valid], found.surely[found.valid], found.perhaps[found.valid]
    _mark_rounded(report, rows, surely, perhaps)
    places = np.searchsorted(keys, surely)
    lacking = (np.diff(surely) - np.diff(places))[:, 0]
    details = [
        f"names {a} to {b - 1}; the index lacks {n} of them" for (a, b), n in zip(surely, lacking) if n
    ]
    report.mark("identity", rows[lacking != 0], details)
    others = np.append(0, np.cumsum(~image))
    report.mark("identity-others", rows[np.diff(others[places])[:, 0] > 0])
    report.mark("outside", named[image & (_times(np.searchsorted(keys, perhaps), len(named)) == 0)])
    report.mark("named-twice", named[image & (_times(places, len(named)) > 1)])
    some = places[:, 0] < places[:, 1]
    _judge_labels(report, named, rows[some], places[some])
    return bool(some.any())


def _mark_rounded(report: Report, rows: np.ndarray, surely: np.ndarray, perhaps: np.ndarray) -> None:
    report.mark("rounded", rows[(surely != perhaps).any(axis=1)])


def _times(places: np.ndarray, count: int) -> np.ndarray:
    """Return in how many of the ranges int (n, 2) each of `count` places lies."""
    starts, ends = (np.bincount(column, minlength=count + 1) for column in places.T)
    return np.cumsum(starts - ends)[:-1]


def _judge_labels(report: Report, named: np.ndarray, rows: np.ndarray, places: np.ndarray) -> None:
    """Judge the labels of the images that identity records `rows` name: `named` at int (n, 2) `places`."""
    table = report.rows
    labels, image = table["label"][named], table["image"][named] & whole(table[named])
    ends = labels[places - [0, 1]]
    expected = spread_labels(places, ends, len(named))
    hidden = image & ~np.isnan(expected) & (labels != expected)
    details = (
        f"label {label:.9g} between {other:.9g}" for label, other in zip(labels[hidden], expected[hidden])
    )
    report.mark("identity-mixed", named[hidden], details)
    low, high = np.searchsorted(np.flatnonzero(image), places).T
    labels, some = labels[image], low < high
    rows, ends, low, high = rows[some], ends[some], low[some], high[some]
    changes = np.append(0, np.cumsum(labels[1:] != labels[:-1]))
    mixed = changes[high - 1] > changes[low]
    report.mark("identity-several", rows[mixed & (ends[:, 0] != ends[:, 1])])
    _judge_split(report, rows[~mixed], labels[low[~mixed]])


def _judge_split(report: Report, rows: np.ndarray, labels: np.ndarray) -> None:
    """Note the people whom several identity records of a file name; `labels` are those of their images."""
    rows, labels = rows[is_number(labels)], labels[is_number(labels)]
    for person, several in grouped(labels, rows):
        if len(several) > 1:
            records = "records " + ", ".join(map(str, report.rows["key"][several]))
            file = report.place(several[0])["file"]
            report.add("identity-split", file=file, person=int(person), detail=records)
