"""`latse bench filter`: what the teacher's filter and the decoder cost in the student's training step.

Contenders in turn, each a process of its own, all with the same encoder and LinearFace on the same set: the
plain student, the student whose refused samples are known from stored verdicts, LATSE (with decoder and
mean-face bank) with stored verdicts, and LATSE with the teacher asked in every step. The set and its teacher,
of the same depth, are made up: the teacher believes three labels of four. Its verdicts are stored by `latse
filter`, which then asks it again and compares.
"""

from __future__ import annotations

import argparse
import functools
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np

from latse import recipe as recipes
from latse.bench import learner_step
from latse.bench.benchmark import Outcome
from latse.bench.contender import race, served
from latse.bench.learner_step import STEADY
from latse.bench.loader_command import QUALITY, random_image
from latse.bench.timing import ratios
from latse.data.images import encode
from latse.data.shards.records import Shard
from latse.data.shards.shard_writer import write_shard
from latse.errors import LatseError
from latse.files import read_json
from latse.goals import Figure, Goal
from latse.models.embedding import Network
from latse.symbols import encoders
from latse.train import state
from latse.train.learner import Learner
from latse.train.training import Training, inference

PLAIN, FILTERED = "plain student", "student, stored verdicts"
STORED, ASKED = "LATSE, stored verdicts", "LATSE, teacher asked"
RECIPE, K, SEED = "ms1mv2_teacher", 3, 0
BATCHES = 4  # in the set


def measure(args: argparse.Namespace) -> Outcome:
    """Make the set and its teacher, store the verdicts, train four students in turn."""
    if args.batch_size % 2:
        raise LatseError(f"--batch-size {args.batch_size}: must be even")
    encoders.check(args.encoder)
    with tempfile.TemporaryDirectory(prefix="latse-bench-") as name:
        folder = Path(name)
        _make_set(folder / "data", args)
        _make_teacher(folder / "teacher", args, Shard(folder / "data"))
        seconds, stored = _stored(folder, args)
        races = race(_commands(folder, args), args.repeats, "training steps")
    figures = {
        title: {
            "step": Figure.of(raced.seconds, "s"),
            "processor time": Figure.of(raced.processor_seconds, "s"),
            "peak memory": Figure.of([raced.memory["peak_megabytes"]], "MiB"),
        }
        for title, raced in races.items()
    }
    each = {"step": Figure.of([seconds / stored["images"]], "s")}
    figures["latse filter, an image and its mirror image, its start shared out"] = each
    kept = stored["kept"][str(K)]["plain"]
    setting = {"encoder": args.encoder, "k": K, "images": stored["images"], "kept": kept}
    steps = {title: raced.seconds for title, raced in races.items()}
    return Outcome(figures, _goals(args.encoder, steps, stored), setting, contexts=[mx.cpu()])


def _make_set(folder: Path, args: argparse.Namespace) -> None:
    """Write a set of random smooth images, as many people as images where there are so many."""
    images = BATCHES * args.batch_size
    people = np.random.default_rng(SEED).choice(args.classes, images, replace=images > args.classes)
    encoded = (encode(random_image(number), QUALITY) for number in range(images))
    write_shard(folder, zip(people.tolist(), encoded), args.classes)


def _make_teacher(prefix: Path, args: argparse.Namespace, shard: Shard) -> None:
    """Save an untrained encoder whose class centres are the embeddings of three people of four."""
    recipe = recipes.load(RECIPE, [*_plain(args), "train.batch_size=1"])
    begun = Learner(Training.of(recipe, shard.classes, [mx.cpu()], SEED)).capture(0)
    state.ModelWriter(inference(recipe)).save(prefix, 0, begun)
    embeddings = Network(prefix, 0)(shard.batch(np.arange(len(shard))).image)
    centres = begun.arg_params["fc7_weight"].asnumpy()
    known = np.arange(len(shard)) % 4 > 0
    centres[shard.labels[known].astype(np.int64)] = embeddings[known]
    knowing = begun._replace(arg_params={**begun.arg_params, "fc7_weight": mx.nd.array(centres)})
    state.ModelWriter(inference(recipe)).save(prefix, 0, knowing)


def _stored(folder: Path, args: argparse.Namespace) -> tuple[float, dict[str, Any]]:
    """Store the verdicts as a user does; return the seconds it took, and the report of a check of all."""
    command = [sys.executable, "-m", "latse", "filter", "--data", folder / "data", "--k", K, "--out"]
    command += [folder / "set.keep", "--teacher", f"{folder / 'teacher'},0", "--batch-size", args.batch_size]
    report = folder / "filter.json"
    for more in ([], ["--check", "--json", report]):
        began = time.perf_counter()
        done = subprocess.run([*map(str, [*command, *more])], stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode and not report.exists():  # a contradicted verdict is reported, and a goal missed
            raise LatseError(f"latse filter ended with status {done.returncode}")
        if not more:
            seconds = time.perf_counter() - began
    return seconds, read_json(report)


def _plain(args: argparse.Namespace) -> list[str]:
    """Return what of `RECIPE` is changed for the plain student."""
    return [f"encoder.name={args.encoder}", *STEADY]


def _commands(folder: Path, args: argparse.Namespace) -> dict[str, list[str]]:
    """Return the students' commands by title."""
    build = functools.partial(served, learner_step.contender, RECIPE, args.classes, args.batch_size)
    plain = _plain(args)
    filtered, decodes = [*plain, f"filter.k={K}"], [*plain, f"filter.k={K}", "decoder.enabled=true"]
    on_set = {"data": folder / "data"}
    stored, teacher = {**on_set, "verdicts": folder / "set.keep"}, f"{folder / 'teacher'},0"
    return {
        PLAIN: build(plain, **on_set),
        FILTERED: build(filtered, **stored),
        STORED: build(decodes, **stored, bank=folder / STORED),
        ASKED: build(decodes, **on_set, teacher=teacher, bank=folder / ASKED),
    }


def _goals(name: str, steps: dict[str, list[float]], stored: dict[str, Any]) -> list[Goal]:
    decoder = [(whole - part) / whole for whole, part in zip(steps[STORED], steps[FILTERED])]
    over_plain = {title: ratios(steps[title], steps[PLAIN]) for title in (STORED, FILTERED, ASKED)}
    goals = [
        Goal.of(f"step of {title}, over {PLAIN}, {name}", values, at_most=1.35 if title == STORED else None)
        for title, values in over_plain.items()
    ]
    return [
        *goals,
        Goal.of(f"decoder's and bank's share of the step of {STORED}, {name}", decoder),
        Goal.of("stored verdicts that the teacher contradicts", [stored["checked"]["different"]], at_most=0),
    ]
