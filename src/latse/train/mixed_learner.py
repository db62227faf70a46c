"""What learns in mixed precision: float16 weights that follow float32 ones, under a scaled loss."""

from __future__ import annotations

from typing import Mapping

import mxnet as mx
import numpy as np
from mxnet.test_utils import environment

from latse.cluster.alone import ALONE, Alone
from latse.train import precision
from latse.train.learner import LABEL, Accepts, Learner
from latse.train.state import AFRESH, NamedArrays, RunState
from latse.train.training import Training


class MixedLearner(Learner):
    """A `Learner` whose graph `latse.train.precision.prepared` made of float16 arrays.

    The parameters that it begins with, goes on from and returns are float32; those of the graph are what
    float16 makes of them, so that a run goes on to the same bits. A step whose gradients are not all finite
    changes no parameter; it counts as an iteration of the schedule, and its batch has moved the statistics of
    BatchNorm, which the loss scale does not reach.

    Raises LatseError if a device does not compute in the recipe's precision.
    """

    def __init__(self, training: Training, begin: RunState = AFRESH, workers: Alone = ALONE) -> None:
        precision.check(training.recipe, training.devices)
        self._scale = precision.LossScale(training.recipe.train.loss_scale, begin.scaling)
        super().__init__(training, begin, workers)

    def step(
        self, inputs: Mapping[str, np.ndarray], seed: int, accepts: Accepts | None = None
    ) -> dict[str, np.ndarray]:
        """Learn from one batch as `Learner.step` does; raise LatseError if too many in a row are skipped.

        Its outputs, of the unscaled loss, are joined by `loss_scale` and `skipped` (1,): the scale of this
        step; 1 if its gradients were not finite, else 0.
        """
        scale = self._scale.value
        scales = np.full(len(inputs[LABEL]), scale, np.float32)
        values = super().step({**inputs, precision.LOSS_SCALE: scales}, seed, accepts)
        skipped = np.array([self._scale.streak < 0], np.float32)
        return {**values, "loss_scale": np.array([scale], np.float32), "skipped": skipped}

    def capture(self, iteration: int) -> RunState:
        """Return all that a run needs to go on after `iteration` steps; its parameters are float32."""
        return super().capture(iteration)._replace(scaling=self._scale.saved())

    def _update(self) -> None:
        """Sum the gradients over the devices; move the parameters if the sums are finite."""
        module, group = self._module, self._module._exec_group
        if module._kvstore:
            for number, (name, gradients) in enumerate(zip(group.param_names, group.grad_arrays)):
                module._kvstore.pushpull(name, gradients, priority=-number)
        optimiser = module._optimizer
        finite = precision.all_finite(copies[0] for copies in group.grad_arrays)
        if finite:
            optimiser.rescale_grad = 1 / (self._training.recipe.train.batch_size * self._scale.value)
            mx.model._update_params(
                group.param_arrays, group.grad_arrays, module._updater, len(module._context)
            )
            module._params_dirty = True
        else:
            optimiser.skip()
        self._scale.step(finite)

    def _set_parameters(self, begin: RunState) -> NamedArrays:
        """Draw float32 parameters as a float32 run does; the devices get what float16 makes of them."""
        module = self._module
        bound = module._arg_params
        module._arg_params = {name: array.astype(np.float32) for name, array in bound.items()}
        super()._set_parameters(begin)
        drawn = module._arg_params
        module._arg_params = {name: drawn[name].astype(array.dtype) for name, array in bound.items()}
        return {name: array for name, array in drawn.items() if bound[name].dtype == np.float16}

    def _set_optimiser(self, begin: RunState, masters: NamedArrays) -> None:
        # Where a KVStore moves the parameters, it does so one by one, before all gradients are seen.
        with environment("MXNET_UPDATE_ON_KVSTORE", "0"):
            super()._set_optimiser(begin, masters)
