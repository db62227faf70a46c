"""The arguments of `latse plan`."""

from __future__ import annotations

import argparse
from typing import Iterable

from latse.arguments import add_device_arguments, add_set_argument, later
from latse.errors import LatseError
from latse.files import refuse_other, refuse_same

# ResNet-124, the people of MS1MV2, and the 96 images that the paper gives a device of 16 GB; and what of it
# they may take, in MiB.
PAPERS_SETTING, PAPERS_LIMIT = ("resnet124", 85742, 96), 14e9 / 2**20
OF_RECIPES = ("recipe", "data", "classes", "batch_size", "set", "images", "hosts")
OF_HOSTS = ("servers", "bandwidth", "images_per_second")
OF_MEMORY = ("images", "out", "memory", "time")


def run(args: argparse.Namespace) -> None:
    """Plan a recipe or a symbol; raise LatseError for bad input."""

    def given(names: Iterable[str]) -> str:
        return " or ".join(_called(name) for name in names if getattr(args, name) not in (None, []))

    if args.symbol is None and not (args.recipe and (args.data or args.classes is not None)):
        raise LatseError("name a RECIPE with --data or --classes, or a graph with --symbol and --shape")
    if args.symbol is None and (args.shape or args.planned):
        raise LatseError("--shape and --planned go with --symbol")
    if args.symbol is not None and (others := given(OF_RECIPES)):
        raise LatseError(f"--symbol is a graph of its own, without {others}")
    if args.hosts is None and (others := given(OF_HOSTS)):
        raise LatseError(f"{others} goes with --hosts")
    if args.hosts is not None and (others := given(OF_MEMORY)):
        raise LatseError(f"--hosts plans no memory of devices, so there is no {others}")
    refuse_same(args, "out", "planned", "json")
    for path in filter(None, (args.out, args.planned)):
        refuse_other(path, "JSON")
    module = "plan_command"
    if args.symbol is not None:
        module = "symbol_plan"
    elif args.hosts is not None:
        module = "hosts_plan"
    later(f"latse.paper.{module}")(args)


def _called(name: str) -> str:
    return "RECIPE" if name == "recipe" else "--" + name.replace("_", "-")


def add_training_arguments(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """Add the arguments that say what would be trained, which the command needs if they are `required`."""
    parser.add_argument(
        "recipe",
        nargs=None if required else "?",
        help="YAML file, or the name of a shipped recipe, such as orl_student",
    )
    size = parser.add_mutually_exclusive_group(required=required)
    size.add_argument("--data", metavar="FOLDER", help="shard whose number of people the graph classifies")
    size.add_argument("--classes", type=int, metavar="N", help="number of people, without a shard")
    parser.add_argument(
        "--batch-size", type=int, metavar="N", help="images over all devices (default: train.batch_size)"
    )
    add_set_argument(parser, "change one key of the recipe")
    add_device_arguments(parser)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `latse plan`."""
    add_training_arguments(parser, required=False)
    parser.add_argument(
        "--images", type=int, metavar="N", help="number of images, without a shard: for the number of epochs"
    )
    parser.add_argument(
        "--out",
        metavar="FILE",
        help="the plan, for `latse train --plan` (default: out/plan/NAME-plan.json, by the recipe or graph)",
    )
    graph = parser.add_argument_group("instead of a recipe")
    graph.add_argument("--symbol", metavar="FILE.json", help="any training graph of MXNet, a Symbol")
    graph.add_argument(
        "--shape",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=N,N,…",
        help="shape of each of its inputs on one device, as data=32,3,112,112 softmax_label=32; what is not "
        "named is a parameter that is trained",
    )
    graph.add_argument("--planned", metavar="FILE.json", help="write the planned graph too, for any MXNet")
    hosts = parser.add_argument_group("traffic and rate of several hosts, instead of memory")
    hosts.add_argument("--hosts", type=int, metavar="N", help="hosts with a worker each, on all its devices")
    hosts.add_argument("--servers", type=int, metavar="M", help="servers, which go round (default: as many)")
    hosts.add_argument(
        "--bandwidth", type=float, metavar="GBIT/S", help="of each host, in each direction (default: 10)"
    )
    hosts.add_argument(
        "--images-per-second",
        type=float,
        metavar="RATE",
        help="of one worker alone, such as latse bench measures",
    )
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument(
        "--memory",
        type=float,
        metavar="MIB",
        help="the least extra time in so many MiB of activations a device; the executor counts whole ones, "
        "rounded down",
    )
    budget.add_argument(
        "--time",
        type=float,
        metavar="RATIO",
        help="the least memory in at most so many times the predicted time of the plain step (default: the "
        "least memory there is)",
    )
    parser.add_argument("--json", metavar="FILE", help="write the figures, settings, versions and device")
