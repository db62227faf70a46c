"""A training graph on its devices with parameters and optimiser: Module over a KVStore."""

from __future__ import annotations

from typing import Callable, Dict, Mapping

import mxnet as mx
import numpy as np
from mxnet.test_utils import environment
from yacs.config import CfgNode

from latse.cluster.alone import ALONE, Alone
from latse.models.runner import as_input
from latse.train import state
from latse.train.moving_statistics import MovingStatistics
from latse.train.optimiser import SGDWithRunning, schedule
from latse.train.state import AFRESH, NOTHING, NamedArrays, RunState
from latse.train.training import Training

LABEL = "softmax_label"
Accepts = Callable[[Dict[str, np.ndarray]], bool]


class Learner:
    """What learns: one training graph, bound, with all that a step changes.

    At iteration 0 what is not in `begin` begins at random. Of several `workers` all begin as worker 0 does.
    """

    def __init__(self, training: Training, begin: RunState = AFRESH, workers: Alone = ALONE) -> None:
        self._training, self._workers = training, workers
        symbol, shapes = training.graph
        others = [name for name in shapes if name != LABEL]
        self._module = mx.mod.Module(
            symbol,
            others,
            [LABEL],
            context=training.devices,
            compression_params=_compression(training.recipe),
        )
        whole = {table.name for table in training.tables}  # that no device gets a part of
        data = [mx.io.DataDesc(n, shapes[n], layout="" if n in whole else "NCHW") for n in others]
        gradients = dict.fromkeys(whole, "write") if whole else "write"
        self._module.bind(data, [(LABEL, shapes[LABEL])], grad_req=gradients)
        self._set_optimiser(begin, self._set_parameters(begin))
        self._statistics = MovingStatistics(self._module, training.recipe.train.statistics_momentum)
        self._schedule, self._iteration = schedule(training.recipe), begin.iteration
        self._output_names = [name[: -len("_output")] for name in self._module.output_names]

    @property
    def learning_rate(self) -> float:
        """The rate of the last step, or of the first one before it."""
        return self._schedule(self._iteration)

    def step(
        self, inputs: Mapping[str, np.ndarray], seed: int, accepts: Accepts | None = None
    ) -> dict[str, np.ndarray]:
        """Learn from one batch.

        Parameters
        ----------
        inputs : mapping of str to array (B, ...)
            Every input of the graph by name, of any type; other names are not read.
        seed : int
            Of this step's dropout, in 0..2³¹ - 1.
        accepts : callable, optional
            Takes what is returned and tells whether to learn from it. Otherwise the step changes nothing,
            but counts as an iteration of the schedule.

        Returns
        -------
        dict of str to float32 array (B,)
            The graph's outputs by name, computed with the parameters before the step.
        """
        mx.random.seed(seed)
        arrays = {name: as_input(inputs[name]) for name in self._training.graph.shapes}
        label = arrays.pop(LABEL)
        before = [array.copy() for array in self._auxiliary()] if accepts else []
        with self._statistics.moved(self._iteration):
            self._module.forward_backward(mx.io.DataBatch(list(arrays.values()), [label]))
        self._iteration += 1
        if accepts is None:
            self._update()  # before the outputs are waited for
            return self._outputs()
        outputs = self._outputs()
        if accepts(outputs):
            self._update()
        else:
            mx.nd.waitall()  # BatchNorm moves its statistics behind the engine's back
            for array, old in zip(self._auxiliary(), before):
                old.copyto(array)
            self._skip()
        return outputs

    def table_gradients(self) -> dict[str, np.ndarray]:
        """Return the gradients of the last step for the tables of a sampled head, sums over the batch."""
        executors = self._module._exec_group.execs
        return {
            table.name: np.sum([executor.grad_dict[table.name].asnumpy() for executor in executors], axis=0)
            for table in self._training.tables
        }

    def capture(self, iteration: int) -> RunState:
        """Return all that a run needs to go on after `iteration` steps."""
        return state.capture(self._module, iteration, self._workers)

    def _outputs(self) -> dict[str, np.ndarray]:
        return {name: array.asnumpy() for name, array in zip(self._output_names, self._module.get_outputs())}

    def _auxiliary(self) -> list[mx.nd.NDArray]:
        """Return the moving statistics on every device."""
        return [array for copies in self._module._exec_group.aux_arrays for array in copies]

    def _update(self) -> None:
        """Move the parameters by the gradients of the step."""
        self._module.update()

    def _skip(self) -> None:
        """Count a step that moves nothing."""
        self._module._optimizer.skip()

    def _set_parameters(self, begin: RunState) -> NamedArrays:
        """Set or draw all parameters; return the float32 ones that float16 parameters follow."""
        mx.random.seed(self._training.seed)
        np.random.seed(self._training.seed)  # some of MXNet's initialisers draw from numpy
        self._module.init_params(
            # insightface's, fit for residual units with PReLU.
            mx.init.Xavier(rnd_type="gaussian", factor_type="out", magnitude=2),
            arg_params=begin.arg_params,
            aux_params=begin.aux_params,
            allow_missing=begin.iteration == 0 or not begin.arg_params,
        )
        if self._workers.count > 1:
            arg_params, aux_params = self._module._arg_params, self._module._aux_params
            agreed = self._workers.first("arg", arg_params), self._workers.first("aux", aux_params)
            self._module.set_params(*agreed)
        return NOTHING

    def _set_optimiser(self, begin: RunState, masters: NamedArrays) -> None:
        """Set what moves the parameters; `masters` are what `_set_parameters` returned."""
        recipe = self._training.recipe
        train = recipe.train
        # Of several workers each moves its own parameters by the sum of all gradients: the servers then run
        # nothing that was sent to them, and every worker knows the whole state.
        own = {} if self._workers is ALONE else {"MXNET_UPDATE_ON_KVSTORE": "0"}
        # Before gradients are compressed: from then on all that is sent is.
        momentum = self._agreed_momentum(begin)
        with environment(own):
            self._module.init_optimizer(
                kvstore=self._workers.store(train.kvstore),
                optimizer=SGDWithRunning.__name__,
                optimizer_params={
                    "one_by_one": self._training.devices[0].device_type == "cpu",
                    "lr_scheduler": schedule(recipe),
                    "momentum": train.momentum,
                    "wd": train.weight_decay,
                    "multi_precision": True,  # of float16 parameters, where there are any
                    "rescale_grad": 1 / train.batch_size,  # each sample's loss counts equally on any device
                    "begin_num_update": begin.iteration,
                },
            )
        state.restore(self._module, momentum, masters)

    def _agreed_momentum(self, begin: RunState) -> NamedArrays:
        """Return the momentum that worker 0 begins with."""
        names, *_ = self._workers.gather("the momentum at the start", sorted(begin.momentum))
        own = dict(begin.momentum) or {
            name: mx.nd.zeros(self._module._arg_params[name].shape) for name in names
        }
        return self._workers.first("momentum", own)


def _compression(recipe: CfgNode) -> dict[str, object] | None:
    """Return how gradients are compressed, as `mx.mod.Module` takes it."""
    threshold = recipe.train.compression_threshold
    return None if threshold is None else {"type": "2bit", "threshold": threshold}
