"""The command `latse data make`."""

from __future__ import annotations

import argparse

SUMMARY = "make a data set whose photographs a class of your own shows"
DESCRIPTION = (
    "Make the shards (train.rec, train.idx, property) of a class over latse.data.face_set.FaceSet. The class "
    "says who there is and shows their photographs. Each face is found and aligned, unless the class says "
    "that it is aligned already. Verification pairs, CLASS.bin, are drawn of the people that are held out. "
    "docs/extending.md has an example. `latse data pack` is faster for a folder for each person."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments and options."""
    parser.add_argument("name", metavar="FILE.py:CLASS", help="the class")
    parser.add_argument("out", metavar="OUT", help="folder of the set; it must not hold another one")
    parser.add_argument(
        "--test-people",
        type=int,
        default=0,
        metavar="N",
        help="hold out the last N people for verification pairs (default: %(default)s)",
    )
    parser.add_argument(
        "--pairs", type=int, default=6000, metavar="N", help="so many pairs of them (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="draws the pairs (default: %(default)s)")


def run(args: argparse.Namespace) -> None:
    """Make the set; raise LatseError for bad input."""
    from latse.data import face_set

    report = face_set.make_set(args.name, args.out, args.test_people, args.pairs, args.seed)
    people, held_out = len(report["people"]), len(report["test_people"])
    print(f"{args.out}: {report['images']} images; {people} people to train on, {held_out} to verify")
    if report["left_out"]:
        print(f"{len(report['left_out'])} photographs were left out; {args.out}/faces.json names them")
