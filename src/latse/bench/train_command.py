"""`latse bench train`: images per second and memory of one whole training step, contenders in turn.

Each is a process of its own: ours (`latse.train.learner.Learner`), ours with the memory plan, insightface's
MXNet trainer (its sources, or `latse.bench.equivalents`), PyTorch's IResNet in channels_last, and the
convolutions and dense layers alone (`latse.bench.roofline`). All train ArcFace (s = 64, m2 = 0.5) by SGD with
momentum on random images. Where our step's time goes is measured afterwards (`latse.bench.parts_step`).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any, Sequence

import mxnet as mx
import yaml

from latse import recipe as recipes
from latse.bench import equivalents
from latse.bench.contender import Contender, take_turns
from latse.bench.insightface_step import LAYERS, SOURCES
from latse.bench.timing import ratios
from latse.errors import LatseError
from latse.files import make_folder, write_json
from latse.goals import figure, goal, verdict
from latse.provenance import provenance
from latse.runtime import threads
from latse.symbols.networks import IMAGE_SHAPE
from latse.text_table import NOTHING, aligned
from latse.train.training import traced

OURS, PLANNED, PARTS = "ours", "ours, memory plan", "ours, part by part"
THEIRS, EQUIVALENT = "insightface's trainer", "equivalent of insightface's trainer"
TORCH, CONVOLUTIONS = "PyTorch, channels_last", "convolutions and dense layers alone"
LEARNING_RATE = 0.01  # of all: it must not drive anybody's loss to infinity
IRESNET = Path("insightface", "recognition", "arcface_torch", "backbones", "iresnet.py")
SPEED, STEP, PROCESSOR = "speed", "step", "processor time"
PEAK, RISE, PLAN = "peak memory", "memory risen", "planned memory"
UNITS = {SPEED: "images/s", STEP: "s", PROCESSOR: "s", PEAK: "MiB", RISE: "MiB", PLAN: "MiB"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `latse bench train`."""
    parser.add_argument("--encoder", default="resnet50", metavar="NAME", help="default: resnet50")
    parser.add_argument("--classes", type=int, default=10572, metavar="K", help="people (default: 10572)")
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="images (default: 32)")
    parser.add_argument("--repeats", type=int, default=5, metavar="R", help="steps of each (default: 5)")
    parser.add_argument(
        "--peers",
        metavar="FOLDER",
        default=os.environ.get("PEERS"),
        help="holds insightface/, its sources, and torch/, a virtual environment (default: PEERS of the "
        "environment); without the first an equivalent stands in, without the second PyTorch is left out",
    )
    parser.add_argument("--torch-python", metavar="FILE", help="default: torch/bin/python of the peers")


def run(args: argparse.Namespace) -> None:
    """Measure all contenders in turn, then our step by parts; write and print figures and goals."""
    _check(args)
    if args.json:
        make_folder(Path(args.json).parent)  # an unwritable place is better known before the work
    with tempfile.TemporaryDirectory(prefix="latse-bench-") as folder:
        ours = _learner_options(args, Path(folder))
        commands = _commands(args, ours, _planned(args, Path(folder)))
        with contextlib.ExitStack() as stack:
            contenders = [stack.enter_context(Contender(*named)) for named in commands.items()]
            seconds = take_turns(contenders, args.repeats, "training steps")
            figures = {one.title: _figures(one, seconds[one.title], args.batch_size) for one in contenders}
            memory = {one.title: one.memory() for one in contenders}
        with Contender(PARTS, _module("parts_step", *ours)) as contender:
            take_turns([contender], args.repeats, PARTS)
            parts = _parts(contender)
    for title, found in memory.items():
        _add_memory(figures[title], found)
    for name in (SPEED, PROCESSOR):  # alone they learn nothing, and more is run than counts
        del figures[CONVOLUTIONS][name]
    report = {
        "kind": "bench train",
        "provenance": provenance(args, [mx.cpu()]),
        "setting": _setting(args, list(seconds)),
        "contenders": {**figures, **parts},
        "goals": _goals(args.encoder, seconds, figures),
    }
    if args.json:
        write_json(args.json, report)
    _show(report)


def _check(args: argparse.Namespace) -> None:
    if args.classes < 2 or args.batch_size < 1 or args.repeats < 1:
        raise LatseError("--classes must be at least 2, --batch-size and --repeats at least 1")
    equivalents.resnet(args.encoder)
    if args.peers and not Path(args.peers).is_dir():
        raise LatseError(f"--peers {args.peers}: there is no such folder")
    if args.torch_python and not Path(args.torch_python).is_file():
        raise LatseError(f"--torch-python {args.torch_python}: there is no such file")


def _commands(args: argparse.Namespace, ours: list[str], planned: Path) -> dict[str, list[str]]:
    """Return title -> command of the contenders that there are."""
    sizes = ["--classes", str(args.classes), "--batch-size", str(args.batch_size)]
    rate = ["--learning-rate", str(LEARNING_RATE)]
    named = ["--encoder", args.encoder]
    sources = _sources(args)
    theirs = ["--sources", str(sources)] if sources else []
    commands = {
        OURS: _module("learner_step", *ours),
        PLANNED: _module("learner_step", *ours, "--symbol", str(planned)),
        THEIRS if sources else EQUIVALENT: _module("insightface_step", *theirs, *named, *sizes, *rate),
    }
    python = _torch_python(args)
    if python:
        resnet = equivalents.resnet(args.encoder)
        layout = ["--units", json.dumps(resnet.units), "--widths", json.dumps(resnet.widths)]
        iresnet = Path(args.peers or "", IRESNET)
        own = ["--iresnet", str(iresnet)] if args.peers and iresnet.is_file() else []
        script = Path(__file__).with_name("torch_step.py")
        commands[TORCH] = [str(python), str(script), *layout, *own, *sizes, *rate]
    return {**commands, CONVOLUTIONS: _module("roofline", *named, *sizes)}


def _module(name: str, *options: str) -> list[str]:
    return [sys.executable, "-m", f"latse.bench.{name}", *options]


def _sources(args: argparse.Namespace) -> Path | None:
    """Return the folder of insightface's trainer if it is given and knows the encoder."""
    sources = Path(args.peers or "", SOURCES)
    return sources if args.peers and sources.is_dir() and args.encoder in LAYERS else None


def _torch_python(args: argparse.Namespace) -> Path | None:
    if args.torch_python:
        return Path(args.torch_python)
    python = Path(args.peers or "", "torch", "bin", "python")
    return python if args.peers and python.exists() else None


def _learner_options(args: argparse.Namespace, folder: Path) -> list[str]:
    """Write the recipe of ours and return the options of its contender."""
    recipe = {
        "encoder": {"name": args.encoder},
        "margin": {"name": "arcface"},
        "schedule": {"mode": "constant", "learning_rate": LEARNING_RATE},
        "train": {"batch_size": args.batch_size},
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return [str(path), "--classes", str(args.classes), "--batch-size", str(args.batch_size)]


def _planned(args: argparse.Namespace, folder: Path) -> Path:
    """Write the training graph with the memory plan that needs least."""
    recipe = recipes.load(folder / "recipe.yaml")
    graph = traced(recipe, args.classes, args.batch_size)
    path = folder / "planned-symbol.json"
    path.write_text(graph.planned(mx.cpu()).symbol.tojson())
    return path


def _figures(contender: Contender, seconds: Sequence[float], batch_size: int) -> dict[str, dict[str, Any]]:
    processor = [answer["processor_seconds"] for answer in contender.answers[1:]]
    measured = {SPEED: [batch_size / one for one in seconds], STEP: seconds, PROCESSOR: processor}
    figures = {name: figure(values, UNITS[name]) for name, values in measured.items()}
    return {**figures, **_plan(contender)}


def _plan(contender: Contender) -> dict[str, dict[str, Any]]:
    planned = contender.facts["planned_megabytes"]
    return {} if planned is None else {PLAN: figure([planned], UNITS[PLAN])}


def _add_memory(figures: dict[str, dict[str, Any]], memory: dict[str, float]) -> None:
    figures[PEAK] = figure([memory["peak_megabytes"]], UNITS[PEAK])
    figures[RISE] = figure([memory["rise_megabytes"]], UNITS[RISE])


def _parts(contender: Contender) -> dict[str, dict[str, Any]]:
    """Return title -> time of each part of our step, without the first one."""
    rounds = [answer["parts"] for answer in contender.answers[1:]]
    return {
        f"part of ours: {part}": {STEP: figure([one[part] for one in rounds], UNITS[STEP])}
        for part in rounds[0]
    }


def _goals(
    name: str, seconds: dict[str, list[float]], figures: dict[str, dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return the goals; with the memory plan speed and memory are information."""
    theirs = THEIRS if THEIRS in seconds else EQUIVALENT
    bounds = {theirs: 1.6, TORCH: 1.1}
    goals = [
        goal(
            f"images/s of {one} over {other}, {name}",
            ratios(seconds[other], seconds[one]),
            at_least=bounds[other] if one == OURS else None,
        )
        for one in (OURS, PLANNED)
        for other in bounds
        if other in seconds
    ]
    for one, bound in ((OURS, 1.0), (PLANNED, None)):
        share = figures[one][PEAK]["median"] / figures[theirs][PEAK]["median"]
        goals.append(goal(f"peak memory of {one} over {theirs}, {name}", [share], at_most=bound))
    share = ratios(seconds[CONVOLUTIONS], seconds[OURS])
    goals.append(goal(f"share of a step of ours that {CONVOLUTIONS} take, {name}", share, at_least=0.88))
    return goals


def _setting(args: argparse.Namespace, titles: Sequence[str]) -> dict[str, Any]:
    names = ("encoder", "classes", "batch_size", "repeats")
    setting = {name: getattr(args, name) for name in names}
    return {**setting, "images": list(IMAGE_SHAPE), "contenders": list(titles), "threads": threads()}


def _show(report: dict[str, Any]) -> None:
    setting, figures = report["setting"], report["contenders"]
    sizes = "{classes} people, batch {batch_size}, {threads} thread(s)".format(**setting)
    print(f"{setting['encoder']} with ArcFace, {sizes}")
    rows = [["", *(f"{name}, {unit}" for name, unit in UNITS.items())]]
    rows += [[title, *(_cell(found.get(name)) for name in UNITS)] for title, found in figures.items()]
    print(aligned(rows))
    if EQUIVALENT in figures:
        print(f"insightface's own trainer is left out: no {SOURCES} that knows this encoder is given")
    if TORCH not in figures:
        print("PyTorch is left out: no torch/bin/python is given")
    for one in report["goals"]:
        print(verdict(one))


def _cell(found: dict[str, Any] | None) -> str:
    if found is None:
        return NOTHING
    median, least, most = (f"{found[key]:.4g}" for key in ("median", "min", "max"))
    return median if least == most else f"{median} ({least} to {most})"
