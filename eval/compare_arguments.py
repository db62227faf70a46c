"""The arguments of `latse compare`."""

from __future__ import annotations

import argparse

from latse.arguments import later
from latse.eval.model_arguments import add_embedding_arguments, model

DESCRIPTION = """\
Compare the faces of two photographs: find and align the face of each, as `latse data align` does, embed it as
`latse eval` does, and print the cosine and the squared distance of the embeddings.

Whether it is one person is a question of the threshold. --calibration takes what `latse eval --json` has
written of the same model, and answers for every set of pairs and every false accept rate that these pairs
resolve. A rate holds for faces like those of the set.
"""
run = later("latse.eval.compare_command")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments and options of `latse compare`."""
    add_embedding_arguments(parser)
    parser.description = DESCRIPTION
    parser.add_argument("photographs", nargs=2, metavar="PHOTO", help="an image file with a face")
    parser.add_argument("--model", type=model, required=True, metavar="WHAT", help="the model (see below)")
    parser.add_argument(
        "--aligned", action="store_true", help="take both files as aligned faces of 112x112 pixels"
    )
    parser.add_argument(
        "--calibration", metavar="FILE.json", help="what `latse eval --json` has written of this model"
    )
    parser.add_argument("--json", metavar="FILE", help="write the figures, and where they come from")
