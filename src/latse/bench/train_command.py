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
from latse.bench.benchmark import SOURCES, Outcome, peer
from latse.bench.contender import Race, race, served
from latse.bench.insightface_step import LAYERS
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
SPEED, STEP, PROCESSOR, PEAK = "speed", "step", "processor time", "peak memory"


def measure(args: argparse.Namespace) -> Outcome:
    """Train the same network everywhere, in turn, then our step by parts."""
    equivalents.resnet(args.encoder)
    if args.torch_python and not Path(args.torch_python).is_file():
        raise LatseError(f"--torch-python {args.torch_python}: there is no such file")
    with tempfile.TemporaryDirectory(prefix="latse-bench-") as folder:
        sizes, changes = (args.classes, args.batch_size), [f"encoder.name={args.encoder}", *STEADY]
        ours, planned = (RECIPE, *sizes, changes), Path(folder, "planned-symbol.json")
        plan = traced(recipes.load(RECIPE, changes), *sizes).planned(mx.cpu())  # the one that needs least
        plan.symbol.save(str(planned))
        races = race(_commands(args, ours, planned), args.repeats, "training steps")
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
    rounds = [answer["parts"] for answer in parts.answers]
    for part in rounds[0]:
        figures[f"part of ours: {part}"] = {STEP: Figure.of([took[part] for took in rounds], "s")}
    return Outcome(figures, goals, setting, remarks, contexts=[mx.cpu()])


def _commands(args: argparse.Namespace, ours: tuple, planned: Path) -> dict[str, list[str]]:
    """Return title -> command of the contenders that there are."""
    network = args.encoder, args.classes, args.batch_size
    sources = peer(args.peers, SOURCES) if args.encoder in LAYERS else None
    theirs = served(insightface_step.contender, *network, sources)
    commands = {
        OURS: served(learner_step.contender, *ours),
        PLANNED: served(learner_step.contender, *ours, symbol=planned),
        THEIRS if sources else EQUIVALENT: theirs,
    }
    python = args.torch_python or peer(args.peers, Path("torch", "bin", "python"))
    if python:
        resnet, iresnet = equivalents.resnet(args.encoder), peer(args.peers, IRESNET)
        script, sizes = Path(__file__).with_name("torch_step.py"), (args.classes, args.batch_size)
        built = resnet.units, resnet.widths, iresnet and str(iresnet), *sizes, graph_step.LEARNING_RATE
        commands[TORCH] = [str(python), str(script), json.dumps(built)]
    return {**commands, CONVOLUTIONS: served(roofline.contender, *network)}


def _figures(raced: Race, batch_size: int) -> dict[str, Figure]:
    memory = {
        "planned memory": raced.facts["planned_megabytes"],
        PEAK: raced.memory["peak_megabytes"],
        "memory risen": raced.memory["rise_megabytes"],
    }
    return {
        SPEED: Figure.of([batch_size / spent for spent in raced.seconds], "images/s"),
        STEP: Figure.of(raced.seconds, "s"),
        PROCESSOR: Figure.of(raced.processor_seconds, "s"),
        **{name: Figure.of([value], "MiB") for name, value in memory.items() if value is not None},
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
