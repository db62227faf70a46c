"""The sub-command `latse plan`."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from latse import memonger
from latse import recipe as recipes
from latse.data.records import Shard
from latse.devices import add_device_arguments, contexts, describe, share
from latse.errors import LatseError
from latse.files import replacing, write_json
from latse.runtime import versions
from latse.train import graph


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `latse plan`."""
    parser.add_argument("recipe", help="YAML file, such as recipes/orl_student.yaml")
    size = parser.add_mutually_exclusive_group(required=True)
    size.add_argument("--data", metavar="FOLDER", help="shard whose number of people the graph classifies")
    size.add_argument("--classes", type=int, metavar="N", help="number of people, without a shard")
    parser.add_argument(
        "--batch-size", type=int, metavar="N", help="images over all devices (default: train.batch_size)"
    )
    parser.add_argument(
        "--out", metavar="FILE", help="the planned graph (default: out/plan/RECIPE-symbol.json)"
    )
    parser.add_argument("--json", metavar="FILE", help="write the figures, settings, versions and device")
    parser.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="change one key of the recipe"
    )
    add_device_arguments(parser)


def run(args: argparse.Namespace) -> None:
    """Plan the recipe's training graph for one device and write it; raise LatseError for bad input."""
    batch = [] if args.batch_size is None else [f"train.batch_size={args.batch_size}"]
    recipe = recipes.load(args.recipe, [*args.set, *batch])
    devices = contexts(args)
    batch_size = share(recipe.train.batch_size, devices)
    classes = _classes(args)
    symbol, shapes = graph.build(recipe, classes, batch_size)
    plan = memonger.plan(symbol, shapes, devices[0], progress=True)
    out = Path(args.out or Path("out", "plan", f"{Path(args.recipe).stem}-symbol.json"))
    with replacing(out) as temporary:
        temporary.write_text(plan.symbol.tojson())
    if args.json:
        write_json(args.json, _record(args, recipe, classes, plan, devices))
    print(_summary(plan, batch_size, devices[0]))
    print(f"planned graph: {out}")


def _classes(args: argparse.Namespace) -> int:
    classes = Shard(args.data).classes if args.classes is None else args.classes
    if classes < 2:
        raise LatseError(f"{args.data or '--classes'}: {classes} people, a classifier needs at least 2")
    return classes


def _record(
    args: argparse.Namespace, recipe: recipes.CfgNode, classes: int, plan: memonger.Plan, devices: list
) -> dict:
    """Return what the file of `--json` says."""
    fits = math.isfinite(plan.before_megabytes)
    return {
        "before_megabytes": plan.before_megabytes if fits else None,
        "after_megabytes": plan.after_megabytes,
        "unit": "MiB on one device, activations only",
        "stages": plan.stages,
        "stage_bytes": plan.stage_bytes,
        "classes": classes,
        "devices": len(devices),
        "recipe": Path(args.recipe).stem,
        "settings": recipes.as_dict(recipe),
        "versions": versions(),
        "device": describe(devices),
    }


def _summary(plan: memonger.Plan, batch_size: int, device: object) -> str:
    """Return the line that `latse plan` prints."""
    where = f"planned memory on {device}, batch {batch_size}"
    if plan.stages == 1:
        return f"{where}: {plan.before_megabytes:.0f} MiB; no plan needs less, the graph stays as it is"
    return (
        f"{where}: {plan.before_megabytes:.0f} MiB before, {plan.after_megabytes:.0f} MiB after, "
        f"{plan.stages} stages"
    )
