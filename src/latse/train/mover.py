"""What moves a run's arrays on a parameter server, as worker 0 tells it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from yacs.config import CfgNode

from latse.cluster.meeting import ended
from latse.train.optimiser import SGDWithRunning


class Mover(ABC):
    """One server's share of a run's arrays.

    Parameters
    ----------
    recipe : CfgNode
        What `latse.train.optimiser.settings` returned of that of the run.
    store : mx.kv.KVStore
        The server's own.
    """

    def __init__(self, recipe: CfgNode, store: Any) -> None:
        self._recipe, self._store = recipe, store

    @abstractmethod
    def command(self, told: Any) -> None:
        """Take a command of worker 0."""

    @abstractmethod
    def update(self, key: int, received: Any, stored: Any) -> None:
        """Take what was pushed to a key, by the server's number of it."""

    def _begin(self, optimiser: SGDWithRunning) -> None:
        """Move arrays from now on."""
        self._optimiser = optimiser
        self._store._set_updater(self._updated)

    def _updated(self, key: int, received: Any, stored: Any) -> None:
        """Update; where that fails the process ends, as MXNet passes over exceptions."""
        try:
            self.update(key, received, stored)
        except Exception as error:  # whatever it is, the arrays would not be what the workers think
            ended(f"a server cannot move its arrays: {error!r}")
