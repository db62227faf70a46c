"""The optimiser of §4.1, which leaves what a loss remembers to the loss, and its learning rate."""

from __future__ import annotations

import json
from typing import Any, Mapping

import mxnet as mx
from gluoncv.utils import LRScheduler
from yacs.config import CfgNode

from latse.recipe import FLOAT32, as_dict
from latse.symbols.running import is_running


@mx.optimizer.register
class SGDWithRunning(mx.optimizer.SGD):
    """Stochastic gradient descent with momentum, except for running parameters (`latse.symbols.running`).

    Those become their old value less the mean of their gradient over the batch: no rate, momentum or decay.

    Parameters
    ----------
    one_by_one : bool, default False
        Whether each parameter is updated by an operator of its own. On CPU MXNet's operator for several takes
        over half as long again; on GPU it saves launches.
    **named : object
        As `mx.optimizer.SGD` takes them.
    """

    def __init__(self, one_by_one: bool = False, **named: Any) -> None:
        super().__init__(**named)
        if one_by_one:
            self.aggregate_num = 0

    def update_multi_precision(self, index: Any, weight: Any, grad: Any, state: Any) -> None:
        """Update one parameter, or several given as sequences."""
        several = isinstance(index, (tuple, list))
        rows = list(zip(index, weight, grad, state)) if several else [(index, weight, grad, state)]
        for key, running, gradient, _ in rows:
            if self._is_running(key):
                running[:] -= self.rescale_grad * gradient
        learned = [row for row in rows if not self._is_running(row[0])]
        if learned:
            super().update_multi_precision(*map(list, zip(*learned)))

    def create_state(self, index: int | str, weight: mx.nd.NDArray) -> mx.nd.NDArray | None:
        """Return the momentum of a parameter, None for a running one."""
        return None if self._is_running(index) else super().create_state(index, weight)

    def skip(self) -> None:
        """Count a step that changes nothing, as the schedule goes by iterations."""
        self.begin_num_update += 1
        self.num_update += 1
        for counts in self._all_index_update_counts.values():
            for index in counts:
                counts[index] += 1

    def _is_running(self, index: int | str) -> bool:
        return is_running(str(self.idx2name.get(index, index)))


def settings(recipe: CfgNode) -> dict[str, Any]:
    """Return what `optimiser` reads of a recipe, as JSON holds it."""
    return {section: as_dict(recipe[section]) for section in ("train", "schedule")}


def optimiser(
    recipe: CfgNode, attributes: Mapping[str, Mapping[str, str]], iteration: int, pushes: int = 1
) -> SGDWithRunning:
    """Return what moves parameters where Module does not.

    Parameters
    ----------
    recipe : CfgNode
        Of the run, at least its `settings`.
    attributes : mapping of str to mapping of str to str
        Those of the graph, with factors of learning rate and decay, by parameter. The optimiser calls the
        parameters by their numbers in this order.
    iteration : int
        How many are done.
    pushes : int, default 1
        How often a parameter is moved in an iteration, each time by the gradient of a part of the batch.
    """
    train = recipe.train
    made = SGDWithRunning(
        one_by_one=True,
        lr_scheduler=InParts(schedule(recipe), pushes),
        momentum=train.momentum,
        wd=train.weight_decay / pushes,
        rescale_grad=1 / train.batch_size,
        begin_num_update=iteration * pushes,
        param_idx2name=dict(enumerate(attributes)),
    )
    factors = {
        key: {
            name: float(json.loads(of[f"__{key}__"])) for name, of in attributes.items() if f"__{key}__" in of
        }
        for key in ("lr_mult", "wd_mult")
    }
    made.set_lr_mult(factors["lr_mult"])
    made.set_wd_mult(factors["wd_mult"])
    return made


def schedule(recipe: CfgNode) -> WarmedUp:
    """Return the recipe's scheduler, called with the number of the update, 1 for the first.

    It has no state: a resumed run goes on where it was.
    """
    keys = recipe.schedule
    after = LRScheduler(
        keys.mode,
        base_lr=keys.learning_rate,
        target_lr=0,
        offset=keys.warmup,
        niters=recipe.train.iterations - keys.warmup + 1,  # counts that of the offset
        step_iter=[max(step - keys.warmup, 0) + 1 for step in keys.steps],  # the update after the step
        step_factor=keys.factor,
    )
    return WarmedUp(after, keys.warmup)


class WarmedUp(mx.lr_scheduler.LRScheduler):
    """A schedule whose highest rate comes at update `warmup`, MXNet's own linear warm-up from 0 before it.

    gluoncv's LRSequential would reach that rate one update early, and cannot do so in one update.
    """

    def __init__(self, after: LRScheduler, warmup: int) -> None:
        super().__init__(after.base_lr, warmup)
        self._after = after

    def __call__(self, update: int) -> float:
        """Return the learning rate of an update, 0 where it is below the normal numbers of float32."""
        rate = self.get_warmup_lr(update) if update < self.warmup_steps else self._after(update)
        return rate if rate >= FLOAT32.tiny else 0.0


class InParts(mx.lr_scheduler.LRScheduler):
    """A schedule whose iterations are of several updates each."""

    def __init__(self, whole: WarmedUp, parts: int) -> None:
        super().__init__(whole.base_lr)
        self._whole, self._parts = whole, parts

    def __call__(self, update: int) -> float:
        """Return the learning rate of an update, 1 for the first."""
        return self._whole(-(-update // self._parts))
