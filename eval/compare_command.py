"""`latse compare`: are two photographs of one person?"""

from __future__ import annotations

import argparse
import math
import os
from pathlib import Path
from typing import Any, Iterator, NamedTuple, Sequence

import numpy as np

from latse import devices
from latse.data.photographs.align import Aligner, naming, open_photograph
from latse.data.photographs.faces import read_aligned
from latse.errors import LatseError
from latse.eval.candidates import FaceModel, open_embedder
from latse.eval.verification import cosine_of, pair_distance
from latse.files import make_parents, read_json, write_json
from latse.form import ANYTHING, INTERVAL, NUMBER, TEXT, Each, Leaf, Maybe, Rows, check
from latse.provenance import provenance
from latse.text_table import NOTHING, aligned

# What is taken from a file of `latse eval --json`.
CALIBRATION = {
    "kind": Leaf('"verification"', "verification".__eq__),
    "models": Each({"source": TEXT}),
    "sets": Each({"results": Each({"threshold_at_far": Each(Maybe(NUMBER)), "unresolved_far": Rows(TEXT)})}),
}


class Threshold(NamedTuple):
    """That of a set of pairs at a false accept rate.

    `cosine` is its similarity, with the `interval` [low, high] or None where nobody says who is in the pairs.
    """

    set: str
    far: str
    squared_distance: float
    cosine: float
    interval: list[float] | None


def run(args: argparse.Namespace) -> None:
    """Compare, print, and write what was asked for; raise LatseError for bad input."""
    make_parents(args.json)
    contexts = devices.contexts(args)
    model = open_embedder(args.model, contexts, args.batch_size, args.train_data)
    thresholds = calibration(args.calibration, model) if args.calibration else []
    found = _faces(args.photographs, args.aligned)
    faces = np.stack([face.image.transpose(2, 0, 1) for face in found])
    embedding = model.embed(faces, "the photographs", args.photographs.__getitem__)
    distance = pair_distance(embedding)[0]
    cosine = float(cosine_of(distance))
    same = [bool(distance < threshold.squared_distance) for threshold in thresholds]
    print(f"cosine {cosine:.4f}, squared distance {distance:.4f}, by {model.title}")
    if thresholds:
        print(_table(thresholds, cosine, same))
    elif args.calibration:
        print(f"{args.calibration}: its pairs resolve no false accept rate")
    if args.json:
        report = {
            "kind": "compare",
            "provenance": provenance(args, contexts),
            "model": {"title": model.title, "origin": model.origin},
            "photographs": args.photographs,
            "aligned": args.aligned,
            "faces": [face.place for face in found],
            "cosine": cosine,
            "squared_distance": float(distance),
            "verdicts": [
                {"same": answer, **threshold._asdict()} for threshold, answer in zip(thresholds, same)
            ],
        }
        write_json(args.json, report)


def calibration(path: str | os.PathLike, model: FaceModel) -> list[Threshold]:
    """Return the thresholds of a model that `latse eval --json` has written and its pairs resolve.

    Raises LatseError if the file is no such result, or judges another model: two are the same with the same
    file, by its digest.
    """
    content = read_json(path)
    check(path, content, CALIBRATION)
    origins, wanted = content["models"], _identity(model.origin)
    title = next((title for title, origin in origins.items() if _identity(origin) == wanted), None)
    files = [origin["digest"] for origin in origins.values() if "digest" in origin]
    if title is None and model.origin.get("digest") in files:
        raise LatseError(f"{path} judges this {model.origin['source']}, but fed otherwise")
    if title is None:
        sources = ", ".join(origin["source"] for origin in origins.values())
        raise LatseError(f"{path} judges {sources}, but not this {model.origin['source']}")
    check(path, content, {"sets": Each({"results": {title: ANYTHING}})})
    return [
        threshold
        for name, judged in content["sets"].items()
        for threshold in _thresholds(path, name, title, judged["results"][title])
    ]


def _thresholds(
    path: str | os.PathLike, name: str, title: str, result: dict[str, Any]
) -> Iterator[Threshold]:
    resolved = [far for far in result["threshold_at_far"] if far not in result["unresolved_far"]]
    numbers = dict.fromkeys(resolved, NUMBER)
    known = {
        "threshold_at_far": numbers,
        "cosine_at_far": numbers,
        "intervals": Maybe({"cosine_at_far": dict.fromkeys(resolved, INTERVAL)}),
    }
    check(path, result, known, f"sets.{name}.results.{title}")
    for far in resolved:
        bounds = result["intervals"] and result["intervals"]["cosine_at_far"][far]
        yield Threshold(name, far, result["threshold_at_far"][far], result["cosine_at_far"][far], bounds)


def _identity(origin: dict[str, Any]) -> Any:
    """Return what two models have in common only if they are the same: digest and feeding, or all."""
    return (origin["digest"], origin.get("feeding")) if "digest" in origin else origin


class _Face(NamedTuple):
    """A face, uint8 (112, 112, 3) RGB, and what the JSON says of its place, None for an aligned one."""

    image: np.ndarray
    place: dict[str, Any] | None


def _faces(paths: Sequence[str], are_aligned: bool) -> list[_Face]:
    if are_aligned:
        return [_Face(read_aligned(Path(path), "leave out --aligned")[1], None) for path in paths]
    aligner = Aligner()
    return [_cut_out(aligner, path) for path in paths]


def _cut_out(aligner: Aligner, path: str) -> _Face:
    """Return the face of a photograph; say which one where it holds several."""
    with naming(path):
        found = aligner.cut_out(open_photograph(path))
    box = [round(float(number), 1) for number in found.face.box]
    if found.faces > 1:
        x, y, width, height = map(round, box)
        where = f"{width}x{height} pixels at ({x}, {y})"
        print(f"{path}: of {found.faces} faces the one of {where}, the largest and nearest to the middle")
    return _Face(found.image, {"faces": found.faces, "box": box})


def _table(thresholds: Sequence[Threshold], cosine: float, accepted: Sequence[bool]) -> str:
    """Return a line for each threshold, and whether its interval leaves the answer open."""
    rows = [["pairs", "FAR %", "accepts above", "95 % interval", "one person"]]
    for threshold, same in zip(thresholds, accepted):
        low, high = threshold.interval or (math.inf, -math.inf)
        rows.append(
            [
                threshold.set,
                f"{100 * float(threshold.far):g}",
                f"{threshold.cosine:.4f}",
                f"{low:.4f} to {high:.4f}" if threshold.interval else NOTHING,
                ("yes" if same else "no") + (", but within the interval" if low <= cosine <= high else ""),
            ]
        )
    return aligned(rows)
