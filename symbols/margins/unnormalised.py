"""Losses over the scalar products themselves: softmax (eq. 1, 2) and centre loss."""

from __future__ import annotations

from latse.symbols.margins.base import Loss, at_least, cross_entropy
from latse.symbols.margins.geometry import class_centres, log_sum_exp_of_others
from latse.symbols.running import moved, running_parameter


class Softmax(Loss):
    """Softmax cross entropy of W·x, without bias (eq. 1 with b = 0).

    W is the parameter `fc7_weight`, (K, D).
    """

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.weight = class_centres(self, classes)

    def hybrid_forward(self, F, embedding, label, weight):
        """Return the cross entropy of each sample."""
        embedding = F.cast(embedding, dtype="float32")
        logits = F.FullyConnected(embedding, weight, no_bias=True, num_hidden=self.classes)
        return self._cross_entropy(F, logits, label)

    def _cross_entropy(self, F, logits, label):
        label, factor = self._known(F, label)
        rest = log_sum_exp_of_others(F, logits, label, self.classes)
        return cross_entropy(F, F.pick(logits, label, keepdims=True), rest) * factor


class SoftmaxBias(Softmax):
    """Softmax cross entropy of W·x + b (eq. 1, 2); b is the parameter `fc7_bias`, (K,), 0 at the start."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        with self.name_scope():
            self.bias = self.params.get("bias", shape=(classes,), init="zeros")

    def hybrid_forward(self, F, embedding, label, weight, bias):
        """Return the cross entropy of each sample."""
        embedding = F.cast(embedding, dtype="float32")
        logits = F.FullyConnected(embedding, weight, bias, num_hidden=self.classes)
        return self._cross_entropy(F, logits, label)


class CentreLoss(SoftmaxBias):
    """Softmax and weight/2·|x - c_y|², c_y being a running mean of the person's embeddings (Wen et al. 2016).

    After each batch c_j moves by alpha·Σ(x_i - c_j) / (1 + n_j) over its n_j samples of the person j; with
    several devices by the mean of what each makes of its share. The centres, 0 at the start, are the running
    parameter `fc7_centre_running` (classes, D).

    Parameters
    ----------
    weight : float, default 0.003
        Of the distance from the centre, at least 0.
    alpha : float, default 0.5
        How far the centres follow, in [0, 1] to be stable.
    """

    def __init__(self, classes: int, weight: float = 0.003, alpha: float = 0.5) -> None:
        super().__init__(classes)
        self._weight, self._alpha = at_least(0, "weight", weight), at_least(0, "alpha", alpha)
        self.centre = running_parameter(
            self, "centre", shape=(classes, 0), init="zeros", allow_deferred_init=True
        )

    def hybrid_forward(self, F, embedding, label, weight, bias, centre):
        """Return softmax cross entropy plus weighted distance of each sample."""
        embedding = F.cast(embedding, dtype="float32")
        softmax = super().hybrid_forward(F, embedding, label, weight, bias)
        label, _ = self._known(F, label)
        own = F.take(centre, label)
        distance = embedding - F.BlockGrad(own)
        samples = F.sum(F.broadcast_equal(F.expand_dims(label, 1), F.expand_dims(label, 0)), axis=1)
        share = self._alpha * F.broadcast_div(F.sum(F.ones_like(label)), 1 + samples)
        pull = moved(F, own, -F.broadcast_mul(distance, F.expand_dims(share, 1)))
        return softmax + 0.5 * self._weight * F.sum(F.square(distance), axis=1) + F.sum(pull, axis=1)
