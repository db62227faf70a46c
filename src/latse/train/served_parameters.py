"""Parameters on MXNet's parameter servers, which move them whenever the gradients of any worker come."""

from __future__ import annotations

from typing import Any, Iterable, Mapping, Sequence

import mxnet as mx
from yacs.config import CfgNode

from latse.cluster.alone import NamedArrays
from latse.cluster.workers import Workers
from latse.symbols.running import is_running
from latse.train.mover import Mover
from latse.train.optimiser import optimiser, settings

MOMENTUM = "momentum:"  # begins the key of a parameter's momentum


class ServedParameters:
    """The parameters of a run, as its workers see them. All begin with what worker 0 has.

    Parameters
    ----------
    workers : Workers
        Those of the run.
    recipe : CfgNode
        By which the servers move the parameters.
    iteration : int
        How many are done.
    values, momentum : mapping of str to NDArray
        float32, by parameter; a parameter without momentum begins with 0.
    attributes : mapping of str to mapping of str to str
        Those of the graph, by parameter, as of `latse.train.optimiser.optimiser`.
    """

    def __init__(
        self,
        workers: Workers,
        recipe: CfgNode,
        iteration: int,
        values: NamedArrays,
        momentum: NamedArrays,
        attributes: Mapping[str, Mapping[str, str]],
    ) -> None:
        self._workers, self._store = workers, workers.store(recipe.train.kvstore)
        self._shapes = {name: value.shape for name, value in values.items()}
        self._with_momentum = [name for name in values if recipe.train.momentum and not is_running(name)]
        for name, value in values.items():
            self._store.init(name, value)
        for name in self._with_momentum:
            workers.go_with(name)
            self._store.init(MOMENTUM + name, momentum[name] if name in momentum else self._zeros(name))
        workers.tell_servers(
            {
                "settings": settings(recipe),
                "iteration": iteration,
                "workers": workers.count,
                "attributes": {name: attributes.get(name, {}) for name in values},
                "numbers": {key: number for number, key in enumerate(self._store.keys)},
            }
        )
        if workers.rank == 0:
            for name in self._with_momentum:  # by a push a server gets hold of its part
                self._store.push(MOMENTUM + name, self._zeros(name))
            mx.nd.waitall()
        workers.gather("the parameters at the start", None)

    def exchange(self, name: str, gradients: Sequence[Any], out: Sequence[Any], priority: int) -> None:
        """Send the gradients that devices have of a parameter; `out` gets what it is then, on each."""
        self._store.pushpull(name, gradients, out=out, priority=priority)

    def skip(self) -> None:
        """Count an iteration that moves nothing; all workers do."""
        self._workers.tell_servers({"skip": self._workers.count})

    def parameters(self) -> dict[str, Any]:
        """Return all parameters, by name."""
        return self._pulled(self._shapes, "")

    def momentum(self) -> dict[str, Any]:
        """Return the momentum of every parameter that has one, by its name."""
        return self._pulled(self._with_momentum, MOMENTUM)

    def _pulled(self, names: Iterable[str], kind: str) -> dict[str, Any]:
        found = {name: self._zeros(name) for name in names}
        for name, array in found.items():
            self._store.pull(kind + name, out=array)
        mx.nd.waitall()
        return found

    def _zeros(self, name: str) -> Any:
        return mx.nd.zeros(self._shapes[name])


class ParameterServer(Mover):
    """What a server does with the parameters of a run whose workers do not wait for each other."""

    def __init__(self, recipe: CfgNode, store: Any) -> None:
        super().__init__(recipe, store)
        self._held: dict[str, Any] = {}  # this server's parts of the momentum, arrays of the store

    def command(self, told: Any) -> None:
        """Take a command of `ServedParameters`: what the keys are, or that an iteration is skipped."""
        if "skip" in told:
            for _ in range(told["skip"]):
                self._optimiser.skip()
            return
        attributes = told["attributes"]
        made = optimiser(self._recipe, attributes, told["iteration"], told["workers"])
        self._names = made.idx2name = {number: key for key, number in told["numbers"].items()}
        self._begin(made)

    def update(self, key: int, received: Any, stored: Any) -> None:
        """Move a parameter by what one worker has pushed; get hold of a momentum."""
        name = self._names[key]
        if name.startswith(MOMENTUM):
            self._held[name] = stored
        else:
            self._optimiser.update_multi_precision(key, stored, received, self._held.get(MOMENTUM + name))
