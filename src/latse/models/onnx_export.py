"""A network of a checkpoint as an ONNX file, by MXNet's own exporter and with its faults mended."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any, Sequence

import mxnet as mx
import numpy as np

from latse.errors import blaming
from latse.graph.fold import folded
from latse.graph.nodes import Arrays
from latse.graph.simplify import simplified
from latse.models.onnx_model import PRODUCER, required

# What MXNet's translations are written for; it labels them with the newest set that onnx knows.
OPSET, IR_VERSION = 13, 8


def converted(symbol: mx.sym.Symbol, args: Arrays, aux: Arrays, image_shape: Sequence[int]) -> bytes:
    """Return one output of a checkpoint as ONNX: its input is `data` (N, *image_shape) float32, N free.

    The output is called as the symbol's without `_output`. Batch normalisations are folded as in
    `latse.graph.fold`, so nothing depends on how a runtime reads fixed gammas; slopes of PReLU have the shape
    (C, 1, 1). Raises LatseError if onnx is not installed or the network holds an operator that MXNet does not
    translate.
    """
    onnx = required("onnx")
    shape = tuple(image_shape)
    with blaming("MXNet does not export this network to ONNX"):
        graph = folded(simplified(symbol, args, aux))
        for node in graph.nodes:
            if node.op == "FullyConnected":
                node.attrs.setdefault("flatten", "True")  # MXNet's default, which its exporter does not know
        symbol, args, aux = graph.write()
        raw = _raw(onnx, symbol, {**args, **aux}, shape)
        model = _mended(onnx, raw, symbol.infer_shape(data=(1, *shape))[1][0])
        onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def _raw(onnx: ModuleType, symbol: mx.sym.Symbol, parameters: Arrays, shape: tuple[int, ...]) -> Any:
    """Return the model of MXNet's exporter, its faults included."""
    with tempfile.TemporaryDirectory(prefix="latse-onnx-") as folder:
        path = str(Path(folder) / "raw.onnx")
        free = {"dynamic": True, "dynamic_input_shapes": [("N", *shape)]}
        mx.onnx.export_model(symbol, parameters, [(1, *shape)], np.float32, path, **free)
        return onnx.load(path)


def _mended(onnx: ModuleType, model: Any, output_shape: Sequence[int]) -> Any:
    """Return the model with constants that are no inputs, slopes in the right shape and a free batch size."""
    graph = model.graph
    constants = {constant.name: constant for constant in graph.initializer}
    inputs = [entry for entry in graph.input if entry.name not in constants]
    for node in graph.node:
        if node.op_type == "PRelu":
            slopes = constants[node.input[1]]
            slopes.dims[:] = [slopes.dims[0], 1, 1]
    make = onnx.helper.make_tensor_value_info
    output = make(graph.output[0].name, onnx.TensorProto.FLOAT, ["N", *output_shape[1:]])
    for entries, new in ((graph.input, inputs), (graph.output, [output])):
        del entries[:]
        entries.extend(new)
    del graph.value_info[:]
    del model.opset_import[:]
    model.opset_import.extend([onnx.helper.make_opsetid("", OPSET)])
    model.ir_version = IR_VERSION
    model.producer_name = PRODUCER
    return model
