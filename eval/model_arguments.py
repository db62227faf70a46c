"""The arguments that name models."""

from __future__ import annotations

import argparse

from latse.arguments import add_device_arguments

WHAT = """\
PREFIX,NUMBER   MXNet checkpoint of this project or insightface, any symbol with fc1_output
                (a bare PREFIX means PREFIX,0)
RUN_FOLDER      folder of a run: its model,0, or while that is not there its newest checkpoint
FILE.onnx       network in ONNX, run by onnxruntime on the processor
FILE.npy        features, float (n, d), a row for each image in order (of n pairs, 2n rows),
                used as they are; FILE-{set}.npy: a file for each set of images, by its name
pixels          the aligned pixels
pca             whitened principal components of the pixels of --train-data
fisherfaces     linear discriminants of those, of the people of --train-data
dlib            dlib's network of three million photographs, on the processor
"""


def add_model_arguments(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """Add `--model`, which the command needs if it is `required`, and the `add_embedding_arguments`."""
    parser.add_argument(
        "--model",
        nargs="+",
        action="extend",
        required=required,
        metavar="[TITLE=]WHAT",
        help="what to judge, any number (WHAT: see below); TITLE names it in the results",
    )
    add_embedding_arguments(parser)


def add_embedding_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what a WHAT is, `--train-data`, `--batch-size`, `--gpus` and `--cpus`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = f"WHAT is one of:\n{WHAT}"
    parser.add_argument(
        "--train-data", metavar="FOLDER", help="shard to fit pca and fisherfaces to (train.rec, train.idx)"
    )
    parser.add_argument(
        "--batch-size", type=int, default=32, metavar="N", help="images per batch (default: 32)"
    )
    add_device_arguments(parser)
