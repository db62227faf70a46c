"""Encoders by name: those of §4.1, and what they are compared with."""

from __future__ import annotations

import functools
from typing import Callable

import mxnet as mx

from latse.own_class import Registry
from latse.symbols.encoders.base import Encoder
from latse.symbols.encoders.gluoncv import PREFIX, GluonCVEncoder
from latse.symbols.encoders.mobilefacenet import Y1, Y2
from latse.symbols.encoders.resnet import (
    ResNet,
    ResNet8,
    ResNet14,
    ResNet20,
    ResNet34,
    ResNet50,
    ResNet100,
    ResNet124,
    ResNetTiny,
)

__all__ = ["ENCODERS", "Encoder", "ResNet", "check", "create", "find", "parameters"]

ENCODERS: dict[str, type[Encoder]] = {
    "resnet_tiny": ResNetTiny,
    "resnet8": ResNet8,
    "resnet14": ResNet14,
    "resnet20": ResNet20,
    "resnet34": ResNet34,
    "resnet50": ResNet50,
    "resnet100": ResNet100,
    "resnet124": ResNet124,
    "y1": Y1,
    "y2": Y2,
}


class _Encoders(Registry):
    """Encoders: also those that `gluoncv/NAME` names."""

    def find(self, name: str) -> Callable[..., Encoder]:
        """Return what makes the encoder `name`; raises as `Registry.find`."""
        if name.startswith(PREFIX):
            return functools.partial(GluonCVEncoder, name[len(PREFIX) :])
        return super().find(name)


_REGISTRY = _Encoders(
    "encoder",
    ENCODERS,
    Encoder,
    "over latse.symbols.encoders.Encoder",
    ("lean",),
    (f"{PREFIX}NAME", "FILE.py:CLASS"),
)
find, parameters = _REGISTRY.find, _REGISTRY.parameters


def create(name: str, lean: bool = False, **parameters: float) -> Encoder:
    """Return an encoder.

    Parameters
    ----------
    name : str
        One of `ENCODERS`, `gluoncv/NAME`, or `FILE.py:CLASS`, whose file is run.
    lean : bool, default False
        As of `Encoder`.
    **parameters : float
        Any of `parameters(name)`.

    Raises
    ------
    LatseError
        If there is none of that name, it cannot be made, or a parameter is unknown or out of range.
    """
    # Blocks without a name of their own are numbered from 0 on: two encoders have the same parameters.
    with mx.name.NameManager():
        return _REGISTRY.create(name, lean, **parameters)


def check(name: str, **parameters: float) -> None:
    """Raise LatseError if there is no encoder `name`, or a parameter is unknown or out of range."""
    create(name, **parameters)
