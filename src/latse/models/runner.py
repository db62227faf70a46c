"""What runs a network over images: a batch is filled up, computed, and cut again."""

from __future__ import annotations

from typing import Callable, Iterable, Mapping, Sequence

import cv2
import mxnet as mx
import numpy as np
from tqdm import tqdm

from latse.errors import LatseError
from latse.models.feeding import SIZE, Feeding
from latse.models.parameters import Arrays


class Runner:
    """A symbol bound to its devices, in inference mode, for batches of one size.

    Each device holds one copy of the parameters. An array that is there already, in the graph's type, is not
    copied.

    Parameters
    ----------
    symbol : mx.sym.Symbol
    args, aux : dict of str to NDArray
        All its parameters and nothing else. Nobody may change them afterwards.
    shapes : mapping of str to tuple of int
        The shape of each input for a full batch; the first axis is the batch.
    contexts : sequence of mx.Context, optional
        Devices that share each batch, which has an image for each at least; default: the CPU.
    shared : Runner, optional
        One of the same symbol and parameters, of larger batches, on the same first devices. This one uses its
        memory and its parameters.
    """

    def __init__(
        self,
        symbol: mx.sym.Symbol,
        args: Arrays,
        aux: Arrays,
        shapes: Mapping[str, tuple[int, ...]],
        contexts: Sequence[mx.Context] = (),
        shared: Runner | None = None,
    ):
        self._size, self._names = next(iter(shapes.values()))[0], list(shapes)
        contexts = list(contexts) or [mx.cpu()]
        self._rows = np.array_split(np.arange(self._size), len(contexts))  # of a batch, on each device
        lent = shared._executors if shared else [None] * len(contexts)
        types = _types(symbol, shapes)
        self._executors = []
        for context, rows, memory in zip(contexts, self._rows, lent):
            if memory:
                given, states = (
                    {name: there[name] for name in of}
                    for there, of in ((memory.arg_dict, args), (memory.aux_dict, aux))
                )
            else:
                given, states = (_placed(of, types, context) for of in (args, aux))
            inputs = {name: mx.nd.zeros((len(rows), *shape[1:]), context) for name, shape in shapes.items()}
            every = {**given, **inputs}
            bound = symbol.bind(context, every, grad_req="null", aux_states=states, shared_exec=memory)
            self._executors.append(bound)

    def __call__(self, *inputs: np.ndarray) -> list[np.ndarray]:
        """Return the outputs for n rows of each input, n at most the batch: float32 (n, ...) each."""
        arrays = [as_input(padded(array, self._size)) for array in inputs]
        for executor, rows in zip(self._executors, self._rows):
            parts = [array[rows[0] : rows[-1] + 1] for array in arrays]
            executor.forward(is_train=False, **dict(zip(self._names, parts)))
        outputs = zip(*(executor.outputs for executor in self._executors))
        return [np.concatenate([part.asnumpy() for part in parts])[: len(inputs[0])] for parts in outputs]


def _placed(arrays: Arrays, types: Mapping[str, np.dtype], context: mx.Context) -> Arrays:
    """Return the arrays on a device in their types; those that are so already are not copied."""
    return {
        name: array.astype(types[name], copy=False).as_in_context(context) for name, array in arrays.items()
    }


def _types(symbol: mx.sym.Symbol, inputs: Iterable[str]) -> dict[str, np.dtype]:
    """Return the type that the graph has for each parameter where its inputs are float32."""
    arguments, _, states = symbol.infer_type(**dict.fromkeys(inputs, np.float32))
    return dict(zip(symbol.list_arguments() + symbol.list_auxiliary_states(), arguments + states))


def fed(images: np.ndarray, feeding: Feeding) -> np.ndarray:
    """Return what a network gets, float32 (n, 3, size, size), for uint8 (n, 3, 112, 112) RGB."""
    if feeding.size != SIZE:
        side = feeding.size, feeding.size
        how = cv2.INTER_AREA if feeding.size < SIZE else cv2.INTER_LINEAR
        resized = [cv2.resize(image.transpose(1, 2, 0), side, interpolation=how) for image in images]
        images = np.stack(resized).transpose(0, 3, 1, 2)
    images = images[:, ::-1] if feeding.order == "bgr" else images
    mean, scale = (np.array(part, np.float32).reshape(-1, 1, 1) for part in (feeding.mean, feeding.scale))
    return (images - mean) * scale


def padded(array: np.ndarray, size: int) -> np.ndarray:
    """Return an array (n, ...) with rows of zeros after its own: (size, ...), n at most `size`."""
    missing = size - len(array)
    return np.pad(array, [(0, missing)] + [(0, 0)] * (array.ndim - 1)) if missing else array


def as_input(array: np.ndarray) -> mx.nd.NDArray:
    """Return an array as float32, cast by MXNet's engine: `mx.nd.array` takes twice as long for uint8."""
    return mx.nd.from_numpy(np.ascontiguousarray(array)).astype(np.float32)


def in_batches(
    function: Callable[[np.ndarray], np.ndarray],
    images: np.ndarray,
    batch_size: int,
    title: str,
    logged: bool = False,
) -> np.ndarray:
    """Return the rows that `function` gives for runs of at most `batch_size` images, one below the other.

    Parameters
    ----------
    function : callable
        Maps images (m, ...) to rows (m, ...), of the same shape and type for every batch.
    images : ndarray
        (n, ...).
    batch_size : int
        At least 1.
    title : str
        Of the progress bar.
    logged : bool, default False
        Whether the bar is for a log too, not only for a terminal.

    Raises
    ------
    LatseError
        If there is no image, or the batch is empty.
    """
    if not len(images):
        raise LatseError("there is no image to embed")
    if batch_size < 1:
        raise LatseError(f"a batch of {batch_size} holds no image")
    rows = np.empty(0)
    off = False if logged else None  # None: wherever there is no terminal
    with tqdm(total=len(images), desc=title, unit="image", leave=False, disable=off) as bar:
        for start in range(0, len(images), batch_size):
            part = slice(start, start + batch_size)
            of_part = function(images[part])
            if not start:  # once in memory: those of each batch go straight to their place
                rows = np.empty((len(images), *of_part.shape[1:]), of_part.dtype)
            rows[part] = of_part
            bar.update(len(of_part))
    return rows
