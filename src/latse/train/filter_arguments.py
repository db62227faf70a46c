"""The arguments of `latse filter`."""

from __future__ import annotations

import argparse
import math

from latse.arguments import add_device_arguments, later
from latse.models.run_folder import named_checkpoint

run = later("latse.train.filter_command")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `latse filter`."""
    parser.add_argument("--data", required=True, metavar="FOLDER", help="train.rec, train.idx and property")
    parser.add_argument(
        "--teacher",
        required=True,
        type=named_checkpoint,
        metavar="PREFIX,N",
        help="checkpoint of the teacher, or the folder of its run",
    )
    parser.add_argument("--out", required=True, metavar="FILE", help="the file; a killed run goes on")
    parser.add_argument("--k", type=int, nargs="+", default=[1, 3, 5], help="default: 1 3 5")
    parser.add_argument(
        "--batch-size", type=int, default=64, metavar="N", help="images at a time (default 64)"
    )
    parser.add_argument(
        "--check",
        type=int,
        nargs="?",
        const=math.inf,
        metavar="N",
        help="afterwards ask the teacher again, in another order, about N images, mirrored or not, drawn at "
        "random, without N about all of them both ways; fail if it contradicts a verdict",
    )
    parser.add_argument(
        "--json", metavar="FILE", help="write what share is kept, what --check found, versions and device"
    )
    add_device_arguments(parser)
