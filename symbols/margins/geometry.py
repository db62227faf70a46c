"""Angles and cosines between embeddings and class centres, and the sum over the other classes."""

from __future__ import annotations

import mxnet as mx
from mxnet.gluon import nn

# Squares of the shortest length that a vector is divided by, and of that of x - y and x + y that a gradient
# flows through: well above what rounding leaves of parallel vectors, 1e-16, and below what fp32 tells apart.
TINY = 1e-16
TINIEST = 1e-22
# Stands for -∞ as a logit; a difference of two of it is 0, not NaN.
NEVER = -1e30


def class_centres(block: nn.HybridBlock, classes: int, each: int = 1) -> mx.gluon.Parameter:
    """Return the parameter `weight` of a block, under its prefix: the class centres, (classes, D).

    With several centres for `each` class it is (classes, each, D). D, the length of the embeddings, is 0
    until it is known, as Gluon's layers have it for their inputs.
    """
    shape = (classes, 0) if each == 1 else (classes, each, 0)
    with block.name_scope():
        return block.params.get("weight", shape=shape, init=mx.init.Normal(0.01), allow_deferred_init=True)


class ClassCentres(nn.HybridBlock):
    """The cosine of every embedding with every class centre, of several of a class the nearest.

    Input: embedding (N, D). Output: (N, K) in [-1, 1].

    Parameters
    ----------
    shape : tuple of int
        That of the class centres, the parameter `fc7_weight`: (K, D), or (K, centres of each class, D). They
        are of length 1, or zeros where a centre has no direction.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__(prefix="fc7_")
        self._shape = shape
        with self.name_scope():
            self.weight = self.params.get("weight", shape=shape)

    def hybrid_forward(self, F, embedding, weight):
        """Return the cosines."""
        embedding = F.cast(unit_length(F, F.cast(embedding, dtype="float64")), dtype="float32")
        # There may be a million centres: FullyConnected and F.reshape would copy them, `cosines` square them.
        every = F.dot(embedding, weight, transpose_b=True)
        return every if len(self._shape) == 2 else F.max(every, axis=2)


def unit_length(F, vectors):
    """Return the rows of `vectors` (N, D), float64, divided by their Euclidean lengths.

    A row of zeros, which has no direction, gives zeros, and its gradient is 0.
    """
    squares = F.sum(vectors * vectors, axis=1, keepdims=True)
    return F.broadcast_mul(vectors, (squares > 0) * F.rsqrt(squares + TINY))


def angle(F, x, y):
    """Return the angle between the rows of two arrays of unit vectors (N, D): (N, 1), radians in [0, π].

    Kahan's 2·atan(|x - y| / |x + y|): exact to rounding and with a bounded gradient on all of [0, π], where
    arccos of the cosine has neither at 0 and π (arccos(1.0000001) is NaN, its slope at ±1 infinite). In
    float64: two vectors of float32 that are 1e-4 apart know their direction from each other to 1e-3 only.
    """
    return 2 * F.arctan(_length(F, x - y) / _length(F, x + y))


def cosines(F, embedding, centres, classes):
    """Return the scalar product of each embedding (N, D) with each class centre (K, D) of any length, over
    the length of the centre: (N, K); cosines where the embedding is a unit vector.

    The lengths divide the N·K products, not the K·D numbers of the centres: no normalised copy is made.
    """
    ones = F.ones_like(F.slice_axis(centres, axis=0, begin=0, end=1))
    squares = F.FullyConnected(F.square(centres), ones, no_bias=True, num_hidden=1, flatten=False)
    products = F.FullyConnected(embedding, centres, no_bias=True, num_hidden=classes)
    return F.broadcast_mul(products, F.reshape(F.rsqrt(squares + TINY), shape=(1, -1)))


def cosines_with_each(F, embedding, centres, classes, each):
    """Return the `cosines` (N, K, each) with all of several centres (K, each, D) of each class."""
    every = cosines(F, embedding, F.reshape(centres, shape=(-3, 0)), classes * each)
    return F.reshape(every, shape=(0, classes, each))


def log_sum_exp_of_others(F, logits, label, classes):
    """Return log Σ exp(z_j) over the classes other than the label: (N, 1) for logits (N, K), label (N,).

    Without the target, whose share may be 1 to the last bit, so that its complement keeps its precision.
    """
    others = replaced(F, logits, label, NEVER, classes)
    log_shares = F.log_softmax(others)
    another = label + 1
    another = another * (another < classes)
    value = F.BlockGrad(F.pick(others, another) - F.pick(log_shares, another))
    # The gradient of -log_shares at the target is that of the value, but for the target itself, where it is
    # cut off: one array (N, K) less than by the other path.
    gradient = -F.pick(log_shares, label)
    return F.expand_dims(value + (gradient - F.BlockGrad(gradient)), 1)


def replaced(F, logits, label, value, classes):
    """Return the logits (N, K) with `value` at the label of each row, where no gradient passes."""
    row = F.cast(F.contrib.arange_like(label), dtype="int64")
    position = F.cast(label, dtype="int64") + row * classes
    flat = F.contrib.index_copy(
        F.reshape(logits, shape=(-1, 1)), position, F.expand_dims(F.ones_like(label) * value, 1)
    )
    return F.reshape(flat, shape=(-1, classes))


def _length(F, vectors):
    return F.sqrt(F.sum(vectors * vectors, axis=1, keepdims=True) + TINIEST)
