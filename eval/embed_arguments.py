"""The arguments of `latse embed`."""

from __future__ import annotations

import argparse

from latse.arguments import add_processes_argument, later
from latse.eval.model_arguments import add_embedding_arguments, model

DESCRIPTION = """\
Embed photographs with a model that `latse eval` judges. F.npy holds an embedding in each row, float32 (n, d),
in the order of the photographs, F.json their paths and how they were embedded. As `latse eval` compares them,
an embedding is the sum of that of the image and that of its mirror image, divided by its length: the cosine
of two photographs is the inner product of their rows.

A folder stands for the images in it, at any depth, in the order of their names; names that begin with a dot,
and files that are no images, are passed over; of the latter it is said how many. Photographs are aligned JPEG
or PNG faces of 112x112 pixels, or any photographs with --align, which finds the face and aligns it as `latse
data align` does (that has more options). The first one that gives no face ends the command, unless --skip
leaves it out. No file is replaced.
"""
run = later("latse.eval.embed_command")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments and options of `latse embed`."""
    add_embedding_arguments(parser)
    parser.description = DESCRIPTION
    parser.add_argument("model", type=model, metavar="WHAT", help="the model (see below)")
    parser.add_argument("photographs", nargs="+", metavar="PHOTO", help="image file, or folder of images")
    parser.add_argument("--out", required=True, metavar="F.npy", help="the file to write; F.json beside it")
    parser.add_argument(
        "--align", action="store_true", help="find the face of each photograph and align it, by MTCNN"
    )
    parser.add_argument(
        "--skip", action="store_true", help="leave out what gives no face; F.json says which and why"
    )
    add_processes_argument(parser, "how many align at once")
    parser.add_argument(
        "--no-mirror", action="store_true", help="embed the image alone, do not add its mirror image's"
    )
    parser.add_argument("--no-normalise", action="store_true", help="do not divide by the length")
