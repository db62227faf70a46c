"""The arguments that name models, and how they do. Without mxnet, as parsers need it."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from latse.arguments import add_batch_size_argument, add_device_arguments
from latse.errors import LatseError, nearest
from latse.files import existing
from latse.models import feeding
from latse.models.feeding import Feeding
from latse.models.run_folder import check, checkpoint_of, parse

BASELINES = ("pixels", "pca", "fisherfaces", "dlib")
SET = "{set}"  # stands for the name of a set of images

WHAT = """\
PREFIX,NUMBER   MXNet checkpoint of this project or insightface, any symbol with fc1_output
                (a bare PREFIX means PREFIX,0)
RUN_FOLDER      folder of a run: its model,0, or while that is not there its newest checkpoint
FILE.onnx       network in ONNX, run by onnxruntime on the processor
pixels          the aligned pixels
pca             whitened principal components of the pixels of --train-data
fisherfaces     linear discriminants of those, of the people of --train-data
dlib            dlib's network of three million photographs, on the processor
"""

FEEDING = """\
Behind a checkpoint or FILE.onnx may stand how the network is fed, in quotes for the shell, as
'FILE.onnx?mean=127.5&scale=0.0078125&order=bgr&size=112': it gets (x - mean)·scale of the pixels x, 0 to
255; mean and scale are one number or three, order is rgb or bgr, size the side of the image.
"""
FEATURES = """\
FILE.npy        features, float (n, d), a row for each image in order (of n pairs, 2n rows),
                used as they are; FILE-{set}.npy: a file for each set of images, by its name
"""


def model(text: str) -> str:
    """Return `text`, `[TITLE=]WHAT`, if WHAT is a word or a file that is there; a `type` of argparse.

    Raises LatseError for anything else; of features in a file for each set only the name is looked at.
    """
    _, what, fed = split(text)
    if fed and (what in BASELINES or what.endswith(".npy")):
        raise LatseError(f"{text}: how it is fed can be said of networks only, and {what} is none")
    if what.endswith(".onnx"):
        existing("the ONNX file", what)
    elif what.endswith(".npy"):
        if SET not in what:
            existing("the file of features", what)
    elif what not in BASELINES:
        kinds = ", ".join(re.findall(r"^\S+", WHAT + FEATURES, re.MULTILINE))
        check(checkpoint_of(what), "model", f"WHAT is one of {kinds}{nearest(what, BASELINES)}")
    return text


def split(text: str) -> tuple[str, str, Feeding | None]:
    """Return title and WHAT of `[TITLE=]WHAT`, and how it is to be fed, None without `?` and keys."""
    named, fed = feeding.split(text)
    title, equals, what = named.partition("=")
    if equals and "/" not in title:
        if not title or not what:
            raise LatseError(f"{text!r} is no model: write TITLE=WHAT, as in student=out/orl/student/model,0")
        return title, what, fed
    return _default_title(named), named, fed


def _default_title(what: str) -> str:
    if what in BASELINES:
        return what
    if what.endswith(".onnx"):
        return Path(what).stem
    if what.endswith(".npy"):  # what the file's name says besides the set, or else the nearest folder's
        parts = Path(what).resolve().with_suffix("").parts
        return next(filter(None, (re.sub(f"-{SET}|{SET}-?", "", name) for name in reversed(parts))))
    return Path(parse(checkpoint_of(what))[0]).parent.resolve().name


def add_model_arguments(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """Add `--model`, which the command needs if it is `required`, and the `add_embedding_arguments`."""
    parser.add_argument(
        "--model",
        nargs="+",
        action="extend",
        type=model,
        required=required,
        metavar="[TITLE=]WHAT",
        help="what to judge, any number (WHAT: see below); TITLE names it in the results",
    )
    add_embedding_arguments(parser, kinds=WHAT + FEATURES)


def add_embedding_arguments(parser: argparse.ArgumentParser, batch_size: int = 32, kinds: str = WHAT) -> None:
    """Add `--train-data`, `--batch-size`, `--gpus` and `--cpus`, and the help on the `kinds` of WHAT."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = f"WHAT is one of:\n{kinds}\n{FEEDING}"
    parser.add_argument(
        "--train-data", metavar="FOLDER", help="shard to fit pca and fisherfaces to (train.rec, train.idx)"
    )
    add_batch_size_argument(parser, batch_size)
    add_device_arguments(parser)
