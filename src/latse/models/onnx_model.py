"""A face network in ONNX as a function of images, through onnxruntime on the processor."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from latse.errors import LatseError, blaming
from latse.files import existing
from latse.models.feeding import Feeding
from latse.models.runner import fed, in_batches, padded
from latse.runtime import threads

NO_MODEL = "{} holds no ONNX model that onnxruntime runs"
OUTPUT = "fc1_output"
PRODUCER = "latse"  # as `latse.models.onnx_export` signs
FLOATS = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
# insightface takes a network for one that normalises pixels by itself where names of its first nodes begin
# with one of each.
FIRST_NODES = 8
NORMALISING = (("Sub", "_minus"), ("Mul", "_mul"))
CENTRED = Feeding(mean=(127.5,), scale=(1 / 127.5,))


class OnnxNetwork:
    """The embedding of a face network in ONNX.

    The network takes (n, 3, side, side), n free or fixed. Unless `feeding` says otherwise it gets RGB of
    112x112, as insightface's `arcface_onnx.py` feeds it: 0..255 where the names of a subtraction and of a
    multiplication (`Sub…` or `_minus…`, `Mul…` or `_mul…`) are among its first eight nodes, as in those
    converted from MXNet, else (x - 127.5) / 127.5. What `latse export` writes is known by its producer and
    gets 0..255.

    Parameters
    ----------
    path : path
        FILE.onnx with one output (n, d), or several of which one is named `fc1_output`.
    batch_size : int, default 32
        Images per forward pass, at least 1; a network whose n is fixed gets its own.
    feeding : Feeding or None, default None
        What the network gets of an image; None: as above.

    Attributes
    ----------
    feeding : Feeding

    Raises
    ------
    LatseError
        If the extra `onnx` is not installed, the file is missing or damaged, or the network takes or gives
        something else.
    """

    def __init__(self, path: str | os.PathLike, batch_size: int = 32, feeding: Feeding | None = None):
        self.path = Path(path)
        onnx, _ = required("onnx"), required("onnxruntime")
        existing("the ONNX file", path)
        with blaming(NO_MODEL.format(path)):
            model = onnx.load(str(path), load_external_data=False)
        self._session = session(_given(self.path), str(path))
        try:
            takes_pixels = model.producer_name == PRODUCER or _normalises(model.graph)
            self.feeding = feeding or (Feeding() if takes_pixels else CENTRED)
            self._input, self._float, batch = self._checked_input()
            self._output = self._checked_output()
        except UnicodeDecodeError as error:
            raise LatseError(f"{self.path} is damaged: a name in it is no text") from error
        self.batch_size = batch or batch_size

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Return float (n, d) for uint8 (n, 3, 112, 112) RGB; LatseError if the network does not."""
        return in_batches(self._batch, images, self.batch_size, self.path.name)

    def _batch(self, images: np.ndarray) -> np.ndarray:
        full = padded(fed(images, self.feeding).astype(self._float, copy=False), self.batch_size)
        with blaming(f"{self.path}: its network does not take {self.batch_size} images"):
            (embedding,) = self._session.run([self._output], {self._input: full})
        if embedding.ndim != 2 or len(embedding) != len(full):
            raise LatseError(
                f"{self.path}: its output {self._output!r} of {len(full)} images has shape {embedding.shape} "
                "instead of one row for each"
            )
        return embedding[: len(images)]

    def _checked_input(self) -> tuple[str, type, int]:
        """Return the input's name, type, and batch size (0 where it is free)."""
        inputs = self._session.get_inputs()
        needed_image = (3, self.feeding.size, self.feeding.size)
        if len(inputs) != 1 or inputs[0].type not in FLOATS or len(inputs[0].shape) != 4:
            sides = ", ".join(map(str, needed_image))
            raise LatseError(f"{self.path}: its network must have one input, floats of shape (n, {sides})")
        entry = inputs[0]
        batch, *image = (size if isinstance(size, int) else 0 for size in entry.shape)  # free ones have names
        if any(size and size != needed for size, needed in zip(image, needed_image)):
            hint = (
                f"; FILE.onnx?size={image[1]} gives them"
                if image[0] in (0, 3) and image[1] == image[2]
                else ""
            )
            raise LatseError(
                f"{self.path}: its network takes images of {tuple(image)}, not of {needed_image}{hint}"
            )
        return entry.name, FLOATS[entry.type], batch

    def _checked_output(self) -> str:
        names = [output.name for output in self._session.get_outputs()]
        if len(names) != 1 and OUTPUT not in names:
            listed = ", ".join(names) or "none"
            raise LatseError(f"{self.path} must have one output, or one named {OUTPUT}, not: {listed}")
        return OUTPUT if OUTPUT in names else names[0]


def required(name: str) -> ModuleType:
    """Import a package of the extra `onnx`; LatseError with the way to install it if it is missing."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise LatseError(f"{name} is not installed; pip install 'latse[onnx]'") from error


def session(model: str | bytes, title: str = "the exported file") -> Any:
    """Return onnxruntime's `InferenceSession` on the processor, with `latse.runtime.threads()` threads.

    Parameters
    ----------
    model : str or bytes
        Path of an ONNX file, or its content.
    title : str, default 'the exported file'
        What an error calls it.

    Raises
    ------
    LatseError
        If onnxruntime is not installed, or cannot run the model.
    """
    onnxruntime = required("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; its warnings are about initialisers
    options.intra_op_num_threads = threads()
    with blaming(NO_MODEL.format(title)):
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _given(path: Path) -> str | bytes:
    """Return a path, or where it is not UTF-8 the content, without weights that lie in files beside it."""
    try:
        str(path).encode()
        return str(path)
    except UnicodeEncodeError:
        return path.read_bytes()


def _normalises(graph: Any) -> bool:
    """Tell whether insightface takes a graph for one that normalises pixels by itself."""
    names = [node.name for node in graph.node[:FIRST_NODES]]
    return all(any(name.startswith(beginnings) for name in names) for beginnings in NORMALISING)
