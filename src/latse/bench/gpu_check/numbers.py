"""The same numbers on device and CPU: embeddings, losses, gradients, moving statistics."""

from __future__ import annotations

from typing import Iterator

import mxnet as mx
import numpy as np
from tqdm import tqdm

from latse.bench.embed_command import random_parameters
from latse.bench.gpu_check.outcome import row
from latse.bench.gpu_check.setting import CPU, Setting
from latse.bench.gpu_check.steps import Step, norm, off, one_step, student, tiles, training, worst
from latse.goals import Goal
from latse.graph.fold import fast
from latse.models.parameters import Parameters
from latse.models.runner import Runner
from latse.symbols import encoders
from latse.symbols.networks import IMAGE_SHAPE, trace

# Without TF32. Sums of another order change an embedding by 1e-6, a loss by 1e-5, the gradient by up to
# 0.007, that of one parameter by up to 0.02 and moving statistics by up to 1e-4: PReLUs bend, and a batch
# normalisation takes away what is common to a batch. Weights that are off by 1e-5, as kernels such as
# Winograd's may be, change a loss by 5e-5 and the gradient by up to 0.02. The limits are a few times that.
EMBEDDINGS, LOSSES, STATISTICS = 1e-3, 1e-3, 2e-3
GRADIENT, GRADIENTS = 0.05, 0.1  # of all parameters together, of each
# What is small beside this share of all is rounding. The gradient of PReLU's slopes, which MXNet's own
# operator has wrong on some processors, is a thousandth; that of a shift that BatchNorm takes away is 0.
SHARE_OF_GRADIENT, SHARE_OF_STATISTICS = 1e-4, 1e-2


def embeddings(setting: Setting) -> Iterator[Goal]:
    """Embed the same images on all devices and on the CPU: by the network's graph, and by the folded one."""
    for name in tqdm(setting.sizes.encoders, "embeddings", unit="network"):
        symbol = trace(encoders.create(name))
        parameters = random_parameters(symbol, data=(1, *IMAGE_SHAPE))
        images = tiles(setting.sizes.images * len(setting.devices))
        expected = embedded(symbol, parameters, images, [CPU])
        for title, graph in (
            (name, (symbol, parameters)),
            (f"{name}, folded", _folded(symbol, parameters, setting)),
        ):
            found = embedded(*graph, images, list(setting.devices))
            yield row(f"{title}: embeddings", relative_error(found, expected), at_most=EMBEDDINGS)


def _folded(
    symbol: mx.sym.Symbol, parameters: Parameters, setting: Setting
) -> tuple[mx.sym.Symbol, Parameters]:
    folded, args, aux = fast(symbol, *parameters, contexts=list(setting.devices))
    return folded, Parameters(args, aux)


def embedded(
    symbol: mx.sym.Symbol, parameters: Parameters, images: np.ndarray, devices: list[mx.Context]
) -> np.ndarray:
    """Return the embeddings of images, float32 (n, D)."""
    return Runner(symbol, *parameters, {"data": images.shape}, devices)(images)[0]


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest distance of two embeddings of one image as a fraction of their norm."""
    distance = np.linalg.norm(found.astype(np.float64) - expected, axis=1)
    return float((distance / np.linalg.norm(expected.astype(np.float64), axis=1)).max())


def gradients(setting: Setting) -> Iterator[Goal]:
    """Take one step of each network, and of the student, on the first device and on the CPU."""
    sizes = setting.sizes
    trained = {name: (name,) for name in sizes.encoders}
    trained[f"student on {sizes.middle}"] = (sizes.middle, *student(sizes))
    for title, network in tqdm(trained.items(), "losses and gradients", unit="network"):
        found, expected = (one_step(training([device], sizes, *network)) for device in (setting.device, CPU))
        yield from compared(title, found, expected)


def compared(title: str, found: Step, expected: Step) -> Iterator[Goal]:
    """Hold what a step did against what it should have done."""
    losses = max(off(found.outputs[name], array) for name, array in expected.outputs.items())
    yield row(f"{title}: losses", losses, at_most=LOSSES)
    difference = {name: found.gradients[name] - array for name, array in expected.gradients.items()}
    yield row(f"{title}: gradient", norm(difference) / norm(expected.gradients), at_most=GRADIENT)
    most, name = worst(found.gradients, expected.gradients, SHARE_OF_GRADIENT)
    yield row(f"{title}: gradients of a parameter (worst: {name})", most, at_most=GRADIENTS)
    most, name = worst(found.statistics, expected.statistics, SHARE_OF_STATISTICS)
    yield row(f"{title}: statistics (worst: {name})", most, at_most=STATISTICS)
