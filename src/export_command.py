"""The sub-command `latse export`: a checkpoint's embedding for other tools."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import mxnet as mx
import numpy as np

from latse import checkpoint, inference, onnx_export
from latse.errors import LatseError
from latse.simplify import Graph, simplified
from latse.symbols.networks import IMAGE_SHAPE

# insightface's tools know the statistics of a batch normalisation by these endings.
STATISTICS = re.compile("_running_(mean|var)$")
TOLERANCE = 1e-4  # of the embedding's norm
TRIALS = 4  # random images that every export is tried on


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `latse export`."""
    parser.description = (
        "Write the network from `data` (N, 3, 112, 112), RGB in 0..255, to the embedding `fc1`, not brought "
        "to unit length, without what only training needs. Nothing is written that does not give the "
        "checkpoint's embedding of random images."
    )
    parser.add_argument(
        "checkpoint", metavar="PREFIX,NUMBER", help="checkpoint of this project or insightface"
    )
    parser.add_argument("--onnx", metavar="FILE.onnx", help="ONNX, batch size free, normalisations folded")
    parser.add_argument(
        "--plain",
        metavar="PREFIX",
        help="PREFIX-symbol.json and PREFIX-0000.params of ordinary MXNet operators with insightface's names",
    )


def run(args: argparse.Namespace) -> None:
    """Write what was asked for; raise LatseError for bad input, or where a copy gives another embedding."""
    if not (args.onnx or args.plain):
        raise LatseError("nothing to write: give --onnx FILE.onnx, --plain PREFIX, or both")
    if args.onnx:
        onnx_export.required("onnx")
        onnx_export.required("onnxruntime")
    prefix, number = checkpoint.parse(args.checkpoint)
    if args.plain and Path(args.plain).resolve() == Path(prefix).resolve():
        raise LatseError(
            f"--plain {args.plain} would replace the checkpoint's own symbol: give another prefix"
        )
    symbol, arg_params, aux_params = checkpoint.load(prefix, number)
    symbol = checkpoint.pick_outputs(symbol, ["fc1_output"], prefix)
    images = np.random.default_rng(0).integers(0, 256, (TRIALS, *IMAGE_SHAPE)).astype(np.float32)
    expected = _embed(symbol, arg_params, aux_params, images, args.checkpoint)
    if args.plain:
        graph = plain(symbol, arg_params, aux_params)
        _compare(args.plain, _embed(*graph.write(), images, args.plain), expected)
        checkpoint.save(args.plain, 0, *graph.write())
    if args.onnx:
        content = onnx_export.converted(symbol, arg_params, aux_params, IMAGE_SHAPE)
        found = onnx_export.session(content).run(None, {"data": images})[0]
        _compare(args.onnx, found, expected)
        onnx_export.write(args.onnx, content)


def plain(symbol: mx.sym.Symbol, args: inference.Parameters, aux: inference.Parameters) -> Graph:
    """Return a network without what only training needs, its statistics under insightface's names."""
    graph = simplified(symbol, args, aux)
    for node in graph.nodes:
        node.name = STATISTICS.sub(r"_moving_\1", node.name)
    graph.parameters = {STATISTICS.sub(r"_moving_\1", name): v for name, v in graph.parameters.items()}
    graph.auxiliary = {STATISTICS.sub(r"_moving_\1", name) for name in graph.auxiliary}
    return graph


def _embed(
    symbol: mx.sym.Symbol,
    args: inference.Parameters,
    aux: inference.Parameters,
    images: np.ndarray,
    source: str,
) -> np.ndarray:
    """Return the embeddings as MXNet computes them from a symbol as it is."""
    module = mx.mod.Module(symbol, ("data",), label_names=None)
    try:
        module.bind([("data", images.shape)], for_training=False)
        module.set_params(args, aux, allow_extra=True)
    except (mx.base.MXNetError, RuntimeError) as error:
        raise LatseError(f"{source}: its parameters do not fit its network at {images.shape[1:]}") from error
    module.forward(mx.io.DataBatch([mx.nd.array(images)]), is_train=False)
    return module.get_outputs()[0].asnumpy()


def _compare(written: str, found: np.ndarray, expected: np.ndarray) -> None:
    """Print how near a copy comes; raise LatseError where it is not near."""
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)
    if not (error <= TOLERANCE).all():
        raise LatseError(f"{written}: its embedding is off by {error.max():.1e} of its norm")
    print(f"{written}: embedding equal to {error.max():.1e} of its norm on {TRIALS} random images")
