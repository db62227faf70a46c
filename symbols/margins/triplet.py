"""Triplet loss with semi-hard mining inside the batch."""

from __future__ import annotations

from latse.symbols.margins.base import Loss, within
from latse.symbols.margins.geometry import unit_length

FAR = 8.0  # above any squared distance of unit vectors, which is at most 4
EQUAL = 1e-14  # squared distances that differ by less do so by rounding: two of the same image


class TripletLoss(Loss):
    """max(0, d(a, p) - d(a, n) + m) over squared distances of unit embeddings (Schroff et al. 2015, FaceNet).

    For each anchor and each other sample p of the person the negative n is the nearest of those that are
    farther than p (semi-hard), and where there is none the farthest of all. The loss of an anchor is the mean
    over its positives, 0 without any: a batch should hold several images of a person
    (`train.images_per_person`), and no more than some hundred on a device, as the triplets of N samples take
    several arrays of N³ float64. It has no class centres, so that such a network cannot be a teacher.

    `m`, the margin between squared distances, is in [0, 4], default 0.2.
    """

    def __init__(self, classes: int, m: float = 0.2) -> None:
        super().__init__(classes)
        self._m = within(0, 4, "m", m)

    def hybrid_forward(self, F, embedding, label):
        """Return the loss of each sample as an anchor."""
        label, factor = (F.cast(array, dtype="float64") for array in self._known(F, label))
        # In float64: 2 - 2·cos in fp32 does not know which of two near samples is the nearer.
        unit = unit_length(F, F.cast(embedding, dtype="float64"))
        distance = 2 - 2 * F.dot(unit, unit, transpose_b=True)
        same = F.broadcast_equal(F.expand_dims(label, 1), F.expand_dims(label, 0))
        number = F.contrib.arange_like(label)
        positive = same * F.broadcast_not_equal(F.expand_dims(number, 1), F.expand_dims(number, 0))
        # A sample whose label is no class is neither.
        known = F.expand_dims(factor == 1, 0)
        positive, other = F.broadcast_mul(positive, known), F.broadcast_mul(1 - same, known)
        hinge = F.relu(distance - self._negative(F, distance, other) + self._m) * positive
        mean = F.sum(hinge, axis=1) / F.maximum(F.sum(positive, axis=1), 1)
        return F.cast(mean * factor, dtype="float32")

    def _negative(self, F, distance, other):
        """Return d(a, n) for each anchor a and positive p from distances and who is another: (N, N)."""
        to_positive, to_other = F.expand_dims(distance, 2), F.expand_dims(distance, 1)
        farther = F.broadcast_greater(to_other, to_positive + EQUAL)
        farther = F.broadcast_mul(farther, F.expand_dims(other, 1))
        candidate = F.broadcast_mul(farther, to_other) + FAR * (1 - farther)
        semi_hard = F.min(candidate, axis=2)
        farthest = F.max(distance * other - FAR * (1 - other), axis=1, keepdims=True)
        # Without a single negative in the batch, FAR makes the hinge 0.
        farthest = F.where(farthest < -1, farthest * 0 + FAR, farthest)
        return F.where(semi_hard < FAR, semi_hard, F.broadcast_like(farthest, semi_hard))
