"""The family of §3.1: margins that replace the target's logit s·cos(θ) by h(θ)."""

from __future__ import annotations

import math

from latse.errors import check_range
from latse.symbols.margins.base import Margin, at_least, within
from latse.symbols.margins.geometry import cosines_with_each


class NormalisedSoftmax(Margin):
    """h(θ) = g(θ) = s·cos θ: no margin, embeddings and class centres of unit length (eq. 4)."""

    def target_logit(self, F, theta):
        """Return h(θ) for θ in [0, π] radians."""
        return self._s * F.cos(theta)


class Combined(Margin):
    """h(θ) = s·(cos(m1·θ + m2) - m3), eq. 5 as it stands (Deng et al. 2019a's combined margin).

    m1 is at least 1, m2 (radians) and m3 at least 0; defaults 1, 0.3, 0.2.
    """

    loosest = {"m1": 1.0, "m2": 0.0, "m3": 0.0}

    def __init__(
        self, classes: int, s: float = 64.0, m1: float = 1.0, m2: float = 0.3, m3: float = 0.2
    ) -> None:
        super().__init__(classes, s)
        self._m1, self._m2, self._m3 = at_least(1, "m1", m1), at_least(0, "m2", m2), at_least(0, "m3", m3)

    def target_logit(self, F, theta):
        """Return h(θ) for θ in [0, π] radians."""
        return self._s * (F.cos(self._m1 * theta + self._m2) - self._m3)


class SphereFaceLiteral(Combined):
    """h(θ) = s·cos(m1·θ), eq. 5 with m1 alone, not monotonic past π/m1; m1 at least 1, default 1.35."""

    loosest = {"m1": 1.0}

    def __init__(self, classes: int, s: float = 64.0, m1: float = 1.35) -> None:
        super().__init__(classes, s, m1, 0.0, 0.0)


class CosFace(Combined):
    """h(θ) = s·(cos θ - m3) (Wang et al. 2018b); m3 at least 0, default 0.35."""

    loosest = {"m3": 0.0}

    def __init__(self, classes: int, s: float = 64.0, m3: float = 0.35) -> None:
        super().__init__(classes, s, 1.0, 0.0, m3)


class ArcFace(Combined):
    """h(θ) = s·cos(θ + m2) (Deng et al. 2019a); m2 in radians, in [0, π], default 0.5.

    Not monotonic past π - m2, as the paper says of it.
    """

    loosest = {"m2": 0.0}

    def __init__(self, classes: int, s: float = 64.0, m2: float = 0.5) -> None:
        super().__init__(classes, s, 1.0, within(0, math.pi, "m2", m2), 0.0)


class ArcFaceEasyMargin(ArcFace):
    """ArcFace up to θ = π/2, without a margin from there on: s·cos θ (insightface's `easy_margin`)."""

    def target_logit(self, F, theta):
        """Return h(θ) for θ in [0, π] radians."""
        return F.where(theta < math.pi / 2, super().target_logit(F, theta), self._s * F.cos(theta))


class ArcFaceShifted(ArcFace):
    """ArcFace up to θ = π - m2, from there on s·(cos θ - m2·sin m2) (insightface's older trainers)."""

    def target_logit(self, F, theta):
        """Return h(θ) for θ in [0, π] radians."""
        shifted = self._s * (F.cos(theta) - self._m2 * math.sin(self._m2))
        return F.where(theta < math.pi - self._m2, super().target_logit(F, theta), shifted)


class SubCentreArcFace(ArcFace):
    """ArcFace over several centres of each person, the nearest of which counts (Deng et al. 2020).

    h(θ) = s·cos(θ + m2), θ to the nearest centre of the person, and g = s·cos θ_j to the nearest of another.
    Images under a wrong label gather at other centres than the person's dominant one. `centres` is that
    paper's K, at least 1, default 3: so many times ArcFace's class centres, and arrays of N×K·`centres`.
    """

    def __init__(self, classes: int, s: float = 64.0, m2: float = 0.5, centres: int = 3) -> None:
        check_range("centres", centres, 1)
        self.centres = centres
        super().__init__(classes, s, m2)

    def _classes(self, F, unit, weight, label):
        if self.centres == 1:
            return super()._classes(F, unit, weight, label)
        embedding = F.cast(unit, dtype="float32")
        cosine = cosines_with_each(F, embedding, weight, self.classes, self.centres)
        rest = self._sum(F, self._s * F.max(cosine, axis=2), label)
        nearest = F.pick(F.argmax(cosine, axis=2), label)
        return rest, F.take(F.reshape(weight, shape=(-3, 0)), label * self.centres + nearest)


class SphereFace(Margin):
    """h(θ) = s·ψ(θ), ψ(θ) = (-1)^k cos(m1·θ) - 2k on [kπ/m1, (k+1)π/m1] (Liu et al. 2017b).

    ψ is what makes cos(m1·θ) of eq. 5 fall monotonically. m1 is at least 1, default 1.35.
    """

    loosest = {"m1": 1.0}

    def __init__(self, classes: int, s: float = 64.0, m1: float = 1.35) -> None:
        super().__init__(classes, s)
        self._m1 = at_least(1, "m1", m1)

    def target_logit(self, F, theta):
        """Return h(θ) for θ in [0, π] radians."""
        turns = F.floor(theta * (self._m1 / math.pi))
        sign = 1 - 2 * (turns - 2 * F.floor(turns / 2))
        return self._s * (sign * F.cos(self._m1 * theta) - 2 * turns)


class SphereFaceAnnealed(SphereFace):
    """SphereFace that starts as softmax: h(θ) = s·(λ·cos θ + ψ(θ)) / (1 + λ) (Liu et al. 2017b).

    λ = max(lambda_min, lambda_base / (1 + lambda_gamma·iteration)); defaults 5, 1000, 0.12 as in the
    original's recipes, all at least 0. m1 is at least 1, default 4. `target_logit` is that of λ = lambda_min.
    """

    inputs = ("iteration",)

    def __init__(
        self,
        classes: int,
        s: float = 64.0,
        m1: float = 4.0,
        lambda_min: float = 5.0,
        lambda_base: float = 1000.0,
        lambda_gamma: float = 0.12,
    ) -> None:
        super().__init__(classes, s, m1)
        self._lambda_min = at_least(0, "lambda_min", lambda_min)
        self._lambda_base = at_least(0, "lambda_base", lambda_base)
        self._lambda_gamma = at_least(0, "lambda_gamma", lambda_gamma)

    def target_logit(self, F, theta):
        """Return h(θ) for θ in [0, π] radians at the end of the annealing."""
        return self._annealed(F, theta, self._lambda_min)

    def _logits(self, F, theta, rest, label, iteration):
        done = F.cast(F.expand_dims(iteration, 1), dtype="float64")
        weight = F.maximum(self._lambda_base / (1 + self._lambda_gamma * done), self._lambda_min)
        return self._annealed(F, theta, weight), rest, F.zeros((1,))

    def _annealed(self, F, theta, weight):
        psi = super().target_logit(F, theta)
        return (weight * (self._s * F.cos(theta)) + psi) / (1 + weight)


class LinearFace(Margin):
    """h(θ) = s·(-a·θ + b), the paper's own (eq. 10); a at least 0, default 0.88, b default 0.88."""

    loosest = {"a": 0.0, "b": 1.0}

    def __init__(self, classes: int, s: float = 64.0, a: float = 0.88, b: float = 0.88) -> None:
        super().__init__(classes, s)
        self._a, self._b = at_least(0, "a", a), b

    def target_logit(self, F, theta):
        """Return h(θ) for θ in [0, π] radians."""
        return self._s * (self._b - self._a * theta)
