"""Trainings that are followed for a few steps: float16 against float32, many devices against one."""

from __future__ import annotations

from typing import Iterator

import mxnet as mx
import numpy as np
from tqdm import tqdm

from latse.bench.gpu_check.outcome import row
from latse.bench.gpu_check.setting import Setting
from latse.bench.gpu_check.steps import losses, off, training
from latse.goals import Goal
from latse.graph.nodes import Graph
from latse.recipe_keys import EMULATED, HALF
from latse.runtime import features

# float16 keeps 11 bits. Narrow networks are off by 6e-5 at first and by 1e-3 later, emulated on the CPU.
FIRST_HALF, LATER_HALF = 3e-3, 3e-2
MANY_DEVICES = 1e-3
LEAST_LEARNED = 0.01  # share of the first loss: a training that learns nothing would show no difference
ENCODER = "resnet_tiny"  # of the fixed statistics: a deep network's numbers would grow beyond all bounds


def precision(setting: Setting) -> Iterator[Goal]:
    """Train in float32 and in float16; on the CPU, which has no float16, in its emulation."""
    sizes, steps = setting.sizes, ("margin.s=16.0", f"train.iterations={setting.sizes.steps}")
    kind = HALF if setting.is_gpu else EMULATED
    network = [setting.device], sizes, sizes.middle, *steps
    single = losses(training(*network))
    half = losses(training(*network, f"train.precision={kind}", "train.loss_scale=256.0"))
    title = f"{sizes.middle}, {kind} against float32"
    yield row(f"{title}: loss of the first step", off(half[:1], single[:1]), at_most=FIRST_HALF)
    yield row(f"{title}: losses of {sizes.steps} steps", off(half, single), at_most=LATER_HALF)
    yield learned(title, half)


def kvstores(setting: Setting) -> Iterator[Goal | str]:
    """Train with each KVStore on all devices, and on one device, the same batches."""
    devices = setting.devices
    if len(devices) == 1:
        yield f"{devices[0]} is the only device: no KVStore joins several"
        return
    expected = fixed_losses(setting, 1, "local")
    yield learned("one device", expected)
    names = ["local", "device", *(["nccl"] if setting.is_gpu and features()["NCCL"] else [])]
    if "nccl" not in names:
        yield "nccl is left out: it needs GPUs and MXNet's GPU build"
    for name in tqdm(names, "KVStores", unit="KVStore"):
        found = fixed_losses(setting, len(devices), name)
        title = f"{name}, {len(devices)} devices against one: losses of {setting.sizes.steps} steps"
        yield row(title, off(found, expected), at_most=MANY_DEVICES)


def fixed_losses(setting: Setting, count: int, kvstore: str) -> np.ndarray:
    """Return the losses of the batch of all devices on `count` of them, which have a KVStore.

    The statistics of batch normalisation are fixed, for each device has those of its own images.
    """
    sizes, images = setting.sizes, setting.sizes.images * len(setting.devices) // count
    changes = f"train.iterations={sizes.steps}", f"train.kvstore={kvstore}"
    made = training(setting.devices[:count], sizes, ENCODER, *changes, images=images)
    return losses(made.with_symbol(on_fixed_statistics(made.graph.symbol)))


def on_fixed_statistics(symbol: mx.sym.Symbol) -> mx.sym.Symbol:
    """Return a training graph whose batch normalisations take their moving statistics."""
    graph = Graph.read(symbol)
    for node in graph.nodes:
        if node.op == "BatchNorm":
            node.attrs["use_global_stats"] = "True"
    return graph.symbol()


def learned(title: str, losses: np.ndarray) -> Goal:
    """Hold against its least by how much the loss has fallen, as a share of the first one."""
    return row(f"{title}: fall of the loss", 1 - losses[-1] / losses[0], at_least=LEAST_LEARNED)
