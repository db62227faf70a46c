"""The arguments of `latse launch`."""

from __future__ import annotations

import argparse

from latse.arguments import later
from latse.cluster.place import PATIENCE

run = later("latse.cluster.launch_command")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `latse launch`."""
    parser.add_argument(
        "-n", "--workers", type=int, metavar="N", help="processes that train (default: one for each host)"
    )
    parser.add_argument(
        "-s", "--servers", type=int, metavar="N", help="processes that take the gradients (default: as many)"
    )
    parser.add_argument(
        "--hosts",
        metavar="FILE",
        help="a line for each host: its address, by which ssh and the others reach it; the parts go round "
        "among them, the scheduler is on the first (default: this machine alone)",
    )
    parser.add_argument(
        "--port",
        type=int,
        metavar="N",
        help="of the scheduler, which takes the next one too (default: free ones; with --hosts 9091)",
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=PATIENCE,
        metavar="SECONDS",
        help="after which a process that waits for another one gives up (default: %(default)g)",
    )
    parser.add_argument(
        "words",
        nargs=argparse.REMAINDER,
        metavar="-- COMMAND",
        help="what each part runs: latse train …, with --kvstore dist_sync",
    )
