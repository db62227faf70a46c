"""What learns where workers do not wait for each other: the servers move the parameters."""

from __future__ import annotations

import mxnet as mx

from latse.cluster.workers import Workers
from latse.train.learner import Learner
from latse.train.served_parameters import ServedParameters
from latse.train.state import NOTHING, NamedArrays, RunState


class AsynchronousLearner(Learner):
    """A `Learner` that sends its gradients and goes on with what the parameters are then.

    The servers move the parameters by the gradients of each worker, whenever they come: by those of a part of
    a batch, and perhaps of older parameters. So no run of several workers is repeated to the bit.
    """

    def capture(self, iteration: int) -> RunState:
        """Return all that a run needs to go on after `iteration` steps; all workers go on with its arrays.

        Worker 0 alone gets the momentum.
        """
        mx.nd.waitall()
        self._workers.gather(f"the gradients of iteration {iteration}", None)
        parameters = self._served.parameters()
        momentum = self._served.momentum() if self._workers.rank == 0 else NOTHING
        self._workers.gather(f"the parameters of iteration {iteration}", None)  # nobody moves them before
        _, aux_params = self._module.get_params()
        aux_params = self._workers.mean("aux", aux_params)
        self._module.set_params(parameters, aux_params)
        return RunState(iteration, parameters, aux_params, momentum)

    def _update(self) -> None:
        group = self._module._exec_group
        for number, arrays in enumerate(zip(group.param_names, group.grad_arrays, group.param_arrays)):
            self._served.exchange(*arrays, priority=-number)
        self._module._params_dirty = True

    def _skip(self) -> None:
        self._served.skip()

    def _set_optimiser(self, begin: RunState, masters: NamedArrays) -> None:
        workers, symbol = self._workers, self._training.graph.symbol
        assert isinstance(workers, Workers)  # a run of one process has no servers
        values = {name: self._module._arg_params[name] for name in self._module._exec_group.param_names}
        about = self._training.recipe, begin.iteration, values, begin.momentum, symbol.attr_dict()
        self._served = ServedParameters(workers, *about)
