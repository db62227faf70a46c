"""Measured figures and what they were to be, as every JSON of a measurement holds them."""

from __future__ import annotations

import statistics
from typing import Any, Mapping, Sequence


def summary(values: Sequence[float]) -> dict[str, float]:
    """Return median, minimum and maximum of some figures."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def figure(values: Sequence[float], unit: str = "") -> dict[str, Any]:
    """Return values measured in `unit` (a ratio has none) as results in JSON hold them."""
    return {"unit": unit, **summary(values), "values": list(values)}


def goal(
    text: str,
    values: Sequence[float],
    at_least: float | None = None,
    at_most: float | None = None,
    unit: str = "",
) -> dict[str, Any]:
    """Return a figure with what its median was to be, as results in JSON hold it.

    Without a bound it is information; two bounds are a ValueError.
    """
    bounds = {"at_least": at_least, "at_most": at_most}
    given = {name: bound for name, bound in bounds.items() if bound is not None}
    if len(given) > 1:
        raise ValueError(f"the goal of {text} has two bounds")
    return {"text": text, "figure": figure(values, unit), **given}


def verdict(goal: Mapping[str, Any]) -> str:
    """Return the line that is printed of a goal: figure, bound, and `met` or `missed`."""
    found = goal["figure"]
    line = "{text}: {median:.3g} ({min:.3g} to {max:.3g}) {unit}".format(**found, text=goal["text"]).rstrip()
    if "at_least" in goal:
        met, bound = found["median"] >= goal["at_least"], f"at least {goal['at_least']:g}"
    elif "at_most" in goal:
        met, bound = found["median"] <= goal["at_most"], f"at most {goal['at_most']:g}"
    else:
        return line
    return f"{line}, goal {bound}: {'met' if met else 'missed'}"
