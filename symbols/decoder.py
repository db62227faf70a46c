"""The decoder of §4.1: a reversed ResNet-18 that restores a face from its embedding."""

from __future__ import annotations

import math
from typing import Sequence

import mxnet as mx
from mxnet.gluon import nn

from latse.errors import MOST
from latse.symbols.layers import batch_norm, convolution

WIDTHS = (512, 256, 128, 64)  # ResNet-18's stages from the last to the first
WIDEST = math.isqrt(MOST // 9)  # the 3x3 filters between two such stages are one array of MXNet
FIRST_SIDE = 7
COLOURS = 3
BLOCK = 16  # filters that AVX-512 computes at once; AVX2 has blocks of 8


def doubling(channels: int, prefix: str, kernel: int = 3) -> nn.Conv2DTranspose:
    """Return a stride-2 deconvolution (Noh et al. 2015): (N, C, H, W) becomes (N, channels, 2H, 2W)."""
    return nn.Conv2DTranspose(
        channels, kernel, strides=2, padding=kernel // 2, output_padding=1, use_bias=False, prefix=prefix
    )


class Unit(nn.HybridBlock):
    """ResNet-18's basic unit relu(x + BN(conv(relu(BN(conv(x)))))), or its down-sampling unit reversed.

    (N, channels, H, W) keeps its shape, or becomes (N, doubled, 2H, 2W): then deconvolutions stand where the
    down-sampling unit has strided convolutions, also in the shortcut.
    """

    def __init__(self, channels: int, prefix: str, doubled: int | None = None) -> None:
        super().__init__(prefix=prefix)
        with self.name_scope():
            self.body = nn.HybridSequential(prefix="")
            self.body.add(
                convolution(channels, 3, prefix="conv1_"),
                batch_norm("bn1_"),
                nn.Activation("relu", prefix="relu1_"),
                doubling(doubled, "deconv2_") if doubled else convolution(channels, 3, prefix="conv2_"),
                batch_norm("bn2_"),
            )
            self.shortcut = nn.HybridSequential(prefix="")
            if doubled:
                self.shortcut.add(doubling(doubled, "deconvsc_", kernel=1), batch_norm("sc_"))

    def hybrid_forward(self, F, x):
        """Return the sum of the body and the shortcut, rectified."""
        return F.Activation(self.shortcut(x) + self.body(x), act_type="relu")


class ToColours(nn.HybridBlock):
    """The last 3x3 convolution: (N, channels, H, W) becomes (N, 3, H, W).

    It is computed with `BLOCK` filters, those from the fourth on of zeros, and cut off again: with three
    oneDNN falls back on code that takes over twice as long, forward and backward. The parameters are
    `<prefix>weight` (3, channels, 3, 3) and `<prefix>bias` (3,).
    """

    def __init__(self, channels: int, prefix: str) -> None:
        super().__init__(prefix=prefix)
        self._channels = channels
        with self.name_scope():
            # Small at first: an initialiser that goes by the three outputs would start many pixels in the
            # flat ends of tanh, where nothing brings them back.
            self.weight = self.params.get(
                "weight", shape=(COLOURS, channels, 3, 3), init=mx.init.Normal(0.01)
            )
            self.bias = self.params.get("bias", shape=(COLOURS,), init="zeros")

    def hybrid_forward(self, F, x, weight, bias):
        """Return an array of three channels."""
        more = BLOCK - COLOURS
        weight = F.concat(weight, F.zeros((more, self._channels, 3, 3)), dim=0)
        bias = F.concat(bias, F.zeros((more,)), dim=0)
        x = F.Convolution(x, weight, bias, kernel=(3, 3), pad=(1, 1), num_filter=BLOCK)
        return F.slice_axis(x, axis=1, begin=0, end=COLOURS)


class Decoder(nn.HybridBlock):
    """Embeddings to frontal faces.

    Input: (N, D). Output `generated`: (N, 3, 112, 112), RGB in [-1, 1], where -1 and 1 stand for 0 and 255.

    Parameters
    ----------
    widths : sequence of int, default (512, 256, 128, 64)
        Channels of the four stages, which begin at 7x7, 14x14, 28x28 and 56x56; each ends, twice as large,
        with those of the next, the last with its own.
    """

    def __init__(self, widths: Sequence[int] = WIDTHS) -> None:
        super().__init__(prefix="")
        channels = widths[0]
        self.body = nn.HybridSequential(prefix="decoder_")
        with self.body.name_scope():
            self.body.add(
                nn.Dense(channels * FIRST_SIDE**2, use_bias=False, prefix="expand_"),
                nn.HybridLambda(lambda F, x: F.reshape(x, (-1, channels, FIRST_SIDE, FIRST_SIDE))),
                batch_norm("bn0_"),
                nn.Activation("relu", prefix="relu0_"),
            )
            for stage, (before, after) in enumerate(zip(widths, [*widths[1:], widths[-1]]), 1):
                self.body.add(
                    Unit(before, f"stage{stage}_unit1_"),
                    Unit(before, f"stage{stage}_unit2_", doubled=after),
                )
            self.body.add(ToColours(widths[-1], prefix="conv0_"))

    def hybrid_forward(self, F, embedding):
        """Return the generated faces (N, 3, 112, 112)."""
        return F.tanh(self.body(embedding), name="generated")
