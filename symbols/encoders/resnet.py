"""The encoders of §4.1: ResNets in insightface's layout."""

from __future__ import annotations

from mxnet.gluon import nn

from latse.symbols.encoders.base import Encoder
from latse.symbols.layers import BATCH_NORM, NEGATED, PLAIN, PReLU, batch_norm, convolution

STAGE_WIDTHS = (64, 64, 128, 256, 512)


class ImprovedUnit(nn.HybridBlock):
    """Improved-residual unit BN-Conv-BN-PReLU-Conv-BN, plus its input (Deng et al. 2019a, §3.1.2).

    (N, C, H, W) becomes (N, channels, H/stride, W/stride); where that changes the shape, a 1x1 convolution
    and a batch normalisation stand in the shortcut.

    Parameters
    ----------
    channels : int
        Number of output channels.
    stride : int
        Stride of the second convolution, 1 or 2.
    prefix : str
        Such as `stage1_unit1_`.
    """

    layers = PLAIN

    def __init__(self, channels: int, stride: int, prefix: str) -> None:
        super().__init__(prefix=prefix)
        second_convolution, second_norm, prelu = self.layers
        with self.name_scope():
            self.body = nn.HybridSequential(prefix="")
            self.body.add(
                batch_norm("bn1_"),
                convolution(channels, 3, prefix="conv1_"),
                second_norm(prefix="bn2_", **BATCH_NORM),
                prelu(channels, "relu1_"),
                second_convolution(channels, 3, stride, 1, use_bias=False, prefix="conv2_"),
                batch_norm("bn3_"),
            )
            self.shortcut = nn.HybridSequential(prefix="")
            if stride > 1:
                self.shortcut.add(convolution(channels, 1, stride, prefix="conv1sc_"), batch_norm("sc_"))

    def hybrid_forward(self, F, x):
        """Return the sum of the body and the shortcut."""
        return self.body(x) + self.shortcut(x)


class LeanUnit(ImprovedUnit):
    """The same function of the same parameters, for training: it keeps less for the gradient.

    Between the second batch normalisation and the second convolution everything has the other sign, because
    the PReLU is cheaper there. The shortcut comes first, so that the gradient returns through the body first:
    that of the shortcut then need not wait in the size of the unit's input.
    """

    layers = NEGATED

    def hybrid_forward(self, F, x):
        """Return the sum of the shortcut and the body."""
        return self.shortcut(x) + self.body(x)


class ResNet(Encoder):
    """A residual network; its parameters carry the names of insightface's.

    Attributes
    ----------
    units : tuple of int
        Number of residual units in each stage; the first unit of a stage halves height and width.
    widths : tuple of int
        Channels of the 3x3 stem and of each stage.
    stem_stride : int
        Stride of the stem, 1 as in insightface or 2.
    """

    units: tuple[int, ...]
    widths: tuple[int, ...] = STAGE_WIDTHS
    stem_stride = 1

    def features(self) -> nn.HybridBlock:
        """Return stem and stages: (N, 3, 112, 112) becomes (N, C, 7, 7)."""
        unit = LeanUnit if self.lean else ImprovedUnit
        body = nn.HybridSequential(prefix="")
        stem = self.widths[0]
        body.add(
            convolution(stem, 3, self.stem_stride, prefix="conv0_"),
            batch_norm("bn0_"),
            PReLU(stem, "relu0_"),
        )
        for stage, (count, channels) in enumerate(zip(self.units, self.widths[1:]), 1):
            for number in range(1, count + 1):
                stride = 2 if number == 1 else 1
                body.add(unit(channels, stride, prefix=f"stage{stage}_unit{number}_"))
        return body


class ResNetTiny(ResNet):
    """The narrow ResNet of ORL's recipes."""

    units, widths = (1, 1, 1, 1), (16, 16, 32, 64, 16)


class ResNet8(ResNet):
    """The study's network of 8 layers, 6n + 2 as in He et al. 2016, §4.2."""

    units, widths, stem_stride = (1, 1, 1), (16, 32, 64, 16), 2


class ResNet14(ResNet8):
    """The study's network of 14 layers."""

    units = (2, 2, 2)


class ResNet20(ResNet8):
    """The study's network of 20 layers."""

    units = (3, 3, 3)


class ResNet34(ResNet):
    """insightface's ResNet-34."""

    units = (3, 4, 6, 3)


class ResNet50(ResNet):
    """insightface's ResNet-50."""

    units = (3, 4, 14, 3)


class ResNet100(ResNet):
    """insightface's ResNet-100."""

    units = (3, 13, 30, 3)


class ResNet124(ResNet):
    """insightface's ResNet-124."""

    units = (3, 13, 40, 5)
