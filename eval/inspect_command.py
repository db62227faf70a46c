"""`latse inspect`: what a model has learnt, beside how well it tells people apart."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from latse import devices
from latse.data.shards.records import Shard
from latse.errors import LatseError
from latse.eval import inspection
from latse.eval.class_centres import QUANTILES
from latse.files import digest, make_parents, write_json
from latse.models import run_folder
from latse.provenance import provenance
from latse.text_table import NOTHING, aligned


def run(args: argparse.Namespace) -> None:
    """Measure, print and write; raise LatseError for bad input."""
    make_parents(args.json)
    contexts, shard = devices.contexts(args), Shard(args.data)
    model = inspection.Inspected(*run_folder.parse(args.model), contexts, args.batch_size)
    sets = {Path(path).stem: inspection.open_strangers(path) for path in args.pairs}
    if len(sets) < len(args.pairs):
        raise LatseError("two files of --pairs have one name: rename one")
    report = {
        "kind": "inspection",
        "provenance": provenance(args, contexts),
        "model": {
            "source": args.model,
            "digest": digest(run_folder.parameters_path(model.prefix, model.number)),
        },
        "angles": inspection.judge_angles(model, shard),
        "linear": inspection.judge_linear(model, sets),
        "decoder": inspection.judge_decoder(model, shard, sets),
    }
    if args.json:
        write_json(args.json, report)
    print("\n".join(_lines(report)))


def _lines(report: dict[str, Any]) -> list[str]:
    """Return the tables of what was measured."""
    lines = []
    if report["angles"]:
        rows = [["degrees to a class centre, quantiles", *(f"{percent} %" for percent in QUANTILES)]]
        for name, group in report["angles"].items():
            for which in ("own", "other"):
                rows.append([f"{name}, {which}", *(f"{value:.1f}" for value in group[which].values())])
        lines.append(aligned(rows))
    if report["linear"]:
        rows = [["read from embeddings", "measure", "score", "by chance"]]
        for name, found in report["linear"]["facts"].items():
            cells = (NOTHING if found[key] is None else f"{found[key]:.3f}" for key in ("score", "chance"))
            rows.append([name, found["measure"], *cells])
        lines.append(aligned(rows))
    if report["decoder"]:
        lines.append(aligned(_decoder_rows(report["decoder"])))
    return lines or ["there are neither class centres nor truth nor a decoder to judge"]


def _decoder_rows(found: dict[str, Any]) -> list[list[str]]:
    """Return SSIM and L1 by set and what is compared, the last stage alone."""
    last = [*found["stages"].values()][-1]
    rows = [["set", "compared with", "generated: SSIM", "L1", "nearest: SSIM", "L1", "average: SSIM", "L1"]]
    for name, average in found["average"].items():
        for target in average:
            compared = (last[name]["generated"], last[name]["nearest"], average)
            cells = ([one[target][key] if one else None for key in ("ssim", "l1")] for one in compared)
            rows.append(
                [
                    name,
                    target,
                    *(NOTHING if cell is None else f"{cell:.4f}" for pair in cells for cell in pair),
                ]
            )
    return rows
