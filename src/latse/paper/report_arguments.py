"""The arguments of `latse report`."""

from __future__ import annotations

import argparse

from latse.arguments import later

run = later("latse.paper.report_command")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `latse report`."""
    parser.description = (
        "Write one HTML page of all results of a run, or of several. It holds everything by itself, needs "
        "neither network nor scripts, follows the reader's light or dark setting, and prints."
    )
    parser.add_argument(
        "run_folder",
        metavar="FOLDER",
        help="the folder of a run, or one that holds the folders of runs, such as out/orl. Read are, in it "
        "and in the folders in it, run.json, metrics.jsonl, and what eval, identify, templates and figures "
        "wrote, under any name that ends in .json. The page shows what there is, and at its end the commands "
        "that make the rest.",
    )
    parser.add_argument("--out", required=True, metavar="FILE.html", help="the page to write")
