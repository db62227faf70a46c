"""The sub-command `latse plan`: a dry run of a recipe, with the memory plan of its training graph."""

from __future__ import annotations

import argparse
import math
import shlex
from pathlib import Path
from typing import Any, Iterator

from latse import recipe as recipes
from latse.data.shards.recordio import LARGEST_EXACT
from latse.data.shards.records import Shard
from latse.devices import contexts
from latse.errors import LatseError, check_range
from latse.files import write_json
from latse.goals import Figure, Goal
from latse.paper.dry_run import DryRun, dry_run
from latse.paper.plan_arguments import PAPERS_LIMIT, PAPERS_SETTING
from latse.plan import memonger
from latse.provenance import provenance
from latse.train.training import Training


def read_training(
    args: argparse.Namespace, most: int = LARGEST_EXACT, workers: int = 1
) -> tuple[Training, int | None]:
    """Return what would be trained, and on how many images where that is known.

    `most` is the largest number of people; `workers` share the batch. Raises LatseError for bad input.
    """
    recipe = recipes.load(args.recipe, args.set, {"--batch-size": ("train.batch_size", args.batch_size)})
    devices = contexts(args)
    shard = None if args.data is None else Shard(args.data)
    classes = args.classes if shard is None else shard.classes
    check_range("--classes" if shard is None else f"{args.data}: the number of people", classes, 2, most)
    training = Training.of(recipe, classes, devices, workers=workers)
    return training, None if shard is None else len(shard)


def run(args: argparse.Namespace) -> None:
    """Plan the recipe's training graph for one device and write it; raise LatseError for bad input."""
    training, images = read_training(args)
    if args.images is not None:
        if images is not None:
            raise LatseError("--images and --data exclude each other: the shard has its number of images")
        check_range("--images", args.images, 1)
        images = args.images
    planned = dry_run(training, images, budget_of(args), progress=True)
    origin = provenance(args, training.devices)
    out = Path(args.out or Path("out", "plan", f"{Path(args.recipe).stem}-plan.json"))
    memonger.write_plan(out, planned.plan, origin)
    if args.json:
        content = {
            "kind": "plan",
            "provenance": origin,
            "unit": "MiB on one device; before and after the memory plan: activations only",
            **planned.as_json(),
            "classes": training.classes,
            "recipe": Path(args.recipe).stem,
            "settings": recipes.as_dict(training.recipe),
            **figures(planned),
        }
        write_json(args.json, content)
    print(*_in_words(planned), f"memory plan: {out}; {_use(training, out)}", sep="\n")


def budget_of(args: argparse.Namespace) -> memonger.Budget:
    """Return the budget that `--memory` or `--time` gives."""
    if args.time is not None:
        return memonger.Time(args.time)
    return None if args.memory is None else memonger.Memory(args.memory)


def comparison(plan: memonger.Plan, where: str) -> Iterator[str]:
    """Iterate the lines on a plan: what it saves of the activations `where` it is, and what no plan can."""
    activations = _compared(plan.before_megabytes, plan.after_megabytes)
    cost = f"{plan.stages} stages, {plan.predicted_time:.2f} times the plain step's predicted time"
    cost = cost if plan.stages > 1 else "the plan computes nothing again"
    yield f"activations on {where}: {activations}; {cost}"
    bound = int(plan.bound_megabytes)
    yield f"no plan can be below {bound} MiB of activations: one operator needs them at once"


def _in_words(planned: DryRun) -> Iterator[str]:
    """Iterate the lines: how much a run would look at, what the plan saves, and what memory is taken."""
    plan, training = planned.plan, planned.training
    train, count = training.recipe.train, len(training.devices)
    devices = f"{count} devices" if count > 1 else "one device"
    epochs = "" if planned.epochs is None else f", {planned.epochs:.1f} epochs"
    yield (
        f"{train.iterations:,} iterations of {train.batch_size} images on {devices}: "
        f"{planned.images:,} images{epochs}"
    )
    yield from comparison(plan, f"{training.devices[0]}, batch {training.device_graph.batch_size}")
    others = f"parameters with gradients and momenta {planned.parameters:.0f}"
    others += f", teacher {planned.teacher:.0f}" if planned.teacher else ""
    host = f"; mean faces on the host: {planned.mean_faces:.0f} MiB" if planned.mean_faces else ""
    together = _compared(planned.unplanned_memory, planned.planned_memory)
    yield f"estimated memory of each device: {together} (activations, {others}){host}"


def _use(training: Training, plan: Path) -> str:
    """Return the words that say which of the two memories a run of the recipe would take."""
    if training.recipe.train.memory_plan:
        return "a run of this recipe makes the plan of least memory itself, unless --plan names another"
    return f"a run of this recipe has no plan, unless you give it --plan {shlex.quote(str(plan))}"


def _compared(unplanned: float, planned: float) -> str:
    if unplanned == planned:
        return _size(planned)
    return f"{_size(unplanned)} without a plan, {_size(planned)} with this one"


def _size(megabytes: float) -> str:
    return f"{megabytes:.0f} MiB" if math.isfinite(megabytes) else "more than the device has"


def figures(planned: DryRun) -> dict[str, Any]:
    """Return setting, figures in MiB and the goal as results of benchmarks have them."""
    recipe, classes = planned.training.recipe, planned.training.classes
    images = planned.training.device_graph.batch_size
    parts = {
        "activations without a plan": planned.plan.before_megabytes,
        "activations with the plan": planned.plan.after_megabytes,
        "parameters": planned.parameters,
        "teacher": planned.teacher,
        "together without a plan": planned.unplanned_memory,
        "together with the plan": planned.planned_memory,
        "mean faces, on the host": planned.mean_faces,
    }
    finite = {name: Figure.of([value], "MiB") for name, value in parts.items() if math.isfinite(value)}
    papers = (recipe.encoder.name, classes, images) == PAPERS_SETTING
    limit = {"at_most": PAPERS_LIMIT} if papers else {}
    taken = planned.device_memory
    goals = [Goal("memory of a device", Figure.of([taken], "MiB"), **limit)] if math.isfinite(taken) else []
    return {
        "setting": {
            "encoder": recipe.encoder.name,
            "decoder": recipe.decoder.enabled,
            "filter": recipe.filter.k is not None,
            "classes": classes,
            "images of a device": images,
        },
        "contenders": {"a device": {name: figure.as_json() for name, figure in finite.items()}},
        "goals": [goal.as_json() for goal in goals],
    }
