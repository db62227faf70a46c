"""The sub-command `latse train`."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import signal
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any, Iterator

import mxnet as mx
from yacs.config import CfgNode

import latse
from latse import recipe as recipes
from latse.arguments import DISTRIBUTED
from latse.cluster.alone import ALONE, Alone
from latse.cluster.exchange import LISTENS
from latse.cluster.place import from_environment
from latse.cluster.workers import Workers
from latse.devices import contexts
from latse.errors import LatseError
from latse.files import locked, make_folder, read_json, remove_parts, write_json
from latse.models import checkpoint, warm_start
from latse.models.parameters import needed_shapes
from latse.plan import memonger
from latse.provenance import provenance
from latse.train import bank, metrics, owned_bank, precision, run_record, state, tensorboard
from latse.train.interruption import Interruption
from latse.train.metrics import Watch
from latse.train.precision import DivergenceError
from latse.train.state import AFRESH, RunState
from latse.train.trainer import LAST, Trainer
from latse.train.training import Training, open_shard
from latse.train.verdicts import Judge, KeepAll, Stored, Teacher, TopK, warn_of_another_set

PLAN = "memory-plan.json"
AIM = "what is to be done"
# What a run writes under another name first. Others may be at work on theirs in its folder.
WRITTEN = "model-*", "untrained-*", "state*.params", run_record.FILE, metrics.FILE, PLAN, "not_finite-*.json"


def run(args: argparse.Namespace) -> int:
    """Train and return the exit status, 0 only for a finished run; raise LatseError for bad input."""
    recipe = recipes.load(args.recipe, args.set, {"--kvstore": ("train.kvstore", args.kvstore)})
    devices = contexts(args)
    _check_devices(recipe, devices, args)
    workers = _workers(recipe)
    try:
        status = (
            _run(args, recipe, devices, workers)
            if workers.rank == 0
            else _follow(args, recipe, devices, workers)
        )
    except BaseException as error:
        workers.fail(str(error) if isinstance(error, LatseError) else f"{type(error).__name__}: {error}")
        raise
    workers.close()
    return status


def _run(args: argparse.Namespace, recipe: CfgNode, devices: list[mx.Context], workers: Alone) -> int:
    """Train as the worker that reads and writes the folder of the run."""
    shard = open_shard(args.data)
    training = Training.of(recipe, shard.classes, devices, args.seed, workers.count)
    folder = make_folder(args.out)
    with locked(folder):
        for name in (*WRITTEN, owned_bank.MARK):
            remove_parts(folder, name)
        (folder / owned_bank.MARK).unlink(missing_ok=True)
        state.recover(folder, lambda text: print(f"latse: {text}", file=sys.stderr))
        stored = Stored(args.verdicts, recipe.filter.k, shard) if args.verdicts else None
        record = run_record.record(args, recipe, shard, stored)
        reached, old = _reached(folder, args.resume), run_record.read(folder)
        _refuse_other_runs(workers, folder, reached)
        if old is not None:
            record = run_record.gone_on(folder, old, record, reached)
            if _is_finished(folder, old, record, reached):
                workers.gather(AIM, (False, None))
                bank.remove_traces(folder)
                print(f"{folder}: the run is finished, {reached} iterations")
                return _ended(folder, args.data)
            print(_going_on(folder, record, reached))
        teacher = stored or _teacher(args, training)
        begin = _warm(args.start, training) if args.start and not reached else AFRESH
        planned = _planned(args, training, folder)
        write_json(folder / run_record.FILE, record)
        workers.gather(AIM, (True, read_json(folder / PLAN) if (folder / PLAN).exists() else None))
        note = warn_of_another_set(args.teacher, shard) if args.teacher and recipe.filter.k else ""
        trainer = Trainer(planned, shard, folder, teacher, begin, workers)
        with _watching(args, reached) as watch, Interruption() as interruption, _advising(
            folder, args, recipe, trainer
        ):
            done = trainer.run(note, interruption.came, watch)
    if done < recipe.train.iterations:
        where = f"checkpoint at iteration {done}, {folder / 'model'},{done}"
        print(f"latse: interrupted: {where}; the same command with --resume goes on", file=sys.stderr)
        return _interrupted(interruption)
    print(f"{folder} holds model-symbol.json, model-0000.params, run.json, metrics.jsonl and train.log")
    return _ended(folder, args.data)


def _follow(args: argparse.Namespace, recipe: CfgNode, devices: list[mx.Context], workers: Alone) -> int:
    """Train as another worker, which keeps nothing."""
    shard, folder = open_shard(args.data), Path(args.out)
    training = Training.of(recipe, shard.classes, devices, args.seed, workers.count)
    teacher = Stored(args.verdicts, recipe.filter.k, shard) if args.verdicts else _teacher(args, training)
    _refuse_other_runs(workers, folder)
    (trains, plan), *_ = workers.gather(AIM, None)
    if not trains:
        return 0
    trainer = Trainer(_with_plan(training, plan), shard, folder, teacher, workers=workers)
    with Interruption() as interruption, _advising(folder, args, recipe, trainer):
        done = trainer.run(asked_to_stop=interruption.came)
    return 0 if done == recipe.train.iterations else _interrupted(interruption)


def _interrupted(interruption: Interruption) -> int:
    """Return the status of a run that was interrupted; where another worker was, this one got no signal."""
    return 128 + (interruption.number or signal.SIGTERM)


def _refuse_other_runs(workers: Alone, folder: Path, reached: int = 0) -> None:
    """Raise LatseError on worker 0, which has `reached` an iteration, where another one has a later state.

    Which worker is 0 MXNet chooses by the addresses, so that with other hosts it may be on another one.
    """
    workers.gather("the state of the run", None)  # where all see one folder, worker 0 has looked at it
    own = os.environ.get(LISTENS) or socket.gethostname()
    held = workers.gather("who has a later one", (own, state.reached(folder)))
    most, host = max((iteration, host) for host, iteration in held)
    if workers.rank == 0 and most > reached:
        raise LatseError(
            f"{folder}: on {host} this run is at iteration {most}, on {held[0][0]}, whose worker is to read "
            f"and write it now, at {reached}: copy the folder there, or move it away"
        )


def _workers(recipe: CfgNode) -> Alone:
    """Return the workers of the run; raise LatseError if the KVStore is of another kind."""
    place, kind = from_environment(), recipe.train.kvstore
    if (place is None) == (kind in DISTRIBUTED):
        joins = f"train.kvstore {kind} joins several workers: `latse launch` starts them"
        alone = f"DMLC_ROLE is set, so train.kvstore must be one of {', '.join(DISTRIBUTED)}, not {kind}"
        raise LatseError(joins if place is None else alone)
    return Workers(place, kind) if place else ALONE


def _check_devices(recipe: CfgNode, devices: list[mx.Context], args: argparse.Namespace) -> None:
    if not 0 <= args.seed < 2**31:
        raise LatseError(f"--seed {args.seed}: must be from 0 to {2**31 - 1}")
    if recipe.train.kvstore == "nccl" and not latse.features()["NCCL"]:
        raise LatseError("train.kvstore nccl needs the GPU build: make setup GPU=1")
    precision.check(recipe, devices)
    if args.tensorboard:
        tensorboard.library()
    if args.teacher and args.verdicts:
        raise LatseError("--teacher and --verdicts exclude each other: the verdicts are those of a teacher")
    if args.verdicts and recipe.filter.k is None:
        raise LatseError(f"{args.recipe} has no filter.k, so --verdicts has no use")
    if recipe.filter.k is not None and not (args.teacher or args.verdicts):
        raise LatseError(
            f"{args.recipe} has filter.k {recipe.filter.k}: name the teacher with --teacher, or --verdicts"
        )


def _reached(folder: Path, resume: bool) -> int:
    """Return how many iterations the run in `folder` has done; raise LatseError if it must not go on."""
    if not (folder / run_record.FILE).exists():
        if (folder / state.FILE).exists():
            raise LatseError(
                f"{folder} holds the state of a run but no {run_record.FILE}: choose another --out"
            )
        return 0
    if not resume:
        raise LatseError(
            f"{folder} already holds a run: add --resume to go on with it, or choose another --out"
        )
    reached = state.load(folder)
    return reached.iteration if reached else 0


def _is_finished(folder: Path, old: dict, new: dict, reached: int) -> bool:
    """Tell whether the run of an `old` record is done by the `new` one; raise LatseError if it cannot be."""
    before, last = (record["settings"]["train"].get("iterations") for record in (old, new))
    is_other = old["settings"] != new["settings"]
    if reached > last:
        raise LatseError(
            f"{folder} has reached iteration {reached}: train.iterations is {last}, must be at least that"
        )
    if reached == last == before and is_other:
        others = "; ".join(_changes(new, reached))
        raise LatseError(
            f"{folder}: the run is finished, {last} iterations: other settings ({others}) need a larger "
            "train.iterations"
        )
    return reached == last and not is_other and checkpoint.parameters_path(folder / "model", LAST).exists()


def _going_on(folder: Path, record: dict, reached: int) -> str:
    if not reached:
        return f"{folder}: begins anew, there is no checkpoint yet"
    where = f"{folder}: goes on from iteration {reached} of {record['settings']['train']['iterations']}"
    return "; ".join([where, *_changes(record, reached)])


def _changes(record: dict, reached: int) -> list[str]:
    """Return a few words for each setting that changes after the iteration that was reached."""
    return run_record.told([change for change in record["changes"] if change["iteration"] == reached])


def _watching(args: argparse.Namespace, reached: int) -> contextlib.AbstractContextManager[Watch]:
    """Return a context of what gets each line of the metrics, and say how the run may be watched."""
    page = shlex.join(["latse", "report", args.out, "--out", f"{args.out}/report.html"])
    print(f"watch: {page}, as often as you like; {args.out}/train.log")
    if args.tensorboard:
        print(f"watch: {shlex.join(['tensorboard', '--logdir', f'{args.out}/{tensorboard.FOLDER}'])}")
        return tensorboard.events(Path(args.out), reached)
    return contextlib.nullcontext(lambda line: None)


def _ended(folder: Path, data: str) -> int:
    """Print what may be done with a finished run; return the exit status."""
    model = shlex.quote(f"{folder / 'model'},{LAST}")
    pairs = shlex.join(map(str, sorted(Path(data).glob("*.bin")))) or "FILE.bin"
    print(f"model: {model}\nnext: latse eval --model {model} --pairs {pairs}")
    return 0


@contextlib.contextmanager
def _advising(folder: Path, args: argparse.Namespace, recipe: CfgNode, trainer: Trainer) -> Iterator[None]:
    """Say of a run that ends before its time what its last checkpoint is, and what goes on from there."""
    try:
        yield
    except KeyboardInterrupt:
        reached = trainer.reached or state.reached(folder)
        where = f"the last checkpoint is that of iteration {reached}" if reached else "no checkpoint yet"
        print(f"latse: {folder}: {where}; the same command with --resume goes on", file=sys.stderr)
        raise
    except DivergenceError as error:
        where = f"{folder} has no checkpoint yet, begin anew"
        if trainer.reached:
            where = f"go on from the last checkpoint, that of iteration {trainer.reached} in {folder},"
        command = _with_rate(recipe.schedule.learning_rate / 10, args)
        raise LatseError(f"{error}; {where} at a tenth of the rate: {command}") from error


def _with_rate(rate: float, args: argparse.Namespace) -> str:
    """Return the command that goes on with this run at another learning rate."""
    words, key = args.command_line, "schedule.learning_rate"
    end = words.index("--") if "--" in words else len(words)  # of the options
    options = words[:end]
    if options[-2:-1] == ["--set"] and options[-1].startswith(f"{key}="):
        options = options[:-2]
    resume = [] if args.resume else ["--resume"]
    return shlex.join(["latse", *options, *resume, "--set", f"{key}={rate:g}", *words[end:]])


def _teacher(args: argparse.Namespace, training: Training) -> Teacher:
    k, size = training.recipe.filter.k, training.batch_size
    if k is None:
        return KeepAll()
    return TopK(Judge(args.teacher, training.classes, size, training.devices), k)


def _warm(text: str, training: Training) -> RunState:
    """Return what a checkpoint has to begin with, and say of each part whether it is there."""
    symbol, inputs = training.graph
    tables = {table.name: (table.rows, *table.shape) for table in training.tables}
    start = warm_start.start(text, training.recipe.encoder, {**needed_shapes(symbol, **inputs), **tables})
    for line in start.report:
        print(f"{text}: {line}")
    return RunState(0, *start.parameters)


def _with_plan(training: Training, plan: Any) -> Training:
    """Return the training with the memory plan that the first worker has sent, if there is one."""
    if plan is None:
        return training
    with tempfile.TemporaryDirectory() as folder:
        write_json(Path(folder, PLAN), plan)
        return training.with_symbol(memonger.read_plan(Path(folder, PLAN), training.device_graph.symbol))


def _planned(args: argparse.Namespace, training: Training, folder: Path) -> Training:
    """Return the training with the memory plan of its graph, if there is one or the wish for one.

    A resumed run takes its plan from its folder.
    """
    own, begun = folder / PLAN, (folder / run_record.FILE).exists()
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
