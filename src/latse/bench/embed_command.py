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
from typing import Callable

import mxnet as mx
import numpy as np

from latse.bench.roofline import is_layer
from latse.bench.timing import in_turn, ratios
from latse.errors import LatseError
from latse.files import make_folder, write_json
from latse.goals import figure, goal, verdict
from latse.graph.simplify import simplified
from latse.models import checkpoint, onnx_export, onnx_model
from latse.models.embedding import Network
from latse.models.parameters import Arrays, fitting
from latse.models.runner import Runner
from latse.plan import cost
from latse.plan.plan_graph import PlanGraph
from latse.provenance import provenance
from latse.runtime import threads
from latse.symbols import encoders
from latse.symbols.networks import IMAGE_SHAPE, trace
from latse.text_table import aligned

OURS = "ours"
PRODUCT = "matrix product"
PRODUCT_SIZE = 2048
IMAGES, WORK, ERROR = "images", "multiply-adds", "relative error"
WORK_UNIT = "billion/s"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `latse bench embed`."""
    parser.add_argument(
        "--model", metavar="PREFIX,NUMBER", help="checkpoint; default: random weights of --encoder"
    )
    parser.add_argument(
        "--encoder", default="resnet34", metavar="NAME", help="for random weights (default: resnet34)"
    )
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="images (default: 32)")
    parser.add_argument("--repeats", type=int, default=5, metavar="R", help="batches of each (default: 5)")


def run(args: argparse.Namespace) -> None:
    """Measure all ways in turn; print and write images per second and their ratios."""
    if min(args.batch_size, args.repeats) < 1:
        raise LatseError("--batch-size and --repeats must be at least 1")
    if args.json:
        make_folder(Path(args.json).parent)  # an unwritable place is better known before the work
    shape = (args.batch_size, *IMAGE_SHAPE)
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    with tempfile.TemporaryDirectory(prefix="latse-bench-") as folder:
        prefix, number = (
            checkpoint.parse(args.model) if args.model else random_checkpoint(folder, args.encoder)
        )
        ways = _ways(prefix, number, images, Path(folder))
        expected = ways["Module"]()
        errors = {name: _error(way(), expected) for name, way in ways.items()}
        seconds = in_turn({**ways, PRODUCT: _product()}, args.repeats)
        work = args.batch_size * multiply_adds(checkpoint.load(prefix, number)[0], shape[1:])
    product = [PRODUCT_SIZE**3 / one / 1e9 for one in seconds.pop(PRODUCT)]
    figures = {
        name: {
            IMAGES: figure([args.batch_size / one for one in taken], "images/s"),
            WORK: figure([work / one / 1e9 for one in taken], WORK_UNIT),
            ERROR: figure([errors[name]]),
        }
        for name, taken in seconds.items()
    }
    figures[PRODUCT] = {WORK: figure(product, WORK_UNIT)}
    goals = _goals(seconds)
    if args.json:
        setting = {
            "model": args.model or args.encoder,
            "batch_size": args.batch_size,
            "repeats": args.repeats,
        }
        report = {"kind": "bench embed", "provenance": provenance(args, [mx.cpu()])}
        report["setting"] = {**setting, "threads": threads()}
        write_json(args.json, {**report, "contenders": figures, "goals": goals})
    _show(args, figures)
    for one in goals:
        print(verdict(one))


def _goals(seconds: dict[str, list[float]]) -> list[dict]:
    bounds = {"Module, LeakyReLU": 1.15}
    return [
        goal(f"images/s of ours over {name}", ratios(taken, seconds[OURS]), at_least=bounds.get(name))
        for name, taken in seconds.items()
        if name != OURS
    ]


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
    shapes, _, aux_shapes = symbol.infer_shape(data=(1, *IMAGE_SHAPE))
    rng = np.random.default_rng(0)

    def drawn(parameter: str, shape: tuple[int, ...]) -> mx.nd.NDArray:
        if parameter.endswith("_weight"):
            return mx.nd.array(rng.normal(0, np.prod(shape[1:]) ** -0.5, shape))
        if parameter.endswith(("_beta", "_bias", "_running_mean")):
            return mx.nd.array(rng.normal(0, 0.2, shape))
        slope_or_last = "relu" in parameter or "_bn3_" in parameter
        return mx.nd.array(rng.uniform(0.1, 0.4, shape) if slope_or_last else rng.uniform(0.5, 1.5, shape))

    args = {key: drawn(key, shape) for key, shape in zip(symbol.list_arguments(), shapes) if key != "data"}
    aux = {key: drawn(key, shape) for key, shape in zip(symbol.list_auxiliary_states(), aux_shapes)}
    prefix = str(Path(folder) / name)
    checkpoint.save(prefix, 0, symbol, args, aux)
    return prefix, 0


def _ways(prefix: str, number: int, images: np.ndarray, folder: Path) -> dict[str, Callable[[], np.ndarray]]:
    """Each way to the embeddings of `images`."""
    network = Network(prefix, number, batch_size=len(images))
    symbol, args, aux = checkpoint.load(prefix, number)
    symbol = checkpoint.pick_outputs(symbol, ["fc1_output"], prefix)
    exported = folder / "exported.onnx"
    onnx_export.export(exported, symbol, args, aux, images.shape[1:])
    session = onnx_model.session(exported)
    return {
        "Module": _module(symbol, args, aux, images),
        "Module, LeakyReLU": _module(*simplified(symbol, args, aux).write(), images),
        "onnxruntime": lambda: session.run(None, {"data": images.astype(np.float32)})[0],
        OURS: lambda: network(images),
    }


def _product() -> Callable[[], None]:
    matrix = mx.nd.random.normal(shape=(PRODUCT_SIZE, PRODUCT_SIZE))
    return lambda: mx.nd.dot(matrix, matrix).wait_to_read()


def _module(symbol: mx.sym.Symbol, args: Arrays, aux: Arrays, images: np.ndarray) -> Callable[[], np.ndarray]:
    shapes = {"data": images.shape}
    runner = Runner(symbol, *fitting(symbol, args, aux, images.shape, "the checkpoint"), shapes)
    return lambda: runner(images)[0]


def _error(found: np.ndarray, expected: np.ndarray) -> float:
    """Largest distance from the plain forward, as a fraction of the embedding's norm."""
    return float((np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)).max())


def _show(args: argparse.Namespace, figures: dict[str, dict]) -> None:
    rows = [["", "images/s", "relative error", "G multiply-adds/s"]]
    for name, found in figures.items():
        speed = "{median:.2f} ({min:.2f} to {max:.2f})".format(**found[IMAGES]) if IMAGES in found else ""
        error = f"{found[ERROR]['median']:.1e}" if ERROR in found else ""
        rows.append([name, speed, error, f"{found[WORK]['median']:.1f}"])
    print(f"{args.model or args.encoder}, batch {args.batch_size}, {threads()} thread(s)")
    print(aligned(rows))
