"""`latse bench head`: one step, forward and backward, of a margin head over all people.

Three graphs of the same loss (ArcFace) are measured: `one-hot`, as insightface's symbol has it, with a
normalised copy of the class centres, a one-hot array and SoftmaxOutput; `one-hot, loss`, the same with the
loss to log, as that symbol is shipped (`ce_loss = True`); and ours, whose output is the loss.
"""

from __future__ import annotations

import argparse
import functools
from pathlib import Path

import mxnet as mx
import numpy as np

from latse.bench import equivalents, graph_step
from latse.bench.benchmark import Outcome
from latse.bench.graph_step import LABEL
from latse.bench.protocol import resident
from latse.bench.timing import in_turn, ratios
from latse.child import in_child
from latse.goals import Figure, Goal
from latse.graph.nodes import Shapes
from latse.plan.memonger import planned_megabytes
from latse.symbols import margins
from latse.symbols.encoders import ResNet

EMBEDDING_SIZE = ResNet.embedding_size
PLANNED = "planned memory"
MEBIBYTE = 2**20


def measure(args: argparse.Namespace) -> Outcome:
    """Measure planned memory, resident memory in fresh processes, and time in turn."""
    classes, batch_size = size = args.classes, args.batch_size
    steps = {name: functools.partial(step, _bound(name, *size)) for name in GRAPHS}
    seconds = {name: times.seconds for name, times in in_turn(steps, args.repeats).items()}
    figures = {}
    for name, taken in seconds.items():
        risen = in_child(f"the process that measures {name}", _risen, name, *size)
        planned = planned_megabytes(GRAPHS[name](classes), _shapes(batch_size), mx.cpu())
        figures[name] = {
            "step": Figure.of(taken, "s"),
            PLANNED: Figure.of([planned], "MiB"),
            "resident memory": Figure.of([risen], "MiB"),
        }
    logits, centres = (4 * classes * length / MEBIBYTE for length in (batch_size, EMBEDDING_SIZE))
    remark = (
        f"without the class centres and their gradient, {centres:.0f} MiB each; "
        f"one array of {batch_size}x{classes} logits is {logits:.0f} MiB"
    )
    return Outcome(figures, _goals(logits, figures, seconds), remarks=[remark], contexts=[mx.cpu()])


def _one_hot(classes: int, with_loss: bool = False) -> mx.sym.Symbol:
    label = mx.sym.var(LABEL)
    logits = equivalents.arcface(mx.sym.var("data"), label, classes)
    shares = mx.sym.SoftmaxOutput(logits, label)
    if not with_loss:
        return shares
    log_share = mx.sym.log(mx.sym.softmax(logits))
    loss = mx.sym.sum(log_share * mx.sym.one_hot(label, depth=classes, on_value=-1.0))
    return mx.sym.Group([shares, mx.sym.BlockGrad(loss)])


def _ours(classes: int) -> mx.sym.Symbol:
    head = margins.create("arcface", classes, s=equivalents.SCALE, m2=equivalents.MARGIN)
    return mx.sym.MakeLoss(head(mx.sym.var("data"), mx.sym.var(LABEL)))


GRAPHS = {"one-hot": _one_hot, "one-hot, loss": functools.partial(_one_hot, with_loss=True), "ours": _ours}


def _shapes(batch_size: int) -> dict[str, tuple[int, ...]]:
    return {"data": (batch_size, EMBEDDING_SIZE), LABEL: (batch_size,)}


def _bound(name: str, classes: int, batch_size: int) -> mx.executor.Executor:
    return bound(GRAPHS[name](classes), _shapes(batch_size), classes)


def bound(symbol: mx.sym.Symbol, shapes: Shapes, classes: int) -> mx.executor.Executor:
    """Return the executor of a loss with random embeddings `data`, class centres and other inputs."""
    fixed = {name: shape for name, shape in shapes.items() if name != "data"}
    requests = {name: "null" if name in fixed else "write" for name in symbol.list_arguments()}
    executor = symbol.simple_bind(mx.cpu(), requests, **shapes)
    values, random = graph_step.made_up(fixed, classes), np.random.default_rng(0)
    for name, array in sorted(executor.arg_dict.items()):
        array[:] = values[name] if name in values else random.normal(0, 0.01, array.shape).astype(np.float32)
    mx.nd.waitall()
    return executor


def step(executor: mx.executor.Executor) -> None:
    """Go forward and backward, and wait until that is done."""
    executor.forward(is_train=True)
    executor.backward()
    mx.nd.waitall()


def _risen(name: str, classes: int, batch_size: int) -> float:
    """Return by how much three steps raise the peak of this process's memory, in MiB."""
    executor = _bound(name, classes, batch_size)
    for array in executor.grad_arrays:
        if array is not None:
            array[:] = 0  # the gradients' own memory is not counted
    mx.nd.waitall()
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew (proc(5))
    for _ in range(3):
        step(executor)
    return resident("VmHWM") - before


def _goals(
    logits: float, figures: dict[str, dict[str, Figure]], seconds: dict[str, list[float]]
) -> list[Goal]:
    goals = [
        Goal.of(f"time of {name} over ours", ratios(seconds[name], seconds["ours"]), at_least=1.5)
        for name in ("one-hot", "one-hot, loss")
    ]
    ours, theirs = (figures[name][PLANNED].median for name in ("ours", "one-hot"))
    if theirs:  # the executor speaks of whole megabytes: that of few classes is 0
        goals.append(Goal.of("planned memory of ours over one-hot's", [ours / theirs], at_most=0.5))
        goals.append(Goal.of("planned memory of ours in arrays of logits", [ours / logits], at_most=2.2))
    return goals
