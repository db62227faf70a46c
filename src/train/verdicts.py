"""Which samples of a batch reach the encoder: the teacher's filter (§3.3), or everything."""

from __future__ import annotations

import os

import mxnet as mx
import numpy as np

from latse import checkpoint
from latse.data.loader import Batch
from latse.data.records import Shard
from latse.errors import LatseError
from latse.train import graph, verdict_file


class KeepAll:
    """No filter: every sample is kept."""

    def keep(self, batch: Batch) -> np.ndarray:
        """Return ones, float32 (B,)."""
        return np.ones(len(batch.label), np.float32)


class TopK:
    """Keeps the samples whose label is among the k likeliest classes of a fixed teacher.

    Parameters
    ----------
    prefix, number
        The teacher's checkpoint; its class centres `fc7_weight` must be among the parameters.
    k : int
        At least 1.
    classes : int
        Number of people; the teacher must know as many.
    image_shape : tuple of int
        (3, 112, 112).
    batch_size : int
        Size of the batches that will be judged.
    contexts : list of mx.Context
        Devices; the batch is split over them.

    Raises
    ------
    LatseError
        If the checkpoint is missing, damaged, or has no class centres for `classes` people.
    """

    def __init__(
        self,
        prefix: str | os.PathLike,
        number: int,
        k: int,
        classes: int,
        image_shape: tuple[int, ...],
        batch_size: int,
        contexts: list[mx.Context],
    ) -> None:
        symbol, arg_params, aux_params = checkpoint.load(prefix, number)
        path = checkpoint.parameters_path(prefix, number)
        centres = arg_params.get("fc7_weight")
        if centres is None:
            raise LatseError(f"the teacher {path} has no class centres 'fc7_weight'")
        if centres.shape[0] != classes:
            raise LatseError(f"the teacher {path} knows {centres.shape[0]} people, the data have {classes}")
        embedding = checkpoint.pick_outputs(symbol, ["fc1_output"], prefix)
        self._k = k
        self._module = mx.mod.Module(
            graph.verdict(embedding, classes), context=contexts, label_names=("softmax_label",)
        )
        self._module.bind(
            data_shapes=[("data", (batch_size, *image_shape))],
            label_shapes=[("softmax_label", (batch_size,))],
            for_training=False,
        )
        try:
            self._module.init_params(arg_params=arg_params, aux_params=aux_params, allow_extra=True)
        except RuntimeError as error:  # an array that is missing or has another shape; MXNetError is one
            reason = str(error).strip().splitlines()[-1]
            raise LatseError(f"the teacher {path} does not fit its symbol: {reason}") from error

    def ranks(self, batch: Batch) -> np.ndarray:
        """Return how many classes the teacher finds likelier than each label, float32 (B,)."""
        inputs = mx.io.DataBatch([graph.as_input(batch.image)], [graph.as_input(batch.label)])
        self._module.forward(inputs, is_train=False)
        return self._module.get_outputs()[0].asnumpy()

    def keep(self, batch: Batch) -> np.ndarray:
        """Return 1 where the label is among the top k, else 0, float32 (B,)."""
        return (self.ranks(batch) < self._k).astype(np.float32)


class Stored:
    """Keeps what a file of verdicts says, which `latse filter` has made with the teacher.

    Parameters
    ----------
    path : path
    k : int
    shard : Shard
        The set that is trained on, which must be the one that was judged.

    Attributes
    ----------
    teacher : str
        Digest of the teacher's parameters.

    Raises
    ------
    LatseError
        If the file is missing, damaged, of another set, or has no verdicts for this k.
    """

    def __init__(self, path: str | os.PathLike, k: int, shard: Shard) -> None:
        verdicts = verdict_file.read(path)
        if verdicts.binding["data"] != shard.digest() or len(verdicts.refusals) != len(shard):
            raise LatseError(f"{path} holds verdicts on another set than {shard.folder}")
        self.teacher = verdicts.binding["teacher"]
        self._records = shard.records
        try:
            self._keep = verdicts.keep(k)
        except LatseError as error:
            raise LatseError(f"{path}: {error}") from error

    def keep(self, batch: Batch) -> np.ndarray:
        """Return 1 where the label is among the top k, else 0, float32 (B,)."""
        positions = np.searchsorted(self._records, batch.record)
        return self._keep[positions, batch.mirrored.astype(np.int64)].astype(np.float32)
