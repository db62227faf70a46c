"""Which samples of a batch reach the encoder: the teacher's filter (§3.3), or everything."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import sys
from pathlib import Path
from typing import Protocol, Sequence

import mxnet as mx
import numpy as np

from latse.data.shards import verdict_file
from latse.data.shards.records import Batch, Shard
from latse.errors import LatseError
from latse.files import read_json
from latse.graph import fold as inference
from latse.models import checkpoint
from latse.models.features import lengths, unit
from latse.models.parameters import fitting
from latse.models.run_folder import parse
from latse.models.runner import Runner
from latse.symbols.networks import IMAGE_SHAPE, Likeliest, Verdict, trace

# Cosines closer than this are not taken for different where a batch is judged. On the CPU those of a
# ResNet-50 differ by 3e-7 between batches of different sizes, by 1e-6 between folded and unfolded graph.
DOUBT = 1e-5
ROWS_AT_ONCE = 8192  # class centres
SAMPLE = 64  # images whose numbers preprocessing() reads


class Teacher(Protocol):
    """What says which samples of a batch reach the encoder."""

    def keep(self, batch: Batch) -> np.ndarray:
        """Return 1 for each sample that does, else 0, float32 (B,)."""
        ...


class KeepAll:
    """No filter: every sample is kept."""

    def keep(self, batch: Batch) -> np.ndarray:
        """Return ones, float32 (B,)."""
        return np.ones(len(batch.label), np.float32)


class Judge:
    """A fixed teacher that ranks the labels of images.

    Its encoder runs as the folded graph of `latse.graph.fold`. Float32 sums depend in their last digits on
    the size of a batch, the place in it and the device, so that cosines closer than `DOUBT` may change
    places. Where that would change a verdict, the image is looked at again, alone on the first device: what
    is said of an image does not depend on the batch that it came in.

    Parameters
    ----------
    teacher : str
        Its checkpoint `PREFIX,NUMBER`; the class centres `fc7_weight` must be among the parameters, (K, D),
        or several for each person, (K, centres, D), of which the nearest counts.
    classes : int
        Number of people; the teacher must know as many.
    batch_size : int
        Size of the largest batch that will be judged.
    contexts : list of mx.Context
        Devices; the batch is split over them.

    Attributes
    ----------
    alone : int
        How many images have been looked at again.

    Raises
    ------
    LatseError
        If the checkpoint is missing, damaged, or has no class centres for `classes` people, if embeddings and
        class centres are not of as many numbers, or the latter not finite.
    """

    def __init__(self, teacher: str, classes: int, batch_size: int, contexts: list[mx.Context]) -> None:
        prefix, number = parse(teacher)
        symbol, args, aux = checkpoint.load(prefix, number)
        path = checkpoint.parameters_path(prefix, number)
        centres = args.get("fc7_weight")
        if centres is None:
            raise LatseError(
                f"the teacher {path} has no class centres 'fc7_weight': `latse filter --centres means` takes "
                "the people's means"
            )
        if centres.shape[0] != classes:
            raise LatseError(f"the teacher {path} knows {centres.shape[0]} people, the data have {classes}")
        centres = centres.astype(np.float32, copy=False)
        _to_unit_length(centres, path)
        symbol = checkpoint.pick_outputs(symbol, ["fc1_output"], prefix)
        parameters = fitting(symbol, args, aux, (1, *IMAGE_SHAPE), path)
        embedding = symbol.infer_shape(data=(1, *IMAGE_SHAPE))[1][0]
        if embedding[-1] != centres.shape[-1] or centres.ndim not in (2, 3):
            raise LatseError(
                f"the teacher {path} has embeddings of {embedding[-1]} numbers and class centres of "
                f"{centres.shape[-1]}: both must be equally long"
            )
        encoder, args, aux = inference.fast(symbol, *parameters, contexts=contexts)
        self._encoder, self._of_encoder = encoder, (args, aux)
        self._centres = centres
        self._parameters = {**args, "fc7_weight": centres}, aux
        self.alone = 0
        self._path = path
        self._contexts, self._batch_size = contexts, batch_size
        self._together = self._runner(Verdict(centres.shape, DOUBT), batch_size, contexts)

    @functools.cached_property
    def _again(self) -> Runner:
        """The same for one image; most runs never need it."""
        return self._runner(Verdict(self._centres.shape, DOUBT), 1, self._contexts[:1], self._together)

    @functools.cached_property
    def _likeliest(self) -> Runner:
        return self._runner(Likeliest(self._centres.shape), self._batch_size, self._contexts)

    @functools.cached_property
    def _embedder(self) -> Runner:
        images = {"data": (self._batch_size, *IMAGE_SHAPE)}
        return Runner(self._encoder, *self._of_encoder, images, self._contexts)

    def _called(self, record: int) -> str:
        return f"{self._path}: the embedding of record {record}"

    def _runner(
        self, head: Verdict | Likeliest, size: int, contexts: list[mx.Context], shared: Runner | None = None
    ) -> Runner:
        shapes = {"data": (size, *IMAGE_SHAPE), "softmax_label": (size,)}
        return Runner(trace(head)(embedding=self._encoder), *self._parameters, shapes, contexts, shared)

    def likeliest(self, batch: Batch) -> list[np.ndarray]:
        """Return the cosines with the label's class centre and with the likeliest other, and which that is.

        float32 (n,) each, of a batch of `batch_size` images or fewer.
        """
        return self._likeliest(batch.image, batch.label)

    def own_cosines(self, batch: Batch) -> np.ndarray:
        """Return the cosines with all centres of each label's person, float64 (n, centres).

        Of a batch of `batch_size` images or fewer. LatseError if an embedding is zero or not finite.
        """
        (embeddings,) = self._embedder(batch.image)
        directions = unit(embeddings.astype(np.float64), lambda row: self._called(batch.record[row]))
        own = self._centres.take(mx.nd.array(batch.label), axis=0).asnumpy().astype(np.float64)
        return np.einsum("nkd,nd->nk", own.reshape(len(own), -1, own.shape[-1]), directions)

    def ranks(self, batch: Batch, ks: Sequence[int]) -> np.ndarray:
        """Return how many classes the teacher finds likelier than each label, float32 (n,).

        What does not depend on the batch, of `batch_size` images or fewer, is on which side of each of `ks` a
        rank lies. LatseError if an image's embedding is zero or not finite: the teacher would keep every
        label.
        """
        ranks, least, most, length = self._together(batch.image, batch.label)
        lengths(length[:, None], lambda row: self._called(batch.record[row]))
        # One of `ks` keeps the least possible rank and refuses the most possible one.
        decides = (least[:, None] < ks) & (most[:, None] >= ks)
        for row in np.flatnonzero(decides.any(axis=1)):
            ranks[row] = self._again(batch.image[row : row + 1], batch.label[row : row + 1])[0][0]
            self.alone += 1
        return ranks


class TopK:
    """Keeps the samples whose label is among the k likeliest classes, k at least 1, of a fixed teacher."""

    def __init__(self, judge: Judge, k: int) -> None:
        self._judge, self._k = judge, k

    def keep(self, batch: Batch) -> np.ndarray:
        """Return 1 where the label is among the top k, else 0, float32 (B,)."""
        return (self._judge.ranks(batch, [self._k]) < self._k).astype(np.float32)


class Stored:
    """Keeps what a file of verdicts says, which `latse filter` has made with the teacher.

    Raises LatseError if the file is missing, damaged, of an older version, of another set than `shard`, of
    images that were decoded or mirrored otherwise, or has no verdicts for this k.

    Attributes
    ----------
    teacher : str
        Digest of the teacher's parameters.
    rule : str
        That of how it judges: of its graph, and of what else `latse filter` was told to judge by.
    """

    def __init__(self, path: str | os.PathLike, k: int, shard: Shard) -> None:
        self._verdicts = verdict_file.read(path)
        binding = self._verdicts.binding
        if binding["data"] != shard.digest() or len(self._verdicts.packed) != len(shard):
            raise LatseError(f"{path} holds verdicts on another set than {shard.folder}")
        if binding["preprocessing"] != preprocessing(shard):
            raise LatseError(f"{path} holds verdicts on {shard.folder} decoded or mirrored otherwise")
        self.teacher, self.rule = binding["teacher"], binding["graph"]
        self._records, self._k = shard.records, k
        self._verdicts.check(k)

    def keep(self, batch: Batch) -> np.ndarray:
        """Return 1 where the label is among the top k, else 0, float32 (B,)."""
        positions = np.searchsorted(self._records, batch.record)
        return self._verdicts.keeps(self._k, positions, batch.mirrored).astype(np.float32)


def _to_unit_length(centres: mx.nd.NDArray, path: Path) -> None:
    """Divide class centres, (K, D) or (K, centres, D), by their lengths, in place and in parts.

    One of zeros, which has no direction, stays. Raises LatseError, naming `path`, if one is not finite.
    """
    for first in range(0, centres.shape[0], ROWS_AT_ONCE):
        part = centres[first : first + ROWS_AT_ONCE]
        rows = part.asnumpy().astype(np.float64)
        if not np.isfinite(rows).all():
            raise LatseError(f"the teacher {path} has class centres that are not finite")
        length = np.linalg.norm(rows, axis=-1, keepdims=True)
        part[:] = np.divide(rows, length, out=np.zeros_like(rows), where=length > 0)


def warn_of_another_set(teacher: str, shard: Shard) -> str:
    """Print and return a warning if run.json beside a teacher, PREFIX,N, names another set; else ""."""
    with contextlib.suppress(LatseError, KeyError, TypeError):  # none is there, or not one of `latse train`
        record = read_json(Path(parse(teacher)[0]).with_name("run.json"))
        if record["data"]["digest"] != shard.digest():
            sets = f"another set ({record['from']['data']}) than {shard.folder}"
            warning = f"warning: the teacher {teacher} learned {sets}: the labels must name the same people"
            print(f"latse: {warning}", file=sys.stderr)
            return warning
    return ""


def preprocessing(shard: Shard) -> str:
    """Return 32 hexadecimal digits that stand for how an image becomes what the networks get.

    The digest of 64 images at even distances (of all, in a smaller set) as `Shard.read_into` gives them,
    plain and mirrored: of their size, of the order of colours and planes, of what the decoder makes of the
    JPEG, and of the mirroring. What the networks do with the numbers is part of their graphs.
    """
    digest = hashlib.blake2b(digest_size=16)
    positions = np.linspace(0, len(shard) - 1, min(SAMPLE, len(shard))).astype(np.int64)
    both = np.tile([False, True], len(positions))
    for image in shard.batch(np.repeat(positions, 2), both).image:
        digest.update(str(image.shape).encode() + image.tobytes())
    return digest.hexdigest()
