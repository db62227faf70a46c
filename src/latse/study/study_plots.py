"""The pictures of a study: a dot for each row, two columns against each other, curves over the iterations."""

from __future__ import annotations

from pathlib import Path
from typing import Callable, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from latse.eval.canvas import blank, plain, save
from latse.eval.margin_curves import COLOURS, METADATA, STYLES
from latse.study.study_claims import Results, mean_and_interval
from latse.study.study_columns import Column, averaged, curve
from latse.study.study_shown import Plot

WIDTH, LINE, HEIGHT = 7.5, 0.24, 4.2  # inches: a picture, a row, a picture whose rows are no lines
INK, DOT, FAINT = "#1b1d21", "#0072B2", 0.35
MARKS = "osD^vPX"
STYLE = {"svg.hashsalt": "latse", "font.size": 9, "axes.linewidth": 0.7, "lines.linewidth": 1.3}


def draw(path: Path, plot: Plot, seeds: Sequence[int], results: Results) -> None:
    """Write a plot as SVG: the same bytes for the same results and matplotlib.

    `results` are those of the study, by row and seed, of which some may be missing. Raises LatseError if the
    file cannot be written.
    """
    kinds: dict[str, Callable[..., Figure]] = {"dots": _dots, "scatter": _scatter, "curve": _curves}
    with matplotlib.rc_context(STYLE):
        figure = kinds[plot.kind](plot, seeds, results)
        save(figure, path, "svg", metadata=METADATA["svg"])


def _dots(plot: Plot, seeds: Sequence[int], results: Results) -> Figure:
    """Draw a line for each row: the mean with its interval, the seeds faint."""
    one = averaged(plot.columns[0], plot.sets)
    figure = blank((WIDTH, LINE * (len(plot.rows) + 3)))
    axes = figure.add_subplot()
    for line, row in enumerate(plot.rows):
        values = _values(one, row, seeds, results)
        mean, interval = mean_and_interval(values)
        if interval:
            axes.plot(interval, [line, line], color=INK, solid_capstyle="butt")
        axes.plot(values, [line] * len(values), "o", ms=4.5, color=DOT, alpha=2 * FAINT, mew=0)
        if mean is not None:
            axes.plot(mean, line, "o", ms=5, color=INK)
    axes.set(ylim=(len(plot.rows) - 0.4, -0.6), xlabel=plain(one.label))
    axes.set_yticks(range(len(plot.rows)), [plain(row) for row in plot.rows])
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", color=INK, alpha=0.06)
    _tidy(axes)
    return figure


def _scatter(plot: Plot, seeds: Sequence[int], results: Results) -> Figure:
    """Draw a point for each row: two means with their intervals, the seeds faint."""
    across, up = (averaged(one, plot.sets) for one in plot.columns)
    figure = blank((WIDTH, max(HEIGHT, LINE * (len(plot.rows) + 2))))
    axes = figure.add_subplot()
    for number, row in enumerate(plot.rows):
        runs = [results[row, seed] for seed in seeds if (row, seed) in results]
        points = np.array([(across.of(run), up.of(run)) for run in runs], float).reshape(-1, 2)
        points = points[~np.isnan(points).any(axis=1)] * (across.scale, up.scale)
        if not len(points):
            continue
        look = {"color": COLOURS[number % len(COLOURS)], "marker": MARKS[number // len(COLOURS) % len(MARKS)]}
        (x, horizontal), (y, vertical) = (mean_and_interval(values) for values in points.T)
        axes.plot(*points.T, linestyle="", ms=4, alpha=FAINT, mew=0, **look)
        axes.plot([x], [y], linestyle="", ms=6, label=plain(row), **look)
        axes.plot(horizontal or [], [y, y] if horizontal else [], color=look["color"], lw=0.8)
        axes.plot([x, x] if vertical else [], vertical or [], color=look["color"], lw=0.8)
    axes.set(xlabel=plain(across.label), ylabel=plain(up.label))
    axes.grid(axis="y", color=INK, alpha=0.12)
    _beside(axes)
    _tidy(axes)
    return figure


def _curves(plot: Plot, seeds: Sequence[int], results: Results) -> Figure:
    """Draw a line for each row: the mean of seeds with the same iterations; the seeds are faint."""
    metric = plot.columns[0]
    figure = blank((WIDTH, max(HEIGHT, LINE * (len(plot.rows) + 2))))
    axes = figure.add_subplot()
    for number, row in enumerate(plot.rows):
        found = [curve(metric, results[row, seed]) for seed in seeds if (row, seed) in results]
        lines = [np.array(points, float).T for points in found if points]
        look = {"color": COLOURS[number % len(COLOURS)], "linestyle": STYLES[number % len(STYLES)]}
        for at, values in lines if len(lines) > 1 else ():
            axes.plot(at, values, **{**look, "alpha": FAINT, "linewidth": 0.6})
        if lines and all(np.array_equal(at, lines[0][0]) for at, _ in lines):
            axes.plot(lines[0][0], np.mean([values for _, values in lines], axis=0), label=plain(row), **look)
    axes.set(xlabel="iteration", ylabel=plain(metric.rpartition("*/")[2]))
    axes.grid(axis="y", color=INK, alpha=0.12)
    _beside(axes)
    _tidy(axes)
    return figure


def _values(one: Column, row: str, seeds: Sequence[int], results: Results) -> list[float]:
    """Return the figures of a row as they are shown, of the seeds that have one."""
    values = [one.of(results[row, seed]) for seed in seeds if (row, seed) in results]
    return [value * one.scale for value in values if value is not None]


def _beside(axes: Axes) -> None:
    """Put the legend beside the picture, if there is anything in it."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, fontsize=8)


def _tidy(axes: Axes) -> None:
    axes.grid(axis="x", color=INK, alpha=0.12)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(7))
