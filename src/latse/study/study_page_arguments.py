"""The arguments of `latse study-page`."""

from __future__ import annotations

import argparse

from latse.arguments import later

run = later("latse.study.study_page_command")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `latse study-page`."""
    parser.add_argument("study", help="YAML file, or the name of a shipped study, such as orl_losses")
    parser.add_argument(
        "--results", required=True, metavar="FOLDER", help="of `latse study`; runs may be missing"
    )
    parser.add_argument(
        "--page",
        required=True,
        metavar="FILE.md",
        help="what stands between its markers is replaced, <!-- study: table NAME --> … <!-- end -->",
    )
    parser.add_argument(
        "--pictures", metavar="FOLDER", help="of the plots, NAME.svg (default: pictures, beside the page)"
    )
