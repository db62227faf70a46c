"""What a parameter server of `latse train` does."""

from __future__ import annotations

from typing import Any

from yacs.config import CfgNode

from latse.arguments import ASYNCHRONOUS
from latse.train.mover import Mover
from latse.train.served_parameters import ParameterServer
from latse.train.served_tables import TableServer


class Server:
    """Has what worker 0 names moved, by the settings that it tells. `store` is the server's own KVStore."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self._mover: Mover | None = None

    def command(self, told: Any) -> None:
        """Take a command of worker 0, the first with `settings`."""
        if self._mover is None:
            recipe = CfgNode(told["settings"])
            kind = ParameterServer if recipe.train.kvstore == ASYNCHRONOUS else TableServer
            self._mover = kind(recipe, self._store)
        self._mover.command(told)
