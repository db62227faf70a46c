"""`latse recipes`: what is shipped, what a recipe sets and where, and every key."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from types import ModuleType
from typing import Mapping

from latse import recipe as recipes
from latse.recipe_keys import KEYS, OPEN, Key
from latse.text_table import markdown


def run(args: argparse.Namespace) -> None:
    """Print what was asked for; raise LatseError for a recipe that `latse train` would refuse."""
    if args.keys:
        print("\n\n".join(tables()))
    elif args.recipe:
        print(shown(args.recipe, args.set), end="")
    else:
        for folder, of in ((recipes.SHIPPED, "recipes"), (recipes.STUDIES, "studies, for `latse study`")):
            print(f"{of}:")
            for title, summary in _summaries(folder):
                print(f"  {title:32} {summary}")


def shown(name: str, overrides: list[str]) -> str:
    """Return a recipe whole, in YAML, each value with what set it."""
    recipe, origins = recipes.traced(name, overrides)
    lines = []
    for section, values in recipes.as_dict(recipe).items():
        lines.append(f"{section}:")
        for key, value in values.items():
            origin = origins.get(f"{section}.{key}", recipes.DEFAULT)
            lines.append(f"  {f'{key}: {recipes.in_yaml(value)}':<40}# {origin}")
    return "\n".join(lines) + "\n"


def tables() -> list[str]:
    """Return the tables of docs/recipes.md: keys, encoders, losses, selections, recipes, studies."""
    return [
        _table([["key", "default", "must be", "meaning"], *map(_row, KEYS.values())]),
        _classes(OPEN["encoder"], OPEN["encoder"].ENCODERS, "encoder"),
        _classes(OPEN["margin"], OPEN["margin"].MARGINS, "loss"),
        _classes(OPEN["selection"], OPEN["selection"].SELECTIONS, "selection"),
        _table([["recipe", "what it trains"], *_summaries(recipes.SHIPPED)]),
        _table([["study", "what it compares"], *_summaries(recipes.STUDIES)]),
    ]


def _classes(kind: ModuleType, shipped: Mapping[str, type], title: str) -> str:
    """Return a table of the shipped classes of a kind, with their parameters."""
    rows = [["name", "parameters and defaults", title]]
    for name, chosen in shipped.items():
        parameters = ", ".join(f"{key} = {value:g}" for key, value in kind.parameters(name).items())
        rows.append([f"`{name}`", parameters, chosen.__doc__.splitlines()[0]])
    return _table(rows)


def _row(key: Key) -> list[str]:
    return [f"`{key.name}`", f"`{recipes.in_yaml(key.default)}`", key.must.says, key.meaning]


def _summaries(folder: Path) -> list[list[str]]:
    """Return the name of each recipe in a folder, and the first sentence of the comment at its head."""
    rows = []
    for path in sorted(folder.glob("*.yaml")):
        comment = " ".join(re.match(r"(?:#.*\n)*", path.read_text())[0].replace("#", "").split())
        rows.append([path.stem, re.split(r"(?<=\.) (?=[A-Z])", comment)[0]])
    return rows


def _table(rows: list[list[str]]) -> str:
    return markdown([[cell.replace("|", "\\|") for cell in row] for row in rows]).replace("---:", "---")
