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
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, Dict, Iterator, List, Sequence

import numpy as np
from tqdm import tqdm

from latse.bench import learner_step
from latse.bench.benchmark import Benchmark, Option, Outcome, count
from latse.bench.contender import Contender, race, served
from latse.bench.protocol import Step
from latse.errors import LatseError
from latse.files import make_folder
from latse.goals import Figure, Goal
from latse.train.bank import FACES, MeanFaceBank

SHAPE, MOMENTUM = (3, 112, 112), 0.9
ROW = 2 * int(np.prod(SHAPE))  # bytes
Seconds = Dict[str, List[float]]  # and memory, by what was done


class BankBenchmark(Benchmark):
    """A bank made and used, over and over, and a training step."""

    kind = "bench bank"
    options = (
        count("people", 85_742, "people"),
        count("batch-size", 96, "images of an update"),
        count("batches", 40, "updates of each kind in a round"),
        count("workers", 2, "processes that share the bank"),
        count("repeats", 3, "rounds, each with a new bank"),
        count("step-batch-size", 32, "images of the training step that is measured"),
        Option("folder", ".", "where a temporary folder for the bank is made"),
        Option(
            "recipe", "ms1mv2_arcface_r50_student_k3", "whose training step is measured, without the teacher"
        ),
        Option(
            "step",
            None,
            "seconds of a training step of --batch-size images; without it, one is measured",
            float,
        ),
    )
    contexts = []

    def check(self) -> None:
        """Refuse numbers that do not fit together, and a disk that the bank would fill."""
        args = self.args
        if args.step is not None and not args.step > 0:
            raise LatseError("--step must be above 0")
        if args.batch_size > args.people:
            raise LatseError(
                f"{args.batch_size} images of different people need more than --people {args.people}"
            )
        _check_space(make_folder(args.folder), args)

    def measure(self) -> Outcome:
        """Do the rounds, then the steps."""
        args = self.args
        rounds = [
            _round(args, number) for number in tqdm(range(args.repeats), unit=" rounds", desc="bench bank")
        ]
        times = {name: [value for turn in rounds for value in turn[name]] for name in rounds[0]}
        step = _step_of_an_image(args)
        bank = {
            name: Figure.of(values, "MiB" if name.startswith("memory") else "s")
            for name, values in times.items()
        }
        contenders = {
            "mean-face bank": bank,
            "training step": {"step of an image": Figure.of(step, "s")},
        }
        setting = {"row_bytes": ROW, "step": args.step, "recipe": None if args.step else args.recipe}
        return Outcome(contenders, _goals(args, times, step), setting)


add_arguments, run = BankBenchmark.add_arguments, BankBenchmark.run


def _check_space(folder: Path, args: argparse.Namespace) -> None:
    """Refuse a disk that the bank with its journals would fill."""
    needed = (args.people + 2 * args.batches * args.batch_size * (1 + args.workers)) * ROW
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise LatseError(f"{folder} has {free / 1e9:.3g} GB free, the bank takes {needed / 1e9:.3g} GB")


def _round(args: argparse.Namespace, number: int) -> Seconds:
    """Make a bank, use it, and return what everything took."""
    with tempfile.TemporaryDirectory(prefix=".bench-bank-", dir=args.folder) as folder:
        times: Seconds = {}

        def opened(name: str, iteration: int) -> MeanFaceBank:
            began = time.perf_counter()
            bank = MeanFaceBank(folder, args.people, SHAPE, MOMENTUM, iteration)
            times[name] = [time.perf_counter() - began]
            return bank

        bank = opened("create", 0)
        updates = _Updates(args, number)
        times["update, new rows"] = updates.of(bank)
        times["update, warm rows"] = updates.of(bank)
        bank.flush()
        bank.checkpoint(1)
        _forget(Path(folder) / FACES)
        times["update, cold rows"] = updates.of(bank)
        del bank  # as if killed: all that it knew is lost, its journal stays
        opened("open after a kill", 1).close()
        first = opened("open", 1)
        times.update(_shared(args, folder))
        first.close()
    return times


class _Updates:
    """The same batches over and over."""

    def __init__(self, args: argparse.Namespace, seed: int) -> None:
        self._images, self._teaches = made_up(args.batch_size, seed), np.ones(args.batch_size, bool)
        self._labels = list(islice(random_people(args.people, args.batch_size, seed), args.batches))

    def of(self, bank: MeanFaceBank) -> list[float]:
        """Return the seconds of each update of a bank."""
        times = []
        for labels in self._labels:
            began = time.perf_counter()
            bank.update(self._images, labels, self._teaches)
            times.append(time.perf_counter() - began)
        return times


def _forget(path: Path) -> None:
    """Drop the pages of a file, which are on disk, from memory."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _shared(args: argparse.Namespace, folder: str) -> Seconds:
    """Let several processes update the bank of this one at once; return seconds and memory of each."""
    with contextlib.ExitStack() as stack:
        workers = [
            stack.enter_context(
                Contender(
                    f"worker {number}",
                    served(contender, folder, args.people, args.batch_size, 1, number),
                )
            )
            for number in range(1, args.workers + 1)
        ]
        for worker in workers:
            worker.step()
        early = [worker.memory()["rise_megabytes"] for worker in workers]
        with ThreadPoolExecutor(args.workers) as pool:
            updates = list(
                pool.map(lambda worker: [worker.step()["seconds"] for _ in range(args.batches)], workers)
            )
        late = [worker.memory()["rise_megabytes"] for worker in workers]
    return {
        f"update, {args.workers} processes": [seconds for worker in updates for seconds in worker],
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
    return [
        Goal.of(f"seconds to create the bank of {size}", times["create"], at_most=1, unit="s"),
        Goal.of(f"seconds to open the bank of {size}", times["open"], at_most=1, unit="s"),
        Goal.of(
            f"seconds to open it after a kill, {rows} rows in the journal",
            times["open after a kill"],
            at_most=1,
            unit="s",
        ),
        Goal.of("update over the training step, cold rows, by image", dear, at_most=0.03),
        Goal.of(f"growth of resident memory over the {rows} rows touched", growth, at_most=1),
    ]


def made_up(batch_size: int, seed: int) -> np.ndarray:
    """Return a batch of random images, uint8 (B, 3, 112, 112)."""
    return np.random.default_rng(seed).integers(0, 256, (batch_size, *SHAPE), np.uint8)


def random_people(people: int, batch_size: int, seed: int) -> Iterator[np.ndarray]:
    """Yield batches of labels without end, nobody twice before everybody was there once."""
    order = np.random.default_rng(seed).permutation(people)
    while True:
        yield order[:batch_size]
        order = np.roll(order, -batch_size)


def contender(
    folder: str, people: int, batch_size: int, iteration: int, worker: int
) -> tuple[dict[str, Any], Step]:
    """Return the updates of one worker, as `latse.bench.protocol.serve` takes them."""
    bank = MeanFaceBank(folder, people, SHAPE, MOMENTUM, iteration, worker)
    images, teaches = made_up(batch_size, worker), np.ones(batch_size, bool)
    labels = random_people(people, batch_size, worker)

    def step() -> None:
        bank.update(images, next(labels), teaches)

    return {"planned_megabytes": None, "parameters": 0}, step
