"""The sub-command `latse export`: a checkpoint's embedding for other tools."""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path

import mxnet as mx
import numpy as np

from latse.errors import LatseError
from latse.files import digest, make_parents, replacing, write_json
from latse.graph.nodes import Arrays
from latse.graph.simplify import ValuedGraph, simplified
from latse.models import checkpoint, onnx_export, onnx_model
from latse.models.features import lengths
from latse.models.parameters import fitting
from latse.models.run_folder import parse
from latse.models.runner import Runner
from latse.provenance import provenance
from latse.symbols.names import insightface_name
from latse.symbols.networks import IMAGE_SHAPE

TOLERANCE = 1e-4  # of the embedding's norm
TRIALS = 4  # random images that every export is tried on


def run(args: argparse.Namespace) -> None:
    """Write what was asked for; raise LatseError for bad input, or where a copy gives another embedding."""
    if not (args.onnx or args.plain):
        raise LatseError("nothing to write: give --onnx FILE.onnx, --plain PREFIX, or both")
    if args.onnx:
        onnx_model.required("onnx")
        onnx_model.required("onnxruntime")
    prefix, number = parse(args.checkpoint)
    if args.plain and Path(args.plain).resolve() == Path(prefix).resolve():
        raise LatseError(
            f"--plain {args.plain} would replace the checkpoint's own symbol: give another prefix"
        )
    make_parents(args.json)
    symbol, *parameters = checkpoint.load(prefix, number)
    copies = _write_copies(args, checkpoint.pick_outputs(symbol, ["fc1_output"], prefix), *parameters)
    if args.json:
        source = {"source": args.checkpoint, "digest": digest(checkpoint.parameters_path(prefix, number))}
        trial = {"checkpoint": source, "images": TRIALS, "tolerance": TOLERANCE, "copies": copies}
        write_json(args.json, {"kind": "export", **trial, "provenance": provenance(args, [mx.cpu()])})
    for copy in copies.values():
        print(
            "{file}: embedding equal to {relative_error:.1e} of its norm".format(**copy),
            f"on {TRIALS} random images",
        )


def _write_copies(
    args: argparse.Namespace, symbol: mx.sym.Symbol, *parameters: Arrays
) -> dict[str, dict[str, object]]:
    """Write all copies or none; return what `_compared` says of each, by its form."""
    images = np.random.default_rng(0).integers(0, 256, (TRIALS, *IMAGE_SHAPE)).astype(np.float32)
    network = symbol, *fitting(symbol, *parameters, images.shape, args.checkpoint)
    shapes = {"data": images.shape}
    expected = Runner(*network, shapes)(images)[0]  # as MXNet computes it
    copies = {}
    with contextlib.ExitStack() as files:  # the ONNX file takes its place once the plain pair has its own
        if args.onnx:
            content = onnx_export.converted(*network, IMAGE_SHAPE)
            embedding = onnx_model.session(content).run(None, {"data": images})[0]
            copies["onnx"] = _compared(args.onnx, embedding, expected)
            files.enter_context(replacing(args.onnx)).write_bytes(content)
        if args.plain:
            copy = plain(*network).write()
            copies["plain"] = _compared(args.plain, Runner(*copy, shapes)(images)[0], expected)
            checkpoint.save(args.plain, 0, *copy)
    return copies


def plain(symbol: mx.sym.Symbol, args: Arrays, aux: Arrays) -> ValuedGraph:
    """Return a network without what only training needs, its statistics under insightface's names."""
    graph = simplified(symbol, args, aux)
    for node in graph.nodes:
        node.name = insightface_name(node.name)
    graph.parameters = {insightface_name(name): value for name, value in graph.parameters.items()}
    return graph


def _compared(file: str, copied: np.ndarray, expected: np.ndarray) -> dict[str, object]:
    """Return how near a copy comes: its largest error as a fraction of the norm, and its lowest cosine.

    Raises LatseError where it is not near.
    """
    norms = lengths(expected, lambda row: f"{file}: the checkpoint's embedding of random image {row}")
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.linalg.norm(copied - expected, axis=1) / norms
        cosine = (copied * expected).sum(axis=1) / np.linalg.norm(copied, axis=1) / norms
    if not (error <= TOLERANCE).all():
        raise LatseError(f"{file}: its embedding is off by {error.max():.1e} of its norm")
    return {"file": file, "relative_error": float(error.max()), "cosine": float(cosine.min())}
