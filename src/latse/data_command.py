"""The command `latse data`: one module per sub-command."""

from __future__ import annotations

import argparse

from latse.data import orl_command
from latse.data.pairs import bin_to_npz_command, pairs_command
from latse.data.photographs import align_command, pack_command
from latse.data.shards import check_command, clean_command, merge_command, noise_command, unpack_command
from latse.data.synth import synth_command, truth_command
from latse.paper import overlap_arguments

# A module has SUMMARY (one line), DESCRIPTION, `add_arguments(parser)` and `run(args)`, which returns None or
# the exit status. It imports what is slow to import only when it runs.
COMMANDS = {
    "align": align_command,
    "bin-to-npz": bin_to_npz_command,
    "check": check_command,
    "clean": clean_command,
    "fetch-orl": orl_command,
    "merge": merge_command,
    "noise": noise_command,
    "overlap": overlap_arguments,
    "pack": pack_command,
    "pairs": pairs_command,
    "synth": synth_command,
    "synth-truth": truth_command,
    "unpack": unpack_command,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the sub-commands of `latse data`."""
    commands = parser.add_subparsers(dest="data_command", required=True, metavar="COMMAND")
    for name, module in COMMANDS.items():
        command = commands.add_parser(name, help=module.SUMMARY, description=module.DESCRIPTION)
        module.add_arguments(command)
        command.set_defaults(action=module.run)


def run(args: argparse.Namespace) -> int | None:
    """Run the sub-command that was asked for; raise LatseError for bad input."""
    return args.action(args)
