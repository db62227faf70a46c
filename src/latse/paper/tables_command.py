"""`latse tables`: the paper's Tables 1 to 6 with our figures, after training what is missing.

Each recipe has a folder of its own below that of the runs, so that tables which share a row share its run,
and a student finds its teacher. Training and judging are `latse train`, `latse eval` and `latse identify` in
processes of their own: what was stopped goes on when the same command is given again.
"""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Iterable

from tqdm import tqdm

from latse import recipe as recipes
from latse.data.shards.records import Shard
from latse.devices import contexts
from latse.errors import LatseError
from latse.files import make_folder, make_parents, read_json, write_json
from latse.form import TEXT, check
from latse.paper import paper_tables as tables
from latse.paper.dry_run import dry_run
from latse.paper.tables_arguments import MEGAFACE_INPUTS, option
from latse.provenance import provenance
from latse.text_table import aligned
from latse.train.training import Training

VERIFIED = [name for name in tables.COLUMNS if name not in tables.MEGAFACE]


def run(args: argparse.Namespace) -> None:
    """Train and judge what is missing, then print the tables.

    Raises LatseError for bad input, or if a training or judgement fails.
    """
    shards = _shards(args.data)
    chosen = [table for table in tables.TABLES if table.number in args.only]
    make_parents(args.json)
    if args.dry_run:
        _dry_runs(args, chosen, shards)
        return
    _complete(args, chosen, shards)
    complete = [table for table in tables.filled(args.runs) if table.number in args.only]
    if args.json:
        content = [dataclasses.asdict(table) for table in complete]
        write_json(args.json, {"kind": "tables", "provenance": provenance(args), "tables": content})
    print("\n\n".join(map(tables.text, complete)))


def teacher_of(recipe: str) -> str | None:
    """Return the recipe of the teacher below a student's: that of X_student….yaml is X_teacher.yaml.

    The Makefile has the same rule. None for a recipe that is trained without a teacher.
    """
    name, student, _ = recipe.partition("_student")
    return f"{name}_teacher.yaml" if student else None


def _shards(words: Iterable[str]) -> dict[str, Shard]:
    """Open the shards that `--data` names, by the key of their set."""
    shards = {}
    for word in words:
        name, equals, folder = word.partition("=")
        if name.lower() not in tables.DATA_SETS or not equals:
            names = ", ".join(map(str.upper, tables.DATA_SETS))
            raise LatseError(f"--data {word}: write NAME=FOLDER with one of the names {names}")
        shards[name.lower()] = Shard(folder)
    return shards


def _rows(chosen: list[tables.PaperTable]) -> list[str]:
    """Return the recipes of the rows, each once, in their order."""
    return list(dict.fromkeys(row.recipe for table in chosen for row in table.rows if row.recipe))


def _complete(args: argparse.Namespace, chosen: list[tables.PaperTable], shards: dict[str, Shard]) -> None:
    """Train and judge every row whose data are given; what is wrong is better known before the work."""
    rows = [recipe for recipe in _rows(chosen) if tables.data_set(recipe) in shards]
    megaface = _megaface(args)
    judges = {name: _judges(args.pairs, megaface, shard) for name, shard in shards.items()}
    for recipe in rows:
        recipes.load(recipes.SHIPPED / recipe, args.set, {"--kvstore": ("train.kvstore", args.kvstore)})
    for number, recipe in enumerate(rows, 1):
        print(f"{Path(recipe).stem}, {number} of {len(rows)}", file=sys.stderr)
        folder = _train(args, recipe, shards[tables.data_set(recipe)])
        for result, command in judges[tables.data_set(recipe)]:
            if not _is_judged(folder, result, command):
                model = f"{Path(recipe).stem}={folder}/model,0"
                _latse(*command, "--model", model, "--json", folder / result, *_devices(args))


def _megaface(args: argparse.Namespace) -> list[str]:
    """Return what `latse identify` is told of MegaFace, nothing without probes."""
    words = []
    for name, (beside, _) in MEGAFACE_INPUTS.items():
        path = getattr(args, name)
        if path and beside and not getattr(args, beside):
            raise LatseError(f"{option(name)} goes with {option(beside)}, which is missing")
        if path and not Path(path).exists():
            raise LatseError(f"{option(name)} {path}: there is no such file or folder")
        words += [option(name), path] if path else []
    return words


def _judges(files: list[str] | None, megaface: list[str], shard: Shard) -> list[tuple[str, list[str]]]:
    """Return what judges a model: the file of its results and how the command begins."""
    beside = [path for path in sorted(Path(shard.folder).glob("*.bin")) if path.stem in VERIFIED]
    pairs = [Path(path) for path in files or beside]
    judges = []
    if pairs:
        judges.append((tables.VERIFICATION, ["eval", "--pairs", *map(str, pairs)]))
    if megaface:
        judges.append((tables.IDENTIFICATION, ["identify", *megaface]))
    if not judges:
        sets = ", ".join(f"{name}.bin" for name in VERIFIED)
        raise LatseError(f"{shard.folder} holds none of {sets}, and neither --pairs nor --probes is given")
    for path in pairs:
        if path.stem not in VERIFIED or not path.is_file():
            raise LatseError(f"--pairs {path}: must be a file named {', '.join(VERIFIED)}, ending in .bin")
    return judges


def _train(args: argparse.Namespace, recipe: str, shard: Shard) -> Path:
    """Train a recipe after its teacher, or go on with it, and return its folder."""
    folder = make_folder(Path(args.runs) / Path(recipe).stem)
    teacher = teacher_of(recipe)
    follows = ["--teacher", f"{_train(args, teacher, shard)}/model,0"] if teacher else []
    options = [word for change in args.set for word in ("--set", change)]
    options += [] if args.kvstore is None else ["--kvstore", args.kvstore]
    where = ["--data", shard.folder, "--out", folder, "--seed", args.seed, "--resume"]
    _latse("train", recipes.SHIPPED / recipe, *where, *follows, *options, *_devices(args))
    return folder


def _is_judged(folder: Path, result: str, command: list[str]) -> bool:
    """Tell whether the last checkpoint has been judged by a command that begins so: on the same sets."""
    path, model = folder / result, folder / "model-0000.params"
    if not path.exists() or path.stat().st_mtime < model.stat().st_mtime:
        return False
    content = read_json(path)
    check(path, content, {"provenance": {"command": TEXT}})
    return content["provenance"]["command"].startswith(shlex.join(["latse", *command, "--model"]))


def _devices(args: argparse.Namespace) -> list[str]:
    return ["--gpus", args.gpus] if args.gpus else ["--cpus", str(args.cpus)]


def _latse(command: str, *arguments: object) -> None:
    words = [sys.executable, "-m", "latse", command, *map(str, arguments)]
    if subprocess.run(words, stdout=sys.stderr, check=False).returncode:
        raise LatseError(f"latse {command} failed, see above: {' '.join(words[2:])}")


def _dry_runs(args: argparse.Namespace, chosen: list[tables.PaperTable], shards: dict[str, Shard]) -> None:
    """Plan every recipe, for the given shard or for what the paper's set is said to hold, and print them."""
    devices = contexts(args)
    trainings = {}
    for recipe in _rows(chosen):
        for name in filter(None, (teacher_of(recipe), recipe)):
            people, images = _size(name, shards)
            changed = recipes.load(recipes.SHIPPED / name, args.set)
            trainings[Path(name).stem] = Training.of(changed, people, devices), images
    planned = {
        name: dry_run(training, images)
        for name, (training, images) in tqdm(trainings.items(), unit=" recipes", leave=False)
    }
    if args.json:
        content = {"recipes": {name: run.as_json() for name, run in planned.items()}}
        write_json(args.json, {"kind": "dry runs", "provenance": provenance(args, devices), **content})
    rows = [["", "iterations", "batch", "images", "epochs", "activations", "planned", "device"]]
    for name, run in planned.items():
        train = run.training.recipe.train
        counts = f"{train.iterations:,}", f"{train.batch_size:,}", f"{run.images:,}", f"{run.epochs:.1f}"
        memory = run.plan.before_megabytes, run.plan.after_megabytes, run.device_memory
        rows.append([name, *counts, *(f"{megabytes:.0f}" for megabytes in memory)])
    print(aligned(rows))
    print(
        f"MiB on each of {len(devices)} devices: activations without a plan, planned activations, and all "
        "memory of a device in a run of the recipe, with the plan where it has train.memory_plan"
    )


def _size(recipe: str, shards: dict[str, Shard]) -> tuple[int, int]:
    """Return how many people and images there are to train on."""
    shard, known = shards.get(tables.data_set(recipe)), tables.DATA_SETS[tables.data_set(recipe)]
    return (shard.classes, len(shard)) if shard else (known.people, known.images)
