"""A checkpoint's output as a function of images."""

from __future__ import annotations

import os
from typing import Sequence

import mxnet as mx
import numpy as np

from latse.errors import LatseError
from latse.graph import fold as inference
from latse.models import checkpoint
from latse.models.feeding import Feeding
from latse.models.parameters import fitting
from latse.models.runner import Runner, fed, in_batches
from latse.symbols.networks import IMAGE_SHAPE

PIXELS = Feeding()


class Network:
    """One output of a checkpoint, in inference mode, as a function of images.

    What runs is not the checkpoint's graph but the folded one of `latse.graph.fold`, equal to about 1e-6.

    Any checkpoint of insightface's model zoo fits: what is asked for is an output inside its symbol, with the
    input `data` N×3×112×112, RGB in 0..255, unless `feeding` says otherwise.

    Parameters
    ----------
    prefix, number : path, int
        The checkpoint `PREFIX-symbol.json`, `PREFIX-NNNN.params`.
    output : str, default 'fc1_output'
        `fc1_output` (the embedding before normalisation) or `generated_output` (the decoder's face in -1..1).
    contexts : sequence of mx.Context
        Devices that share each batch; default: the CPU.
    batch_size : int, default 32
        Images per forward pass, at least one per device; the last batch is padded to it.
    feeding : Feeding, default that of this project's networks
        What the network gets of an image.

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
        feeding: Feeding = PIXELS,
    ):
        self.contexts = list(contexts) or [mx.cpu()]
        if batch_size < len(self.contexts):
            raise LatseError(f"a batch of {batch_size} cannot be shared by {len(self.contexts)} devices")
        self.batch_size, self.feeding = batch_size, feeding
        self._path = checkpoint.parameters_path(prefix, number)
        symbol, args, aux = checkpoint.load(prefix, number)
        symbol = checkpoint.pick_outputs(symbol, [output], prefix)
        shapes = {"data": (batch_size, 3, feeding.size, feeding.size)}
        parameters = fitting(symbol, args, aux, shapes["data"], self._path)
        self._runner = Runner(*inference.fast(symbol, *parameters, self.contexts), shapes, self.contexts)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Return the output for `images`, uint8 or float (n, 3, 112, 112), RGB in 0..255.

        Returns
        -------
        ndarray
            float32 (n, 512) for `fc1_output`, (n, 3, 112, 112) for `generated_output`.

        Raises
        ------
        LatseError
            If there is no image, or they have another size.
        """
        if images.shape[1:] != IMAGE_SHAPE:
            raise LatseError(f"{self._path}: it takes images of {IMAGE_SHAPE}, not of {images.shape[1:]}")
        title = f"{self._path.parent.name}/{self._path.stem}"
        return in_batches(self._batch, images, self.batch_size, title)

    def _batch(self, images: np.ndarray) -> np.ndarray:
        # Whole numbers go to the device as they are.
        return self._runner(images if self.feeding == PIXELS else fed(images, self.feeding))[0]
