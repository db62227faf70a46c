"""How far the workers of a run may be apart, and how they agree on its last iteration."""

from __future__ import annotations

from collections import deque

from latse.arguments import ASYNCHRONOUS
from latse.cluster.alone import Alone
from latse.cluster.workers import Workers

AHEAD = 4  # iterations


class InStep:
    """Workers that end each iteration together."""

    def __init__(self, workers: Alone) -> None:
        self._workers = workers

    def stops(self, iteration: int, asked: bool) -> bool:
        """Tell, of an iteration just done, whether it is the last, as a worker was `asked` to stop."""
        return any(self._workers.gather(f"iteration {iteration}", asked))


class Loose:
    """Workers of which none ends more than `AHEAD` iterations before the slowest.

    That one of them was asked to stop all learn some iterations later; they stop at the same one.
    """

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._said: deque[int] = deque()

    def stops(self, iteration: int, asked: bool) -> bool:
        """Tell, of an iteration just done, whether it is the last, as a worker was `asked` to stop."""
        self._said.append(self._workers.say(f"iteration {iteration}", asked))
        return len(self._said) >= AHEAD and any(self._workers.hear(self._said.popleft()))


def pace(workers: Alone, kvstore: str) -> InStep | Loose:
    """Return the pace of the workers of a run, by its KVStore."""
    if isinstance(workers, Workers) and workers.count > 1 and kvstore == ASYNCHRONOUS:
        return Loose(workers)
    return InStep(workers)
