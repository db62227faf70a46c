"""The sub-command `latse bench`."""

from __future__ import annotations

import argparse

from latse.bench import bank, embed, filter, head, loader, page, search, suite, train

# Name -> (its module, one line of help). A benchmark measures and writes --json; other commands do not.
BENCHMARKS = {
    "bank": (bank, "time and memory of the mean faces of all people, alone and shared by processes"),
    "embed": (embed, "images per second from images to embeddings, against Module and onnxruntime"),
    "filter": (filter, "what filter and decoder cost in a training step, with verdicts stored and asked"),
    "head": (head, "time and memory of a margin's head, against the one-hot formulation"),
    "loader": (
        loader,
        "images per second from a shard to batches, against MXNet's and insightface's readers",
    ),
    "search": (search, "time to rank people among distractors, against faiss's exact search"),
    "train": (train, "speed and memory of a training step, against insightface's trainer and PyTorch"),
}
OTHERS = {
    "all": (suite, "run every benchmark, one after the other, but those whose result is there"),
    "page": (page, "write a page of Markdown and a chart of all results in a folder"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmarks and the options of each."""
    benchmarks = parser.add_subparsers(dest="benchmark", required=True, metavar="BENCHMARK")
    for name, (module, summary) in {**BENCHMARKS, **OTHERS}.items():
        benchmark = benchmarks.add_parser(
            name, help=summary, description=f"{summary[0].upper()}{summary[1:]}."
        )
        benchmark.add_argument("--debug", action="store_true", help="show the traceback of an error")
        if name in BENCHMARKS:
            benchmark.add_argument("--json", metavar="FILE", help="write the figures, versions and device")
        module.add_arguments(benchmark)
        benchmark.set_defaults(measure=module.run)


def run(args: argparse.Namespace) -> None:
    """Measure, print and write; raise LatseError for bad input."""
    args.measure(args)
