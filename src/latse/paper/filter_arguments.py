"""The arguments of `latse filter`.

They stand in this room because a teacher is a checkpoint of `train` or any model of `eval`, and these two do
not know each other.
"""

from __future__ import annotations

import argparse
import math

from latse.arguments import later
from latse.errors import LatseError, check_range
from latse.eval.model_arguments import BASELINES, FEATURES, WHAT, add_embedding_arguments, model, split
from latse.models.run_folder import named_checkpoint

LEARNED, MEANS, DOMINANT = "learned", "means", "dominant"
RUNS = {
    LEARNED: later("latse.train.filter_command"),
    MEANS: later("latse.paper.means_command"),
    DOMINANT: later("latse.train.dominant_command"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `latse filter`."""
    parser.add_argument("--data", required=True, metavar="FOLDER", help="train.rec, train.idx and property")
    parser.add_argument(
        "--teacher",
        required=True,
        metavar="WHAT",
        help="checkpoint of the teacher, or the folder of its run; by --centres means any model, see below",
    )
    parser.add_argument(
        "--centres",
        choices=RUNS,
        default=LEARNED,
        help="what labels are ranked by: the teacher's own class centres (default), or the means of the "
        "people's embeddings, without the image that is judged and those that look like somebody else; or, "
        "instead of a rank, how far an image is from the dominant one of the person's centres, as "
        "subcentre_arcface trains them",
    )
    parser.add_argument(
        "--angle",
        type=float,
        metavar="DEGREES",
        help="with --centres dominant: an image farther from it is refused, whatever k (default: 75)",
    )
    parser.add_argument("--out", required=True, metavar="FILE", help="the file; a killed run goes on")
    parser.add_argument("--k", type=int, nargs="+", default=[1, 3, 5], help="default: 1 3 5")
    parser.add_argument(
        "--check",
        type=int,
        nargs="?",
        const=math.inf,
        metavar="N",
        help="afterwards ask the teacher again, in another order, about N images, mirrored or not, drawn at "
        "random, without N about all of them both ways; fail if it contradicts a verdict",
    )
    parser.add_argument(
        "--list",
        metavar="FILE.tsv",
        help="afterwards write a line for each image that the least k refuses both as it is and mirrored: "
        "whom it looks like, for you to read and for `latse data clean`",
    )
    parser.add_argument(
        "--sheet",
        metavar="FILE.png",
        help="draw the clearest of these, of both kinds, beside the two people in question",
    )
    parser.add_argument(
        "--json", metavar="FILE", help="write what share is kept, what --check found, versions and device"
    )
    add_embedding_arguments(parser, batch_size=64, kinds=WHAT + FEATURES)


def run(args: argparse.Namespace) -> None:
    """Run the command for these centres; raise LatseError if there is no such teacher."""
    if args.centres != DOMINANT and args.angle is not None:
        raise LatseError("--angle is of --centres dominant alone")
    if args.centres == DOMINANT and (args.list or args.sheet):
        raise LatseError("--list and --sheet are by rank, which --centres dominant does not ask for")
    check_range("--angle", 0 if args.angle is None else args.angle, 0, 180)
    if args.centres == MEANS:
        model(args.teacher)
    else:
        args.teacher = _with_centres(args)
    refusals = RUNS[args.centres](args)
    if args.sheet:
        from latse.data.shards.records import Shard
        from latse.paper.refusal_sheet import draw

        draw(args.sheet, Shard(args.data), refusals)


def _with_centres(args: argparse.Namespace) -> str:
    """Return the checkpoint whose class centres are asked; raise LatseError for what has none."""
    if args.train_data is not None:
        raise LatseError("--train-data is of pca and fisherfaces, which only --centres means takes")
    _, what, feeding = split(args.teacher)
    if feeding or what in BASELINES or what.endswith((".onnx", ".npy")):
        raise LatseError(f"{args.teacher} has no class centres: --centres means takes the people's means")
    return named_checkpoint(args.teacher)
