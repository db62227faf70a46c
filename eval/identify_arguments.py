"""The arguments of `latse identify`."""

from __future__ import annotations

import argparse

from latse.arguments import later
from latse.eval.model_arguments import add_model_arguments

run = later("latse.eval.identify_command")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `latse identify`."""
    add_model_arguments(parser, required=False)
    images = parser.add_argument_group("images, embedded by --model")
    images.add_argument(
        "--probes",
        metavar="FOLDER|FILE",
        help="shard, pairs (.bin, .npz) with their X.people.npy, or with --probe-list the folder of its "
        "pictures: each image is a probe in turn, the other images of its person are its mates",
    )
    images.add_argument(
        "--distractors",
        metavar="FOLDER|FILE",
        help="shard or pairs of further people, or with --distractor-list the folder of its pictures "
        "(default: the images of the probes' other people)",
    )
    images.add_argument(
        "--write-features",
        metavar="FOLDER",
        help="write the features as the MegaFace kit reads them: FOLDER/probes, FOLDER/distractors with the "
        "ending _TITLE.bin, FOLDER/probes.json, FOLDER/distractors.json",
    )
    features = parser.add_argument_group("or features of the MegaFace development kit")
    features.add_argument("--probe-features", metavar="FOLDER", help="of the probes (FaceScrub)")
    features.add_argument("--distractor-features", metavar="FOLDER", help="of the distractors (MegaFace)")
    features.add_argument(
        "--ending",
        nargs="+",
        metavar="ENDING",
        help="of the feature files behind an image's path, such as _r100.bin; one for each model",
    )
    lists = parser.add_argument_group(
        "lists of the kit, of features or of aligned pictures (JPEG or PNG, 112x112) in a folder of images"
    )
    lists.add_argument("--probe-list", metavar="FILE.json", help="paths, and people (else: their folders)")
    lists.add_argument("--distractor-list", metavar="FILE.json", help="paths")
    lists.add_argument(
        "--noisy-probes", metavar="FILE", help="leave out what insightface's facescrub_noises.txt names"
    )
    lists.add_argument(
        "--noisy-distractors", metavar="FILE", help="leave out what insightface's megaface_noises.txt names"
    )
    parser.add_argument(
        "--sizes",
        type=int,
        nargs="+",
        metavar="N",
        help="numbers of distractors (default: powers of ten from 10, and all)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="S",
        help="of the order in which distractors are taken; a smaller gallery is the start of a larger one "
        "(default: %(default)s)",
    )
    parser.add_argument("--json", metavar="FILE", help="write all results and where they come from")
    parser.add_argument("--figure", metavar="FILE.png", help="plot the CMC curves of the largest gallery")
