"""A training graph on its devices with parameters and optimiser: Module over a KVStore."""

from __future__ import annotations

from typing import Mapping

import mxnet as mx
import numpy as np
from yacs.config import CfgNode

from latse.models.parameters import Parameters
from latse.models.runner import as_input
from latse.train import schedule, state
from latse.train.optimiser import SGDWithRunning

LABEL = "softmax_label"


class Learner:
    """What learns: one training graph, bound, with all that a step changes.

    Parameters
    ----------
    recipe : CfgNode
        As `latse.recipe.load` returns it.
    symbol : mx.sym.Symbol
        The training graph, with or without a memory plan.
    shapes : mapping of str to tuple of int
        The shape of every input for the whole batch, as `latse.train.graph.shapes` returns it.
    contexts : list of mx.Context
        Devices; the batch is split over them evenly.
    seed : int
        Decides the initial parameters; at least 0.
    resumed : State, optional
        Where the run goes on; by default at the start.
    start : Parameters, optional
        What the first iteration begins with; all that is not among it begins at random.
    """

    def __init__(
        self,
        recipe: CfgNode,
        symbol: mx.sym.Symbol,
        shapes: Mapping[str, tuple[int, ...]],
        contexts: list[mx.Context],
        seed: int,
        resumed: state.State | None = None,
        start: Parameters | None = None,
    ) -> None:
        self._recipe, self._shapes = recipe, dict(shapes)
        self._module = mx.mod.Module(
            symbol,
            data_names=[name for name in shapes if name != LABEL],
            label_names=[LABEL],
            context=contexts,
        )
        self._module.bind(
            data_shapes=[(name, shape) for name, shape in shapes.items() if name != LABEL],
            label_shapes=[(LABEL, shapes[LABEL])],
        )
        self._set_parameters(seed, resumed, start or Parameters({}, {}))
        self._set_optimiser(resumed)
        self._output_names = [name[: -len("_output")] for name in self._module.output_names]

    @property
    def learning_rate(self) -> float:
        """The rate of the last step, or of the first one before it."""
        return self._module._optimizer.learning_rate

    def step(self, inputs: Mapping[str, np.ndarray], seed: int) -> dict[str, np.ndarray]:
        """Learn from one batch.

        Parameters
        ----------
        inputs : mapping of str to array (B, ...)
            Every input of the graph by name, of any type; other names are not read.
        seed : int
            Of this step's dropout, in 0..2³¹ - 1.

        Returns
        -------
        dict of str to float32 array (B,)
            The graph's outputs by name, computed with the parameters before the step.
        """
        mx.random.seed(seed)
        arrays = {name: as_input(inputs[name]) for name in self._shapes}
        label = arrays.pop(LABEL)
        self._module.forward_backward(mx.io.DataBatch(list(arrays.values()), [label]))
        self._update()
        return {name: array.asnumpy() for name, array in zip(self._output_names, self._module.get_outputs())}

    def capture(self, iteration: int) -> state.State:
        """Return all that a run needs to go on after `iteration` steps."""
        return state.capture(self._module, iteration)

    def _update(self) -> None:
        self._module.update()

    def _set_parameters(self, seed: int, resumed: state.State | None, start: Parameters) -> None:
        mx.random.seed(seed)
        np.random.seed(seed)  # some of MXNet's initialisers draw from numpy
        if resumed:
            self._module.init_params(arg_params=resumed.arg_params, aux_params=resumed.aux_params)
        else:
            # insightface's, fit for residual units with PReLU.
            self._module.init_params(
                mx.init.Xavier(rnd_type="gaussian", factor_type="out", magnitude=2),
                arg_params=start.args,
                aux_params=start.aux,
                allow_missing=True,
            )

    def _set_optimiser(self, resumed: state.State | None) -> None:
        train = self._recipe.train
        self._module.init_optimizer(
            kvstore=train.kvstore,
            optimizer=SGDWithRunning.__name__,
            optimizer_params={
                "one_by_one": self._module._context[0].device_type == "cpu",
                "lr_scheduler": schedule.create(self._recipe),
                "momentum": train.momentum,
                "wd": train.weight_decay,
                "multi_precision": True,  # of float16 parameters, where there are any
                "rescale_grad": 1 / train.batch_size,  # each sample's loss counts equally on any device
                "begin_num_update": resumed.iteration if resumed else 0,
            },
        )
        if resumed:
            state.restore(self._module, resumed)
