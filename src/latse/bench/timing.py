"""Times of alternatives, taken in turn, because machines are noisy."""

from __future__ import annotations

import time
from typing import Callable, Mapping

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


def ratios(slower: list[float], faster: list[float]) -> list[float]:
    """Return how many times as long one took as the other, round by round."""
    return [one / other for one, other in zip(slower, faster)]
