"""`latse bench train`: images per second and memory of one whole training step, contenders in turn.

Each is a process of its own: ours (`latse.train.learner.Learner`), ours with the memory plan, insightface's
MXNet trainer (its sources, or `latse.bench.equivalents`), PyTorch's IResNet in channels_last, and the
convolutions and dense layers alone (`latse.bench.roofline`). All train ArcFace (s = 64, m2 = 0.5) by SGD with
momentum on random images. Where our step's time goes is measured afterwards (`latse.bench.parts_step`).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import mxnet as mx

from latse import recipe as recipes
from latse.bench import equivalents, graph_step, insightface_step, learner_step, parts_step, roofline
from latse.bench.benchmark import Benchmark, Option, Outcome, add_peers, check_peers, count
from latse.bench.contender import Race, race, served
from latse.bench.insightface_step import LAYERS, SOURCES
from latse.bench.learner_step import STEADY
from latse.bench.timing import ratios
from latse.errors import LatseError
from latse.goals import Figure, Goal
from latse.symbols.networks import IMAGE_SHAPE
from latse.train.training import traced

OURS, PLANNED, PARTS = "ours", "ours, memory plan", "ours, part by part"
THEIRS, EQUIVALENT = "insightface's trainer", "equivalent of insightface's trainer"
TORCH, CONVOLUTIONS = "PyTorch, channels_last", "convolutions and dense layers alone"
RECIPE = "ms1mv2_arcface_r50_teacher"
IRESNET = Path("insightface", "recognition", "arcface_torch", "backbones", "iresnet.py")
SPEED, STEP, PROCESSOR = "speed", "step", "processor time"
PEAK, RISE, PLAN = "peak memory", "memory risen", "planned memory"
UNITS = {SPEED: "images/s", STEP: "s", PROCESSOR: "s", PEAK: "MiB", RISE: "MiB", PLAN: "MiB"}


class TrainBenchmark(Benchmark):
    """All contenders in turn, then our step by parts."""

    kind = "bench train"
    options = (
        count("classes", 10572, "people", least=2),
        count("batch-size", 32, "images"),
        count("repeats", 5, "steps of each"),
        Option("encoder", "resnet50", "network"),
        Option("torch-python", None, "default: torch/bin/python of the peers"),
    )

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Declare the options and the peers."""
        super().add_arguments(parser)
        add_peers(
            parser,
            "insightface/, its sources, and torch/, a virtual environment; without the first an equivalent "
            "stands in, without the second PyTorch is left out",
        )

    def check(self) -> None:
        """Refuse an unknown encoder and peers that are not there."""
        equivalents.resnet(self.args.encoder)
        check_peers(self.args.peers)
        if self.args.torch_python and not Path(self.args.torch_python).is_file():
            raise LatseError(f"--torch-python {self.args.torch_python}: there is no such file")

    def measure(self) -> Outcome:
        """Train the same network everywhere."""
        args = self.args
        with tempfile.TemporaryDirectory(prefix="latse-bench-") as folder:
            ours = RECIPE, args.classes, args.batch_size, [f"encoder.name={args.encoder}", *STEADY]
            commands = _commands(args, ours, _planned(ours, Path(folder)))
            races = race(commands, args.repeats, "training steps")
            parts = race({PARTS: served(parts_step.contender, *ours)}, args.repeats, PARTS)[PARTS]
        figures = {title: _figures(raced, args.batch_size) for title, raced in races.items()}
        for name in (SPEED, PROCESSOR):  # alone they learn nothing, and more is run than counts
            del figures[CONVOLUTIONS][name]
        remarks = []
        if EQUIVALENT in figures:
            remarks.append(
                f"insightface's own trainer is left out: no {SOURCES} that knows this encoder is given"
            )
        if TORCH not in figures:
            remarks.append("PyTorch is left out: no torch/bin/python is given")
        seconds = {title: raced.seconds for title, raced in races.items()}
        setting = {"encoder": args.encoder, "images": list(IMAGE_SHAPE), "contenders": list(figures)}
        goals = _goals(args.encoder, seconds, figures)
        return Outcome({**figures, **_parts(parts)}, goals, setting, remarks)


add_arguments, run = TrainBenchmark.add_arguments, TrainBenchmark.run


def _commands(args: argparse.Namespace, ours: tuple, planned: Path) -> dict[str, list[str]]:
    """Return title -> command of the contenders that there are."""
    network = args.encoder, args.classes, args.batch_size
    sources = _sources(args)
    commands = {
        OURS: served(learner_step.contender, *ours),
        PLANNED: served(learner_step.contender, *ours, symbol=planned),
        THEIRS if sources else EQUIVALENT: served(
            insightface_step.contender, *network, graph_step.LEARNING_RATE, sources and str(sources)
        ),
    }
    python = _torch_python(args)
    if python:
        resnet, iresnet = equivalents.resnet(args.encoder), Path(args.peers or "", IRESNET)
        options = {
            "units": json.dumps(resnet.units),
            "widths": json.dumps(resnet.widths),
            "classes": args.classes,
            "batch-size": args.batch_size,
            "learning-rate": graph_step.LEARNING_RATE,
            **({"iresnet": iresnet} if args.peers and iresnet.is_file() else {}),
        }
        words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
        commands[TORCH] = [str(python), str(Path(__file__).with_name("torch_step.py")), *words]
    return {**commands, CONVOLUTIONS: served(roofline.contender, *network)}


def _sources(args: argparse.Namespace) -> Path | None:
    """Return the folder of insightface's trainer if it is given and knows the encoder."""
    sources = Path(args.peers or "", SOURCES)
    return sources if args.peers and sources.is_dir() and args.encoder in LAYERS else None


def _torch_python(args: argparse.Namespace) -> Path | None:
    if args.torch_python:
        return Path(args.torch_python)
    python = Path(args.peers or "", "torch", "bin", "python")
    return python if args.peers and python.exists() else None


def _planned(ours: tuple, folder: Path) -> Path:
    """Write the training graph with the memory plan that needs least."""
    recipe, classes, batch_size, changes = ours
    path = folder / "planned-symbol.json"
    traced(recipes.load(recipe, changes), classes, batch_size).planned(mx.cpu()).symbol.save(str(path))
    return path


def _figures(raced: Race, batch_size: int) -> dict[str, Figure]:
    values = {
        SPEED: [batch_size / spent for spent in raced.seconds],
        STEP: raced.seconds,
        PROCESSOR: raced.processor_seconds,
        PLAN: [raced.facts["planned_megabytes"]],
        PEAK: [raced.memory["peak_megabytes"]],
        RISE: [raced.memory["rise_megabytes"]],
    }
    return {name: Figure.of(each, UNITS[name]) for name, each in values.items() if each != [None]}


def _parts(raced: Race) -> dict[str, dict[str, Figure]]:
    """Return title -> time of each part of our step, without the first one."""
    rounds = [answer["parts"] for answer in raced.answers]
    return {
        f"part of ours: {part}": {STEP: Figure.of([parts[part] for parts in rounds], UNITS[STEP])}
        for part in rounds[0]
    }


def _goals(name: str, seconds: dict[str, list[float]], figures: dict[str, dict[str, Figure]]) -> list[Goal]:
    """Return the goals; with the memory plan speed and memory are information."""
    theirs = THEIRS if THEIRS in seconds else EQUIVALENT
    bounds = {theirs: 1.6, TORCH: 1.1}
    goals = [
        Goal.of(
            f"images/s of {ours} over {other}, {name}",
            ratios(seconds[other], seconds[ours]),
            at_least=bounds[other] if ours == OURS else None,
        )
        for ours in (OURS, PLANNED)
        for other in bounds
        if other in seconds
    ]
    for ours, bound in ((OURS, 1.0), (PLANNED, None)):
        share = figures[ours][PEAK].median / figures[theirs][PEAK].median
        goals.append(Goal.of(f"peak memory of {ours} over {theirs}, {name}", [share], at_most=bound))
    share = ratios(seconds[CONVOLUTIONS], seconds[OURS])
    goals.append(Goal.of(f"share of a step of ours that {CONVOLUTIONS} take, {name}", share, at_least=0.88))
    return goals
