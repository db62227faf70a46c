"""An evaluation of one's own in one file: a class asks for images and judges a model's features of them."""

from __future__ import annotations

from typing import Any, Mapping, Sequence

import numpy as np

from latse.errors import LatseError, blaming
from latse.eval.candidates import FaceModel
from latse.own_class import Registry
from latse.text_table import aligned


class Protocol:
    """The base of every evaluation: one of your own overrides both methods and takes no arguments."""

    def images(self) -> np.ndarray:
        """Return the images that a model is to embed: uint8 (n, 3, 112, 112), RGB, aligned."""
        raise NotImplementedError(f"{type(self).__name__} must say what its images are")

    def judge(self, features: np.ndarray) -> Mapping[str, float]:
        """Return figures by name for float64 features (n, d), a row for each image, not normalised."""
        raise NotImplementedError(f"{type(self).__name__} must say how it judges")


_REGISTRY = Registry("protocol", {}, Protocol, "over latse.eval.protocol.Protocol")


def judge_by(names: Sequence[str], models: Sequence[FaceModel]) -> dict[str, dict[str, Any]]:
    """Judge models by protocols, which are named FILE.py:CLASS; no two classes have the same name.

    Returns name of the class -> `images`, how many there are, and `results`: title of the model -> its
    figures. Raises LatseError if a class fails or returns something else.
    """
    protocols = {name: _REGISTRY.create(name) for name in names}
    return {type(protocol).__name__: _judged(name, protocol, models) for name, protocol in protocols.items()}


def figure_table(judged: Mapping[str, Mapping[str, Any]]) -> str:
    """Return what `judge_by` returns as text, a line for each figure."""
    rows = [["protocol", "model", "figure", "value"]]
    for title, content in judged.items():
        for model, figures in content["results"].items():
            rows += [[title, model, name, f"{value:g}"] for name, value in figures.items()]
    return aligned(rows)


def _judged(name: str, protocol: Protocol, models: Sequence[FaceModel]) -> dict[str, Any]:
    with blaming(name):
        images = np.asarray(protocol.images())
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] != 3 or not len(images):
        raise LatseError(f"{name}: its images are {images.dtype} {images.shape}, not uint8 (n, 3, 112, 112)")
    results = {}
    for model in models:
        features = model.embed(images, type(protocol).__name__.lower())
        with blaming(name):
            figures = {str(key): float(value) for key, value in protocol.judge(features).items()}
        if not figures:
            raise LatseError(f"{name} returns no figure")
        results[model.title] = figures
    return {"images": len(images), "results": results}
