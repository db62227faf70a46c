"""The command `latse data synth-truth`."""

from __future__ import annotations

import argparse

from latse.arguments import add_processes_argument
from latse.child import in_child

SUMMARY = "write what is known of each image of a synthetic set"
DESCRIPTION = (
    "Write beside the training set and the pairs of `latse data synth` what is known of each image: "
    "pose, light, age, smile, occlusion, and of each person sex and a picture from the front, which is drawn "
    "(train.truth.npz, X.truth.npz). The set stays as it is. Older files of truth are replaced."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("set", metavar="FOLDER", help="where `latse data synth` has made its sets")
    add_processes_argument(parser, "how many draw at a time")


def run(args: argparse.Namespace) -> None:
    """Write the files; raise LatseError for bad input."""
    from latse.data.synth import truth
    from latse.data.synth.arithmetic import same_everywhere

    with same_everywhere():
        made = in_child("the drawing of the faces", truth.make, args.set, args.processes)
    for path in made:
        print(path)
