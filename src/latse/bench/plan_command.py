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
import json
import math
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Sequence

import mxnet as mx
from yacs.config import CfgNode

from latse.bench import dmlc_rule, insightface_step
from latse.bench.contender import Contender, graph_command, take_turns
from latse.bench.timing import ratios
from latse.child import in_child
from latse.errors import LatseError
from latse.files import make_folder, write_json
from latse.goals import figure, goal, verdict
from latse.models.parameters import needed_shapes
from latse.paper.plan_command import add_training_arguments, read_training
from latse.plan import memonger
from latse.provenance import provenance
from latse.runtime import threads
from latse.symbols.networks import IMAGE_SHAPE
from latse.text_table import aligned
from latse.train.training import Training

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


@dataclass(frozen=True)
class Row:
    """What is compared: a training graph as JSON, the MiB that its executor plans, and its plain graph.

    `baseline` is the title of the plain graph of the same network; `bound` and `predicted_ratio` are what our
    planner says of its own: MiB that no plan of the graph can do without, and its step's time over plain.
    """

    title: str
    symbol: str
    megabytes: float
    baseline: str
    bound: float | None = None
    predicted_ratio: float | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `latse bench plan`."""
    add_training_arguments(parser)
    parser.add_argument("--repeats", type=int, default=5, metavar="R", help="measured steps (default: 5)")
    parser.add_argument(
        "--peers",
        metavar="FOLDER",
        default=os.environ.get("PEERS"),
        help="holds insightface/, its sources, whose own symbol and memonger join in where "
        "they know the recipe's network (default: PEERS of the environment)",
    )


def run(args: argparse.Namespace) -> None:
    """Plan, measure, print and write.

    Raises
    ------
    LatseError
        For a device that is no CPU, fewer than two repeats, peers that are not there, or a graph that does
        not fit into the machine's memory.
    """
    training, _ = read_training(args)
    _check(args, training.devices[0])
    recipe, classes = training.recipe, training.classes
    symbol, shapes = training.device_graph
    rows = in_child(SEARCH, our_rows, symbol.tojson(), shapes)
    sources = Path(args.peers or "", insightface_step.SOURCES)
    if args.peers and sources.is_dir() and is_insightfaces(recipe):
        rows += in_child(SEARCH, their_rows, sources, recipe.encoder.name, classes, shapes["data"][0])
    parameters = 4 * sum(map(math.prod, needed_shapes(symbol, **shapes).values())) / MEBIBYTE
    at_once = sum(_guess(row, parameters) for row in rows) < _available_megabytes()
    figures = measured(rows, shapes, classes, args.repeats, at_once)
    report = {
        "kind": "plan compare",
        "provenance": provenance(args, training.devices),
        "setting": _setting(args, training, at_once),
        "contenders": figures,
        "goals": goals(rows, figures, recipe),
    }
    if args.json:
        write_json(args.json, report)
    print(table(figures))
    print(_order(at_once))
    for one in report["goals"]:
        print(verdict(one))


def our_rows(symbol_json: str, shapes: dict[str, tuple[int, ...]]) -> list[Row]:
    """Plan a training graph in all ways on the CPU; leaves memory in the process's pool."""
    symbol, cpu = mx.sym.load_json(symbol_json), mx.cpu()
    least = memonger.plan(symbol, shapes, cpu, progress=True)
    timed = memonger.plan(symbol, shapes, cpu, budget=memonger.Time(TIME_RATIO), progress=True)
    rule = dmlc_rule.search(symbol, shapes, cpu, progress=True)
    return [
        Row(PLAIN, symbol_json, least.before_megabytes, PLAIN),
        Row(RULE, rule.symbol.tojson(), rule.megabytes, PLAIN),
        *(
            Row(
                title,
                plan.symbol.tojson(),
                plan.after_megabytes,
                PLAIN,
                plan.bound_megabytes,
                plan.predicted_time,
            )
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
        rows.append(Row(title, symbol.tojson(), megabytes, THEIRS))
    return rows


def is_insightfaces(recipe: CfgNode) -> bool:
    """Tell whether insightface has the recipe's network: neither decoder nor filter, and its own depths."""
    is_teacher = not recipe.decoder.enabled and recipe.filter.k is None
    return is_teacher and recipe.encoder.name in insightface_step.LAYERS


def measured(
    rows: Sequence[Row], shapes: dict[str, tuple[int, ...]], classes: int, repeats: int, at_once: bool
) -> dict[str, dict[str, Any]]:
    """Return the figures of each row by title, as JSON holds them.

    Parameters
    ----------
    rows
        Each before those that are held against it.
    shapes
        Of the inputs; a graph is given those that it has.
    classes
        Labels are drawn below it.
    repeats
        Measured steps of each, behind one that is not.
    at_once
        Whether all contenders live together and take turns; else one after the other.
    """
    seconds: dict[str, list[float]] = {}
    processor: dict[str, list[float]] = {}
    resident: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="latse-compare-") as folder:
        contenders = [_contender(row, shapes, classes, Path(folder, str(n))) for n, row in enumerate(rows)]
        for group in [contenders] if at_once else [[one] for one in contenders]:
            with contextlib.ExitStack() as stack:
                ready = [stack.enter_context(one) for one in group]
                seconds.update(take_turns(ready, repeats, "compare"))
                for one in ready:
                    processor[one.title] = [answer["processor_seconds"] for answer in one.answers[1:]]
                    resident[one.title] = one.memory()["rise_megabytes"]
    figures: dict[str, dict[str, Any]] = {}
    for row in rows:
        figures[row.title] = {
            PLANNED: figure([row.megabytes], "MiB"),
            RESIDENT: figure([resident[row.title]], "MiB"),
            STEP: figure(seconds[row.title], "s"),
            RATIO: figure(ratios(seconds[row.title], seconds[row.baseline])),
            PROCESSOR: figure(processor[row.title], "s"),
            PROCESSOR_RATIO: figure(ratios(processor[row.title], processor[row.baseline])),
        }
        plain = figures[row.baseline]
        for fall, memory in ((PLANNED_FALL, PLANNED), (RESIDENT_FALL, RESIDENT)):
            was, now = plain[memory]["median"], figures[row.title][memory]["median"]
            figures[row.title][fall] = figure([100 * (1 - now / was) if was else 0.0], "%")
    return figures


def judged(figures: dict[str, dict[str, Any]]) -> str:
    """Return which of our plans the goals are for: that of the least memory if its measured time allows it.

    A plan within a time keeps the predicted time, which another machine need not.
    """
    return LEAST if figures[LEAST][RATIO]["median"] <= TIME_RATIO else TIMED


def goals(rows: Sequence[Row], figures: dict[str, dict[str, Any]], recipe: CfgNode) -> list[dict[str, Any]]:
    """Return what our plans save and cost, and the bounds that the judged one is to keep."""
    found, ours = [], judged(figures)
    setting = recipe.encoder.name, recipe.train.batch_size, recipe.decoder.enabled
    for row in (row for row in rows if row.bound is not None):
        for name in (PLANNED_FALL, RESIDENT_FALL):
            wanted = [
                least for of, encoders, least in GOALS if of == name and recipe.encoder.name in encoders
            ]
            bound = {"at_least": wanted[0]} if wanted and row.title == ours else {}
            values = figures[row.title][name]["values"]
            found.append(goal(f"{name}, {row.title}", values, unit="%", **bound))
        limit = {"at_most": LARGEST_PLAN} if row.title == ours and setting == LARGEST_PLAN_OF else {}
        found.append(goal(f"{PLANNED}, {row.title}", [row.megabytes], unit="MiB", **limit))
        limit = {"at_most": TIME_RATIO} if row.title == ours else {}
        found.append(goal(f"{RATIO}, {row.title}", figures[row.title][RATIO]["values"], **limit))
        found.append(goal(f"{PROCESSOR_RATIO}, {row.title}", figures[row.title][PROCESSOR_RATIO]["values"]))
        found.append(goal(f"predicted {RATIO}, {row.title}", [row.predicted_ratio]))
    bound = next(row.bound for row in rows if row.bound is not None)
    return [*found, goal("planned memory that no plan can do without", [bound], unit="MiB")]


def table(figures: dict[str, dict[str, Any]]) -> str:
    """Lay out the figures, a row for each contender."""
    columns = ["planned MiB", "fall", "resident MiB", "fall", "step s, median", "(min to max)", "over plain"]
    rows = [["", *columns, "processor s", "over plain"]]
    for title, found in figures.items():
        step = found[STEP]
        rows.append(
            [
                title,
                f"{found[PLANNED]['median']:.0f}",
                f"{found[PLANNED_FALL]['median']:.0f} %",
                f"{found[RESIDENT]['median']:.0f}",
                f"{found[RESIDENT_FALL]['median']:.0f} %",
                f"{step['median']:.3f}",
                f"({step['min']:.3f} to {step['max']:.3f})",
                f"{found[RATIO]['median']:.2f}",
                f"{found[PROCESSOR]['median']:.3f}",
                f"{found[PROCESSOR_RATIO]['median']:.2f}",
            ]
        )
    return aligned(rows)


def _check(args: argparse.Namespace, device: mx.Context) -> None:
    if device.device_type != "cpu":
        raise LatseError(f"bench plan measures on the CPU, not on {device}: resident memory is the process's")
    if args.repeats < 2:
        raise LatseError(f"--repeats {args.repeats}: must be at least 2: memory is that after three steps")
    if args.peers and not Path(args.peers).is_dir():
        raise LatseError(f"--peers {args.peers}: there is no such folder")
    if args.json:
        make_folder(Path(args.json).parent)  # an unwritable place is better known before the work


def _contender(row: Row, shapes: dict[str, tuple[int, ...]], classes: int, folder: Path) -> Contender:
    folder.mkdir()
    symbol, sizes = folder / "graph-symbol.json", folder / "shapes.json"
    symbol.write_text(row.symbol)
    inputs = mx.sym.load_json(row.symbol).list_arguments()
    sizes.write_text(json.dumps({name: shape for name, shape in shapes.items() if name in inputs}))
    return Contender(row.title, graph_command(symbol, sizes, classes))


def _guess(row: Row, parameters: float) -> float:
    """Return about as many MiB as a contender needs: activations; parameters, gradients and momenta."""
    return RESIDENT_OVER_PLANNED * row.megabytes + 3 * parameters + PROCESS


def _available_megabytes() -> float:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) / 1024
    return 0.0


def _order(at_once: bool) -> str:
    """Say how the contenders were measured."""
    if at_once:
        return "all contenders were in memory at once and took turns"
    return "together the contenders would not have fitted into memory: they were measured one after the other"


def _setting(args: argparse.Namespace, training: Training, at_once: bool) -> dict[str, Any]:
    recipe = training.recipe
    return {
        "recipe": Path(args.recipe).stem,
        "encoder": recipe.encoder.name,
        "decoder": recipe.decoder.enabled,
        "filter": recipe.filter.k is not None,
        "classes": training.classes,
        "batch_size": training.device_graph.batch_size,
        "repeats": args.repeats,
        "order": _order(at_once),
        "threads": threads(),
    }
