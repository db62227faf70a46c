"""The arguments of `latse recipes`."""

from __future__ import annotations

import argparse

from latse.arguments import add_set_argument, later

run = later("latse.recipes_command")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `latse recipes`."""
    parser.add_argument(
        "recipe", nargs="?", help="name or YAML file to show (default: list the shipped ones)"
    )
    add_set_argument(parser, "change a key")
    parser.add_argument("--keys", action="store_true", help="print the tables of docs/recipes.md, every key")
