"""The encoder of §4.1: a ResNet in insightface's layout, then BN-Dropout-FC-BN to the embedding."""

from __future__ import annotations

from mxnet.gluon import nn

from latse.errors import LatseError
from latse.symbols.layers import (
    BATCH_NORM,
    Dropout,
    MirroredPReLU,
    NegatedBatchNorm,
    NegatedConvolution,
    PReLU,
    batch_norm,
    convolution,
)

EMBEDDING_SIZE = 512
STAGE_WIDTHS = (64, 64, 128, 256, 512)

# Name -> (units in each of the four stages, channels of the stem and of the stages).
ENCODERS = {
    "resnet_tiny": ((1, 1, 1, 1), (16, 16, 32, 64, 16)),
    "resnet34": ((3, 4, 6, 3), STAGE_WIDTHS),
    "resnet50": ((3, 4, 14, 3), STAGE_WIDTHS),
    "resnet100": ((3, 13, 30, 3), STAGE_WIDTHS),
    "resnet124": ((3, 13, 40, 5), STAGE_WIDTHS),
}


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

    def __init__(self, channels: int, stride: int, prefix: str) -> None:
        super().__init__(prefix=prefix)
        with self.name_scope():
            self.body = nn.HybridSequential(prefix="")
            self.body.add(
                batch_norm("bn1_"),
                convolution(channels, 3, prefix="conv1_"),
                *self._middle(channels, stride),
                batch_norm("bn3_"),
            )
            self.shortcut = nn.HybridSequential(prefix="")
            if stride > 1:
                self.shortcut.add(convolution(channels, 1, stride, prefix="conv1sc_"), batch_norm("sc_"))

    def _middle(self, channels: int, stride: int) -> list[nn.HybridBlock]:
        """Return the layers between the first convolution and the last batch normalisation."""
        return [
            batch_norm("bn2_"),
            PReLU(channels, "relu1_"),
            convolution(channels, 3, stride, prefix="conv2_"),
        ]

    def hybrid_forward(self, F, x):
        """Return the sum of the body and the shortcut."""
        return self.body(x) + self.shortcut(x)


class LeanUnit(ImprovedUnit):
    """The same function of the same parameters, for training: it keeps less for the gradient.

    Between the second batch normalisation and the second convolution everything has the other sign, because
    the PReLU is cheaper there. The shortcut comes first, so that the gradient returns through the body first:
    that of the shortcut then need not wait in the size of the unit's input.
    """

    def hybrid_forward(self, F, x):
        """Return the sum of the shortcut and the body."""
        return self.shortcut(x) + self.body(x)

    def _middle(self, channels: int, stride: int) -> list[nn.HybridBlock]:
        return [
            NegatedBatchNorm(prefix="bn2_", **BATCH_NORM),
            MirroredPReLU(channels, "relu1_"),
            NegatedConvolution(channels, 3, stride, 1, use_bias=False, prefix="conv2_"),
        ]


class Encoder(nn.HybridBlock):
    """Face images to embeddings; its parameters carry the names of insightface's networks.

    Input: (N, 3, 112, 112), RGB in 0..255; the normalisation (x - 127.5) / 128 is part of the graph.
    Output `fc1`: (N, 512), not normalised to unit length.

    Parameters
    ----------
    units : tuple of int
        Number of residual units in each stage; the first unit of a stage halves height and width.
    widths : tuple of int
        Channels of the 3x3 stem (stride 1) and of each stage.
    dropout : float, default 0.4
        Share of the values before the last fully-connected layer that is dropped in training, in [0, 1).
    unit : type, default ImprovedUnit
        What the stages consist of.
    """

    def __init__(
        self,
        units: tuple[int, ...],
        widths: tuple[int, ...],
        dropout: float = 0.4,
        unit: type[ImprovedUnit] = ImprovedUnit,
    ) -> None:
        super().__init__(prefix="")
        self.body = nn.HybridSequential(prefix="")
        self.body.add(
            convolution(widths[0], 3, prefix="conv0_"), batch_norm("bn0_"), PReLU(widths[0], "relu0_")
        )
        for stage, (count, channels) in enumerate(zip(units, widths[1:]), 1):
            for number in range(1, count + 1):
                stride = 2 if number == 1 else 1
                self.body.add(unit(channels, stride, prefix=f"stage{stage}_unit{number}_"))
        self.head = nn.HybridSequential(prefix="")
        self.head.add(
            batch_norm("bn1_"),
            Dropout(dropout),
            nn.Dense(EMBEDDING_SIZE, prefix="pre_fc1_"),
            batch_norm("fc1_", scale=False),
        )

    def hybrid_forward(self, F, data):
        """Return the embeddings (N, 512)."""
        return F.identity(self.head(self.body((data - 127.5) * 0.0078125)), name="fc1")


def create(name: str, dropout: float = 0.4, unit: type[ImprovedUnit] = ImprovedUnit) -> Encoder:
    """Return the encoder `name`, one of `ENCODERS`, of such units; raise LatseError for any other name."""
    if name not in ENCODERS:
        raise LatseError(f"unknown encoder '{name}'; there are {', '.join(ENCODERS)}")
    units, widths = ENCODERS[name]
    return Encoder(units, widths, dropout, unit)
