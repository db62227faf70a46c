"""The command `latse data clean`."""

from __future__ import annotations

import argparse

from latse.errors import check_range

SUMMARY = "make a copy of a set without the images that a teacher refuses"
DESCRIPTION = (
    "Write the images of a set, byte for byte, into a new one, without those that k refuses both as they are "
    "and mirrored. FILE is what `latse filter` wrote: its verdicts, or the list of its --list. Of a list you "
    "may have deleted lines, so that these images stay, or changed whom an image looks like, a label or "
    "nobody. By a list, --move keeps a refused image that looks like another person, under that person's "
    "label, and --merge makes one of two labels whose refused images look like the other: at least two of "
    "them, and more than half as many as the smaller label has. The label with more images keeps its "
    "number, and so does everybody else: a label may have no image in the end. Beside the copy stands "
    "clean.json: each image that does not stay as it was, and why. Of a set of `latse data noise` the "
    "command says how right that is. The set is left as it is."
)
# What is said of each share of `decisions.against_truth`.
TRUTH = {
    "precision": "images that left their label had a wrong one",
    "recall": "images with a wrong label left it",
    "moved_right": "moved images have the right label now",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments and options."""
    parser.add_argument("shard", metavar="SET", help="folder of the set")
    parser.add_argument("out", metavar="OUT", help="folder of the copy, outside of SET; it must not hold one")
    parser.add_argument(
        "--verdicts", required=True, metavar="FILE", help="verdicts on SET, or the list of what they refuse"
    )
    parser.add_argument(
        "--k",
        type=int,
        help="refused is an image if so many other people are likelier (default: the least k of FILE)",
    )
    parser.add_argument(
        "--move", action="store_true", help="move images to whom they look like; only those like nobody go"
    )
    parser.add_argument("--merge", action="store_true", help="make one label of those of one person")
    parser.add_argument(
        "--shards", type=int, default=1, metavar="N", help="number of files (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> None:
    """Make the copy; raise LatseError for bad input."""
    from latse.data.shards.decisions import clean

    if args.k is not None:
        check_range("--k", args.k, 1)
    made = clean(args.shard, args.out, args.verdicts, args.k, args.move, args.merge, args.shards)
    left_out, moved, merged = (
        sum(decision["reason"] == reason for decision in made["decisions"])
        for reason in ("refused", "moved", "merged")
    )
    became = f"{merged} stand under the labels of the same people, {len(made['merged'])} labels are empty"
    print(
        f"{args.out}: {made['images']} images; {left_out} are left out, {moved} moved to whom they look like"
        + (f", {became}" if args.merge else "")
    )
    gone = (decision for decision in made["decisions"] if decision["reason"] == "refused")
    movable = sum(decision.get("looks_like") is not None for decision in gone)
    if movable and not args.move:
        print(f"{movable} of the images that are left out look like another person: --move keeps these")
    truth = made["truth"]
    if truth:
        print(f"{truth['wrong']} labels of the set are wrong, {truth['still_wrong']} of the copy")
        for key, what in TRUTH.items():
            if truth[key] is not None:
                print(f"{100 * truth[key]:.2f} % of the {what}")
