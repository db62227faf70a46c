"""The learning rate over the iterations, by gluoncv's schedulers."""

from __future__ import annotations

from gluoncv.utils import LRScheduler, LRSequential
from yacs.config import CfgNode


def create(recipe: CfgNode) -> LRScheduler:
    """Return the recipe's scheduler, called with the number of the update, 1 for the first.

    It has no state: a resumed run goes on where it was.
    """
    schedule, iterations = recipe.schedule, recipe.train.iterations
    parts = []
    if schedule.warmup:
        parts.append(
            LRScheduler("linear", base_lr=0, target_lr=schedule.learning_rate, niters=schedule.warmup)
        )
    parts.append(
        LRScheduler(
            schedule.mode,
            base_lr=schedule.learning_rate,
            target_lr=0,
            niters=iterations - schedule.warmup + 1,  # counts update 0, which never comes
            step_iter=[step - schedule.warmup + 1 for step in schedule.steps],  # the update after the step
            step_factor=schedule.factor,
        )
    )
    return LRSequential(parts)
