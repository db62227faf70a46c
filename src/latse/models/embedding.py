"""A checkpoint's output as a function of images."""

from __future__ import annotations

import os
from typing import Sequence

import mxnet as mx
import numpy as np

from latse.errors import LatseError
from latse.graph import fold as inference
from latse.models import checkpoint
from latse.models.parameters import fitting
from latse.models.runner import Runner, in_batches


class Network:
    """One output of a checkpoint, in inference mode, as a function of images.

    What runs is not the checkpoint's graph but the folded one of `latse.graph.fold`, equal to about 1e-6.

    Any checkpoint of insightface's model zoo fits: what is asked for is an output inside its symbol, with the
    input `data` N×3×H×W, RGB in 0..255.

    Parameters
    ----------
    prefix, number
        The checkpoint `PREFIX-symbol.json`, `PREFIX-NNNN.params`.
    output
        `fc1_output` (the embedding before normalisation) or `generated_output` (the decoder's face in -1..1).
    contexts
        Devices that share each batch; default: the CPU.
    batch_size
        Images per forward pass, at least one per device; the last batch is padded to it.

    Raises
    ------
    LatseError
        If a file is missing or damaged, there is no such output, or parameters are missing or misshapen.
    """

    def __init__(
        self,
        prefix: str | os.PathLike,
        number: int,
        output: str = "fc1_output",
        contexts: Sequence[mx.Context] = (),
        batch_size: int = 32,
    ):
        self.contexts = list(contexts) or [mx.cpu()]
        if batch_size < len(self.contexts):
            raise LatseError(f"a batch of {batch_size} cannot be shared by {len(self.contexts)} devices")
        self.batch_size = batch_size
        self.output = output
        self._path = checkpoint.parameters_path(prefix, number)
        symbol, self._args, self._aux = checkpoint.load(prefix, number)
        self._symbol = checkpoint.pick_outputs(symbol, [output], prefix)
        self._bound: dict[tuple[int, ...], Runner] = {}

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Return the output for `images`.

        Parameters
        ----------
        images
            uint8 or float (n, 3, H, W), RGB in 0..255.

        Returns
        -------
        ndarray
            float32 (n, 512) for `fc1_output`, (n, 3, H, W) for `generated_output`.

        Raises
        ------
        LatseError
            If there is no image, or the parameters do not fit the symbol at this image size.
        """
        title = f"{self._path.parent.name}/{self._path.stem}"
        return in_batches(self._batch, images, self.batch_size, title)

    def _batch(self, images: np.ndarray) -> np.ndarray:
        (rows,) = self._runner(images.shape[1:])(images)
        return rows

    def _runner(self, image_shape: tuple[int, ...]) -> Runner:
        """Return what runs images of this shape; only that of the last shape is kept."""
        if image_shape not in self._bound:
            shape = (self.batch_size, *image_shape)
            parameters = fitting(self._symbol, self._args, self._aux, shape, self._path)
            fast = inference.fast(self._symbol, *parameters, contexts=self.contexts)
            self._bound = {image_shape: Runner(*fast, {"data": shape}, self.contexts)}
        return self._bound[image_shape]
