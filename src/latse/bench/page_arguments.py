"""The arguments of `latse bench page`."""

from __future__ import annotations

import argparse

from latse.arguments import later

run = later("latse.bench.page_command")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `latse bench page`."""
    parser.add_argument(
        "folder", metavar="FOLDER", help="results, the --json of benchmarks: FOLDER/NAME.json"
    )
    parser.add_argument(
        "--out", required=True, metavar="FILE.md", help="the page to write; FILE_details.md goes beside it"
    )
    parser.add_argument("--chart", metavar="FILE.png", help="the chart to write and to show on the page")
    parser.add_argument(
        "--notes",
        metavar="FOLDER",
        help="what is written by hand: NAME.md for NAME.json, introduction.md and details.md for the tops of "
        "the pages (default: FILE_notes beside FILE.md)",
    )
