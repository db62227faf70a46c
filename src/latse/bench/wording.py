"""How figures and goals are put in words, on the page and in its chart."""

from __future__ import annotations

from latse.bench.result import Goal
from latse.text_table import NOTHING


def measured(goal: Goal) -> str:
    """Say what was measured for a goal: `1.64 (1.61 to 1.68)`, with its unit."""
    figure = goal.figure
    if figure.min == figure.max:
        return f"{median(goal)}{_unit(goal)}"
    return f"{median(goal)} ({number(figure.min)} to {number(figure.max)}){_unit(goal)}"


def judged(goal: Goal) -> str:
    """Say median, bound and verdict in one line: `1.64, at least 1.6: met`."""
    if goal.bound is None:
        return f"{median(goal)}{_unit(goal)}"
    return f"{median(goal)}{_unit(goal)}, {bound(goal)}: {'met' if goal.met else 'missed'}"


def median(goal: Goal) -> str:
    """Return the median with so many digits that it does not look like the bound unless it equals it."""
    value, digits = goal.figure.median, 3
    while digits < 9 and value != goal.bound and number(value, digits) == _bound(goal):
        digits += 1
    return number(value, digits)


def bound(goal: Goal) -> str:
    """Say what a figure was to be: `at least 1.6`, or `–` for information."""
    if goal.bound is None:
        return NOTHING
    words = "at least" if goal.at_most is None else "at most"
    return f"{words} {_bound(goal)}{_unit(goal)}"


def number(value: float, digits: int = 3) -> str:
    """Write a number with `digits` digits, but all before the point: 85,742, 850, 1.62, 2.2e-06."""
    whole = len(str(int(abs(value))))
    return f"{value:,.0f}" if whole >= digits else f"{value:.{digits}g}"


def _bound(goal: Goal) -> str:
    return f"{goal.bound:,g}" if goal.bound is not None else NOTHING


def _unit(goal: Goal) -> str:
    return f" {goal.figure.unit}" if goal.figure.unit else ""
