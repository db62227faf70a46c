"""What every loss of embeddings is, and what every margin loss shares: its geometry."""

from __future__ import annotations

from typing import Mapping

from mxnet.gluon import nn

from latse.errors import LatseError, check_range
from latse.symbols.margins.geometry import angle, class_centres, cosines, log_sum_exp_of_others, unit_length
from latse.symbols.margins.head import other_classes


class Loss(nn.HybridBlock):
    """A loss of embeddings.

    Inputs: embedding (N, D) of fp32 or fp16, label (N,) whole numbers in 0..classes-1 of any type, then
    those named in `inputs`. Output: the loss of each sample, (N,) fp32; NaN where the label is not one of the
    classes.

    Attributes
    ----------
    inputs : tuple of str
        Names of further inputs. There is one: `iteration` (N,), how many iterations are done.
    """

    inputs: tuple[str, ...] = ()

    def __init__(self, classes: int) -> None:
        super().__init__(prefix="fc7_")
        self.classes = classes

    def set_embedding_size(self, size: int) -> None:
        """Say how long embeddings are, D; where nobody does, the first batch does."""
        for parameter in self.collect_params().values():
            parameter.shape = tuple(length or size for length in parameter.shape)

    def infer_shape(self, embedding, *_):
        """Give the parameters their shapes, as Gluon asks for before the first batch."""
        self.set_embedding_size(embedding.shape[1])

    def _known(self, F, label):
        """Return the labels, 0 for one that is no class, and a factor that is NaN there, else 1."""
        label = F.cast(label, dtype="float32")
        known = (label >= 0) * (label < self.classes) * (label == F.floor(label))
        return F.where(known, label, F.zeros_like(label)), known / known


class Margin(Loss):
    """The base of every margin: cross entropy (eq. 3, 11) over g(θ) = s·cos θ, the target's logit being h(θ).

    A margin overrides `target_logit`, h(θ) of §3.1; all else is here: lengths, cosines, θ between embedding
    and class centre, and the cross entropy, whose value and gradient are exact to rounding for θ from 0 to π,
    also where the target's probability is 1 to the last bit. At θ = 0 and π exactly, where the direction of
    the gradient of θ is not defined, it is 0.

    Parameters
    ----------
    classes : int
        Number of people K; the class centres are the parameter `fc7_weight`, (K, D) fp32, of any length.
    s : float, default 64
        Scale of the logits, positive.

    Attributes
    ----------
    loosest : mapping of str to float
        The parameters that are margins, each with the value at which it is loosest: from there to its own it
        must grow stricter (eq. 9).
    centres : int
        How many class centres a person has, 1 but for a margin that sets it before `__init__` of this class;
        with several, `fc7_weight` is (K, centres, D).
    other_logit : method (F, cosine), or None
        g(θ) from cos θ of any shape where it is not s·cos θ. It costs several arrays of N×K; without it, the
        default, the sum over the other classes is one operator.

    Raises
    ------
    LatseError
        If a parameter, of this class or of a margin, is out of its range.
    """

    loosest: Mapping[str, float] = {}
    centres = 1
    other_logit = None

    def __init__(self, classes: int, s: float = 64.0) -> None:
        super().__init__(classes)
        if not s > 0:
            raise LatseError(f"s is {s}, must be positive")
        self._s = s
        self.weight = class_centres(self, classes, self.centres)

    def target_logit(self, F, theta):
        """Return h(θ), the target's logit, for θ of any shape, float64, in [0, π] radians."""
        raise NotImplementedError(f"{type(self).__name__} must say what its target_logit is")

    def g(self, F, cosine):
        """Return the logit of any other class, the paper's g, for cos θ of any shape, in [-1, 1]."""
        return self._s * cosine if self.other_logit is None else self.other_logit(F, cosine)

    def hybrid_forward(self, F, embedding, label, *inputs, weight, **parameters):
        """Return the cross entropy of each sample."""
        label, factor = self._known(F, label)
        unit = unit_length(F, F.cast(embedding, dtype="float64"))
        others, own = self._classes(F, unit, weight, label)
        theta = angle(F, unit, unit_length(F, F.cast(own, dtype="float64")))
        target, rest, addition = self._logits(F, theta, others, label, *inputs, **parameters)
        return F.broadcast_add(cross_entropy(F, target, rest), addition) * factor

    def _classes(self, F, unit, weight, label):
        """Return what `_logits` takes of the other classes, and the class centres of the labels (N, D)."""
        if self.other_logit is None:
            return other_classes(F, F.cast(self._s * unit, dtype="float32"), weight, label)
        logits = self.other_logit(F, cosines(F, F.cast(unit, dtype="float32"), weight, self.classes))
        return self._sum(F, logits, label), F.take(weight, label)

    def _logits(self, F, theta, rest, label):
        """Return the logits of the targets, log Σ e^g over the others, (N, 1) both, and a term of every loss.

        θ (N, 1) is float64, the term is (1,). Inputs and parameters of the margin follow the label.
        """
        return self.target_logit(F, theta), rest, F.zeros((1,))

    def _sum(self, F, logits, label):
        """Return log Σ exp of the logits (N, K) of the classes other than the label, (N, 1)."""
        return log_sum_exp_of_others(F, logits, label, self.classes)


class OverAllCosines(Margin):
    """A margin whose `_logits` takes the cosines (N, K) fp32 to all classes; it pays with arrays of N×K."""

    def _classes(self, F, unit, weight, label):
        cosine = cosines(F, F.cast(unit, dtype="float32"), weight, self.classes)
        return cosine, F.take(weight, label)


def cross_entropy(F, target, others):
    """Return -log of the target's share, (N,) fp32, from its logit and log Σ exp of the others', (N, 1)."""
    # log(1 + exp(others - target)), in float64 because oneDNN's fp32 is 0 where it is small.
    excess = F.cast(others, dtype="float64") - F.cast(target, dtype="float64")
    return F.reshape(F.cast(F.Activation(excess, act_type="softrelu"), dtype="float32"), shape=(-1,))


def at_least(lowest: float, name: str, value: float) -> float:
    """Return `value`; raise LatseError if the parameter `name` is below `lowest` or not a number."""
    check_range(name, value, lowest)
    return value


def within(lowest: float, highest: float, name: str, value: float) -> float:
    """Return `value`; raise LatseError if the parameter `name` is not from `lowest` to `highest`."""
    if not lowest <= value <= highest:
        raise LatseError(f"{name} is {value}, must be from {lowest:g} to {highest:.6g}")
    return value
