"""On which devices the checks run, and how large what they compute is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Sequence

import mxnet as mx

from latse.symbols.encoders import ENCODERS

CPU = mx.cpu()


class Sizes(NamedTuple):
    """How large the work of the checks is.

    Attributes
    ----------
    encoders : tuple of str
        Networks that are compared between device and CPU.
    images, classes : int
        Of a batch on one device, and people, wherever nothing else is said.
    widths : tuple of int
        Channels of the student's decoder.
    middle : str
        The network where one is enough.
    steps : int
        Of a training that is followed.
    judged : int
        Images that a teacher judges.
    weighed : tuple of str
        Networks whose memory is measured, with `weighed_images` on the device and `weighed_classes` people.
    timed : tuple of str
        Networks whose training is timed, with `timed_images` on each device.
    """

    encoders: tuple[str, ...]
    images: int
    classes: int
    widths: tuple[int, ...]
    middle: str
    steps: int
    judged: int
    weighed: tuple[str, ...]
    weighed_images: int
    weighed_classes: int
    timed: tuple[str, ...]
    timed_images: int


# §4.1: a batch of 768 on 8 GPUs; the people are those of MS1MV2.
PAPERS = Sizes(
    encoders=tuple(ENCODERS),
    images=8,
    classes=1000,
    widths=(512, 256, 128, 64),
    middle="resnet34",
    steps=8,
    judged=1024,
    weighed=("resnet50", "resnet100"),
    weighed_images=96,
    weighed_classes=85_742,
    timed=("resnet34", "resnet50", "resnet100"),
    timed_images=64,
)
SMALL = Sizes(
    encoders=("resnet_tiny", "resnet8", "y1"),
    images=4,
    classes=20,
    widths=(8, 8, 8, 8),
    middle="resnet8",
    steps=4,
    judged=64,
    weighed=("resnet14",),
    weighed_images=32,
    weighed_classes=1000,
    timed=("resnet8",),
    timed_images=8,
)


@dataclass(frozen=True)
class Setting:
    """What a check is given: at least one device, and the sizes."""

    devices: Sequence[mx.Context]
    sizes: Sizes

    @property
    def device(self) -> mx.Context:
        """The first device."""
        return self.devices[0]

    @property
    def is_gpu(self) -> bool:
        """Whether the devices are GPUs."""
        return self.device.device_type == "gpu"
