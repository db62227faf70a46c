"""What insightface's trainer trains, written here in MXNet's ordinary operators.

Same layout, same parameters by name and shape, same operators (PReLU as LeakyReLU, a normalised copy of the
class centres, a one-hot array, SoftmaxOutput and the loss to log): a stand-in where its sources are missing.
"""

from __future__ import annotations

import mxnet as mx

from latse.errors import LatseError
from latse.symbols import encoders
from latse.symbols.encoders import ResNet

EPSILON, STATISTICS_MOMENTUM = 2e-5, 0.9
SCALE, MARGIN = 64.0, 0.5
LABEL = "softmax_label"


def training_symbol(name: str, classes: int, batch_size: int) -> mx.sym.Symbol:
    """Return the training graph of the encoder `name` with ArcFace (s = 64, m2 = 0.5).

    Inputs: `data` (N, 3, 112, 112), RGB in 0..255, and `softmax_label` (N,). Outputs: the embedding (N, 512),
    the shares of the classes (N, classes), whose gradient is that of the mean loss, and the mean loss (1,).
    """
    embedding = encoder(name)
    label = mx.sym.var(LABEL)
    logits = arcface(embedding, label, classes)
    log_share = mx.sym.log(mx.sym.SoftmaxActivation(logits))
    loss = (
        mx.sym.sum(log_share * mx.sym.one_hot(label, depth=classes, on_value=-1.0, off_value=0.0))
        / batch_size
    )
    shares = mx.sym.SoftmaxOutput(logits, label, normalization="valid", name="softmax")
    return mx.sym.Group([mx.sym.BlockGrad(embedding), shares, mx.sym.BlockGrad(loss, name="ce_loss")])


def encoder(name: str) -> mx.sym.Symbol:
    """Return the encoder `name` as a Symbol of `data`, with LeakyReLU for PReLU; output `fc1_output`."""
    units, widths = resnet(name).units, resnet(name).widths
    x = (mx.sym.identity(mx.sym.var("data"), name="id") - 127.5) * 0.0078125
    x = _batch_norm(_convolution(x, "conv0", widths[0]), "bn0")
    x = mx.sym.LeakyReLU(x, act_type="prelu", name="relu0")
    for stage, (count, channels) in enumerate(zip(units, widths[1:]), 1):
        for unit in range(1, count + 1):
            x = _unit(x, f"stage{stage}_unit{unit}", channels, halves=unit == 1)
    x = mx.sym.Dropout(_batch_norm(x, "bn1"), p=0.4)
    x = mx.sym.FullyConnected(x, num_hidden=ResNet.embedding_size, name="pre_fc1")
    return _batch_norm(x, "fc1", fix_gamma=True)


def resnet(name: str) -> type[ResNet]:
    """Return the class of an encoder; raise LatseError if it is no ResNet, which has no equivalent here."""
    encoder = encoders.find(name)
    if not (isinstance(encoder, type) and issubclass(encoder, ResNet)):
        raise LatseError(f"{name} is no ResNet of insightface's, so there is no trainer to compare it with")
    return encoder


def arcface(embedding: mx.sym.Symbol, label: mx.sym.Symbol, classes: int) -> mx.sym.Symbol:
    """Return the logits (N, classes), the target's replaced by adding a one-hot array."""
    centres = mx.sym.var("fc7_weight", shape=(classes, ResNet.embedding_size), init=mx.init.Normal(0.01))
    weight = mx.sym.L2Normalization(centres, mode="instance")
    unit = mx.sym.L2Normalization(embedding, mode="instance", name="fc1n") * SCALE
    logits = mx.sym.FullyConnected(unit, weight, no_bias=True, num_hidden=classes, name="fc7")
    target = mx.sym.pick(logits, label, axis=1)
    moved = mx.sym.cos(mx.sym.arccos(target / SCALE) + MARGIN) * SCALE
    mask = mx.sym.one_hot(label, depth=classes, on_value=1.0, off_value=0.0)
    return logits + mx.sym.broadcast_mul(mask, mx.sym.expand_dims(moved - target, 1))


def _unit(x: mx.sym.Symbol, name: str, channels: int, halves: bool) -> mx.sym.Symbol:
    """Return an improved-residual unit; one that halves has a convolution in its shortcut."""
    stride = 2 if halves else 1
    body = _convolution(_batch_norm(x, f"{name}_bn1"), f"{name}_conv1", channels)
    body = mx.sym.LeakyReLU(_batch_norm(body, f"{name}_bn2"), act_type="prelu", name=f"{name}_relu1")
    body = _batch_norm(_convolution(body, f"{name}_conv2", channels, stride), f"{name}_bn3")
    if halves:
        x = _batch_norm(_convolution(x, f"{name}_conv1sc", channels, stride, kernel=1), f"{name}_sc")
    return body + x


def _convolution(
    x: mx.sym.Symbol, name: str, channels: int, stride: int = 1, kernel: int = 3
) -> mx.sym.Symbol:
    return mx.sym.Convolution(
        x,
        name=name,
        num_filter=channels,
        kernel=(kernel, kernel),
        stride=(stride, stride),
        pad=(kernel // 2, kernel // 2),
        no_bias=True,
    )


def _batch_norm(x: mx.sym.Symbol, name: str, fix_gamma: bool = False) -> mx.sym.Symbol:
    return mx.sym.BatchNorm(x, name=name, fix_gamma=fix_gamma, eps=EPSILON, momentum=STATISTICS_MOMENTUM)
