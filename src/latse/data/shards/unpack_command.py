"""The command `latse data unpack`."""

from __future__ import annotations

import argparse

SUMMARY = "turn a set into image files, a folder for each person"
DESCRIPTION = (
    "Write the images of a set, byte for byte, as NUMBER.jpg or NUMBER.png into a folder for each person, "
    "the inverse of `latse data pack --aligned`. NUMBER is that of the record. A folder is called like "
    "the person, where pack.json, merge.json or clean.json beside the set tells the names and they ascend "
    "as the labels do; otherwise it is called like the label and the name. People without an image get no "
    "folder. FOLDER appears whole or not at all."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("set", metavar="SET", help="folder of the set")
    parser.add_argument("folder", metavar="FOLDER", help="where the people's folders go; new or empty")


def run(args: argparse.Namespace) -> None:
    """Write the images; raise LatseError for bad input."""
    from latse.data.shards.unpack import unpack

    images, people = unpack(args.set, args.folder)
    print(f"{args.folder}: {images} images of {people} people")
