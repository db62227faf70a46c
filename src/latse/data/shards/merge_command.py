"""The command `latse data merge`."""

from __future__ import annotations

import argparse

SUMMARY = "join sets into one, in which no two people share a label"
DESCRIPTION = (
    "Write the images of all sets, byte for byte, into a new set. The labels of each set are shifted past "
    "those of the sets before it, so the first one keeps its labels. With --by-name people of the same "
    "name are one person, and people are numbered in the order of their names, as `latse data pack` "
    "numbers them. Beside the set stands merge.json: what became of the labels of each set, and the name "
    "of each label, where pack.json, merge.json or clean.json beside a set tells it. A picture that stands "
    "in several sets is not looked for: `latse data check OUT` finds those under several people. The sets "
    "are left as they are."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments and options."""
    parser.add_argument("sets", metavar="SET", nargs="+", help="folder of a set")
    parser.add_argument("out", metavar="OUT", help="folder of the new set; it must not hold one")
    parser.add_argument(
        "--by-name",
        action="store_true",
        help="people of the same name are one person; each set must have names, which are no numbers "
        "(default: all are strangers)",
    )
    parser.add_argument(
        "--shards", type=int, default=1, metavar="N", help="number of files (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> None:
    """Join the sets; raise LatseError for bad input."""
    from latse.data.shards.merge import merge

    made = merge(args.sets, args.out, args.by_name, args.shards)
    before = [one["classes"] for one in made["sets"]]
    were = f"{sum(before)} classes in {len(before)} sets"
    print(f"{args.out}: {made['images']} images, {made['classes']} classes, which were {were}")
