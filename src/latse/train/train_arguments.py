"""The arguments of `latse train`."""

from __future__ import annotations

import argparse

from latse.arguments import KVSTORES, add_device_arguments, add_set_argument, later
from latse.cluster.place import WORKER, from_environment
from latse.cluster.serving import serve
from latse.models.run_folder import named_checkpoint


def run(args: argparse.Namespace) -> int:
    """Train; or, where the process is none of the workers of its run, serve them."""
    place = from_environment()
    if place is not None and place.role != WORKER:
        return serve(place, later("latse.train.server", "Server"))
    return later("latse.train.train_command")(args)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `latse train`."""
    parser.add_argument("recipe", help="YAML file, or the name of a shipped recipe, such as orl_teacher")
    parser.add_argument("--data", required=True, metavar="FOLDER", help="train.rec, train.idx and property")
    parser.add_argument("--out", required=True, metavar="FOLDER", help="where the run is kept")
    parser.add_argument("--seed", type=int, default=0, help="default 0")
    parser.add_argument(
        "--teacher",
        type=named_checkpoint,
        metavar="PREFIX,N",
        help="checkpoint of the teacher, or the folder of its run, where the recipe has filter.k",
    )
    parser.add_argument(
        "--verdicts", metavar="FILE", help="what `latse filter` wrote, instead of the teacher"
    )
    parser.add_argument(
        "--start",
        type=named_checkpoint,
        metavar="PREFIX,N",
        help="begin with the parameters of this checkpoint, of the same encoder, insightface's or of this "
        "project, or of the folder of a run; class centres and decoder too, where they fit (default: random "
        "parameters)",
    )
    parser.add_argument(
        "--plan",
        metavar="FILE",
        help="memory plan of this graph, written by `latse plan` (default: with train.memory_plan, the one "
        "of the least memory; else none)",
    )
    parser.add_argument("--kvstore", metavar="NAME", help=f"one of {', '.join(KVSTORES)}")
    parser.add_argument(
        "--tensorboard",
        action="store_true",
        help="write the metrics as events into OUT/tensorboard too (pip install tensorboardX)",
    )
    parser.add_argument("--resume", action="store_true", help="go on with the run in OUT, or start it")
    add_set_argument(parser, "change one key of the recipe")
    add_device_arguments(parser)
