"""The sub-command `latse bench`."""

from __future__ import annotations

import argparse

from latse.bench import (
    all_command,
    bank_command,
    embed_command,
    filter_command,
    head_command,
    loader_command,
    page_command,
    plan_command,
    search_command,
    train_command,
)

# Name -> (its module, one line of help).
COMMANDS = {
    "bank": (bank_command, "time and memory of the mean faces of all people, alone and shared by processes"),
    "embed": (embed_command, "images per second from images to embeddings, against Module and onnxruntime"),
    "filter": (
        filter_command,
        "what filter and decoder cost in a training step, with verdicts stored and asked",
    ),
    "head": (head_command, "time and memory of a margin's head, against the one-hot formulation"),
    "loader": (
        loader_command,
        "images per second from a shard to batches, against MXNet's and insightface's readers",
    ),
    "plan": (plan_command, "memory and time of a training step with memory plans, ours and others"),
    "search": (search_command, "time to rank people among distractors, against faiss's exact search"),
    "train": (
        train_command,
        "speed and memory of a training step, against insightface's trainer and PyTorch",
    ),
    "all": (all_command, "run every benchmark, one after the other, but those whose result is there"),
    "page": (page_command, "write a page of Markdown and a chart of all results in a folder"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmarks and the options of each."""
    benchmarks = parser.add_subparsers(dest="benchmark", required=True, metavar="BENCHMARK")
    for name, (module, summary) in COMMANDS.items():
        benchmark = benchmarks.add_parser(
            name, help=summary, description=f"{summary[0].upper()}{summary[1:]}."
        )
        benchmark.add_argument("--debug", action="store_true", help="show the traceback of an error")
        module.add_arguments(benchmark)
        benchmark.set_defaults(measure=module.run)


def run(args: argparse.Namespace) -> None:
    """Measure, print and write; raise LatseError for bad input."""
    args.measure(args)
