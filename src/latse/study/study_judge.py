"""What judges the model of a run: which commands, on which files."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Mapping

from latse.data.pairs.pairs import people_path
from latse.data.shards.records import Shard
from latse.data.synth.truth_file import truth_path
from latse.errors import LatseError
from latse.files import digest
from latse.study.study_result import IDENTIFICATION, INSPECTION, MODEL, VERIFICATION
from latse.study.study_run import Run

PROBES, DISTRACTORS = "probes", "distractors"  # folders of --identification


def judged_by(args: argparse.Namespace) -> dict[str, Any]:
    """Return digests of all that runs are judged on.

    `pairs` by name of the set: `pairs` and, beside them, `people` (None: nobody says who is who);
    `identification`, of probes and distractors, or None; `inspection`, of the truth of each set (None: there
    is none), or None. Raises LatseError if a file is missing, or two sets have one name.
    """
    pairs = {Path(path).stem: path for path in args.pairs}
    if len(pairs) < len(args.pairs):
        raise LatseError("two files of --pairs have one name, which is a column's: rename one")
    folder = args.identification
    sets = {name: Path(folder, name) for name in (PROBES, DISTRACTORS)} if folder else {}
    return {
        "pairs": {
            name: {"pairs": digest(path), "people": _digest_if_there(people_path(path))}
            for name, path in pairs.items()
        },
        "identification": {name: Shard(path).digest() for name, path in sets.items()} or None,
        "inspection": {name: _digest_if_there(truth_path(path)) for name, path in pairs.items()}
        if args.inspect
        else None,
    }


def judge(args: argparse.Namespace, run: Run, environment: Mapping[str, str]) -> None:
    """Write into the folder of a run what judges its model; raise LatseError if a command fails.

    A baseline is not inspected: it has neither class centres nor a decoder.
    """
    baseline, folder = run.made_by["model"], args.identification
    model = "--model", f"{MODEL}={baseline or run.folder / 'model,0'}", "--train-data", run.data
    for name in (IDENTIFICATION, INSPECTION):
        (run.folder / name).unlink(missing_ok=True)
    run.latse(environment, "eval", *model, "--pairs", *args.pairs, "--json", run.folder / VERIFICATION)
    if folder:
        images = "--probes", Path(folder, PROBES), "--distractors", Path(folder, DISTRACTORS)
        run.latse(environment, "identify", *model, *images, "--json", run.folder / IDENTIFICATION)
    if args.inspect and not baseline:
        sets = "--data", run.data, "--pairs", *args.pairs
        run.latse(environment, "inspect", run.folder, *sets, "--json", run.folder / INSPECTION)


def _digest_if_there(path: Path) -> str | None:
    return digest(path) if path.exists() else None
