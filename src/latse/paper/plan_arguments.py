"""The arguments of `latse plan`."""

from __future__ import annotations

import argparse

from latse.arguments import add_device_arguments, add_set_argument, later

# ResNet-124, the people of MS1MV2, and the 96 images that the paper gives a device of 16 GB; and what of it
# they may take, in MiB.
PAPERS_SETTING, PAPERS_LIMIT = ("resnet124", 85742, 96), 14e9 / 2**20
run = later("latse.paper.plan_command")


def add_training_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say what would be trained; `read_training` reads them."""
    parser.add_argument("recipe", help="YAML file, or the name of a shipped recipe, such as orl_student")
    size = parser.add_mutually_exclusive_group(required=True)
    size.add_argument("--data", metavar="FOLDER", help="shard whose number of people the graph classifies")
    size.add_argument("--classes", type=int, metavar="N", help="number of people, without a shard")
    parser.add_argument(
        "--batch-size", type=int, metavar="N", help="images over all devices (default: train.batch_size)"
    )
    add_set_argument(parser, "change one key of the recipe")
    add_device_arguments(parser)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `latse plan`."""
    add_training_arguments(parser)
    parser.add_argument(
        "--images", type=int, metavar="N", help="number of images, without a shard: for the number of epochs"
    )
    parser.add_argument(
        "--out",
        metavar="FILE",
        help="the plan, for `latse train --plan` (default: out/plan/RECIPE-plan.json)",
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
