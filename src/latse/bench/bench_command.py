"""The sub-command `latse bench`."""

from __future__ import annotations

import argparse

from latse.bench import all_command, page_arguments
from latse.bench.benchmarks import BANK, EMBED, FILTER, HEAD, LOADER, PLAN, SEARCH, TRAIN

# Name -> (what has `add_arguments` and `run`, one line of help).
COMMANDS = {
    "bank": (BANK, "time and memory of the mean faces of all people, alone and shared by processes"),
    "embed": (EMBED, "images per second from images to embeddings, against Module and onnxruntime"),
    "filter": (FILTER, "what filter and decoder cost in a training step, with verdicts stored and asked"),
    "head": (HEAD, "time and memory of a margin's head, against the one-hot formulation"),
    "loader": (
        LOADER,
        "images per second from a shard to batches, against MXNet's and insightface's readers",
    ),
    "plan": (PLAN, "memory and time of a training step with memory plans, ours and others"),
    "search": (SEARCH, "time to rank people among distractors, against faiss's exact search"),
    "train": (TRAIN, "speed and memory of a training step, against insightface's trainer and PyTorch"),
    "all": (all_command, "run every benchmark, one after the other, but those whose result is there"),
    "page": (page_arguments, "write a page of Markdown and a chart of all results in a folder"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmarks and the options of each."""
    commands = parser.add_subparsers(dest="benchmark", required=True, metavar="BENCHMARK")
    for name, (benchmark, summary) in COMMANDS.items():
        description = f"{summary[0].upper()}{summary[1:]}."
        command = commands.add_parser(name, help=summary, description=description)
        benchmark.add_arguments(command)
        command.set_defaults(measure=benchmark.run)


def run(args: argparse.Namespace) -> None:
    """Measure, print and write; raise LatseError for bad input."""
    args.measure(args)
