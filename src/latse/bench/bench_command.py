"""The sub-command `latse bench`."""

from __future__ import annotations

import argparse
import importlib
from typing import Any

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
    benchmarks = parser.add_subparsers(
        dest="benchmark", required=True, metavar="BENCHMARK", parser_class=_BenchmarkParser
    )
    for name, summary in COMMANDS.items():
        description = f"{summary[0].upper()}{summary[1:]}."
        benchmark: _BenchmarkParser = benchmarks.add_parser(name, help=summary, description=description)
        benchmark.module = f"latse.bench.{name}_command"


def run(args: argparse.Namespace) -> None:
    """Measure, print and write; raise LatseError for bad input."""
    args.measure(args)


class _BenchmarkParser(argparse.ArgumentParser):
    """Imports its benchmark, and declares the options, when it is to parse: all of them take seconds."""

    module: str

    def parse_known_args(self, *arguments: Any) -> tuple[argparse.Namespace, list[str]]:
        module = importlib.import_module(self.module)
        command = getattr(module, "BENCHMARK", module)
        command.add_arguments(self)
        self.set_defaults(measure=command.run)
        return super().parse_known_args(*arguments)
