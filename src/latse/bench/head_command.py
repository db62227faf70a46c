"""`latse bench head`: one step, forward and backward, of a margin head over all people.

Three graphs of the same loss (ArcFace) are measured: `one-hot`, as insightface's symbol has it, with a
normalised copy of the class centres, a one-hot array and SoftmaxOutput; `one-hot, loss`, the same with the
loss to log, as that symbol is shipped (`ce_loss = True`); and ours, whose output is the loss.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import mxnet as mx
import numpy as np

from latse.bench.protocol import resident
from latse.bench.timing import in_turn, ratios
from latse.errors import LatseError
from latse.files import write_json
from latse.goals import figure, goal, verdict
from latse.plan.memonger import planned_megabytes
from latse.provenance import provenance
from latse.runtime import threads
from latse.symbols import margins
from latse.text_table import aligned

SCALE, MARGIN = 64.0, 0.5
EMBEDDING_SIZE = 512
STEP, PLANNED, RESIDENT = "step", "planned memory", "resident memory"
MEBIBYTE = 2**20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `latse bench head`."""
    parser.add_argument("--classes", type=int, default=85742, metavar="K", help="people (default: 85742)")
    parser.add_argument("--batch-size", type=int, default=96, metavar="N", help="images (default: 96)")
    parser.add_argument("--repeats", type=int, default=10, metavar="R", help="steps of each (default: 10)")


def run(args: argparse.Namespace) -> None:
    """Measure planned memory, resident memory in fresh processes, and time in turn."""
    if args.classes < 2 or args.batch_size < 1 or args.repeats < 1:
        raise LatseError("--classes must be at least 2, --batch-size and --repeats at least 1")
    executors = {name: _bound(name, args.classes, args.batch_size) for name in GRAPHS}
    steps = {name: lambda executor=executor: _step(executor) for name, executor in executors.items()}
    seconds = in_turn(steps, args.repeats)
    figures = {name: _figures(name, args, times) for name, times in seconds.items()}
    goals = _goals(args, figures, seconds)
    if args.json:
        write_json(args.json, _report(args, figures, goals))
    print(_table(figures, args))
    for one in goals:
        print(verdict(one))


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


def _figures(name: str, args: argparse.Namespace, seconds: list[float]) -> dict:
    """Return time, planned memory and resident memory of one graph, in seconds and MiB."""
    planned = planned_megabytes(GRAPHS[name](args.classes), _shapes(args.batch_size), mx.cpu())
    return {
        STEP: figure(seconds, "s"),
        PLANNED: figure([planned], "MiB"),
        RESIDENT: figure([_resident(name, args)], "MiB"),
    }


def _goals(args: argparse.Namespace, figures: dict, seconds: dict[str, list[float]]) -> list[dict]:
    goals = [
        goal(f"time of {name} over ours", ratios(seconds[name], seconds["ours"]), at_least=1.5)
        for name in ("one-hot", "one-hot, loss")
    ]
    ours, theirs = (figures[name][PLANNED]["median"] for name in ("ours", "one-hot"))
    if theirs:  # the executor speaks of whole megabytes: that of few classes is 0
        goals.append(goal("planned memory of ours over one-hot's", [ours / theirs], at_most=0.5))
        arrays = ours / _logits_megabytes(args)
        goals.append(goal("planned memory of ours in arrays of logits", [arrays], at_most=2.2))
    return goals


def _logits_megabytes(args: argparse.Namespace) -> float:
    return args.batch_size * args.classes * 4 / MEBIBYTE


def _resident(name: str, args: argparse.Namespace) -> float:
    """Return by how much three steps raise the peak of the memory of a fresh process, in MiB."""
    job = json.dumps([name, args.classes, args.batch_size])
    command = [sys.executable, "-m", "latse.bench.head_command", job]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LatseError(f"the process that measures {name} ended with status {done.returncode}")
    return float(done.stdout)


def _table(figures: dict, args: argparse.Namespace) -> str:
    rows = [["", "step, ms", "planned, MiB", "resident, MiB"]]
    for name, found in figures.items():
        milliseconds = [f"{1000 * found[STEP][key]:.0f}" for key in ("median", "min", "max")]
        memory = [f"{found[key]['median']:.0f}" for key in (PLANNED, RESIDENT)]
        rows.append([name, "{} ({} to {})".format(*milliseconds), *memory])
    centres = args.classes * EMBEDDING_SIZE * 4 / MEBIBYTE
    return (
        f"{aligned(rows)}\nwithout the class centres and their gradient, {centres:.0f} MiB each; "
        f"one array of {args.batch_size}x{args.classes} logits is {_logits_megabytes(args):.0f} MiB"
    )


def _report(args: argparse.Namespace, figures: dict, goals: list[dict]) -> dict:
    setting = {"classes": args.classes, "batch_size": args.batch_size, "repeats": args.repeats}
    return {
        "kind": "bench head",
        "provenance": provenance(args, [mx.cpu()]),
        "setting": {**setting, "threads": threads()},
        "contenders": figures,
        "goals": goals,
    }


if __name__ == "__main__":
    executor = _bound(*json.loads(sys.argv[1]))
    for array in executor.grad_arrays:
        if array is not None:
            array[:] = 0  # the gradients' own memory is not counted
    mx.nd.waitall()
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew (proc(5))
    for _ in range(3):
        _step(executor)
    print(resident("VmHWM") - before)
