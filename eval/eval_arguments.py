"""The arguments of `latse eval`."""

from __future__ import annotations

import argparse

from latse.arguments import later
from latse.eval.model_arguments import add_model_arguments

DEFAULT_PAIRS = "data/orl/orl.bin"
SAMPLES = 1000  # of the people, for intervals
run = later("latse.eval.eval_command")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `latse eval`."""
    add_model_arguments(parser)
    parser.add_argument(
        "--pairs",
        nargs="+",
        metavar="FILE.bin",
        help="pairs in insightface's format, any number of files; the name of a set is the file's, and "
        f"FILE.people.npy beside it says who is who (default: {DEFAULT_PAIRS}, or none with --protocol)",
    )
    parser.add_argument(
        "--protocol",
        nargs="+",
        default=[],
        metavar="FILE.py:CLASS",
        help="evaluations of your own, classes over latse.eval.protocol.Protocol (docs/extending.md)",
    )
    parser.add_argument(
        "--samples",
        type=int,
        default=SAMPLES,
        metavar="N",
        help="how often people are drawn again for the intervals, 0 for none (default: %(default)s)",
    )
    output = parser.add_argument_group("output, beside the printed table")
    output.add_argument("--json", metavar="FILE", help="write all results, and where they come from")
    output.add_argument(
        "--thresholds",
        action="store_true",
        help="print the threshold at each false accept rate too (the JSON always has them)",
    )
    output.add_argument(
        "--figure",
        metavar="FILE.png",
        help="draw people of the first set, faces that the first checkpoint generates, and the difference",
    )
    output.add_argument("--generated", metavar="FILE.png", help="draw the generated faces alone")
    output.add_argument("--curves", metavar="FILE.png", help="plot the metrics.jsonl beside each checkpoint")
