"""The arguments of `latse encoders`."""

from __future__ import annotations

import argparse

from latse.arguments import later

run = later("latse.paper.encoders_command")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the sub-command of `latse encoders`."""
    commands = parser.add_subparsers(dest="encoders_command", required=True, metavar="COMMAND")
    listing = commands.add_parser(
        "list",
        help="show encoders and how large they are",
        description="Show for each encoder its parameters and its multiply-adds for an image, both in "
        "millions, and the length of its embedding. A network that could not be trained and read again is "
        "refused.",
    )
    listing.add_argument(
        "names", nargs="*", metavar="NAME", help="names as recipes have them (default: all that are shipped)"
    )
    listing.add_argument(
        "--gluoncv", action="store_true", help="also all of gluoncv's model zoo that take images of 112x112"
    )
    listing.add_argument("--markdown", action="store_true", help="as a table of Markdown (docs/encoders.md)")
