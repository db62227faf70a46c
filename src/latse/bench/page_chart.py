"""The chart of the benchmarks' page: for every goal, how many times better than it the figure is.

Blue and vermilion are Okabe and Ito's, which people who confuse red and green tell apart; what misses its
goal is hatched besides, and every bar has its number and verdict in words.
"""

from __future__ import annotations

from typing import Iterator, NamedTuple, Sequence

from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from latse.bench.result import Result
from latse.eval.canvas import blank
from latse.goals import Goal

MET, MISSED, INK = "#0072b2", "#d55e00", "#1b1d21"
LOOKS = {True: (MET, ""), False: (MISSED, "///")}
TICKS = (0.5, 0.7, 1, 1.5, 2, 3, 5)
LEAST, MOST = 0.45, 6  # of the axis; a bar that goes on has its number beside it
LINE, WIDTH = 0.2, 11.0  # inches: a bar, the whole chart
WORDS = 8  # points


class Bar(NamedTuple):
    """One goal as drawn: label, verdict in words, and times better than the goal: median, least, most."""

    label: str
    said: str
    value: float
    least: float
    most: float
    met: bool


def draw(results: Sequence[Result]) -> Canvas:
    """Return the chart: a line for each bounded goal, in the order of the page."""
    bars = [bar for result in results for bar in _bars(result)]
    figure = blank((WIDTH, LINE * (4 + len(bars))))
    axes = figure.add_subplot()
    for line, bar in enumerate(bars):
        colour, hatch = LOOKS[bar.met]
        value, least, most = (min(max(end, LEAST), MOST) for end in (bar.value, bar.least, bar.most))
        axes.barh(line, value - 1, 0.7, 1, color=colour, hatch=hatch, edgecolor="white", lw=0)
        axes.plot([least, most], [line, line], color=INK, lw=1.2, solid_capstyle="butt")
        weight = "normal" if bar.met else "bold"
        place = axes.get_yaxis_transform()
        axes.text(1.01, line, bar.said, transform=place, va="center", weight=weight, size=WORDS)
    axes.set_yticks(range(len(bars)), [bar.label for bar in bars], size=WORDS)
    axes.set_ylim(len(bars) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=WORDS)
    axes.set_xscale("log")
    axes.set_xlim(LEAST, MOST)
    axes.xaxis.set_major_locator(FixedLocator(TICKS))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.axvline(1, color=INK, linewidth=0.8)
    axes.set_title("Times better than the goal (thin line: least to most of all rounds)", loc="left", size=10)
    axes.grid(axis="x", color=INK, alpha=0.12)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    return figure


def _bars(result: Result) -> Iterator[Bar]:
    for goal in result.goals:
        if (bound := goal.bound) is not None:
            times = [_times_better(value, bound, goal) for value in (goal.figure.min, goal.figure.max)]
            value = _times_better(goal.figure.median, bound, goal)
            yield Bar(f"{result.name}: {goal.text}", goal.judged, value, min(times), max(times), goal.met)


def _times_better(value: float, bound: float, goal: Goal) -> float:
    """Return how many times better than its bound a value is: `MOST` where that has no limit."""
    best, worst = (value, bound) if goal.at_most is None else (bound, value)
    if best <= 0 or worst <= 0:
        return MOST if goal.met else LEAST
    return best / worst
