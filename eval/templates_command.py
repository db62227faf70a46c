"""`latse templates`: judge models on the templates of IJB-B or IJB-C, 1:1 and 1:N."""

from __future__ import annotations

import argparse
import functools
from pathlib import Path
from typing import Any, Sequence

import numpy as np
from tqdm import tqdm

from latse import devices
from latse.eval import candidates as models
from latse.eval.candidates import FaceModel
from latse.eval.template_lists import Faces, TemplateSet, read_aligned, read_set
from latse.eval.templates import Templates, identify_templates, pool, verify_templates
from latse.files import make_parents, write_json
from latse.provenance import provenance
from latse.text_table import aligned

IMAGES_AT_ONCE = 2048


def run(args: argparse.Namespace) -> None:
    """Judge, print the tables, and write what was asked for; raise LatseError for bad input."""
    make_parents(args.json)
    opened = models.open_models(args)
    judged = read_set(args.data)
    photographs = Path(args.photographs or Path(args.data) / "loose_crop")
    report = {}
    for model, features in zip(opened, _features(opened, judged, photographs)):
        weights = None if args.no_detector_score else judged.faces.scores
        templates = pool(features, judged.faces, weights, f"{model.title} on {judged.name}: ")
        report[model.title] = {"origin": model.origin, **_judge(templates, judged)}
    if args.json:
        origin = provenance(args, devices.contexts(args))
        write_json(
            args.json, {"kind": "templates", "set": judged.name, "provenance": origin, "models": report}
        )
    print("\n\n".join(_tables(judged, report)))


def _features(opened: Sequence[FaceModel], judged: TemplateSet, photographs: Path) -> list[np.ndarray]:
    """Return the features of all faces, float32 (n, d) for each model; each photograph is read once."""
    count = len(judged.faces.photographs)
    # Features from a file look at no image.
    blind = [model for model in opened if isinstance(model, models.FeatureFile)]
    embedded: dict[FaceModel, np.ndarray] = {
        model: model.embed(np.empty((count, 0)), judged.name, functools.partial(_face, judged.faces, 0))
        for model in blind
    }
    seeing = [model for model in opened if model not in embedded]
    starts = range(0, count if seeing else 0, IMAGES_AT_ONCE)
    for start in tqdm(starts, desc=judged.name, unit=f"{IMAGES_AT_ONCE} faces", leave=False, disable=None):
        images = read_aligned(photographs, judged.faces, start, start + IMAGES_AT_ONCE)
        for model in seeing:
            rows = model.embed(images, judged.name, functools.partial(_face, judged.faces, start))
            if model not in embedded:
                embedded[model] = np.empty((count, rows.shape[1]), np.float32)
            embedded[model][start : start + len(rows)] = rows
    return [embedded[model] for model in opened]


def _face(faces: Faces, start: int, row: int) -> str:
    """Return what the sentence of an error calls a face of a part of the list that begins at `start`."""
    return f"the face in {faces.photographs[start + row]}"


def _judge(templates: Templates, judged: TemplateSet) -> dict[str, Any]:
    results: dict[str, Any] = {"tar_at_far": {}, "tpir_at_fpir": {}, "rank": {}}
    if judged.pairs:
        results.update(verify_templates(templates, judged.pairs))
    if judged.probes:
        results.update(identify_templates(templates, judged.galleries, judged.probes))
    return results


def _tables(judged: TemplateSet, report: dict[str, dict[str, Any]]) -> list[str]:
    """Show the results in percent: a table for 1:1, by either rule; one for each part of 1:N."""
    tables = []
    if judged.pairs:
        same, pairs = int(judged.pairs.issame.sum()), len(judged.pairs.issame)
        kinds = f"1:1, {same} same and {pairs - same} different pairs"
        tables.append(f"{kinds}: TAR at FAR\n" + _table(report, "tar_at_far", "unresolved_far"))
        nearest = _table(report, "tar_at_nearest_far")
        tables.append(f"{kinds}: TAR at the nearest FAR, insightface's rule\n{nearest}")
    if judged.probes:
        tables.append(f"1:N, {len(judged.probes.templates)} probes: mate at rank\n" + _table(report, "rank"))
        tables.append("1:N: TPIR at FPIR by insightface's rule\n" + _table(report, "tpir_at_fpir"))
    for gallery in judged.galleries:
        part = {title: result["open_set"][gallery] for title, result in report.items()}
        counts = next(iter(part.values()))
        probes = f"{counts['mated']} probes with a mate and {counts['non_mated']} without"
        tables.append(f"1:N in {gallery} alone, {probes}: TPIR at FPIR\n" + _table(part, "tpir_at_fpir"))
    return [f"{judged.name} {table}" for table in tables]


def _table(report: dict[str, dict[str, Any]], key: str, marks: str = "") -> str:
    columns = list(next(iter(report.values()))[key])
    rows = [["", *columns]]
    for title, result in report.items():
        marked = result.get(marks, [])
        cells = [f"{100 * result[key][column]:.2f}{'*' if column in marked else ' '}" for column in columns]
        rows.append([title, *cells])
    unresolved = marks and next(iter(report.values()))[marks]
    note = ["* before the first false accept: the different pairs resolve no finer"] if unresolved else []
    return "\n".join([aligned(rows), *note])
