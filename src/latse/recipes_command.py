"""`latse recipes`: what is shipped, what a recipe sets and where, and the page of all keys."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from types import ModuleType
from typing import Any, Mapping

import yaml

from latse import recipe as recipes
from latse.recipe_keys import KEYS, OPEN, Key
from latse.text_table import markdown

PAGE = """\
# Recipes

<!-- `latse recipes --keys` writes this page; tests/base/test_recipes_command.py holds it to the code. -->

A recipe is a YAML file that names only what differs from the defaults below. The defaults are the paper's
§4.1. Give a recipe by its path, or give a shipped one by its name from any folder:

    latse train orl_teacher --data data/orl --out out/teacher --set train.iterations=100
    latse recipes                 # the shipped recipes
    latse recipes orl_teacher     # each value of one recipe, and what set it

- `base: NAME` reads another recipe first: a shipped one, or a file relative to this one.
- `--set section.key=value` comes last and wins. Every command with a recipe takes it.
- An unknown key, a wrong type or a value out of range is an error. It names the key and what set it: the
  file, its base or `--set`.

## Keys

{keys}

## Encoders

The section `encoder` holds the name of an encoder and that encoder's own parameters, all floats. Besides the
names of this table there are `gluoncv/NAME`, an image classifier of gluoncv's model zoo
([encoders.md](encoders.md)), and `FILE.py:CLASS`, a network of your own ([extending.md](extending.md)).

{encoders}

## Margins

The section `margin` holds the name of a loss and that loss's own parameters, all floats. Another name drops
the parameters of the old loss except the scale `s`. [margins.md](margins.md) explains each loss and gives the
ranges. [extending.md](extending.md) shows how to add your own as `FILE.py:CLASS`; the file's path is relative
to the recipe's.

{margins}

## Shipped recipes

{recipes}

Studies (`latse study NAME`) train variants of a recipe:

{studies}
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `latse recipes`."""
    parser.add_argument(
        "recipe", nargs="?", help="name or YAML file to show (default: list the shipped ones)"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="change a key"
    )
    parser.add_argument("--keys", action="store_true", help="print every key, in Markdown (docs/recipes.md)")


def run(args: argparse.Namespace) -> None:
    """Print what was asked for; raise LatseError for a recipe that `latse train` would refuse."""
    if args.keys:
        print(page(), end="")
    elif args.recipe:
        print(shown(args.recipe, args.set), end="")
    else:
        for title, summary in _summaries(recipes.SHIPPED):
            print(f"{title:32} {summary}")


def shown(name: str, overrides: list[str]) -> str:
    """Return a recipe whole, in YAML, each value with what set it."""
    recipe, origins = recipes.traced(name, overrides)
    lines = []
    for section, values in recipes.as_dict(recipe).items():
        lines.append(f"{section}:")
        for key, value in values.items():
            origin = origins.get(f"{section}.{key}", recipes.DEFAULT)
            lines.append(f"  {f'{key}: {_yaml(value)}':<40}# {origin}")
    return "\n".join(lines) + "\n"


def page() -> str:
    """Return docs/recipes.md."""
    keys = [["key", "type", "default", "range", "meaning"], *map(_row, KEYS.values())]
    return PAGE.format(
        keys=_table(keys),
        encoders=_classes(OPEN["encoder"], OPEN["encoder"].ENCODERS, "encoder"),
        margins=_classes(OPEN["margin"], OPEN["margin"].MARGINS, "loss"),
        recipes=_table([["recipe", "what it trains"], *_summaries(recipes.SHIPPED)]),
        studies=_table([["study", "what it compares"], *_summaries(recipes.STUDIES)]),
    )


def _classes(kind: ModuleType, shipped: Mapping[str, type], title: str) -> str:
    """Return a table of the shipped classes of a kind, with their parameters."""
    rows = [["name", "parameters and defaults", title]]
    for name, chosen in shipped.items():
        parameters = ", ".join(f"{key} = {value:g}" for key, value in kind.parameters(name).items())
        rows.append([f"`{name}`", parameters, chosen.__doc__.splitlines()[0]])
    return _table(rows)


def _row(key: Key) -> list[str]:
    types = " or ".join(key.types.values())
    return [f"`{key.name}`", types, f"`{_yaml(key.default)}`", key.must.says, key.meaning]


def _yaml(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True).replace("\n...", "").strip()


def _summaries(folder: Path) -> list[list[str]]:
    """Return the name of each recipe in a folder, and the first sentence of the comment at its head."""
    rows = []
    for path in sorted(folder.glob("*.yaml")):
        comment = " ".join(re.match(r"(?:#.*\n)*", path.read_text())[0].replace("#", "").split())
        rows.append([path.stem, re.split(r"(?<=\.) (?=[A-Z])", comment)[0]])
    return rows


def _table(rows: list[list[str]]) -> str:
    return markdown([[cell.replace("|", "\\|") for cell in row] for row in rows]).replace("---:", "---")
