"""A network of a checkpoint as an ONNX file, by MXNet's own exporter and with its faults mended."""

from __future__ import annotations

import contextlib
import importlib
import os
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any, Iterator, Mapping, Sequence

import mxnet as mx
import numpy as np

from latse.errors import LatseError
from latse.files import replacing
from latse.inference import folded
from latse.simplify import simplified

# What MXNet's translations are written for; it labels them with the newest set that onnx knows.
OPSET, IR_VERSION = 13, 8


def export(
    path: str | os.PathLike,
    symbol: mx.sym.Symbol,
    args: Mapping[str, mx.nd.NDArray],
    aux: Mapping[str, mx.nd.NDArray],
    image_shape: Sequence[int],
) -> None:
    """Write what `converted` returns to a file; LatseError as there, or as `write`."""
    write(path, converted(symbol, args, aux, image_shape))


def write(path: str | os.PathLike, content: bytes) -> None:
    """Write a file in one step, over an older one; raise LatseError if that is impossible."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def converted(
    symbol: mx.sym.Symbol,
    args: Mapping[str, mx.nd.NDArray],
    aux: Mapping[str, mx.nd.NDArray],
    image_shape: Sequence[int],
) -> bytes:
    """Return one output of a checkpoint as ONNX: its input is `data` (N, …) float32, N free.

    Batch normalisations are folded as in `latse.inference`, so nothing depends on how a runtime reads fixed
    gammas; slopes of PReLU have the shape (C, 1, 1).

    Parameters
    ----------
    symbol
        The output; the ONNX output is called as the symbol's without `_output`.
    args, aux
        Parameters by name.
    image_shape
        Channels, height and width of an image.

    Raises
    ------
    LatseError
        If onnx is not installed or the network holds an operator that MXNet does not translate.
    """
    onnx = required("onnx")
    graph = folded(simplified(symbol, args, aux))
    for node in graph.nodes:
        if node.op == "FullyConnected":
            node.attrs.setdefault("flatten", "True")  # MXNet's default, which its exporter does not know
    symbol, args, aux = graph.write()
    shape = tuple(image_shape)
    with tempfile.TemporaryDirectory(prefix="latse-onnx-") as folder:
        raw = str(Path(folder) / "raw.onnx")
        with _reporting():
            mx.onnx.export_model(
                symbol,
                {**args, **aux},
                [(1, *shape)],
                np.float32,
                raw,
                dynamic=True,
                dynamic_input_shapes=[("N", *shape)],
            )
        model = onnx.load(raw)
    _, outputs, _ = symbol.infer_shape(data=(1, *shape))
    model = _mended(onnx, model, outputs[0])
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def required(name: str) -> ModuleType:
    """Import a package of the extra `onnx`; LatseError with the way to install it if it is missing."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise LatseError(f"{name} is not installed: pip install 'latse[onnx]'") from error


def session(source: str | os.PathLike | bytes, threads: int = 1) -> Any:
    """Return onnxruntime's session on the processor; LatseError if the file or the content is not fit."""
    runtime = required("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    name = "the network" if isinstance(source, bytes) else source
    model = source if isinstance(source, bytes) else os.fspath(source)
    try:
        return runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has many exceptions and no common one
        raise LatseError(f"onnxruntime cannot open {name}: {str(error).splitlines()[0]}") from error


@contextlib.contextmanager
def _reporting() -> Iterator[None]:
    """MXNet's exporter has an exception of its own for each fault."""
    try:
        yield
    except (AttributeError, NotImplementedError, KeyError, ValueError, mx.base.MXNetError) as error:
        first = str(error).strip().splitlines()[0]
        raise LatseError(f"MXNet does not export this network to ONNX: {first}") from error


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
    model.producer_name = "latse"
    return model
