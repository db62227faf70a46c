"""The arguments of `latse check-gpu`."""

from __future__ import annotations

import argparse

from latse.arguments import later
from latse.bench.gpu_check.checks import CHECKS

run = later("latse.bench.gpu_check.command")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `latse check-gpu`."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--gpus", metavar="0,1,…", help="numbers of the GPUs (default: all that MXNet sees)")
    group.add_argument("--cpus", type=int, metavar="N", help="CPU contexts in their place")
    parser.add_argument(
        "--small", action="store_true", help="small sizes and narrow networks, as a processor bears them"
    )
    parser.add_argument(
        "--only",
        nargs="+",
        choices=[*CHECKS],
        default=[*CHECKS],
        metavar="CHECK",
        help=f"some of the checks: {', '.join(CHECKS)}",
    )
    parser.add_argument(
        "--out",
        default="out/check-gpu/page.md",
        metavar="FILE.md",
        help="the page, to be sent back (default: %(default)s)",
    )
    parser.add_argument(
        "--json",
        default="out/check-gpu/page.json",
        metavar="FILE",
        help="the same as JSON, with versions and devices (default: %(default)s)",
    )
