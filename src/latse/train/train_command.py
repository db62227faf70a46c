"""The sub-command `latse train`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import mxnet as mx
from yacs.config import CfgNode

import latse
from latse import recipe as recipes
from latse.data.shards.records import Shard
from latse.devices import add_device_arguments, contexts, describe
from latse.errors import LatseError
from latse.files import digest, locked, make_folder, read_json, remove_parts, write_json
from latse.models import checkpoint, warm_start
from latse.models.parameters import needed_shapes
from latse.models.run_folder import named_checkpoint
from latse.own_class import source
from latse.plan import memonger
from latse.provenance import provenance
from latse.recipe_keys import KVSTORES
from latse.runtime import versions
from latse.train import bank, precision, state
from latse.train.state import AFRESH, RunState
from latse.train.trainer import Trainer
from latse.train.training import Training, open_shard
from latse.train.verdicts import Judge, KeepAll, Stored, Teacher, TopK, warn_of_another_set

RECORD = "run.json"
PLAN = "memory-plan.json"
# A run goes on only where these are as they were.
DECISIVE = ("seed", "settings", "encoder", "margin", "losses", "data", "teacher", "start")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `latse train`."""
    parser.add_argument("recipe", help="YAML file, or the name of a shipped recipe, such as orl_teacher")
    parser.add_argument("--data", required=True, metavar="FOLDER", help="train.rec, train.idx and property")
    parser.add_argument("--out", required=True, metavar="FOLDER", help="where the run is kept")
    parser.add_argument("--seed", type=int, default=0, help="default 0")
    parser.add_argument(
        "--teacher",
        type=named_checkpoint,
        metavar="PREFIX,N",
        help="checkpoint of the teacher, or the folder of its run, where the recipe has filter.k",
    )
    parser.add_argument(
        "--verdicts", metavar="FILE", help="what `latse filter` wrote, instead of the teacher"
    )
    parser.add_argument(
        "--start",
        type=named_checkpoint,
        metavar="PREFIX,N",
        help="begin with the parameters of this checkpoint, of the same encoder, insightface's or of this "
        "project, or of the folder of a run; class centres and decoder too, where they fit (default: random "
        "parameters)",
    )
    parser.add_argument(
        "--plan",
        metavar="FILE",
        help="memory plan of this graph, written by `latse plan` (default: with train.memory_plan, the one "
        "of the least memory; else none)",
    )
    parser.add_argument("--kvstore", metavar="NAME", help=f"one of {', '.join(KVSTORES)}")
    parser.add_argument("--resume", action="store_true", help="go on with the run in OUT, or start it")
    recipes.add_set_argument(parser, "change one key of the recipe")
    add_device_arguments(parser)


def run(args: argparse.Namespace) -> None:
    """Train; raise LatseError for bad input."""
    overrides = [*args.set, *([f"train.kvstore={args.kvstore}"] if args.kvstore else [])]
    recipe = recipes.load(args.recipe, overrides)
    devices = contexts(args)
    _check_devices(recipe, devices, args)
    shard = open_shard(args.data)
    training = Training.of(recipe, shard.classes, devices, args.seed)
    folder = make_folder(args.out)
    with locked(folder):
        for name in ("model-*", "untrained-*", state.FILE):
            remove_parts(folder, name)
        stored = Stored(args.verdicts, recipe.filter.k, shard) if args.verdicts else None
        record = _record(args, recipe, shard, stored)
        if _is_finished(folder, record, args.resume, recipe):
            bank.remove_traces(folder)
            print(f"{folder}: the run is finished, {recipe.train.iterations} iterations")
            return
        teacher = stored or _teacher(args, training)
        begins = args.start and not (folder / state.FILE).exists()
        begin = _warm(args.start, training) if begins else AFRESH
        planned = _planned(args, training, folder)
        write_json(folder / RECORD, record)
        note = warn_of_another_set(args.teacher, shard) if args.teacher and recipe.filter.k else ""
        Trainer(planned, shard, folder, teacher, begin).run(note)
    print(f"{folder} holds model-symbol.json, model-0000.params, run.json, metrics.jsonl and train.log")


def _check_devices(recipe: CfgNode, devices: list[mx.Context], args: argparse.Namespace) -> None:
    if not 0 <= args.seed < 2**31:
        raise LatseError(f"--seed {args.seed}: must be from 0 to {2**31 - 1}")
    if recipe.train.kvstore == "nccl" and not latse.features()["NCCL"]:
        raise LatseError("train.kvstore nccl needs the GPU build: make setup GPU=1")
    precision.check(recipe, devices)
    if args.teacher and args.verdicts:
        raise LatseError("--teacher and --verdicts exclude each other: the verdicts are those of a teacher")
    if args.verdicts and recipe.filter.k is None:
        raise LatseError(f"{args.recipe} has no filter.k, so --verdicts has no use")
    if recipe.filter.k is not None and not (args.teacher or args.verdicts):
        raise LatseError(
            f"{args.recipe} has filter.k {recipe.filter.k}: name the teacher with --teacher, or --verdicts"
        )


def _record(args: argparse.Namespace, recipe: CfgNode, shard: Shard, stored: Stored | None) -> dict:
    """Return what run.json says: all that decides the run, then where it was made."""
    return {
        "recipe": Path(args.recipe).stem,
        "seed": args.seed,
        "settings": _without_folders(recipes.as_dict(recipe)),
        "changed": recipes.changed(Path(args.recipe).stem, recipe),
        "encoder": _own_digest(recipe.encoder.name),
        "margin": _own_digest(recipe.margin.name),
        "losses": [*map(_own_digest, recipe.decoder.losses)] or None,
        "data": {"images": len(shard), "people": shard.classes, "digest": shard.digest()},
        "teacher": stored.teacher if stored else _parameters_digest(args.teacher),
        "start": _parameters_digest(args.start),
        "from": {key: getattr(args, key) for key in ("data", "teacher", "verdicts", "start")},
        "versions": versions(),
        "device": describe(contexts(args)),
    }


def _without_folders(value: Any) -> Any:
    """Return settings whose FILE.py:CLASS has no folder: the file's digest counts, not its place."""
    if isinstance(value, dict):
        return {_without_folders(key): _without_folders(part) for key, part in value.items()}
    return Path(value).name if isinstance(value, str) and source(value) else value


def _parameters_digest(text: str | None) -> str | None:
    """Return the digest of a checkpoint's parameters, None for no checkpoint."""
    return text and digest(checkpoint.parameters_path(*checkpoint.parse(text)))


def _own_digest(name: str) -> str | None:
    """Return the digest of the file of a user's own class, None for a shipped one."""
    file = source(name)
    return file and digest(file)


def _is_finished(folder: Path, record: dict, resume: bool, recipe: CfgNode) -> bool:
    """Tell whether the run in `folder` is done; raise LatseError if it is another or must not go on."""
    if not (folder / RECORD).exists():
        if (folder / state.FILE).exists():
            raise LatseError(f"{folder} holds the state of a run but no {RECORD}: choose another --out")
        return False
    if not resume:
        raise LatseError(
            f"{folder} already holds a run: add --resume to go on with it, or choose another --out"
        )
    old = read_json(folder / RECORD)
    if not isinstance(old, dict):
        raise LatseError(f"{folder / RECORD} is damaged: it says nothing of a run")
    for key in DECISIVE:
        if old.get(key) != record[key]:
            raise LatseError(
                f"{folder} holds a run with another {key} ({_difference(old.get(key), record[key])}): "
                "choose another --out"
            )
    reached = state.load(folder)
    return reached is not None and reached.iteration == recipe.train.iterations


def _difference(old: object, new: object) -> str:
    """Return the first place where two settings differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in {**old, **new}:
            if old.get(key) != new.get(key):
                return f"{key}: {_difference(old.get(key), new.get(key))}"
    return f"{old}, not {new}"


def _teacher(args: argparse.Namespace, training: Training) -> Teacher:
    k, size = training.recipe.filter.k, training.recipe.train.batch_size
    if k is None:
        return KeepAll()
    return TopK(Judge(args.teacher, training.classes, size, training.devices), k)


def _warm(text: str, training: Training) -> RunState:
    """Return what a checkpoint has to begin with, and say of each part whether it is there."""
    symbol, inputs = training.graph
    start = warm_start.start(text, training.recipe.encoder, needed_shapes(symbol, **inputs))
    for line in start.report:
        print(f"{text}: {line}")
    return RunState(0, *start.parameters)


def _planned(args: argparse.Namespace, training: Training, folder: Path) -> Training:
    """Return the training with the memory plan of its graph, if there is one or the wish for one.

    A resumed run takes its plan from its folder.
    """
    own, begun = folder / PLAN, (folder / RECORD).exists()
    if begun and args.plan and not own.exists():
        raise LatseError(f"{folder}: the run goes on without a memory plan, as it began: leave out --plan")
    if begun and args.plan and read_json(args.plan) != read_json(own):
        raise LatseError(f"{folder}: the run goes on with its own memory plan {own}: leave out --plan")
    symbol, shapes = training.device_graph
    if begun and own.exists():
        return training.with_symbol(memonger.read_plan(own, symbol))
    if args.plan:
        planned = memonger.read_plan(args.plan, symbol)
        write_json(own, read_json(args.plan))
        return training.with_symbol(planned)
    own.unlink(missing_ok=True)  # that of a run which was killed before it began
    if not training.recipe.train.memory_plan:
        return training
    plan = training.device_graph.planned(training.devices[0])
    before, after = plan.before_megabytes, plan.after_megabytes
    print(f"memory plan: activations of {before:.0f} MiB without it, {after:.0f} MiB with it")
    memonger.write_plan(own, plan, provenance(args, training.devices))
    return training.with_symbol(plan.symbol)
