"""Times of alternatives, taken in turn, because machines are noisy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Mapping, Sequence

from tqdm import tqdm

from latse.bench.protocol import timed

Answer = Mapping[str, Any]  # `seconds`, `processor_seconds`, and what else a step says


@dataclass(frozen=True)
class Times:
    """What the measured steps of an alternative said."""

    answers: Sequence[Answer]

    @property
    def seconds(self) -> list[float]:
        """Of the clock, for each step."""
        return [answer["seconds"] for answer in self.answers]

    @property
    def processor_seconds(self) -> list[float]:
        """Of all threads together, for each step."""
        return [answer["processor_seconds"] for answer in self.answers]


def in_turn(steps: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, Times]:
    """Return the times of `steps`, done by `take_turns`; what a step returns is its answer's `value`."""

    def meter(step: Callable[[], Any]) -> Callable[[], Answer]:
        return lambda: timed(lambda: {"value": step()})

    return take_turns({name: meter(step) for name, step in steps.items()}, repeats)


def take_turns(
    meters: Mapping[str, Callable[[], Answer]], repeats: int, title: str = "bench"
) -> dict[str, Times]:
    """Let each of `meters` do one step in vain, then all in turn `repeats` times; return their times.

    The progress bar on stderr is called `title`.
    """
    for meter in tqdm(meters.values(), unit=" first steps", desc=title):
        meter()
    answers: dict[str, list[Answer]] = {name: [] for name in meters}
    for _ in tqdm(range(repeats), unit=" rounds", desc=title):
        for name, meter in meters.items():
            answers[name].append(meter())
    return {name: Times(said) for name, said in answers.items()}


def ratios(slower: Sequence[float], faster: Sequence[float]) -> list[float]:
    """Return how many times as long one took as the other, round by round."""
    return [slow / other for slow, other in zip(slower, faster)]
