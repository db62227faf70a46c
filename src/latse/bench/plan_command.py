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
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Sequence

import mxnet as mx
from yacs.config import CfgNode

from latse.bench import dmlc_rule, graph_step, insightface_step
from latse.bench.benchmark import Benchmark, Outcome, add_peers, check_peers, count
from latse.bench.contender import Race, race, served
from latse.bench.timing import ratios
from latse.child import in_child
from latse.errors import LatseError
from latse.goals import Figure, Goal
from latse.graph.nodes import Shapes
from latse.models.parameters import needed_shapes
from latse.paper.plan_command import add_training_arguments, read_training
from latse.plan import memonger
from latse.symbols.networks import IMAGE_SHAPE

TIME_RATIO = 1.25
PLAIN, RULE, LEAST = "plain", "dmlc's rule", "ours, least memory"
TIMED = f"ours, least within {TIME_RATIO:g} times the time"
THEIRS, THEIR_PLAN = "insightface", "insightface, its memonger"
PLANNED, RESIDENT = "planned memory", "resident memory"
STEP, RATIO = "step", "time over plain"
PROCESSOR, PROCESSOR_RATIO = "processor time", "processor time over plain"  # whatever else the machine does
PLANNED_FALL, RESIDENT_FALL = "planned fall", "resident fall"

# What our plan is to save of the plain graph in `TIME_RATIO` of its time (see `judged`), in per cent: figure,
# encoders, at least.
GOALS = (
    (RESIDENT_FALL, ("resnet50",), 45),
    (PLANNED_FALL, ("resnet100", "resnet124"), 60),
)
# What it is to plan at most, in MiB, for this encoder, batch size and decoder or none.
LARGEST_PLAN, LARGEST_PLAN_OF = 850, ("resnet50", 32, False)

# For a guess at what a contender needs: resident memory per planned, and MiB of a process with MXNet in it.
RESIDENT_OVER_PLANNED, PROCESS = 1.5, 400
MEBIBYTE = 2**20
SEARCH = "the search for memory plans"
# Whether all contenders are in memory at once -> how they were measured.
ORDERS = {
    True: "all contenders were in memory at once and took turns",
    False: "together the contenders would not have fitted into memory: they were measured one after the "
    "other",
}


@dataclass(frozen=True)
class Row:
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


class PlanBenchmark(Benchmark):
    """A recipe's training graph, with plans and without, in turn."""

    kind = "plan compare"
    options = (count("repeats", 5, "measured steps"),)

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Declare the recipe, the options and the peers."""
        add_training_arguments(parser)
        super().add_arguments(parser)
        add_peers(
            parser,
            "insightface/, its sources, whose own symbol and memonger join in where they know the recipe's "
            "network",
        )

    def check(self) -> None:
        """Read the recipe; refuse GPUs, a single step and peers that are not there."""
        self.training, _ = read_training(self.args)
        device = self.training.devices[0]
        if device.device_type != "cpu":
            raise LatseError(
                f"bench plan measures on the CPU, not on {device}: resident memory is the process's"
            )
        if self.args.repeats < 2:
            raise LatseError(
                f"--repeats {self.args.repeats}: must be at least 2: memory is that after three steps"
            )
        check_peers(self.args.peers)
        self.contexts = self.training.devices

    def measure(self) -> Outcome:
        """Search the plans, then train with each."""
        args, recipe, classes = self.args, self.training.recipe, self.training.classes
        symbol, shapes = graph = self.training.device_graph
        rows = in_child(SEARCH, our_rows, symbol, shapes)
        sources = Path(args.peers or "", insightface_step.SOURCES)
        if args.peers and sources.is_dir() and is_insightfaces(recipe):
            rows += in_child(SEARCH, their_rows, sources, recipe.encoder.name, classes, graph.batch_size)
        parameters = 4 * sum(map(math.prod, needed_shapes(symbol, **shapes).values())) / MEBIBYTE
        at_once = sum(_guess(row, parameters) for row in rows) < _available_megabytes()
        figures = measured(rows, shapes, classes, args.repeats, at_once)
        setting = {
            "recipe": Path(args.recipe).stem,
            "encoder": recipe.encoder.name,
            "decoder": recipe.decoder.enabled,
            "filter": recipe.filter.k is not None,
            "classes": classes,
            "batch_size": graph.batch_size,
            "order": ORDERS[at_once],
        }
        return Outcome(figures, goals(rows, figures, recipe), setting)


add_arguments, run = PlanBenchmark.add_arguments, PlanBenchmark.run


def our_rows(symbol: mx.sym.Symbol, shapes: Shapes) -> list[Row]:
    """Plan a training graph in all ways on the CPU; leaves memory in the process's pool."""
    cpu = mx.cpu()
    least = memonger.plan(symbol, shapes, cpu, progress=True)
    timed = memonger.plan(symbol, shapes, cpu, budget=memonger.Time(TIME_RATIO), progress=True)
    rule = dmlc_rule.search(symbol, shapes, cpu, progress=True)
    return [
        Row(PLAIN, symbol, least.before_megabytes, PLAIN),
        Row(RULE, rule.symbol, rule.megabytes, PLAIN),
        *(
            Row(title, plan.symbol, plan.after_megabytes, PLAIN, plan.bound_megabytes, plan.predicted_time)
            for title, plan in ((LEAST, least), (TIMED, timed))
        ),
    ]


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
    for title, config.memonger in ((THEIRS, False), (THEIR_PLAN, True)):
        with contextlib.redirect_stdout(io.StringIO()):
            symbol = trainer.get_symbol(SimpleNamespace(per_batch_size=batch_size))
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
    """Return the figures of each row by title.

    Parameters
    ----------
    rows : sequence of Row
        Each before those that are held against it.
    shapes : mapping of str to tuple of int
        Of the inputs; a graph is given those that it has.
    classes : int
        Labels are drawn below it.
    repeats : int
        Measured steps of each, behind one that is not.
    at_once : bool
        Whether all contenders live together and take turns; else one after the other.
    """
    took: dict[str, Race] = {}
    with tempfile.TemporaryDirectory(prefix="latse-compare-") as folder:
        commands = {row.title: _command(row, shapes, classes, Path(folder, row.title)) for row in rows}
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
    lines, ours = [], judged(figures)
    setting = recipe.encoder.name, recipe.train.batch_size, recipe.decoder.enabled
    for row in (row for row in rows if row.bound is not None):
        bounds = {RATIO: {"at_most": TIME_RATIO}} if row.title == ours else {}
        if row.title == ours and setting == LARGEST_PLAN_OF:
            bounds[PLANNED] = {"at_most": LARGEST_PLAN}
        for name, encoders, least in GOALS if row.title == ours else ():
            if recipe.encoder.name in encoders:
                bounds[name] = {"at_least": least}
        for name in (PLANNED_FALL, RESIDENT_FALL, PLANNED, RATIO, PROCESSOR_RATIO):
            lines.append(Goal(f"{name}, {row.title}", figures[row.title][name], **bounds.get(name, {})))
        lines.append(Goal.of(f"predicted {RATIO}, {row.title}", [row.predicted_ratio]))
    bound = next(row.bound for row in rows if row.bound is not None)
    return [*lines, Goal.of("planned memory that no plan can do without", [bound], unit="MiB")]


def _command(row: Row, shapes: Shapes, classes: int, folder: Path) -> list[str]:
    """Write what a contender trains, and return its command."""
    folder.mkdir()
    path, inputs = folder / "graph-symbol.json", row.symbol.list_arguments()
    row.symbol.save(str(path))
    own = {name: shape for name, shape in shapes.items() if name in inputs}
    return served(graph_step.contender, path, own, classes)


def _guess(row: Row, parameters: float) -> float:
    """Return about as many MiB as a contender needs: activations; parameters, gradients and momenta."""
    return RESIDENT_OVER_PLANNED * row.megabytes + 3 * parameters + PROCESS


def _available_megabytes() -> float:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) / 1024
    return 0.0
