"""The arguments of `latse data overlap`.

They stand in this room because the command asks both the models of `eval` and the means of `train`.
"""

from __future__ import annotations

import argparse

from latse.arguments import later
from latse.eval.model_arguments import FEATURES, WHAT, add_embedding_arguments, model

SUMMARY = "find pictures and people of verification sets in a training set, and write it without them"
DESCRIPTION = """\
Find out whether a training set and verification pairs are apart. Pictures of the pairs are looked for in the
set: the same bytes, the same pixels, and near duplicates (encoded again, resized, other brightness, contrast
or gamma, grey, mirrored, shifted or aligned a little differently). With --model people are looked for too:
each image of the pairs is compared with the mean embedding of each person of the set, above a threshold that
other people's training images pass at the rate --far. The exit status is 0 whatever is found.
"""
run = later("latse.paper.overlap_command")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments and options of `latse data overlap`."""
    parser.add_argument("train", metavar="TRAIN", help="folder of the training set, which is left as it is")
    parser.add_argument(
        "--pairs",
        nargs="+",
        required=True,
        metavar="FILE",
        help="files of pairs (.bin or .npz); FILE.people.npy beside one says who is who, otherwise same "
        "pairs and equal pictures do",
    )
    parser.add_argument(
        "--model",
        type=model,
        metavar="WHAT",
        help="what embeds faces, see below (default: people are not looked for, only pictures). One that "
        "has not been trained on TRAIN gives the truer rate",
    )
    parser.add_argument(
        "--far",
        type=float,
        metavar="RATE",
        help="share of comparisons of an image with another person's mean that pass the threshold "
        "(default: 1e-06, or the smallest that the images of TRAIN resolve)",
    )
    add_embedding_arguments(parser, batch_size=64, kinds=WHAT + FEATURES)
    output = parser.add_argument_group("output, beside the printed table")
    output.add_argument("--list", metavar="FILE.tsv", help="write all that was found, a line for each")
    output.add_argument("--sheet", metavar="FILE.png", help="draw what was found beside the training images")
    output.add_argument("--json", metavar="FILE", help="write all of it, and where it comes from")
    output.add_argument(
        "--without",
        metavar="OUT",
        help="write a training set without these pictures, and without all images of the people who were "
        "found or stand under such a picture; those who stay keep their labels",
    )
    output.add_argument(
        "--shards", type=int, default=1, metavar="N", help="files of that set (default: %(default)s)"
    )
