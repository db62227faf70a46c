"""The arguments of `latse export`."""

from __future__ import annotations

import argparse

from latse.arguments import later
from latse.models.run_folder import named_checkpoint

run = later("latse.models.export_command")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `latse export`."""
    parser.description = (
        "Write the network from `data` (N, 3, 112, 112), RGB in 0..255, to the embedding `fc1`, not brought "
        "to unit length, without what only training needs. Nothing is written that does not give the "
        "checkpoint's embedding of random images."
    )
    parser.add_argument(
        "checkpoint",
        type=named_checkpoint,
        metavar="PREFIX,NUMBER",
        help="checkpoint of this project or insightface, or the folder of a run",
    )
    parser.add_argument("--onnx", metavar="FILE.onnx", help="ONNX, batch size free, normalisations folded")
    parser.add_argument(
        "--plain",
        metavar="PREFIX",
        help="PREFIX-symbol.json and PREFIX-0000.params of ordinary MXNet operators with insightface's names",
    )
    parser.add_argument("--json", metavar="FILE", help="write how near the copies come, and to what")
