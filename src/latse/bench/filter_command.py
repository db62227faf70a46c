"""`latse bench filter`: what the teacher's filter and the decoder cost in the student's training step.

Contenders in turn, each a process of its own, all with the same encoder and LinearFace on the same set: the
plain student, the student whose refused samples are known from stored verdicts, LATSE (with decoder and
mean-face bank) with stored verdicts, and LATSE with the teacher asked in every step. The set and its teacher,
of the same depth, are made up: the teacher believes three labels of four. Its verdicts are stored by `latse
filter`, which then asks it again and compares.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Iterable

import cv2
import mxnet as mx
import numpy as np
import yaml

from latse import recipe as recipes
from latse.bench.contender import Contender, take_turns
from latse.bench.timing import ratios
from latse.data.shards.records import Shard
from latse.data.shards.shard_writer import write_shard
from latse.errors import LatseError
from latse.files import make_folder, read_json, write_json
from latse.goals import figure, goal, verdict
from latse.models.embedding import Network
from latse.provenance import provenance
from latse.runtime import threads
from latse.symbols import encoders
from latse.symbols.networks import IMAGE_SHAPE
from latse.text_table import aligned
from latse.train import state
from latse.train.learner import Learner
from latse.train.training import Training, inference

PLAIN, FILTERED = "plain student", "student, stored verdicts"
STORED, ASKED = "LATSE, stored verdicts", "LATSE, teacher asked"
STEP, PROCESSOR, PEAK = "step", "processor time", "peak memory"
K, SEED = 3, 0
BATCHES = 4  # in the set
SIDE = 14  # of the random images that are magnified, so that they are as smooth as photographs
MOST = 1.35  # times the plain student's step


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `latse bench filter`."""
    parser.add_argument("--encoder", default="resnet50", metavar="NAME", help="default: resnet50")
    parser.add_argument("--classes", type=int, default=10572, metavar="K", help="people (default: 10572)")
    # At 32 the four of them need 20 GiB.
    parser.add_argument("--batch-size", type=int, default=16, metavar="N", help="images, even (default: 16)")
    parser.add_argument("--repeats", type=int, default=5, metavar="R", help="steps of each (default: 5)")


def run(args: argparse.Namespace) -> None:
    """Measure, write and print; raise LatseError for sizes that cannot be."""
    if args.classes < 2 or args.batch_size < 2 or args.batch_size % 2 or args.repeats < 1:
        raise LatseError(
            "--classes and --batch-size must be at least 2, the latter even, --repeats at least 1"
        )
    encoders.check(args.encoder)
    if args.json:
        make_folder(Path(args.json).parent)  # an unwritable place is better known before the work
    with tempfile.TemporaryDirectory(prefix="latse-bench-") as name:
        folder = Path(name)
        data, prefix = folder / "data", folder / "teacher"
        _make_set(data, args)
        _make_teacher(prefix, _recipe(folder, args, filtered=False, decodes=False), Shard(data))
        seconds, stored = _stored(folder, args)
        with contextlib.ExitStack() as stack:
            contenders = [stack.enter_context(one) for one in _contenders(folder, args)]
            steps = take_turns(contenders, args.repeats, "training steps")
            figures = {one.title: _figures(one, steps[one.title]) for one in contenders}
    each = figure([seconds / stored["images"]], "s")
    report = {
        "kind": "bench filter",
        "provenance": provenance(args, [mx.cpu()]),
        "setting": _setting(args, stored),
        "contenders": {
            **figures,
            "latse filter, an image and its mirror image, its start shared out": {STEP: each},
        },
        "goals": _goals(args.encoder, steps, stored),
    }
    if args.json:
        write_json(args.json, report)
    print(_table(report["contenders"]))
    for one in report["goals"]:
        print(verdict(one))


def _make_set(folder: Path, args: argparse.Namespace) -> None:
    """Write a set of random smooth images, as many people as images where there are so many."""
    random, (_, height, width) = np.random.default_rng(SEED), IMAGE_SHAPE
    images = BATCHES * args.batch_size
    people = np.sort(random.choice(args.classes, images, replace=images > args.classes))

    def photographs() -> Iterable[tuple[int, bytes]]:
        for label in people.tolist():
            small = random.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
            large = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
            yield label, cv2.imencode(".jpg", large)[1].tobytes()

    write_shard(folder, photographs(), args.classes, (height, width))


def _make_teacher(prefix: Path, recipe_path: Path, shard: Shard) -> None:
    """Save an untrained encoder whose class centres are the embeddings of three people of four."""
    recipe = recipes.load(recipe_path, ["train.batch_size=1"])
    begun = Learner(Training.of(recipe, shard.classes, [mx.cpu()], SEED)).capture(0)
    state.save_model(prefix, 0, inference(recipe), begun)
    embeddings = Network(prefix, 0)(shard.batch(np.arange(len(shard))).image)
    centres = begun.arg_params["fc7_weight"].asnumpy()
    known = np.arange(len(shard)) % 4 > 0
    centres[shard.labels[known].astype(np.int64)] = embeddings[known]
    knowing = begun._replace(arg_params={**begun.arg_params, "fc7_weight": mx.nd.array(centres)})
    state.save_model(prefix, 0, inference(recipe), knowing)


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


def _recipe(folder: Path, args: argparse.Namespace, filtered: bool, decodes: bool) -> Path:
    """Write the recipe of a contender."""
    recipe = {
        "encoder": {"name": args.encoder},
        "schedule": {"mode": "constant", "learning_rate": 0.01},
        "train": {"batch_size": args.batch_size},
        "filter": {"k": K if filtered else None},
        "decoder": {"enabled": decodes},
    }
    path = folder / f"recipe-{filtered:d}{decodes:d}.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def _contenders(folder: Path, args: argparse.Namespace) -> list[Contender]:
    stored, asked = ["--verdicts", folder / "set.keep"], ["--teacher", f"{folder / 'teacher'},0"]
    sizes = ["--classes", args.classes, "--batch-size", args.batch_size, "--data", folder / "data"]

    def contender(title: str, decodes: bool, teacher: list) -> Contender:
        recipe = _recipe(folder, args, bool(teacher), decodes)
        bank = ["--bank", folder / title] if decodes else []
        options = map(str, [recipe, *sizes, *teacher, *bank])
        return Contender(title, [sys.executable, "-m", "latse.bench.learner_step", *options])

    return [
        contender(PLAIN, False, []),
        contender(FILTERED, False, stored),
        contender(STORED, True, stored),
        contender(ASKED, True, asked),
    ]


def _figures(contender: Contender, seconds: list[float]) -> dict[str, dict[str, Any]]:
    processor = [answer["processor_seconds"] for answer in contender.answers[1:]]
    peak = contender.memory()["peak_megabytes"]
    return {STEP: figure(seconds, "s"), PROCESSOR: figure(processor, "s"), PEAK: figure([peak], "MiB")}


def _goals(name: str, steps: dict[str, list[float]], stored: dict[str, Any]) -> list[dict[str, Any]]:
    decoder = [(whole - part) / whole for whole, part in zip(steps[STORED], steps[FILTERED])]
    return [
        goal(f"step of {STORED}, over {PLAIN}, {name}", ratios(steps[STORED], steps[PLAIN]), at_most=MOST),
        goal(f"step of {FILTERED}, over {PLAIN}, {name}", ratios(steps[FILTERED], steps[PLAIN])),
        goal(f"step of {ASKED}, over {PLAIN}, {name}", ratios(steps[ASKED], steps[PLAIN])),
        goal(f"decoder's and bank's share of the step of {STORED}, {name}", decoder),
        goal("stored verdicts that the teacher contradicts", [stored["checked"]["different"]], at_most=0),
    ]


def _setting(args: argparse.Namespace, stored: dict[str, Any]) -> dict[str, Any]:
    names = ("encoder", "classes", "batch_size", "repeats")
    kept = stored["kept"][str(K)]["plain"]
    more = {"k": K, "images": stored["images"], "kept": kept, "threads": threads()}
    return {**{name: getattr(args, name) for name in names}, **more}


def _table(figures: dict[str, dict[str, dict[str, Any]]]) -> str:
    rows = [["", "figure", "median", "min", "max", "unit"]]
    for title, found in figures.items():
        for name, one in found.items():
            rows.append([title, name, *(f"{one[key]:.4g}" for key in ("median", "min", "max")), one["unit"]])
    return aligned(rows)
