"""Encoders by name."""

from __future__ import annotations

from typing import Dict, Type

from latse.errors import LatseError
from latse.symbols.encoders.base import EMBEDDING_SIZE, Encoder
from latse.symbols.encoders.resnet import ResNet, ResNet34, ResNet50, ResNet100, ResNet124, ResNetTiny

__all__ = ["EMBEDDING_SIZE", "ENCODERS", "Encoder", "ResNet", "create"]

ENCODERS: Dict[str, Type[Encoder]] = {
    "resnet_tiny": ResNetTiny,
    "resnet34": ResNet34,
    "resnet50": ResNet50,
    "resnet100": ResNet100,
    "resnet124": ResNet124,
}


def create(name: str, dropout: float = 0.4, lean: bool = False) -> Encoder:
    """Return the encoder `name`, one of `ENCODERS`; raise LatseError for any other name."""
    if name not in ENCODERS:
        raise LatseError(f"unknown encoder '{name}'; there are {', '.join(ENCODERS)}")
    return ENCODERS[name](dropout, lean)
