"""What a parameter server of `latse train` does."""

from __future__ import annotations

import argparse
from typing import Any

from latse import recipe as recipes
from latse.arguments import ASYNCHRONOUS
from latse.train.mover import Mover
from latse.train.served_parameters import ParameterServer
from latse.train.served_tables import TableServer


def server(args: argparse.Namespace, store: Any) -> Mover:
    """Return what serves the arrays of `latse train` with some arguments."""
    recipe = recipes.load(args.recipe, args.set, {"--kvstore": ("train.kvstore", args.kvstore)})
    kind = ParameterServer if recipe.train.kvstore == ASYNCHRONOUS else TableServer
    return kind(recipe, store)
