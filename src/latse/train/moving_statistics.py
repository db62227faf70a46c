"""The moving mean and variance of batch normalisations: what a network knows of its images at test time.

With one momentum for the whole run they hold, for its first hundreds of iterations, what they began with and
what networks of long ago have seen. So the momentum begins at 0 and rises to the recipe's.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import Iterator

import mxnet as mx

from latse.graph.nodes import Graph

_LENGTH = 19


def momentum_at(iteration: int, highest: float) -> float:
    """Return the share of their old values that the statistics keep in an iteration, 0 for the first.

    It is n / (n + 19), where that is less than the `highest` in [0, 1), the recipe's: the first batch sets
    the statistics, and later they average over about the last twentieth of all iterations. It depends on
    nothing else, so that a run which goes on continues alike.
    """
    return min(highest, iteration / (iteration + _LENGTH))


def with_momentum(symbol: mx.sym.Symbol, momentum: float) -> mx.sym.Symbol:
    """Return a graph whose batch normalisations keep that much of their moving mean and variance a batch.

    It decides over how many batches the statistics of test time are averaged, 1 / (1 - momentum), and nothing
    else. `momentum` is in [0, 1); insightface has 0.9, too few images where batches are small.
    """
    graph = Graph.read(symbol)
    for node in graph.nodes:
        if node.op == "BatchNorm":
            node.attrs["momentum"] = str(momentum)
    return graph.symbol()


class MovingStatistics:
    """The statistics that a bound training graph moves, on all its devices.

    Parameters
    ----------
    module : mx.mod.Module
        Bound, with its parameters.
    momentum : float
        That of every BatchNorm in its graph, as `with_momentum` sets it.
    """

    def __init__(self, module: mx.mod.Module, momentum: float) -> None:
        nodes = Graph.read(module.symbol).nodes
        moves = Counter(
            nodes[i].name
            for node in nodes
            if node.op == "BatchNorm" and node.attrs.get("use_global_stats") not in ("True", "1")
            for i, _ in node.inputs[3:]
        )
        group = module._exec_group
        self._momentum = momentum
        # What each array keeps of its old value in a step; a layer that is used twice moves it twice.
        self._arrays = [
            (array, momentum ** moves[name])
            for name, copies in zip(group.aux_names, group.aux_arrays)
            for array in copies
            if name in moves
        ]

    @contextlib.contextmanager
    def moved(self, iteration: int) -> Iterator[None]:
        """Have the forward and backward pass inside move the statistics as `momentum_at` says.

        The executor's momentum m is fixed. It makes m·value + (1 - m)·batch of a value, so that the value is
        scaled before and the result after: no difference of like numbers is taken.
        """
        now = momentum_at(iteration, self._momentum)
        if now == self._momentum:
            yield
            return
        for array, kept in self._arrays:
            _scale(array, now / (1 - now) * (1 - kept) / kept)
        yield  # the engine lets a later change of an array wait for the backward pass, which reads it
        for array, kept in self._arrays:
            _scale(array, (1 - now) / (1 - kept))


def _scale(array: mx.nd.NDArray, factor: float) -> None:
    """Multiply an array in place; `array[:] *= factor` would do the same in five times the time."""
    array *= factor
