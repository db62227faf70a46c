"""Margins and scales that the data set: SV-AM-Softmax, AdaCos, AdaptiveFace."""

from __future__ import annotations

import math

import mxnet as mx

from latse.errors import LatseError
from latse.symbols.margins.base import Margin, OverAllCosines, at_least
from latse.symbols.margins.family import CosFace, NormalisedSoftmax
from latse.symbols.running import moved, running_parameter


class SVAMSoftmax(OverAllCosines, CosFace):
    """CosFace that weighs up the classes which beat it: support vectors (Wang et al. 2018c, SV-AM-Softmax).

    h(θ) = s·(cos θ - m3); a class j with cos θ_j > cos θ - m3 has the logit s·(t·cos θ_j + t - 1) instead of
    s·cos θ_j. m3 is at least 0, default 0.35; t at least 1, default 1.2.
    """

    loosest = {"m3": 0.0}

    def __init__(self, classes: int, s: float = 64.0, m3: float = 0.35, t: float = 1.2) -> None:
        super().__init__(classes, s, m3)
        self._t = at_least(1, "t", t)

    def _logits(self, F, theta, cosine, label):
        target = self.target_logit(F, theta)
        others = self._s * cosine
        beats = F.broadcast_greater(others, F.cast(F.BlockGrad(target), dtype="float32"))
        weighed = others + (self._t - 1) * beats * (others + self._s)
        return target, self._sum(F, weighed, label), F.zeros((1,))


class AdaCosFixed(NormalisedSoftmax):
    """h(θ) = s·cos θ with s = √2·log(classes - 1) (Zhang et al. 2019, fixed AdaCos).

    It has no parameters: where there are fewer than 3 classes, s would be 0, and it is refused.
    """

    def __init__(self, classes: int) -> None:
        super().__init__(classes, _adacos_scale(classes))


class AdaCos(OverAllCosines, NormalisedSoftmax):
    """h(θ) = s·cos θ, s following the state of training (Zhang et al. 2019, dynamic AdaCos).

    s = log(B) / cos(min(π/4, median θ)), where B is the mean over the batch of Σ_{j≠y} exp(s·cos θ_j) at the
    s of the iteration before; the first is that of `AdaCosFixed`. Median (of an even number the lower of the
    middle two) and mean are those of one device's share of the batch. The running parameter
    `fc7_scale_running` (1,) keeps s; `target_logit` has the first. A sample whose label is no class, of loss
    NaN, counts in B and the median as one of person 0.
    """

    def __init__(self, classes: int) -> None:
        super().__init__(classes, _adacos_scale(classes))
        self.scale = running_parameter(self, "scale", shape=(1,), init=mx.init.Constant(self._s))

    def _logits(self, F, theta, cosine, label, scale):
        blocked = F.BlockGrad(cosine)
        others = self._sum(F, F.broadcast_mul(blocked, F.BlockGrad(scale)), label)
        median = F.cast(_median(F, theta), dtype="float32")
        new = F.BlockGrad(_log_mean_exp(F, others) / F.cos(F.minimum(median, math.pi / 4)))
        target = F.broadcast_mul(F.cos(theta), F.cast(new, dtype="float64"))
        rest = self._sum(F, F.broadcast_mul(cosine, new), label)
        return target, rest, moved(F, scale, scale - new)


class AdaptiveFace(Margin):
    """h(θ) = s·(cos θ - m_y), each class with a margin of its own, which is learned (Liu et al. 2019).

    The loss of each sample is less `weight` times the mean of all margins, so that they grow where they cost
    little. They are the parameter `fc7_margin` (classes, 1), `m3` at the start; a negative one counts as 0.
    Their rate is that of the network over s²: a margin moves a logit by s, and has a gradient of the order s.
    m3 is at least 0, default 0.4; weight at least 0, default 5. `target_logit` has the margin m3.
    """

    loosest = {"m3": 0.0}

    def __init__(self, classes: int, s: float = 64.0, m3: float = 0.4, weight: float = 5.0) -> None:
        super().__init__(classes, s)
        self._m3, self._weight = at_least(0, "m3", m3), at_least(0, "weight", weight)
        with self.name_scope():
            self.margin = self.params.get(
                "margin", shape=(classes, 1), init=mx.init.Constant(m3), lr_mult=1 / s**2, wd_mult=0.0
            )

    def target_logit(self, F, theta):
        """Return h(θ) for θ in [0, π] radians at the first margin."""
        return self._s * (F.cos(theta) - self._m3)

    def _logits(self, F, theta, rest, label, margin):
        own = F.cast(F.relu(F.take(margin, label)), dtype="float64")
        mean = F.reshape(F.mean(margin), shape=(1,))
        return self._s * (F.cos(theta) - own), rest, -self._weight * mean


def _adacos_scale(classes: int) -> float:
    if classes < 3:
        raise LatseError(
            f"AdaCos takes its scale from the number of people, which is {classes}, not at least 3"
        )
    return math.sqrt(2) * math.log(classes - 1)


def _log_mean_exp(F, values):
    """Return log of the mean of exp of `values` (N, 1): (1,)."""
    highest = F.max(values)
    return highest + F.log(F.mean(F.exp(F.broadcast_sub(values, highest))))


def _median(F, values):
    """Return the median of `values` (N, 1), of an even number the lower of the middle two: (1,)."""
    ordered = F.sort(F.reshape(values, shape=(-1,)), axis=0)
    return F.take(ordered, F.floor((F.reshape(F.sum(F.ones_like(ordered)), shape=(1,)) - 1) / 2))
