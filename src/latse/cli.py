"""The command `latse`: one module per sub-command, imported only when it is asked for."""

from __future__ import annotations

import argparse
import importlib
import io
import os
import re
import sys
import traceback
from typing import NoReturn

from latse import __version__, ending
from latse.errors import LatseError, is_short_of_memory
from latse.files import refuse_other
from latse.runtime import mxnet_build, require_mxnet

# Sub-command -> (its module in latse, one line of help). A module has `add_arguments(parser)` and
# `run(args)`, which returns None, or the exit status; it imports nothing slow before it runs.
COMMANDS = {
    "data": ("data_command", "make insightface shards and verification pairs"),
    "train": ("train.train_arguments", "train a teacher or a student from a recipe"),
    "launch": ("cluster.launch_arguments", "train in several processes, on this machine or over ssh"),
    "recipes": ("recipes_arguments", "list the shipped recipes, show one, or explain every key"),
    "filter": ("paper.filter_arguments", "store a teacher's verdict on every image of a set"),
    "plan": ("paper.plan_arguments", "plan the memory of a recipe's graph by mirroring"),
    "eval": ("eval.eval_arguments", "verify pairs of unseen people and draw their generated faces"),
    "inspect": (
        "eval.inspect_arguments",
        "measure class centres, generated faces, and what embeddings hold",
    ),
    "embed": ("eval.embed_arguments", "embed photographs with any model, as an array of numpy"),
    "compare": ("eval.compare_arguments", "tell whether two photographs are of one person"),
    "identify": ("eval.identify_arguments", "find people among distractors, a million and more"),
    "templates": ("eval.templates_arguments", "judge templates of several images (IJB-B, IJB-C)"),
    "figures": ("paper.figures_arguments", "draw the paper's Figures 1, 3, 4 and 5 of a run"),
    "tables": ("paper.tables_arguments", "print the paper's tables with ours, training what is missing"),
    "import": ("models.import_arguments", "turn an insightface checkpoint into a start for training here"),
    "encoders": ("paper.encoders_arguments", "list the networks that embed faces and their sizes"),
    "margins": ("eval.margins_arguments", "list, check and plot the losses and their margins"),
    "report": ("paper.report_arguments", "write one HTML page of all results of a run"),
    "export": ("models.export_arguments", "write a checkpoint's embedding as ONNX or as a plain MXNet pair"),
    "bench": ("bench.bench_command", "measure time and memory against other formulations"),
    "check-gpu": ("bench.gpu_check.arguments", "check everything on your GPUs and write a page to send back"),
    "study": ("study.study_arguments", "train and judge variants of a recipe with several seeds"),
    "study-page": ("study.study_page_arguments", "write what a study found into a page, without training"),
}
SHORT_OF_MEMORY = (
    "this takes more memory than there is, or arrays of more than 2^31 numbers, which MXNet does not make: "
    "a smaller batch (train.batch_size, --batch-size), narrower layers or fewer classes take less"
)


def command() -> NoReturn:
    """Run `main` as a process of its own does, which ends with it."""
    ending.run(main)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line `arguments` (default: sys.argv) and return the exit status.

    0 only when the work was done; 1 for bad input (one sentence on stderr), or when a margin that was checked
    fails; 130 for Ctrl-C.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a path may have bytes that are no text
    given = sys.argv[1:] if arguments is None else arguments
    arguments = [word for word in given if word != "--debug"]  # it may stand anywhere
    try:
        _refuse_empty(arguments)
        args = _parser(arguments).parse_args(arguments)
        _refuse_to_serve(args.command)
        if getattr(args, "json", None):
            refuse_other(args.json, "JSON")
        return args.run(args) or 0
    except KeyboardInterrupt:
        print("latse: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if not isinstance(error, LatseError) and not is_short_of_memory(error):
            raise
        if "--debug" in given:
            traceback.print_exc()
        print(f"latse: {error if isinstance(error, LatseError) else SHORT_OF_MEMORY}", file=sys.stderr)
        return 1


def _refuse_empty(arguments: list[str]) -> None:
    """Raise LatseError for an empty argument, of a shell's variable that is not set: it would be a path."""
    for before, word in zip(["latse", *arguments], arguments):
        if re.fullmatch("(--[a-z-]+=)?", word):
            raise LatseError(f"the argument after {word[:-1] or before} is empty")


def _refuse_to_serve(command: str) -> None:
    """Raise LatseError where MXNet, once imported, would serve instead of doing what was asked for."""
    role = os.environ.get("DMLC_ROLE")
    if role in ("scheduler", "server") and command != "train":
        raise LatseError(f"DMLC_ROLE is {role}: of all commands latse train alone serves others")


def _parser(arguments: list[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="latse", description="LATSE face embeddings in MXNet/Gluon.")
    parser.add_argument("--version", action=_Version, nargs=0, help="show versions and features, and exit")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (module, summary) in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary.capitalize() + ".")
        command.add_argument("--debug", action="store_true", help="show the traceback of an error")
        if name in arguments:
            require_mxnet()
            implementation = importlib.import_module(f"latse.{module}")
            implementation.add_arguments(command)
            command.set_defaults(run=implementation.run, command_line=arguments)
    return parser


class _Version(argparse.Action):
    """Shows versions and features; an action of its own so that only `--version` waits for mxnet."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(f"latse {__version__}, {mxnet_build()}")
        parser.exit()
