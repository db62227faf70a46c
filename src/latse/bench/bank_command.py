"""`latse bench bank`: the bank of everybody's mean face at full size.

What it costs to make, to open, to open after a kill (the rows of a journal are put back), to update by a
batch, and what stays in memory. Rows are `new` (the person's first image), `warm` (changed since the last
checkpoint), or `cold` (read from the disk, changed for the first time since a checkpoint). The updates of
several processes that share the bank run at the same time, in children of their own, as does a training step
that the updates are compared with, image by image.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Sequence

import numpy as np
from tqdm import tqdm

from latse.bench import learner_step
from latse.bench.benchmark import Outcome
from latse.bench.contender import Contender, race, served
from latse.bench.protocol import Step, timed
from latse.errors import LatseError
from latse.files import make_folder
from latse.goals import Figure, Goal
from latse.train.bank import FACES, MeanFaceBank

SHAPE, MOMENTUM = (3, 112, 112), 0.9
ROW = 2 * int(np.prod(SHAPE))  # bytes
Seconds = Dict[str, List[float]]  # and memory, by what was done


def measure(args: argparse.Namespace) -> Outcome:
    """Make and use banks, over and over, then train a few steps."""
    if args.step is not None and not args.step > 0:
        raise LatseError("--step must be above 0")
    if args.batch_size > args.people:
        raise LatseError(
            f"{args.batch_size} images of different people need more than --people {args.people}"
        )
    free = shutil.disk_usage(make_folder(args.folder)).free
    needed = (args.people + 2 * args.batches * args.batch_size * (1 + args.workers)) * ROW
    if free < needed:
        raise LatseError(f"{args.folder} has {free / 1e9:.3g} GB free, the bank takes {needed / 1e9:.3g} GB")
    rounds = [_round(args, number) for number in tqdm(range(args.repeats), unit=" rounds", desc="bench bank")]
    times = {name: [value for turn in rounds for value in turn[name]] for name in rounds[0]}
    step = _step_of_an_image(args)
    bank = {
        name: Figure.of(values, "MiB" if name.startswith("memory") else "s") for name, values in times.items()
    }
    contenders = {
        "mean-face bank": bank,
        "training step": {"step of an image": Figure.of(step, "s")},
    }
    setting = {"row_bytes": ROW, "step": args.step, "recipe": None if args.step else args.recipe}
    return Outcome(contenders, _goals(args, times, step), setting)


def _round(args: argparse.Namespace, number: int) -> Seconds:
    """Make a bank, use it, and return what everything took."""
    with tempfile.TemporaryDirectory(prefix=".bench-bank-", dir=args.folder) as folder:
        times: Seconds = {}

        def opened(name: str, iteration: int) -> MeanFaceBank:
            answer = timed(lambda: {"bank": MeanFaceBank(folder, args.people, SHAPE, MOMENTUM, iteration)})
            times[name] = [answer["seconds"]]
            return answer["bank"]

        bank = opened("create", 0)
        update = _updates(bank, args.people, args.batch_size, number, args.batches)
        times["update, new rows"] = _seconds(update, args.batches)
        times["update, warm rows"] = _seconds(update, args.batches)
        bank.flush()
        bank.checkpoint(1)
        with Path(folder, FACES).open("rb") as file:  # it is on disk: its pages can leave the memory
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        times["update, cold rows"] = _seconds(update, args.batches)
        del bank, update  # as if killed: all that it knew is lost, its journal stays
        opened("open after a kill", 1).close()
        first = opened("open", 1)
        times.update(_shared(args, folder))
        first.close()
    return times


def _seconds(step: Step, repeats: int) -> list[float]:
    return [timed(step)["seconds"] for _ in range(repeats)]


def _updates(
    bank: MeanFaceBank, people: int, batch_size: int, seed: int, batches: int | None = None
) -> Callable[[], None]:
    """Return an update of a bank by random images; with `batches`, the same people recur after so many."""
    images = np.random.default_rng(seed).integers(0, 256, (batch_size, *SHAPE), np.uint8)
    labels = random_people(people, batch_size, seed)
    if batches:
        labels = cycle(list(islice(labels, batches)))  # drawn before any update is timed
    teaches = np.ones(batch_size, bool)

    def update() -> None:
        bank.update(images, next(labels), teaches)

    return update


def _shared(args: argparse.Namespace, folder: str) -> Seconds:
    """Let several processes update the bank of this one at once; return seconds and memory of each."""
    with contextlib.ExitStack() as stack:
        commands = {
            f"worker {number}": served(contender, folder, args.people, args.batch_size, number)
            for number in range(1, args.workers + 1)
        }
        workers = [stack.enter_context(Contender(*named)) for named in commands.items()]
        for worker in workers:
            worker.step()
        early = [worker.memory()["rise_megabytes"] for worker in workers]
        with ThreadPoolExecutor(args.workers) as pool:
            updates = pool.map(lambda worker: [worker.step() for _ in range(args.batches)], workers)
            seconds = [answer["seconds"] for worker in updates for answer in worker]
        late = [worker.memory()["rise_megabytes"] for worker in workers]
    return {
        f"update, {args.workers} processes": seconds,
        "memory, after an update": early,
        f"memory, after {1 + args.batches} updates": late,
    }


def _step_of_an_image(args: argparse.Namespace) -> list[float]:
    """Return the seconds of a training step by image: those given, or of a few measured steps."""
    if args.step:
        return [args.step / args.batch_size]
    command = served(learner_step.contender, args.recipe, args.people, args.step_batch_size)
    [step] = race({"training step": command}, args.repeats, "bench bank: training step").values()
    return [seconds / args.step_batch_size for seconds in step.seconds]


def _goals(args: argparse.Namespace, times: Seconds, step: Sequence[float]) -> list[Goal]:
    rows = min(args.people, args.batches * args.batch_size)
    size = f"{args.people} people"
    dear = [seconds / args.batch_size / np.median(step) for seconds in times["update, cold rows"]]
    early, late = (values for name, values in times.items() if name.startswith("memory"))
    growth = [(after - before) / (rows * ROW / 2**20) for before, after in zip(early, late)]
    seconds = {
        f"create the bank of {size}": times["create"],
        f"open the bank of {size}": times["open"],
        f"open it after a kill, {rows} rows in the journal": times["open after a kill"],
    }
    return [
        *(Goal.of(f"seconds to {what}", took, at_most=1, unit="s") for what, took in seconds.items()),
        Goal.of("update over the training step, cold rows, by image", dear, at_most=0.03),
        Goal.of(f"growth of resident memory over the {rows} rows touched", growth, at_most=1),
    ]


def random_people(people: int, batch_size: int, seed: int) -> Iterator[np.ndarray]:
    """Yield batches of labels without end, nobody twice before everybody was there once."""
    order = np.random.default_rng(seed).permutation(people)
    while True:
        yield order[:batch_size]
        order = np.roll(order, -batch_size)


def contender(folder: str, people: int, batch_size: int, worker: int) -> tuple[dict[str, Any], Step]:
    """Return the updates of one worker, as `latse.bench.protocol.serve` takes them."""
    bank = MeanFaceBank(folder, people, SHAPE, MOMENTUM, 1, worker)
    return {"planned_megabytes": None, "parameters": 0}, _updates(bank, people, batch_size, worker)
