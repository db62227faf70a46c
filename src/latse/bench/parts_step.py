"""A contender whose step is our learner's, done part by part: no part begins before the last one's end.

What the parts add up to is more than a step, in which they overlap where they can.
"""

from __future__ import annotations

import functools
import time
from typing import Any, Callable, Sequence

import mxnet as mx

from latse import recipe as recipes
from latse.bench import graph_step, head_command, learner_step
from latse.bench.protocol import Step
from latse.symbols import encoders, margins
from latse.symbols.margins import Loss
from latse.train.learner import Learner

BEFORE, AFTER = "copies in", "outputs to the host"
CALLS = {"forward_backward": "forward and backward", "update": "optimiser"}
HEAD = "margin head alone (in forward and backward)"


class Watched:
    """A module whose calls named in `CALLS` wait for all work before and after, and note the time of both."""

    def __init__(self, module: mx.mod.Module) -> None:
        self._module = module
        self.times: dict[str, tuple[float, float]] = {}

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._module, name)
        return self._watched(name, attribute) if name in CALLS else attribute

    def _watched(self, name: str, call: Callable[..., None]) -> Callable[..., None]:
        def timed(*args: Any) -> None:
            began = _now()
            call(*args)
            self.times[name] = began, _now()

        return timed


def _now() -> float:
    """Wait for all work and return the time."""
    mx.nd.waitall()
    return time.perf_counter()


def by_parts(learner: Learner, learn: Callable[[], Any]) -> Callable[[], dict[str, float]]:
    """Return a step of the learner that returns the seconds of its parts in their order."""
    module = learner._module = Watched(learner._module)

    def step() -> dict[str, float]:
        began = _now()
        learn()
        ended = _now()
        calls = {CALLS[name]: end - begin for name, (begin, end) in module.times.items()}
        first, last = next(iter(module.times.values()))[0], list(module.times.values())[-1][1]
        return {BEFORE: first - began, **calls, AFTER: ended - last}

    return step


def head_step(loss: Loss, batch_size: int, embedding_size: int) -> Callable[[], None]:
    """Return a step, forward and backward, of a loss alone on random embeddings."""
    loss.set_embedding_size(embedding_size)
    shapes = {"data": (batch_size, embedding_size), graph_step.LABEL: (batch_size,)}
    shapes.update(dict.fromkeys(loss.inputs, (batch_size,)))
    symbol = mx.sym.MakeLoss(loss(*map(mx.sym.var, shapes)))
    return functools.partial(head_command.step, head_command.bound(symbol, shapes, loss.classes))


def contender(
    recipe: str, classes: int, batch_size: int, changes: Sequence[str]
) -> tuple[dict[str, Any], Step]:
    """Return the training of a recipe by parts, as `latse.bench.protocol.serve` takes it."""
    learner, learn = learner_step.build(recipe, classes, batch_size, changes)
    facts = learner_step.facts(learner)
    step_by_parts = by_parts(learner, learn)
    loaded = recipes.load(recipe, changes)
    loss = margins.create(classes=classes, **loaded.margin)
    head = head_step(loss, batch_size, encoders.create(**loaded.encoder).embedding_size)

    def step() -> dict[str, Any]:
        parts = step_by_parts()
        began = _now()
        head()
        return {"parts": {**parts, HEAD: _now() - began}}

    return facts, step
