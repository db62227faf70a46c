"""`latse report`: one HTML page of all results of a run."""

from __future__ import annotations

import argparse
from pathlib import Path

from latse.files import write_text
from latse.paper.report import gather, page
from latse.provenance import provenance


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `latse report`."""
    parser.description = (
        "Write one HTML page of all results of a run. It holds everything by itself, needs neither network "
        "nor scripts, follows the reader's light or dark setting, and prints."
    )
    parser.add_argument(
        "run_folder",
        metavar="RUN_FOLDER",
        help="such as out/orl; read are {teacher,student}/{run.json,metrics.jsonl}, "
        "student/{verification,identification,templates}.json and figures/figures.json. What is absent is "
        "said on the page.",
    )
    parser.add_argument("--out", required=True, metavar="FILE.html", help="the page to write")


def run(args: argparse.Namespace) -> None:
    """Read the results, write the page and print its path; raise LatseError for bad input."""
    html = page(gather(Path(args.run_folder)), provenance(args))
    write_text(args.out, html)
    print(args.out)
