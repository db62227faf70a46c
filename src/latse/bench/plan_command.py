"""`latse bench plan`: the memory plans of a recipe's training graph, ours and others, measured.

Rows are the graph as it is, dmlc's rule (`latse.bench.dmlc_rule`), our plan of the least memory, our plan of
the least memory within `TIME_RATIO` of the plain step's time and, where insightface's sources are at hand,
its own symbol as it is and with its own memonger. The searches run in a process that ends before anything is
measured, and each contender in one of its own, because what an executor leaves in the allocator's pool would
count as the next one's memory.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import math
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple, Sequence

import mxnet as mx
from yacs.config import CfgNode

from latse.bench import dmlc_rule, graph_step, insightface_step
from latse.bench.benchmark import SOURCES, Outcome, peer
from latse.bench.contender import Race, race, served
from latse.bench.timing import ratios
from latse.child import in_child
from latse.errors import LatseError
from latse.goals import Figure, Goal
from latse.graph.nodes import Shapes
from latse.models.parameters import needed_shapes
from latse.paper.plan_command import read_training
from latse.plan import memonger
from latse.symbols.networks import IMAGE_SHAPE

TIME_RATIO = 1.25
PLAIN, RULE, LEAST = "plain", "dmlc's rule", "ours, least memory"
TIMED = f"ours, least within {TIME_RATIO:g} times the time"
THEIRS = "insightface"
PLANNED, RESIDENT = "planned memory", "resident memory"
STEP, RATIO = "step", "time over plain"
PROCESSOR, PROCESSOR_RATIO = "processor time", "processor time over plain"  # whatever else the machine does
PLANNED_FALL, RESIDENT_FALL = "planned fall", "resident fall"

# For a guess at what a contender needs: resident memory per planned, and MiB of a process with MXNet in it.
RESIDENT_OVER_PLANNED, PROCESS = 1.5, 400
MEBIBYTE = 2**20
SEARCH = "the search for memory plans"


class Row(NamedTuple):
    """What is compared: a training graph, the MiB that its executor plans, and its plain graph.

    `baseline` is the title of the plain graph of the same network; `bound` and `predicted_ratio` are what our
    planner says of its own: MiB that no plan of the graph can do without, and its step's time over plain.
    """

    title: str
    symbol: mx.sym.Symbol
    megabytes: float
    baseline: str
    bound: float | None = None
    predicted_ratio: float | None = None


def measure(args: argparse.Namespace) -> Outcome:
    """Search the plans, then train with each, in turn."""
    training, _ = read_training(args)
    device = training.devices[0]
    if device.device_type != "cpu":
        raise LatseError(f"bench plan measures on the CPU, not on {device}: resident memory is the process's")
    if args.repeats < 2:
        raise LatseError(f"--repeats {args.repeats}: must be at least 2: memory is that after three steps")
    recipe, classes = training.recipe, training.classes
    symbol, shapes = graph = training.device_graph
    rows = in_child(SEARCH, our_rows, symbol, shapes)
    sources = peer(args.peers, SOURCES)
    if sources and is_insightfaces(recipe):
        rows += in_child(SEARCH, their_rows, sources, recipe.encoder.name, classes, graph.batch_size)
    parameters = 4 * sum(map(math.prod, needed_shapes(symbol, **shapes).values())) / MEBIBYTE
    # Beside activations a contender needs parameters, gradients and momenta.
    needed = (RESIDENT_OVER_PLANNED * row.megabytes + 3 * parameters + PROCESS for row in rows)
    at_once = sum(needed) < _available_megabytes()
    order = "all contenders were in memory at once and took turns"
    if not at_once:
        order = (
            "together the contenders would not have fitted into memory: "
            "they were measured one after the other"
        )
    figures = measured(rows, shapes, classes, args.repeats, at_once)
    setting = {
        "recipe": Path(args.recipe).stem,
        "encoder": recipe.encoder.name,
        "decoder": recipe.decoder.enabled,
        "filter": recipe.filter.k is not None,
        "classes": classes,
        "batch_size": graph.batch_size,
        "order": order,
    }
    return Outcome(figures, goals(rows, figures, recipe), setting, contexts=training.devices)


def our_rows(symbol: mx.sym.Symbol, shapes: Shapes) -> list[Row]:
    """Plan a training graph in all ways on the CPU; leaves memory in the process's pool."""
    graph = symbol, shapes, mx.cpu()
    least = memonger.plan(*graph, progress=True)
    timed = memonger.plan(*graph, budget=memonger.Time(TIME_RATIO), progress=True)
    rule = dmlc_rule.search(*graph, progress=True)
    ours = [
        Row(title, plan.symbol, plan.after_megabytes, PLAIN, plan.bound_megabytes, plan.predicted_time)
        for title, plan in ((LEAST, least), (TIMED, timed))
    ]
    plain = Row(PLAIN, symbol, least.before_megabytes, PLAIN)
    return [plain, Row(RULE, rule.symbol, rule.megabytes, PLAIN), *ours]


def their_rows(sources: Path, encoder: str, classes: int, batch_size: int) -> list[Row]:
    """Let insightface build its own training graph, as it is and with its memonger; once in a process.

    Its memonger binds on a GPU to see what a plan takes; here it is given the CPU in its place.
    """
    trainer, _ = insightface_step.modules(sources, encoder, classes)
    config = sys.modules["config"].config
    config.per_batch_size, config.image_shape = batch_size, (*IMAGE_SHAPE[1:], IMAGE_SHAPE[0])
    mx.gpu = mx.cpu
    shapes = {"data": (batch_size, *IMAGE_SHAPE), "softmax_label": (batch_size,)}
    rows = []
    for title, config.memonger in ((THEIRS, False), (f"{THEIRS}, its memonger", True)):
        with contextlib.redirect_stdout(io.StringIO()):
            symbol = insightface_step.training_symbol(trainer, batch_size)
        megabytes = memonger.planned_megabytes(symbol, shapes, mx.cpu())
        rows.append(Row(title, symbol, megabytes, THEIRS))
    return rows


def is_insightfaces(recipe: CfgNode) -> bool:
    """Tell whether insightface has the recipe's network: neither decoder nor filter, and its own depths."""
    is_teacher = not recipe.decoder.enabled and recipe.filter.k is None
    return is_teacher and recipe.encoder.name in insightface_step.LAYERS


def measured(
    rows: Sequence[Row], shapes: Shapes, classes: int, repeats: int, at_once: bool
) -> dict[str, dict[str, Figure]]:
    """Return the figures of each row by title; a row comes before those that are held against it.

    Of the inputs in `shapes` a graph is given those that it has, labels are below `classes`. `repeats` steps
    of each are measured, behind one that is not: all contenders live together and take turns if `at_once`,
    else one after the other.
    """
    took: dict[str, Race] = {}
    with tempfile.TemporaryDirectory(prefix="latse-compare-") as folder:
        commands = {}
        for row in rows:
            path, inputs = Path(folder, f"{row.title}-symbol.json"), row.symbol.list_arguments()
            row.symbol.save(str(path))
            own = {name: shape for name, shape in shapes.items() if name in inputs}
            commands[row.title] = served(graph_step.contender, path, own, classes)
        for group in [commands] if at_once else [{title: command} for title, command in commands.items()]:
            took.update(race(group, repeats, "compare"))
    figures: dict[str, dict[str, Figure]] = {}
    for row in rows:
        contender, plain = took[row.title], took[row.baseline]
        measures = figures[row.title] = {
            PLANNED: Figure.of([row.megabytes], "MiB"),
            RESIDENT: Figure.of([contender.memory["rise_megabytes"]], "MiB"),
            STEP: Figure.of(contender.seconds, "s"),
            RATIO: Figure.of(ratios(contender.seconds, plain.seconds)),
            PROCESSOR: Figure.of(contender.processor_seconds, "s"),
            PROCESSOR_RATIO: Figure.of(ratios(contender.processor_seconds, plain.processor_seconds)),
        }
        for fall, memory in ((PLANNED_FALL, PLANNED), (RESIDENT_FALL, RESIDENT)):
            was, now = figures[row.baseline][memory].median, measures[memory].median
            measures[fall] = Figure.of([100 * (1 - now / was) if was else 0.0], "%")
    return figures


def judged(figures: dict[str, dict[str, Figure]]) -> str:
    """Return which of our plans the goals are for: that of the least memory if its measured time allows it.

    A plan within a time keeps the predicted time, which another machine need not.
    """
    return LEAST if figures[LEAST][RATIO].median <= TIME_RATIO else TIMED


def goals(rows: Sequence[Row], figures: dict[str, dict[str, Figure]], recipe: CfgNode) -> list[Goal]:
    """Return what our plans save and cost, and the bounds that the judged one is to keep."""
    bounds: dict[str, dict[str, float]] = {RATIO: {"at_most": TIME_RATIO}}
    encoder = recipe.encoder.name
    if encoder == "resnet50":
        bounds[RESIDENT_FALL] = {"at_least": 45}
    if encoder in ("resnet100", "resnet124"):
        bounds[PLANNED_FALL] = {"at_least": 60}
    if (encoder, recipe.train.batch_size, recipe.decoder.enabled) == ("resnet50", 32, False):
        bounds[PLANNED] = {"at_most": 850}
    lines, ours = [], [row for row in rows if row.bound is not None]
    for row in ours:
        for name in (PLANNED_FALL, RESIDENT_FALL, PLANNED, RATIO, PROCESSOR_RATIO):
            bound = bounds.get(name, {}) if row.title == judged(figures) else {}
            lines.append(Goal(f"{name}, {row.title}", figures[row.title][name], **bound))
        lines.append(Goal.of(f"predicted {RATIO}, {row.title}", [row.predicted_ratio]))
    return [*lines, Goal.of("planned memory that no plan can do without", [ours[0].bound], unit="MiB")]


def _available_megabytes() -> float:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) / 1024
    return 0.0
