"""The command `latse data bin-to-npz`."""

from __future__ import annotations

import argparse
from pathlib import Path

from latse.errors import LatseError

SUMMARY = "turn a verification set from .bin, a pickle, into a plain .npz"
DESCRIPTION = (
    "Turn insightface's .bin into an .npz of four plain arrays, which all commands read as well: images "
    "(uint8, the encoded images one after the other), offsets (int64, where each begins and the last ends), "
    "pairs (int64, two numbers of images each) and issame (bool). Nothing in it is executed; the images "
    "are taken over byte for byte, each distinct one once. "
    "IN.people.npy, which says who is on each image, goes along."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("source", metavar="IN", help="the .bin")
    parser.add_argument("out", metavar="OUT", help="the .npz to write")


def run(args: argparse.Namespace) -> None:
    """Convert; raise LatseError for bad input."""
    from latse.data.pairs.pairs import read_encoded, read_people, refuse_pairs, write_encoded

    if Path(args.out).suffix != ".npz":
        raise LatseError(f"{args.out} does not end in .npz")
    refuse_pairs(args.out, args.source)
    content, people = read_encoded(args.source), read_people(args.source)
    write_encoded(args.out, content, people)
    print(f"{args.out}: {len(content.issame)} pairs of {len(content.images)} images")
