"""The command `latse data noise`."""

from __future__ import annotations

import argparse

SUMMARY = "make a copy of a set with label noise of known kind and place"
DESCRIPTION = (
    "Write a copy of an insightface set with the paper's two kinds of noise: of n images, round(P * n) stand "
    "under another person of the set, drawn evenly, and round(Q * n) are distractors, which show people "
    "outside the set. Beside the copy stand noise.npz, with a row for each image (record, label, kind: 0 "
    "clean, 1 mislabelled, 2 distractor, true_label: -1 for distractors, source: its number in the set it "
    "comes from), and noise.json, with seed, fractions and counts. The original is left as it is; people "
    "keep their numbers; the seed decides everything."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("shard", metavar="SHARD", help="folder of the original set")
    parser.add_argument("out", metavar="OUT", help="folder of the copy, outside of SHARD")
    parser.add_argument(
        "--mislabel", type=float, default=0.0, metavar="P", help="fraction of the images (default: 0)"
    )
    parser.add_argument(
        "--distractor", type=float, default=0.0, metavar="Q", help="fraction of the images (default: 0)"
    )
    parser.add_argument(
        "--distractors",
        metavar="FOLDER",
        help="a set of other people: pictures drawn from it replace pictures of SHARD, whose labels stay "
        "(default: people of SHARD are held out, and their images get the labels of people who stay; of the "
        "last one only as many as are lacking, the others are left out)",
    )
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument(
        "--shards", type=int, default=1, metavar="N", help="number of files (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> None:
    """Make the copy; raise LatseError for bad input."""
    from latse.data.shards.noise import add_noise

    made = add_noise(
        args.shard, args.out, args.mislabel, args.distractor, args.seed, args.distractors, args.shards
    )
    counts = ", ".join(f"{number} {kind}" for kind, number in made["counts"].items())
    print(f"{args.out}: {made['images']} images, {counts}; {made['images_left_out']} left out")
