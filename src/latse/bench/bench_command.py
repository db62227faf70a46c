"""The sub-command `latse bench`."""

from __future__ import annotations

import argparse
import importlib

# Name -> one line of help. Its module has a `BENCHMARK`, or itself `add_arguments` and `run`.
COMMANDS = {
    "bank": "time and memory of the mean faces of all people, alone and shared by processes",
    "embed": "images per second from images to embeddings, against Module and onnxruntime",
    "filter": "what filter and decoder cost in a training step, with verdicts stored and asked",
    "head": "time and memory of a margin's head, against the one-hot formulation",
    "loader": "images per second from a shard to batches, against MXNet's and insightface's readers",
    "plan": "memory and time of a training step with memory plans, ours and others",
    "search": "time to rank people among distractors, against faiss's exact search",
    "train": "speed and memory of a training step, against insightface's trainer and PyTorch",
    "all": "run every benchmark, one after the other, but those whose result is there",
    "page": "write a page of Markdown and a chart of all results in a folder",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmarks and the options of each."""
    benchmarks = parser.add_subparsers(dest="benchmark", required=True, metavar="BENCHMARK")
    for name, summary in COMMANDS.items():
        module = importlib.import_module(f"latse.bench.{name}_command")
        command = getattr(module, "BENCHMARK", module)
        benchmark = benchmarks.add_parser(
            name, help=summary, description=f"{summary[0].upper()}{summary[1:]}."
        )
        command.add_arguments(benchmark)
        benchmark.set_defaults(measure=command.run)


def run(args: argparse.Namespace) -> None:
    """Measure, print and write; raise LatseError for bad input."""
    args.measure(args)
