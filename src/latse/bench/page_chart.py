"""The chart of the benchmarks' page: for every goal, how many times better than it the figure is.

Blue and vermilion are Okabe and Ito's, which people who confuse red and green tell apart; what misses its
goal is hatched besides, and every bar has its number and verdict in words.
"""

from __future__ import annotations

from typing import Sequence

from matplotlib.figure import Figure as Canvas

from latse.bench.result import Result
from latse.eval.canvas import blank
from latse.goals import Goal

INK = "#1b1d21"
LOOKS = {True: ("#0072b2", "", "normal"), False: ("#d55e00", "///", "bold")}  # whether a goal is met
TICKS = (0.5, 0.7, 1, 1.5, 2, 3, 5)
LEAST, MOST = 0.45, 6  # of the axis; a bar that goes on has its number beside it
LINE, WIDTH = 0.2, 11.0  # inches: a bar, the whole chart
WORDS = 8  # points


def draw(results: Sequence[Result]) -> Canvas:
    """Return the chart: a line for each bounded goal, in the order of the page."""
    bounded = [(result.name, goal) for result in results for goal in result.goals if goal.met is not None]
    figure = blank((WIDTH, LINE * (4 + len(bounded))))
    axes = figure.add_subplot()
    for line, (_, goal) in enumerate(bounded):
        measured = goal.figure.median, goal.figure.min, goal.figure.max
        median, *ends = (_times_better(value, goal) for value in measured)
        colour, hatch, weight = LOOKS[goal.met]
        axes.barh(line, median - 1, 0.7, 1, color=colour, hatch=hatch, edgecolor="white", lw=0)
        axes.plot(ends, [line, line], color=INK, lw=1.2, solid_capstyle="butt")
        place = axes.get_yaxis_transform()
        axes.text(1.01, line, goal.judged, transform=place, va="center", weight=weight, size=WORDS)
    axes.set_yticks(range(len(bounded)), [f"{name}: {goal.text}" for name, goal in bounded], size=WORDS)
    axes.tick_params(axis="y", length=0)
    axes.set(xscale="log", xlim=(LEAST, MOST), ylim=(len(bounded) - 0.4, -0.6))
    axes.set_xticks(TICKS, [f"{tick:g}" for tick in TICKS], size=WORDS)
    axes.set_xticks([], minor=True)
    axes.axvline(1, color=INK, linewidth=0.8)
    axes.set_title("Times better than the goal (thin line: least to most of all rounds)", loc="left", size=10)
    axes.grid(axis="x", color=INK, alpha=0.12)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    return figure


def _times_better(value: float, goal: Goal) -> float:
    """Return how many times better than its bound a value is, from `LEAST` to `MOST`."""
    bound = goal.bound or 0.0
    best, worst = (value, bound) if goal.at_most is None else (bound, value)
    if best <= 0 or worst <= 0:
        return MOST if goal.met else LEAST
    return min(max(best / worst, LEAST), MOST)
