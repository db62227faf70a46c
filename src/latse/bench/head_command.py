"""`latse bench head`: one step, forward and backward, of a margin head over all people.

Three graphs of the same loss (ArcFace) are measured: `one-hot`, as insightface's symbol has it, with a
normalised copy of the class centres, a one-hot array and SoftmaxOutput; `one-hot, loss`, the same with the
loss to log, as that symbol is shipped (`ce_loss = True`); and ours, whose output is the loss.
"""

from __future__ import annotations

from pathlib import Path

import mxnet as mx
import numpy as np

from latse.bench.benchmark import Benchmark, Outcome, count
from latse.bench.protocol import resident
from latse.bench.timing import in_turn, ratios
from latse.child import in_child
from latse.goals import Figure, Goal
from latse.plan.memonger import planned_megabytes
from latse.symbols import margins

SCALE, MARGIN = 64.0, 0.5
EMBEDDING_SIZE = 512
STEP, PLANNED, RESIDENT = "step", "planned memory", "resident memory"
MEBIBYTE = 2**20


class HeadBenchmark(Benchmark):
    """Planned memory, resident memory in fresh processes, and time in turn."""

    kind = "bench head"
    options = (
        count("classes", 85742, "people", least=2),
        count("batch-size", 96, "images"),
        count("repeats", 10, "steps of each"),
    )

    def measure(self) -> Outcome:
        """Measure all graphs."""
        size = self.args.classes, self.args.batch_size
        executors = {name: _bound(name, *size) for name in GRAPHS}
        steps = {name: lambda executor=executor: _step(executor) for name, executor in executors.items()}
        times = in_turn(steps, self.args.repeats)
        seconds = {name: each.seconds for name, each in times.items()}
        figures = {name: _figures(name, *size, each) for name, each in seconds.items()}
        logits = self.args.batch_size * self.args.classes * 4 / MEBIBYTE
        centres = self.args.classes * EMBEDDING_SIZE * 4 / MEBIBYTE
        remark = (
            f"without the class centres and their gradient, {centres:.0f} MiB each; "
            f"one array of {self.args.batch_size}x{self.args.classes} logits is {logits:.0f} MiB"
        )
        return Outcome(figures, _goals(logits, figures, seconds), remarks=[remark])


add_arguments, run = HeadBenchmark.add_arguments, HeadBenchmark.run


def _logits(classes: int, label: mx.sym.Symbol) -> mx.sym.Symbol:
    """Return ArcFace's logits, made by adding a one-hot array."""
    centres = mx.sym.var("fc7_weight", shape=(classes, EMBEDDING_SIZE))
    weight = mx.sym.L2Normalization(centres, mode="instance")
    embedding = mx.sym.L2Normalization(mx.sym.var("data"), mode="instance") * SCALE
    logits = mx.sym.FullyConnected(embedding, weight, no_bias=True, num_hidden=classes)
    target = mx.sym.pick(logits, label)
    penalty = SCALE * mx.sym.cos(mx.sym.arccos(target / SCALE) + MARGIN) - target
    mask = mx.sym.one_hot(label, depth=classes)
    return logits + mx.sym.broadcast_mul(mask, mx.sym.expand_dims(penalty, 1))


def _one_hot(classes: int) -> mx.sym.Symbol:
    label = mx.sym.var("softmax_label")
    return mx.sym.SoftmaxOutput(_logits(classes, label), label)


def _one_hot_and_loss(classes: int) -> mx.sym.Symbol:
    label = mx.sym.var("softmax_label")
    logits = _logits(classes, label)
    log_share = mx.sym.log(mx.sym.softmax(logits))
    loss = mx.sym.sum(log_share * mx.sym.one_hot(label, depth=classes, on_value=-1.0))
    return mx.sym.Group([mx.sym.SoftmaxOutput(logits, label), mx.sym.BlockGrad(loss)])


def _ours(classes: int) -> mx.sym.Symbol:
    head = margins.create("arcface", classes, s=SCALE, m2=MARGIN)
    return mx.sym.MakeLoss(head(mx.sym.var("data"), mx.sym.var("softmax_label")))


GRAPHS = {"one-hot": _one_hot, "one-hot, loss": _one_hot_and_loss, "ours": _ours}


def _shapes(batch_size: int) -> dict[str, tuple[int, ...]]:
    return {"data": (batch_size, EMBEDDING_SIZE), "softmax_label": (batch_size,)}


def _bound(name: str, classes: int, batch_size: int) -> mx.executor.Executor:
    """Return the executor of a graph with random embeddings, class centres and labels."""
    requests = {"data": "write", "fc7_weight": "write", "softmax_label": "null"}
    executor = GRAPHS[name](classes).simple_bind(mx.cpu(), grad_req=requests, **_shapes(batch_size))
    random = np.random.default_rng(0)
    executor.arg_dict["data"][:] = random.normal(size=(batch_size, EMBEDDING_SIZE))
    executor.arg_dict["fc7_weight"][:] = random.normal(0, 0.01, (classes, EMBEDDING_SIZE)).astype(np.float32)
    executor.arg_dict["softmax_label"][:] = random.integers(0, classes, batch_size)
    mx.nd.waitall()
    return executor


def _step(executor: mx.executor.Executor) -> None:
    executor.forward(is_train=True)
    executor.backward()
    mx.nd.waitall()


def _figures(name: str, classes: int, batch_size: int, seconds: list[float]) -> dict[str, Figure]:
    """Return time, planned memory and resident memory of one graph, in seconds and MiB."""
    planned = planned_megabytes(GRAPHS[name](classes), _shapes(batch_size), mx.cpu())
    risen = in_child(f"the process that measures {name}", _risen, name, classes, batch_size)
    return {
        STEP: Figure.of(seconds, "s"),
        PLANNED: Figure.of([planned], "MiB"),
        RESIDENT: Figure.of([risen], "MiB"),
    }


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
        _step(executor)
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
