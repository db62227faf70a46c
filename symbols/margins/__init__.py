"""Losses of embeddings by name: the margins of §3.1 and what they are compared with."""

from __future__ import annotations

from latse.own_class import Registry, source
from latse.symbols.margins import adaptive, family, triplet, unnormalised
from latse.symbols.margins.base import Loss, Margin
from latse.symbols.margins.geometry import ClassCentres
from latse.symbols.margins.regularisers import REGULARISERS, Regularised
from latse.symbols.running import is_running

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
    "remembers",
    "source",
]

MARGINS: dict[str, type[Loss]] = {
    "softmax": unnormalised.Softmax,
    "softmax_bias": unnormalised.SoftmaxBias,
    "normalised_softmax": family.NormalisedSoftmax,
    "sphereface": family.SphereFace,
    "sphereface_annealed": family.SphereFaceAnnealed,
    "sphereface_literal": family.SphereFaceLiteral,
    "cosface": family.CosFace,
    "arcface": family.ArcFace,
    "arcface_easy_margin": family.ArcFaceEasyMargin,
    "arcface_shifted": family.ArcFaceShifted,
    "subcentre_arcface": family.SubCentreArcFace,
    "combined": family.Combined,
    "linearface": family.LinearFace,
    "sv_am_softmax": adaptive.SVAMSoftmax,
    "adacos_fixed": adaptive.AdaCosFixed,
    "adacos": adaptive.AdaCos,
    "adaptiveface": adaptive.AdaptiveFace,
    "centre_loss": unnormalised.CentreLoss,
    "triplet": triplet.TripletLoss,
}

# Enough people for every loss to be made with, to see whether its parameters are in range.
A_FEW = 3

_REGISTRY = Registry("margin", MARGINS, Loss, "over latse.symbols.margins.Margin", ("classes",))
find, parameters = _REGISTRY.find, _REGISTRY.parameters


def check(name: str, **parameters: float) -> None:
    """Raise LatseError if there is no loss `name`, or a parameter is unknown or out of range."""
    _REGISTRY.create(name, A_FEW, **parameters)


def remembers(name: str, **parameters: float) -> bool:
    """Tell whether a loss has a running parameter (`latse.symbols.running`); raises as `check`."""
    return any(map(is_running, _REGISTRY.create(name, A_FEW, **parameters).collect_params()))


def create(name: str, classes: int, **parameters: float) -> Loss:
    """Return the loss `name` over `classes` people; raises as `check`."""
    return _REGISTRY.create(name, classes, **parameters)
