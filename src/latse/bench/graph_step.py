"""A contender that trains any Symbol on made-up inputs: forward, backward, update, outputs on the host."""

from __future__ import annotations

import os
import re
from typing import Any, Mapping

import mxnet as mx
import numpy as np

from latse.bench.protocol import Step
from latse.models import checkpoint
from latse.symbols import margins  # noqa: F401 - registers the operator that training graphs hold

LABEL = "softmax_label"
# A rate that drives nobody's loss to infinity.
LEARNING_RATE, MOMENTUM, DECAY = 0.01, 0.9, 5e-4


def made_up(shapes: Mapping[str, tuple[int, ...]], classes: int) -> dict[str, np.ndarray]:
    """Return random inputs of a training graph by name, as the loader and the trainer give them.

    `data` uint8 0..255, `softmax_label` float32 whole numbers below `classes`, `mean_face` float32 in
    [-1, 1], `iteration` zeros, `keep` and all others float32, 0 or 1.
    """
    random = np.random.default_rng(0)
    draw = {
        "data": lambda shape: random.integers(0, 256, shape, np.uint8),
        LABEL: lambda shape: random.integers(0, classes, shape).astype(np.float32),
        "mean_face": lambda shape: random.uniform(-1, 1, shape).astype(np.float32),
        "iteration": lambda shape: np.zeros(shape, np.int64),
    }
    return {
        name: draw.get(name, lambda shape: random.integers(0, 2, shape).astype(np.float32))(shape)
        for name, shape in shapes.items()
    }


def bound(
    symbol: mx.sym.Symbol, shapes: Mapping[str, tuple[int, ...]], learning_rate: float, rescale: float
) -> mx.mod.Module:
    """Return a module that trains `symbol` by SGD on one CPU; `softmax_label` is the only label."""
    names = [name for name in shapes if name != LABEL]
    labels = [LABEL] if LABEL in shapes else []
    module = mx.mod.Module(symbol, names, labels or None)
    module.bind([(name, shapes[name]) for name in names], [(name, shapes[name]) for name in labels] or None)
    module.init_params(mx.init.Xavier(rnd_type="gaussian", factor_type="out", magnitude=2))
    optimiser = {"learning_rate": learning_rate, "rescale_grad": rescale, "momentum": MOMENTUM, "wd": DECAY}
    module.init_optimizer(optimizer="sgd", optimizer_params=optimiser)
    return module


def facts(module: mx.mod.Module) -> dict[str, Any]:
    """Return what a contender says of its module: planned MiB of activations and number of parameters."""
    [executor] = module._exec_group.execs  # its own figure is to be had nowhere else
    planned = re.search(r"^Total (\d+) MB", executor.debug_str(), re.MULTILINE).group(1)
    parameters = sum(array.size for array in module.get_params()[0].values())
    return {"planned_megabytes": float(planned), "parameters": parameters}


def contender(
    path: str | os.PathLike, shapes: Mapping[str, tuple[int, ...]], classes: int
) -> tuple[dict[str, Any], Step]:
    """Return the training of the Symbol in a file of JSON, as `latse.bench.protocol.serve` takes it."""
    module = bound(checkpoint.load_symbol(path), shapes, LEARNING_RATE, 1 / next(iter(shapes.values()))[0])
    inputs = made_up(shapes, classes)

    def step() -> None:
        arrays = {name: mx.nd.array(array, dtype=np.float32) for name, array in inputs.items()}
        label = [arrays.pop(LABEL)] if LABEL in arrays else None
        module.forward_backward(mx.io.DataBatch(list(arrays.values()), label))
        module.update()
        for output in module.get_outputs():
            output.asnumpy()
        mx.nd.waitall()

    return facts(module), step
