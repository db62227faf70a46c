"""Measured figures and what they were to be: in numbers, in words, and as the JSON of a measurement."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any, Mapping, Sequence

from latse.form import NUMBER, TEXT, Maybe
from latse.text_table import NOTHING

FIGURE = {"unit": TEXT, "median": NUMBER, "min": NUMBER, "max": NUMBER}
GOAL = {"text": TEXT, "figure": FIGURE, "at_least?": Maybe(NUMBER), "at_most?": Maybe(NUMBER)}


@dataclass(frozen=True)
class Figure:
    """Median, least and most of the values that were measured in `unit` (a ratio has none)."""

    unit: str
    median: float
    min: float
    max: float
    values: Sequence[float] = ()

    @classmethod
    def of(cls, values: Sequence[float], unit: str = "") -> Figure:
        """Sum up at least one value."""
        return cls(unit, statistics.median(values), min(values), max(values), list(values))

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> Figure:
        """Take a figure from JSON of the form `FIGURE`, without its values; ValueError if it is none."""
        figure = cls(content["unit"], *(float(content[key]) for key in ("median", "min", "max")))
        if not figure.min <= figure.median <= figure.max:
            limits = f"its min {figure.min:g} to its max {figure.max:g}"
            raise ValueError(f"a median is {figure.median:g}, must be from {limits}")
        return figure

    def as_json(self) -> dict[str, Any]:
        """Return what `read` takes, and the values."""
        return vars(self)

    def in_words(self, factor: float = 1.0, median: str = "") -> str:
        """Say median and range, multiplied by a factor and without the unit: `1.64 (1.61 to 1.68)`."""
        said = median or number(factor * self.median)
        if self.min == self.max:
            return said
        return f"{said} ({number(factor * self.min)} to {number(factor * self.max)})"


@dataclass(frozen=True)
class Goal:
    """What the median of a figure was to be; without a bound it is information, two are a ValueError."""

    text: str
    figure: Figure
    at_least: float | None = None
    at_most: float | None = None

    def __post_init__(self) -> None:
        if None not in (self.at_least, self.at_most):
            raise ValueError(f"the goal '{self.text}' has two bounds, at_least and at_most")

    @classmethod
    def of(cls, text: str, values: Sequence[float], unit: str = "", **bound: float | None) -> Goal:
        """Hold values against a bound, `at_least` or `at_most`."""
        return cls(text, Figure.of(values, unit), **bound)

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> Goal:
        """Take a goal from JSON of the form `GOAL`; ValueError if it is none."""
        bounds = [content.get(key) for key in ("at_least", "at_most")]
        return cls(content["text"], Figure.read(content["figure"]), *bounds)

    def as_json(self) -> dict[str, Any]:
        """Return what `read` takes."""
        bounds = {"at_least": self.at_least, "at_most": self.at_most}
        bounds = {key: bound for key, bound in bounds.items() if bound is not None}
        return {"text": self.text, "figure": self.figure.as_json(), **bounds}

    @property
    def bound(self) -> float | None:
        """The least or the most that the median was to be, or None."""
        return self.at_most if self.at_least is None else self.at_least

    @property
    def met(self) -> bool | None:
        """Whether the median keeps within the bound; None where there is none."""
        if self.bound is None:
            return None
        return self.figure.median >= self.bound if self.at_most is None else self.figure.median <= self.bound

    @property
    def wanted(self) -> str:
        """What the figure was to be: `at least 1.6`, or `–` for information."""
        if self.bound is None:
            return NOTHING
        return f"at {'least' if self.at_most is None else 'most'} {self.bound:,g}{self._unit}"

    @property
    def measured(self) -> str:
        """What was measured: `1.64 (1.61 to 1.68)`, with its unit."""
        return f"{self.figure.in_words(median=self._median)}{self._unit}"

    @property
    def judged(self) -> str:
        """Median, bound and verdict: `1.64, at least 1.6: met`."""
        return f"{self._median}{self._unit}{self._verdict}"

    def in_words(self) -> str:
        """Say all of it: `speed of ours: 1.64 (1.61 to 1.68), at least 1.6: met`."""
        return f"{self.text}: {self.measured}{self._verdict}"

    @property
    def _median(self) -> str:
        """The median with so many digits that it does not look like the bound unless it equals it."""
        value, digits = self.figure.median, 3
        while digits < 9 and value != self.bound and number(value, digits) == f"{self.bound or 0:,g}":
            digits += 1
        return number(value, digits)

    @property
    def _unit(self) -> str:
        return f" {self.figure.unit}" if self.figure.unit else ""

    @property
    def _verdict(self) -> str:
        return "" if self.bound is None else f", {self.wanted}: {'met' if self.met else 'missed'}"


def number(value: float, digits: int = 3) -> str:
    """Write a number with `digits` digits, but all before the point: 85,742, 850, 1.62, 2.2e-06."""
    whole = len(str(int(abs(value))))
    return f"{value:,.0f}" if whole >= digits else f"{value:.{digits}g}"
