"""A contender whose step is our learner's, done part by part: no part begins before the last one's end.

What the parts add up to is more than a step, in which they overlap where they can.
"""

from __future__ import annotations

import time
from typing import Any, Callable, Sequence

import mxnet as mx

from latse import recipe as recipes
from latse.bench import graph_step, head_command, learner_step
from latse.bench.protocol import Step
from latse.symbols import encoders, margins
from latse.train.learner import Learner


def _now() -> float:
    """Wait for all work and return the time."""
    mx.nd.waitall()
    return time.perf_counter()


def by_parts(learner: Learner, learn: Callable[[], Any]) -> Callable[[], dict[str, float]]:
    """Return a step of the learner that returns the seconds of its parts in their order."""
    moments: list[float] = []

    def watched(call: Callable[..., None]) -> Callable[..., None]:
        def noting_time(*args: Any) -> None:
            moments.append(_now())
            call(*args)
            moments.append(_now())

        return noting_time

    for name in ("forward_backward", "update"):
        setattr(learner._module, name, watched(getattr(learner._module, name)))

    def step() -> dict[str, float]:
        moments[:] = [_now()]
        learn()
        began, forward, backward, update, updated = moments
        return {
            "copies in": forward - began,
            "forward and backward": backward - forward,
            "optimiser": updated - update,
            "outputs to the host": _now() - updated,
        }

    return step


def contender(
    recipe: str, classes: int, batch_size: int, changes: Sequence[str]
) -> tuple[dict[str, Any], Step]:
    """Return the training of a recipe by parts, as `latse.bench.protocol.serve` takes it."""
    learner, learn = learner_step.build(recipe, classes, batch_size, changes)
    step_by_parts = by_parts(learner, learn)
    loaded = recipes.load(recipe, changes)
    loss = margins.create(classes=classes, **loaded.margin)
    embedding_size = encoders.create(**loaded.encoder).embedding_size
    loss.set_embedding_size(embedding_size)
    inputs = dict.fromkeys([graph_step.LABEL, *loss.inputs], (batch_size,))
    shapes = {"data": (batch_size, embedding_size), **inputs}
    head = head_command.bound(mx.sym.MakeLoss(loss(*map(mx.sym.var, shapes))), shapes, classes)

    def step() -> dict[str, Any]:
        parts = step_by_parts()
        began = _now()
        head_command.step(head)
        return {"parts": {**parts, "margin head alone (in forward and backward)": _now() - began}}

    return graph_step.facts(learner._module), step
