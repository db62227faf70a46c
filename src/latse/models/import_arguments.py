"""The arguments of `latse import`."""

from __future__ import annotations

import argparse

from latse.arguments import add_device_arguments, later
from latse.models.run_folder import named_checkpoint

run = later("latse.models.import_command")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `latse import`."""
    parser.description = (
        "Turn an insightface checkpoint into one of this project, for `latse train --start`. What did not "
        "map is named, and the embeddings of both are compared. (`latse train --start` and `latse eval` read "
        "insightface's checkpoints as they are, too.)"
    )
    parser.add_argument(
        "checkpoint",
        type=named_checkpoint,
        metavar="PREFIX,N",
        help="PREFIX-symbol.json and PREFIX-NNNN.params, or the folder of a run",
    )
    parser.add_argument(
        "--out", required=True, metavar="PREFIX", help="writes PREFIX-symbol.json and PREFIX-0000.params"
    )
    parser.add_argument(
        "--encoder",
        metavar="NAME",
        help="whose parameters to take, a name as recipes have it (default: found from the parameters)",
    )
    parser.add_argument("--json", metavar="FILE", help="write what mapped and what did not")
    add_device_arguments(parser)
