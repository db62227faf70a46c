"""MobileFaceNet (Chen et al. 2018) in insightface's layout: its networks `y1` and `y2`."""

from __future__ import annotations

from mxnet.gluon import nn

from latse.symbols.encoders.base import Encoder
from latse.symbols.layers import NEGATED, PLAIN, batch_norm

# insightface leaves MXNet's own epsilon to all normalisations but the embedding's.
BATCH_NORM = {"momentum": 0.9, "epsilon": 1e-3}
STEM = 64
# Of the stages 3 to 5: channels, width of the bottleneck that halves the map, width of the others.
STAGES = ((64, 128, 128), (128, 256, 256), (128, 512, 256))
FEATURES, SIDE = 512, 7


class Layer(nn.HybridSequential):
    """A convolution without bias, a batch normalisation and a PReLU.

    (N, C, H, W) becomes (N, channels, H/stride, W/stride). As many groups as channels convolve each channel
    alone. Of `types`, what it consists of, the PReLU may be missing. The parameters are
    `<name>_conv2d_weight`, `<name>_batchnorm_gamma`, …, `<name>_relu_gamma`.
    """

    def __init__(
        self,
        name: str,
        channels: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        types: tuple[type, ...] = PLAIN,
    ) -> None:
        super().__init__(prefix="")
        convolution, normalisation, *activations = types
        padding = kernel // 2 if kernel < SIDE else 0
        kind = {"groups": groups, "use_bias": False, "prefix": f"{name}_conv2d_"}
        self.add(
            convolution(channels, kernel, stride, padding, **kind),
            normalisation(prefix=f"{name}_batchnorm_", **BATCH_NORM),
            *(activation(channels, f"{name}_relu_") for activation in activations),
        )


class Bottleneck(nn.HybridBlock):
    """Inverted bottleneck (Sandler et al. 2018): 1x1 to `width`, 3x3 of each channel, 1x1 to `channels`.

    (N, C, H, W) becomes (N, channels, H/stride, W/stride); with stride 1 the input is added.

    Parameters
    ----------
    name : str
        Such as `res_3_block0`.
    channels, width, stride : int
    lean : bool
        As of `Encoder`: everything from the first normalisation to the last convolution has the other sign.
    """

    def __init__(self, name: str, channels: int, width: int, stride: int, lean: bool) -> None:
        super().__init__(prefix="")
        self._is_residual = stride == 1
        convolution, *others = NEGATED if lean else PLAIN
        self.body = nn.HybridSequential(prefix="")
        self.body.add(
            Layer(f"{name}_conv_sep", width, types=(nn.Conv2D, *others)),
            Layer(f"{name}_conv_dw", width, 3, stride, width, (convolution, *others)),
            Layer(f"{name}_conv_proj", channels, types=(convolution, nn.BatchNorm)),
        )

    def hybrid_forward(self, F, x):
        """Return the body's output, with the input where it has its shape."""
        return x + self.body(x) if self._is_residual else self.body(x)


class MobileFaceNet(Encoder):
    """A mobile network whose head weighs each place of each feature (global depthwise convolution).

    Its parameters carry the names of insightface's. Nothing is dropped in training.

    Attributes
    ----------
    blocks : tuple of int
        Number of bottlenecks that keep the map in each of the stages 2 to 5.
    """

    blocks: tuple[int, ...]

    def __init__(self, lean: bool = False) -> None:
        super().__init__(lean, dropout=0.0)

    def features(self) -> nn.HybridBlock:
        """Return stem and stages: (N, 3, 112, 112) becomes (N, 512, 7, 7)."""
        body = nn.HybridSequential(prefix="")
        body.add(Layer("conv_1", STEM, 3, 2))
        if self.blocks[0] == 1:
            body.add(Layer("conv_2_dw", STEM, 3, 1, STEM))
        else:
            body.add(*self._stage(2, STEM, STEM))
        for stage, (channels, first, width) in enumerate(STAGES, 3):
            body.add(
                Bottleneck(f"dconv_{stage - 1}{stage}", channels, first, 2, self.lean),
                *self._stage(stage, channels, width),
            )
        body.add(Layer("conv_6sep", FEATURES))
        return body

    def _stage(self, number: int, channels: int, width: int) -> list[Bottleneck]:
        """Return the bottlenecks of a stage that keep the map."""
        return [
            Bottleneck(f"res_{number}_block{block}", channels, width, 1, self.lean)
            for block in range(self.blocks[number - 2])
        ]

    def embedding(self, dropout: float) -> nn.HybridBlock:
        """Return the head: a weight for each place of each feature, a dense layer, a normalisation."""
        head = nn.HybridSequential(prefix="")
        head.add(
            Layer("conv_6dw7_7", FEATURES, SIDE, groups=FEATURES, types=(nn.Conv2D, nn.BatchNorm)),
            nn.Dense(self.embedding_size, prefix="pre_fc1_"),
            batch_norm("fc1_", scale=False),
        )
        return head


class Y1(MobileFaceNet):
    """insightface's MobileFaceNet y1; its embedding has 128 numbers."""

    blocks, embedding_size = (1, 4, 6, 2), 128


class Y2(MobileFaceNet):
    """insightface's MobileFaceNet y2, twice as deep; its embedding has 256 numbers."""

    blocks, embedding_size = (2, 8, 16, 4), 256
