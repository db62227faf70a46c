"""The benchmarks that measure: the options of each. Without mxnet, as parsers need it."""

from __future__ import annotations

import argparse

from latse.arguments import later
from latse.bench.benchmark import Benchmark, Option, count
from latse.models.run_folder import named_checkpoint
from latse.paper.plan_arguments import add_training_arguments


def _add_threads(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--threads", type=int, nargs="+", default=[1, 2], metavar="T", help="of our loader (default: 1 2)"
    )


BANK = Benchmark(
    "bench bank",
    later("latse.bench.bank_command", "measure"),
    [
        count("people", 85_742, "people"),
        count("batch-size", 96, "images of an update"),
        count("batches", 40, "updates of each kind in a round"),
        count("workers", 2, "processes that share the bank"),
        count("repeats", 3, "rounds, each with a new bank"),
        count("step-batch-size", 32, "images of the training step that is measured"),
        Option("folder", ".", "where a temporary folder for the bank is made"),
        Option(
            "recipe", "ms1mv2_arcface_r50_student_k3", "whose training step is measured, without the teacher"
        ),
        Option(
            "step",
            None,
            "seconds of a training step of --batch-size images; without it, one is measured",
            float,
        ),
    ],
)
EMBED = Benchmark(
    "bench embed",
    later("latse.bench.embed_command", "measure"),
    [
        count("batch-size", 32, "images"),
        count("repeats", 5, "batches of each"),
        Option(
            "model",
            None,
            "checkpoint PREFIX,NUMBER, or the folder of a run; default: random weights of --encoder",
            named_checkpoint,
        ),
        Option("encoder", "resnet34", "network with random weights"),
    ],
)
FILTER = Benchmark(
    "bench filter",
    later("latse.bench.filter_command", "measure"),
    [
        count("classes", 10572, "people", least=2),
        count("batch-size", 16, "images, even; at 32 the four students need 20 GiB", least=2),
        count("repeats", 5, "steps of each"),
        Option("encoder", "resnet50", "network of students and teacher"),
    ],
)
HEAD = Benchmark(
    "bench head",
    later("latse.bench.head_command", "measure"),
    [
        count("classes", 85742, "people", least=2),
        count("batch-size", 96, "images"),
        count("repeats", 10, "steps of each"),
    ],
)
LOADER = Benchmark(
    "bench loader",
    later("latse.bench.loader_command", "measure"),
    [
        count("images", 20000, "made-up images"),
        count("batch-size", 64, "images"),
        count("repeats", 3, "epochs of each"),
        Option("data", None, "shard (train.rec, train.idx, property); default: made-up images"),
        Option(
            "peer",
            None,
            "insightface's image_iter.py, to measure its FaceImageIter too; the file is run as it is",
        ),
    ],
    declare=_add_threads,
)
PLAN = Benchmark(
    "plan compare",
    later("latse.bench.plan_command", "measure"),
    [count("repeats", 5, "measured steps")],
    peers="insightface/, its sources, whose own symbol and memonger join in where they know the recipe's "
    "network",
    declare=add_training_arguments,
)
SEARCH = Benchmark(
    "bench search",
    later("latse.bench.search_command", "measure"),
    [
        count("probes", 3530, "probes"),
        count("distractors", 100_000, "distractors"),
        count("dimensions", 512, "values of a feature"),
        count("people", 80, "people among the probes"),
        count("repeats", 3, "rounds, in each of which both run"),
        count("threads", 2, "of the CPU for each"),
        count("neighbours", 100, "that faiss finds when the ranks are compared"),
        Option(
            "likeness",
            0.7,
            "weight of a person's centre beside a deviation of weight 1; 0: mates are strangers",
            float,
        ),
    ],
)
TRAIN = Benchmark(
    "bench train",
    later("latse.bench.train_command", "measure"),
    [
        count("classes", 10572, "people", least=2),
        count("batch-size", 32, "images"),
        count("repeats", 5, "steps of each"),
        Option("encoder", "resnet50", "network"),
        Option("torch-python", None, "default: torch/bin/python of the peers"),
    ],
    peers="insightface/, its sources, and torch/, a virtual environment; without the first an equivalent "
    "stands in, without the second PyTorch is left out",
)
