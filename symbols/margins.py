"""Margin losses of §3.1: cross entropy over s·cos(θ), the target's logit replaced by h(θ)."""

from __future__ import annotations

import inspect
import math

import mxnet as mx
from mxnet.gluon import nn

from latse.errors import LatseError
from latse.symbols.encoder import EMBEDDING_SIZE

# Keeps the gradient of a length finite at zero; far below what fp32 unit vectors resolve.
TINY = 1e-12


class ClassCentres(nn.HybridBlock):
    """The cosine of every embedding with every class centre.

    Input: embedding (N, 512). Output: (N, classes) in [-1, 1].

    Parameters
    ----------
    classes : int
        Number of people K; the class centres are the parameter `fc7_weight`, (K, 512), of any length.
    """

    def __init__(self, classes: int) -> None:
        super().__init__(prefix="fc7_")
        self._classes = classes
        with self.name_scope():
            self.weight = self.params.get(
                "weight", shape=(classes, EMBEDDING_SIZE), init=mx.init.Normal(0.01)
            )

    def hybrid_forward(self, F, embedding, weight):
        """Return the cosines."""
        return self._cosines(F, unit_length(F, embedding), unit_length(F, weight))

    def _cosines(self, F, embedding, centres):
        return F.FullyConnected(embedding, centres, no_bias=True, num_hidden=self._classes)


class NormalisedSoftmax(ClassCentres):
    """Softmax over normalised embeddings and class centres (eq. 4), and the base of every margin.

    A margin overrides `target_logit`, h(θ) of §3.1; all else is here: θ between embedding and class centre,
    g(θ) = s·cos(θ) of the other classes, and the cross entropy (eq. 3, 11).

    Inputs: embedding (N, 512), label (N,) whole numbers in 0..classes-1 (a label outside is clipped without a
    word, so that readers of labels must check). Output: the loss of each sample, (N,).

    Parameters
    ----------
    classes : int
        Number of people K.
    s : float, default 64
        Scale of the logits, at least 0.

    Raises
    ------
    LatseError
        If a parameter, of this class or of a margin, is out of its range.
    """

    def __init__(self, classes: int, s: float = 64.0) -> None:
        super().__init__(classes)
        self._s = _at_least(0, "s", s)

    def target_logit(self, F, theta):
        """Return h(θ), the target's logit, for θ (N, 1) in [0, π] radians."""
        return self._s * F.cos(theta)

    def hybrid_forward(self, F, embedding, label, weight):
        """Return the cross entropy of each sample."""
        embedding, centres = unit_length(F, embedding), unit_length(F, weight)
        logits = self._s * self._cosines(F, embedding, centres)
        target = self.target_logit(F, angle(F, embedding, F.take(centres, label)))
        penalty = target - F.pick(logits, label, keepdims=True)
        logits = logits + F.broadcast_mul(penalty, F.one_hot(label, self._classes))
        return -F.pick(F.log_softmax(logits), label)


class CosFace(NormalisedSoftmax):
    """h(θ) = s·(cos θ - m3) (Wang et al. 2018b); m3 at least 0, default 0.35."""

    def __init__(self, classes: int, s: float = 64.0, m3: float = 0.35) -> None:
        super().__init__(classes, s)
        self._m3 = _at_least(0, "m3", m3)

    def target_logit(self, F, theta):
        """Return h(θ), (N, 1), for θ (N, 1) in [0, π] radians."""
        return self._s * (F.cos(theta) - self._m3)


class ArcFace(NormalisedSoftmax):
    """h(θ) = s·cos(θ + m2) (Deng et al. 2019a); m2 in radians, at least 0, default 0.5.

    Not monotonic past π - m2, as the paper says of it.
    """

    def __init__(self, classes: int, s: float = 64.0, m2: float = 0.5) -> None:
        super().__init__(classes, s)
        self._m2 = _at_least(0, "m2", m2)

    def target_logit(self, F, theta):
        """Return h(θ), (N, 1), for θ (N, 1) in [0, π] radians."""
        return self._s * F.cos(theta + self._m2)


class SphereFace(NormalisedSoftmax):
    """h(θ) = s·ψ(θ), ψ(θ) = (-1)^k cos(m1 θ) - 2k on [kπ/m1, (k+1)π/m1] (Liu et al. 2017b).

    ψ is what makes cos(m1 θ) of eq. 5 fall monotonically. m1 is at least 1, default 1.35.
    """

    def __init__(self, classes: int, s: float = 64.0, m1: float = 1.35) -> None:
        super().__init__(classes, s)
        self._m1 = _at_least(1, "m1", m1)

    def target_logit(self, F, theta):
        """Return h(θ), (N, 1), for θ (N, 1) in [0, π] radians."""
        turns = F.floor(theta * (self._m1 / math.pi))
        sign = 1 - 2 * (turns - 2 * F.floor(turns / 2))
        return self._s * (sign * F.cos(self._m1 * theta) - 2 * turns)


class LinearFace(NormalisedSoftmax):
    """h(θ) = s·(-a·θ + b), the paper's own (eq. 10); a at least 0, default 0.88, b default 0.88."""

    def __init__(self, classes: int, s: float = 64.0, a: float = 0.88, b: float = 0.88) -> None:
        super().__init__(classes, s)
        self._a, self._b = _at_least(0, "a", a), b

    def target_logit(self, F, theta):
        """Return h(θ), (N, 1), for θ (N, 1) in [0, π] radians."""
        return self._s * (self._b - self._a * theta)


MARGINS = {
    "softmax": NormalisedSoftmax,
    "cosface": CosFace,
    "arcface": ArcFace,
    "sphereface": SphereFace,
    "linearface": LinearFace,
}


def unit_length(F, vectors):
    """Return the rows of `vectors` (N, D) divided by their Euclidean lengths."""
    return F.L2Normalization(vectors, mode="instance")


def angle(F, x, y):
    """Return the angle between the rows of two arrays of unit vectors (N, D): (N, 1), radians in [0, π].

    Kahan's 2·atan(|x - y| / |x + y|): exact to rounding and with a bounded gradient on all of [0, π], where
    arccos of the cosine has neither at 0 and π (arccos(1.0000001) is NaN, its slope at ±1 infinite).
    """
    return 2 * F.arctan(_length(F, x - y) / _length(F, x + y))


def _at_least(lowest, name, value):
    if not value >= lowest:
        raise LatseError(f"{name} is {value}, must be at least {lowest}")
    return value


def _length(F, vectors):
    return F.sqrt(F.sum(vectors * vectors, axis=1, keepdims=True) + TINY)


def check(name: str, **parameters: float) -> None:
    """Raise LatseError if there is no margin `name`, it lacks one of `parameters`, or one is out of range."""
    if name not in MARGINS:
        raise LatseError(f"unknown margin '{name}'; there are {', '.join(MARGINS)}")
    known = list(inspect.signature(MARGINS[name]).parameters)[1:]
    for parameter in parameters:
        if parameter not in known:
            raise LatseError(f"the margin '{name}' has no parameter '{parameter}'; it has {', '.join(known)}")
    MARGINS[name](1, **parameters)


def create(name: str, classes: int, **parameters: float) -> NormalisedSoftmax:
    """Return the margin `name`, one of `MARGINS`, over `classes` people.

    Raises
    ------
    LatseError
        For an unknown name or a parameter that the margin does not have.
    """
    check(name, **parameters)
    return MARGINS[name](classes, **parameters)
