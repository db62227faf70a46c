"""Times of alternatives, taken in turn, because machines are noisy."""

from __future__ import annotations

import statistics
import time
from typing import Any, Callable, Mapping, Sequence

from tqdm import tqdm


def in_turn(steps: Mapping[str, Callable[[], None]], repeats: int) -> dict[str, list[float]]:
    """Run each of `steps` once unmeasured, then all in turn `repeats` times; return the seconds of each."""
    for step in steps.values():
        step()
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in tqdm(range(repeats), unit=" rounds", desc="bench"):
        for name, step in steps.items():
            began = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - began)
    return seconds


def summary(seconds: list[float]) -> dict[str, float]:
    """Return median, minimum and maximum of some figures."""
    return {"median": statistics.median(seconds), "min": min(seconds), "max": max(seconds)}


def ratios(slower: list[float], faster: list[float]) -> list[float]:
    """Return how many times as long one took as the other, round by round."""
    return [one / other for one, other in zip(slower, faster)]


def figure(values: Sequence[float], unit: str = "") -> dict[str, Any]:
    """Return values measured in `unit` (a ratio has none) as results in JSON hold them."""
    return {"unit": unit, **summary(list(values)), "values": list(values)}


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
