"""Layers that several networks share."""

from __future__ import annotations

import mxnet as mx
from mxnet.gluon import nn

# insightface's constants: a checkpoint's statistics depend on them.
BATCH_NORM = {"momentum": 0.9, "epsilon": 2e-5}


def convolution(channels: int, kernel: int, stride: int = 1, prefix: str | None = None) -> nn.Conv2D:
    """Return a convolution without bias: (N, C, H, W) becomes (N, channels, H/stride, W/stride).

    Parameters
    ----------
    channels : int
        Number of output channels.
    kernel : int
        Side of the square kernel, odd.
    stride : int, default 1
        Step of the kernel; it must divide H and W.
    prefix : str, optional
        Prefix of the parameter's name.
    """
    return nn.Conv2D(channels, kernel, stride, kernel // 2, use_bias=False, prefix=prefix)


def batch_norm(prefix: str, scale: bool = True) -> nn.BatchNorm:
    """Return a batch normalisation over axis 1; without `scale` its gamma is fixed at 1."""
    return nn.BatchNorm(prefix=prefix, scale=scale, **BATCH_NORM)


class Dropout(nn.HybridBlock):
    """Dropout by MXNet's own kernel: cuDNN's does not follow `mx.random.seed`, so no run could be repeated.

    Parameters
    ----------
    rate : float
        Share of the values that is dropped in training, in [0, 1); the others are scaled by 1 / (1 - rate).
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self._rate = rate

    def hybrid_forward(self, F, x):
        """Return an array of the shape of `x`."""
        return F.Dropout(x, p=self._rate, cudnn_off=True) if self._rate else F.identity(x)


class PReLU(nn.HybridBlock):
    """max(x, 0) + gamma·min(x, 0) with one learned slope gamma a channel (He et al. 2015).

    Written as gamma·x + (1 - gamma)·relu(x) in operators that oneDNN computes, the factors being 1x1
    depthwise convolutions: in MXNet's LeakyReLU the gradient of the slope is a broadcast reduction that takes
    longer on CPU than a 3x3 convolution, and F.relu or a subtraction costs a second copy in a plain layout.
    Where LeakyReLU writes over its input, as MXNet 1.9.1 lets it, that gradient is even multiplied by gamma.

    Parameters
    ----------
    channels : int
        Size of axis 1 of the input, which has shape (N, channels, H, W).
    prefix : str
        The slopes are the parameter `<prefix>gamma` of shape (channels, 1, 1, 1), 0.25 at the start.
    """

    def __init__(self, channels: int, prefix: str) -> None:
        super().__init__(prefix=prefix)
        self._channels = channels
        with self.name_scope():
            self.gamma = self.params.get("gamma", shape=(channels, 1, 1, 1), init=mx.init.Constant(0.25))

    def hybrid_forward(self, F, x, gamma):
        """Return an array of the shape of `x`."""
        rectified = F.Activation(x, act_type="relu")
        return self._scaled(F, x, gamma) + self._scaled(F, rectified, 1 - gamma)

    def _scaled(self, F, x, factor):
        """Return `x` times one factor a channel."""
        return F.Convolution(
            x, factor, kernel=(1, 1), num_filter=self._channels, num_group=self._channels, no_bias=True
        )


class NegatedBatchNorm(nn.BatchNorm):
    """The negative of what a batch normalisation of the same parameters and statistics returns."""

    def hybrid_forward(self, F, x, gamma, beta, running_mean, running_var):
        """Return an array of the shape of `x`."""
        negated = F.negative(gamma), F.negative(beta)
        return super().hybrid_forward(F, x, *negated, running_mean, running_var)


class NegatedConvolution(nn.Conv2D):
    """The convolution of -x by the same weights, without bias."""

    def hybrid_forward(self, F, x, weight):
        """Return what the convolution returns."""
        return super().hybrid_forward(F, x, F.negative(weight))


class MirroredPReLU(PReLU):
    """-PReLU(-x), which is min(x, 0) + gamma·max(x, 0), by the slopes of `PReLU`.

    Written as x + (gamma - 1)·relu(x): a factor less than PReLU itself takes, and no gradient reads x.
    """

    def hybrid_forward(self, F, x, gamma):
        """Return an array of the shape of `x`."""
        return x + self._scaled(F, F.Activation(x, act_type="relu"), gamma - 1)


# What a unit consists of: convolution, batch normalisation, PReLU. Between a normalisation and a convolution
# of the second kind everything has the other sign.
PLAIN = nn.Conv2D, nn.BatchNorm, PReLU
NEGATED = NegatedConvolution, NegatedBatchNorm, MirroredPReLU
