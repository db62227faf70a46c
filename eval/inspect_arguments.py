"""The arguments of `latse inspect`."""

from __future__ import annotations

import argparse

from latse.arguments import add_batch_size_argument, add_device_arguments, later
from latse.models.run_folder import named_checkpoint

run = later("latse.eval.inspect_command")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `latse inspect`."""
    parser.add_argument(
        "model", metavar="PREFIX,N", type=named_checkpoint, help="checkpoint, or the folder of a run"
    )
    parser.add_argument(
        "--data", required=True, metavar="FOLDER", help="the set on which it was trained (train.rec, …)"
    )
    parser.add_argument(
        "--pairs",
        nargs="+",
        default=[],
        metavar="FILE.bin",
        help="people whom it has not seen, with their FILE.people.npy; beside synthetic ones stands what "
        "`latse data synth-truth` knows of them, FILE.truth.npz",
    )
    parser.add_argument("--json", metavar="FILE", help="write what is printed, and more")
    add_batch_size_argument(parser)
    add_device_arguments(parser)
