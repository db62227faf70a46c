"""The arguments of `latse study`."""

from __future__ import annotations

import argparse

from latse.arguments import add_set_argument, later
from latse.runtime import cores

run = later("latse.study.study_command")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `latse study`."""
    parser.add_argument("study", help="YAML file, or the name of a shipped study, such as orl_losses")
    parser.add_argument("--data", required=True, metavar="FOLDER", help="train.rec, train.idx and property")
    parser.add_argument(
        "--others", metavar="FOLDER", help="a set of other people, from which rows with `others: true` learn"
    )
    parser.add_argument("--pairs", nargs="+", required=True, metavar="FILE.bin", help="pairs to judge on")
    parser.add_argument(
        "--identification",
        metavar="FOLDER",
        help="people to find: FOLDER/probes among FOLDER/distractors, as `latse data synth` makes them",
    )
    parser.add_argument(
        "--inspect",
        action="store_true",
        help="also measure class centres, generated faces, and what embeddings hold, as `latse inspect` does",
    )
    parser.add_argument("--out", required=True, metavar="FOLDER", help="a folder for each row and seed in it")
    parser.add_argument(
        "--results",
        metavar="FOLDER",
        help="where the result of each run is kept, some kilobytes; what is there is not done again, even if "
        "the run itself is gone (default: OUT/results)",
    )
    parser.add_argument(
        "--rows", nargs="+", metavar="ROW", help="only these rows, and those that they need; * stands for any"
    )
    parser.add_argument(
        "--seeds", nargs="+", type=int, metavar="N", help="these seeds (default: those of the study)"
    )
    parser.add_argument(
        "--jobs",
        type=int,
        default=cores(),
        metavar="N",
        help="runs at a time, sharing the cores (default: %(default)s)",
    )
    add_set_argument(parser, "change one key in every row")
