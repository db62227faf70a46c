"""`latse bench embed`: images per second from uint8 images to embeddings, in turn.

Measured on the same parameters: `Module`, a plain forward of the checkpoint's symbol; `Module, LeakyReLU`,
the same network with each PReLU as MXNet's own operator, as insightface's checkpoints have it; `onnxruntime`
on what `latse export` writes; and ours, `latse.models.embedding.Network`. All get as many threads as
`latse.runtime.threads` says. Beside them stands what the processor multiplies and adds
in a large matrix product, taken in the same turns: about as much as any network without tricks can reach.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Callable, Sequence

import mxnet as mx
import numpy as np

from latse.bench.benchmark import Outcome
from latse.bench.roofline import is_layer
from latse.bench.timing import in_turn, ratios
from latse.goals import Figure, Goal
from latse.graph.simplify import simplified
from latse.models import checkpoint, onnx_export, onnx_model
from latse.models.embedding import Network
from latse.models.parameters import Arrays, Parameters, fitting, needed_shapes
from latse.models.run_folder import parse
from latse.models.runner import Runner
from latse.plan import cost
from latse.plan.plan_graph import PlanGraph
from latse.symbols import encoders
from latse.symbols.networks import IMAGE_SHAPE, trace

OURS = "ours"
PRODUCT = "matrix product"
PRODUCT_SIZE = 2048


def measure(args: argparse.Namespace) -> Outcome:
    """Embed the same images in all ways, in turn."""
    images = np.random.default_rng(0).integers(0, 256, (args.batch_size, *IMAGE_SHAPE), np.uint8)
    with tempfile.TemporaryDirectory(prefix="latse-bench-") as folder:
        model = parse(args.model) if args.model else random_checkpoint(folder, args.encoder)
        ways = _ways(*model, images)
        expected = ways["Module"]()
        errors = {name: _error(way(), expected) for name, way in ways.items()}
        matrix = mx.nd.random.normal(shape=(PRODUCT_SIZE, PRODUCT_SIZE))
        ways[PRODUCT] = lambda: mx.nd.dot(matrix, matrix).wait_to_read()
        times = in_turn(ways, args.repeats)
        work = args.batch_size * multiply_adds(checkpoint.load(*model)[0], IMAGE_SHAPE)
    seconds = {name: each.seconds for name, each in times.items()}
    product = seconds.pop(PRODUCT)
    figures = {
        name: {
            "images": Figure.of([args.batch_size / spent for spent in taken], "images/s"),
            **_speed(work, taken),
            "relative error": Figure.of([errors[name]]),
        }
        for name, taken in seconds.items()
    }
    figures[PRODUCT] = _speed(PRODUCT_SIZE**3, product)
    goals = [
        Goal.of(f"images/s of ours over {name}", ratios(seconds[name], seconds[OURS]), at_least=least)
        for name, least in (("Module", None), ("Module, LeakyReLU", 1.15), ("onnxruntime", None))
    ]
    return Outcome(figures, goals, {"model": args.model or args.encoder}, contexts=[mx.cpu()])


def multiply_adds(symbol: mx.sym.Symbol, image_shape: tuple[int, ...]) -> int:
    """Return how many multiplications the convolutions and dense layers before `fc1` take for one image.

    Grouped convolutions are left out: depthwise ones are a way to write a PReLU.
    """
    graph = PlanGraph(symbol.get_internals()["fc1_output"], {"data": (1, *image_shape)})
    return sum(cost.multiply_adds(graph, i) for i, node in enumerate(graph.nodes) if is_layer(node))


def random_checkpoint(folder: str | os.PathLike, name: str) -> tuple[str, int]:
    """Save a random encoder `name` whose batch normalisations do something; return prefix and number.

    Raises LatseError for an unknown name.
    """
    symbol = trace(encoders.create(name))
    prefix = str(Path(folder) / name)
    checkpoint.save(prefix, 0, symbol, *random_parameters(symbol, data=(1, *IMAGE_SHAPE)))
    return prefix, 0


def random_parameters(symbol: mx.sym.Symbol, **inputs: tuple[int, ...]) -> Parameters:
    """Draw the parameters of a symbol, the same at every call, such that no layer passes on what it gets.

    `inputs` are the shapes of what is no parameter, by name.
    """
    rng = np.random.default_rng(0)

    def drawn(parameter: str, shape: tuple[int, ...]) -> mx.nd.NDArray:
        if parameter.endswith("_weight"):
            return mx.nd.array(rng.normal(0, np.prod(shape[1:]) ** -0.5, shape))
        if parameter.endswith(("_beta", "_bias", "_running_mean")):
            return mx.nd.array(rng.normal(0, 0.2, shape))
        slope_or_last = "relu" in parameter or "_bn3_" in parameter
        return mx.nd.array(rng.uniform(0.1, 0.4, shape) if slope_or_last else rng.uniform(0.5, 1.5, shape))

    args = {key: drawn(key, shape) for key, shape in needed_shapes(symbol, **inputs).items()}
    aux = {key: args.pop(key) for key in symbol.list_auxiliary_states()}
    return Parameters(args, aux)


def _ways(prefix: str, number: int, images: np.ndarray) -> dict[str, Callable[[], np.ndarray]]:
    """Return each way to the embeddings of `images`."""
    network = Network(prefix, number, batch_size=len(images))
    symbol, args, aux = checkpoint.load(prefix, number)
    symbol = checkpoint.pick_outputs(symbol, ["fc1_output"], prefix)
    session = onnx_model.session(onnx_export.converted(symbol, args, aux, images.shape[1:]))
    return {
        "Module": _module(symbol, args, aux, images),
        "Module, LeakyReLU": _module(*simplified(symbol, args, aux).write(), images),
        "onnxruntime": lambda: session.run(None, {"data": images.astype(np.float32)})[0],
        OURS: lambda: network(images),
    }


def _speed(work: int, seconds: Sequence[float]) -> dict[str, Figure]:
    return {"multiply-adds": Figure.of([work / spent / 1e9 for spent in seconds], "billion/s")}


def _module(symbol: mx.sym.Symbol, args: Arrays, aux: Arrays, images: np.ndarray) -> Callable[[], np.ndarray]:
    shapes = {"data": images.shape}
    runner = Runner(symbol, *fitting(symbol, args, aux, images.shape, "the checkpoint"), shapes)
    return lambda: runner(images)[0]


def _error(embeddings: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest distance from the plain forward, as a fraction of the embedding's norm."""
    return float((np.linalg.norm(embeddings - expected, axis=1) / np.linalg.norm(expected, axis=1)).max())
