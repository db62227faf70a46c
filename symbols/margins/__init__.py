"""Losses of embeddings by name: the margins of §3.1 and what they are compared with."""

from __future__ import annotations

from latse.own_class import Registry, source
from latse.symbols.margins.adaptive import AdaCos, AdaCosFixed, AdaptiveFace, SVAMSoftmax
from latse.symbols.margins.base import Loss, Margin
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

MARGINS: dict[str, type[Loss]] = {
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

_REGISTRY = Registry("margin", MARGINS, Loss, "over latse.symbols.margins.Margin", ("classes",))
find, parameters = _REGISTRY.find, _REGISTRY.parameters


def check(name: str, **parameters: float) -> None:
    """Raise LatseError if there is no loss `name`, or a parameter is unknown or out of range."""
    _REGISTRY.create(name, A_FEW, **parameters)


def create(name: str, classes: int, **parameters: float) -> Loss:
    """Return the loss `name` over `classes` people; raises as `check`."""
    return _REGISTRY.create(name, classes, **parameters)
