"""The gate of Algorithm 1: which samples' gradient reaches the encoder."""

from __future__ import annotations

from mxnet.gluon import nn


class Gate(nn.HybridBlock):
    """Identity forwards; backwards, the gradient of a sample passes only where `keep` is not 0.

    Inputs: any (N, ...) array and `keep` (N,). Output: the first input.
    """

    def hybrid_forward(self, F, x, keep):
        """Return `x`, its refused rows cut off from the gradient."""
        return F.where(keep, x, F.BlockGrad(x))


class Rank(nn.HybridBlock):
    """How many classes score higher than the label, so that y is in the top k where rank < k.

    Inputs: scores (N, K), label (N,) in 0..K-1. Output: (N,), whole numbers in 0..K-1. No sort is needed, and
    one forward pass answers for every k.

    Parameters
    ----------
    slack : float, default 0
        Counted are the classes whose score is above the label's plus this much. Below 0 the label counts too.
    """

    def __init__(self, slack: float = 0.0) -> None:
        super().__init__()
        self._slack = slack

    def hybrid_forward(self, F, scores, label):
        """Return the rank of each label."""
        target = F.pick(scores, label, axis=1, keepdims=True)
        return F.sum(F.broadcast_greater(scores, target + self._slack), axis=1)
