"""What can be judged: checkpoints, feature files and baselines, all under one interface.

A model is written `[TITLE=]WHAT` on the command line. Its title names it in tables, figures and JSON; without
one it is that of the checkpoint's folder, the file's name without its ending, or the baseline's word.
"""

from __future__ import annotations

import argparse
import os
from collections import Counter
from pathlib import Path
from tokenize import TokenError
from typing import Any, Protocol, Sequence

import mxnet as mx
import numpy as np

from latse import devices
from latse.errors import MOST, LatseError, check_range
from latse.eval import references
from latse.eval.dlib_model import DlibNetwork
from latse.eval.model_arguments import BASELINES, SET, model, split
from latse.eval.verification import Feature, flip_sum
from latse.files import digest, explained, read_json
from latse.form import ANYTHING, Each, check
from latse.models import checkpoint
from latse.models.embedding import Network
from latse.models.features import Called, lengths
from latse.models.feeding import Feeding
from latse.models.onnx_model import OnnxNetwork
from latse.models.run_folder import named_checkpoint, parse

FITTED = {"pca": references.whitened_pca, "fisherfaces": references.fisherfaces}
RUN_KEYS = ("recipe", "seed", "settings")
IMAGE = "image {}".format  # what an error calls an image, by its position from 0 on


class FaceModel(Protocol):
    """What is judged, under its `title` in tables and JSON.

    `origin` is what JSON says of it: `source`, `digest` of its file, and `recipe`, `seed`, `settings` of its
    run.
    """

    title: str
    origin: dict[str, Any]

    def embed(self, images: np.ndarray, name: str, called: Called = IMAGE) -> np.ndarray:
        """Return one feature for each image, float64 (n, d), finite, not zero, and not normalised.

        Images are uint8 (n, 3, 112, 112), RGB. `name` is that of their set, for features read from a file and
        for the sentence of an error, which calls an image what `called` returns for its position. Of a model
        that sees the images, a feature is the sum over an image and its mirror. Raises LatseError if the
        model does not take such images, or a feature is zero or not finite: it has no direction.
        """
        ...


class FlipSummed:
    """A model that maps images to features: judged by the sum over an image and its mirror image.

    `feature` maps uint8 (m, 3, 112, 112) to float (m, d); `title` and `origin` are those of `FaceModel`.
    """

    def __init__(self, title: str, origin: dict[str, Any], feature: Feature):
        self.title, self.origin, self.feature = title, origin, feature

    def embed(self, images: np.ndarray, name: str, called: Called = IMAGE) -> np.ndarray:
        """Return float64 (n, d), see `FaceModel.embed`; byte-identical images are looked at once."""
        features = flip_sum(self.feature, images)
        lengths(features, lambda row: f"{self.title} on {name}: the embedding of {called(row)}")
        return features


class FeatureFile:
    """Features that another program computed, in files of numpy.

    `pattern` is the path of a .npy; `{set}` in it stands for the name of the set of images. The `digest` in
    `origin` is known once the file is read, with `{set}` that of each set, by name.
    """

    def __init__(self, title: str, pattern: str):
        self.title, self.pattern = title, pattern
        self.origin: dict[str, Any] = {"source": pattern}

    def embed(self, images: np.ndarray, name: str, called: Called = IMAGE) -> np.ndarray:
        """Return float64 (n, d), the rows of the file; see `FaceModel.embed`."""
        features = self.rows(len(images), name).astype(np.float64)
        lengths(features, self.naming(name, called))
        return features

    def naming(self, name: str, called: Called = IMAGE) -> Called:
        """Return what the sentence of an error calls the row of an image of the set `name`."""
        return lambda row: f"{self._path(name)} for {name}: the embedding of {called(row)}"

    def rows(self, count: int, name: str) -> np.ndarray:
        """Map the rows of the file for the `count` images of a set: float (count, d), finite or not.

        Raises LatseError if the file is missing or damaged, or holds another number of them.
        """
        path = self._path(name)
        features = _read_npy(path)
        if len(features) != count:
            raise LatseError(f"{path} holds {len(features)} features, but {name} has {count} images")
        digits = digest(path)
        self.origin["digest"] = (
            digits if path == self.pattern else {**self.origin.get("digest", {}), name: digits}
        )
        return features

    def _path(self, name: str) -> str:
        return self.pattern.replace(SET, name)


def open_models(args: argparse.Namespace) -> list[FaceModel]:
    """Open the models that the arguments of `add_model_arguments` name, in order; [] without `--model`.

    Raises LatseError if two have the same title, or as `open_model`.
    """
    texts = args.model or []
    title, count = next(iter(Counter(split(text)[0] for text in texts).most_common(1)), ("", 0))
    if count > 1:
        raise LatseError(f"{count} models have the title {title!r}: give each its own, as TITLE=WHAT")
    contexts = devices.contexts(args)
    return [open_model(text, contexts, args.batch_size, args.train_data) for text in texts]


def open_model(
    text: str,
    contexts: Sequence[mx.Context] = (),
    batch_size: int = 32,
    train_data: str | os.PathLike | None = None,
) -> FaceModel:
    """Open one model.

    Parameters
    ----------
    text : str
        `[TITLE=]WHAT[?FEEDING]` as on the command line. A `=` after a `/` is part of a path: `./a=b/model,0`.
    contexts : sequence of mx.Context
        Devices of a network; default: the CPU.
    batch_size : int, default 32
        Images per forward pass of a network.
    train_data : str or os.PathLike or None, optional
        Folder of the shard that `pca` and `fisherfaces` are fitted to.

    Raises
    ------
    LatseError
        If a file is missing or damaged, or the training data are, or the batch size is out of range.
    """
    check_range("the batch size", batch_size, 1, MOST)
    title, what, feeding = split(model(text))
    if what.endswith(".npy"):
        return FeatureFile(title, what)
    if what in BASELINES:
        origin, feature = _baseline(what, batch_size, train_data)
    else:
        what = what if what.endswith(".onnx") else named_checkpoint(what)
        origin, feature = _network(what, contexts, batch_size, feeding)
    return FlipSummed(title, {"source": what, **origin}, feature)


def open_embedder(
    text: str, contexts: Sequence[mx.Context], batch_size: int, train_data: str | os.PathLike | None
) -> FlipSummed:
    """Open one model that sees images, as `open_model` does; raise LatseError for a file of features."""
    model = open_model(text, contexts, batch_size, train_data)
    if not isinstance(model, FlipSummed):
        raise LatseError(f"{text} holds features already: name a model that makes them")
    return model


def _baseline(
    what: str, batch_size: int, train_data: str | os.PathLike | None
) -> tuple[dict[str, Any], Feature]:
    """Return what JSON says of a baseline besides its source, and the baseline as a function of images."""
    if what == "pixels":
        return {}, references.raw_pixels
    if what in FITTED:
        if train_data is None:
            raise LatseError(f"{what} is fitted to training people: name their shard with --train-data")
        images, label = references.training_images(train_data)
        return {"train_data": str(train_data), "images": len(images)}, FITTED[what](images, label)
    network = DlibNetwork(batch_size)
    return {"digest": digest(network.path)}, network


def _network(
    what: str, contexts: Sequence[mx.Context], batch_size: int, feeding: Feeding | None
) -> tuple[dict[str, Any], Feature]:
    """Return the same of a network in a file; JSON says how it is fed where that is not as ours are."""
    if what.endswith(".onnx"):
        network = OnnxNetwork(what, batch_size, feeding)
        return {"digest": digest(what), "feeding": network.feeding.as_json()}, network
    prefix, number = parse(what)
    network = Network(prefix, number, contexts=contexts, batch_size=batch_size, feeding=feeding or Feeding())
    origin = {
        "digest": digest(checkpoint.parameters_path(prefix, number)),
        **_run_record(Path(prefix).parent),
    }
    return origin if feeding is None else {**origin, "feeding": feeding.as_json()}, network


def _run_record(folder: Path) -> dict[str, Any]:
    """Return what `run.json` beside a checkpoint says of its making; {} for one from elsewhere."""
    path = folder / "run.json"
    if not path.exists():
        return {}
    record = read_json(path)
    check(path, record, Each(ANYTHING))
    return {key: record.get(key) for key in RUN_KEYS}


def _read_npy(path: str) -> np.ndarray:
    try:
        with explained(f"cannot read {path}"):
            features = np.lib.format.open_memmap(path, mode="r")  # believes no size that the file has not
    except (ValueError, OverflowError, SyntaxError, TokenError) as error:
        raise LatseError(f"{path} is damaged: it holds no array of numpy") from error
    if features.dtype.kind != "f" or features.ndim != 2:
        raise LatseError(
            f"{path} holds {features.dtype} of shape {features.shape} instead of floats of shape (n, d)"
        )
    return features
