"""Losses of embeddings by name: the margins of §3.1 and what they are compared with."""

from __future__ import annotations

import inspect
from typing import Dict, Mapping, Type

from latse.errors import LatseError
from latse.own_class import load, source
from latse.symbols.margins.adaptive import AdaCos, AdaCosFixed, AdaptiveFace, SVAMSoftmax
from latse.symbols.margins.base import RUNNING, Loss, Margin
from latse.symbols.margins.family import (
    ArcFace,
    ArcFaceEasyMargin,
    ArcFaceShifted,
    Combined,
    CosFace,
    LinearFace,
    NormalisedSoftmax,
    SphereFace,
    SphereFaceAnnealed,
    SphereFaceLiteral,
)
from latse.symbols.margins.geometry import ClassCentres
from latse.symbols.margins.regularisers import REGULARISERS, Regularised
from latse.symbols.margins.triplet import TripletLoss
from latse.symbols.margins.unnormalised import CentreLoss, Softmax, SoftmaxBias

__all__ = [
    "MARGINS",
    "REGULARISERS",
    "RUNNING",
    "ClassCentres",
    "Loss",
    "Margin",
    "Regularised",
    "check",
    "create",
    "find",
    "parameters",
    "source",
]

MARGINS: Dict[str, Type[Loss]] = {
    "softmax": Softmax,
    "softmax_bias": SoftmaxBias,
    "normalised_softmax": NormalisedSoftmax,
    "sphereface": SphereFace,
    "sphereface_annealed": SphereFaceAnnealed,
    "sphereface_literal": SphereFaceLiteral,
    "cosface": CosFace,
    "arcface": ArcFace,
    "arcface_easy_margin": ArcFaceEasyMargin,
    "arcface_shifted": ArcFaceShifted,
    "combined": Combined,
    "linearface": LinearFace,
    "sv_am_softmax": SVAMSoftmax,
    "adacos_fixed": AdaCosFixed,
    "adacos": AdaCos,
    "adaptiveface": AdaptiveFace,
    "centre_loss": CentreLoss,
    "triplet": TripletLoss,
}

# Enough people for every loss to be made with, to see whether its parameters are in range.
A_FEW = 3


def find(name: str) -> Type[Loss]:
    """Return the class of a loss: one of `MARGINS`, or `FILE.py:CLASS`, which runs the file.

    Raises
    ------
    LatseError
        If there is none of that name, the file cannot be run, or the class is no loss.
    """
    if source(name) is not None:
        return _own(name)
    if name not in MARGINS:
        raise LatseError(f"unknown margin '{name}'; there are {', '.join(MARGINS)} and FILE.py:CLASS")
    return MARGINS[name]


def parameters(name: str) -> Mapping[str, float]:
    """Return the parameters of a loss with their defaults; raises as `find`, and if one is no number."""
    found = {key: value.default for key, value in inspect.signature(find(name)).parameters.items()}
    found.pop("classes", None)
    for key, default in found.items():
        if default is inspect.Parameter.empty:
            raise LatseError(f"the parameter '{key}' of the margin '{name}' has no default")
        if not isinstance(default, (int, float)):
            raise LatseError(
                f"the parameter '{key}' of the margin '{name}' has the default {default!r}, not a number"
            )
    return found


def check(name: str, **given: float) -> None:
    """Raise LatseError if there is no loss `name`, or a parameter `given` is unknown or out of range."""
    known = parameters(name)
    for key in given:
        if key not in known:
            raise LatseError(
                f"the margin '{name}' has no parameter '{key}'; it has {', '.join(known) or 'none'}"
            )
    try:
        find(name)(A_FEW, **given)
    except (TypeError, ValueError) as error:  # of a user's class: it lacks a parameter or refuses one
        raise LatseError(f"the margin '{name}' cannot be made: {error}") from error


def create(name: str, classes: int, **given: float) -> Loss:
    """Return the loss `name` over `classes` people; raises as `check`."""
    check(name, **given)
    return find(name)(classes, **given)


def _own(name: str) -> Type[Loss]:
    found = load(name)
    if not (inspect.isclass(found) and issubclass(found, Loss)):
        path, _, class_name = name.rpartition(":")
        raise LatseError(f"{path} has no class {class_name} over latse.symbols.margins.Margin")
    return found
