"""The report's charts: matplotlib's SVG, its colours left to the style sheet of the page that it stands in.

A colour drawn here is a name; the page's style sheet says what it is by day, by night and on paper. A chart
holds no text of the user's: its title and legend are HTML around it.
"""

from __future__ import annotations

import io
import math
import re
from dataclasses import dataclass
from typing import Any, Mapping, Sequence

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from latse.eval.canvas import blank
from latse.eval.figures import training_lines
from latse.paper.report_blocks import BLOCKS

# Inches of 72 units: a telephone shows them about one to one, a desktop the large ones half as large again.
SIZE = (4.2, 2.9)
SMALL = (2.9, 1.9)
# What matplotlib draws -> the variable of the style sheet that takes its place.
INK, FAINT = "#010101", "#020202"
SAME, DIFFERENT = "#030303", "#040404"
SERIES = tuple(f"#0a0a{number:02x}" for number in range(8))
VARIABLES = {
    INK: "ink",
    FAINT: "faint",
    SAME: "same",
    DIFFERENT: "different",
    **{colour: f"series-{number}" for number, colour in enumerate(SERIES)},
}
# One less than colours, so that the pairs repeat after 56 lines only.
DASHES = ((), (5, 2), (1.2, 1.6), (7, 2, 1.5, 2), (3, 1.5, 1, 1.5, 1, 1.5), (10, 3), (2.5, 2.5))
STYLE = {
    "svg.fonttype": "none",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": FAINT,
    "grid.alpha": 0.35,
    "grid.linewidth": 0.5,
    "axes.linewidth": 0.7,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
}
SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
PUBLISHED = ("Date", "Creator", "Format", "Type")
TRAINING = (
    ("Discrimination loss", ("dloss",)),
    ("Generated faces: L1 distance, SSIM similarity", ("l1", "ssim")),
    ("Share of samples kept", ("kept",)),
    ("Precision and recall of the kept samples", ("precision", "recall")),
    ("Learning rate", ("lr",)),
)


@dataclass(frozen=True)
class Look:
    """How a series is drawn: `number` of its colour, lengths of dashes and gaps (none: a full line)."""

    number: int
    dashes: tuple[float, ...] = ()

    @property
    def line(self) -> dict[str, Any]:
        """The arguments of matplotlib's `plot`."""
        style = (0, self.dashes) if self.dashes else "-"
        # On top of full lines, a dashed one does not hide what it runs along.
        layer = 3 if self.dashes else 2.5
        return {"color": SERIES[self.number], "linestyle": style, "linewidth": 1.5, "zorder": layer}


def looks(titles: Sequence[str]) -> dict[str, Look]:
    """Give each title a colour and a line style; no two agree in both among the first 56."""
    return {
        title: Look(number % len(SERIES), DASHES[number % len(DASHES)]) for number, title in enumerate(titles)
    }


def power(value: float) -> str:
    """Write a power of ten as such, `10⁻³`, and any other number in its shortest form."""
    exponent = round(math.log10(value)) if value > 0 else 0
    if value > 0 and math.isclose(value, 10.0**exponent, rel_tol=1e-9):
        return f"10{str(exponent).translate(SUPERSCRIPT)}"
    return f"{value:g}"


def roc(title: str, curves: Mapping[str, Mapping[str, Any]], look: Mapping[str, Look], banded: str) -> Markup:
    """Draw TAR over FAR, both fractions; no other chart of a page may have the same title.

    Parameters
    ----------
    title : str
        Of the chart.
    curves : mapping of str to mapping of str to object
        Title of a line -> `far`, `tar` (n,) and `low`, `high` (n,) or None.
    look : mapping of str to Look
        Title of a line -> its look.
    banded : str
        The line with a band from `low` to `high`, if they are known; several bands would hide each other.
    """
    cell = _axes(SIZE)
    for name, curve in curves.items():
        if name == banded and curve["low"] is not None:
            band = {"color": SERIES[look[name].number], "alpha": 0.18, "linewidth": 0}
            cell.fill_between(curve["far"], curve["low"], curve["high"], **band)
        cell.plot(curve["far"], curve["tar"], **look[name].line)
    smallest = min((far for curve in curves.values() for far in curve["far"] if far > 0), default=1e-3)
    cell.set(xscale="log", xlim=(smallest, 1), ylim=(0, 1.01))
    cell.xaxis.set_major_formatter(lambda value, _: power(value))
    svg = _svg(title, cell, "false accept rate", "true accept rate, %")
    return BLOCKS.chart(title, svg, [(look[name], name) for name in curves])


def histogram(
    name: str, title: str, bins: Mapping[str, Sequence[float]], look: Look, threshold: float
) -> Markup:
    """Draw how the cosine similarities of same and of different pairs are spread, each as a share of its own.

    Parameters
    ----------
    name : str
        For who cannot see it; no other chart of a page may have the same.
    title, look : str, Look
        Of the model.
    bins : mapping of str to sequence of float
        `edges` (n + 1,), `same` and `different` (n,) counts.
    threshold : float
        Cosine similarity from which on a pair is taken for one person; it is marked.
    """
    cell = _axes(SMALL)
    for kind, colour in (("different", DIFFERENT), ("same", SAME)):
        counts = np.asarray(bins[kind], float)
        share = counts / max(counts.sum(), 1)
        cell.stairs(share, bins["edges"], fill=True, color=colour, alpha=0.3, linewidth=0)
        cell.stairs(share, bins["edges"], color=colour, linewidth=1.2)
    cell.axvline(threshold, color=INK, linewidth=0.9, linestyle=(0, (3, 2)))
    cell.set(xlim=_occupied(bins), ylim=(0, None))
    cell.xaxis.set_major_locator(MaxNLocator(5))
    cell.yaxis.set_major_locator(MaxNLocator(4))
    return BLOCKS.chart(title, _svg(name, cell, "cosine similarity", "pairs, %"), look=look)


def steps(
    title: str, series: Mapping[str, Mapping[str, float]], look: Mapping[str, Look], label: str
) -> Markup:
    """Draw rates (fractions) over whole numbers on a logarithmic axis with a `label`, such as a CMC.

    `series` are title of a line -> whole number, as text -> rate; titles and `look` are as for `roc`.
    """
    cell = _axes(SIZE)
    for name, points in series.items():
        numbers = sorted((int(number), rate) for number, rate in points.items())
        cell.plot(*zip(*numbers), marker="o", ms=3, **look[name].line)
    ticks = sorted({int(number) for points in series.values() for number in points})
    lowest = min(rate for points in series.values() for rate in points.values())
    cell.set(xscale="log", ylim=(min(math.floor(lowest * 10) / 10, 0.9), 1.005))
    cell.set_xticks(ticks, [f"{tick:,}" if tick < 10_000 else power(tick) for tick in ticks])
    return BLOCKS.chart(title, _svg(title, cell, label, "rate, %"), [(look[name], name) for name in series])


def training_curves(runs: Mapping[str, list[dict[str, Any]]], look: Mapping[str, Look]) -> list[Markup]:
    """Draw metrics of runs over the iteration, a chart for each panel that any run has.

    `runs` are title -> records with `iteration` and any of the metrics. A run has the colour of its `look`;
    metrics of one panel differ in style.
    """
    charts = []
    for title, keys in TRAINING:
        lines = list(training_lines(runs, keys))
        if not lines:
            continue
        cell, legend = _axes(SIZE), []
        for run, number, name, points in lines:
            line = Look(look[run].number, DASHES[number] if len(keys) > 1 else look[run].dashes)
            cell.plot(*zip(*points), **line.line)
            legend.append((line, name))
        low, high = cell.get_ylim()
        cell.set_ylim(min(0, low), max(0, high))
        charts.append(BLOCKS.chart(title, _svg(title, cell, "iteration", fractions=False), legend))
    return charts


def _occupied(bins: Mapping[str, Sequence[float]]) -> tuple[float, float]:
    """Return the similarities between which there are pairs, a little wider."""
    edges, filled = np.asarray(bins["edges"], float), np.add(bins["same"], bins["different"]) > 0
    if not filled.any():
        return edges[0], edges[-1]
    where = np.flatnonzero(filled)
    return max(edges[0], edges[where[0]] - 0.05), min(edges[-1], edges[where[-1] + 1] + 0.05)


def _axes(size: tuple[float, float]) -> Axes:
    with matplotlib.rc_context(STYLE):
        cell = blank(size).add_subplot()
        cell.grid(True)
        cell.set_axisbelow(True)
        cell.spines[["top", "right"]].set_visible(False)
    return cell


def _svg(title: str, cell: Axes, x_label: str, y_label: str = "", fractions: bool = True) -> Markup:
    """Return the figure as an <svg> that can stand in a page beside others: ids are made of its title.

    What goes up is `fractions`, written in percent, or not.
    """
    cell.set(xlabel=x_label, ylabel=y_label)
    if fractions:
        cell.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g}")
    written = io.StringIO()
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": title}):
        figure: Any = cell.figure
        figure.savefig(written, format="svg", transparent=True, metadata=dict.fromkeys(PUBLISHED))
    svg = re.sub(r"<style.*?</style>|<!--.*?-->", "", written.getvalue(), flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg).replace("xlink:href", "href")
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, f"var(--{variable})")
    viewbox = re.search(r'viewBox="[^"]*"', svg).group()
    start = Markup('<svg class="chart" {} role="img" aria-label="{}">').format(Markup(viewbox), title)
    return start + Markup(re.sub(r"^.*?<svg[^>]*>", "", svg, flags=re.DOTALL))
