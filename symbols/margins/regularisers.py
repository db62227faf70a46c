"""What spreads the class centres over the sphere, added to the loss of any margin."""

from __future__ import annotations

from mxnet.gluon import nn

from latse.errors import LatseError
from latse.symbols.margins.base import Loss, at_least
from latse.symbols.margins.geometry import NEVER, cosines, replaced, unit_length

# Squared distance of class centres that is taken for 0; keeps the energy of two equal ones finite.
NEAREST = 1e-6


class HypersphericalEnergy(nn.HybridBlock):
    """Minimum hyperspherical energy with s = 2 (Liu et al. 2018, MHE; with SphereFace: SphereFace+).

    The energy of a person is the mean over the other people of 1 / |ŵ_y - ŵ_j|² between unit class centres.
    Input: cosines of the class centre of each sample to all, (N, K). Output: the energy of each, (N,).
    """

    def hybrid_forward(self, F, cosine):
        """Return the energy from the cosines (N, K) to the other class centres, -1e30 at the own."""
        others = F.sum(F.ones_like(cosine), axis=1) - 1
        return F.sum(1 / F.maximum(2 - 2 * cosine, NEAREST), axis=1) / others


class ExclusiveRegulariser(nn.HybridBlock):
    """The cosine to the nearest other class centre (Zhao et al. 2019, RegularFace)."""

    def hybrid_forward(self, F, cosine):
        """Return the highest of the cosines (N, K) to the other class centres, -1e30 at the own."""
        return F.max(cosine, axis=1)


REGULARISERS = {"hyperspherical_energy": HypersphericalEnergy, "exclusive": ExclusiveRegulariser}


class Regularised(Loss):
    """A loss with regularisers of its class centres, over the people of the batch.

    Parameters
    ----------
    loss : Loss
        One with class centres.
    weights : dict of str to float
        Name in `REGULARISERS` -> its weight, at least 0.

    Raises
    ------
    LatseError
        If the loss has no class centres or several for each person, or a weight is out of range.
    """

    def __init__(self, loss: Loss, weights: dict) -> None:
        super().__init__(loss.classes)
        if not hasattr(loss, "weight"):
            raise LatseError("a loss without class centres takes no regularisers")
        if getattr(loss, "centres", 1) > 1:
            raise LatseError("a loss with several centres for each person takes no regularisers")
        self.inputs = loss.inputs
        self.loss = loss
        self.weight = loss.weight
        self.params.update(loss.params)
        self._weights = [at_least(0, name, weight) for name, weight in weights.items()]
        self.terms = nn.HybridSequential(prefix="")
        self.terms.add(*[REGULARISERS[name]() for name in weights])

    def hybrid_forward(self, F, embedding, label, *inputs, weight):
        """Return the loss of each sample with the regularisers' share."""
        loss = self.loss(embedding, label, *inputs)
        label, _ = self._known(F, label)
        own = unit_length(F, F.cast(F.take(weight, label), dtype="float64"))
        cosine = cosines(F, F.cast(own, dtype="float32"), weight, self.classes)
        cosine = replaced(F, cosine, label, NEVER, self.classes)
        for factor, term in zip(self._weights, self.terms):
            loss = loss + factor * term(cosine)
        return loss
