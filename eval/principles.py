"""The two principles of §3.1, checked for any margin: where each fails on [0, π], and by how much.

Every principle is looked at on a dense grid of θ; the ends of the intervals on which it fails are then
narrowed down to neighbouring numbers of float64. What fails between two points of the grid only (`GRID`,
0.0002 radians apart) may go unseen.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Callable, Mapping, Sequence, Tuple

import mxnet as mx
import numpy as np

from latse.errors import LatseError
from latse.symbols.margins import Margin

Interval = Tuple[float, float]
# Logits (n,), or what is made of them, for angles (n,) in radians; float64.
Curve = Callable[[np.ndarray], np.ndarray]

GRID = np.linspace(0, math.pi, 2**14 + 1)
# What is below, relative to the largest logit, is taken for rounding: a violation must exceed TOLERANCE
# somewhere, and reaches as far as it exceeds NOISE.
TOLERANCE = 1e-12
NOISE = 2e-15
# The least jump that is looked for where the curve falls on both of its sides.
JUMP = 1e-9
# A margin that is constant over less (radians) is taken to be so at one point, as cos θ is at 0.
FLAT = 1e-3
# Steps from the loosest to the given margin that eq. 9 is looked at for; the last is halved over and over,
# down to the length that stands for an infinitesimal one.
STEPS = 24
LAST_STEP = 1e-7


@dataclass(frozen=True)
class Finding:
    """What is found of one principle.

    Attributes
    ----------
    intervals : sequence of Interval
        Of θ, radians, ascending and apart, where it fails; of no length where h jumps up.
    largest : float or None
        The largest violation, in units of the logit; None if it holds or there is no such number.
    at : float or None
        Its θ, radians; None if the principle holds.
    of : sequence of str
        What fails: `h` or `g`, of eq. 9 the parameters.
    """

    intervals: Sequence[Interval] = ()
    largest: float | None = None
    at: float | None = None
    of: Sequence[str] = ()

    @property
    def holds(self) -> bool:
        """Whether the principle holds on all of [0, π]."""
        return not self.intervals

    def as_json(self) -> dict[str, Any]:
        """Return what the file of `--json` says of it."""
        return {"holds": self.holds, **asdict(self)}


def check(margin: Margin, parameters: Mapping[str, float]) -> dict[str, Finding]:
    """Check a margin, made with all these parameters, for the principles of §3.1: a finding for each.

    `non_negativity`: χ = e^h and φ = e^g are real and not negative, h and g being finite (eq. 8). `penalty`:
    h(θ) ≤ g(θ) (eq. 8). `order`: h(θ) does not rise as a margin grows, from its loosest value to the given
    one (eq. 9). `decrease`: h and g fall as θ grows; being constant is no fall. The violation of the last two
    is how far h rises above what it was at a looser margin, at a smaller θ.

    Raises LatseError if h or g cannot be computed, or `loosest` names what is no parameter.
    """
    h, g = curves(margin)
    rises = _rises_with_margin(margin, parameters)
    with np.errstate(invalid="ignore"):  # ∞ - ∞, where h or g is no number
        logits = np.abs([h(GRID), g(GRID)])
        scale = float(np.max(logits, where=np.isfinite(logits), initial=0))
        return {
            "non_negativity": _merged({"h": _not_finite(h), "g": _not_finite(g)}),
            "penalty": _merged({"h": _positive(lambda theta: h(theta) - g(theta), scale)}),
            "order": _merged({name: _positive(rise, scale) for name, rise in rises.items()}),
            "decrease": _merged({"h": _not_falling(h, scale), "g": _not_falling(g, scale)}),
        }


class LogitCurve:
    """h or g of a margin, called with angles (n,), float64 radians; `slope` is its derivative.

    `name` is what an error calls it. `logit` makes logits of angles, both NDArrays (n,) of float64.
    """

    def __init__(self, name: str, logit: Callable[[mx.nd.NDArray], mx.nd.NDArray]) -> None:
        self._name, self._logit = name, logit

    def __call__(self, theta: np.ndarray) -> np.ndarray:
        """Return the logits (n,), float64; raise LatseError if they cannot be computed."""
        return self._computed(mx.nd.array(theta, dtype="float64")).asnumpy()

    def slope(self, theta: np.ndarray) -> np.ndarray:
        """Return their derivatives with respect to θ (n,), float64, by automatic differentiation."""
        angles = mx.nd.array(theta, dtype="float64")
        angles.attach_grad()
        with mx.autograd.record():
            logits = self._computed(angles) + 0 * angles  # also where it does not depend on θ
        logits.backward()
        return angles.grad.asnumpy()

    def _computed(self, theta: mx.nd.NDArray) -> mx.nd.NDArray:
        try:
            logits = self._logit(theta)
            logits.wait_to_read()
        except Exception as error:  # whatever a user's file may raise
            reason = (str(error).strip() or "no reason").splitlines()[-1]
            raise LatseError(f"{self._name} cannot be computed: {type(error).__name__}: {reason}") from error
        if logits.dtype != np.float64 or logits.shape != theta.shape:
            raise LatseError(
                f"{self._name} makes {np.dtype(logits.dtype)} {logits.shape} of float64 {theta.shape}: "
                "it must keep both"
            )
        return logits


def curves(margin: Margin) -> tuple[LogitCurve, LogitCurve]:
    """Return h and g of a margin as functions of θ."""
    name = type(margin).__name__
    return (
        LogitCurve(f"{name}.target_logit", lambda theta: margin.target_logit(mx.nd, theta)),
        LogitCurve(f"{name}.other_logit", lambda theta: margin.g(mx.nd, mx.nd.cos(theta))),
    )


def _not_finite(curve: Curve) -> Finding:
    intervals = _regions(lambda theta: ~np.isfinite(curve(theta)))
    return Finding(intervals, at=intervals[0][0] if intervals else None)


def _positive(excess: Curve, scale: float) -> Finding:
    """Say where `excess` is above 0; where it is no number, `_not_finite` says so."""

    def above(theta: np.ndarray) -> np.ndarray:
        values = excess(theta)
        return np.where(np.isfinite(values), values, -math.inf)

    regions = _regions(lambda theta: above(theta) > NOISE * scale)
    peaks = {region: _peak(above, *region) for region in regions}
    return _largest({region: peak for region, peak in peaks.items() if peak[0] > TOLERANCE * scale})


def _rises_with_margin(margin: Margin, parameters: Mapping[str, float]) -> dict[str, Curve]:
    """Return, of each parameter that is a margin, how far h rises as it grows to the given value."""
    unknown = [name for name in margin.loosest if name not in parameters]
    if unknown:
        raise LatseError(f"{type(margin).__name__}.loosest names '{unknown[0]}', which is no parameter of it")

    def h(name: str, value: float) -> LogitCurve:
        return curves(type(margin)(margin.classes, **{**parameters, name: value}))[0]

    return {
        name: _rise_over([h(name, value) for value in _ladder(loosest, parameters[name])])
        for name, loosest in margin.loosest.items()
        if parameters[name] != loosest
    }


def _ladder(loosest: float, strictest: float) -> list[float]:
    """Return values of a margin from the loosest to the given one, ever closer at the end."""
    step = (strictest - loosest) / STEPS
    halvings = max(0, math.ceil(math.log2(abs(step) / LAST_STEP)))
    closer = [strictest - step / 2**number for number in range(1, halvings + 1)]
    return [*np.linspace(loosest, strictest, STEPS + 1)[:-1], *closer, strictest]


def _rise_over(ladder: Sequence[Curve]) -> Curve:
    """Return how far any of the curves is above one before it."""

    def rise(theta: np.ndarray) -> np.ndarray:
        logits = np.stack([curve(theta) for curve in ladder])
        return (logits[1:] - np.minimum.accumulate(logits)[:-1]).max(axis=0)

    return rise


def _not_falling(curve: LogitCurve, scale: float) -> Finding:
    """Say where a curve rises or is constant: by its derivative, and by differences where it jumps."""

    def fails(theta: np.ndarray) -> np.ndarray:
        return (curve.slope(theta) >= -NOISE * scale) & np.isfinite(curve(theta))

    steps = _upward_steps(curve, fails, scale)
    # A rise between two points of the grid is seen by its own point.
    regions = _regions(fails, np.union1d(GRID, [end for _, end in steps])) + steps
    rises = {(low, high): _rise_within(curve, low, high) for low, high in _united(regions)}
    return _largest(
        {
            (low, high): (rise, at)
            for (low, high), (rise, at) in rises.items()
            if rise > TOLERANCE * scale or high - low > FLAT
        }
    )


def _upward_steps(curve: LogitCurve, fails: Callable, scale: float) -> list[Interval]:
    """Return where a curve may rise from one point of the grid to the next without its derivative saying so.

    That is where the difference is above 0, or above what the derivative makes of it. A jump is narrowed down
    to neighbouring numbers, and so is the steepest point of a short rise; a rise that is neither is kept as
    wide as the grid.
    """
    slope, difference = curve.slope(GRID), np.diff(curve(GRID))
    beyond = difference - np.diff(GRID) * (slope[1:] + slope[:-1]) / 2
    rising = np.isfinite(difference) & (difference > TOLERANCE * scale)
    cells = np.flatnonzero((rising | (beyond > JUMP * scale)) & ~(fails(GRID[:-1]) & fails(GRID[1:])))
    if not len(cells):
        return []
    lows, highs = GRID[cells], GRID[cells + 1]
    starts, ends = _steepest(curve, lows, highs)
    hidden = rising[cells] & (curve(ends) - curve(starts) <= TOLERANCE * scale) & ~fails(ends)
    starts, ends = np.where(hidden, lows, starts), np.where(hidden, highs, ends)
    return list(zip(starts.tolist(), ends.tolist()))


def _steepest(curve: Curve, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Halve each interval time and again, keeping the half with the larger rise."""
    for _ in range(42):
        middle = (low + high) / 2
        left = curve(middle) - curve(low) > curve(high) - curve(middle)
        low, high = np.where(left, low, middle), np.where(left, middle, high)
    return low, high


def _rise_within(curve: Curve, low: float, high: float) -> tuple[float, float]:
    """Return how far a curve rises at most between two angles, and where it is up there."""
    theta = np.array([low, *GRID[(low < GRID) & (high > GRID)], high])
    theta = theta[np.isfinite(curve(theta))]
    rise = curve(theta) - np.minimum.accumulate(curve(theta))
    return float(rise.max()), float(theta[rise.argmax()])


def _regions(fails: Callable[[np.ndarray], np.ndarray], grid: np.ndarray = GRID) -> list[Interval]:
    """Return the intervals of [0, π] in which `fails` is true of points of the grid, exact to rounding."""
    marks = np.concatenate([[False], fails(grid), [False]])
    starts, ends = np.flatnonzero(np.diff(marks)).reshape(-1, 2).T
    last = len(grid) - 1
    return [
        (
            float(grid[start] if start == 0 else _last(fails, grid[start], grid[start - 1])),
            float(grid[end] if end == last else _last(fails, grid[end], grid[end + 1])),
        )
        for start, end in zip(starts, ends - 1)
    ]


def _last(fails: Callable, inside: float, outside: float) -> float:
    """Return the last point that fails on the way from one that does to one that does not."""
    for _ in range(6):
        points = np.linspace(inside, outside, 257)
        passed = np.append(~fails(points[1:-1]), True).argmax()
        inside, outside = points[passed], points[passed + 1]
    return inside


def _peak(curve: Curve, low: float, high: float) -> tuple[float, float]:
    """Return the largest value of a curve between two angles, and where it is."""
    for _ in range(5):
        theta = np.linspace(low, high, 1025)
        values = curve(theta)
        best = values.argmax()
        low, high = theta[max(best - 1, 0)], theta[min(best + 1, len(theta) - 1)]
    return float(values[best]), float(theta[best])


def _united(intervals: Sequence[Interval]) -> list[Interval]:
    """Return intervals that do not touch, ascending."""
    united: list[Interval] = []
    for low, high in sorted(intervals):
        if united and low <= united[-1][1] + 1e-12:
            united[-1] = (united[-1][0], max(high, united[-1][1]))
        else:
            united.append((low, high))
    return united


def _largest(peaks: Mapping[Interval, tuple[float, float]]) -> Finding:
    """Make a finding of intervals, each with its largest violation and where that is."""
    return Finding(list(peaks), *max(peaks.values())) if peaks else Finding()


def _merged(findings: Mapping[str, Finding]) -> Finding:
    """Make one finding of those of several curves."""
    failing = {name: finding for name, finding in findings.items() if not finding.holds}
    if not failing:
        return Finding()
    worst = max(failing.values(), key=lambda finding: finding.largest or 0)
    intervals = _united([interval for finding in failing.values() for interval in finding.intervals])
    return Finding(intervals, worst.largest, worst.at, list(failing))
