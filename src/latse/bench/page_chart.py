"""The chart of the benchmarks' page: a bar for every ratio and every bound that was measured.

Blue and vermilion are Okabe and Ito's, which people who confuse red and green tell apart; what misses its
goal is hatched besides, and every bar has its number and verdict in words.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import Optional, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from latse.bench.result import Goal, Result
from latse.bench.wording import judged
from latse.eval.canvas import blank

MET, MISSED, INFORMATION, INK = "#0072b2", "#d55e00", "#9aa0a8", "#1b1d21"
LOOKS = {True: (MET, ""), False: (MISSED, "///"), None: (INFORMATION, "")}
# A share far from 1 is a limit rather than a comparison: it would press all others together.
COMPARABLE = (0.05, 20)
TICKS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 7, 10, 20)
LINE, WIDTH = 0.24, 11.0  # inches: a line of a bar's label, the whole chart
WRAP = 62


@dataclass(frozen=True)
class Bar:
    """One goal as drawn: median, least, most and bound on the axis of its panel."""

    label: str
    said: str
    value: float
    least: float
    most: float
    mark: Optional[float]
    met: Optional[bool]

    @property
    def height(self) -> float:
        """Lines of the label and a gap."""
        return self.label.count("\n") + 1.7


def draw(results: Sequence[Result]) -> Canvas:
    """Return the chart: ratios on an axis of ratios, other bounded figures as shares of their bounds."""
    goals = [(result, goal) for result in results for goal in result.goals]
    ratios = [_ratio(*each) for each in goals if _comparable(each[1])]
    shares = [_share(*each) for each in goals if not _comparable(each[1]) and each[1].bound]
    panels = [(draw_on, bars) for draw_on, bars in ((_ratios, ratios), (_shares, shares)) if bars]
    heights = [LINE * (3 + sum(bar.height for bar in bars)) for _, bars in panels]
    figure = blank((WIDTH, max(sum(heights), 1)))
    cells = figure.add_gridspec(len(panels) or 1, 1, height_ratios=heights or [1])
    for (draw_on, bars), cell in zip(panels, cells):
        draw_on(figure.add_subplot(cell), bars)
    return figure


def _comparable(goal: Goal) -> bool:
    least, most = COMPARABLE
    return not goal.figure.unit and least <= goal.figure.min and goal.figure.max <= most


def _label(result: Result, goal: Goal) -> str:
    return textwrap.fill(f"{result.name}: {goal.text}", WRAP)


def _ratio(result: Result, goal: Goal) -> Bar:
    figure = goal.figure
    return Bar(
        _label(result, goal), judged(goal), figure.median, figure.min, figure.max, goal.bound, goal.met
    )


def _share(result: Result, goal: Goal) -> Bar:
    figure = goal.figure
    shares = (value / goal.bound for value in (figure.median, figure.min, figure.max))
    return Bar(_label(result, goal), judged(goal), *shares, 1.0, goal.met)


def _ratios(axes: Axes, bars: Sequence[Bar]) -> None:
    """Ratios on a logarithmic axis, bars from 1: half and twice are equally long."""
    _bars(axes, bars, start=1)
    ends = [1, *(end for bar in bars for end in (bar.least, bar.most, bar.mark or 1))]
    axes.set_xscale("log")
    axes.set_xlim(min(ends) / 1.1, max(ends) * 1.1)
    axes.xaxis.set_major_locator(FixedLocator(TICKS))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.axvline(1, color=INK, linewidth=0.8)
    axes.set_title("Ratios (upright mark: the goal; thin line: least to most of all rounds)", loc="left")


def _shares(axes: Axes, bars: Sequence[Bar]) -> None:
    """Figures as shares of what they were to be."""
    _bars(axes, bars, start=0)
    axes.set_xlim(0, 1.1 * max(1, *(bar.most for bar in bars)))
    axes.set_title("Other figures as shares of their goals", loc="left")


def _bars(axes: Axes, bars: Sequence[Bar], start: float) -> None:
    """Draw bars from the top down, each as high as its label, its number and verdict at the right."""
    top, middles = 0.0, []
    for bar in bars:
        middle = top + bar.height / 2
        colour, hatch = LOOKS[bar.met]
        axes.barh(middle, bar.value - start, 0.8, start, color=colour, hatch=hatch, edgecolor="white", lw=0)
        axes.plot([bar.least, bar.most], [middle, middle], color=INK, lw=1.2, solid_capstyle="butt")
        if bar.mark is not None:
            axes.plot([bar.mark, bar.mark], [middle - 0.6, middle + 0.6], color=INK, lw=2.6)
        weight = "bold" if bar.met is False else "normal"
        axes.text(1.01, middle, bar.said, transform=axes.get_yaxis_transform(), va="center", weight=weight)
        middles.append(middle)
        top += bar.height
    axes.set_yticks(middles)
    axes.set_yticklabels([bar.label for bar in bars])
    axes.set_ylim(top, 0)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=INK, alpha=0.12)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
