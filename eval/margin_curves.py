"""The paper's Figure 3: target logits of margins over θ, beside the probability that they give the target."""

from __future__ import annotations

import itertools
import math
import os
from pathlib import Path
from typing import Any, Iterable, Iterator, Mapping

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from latse.errors import LatseError
from latse.eval.canvas import blank, plain, save
from latse.eval.principles import curves
from latse.symbols.margins import Margin

POINTS = 1001
# Okabe and Ito's colours, told apart by colour-blind eyes too; without yellow, too pale for a line.
COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
# As many as colours, less one: their pairs repeat after 42 lines only.
STYLES = ("-", (0, (5, 2)), (0, (1, 1.3)), (0, (7, 2, 1.5, 2)), (0, (3, 1.5, 1, 1.5, 1, 1.5)), (0, (10, 3)))
EIGHTH = math.pi / 8
TICKS = ("0", "π/8", "π/4", "3π/8", "π/2", "5π/8", "3π/4", "7π/8", "π")
# Of a probability, what the eye tells from nought.
EYE = 0.001
# The same file for the same curves: without date and version, and with ids that do not change.
METADATA = {"png": {"Software": None}, "svg": {"Date": None}}


def draw_curves(path: str | os.PathLike, margins: Mapping[str, Margin]) -> tuple[Path, Path]:
    """Write `picture` as PNG and as SVG, byte for byte the same for the same curves and matplotlib.

    `path` has no suffix, or .png or .svg: both are written in any case. Returns the paths of the PNG and of
    the SVG. Raises LatseError if the suffix is another one, a file cannot be written, or as `picture`.
    """
    stem = Path(path)
    if stem.suffix not in ("", ".png", ".svg"):
        raise LatseError(f"{path}: a figure is written as .png and .svg, not as {stem.suffix}")
    figure = picture(margins)
    paths = stem.with_suffix(".png"), stem.with_suffix(".svg")
    with matplotlib.rc_context({"svg.hashsalt": "latse"}):
        for file, (kind, metadata) in zip(paths, METADATA.items()):
            save(figure, file, kind, metadata=metadata)
    return paths


def probability(margin: Margin, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the target's probability for θ (n,), radians, and its derivative with respect to θ.

    P(θ) = e^h(θ) / (e^h(θ) + (K - 1)·e^g(π/2)), K being the margin's number of classes: all other class
    centres are at a right angle to the embedding, as they nearly are in 512 dimensions.
    """
    h, g = curves(margin)
    others = g(np.array([math.pi / 2])) + math.log(margin.classes - 1)
    excess = h(theta) - others
    # Of both signs, so that neither e^x overflows nor 1 - P loses its digits.
    share, rest = (np.exp(-np.logaddexp(0, side)) for side in (-excess, excess))
    return share, share * rest * h.slope(theta)


def picture(margins: Mapping[str, Margin]) -> Figure:
    """Draw h(θ)/s on the left, the target's probability and its derivative on the right, over θ.

    The left panel reaches from 0 to π, the right one over those θ in which a probability changes. `margins`
    has the title of each line -> its margin: at least one, all over the same number of classes. Raises
    LatseError if a curve cannot be computed, or g(0), by which h is divided, is not above 0.
    """
    figure = blank((9, 4.6), dpi=160)
    grid = figure.add_gridspec(2, 2, width_ratios=(1.15, 1))
    left, above = figure.add_subplot(grid[:, 0]), figure.add_subplot(grid[0, 1])
    below = figure.add_subplot(grid[1, 1], sharex=above)
    theta = np.linspace(0, math.pi, POINTS)
    near = np.linspace(*_where_it_changes(margins.values(), theta), POINTS)
    scales = {title: _scale(title, margin) for title, margin in margins.items()}
    for (title, margin), look in zip(margins.items(), _looks()):
        share, slope = probability(margin, near)
        left.plot(theta, curves(margin)[0](theta) / scales[title], label=plain(title), **look)
        above.plot(near, share, **look)
        below.plot(near, slope, **look)
    _finish(left, theta, "target logit  h(θ) / s")
    _finish(above, near, "target probability  P")
    _finish(below, near, "its gradient  dP/dθ")
    above.tick_params(labelbottom=False)
    above.set_xlabel("")
    figure.align_ylabels([above, below])
    several = " or ".join(f"{scale:.4g}" for scale in sorted(set(scales.values())))
    others = next(iter(margins.values())).classes - 1
    above.set_title(f"{others:,} other classes, all at π/2; s = {several}", fontsize="medium")
    left.legend(loc="lower left", handlelength=4, frameon=False)
    return figure


def _where_it_changes(margins: Iterable[Margin], theta: np.ndarray) -> tuple[float, float]:
    """Return, in eighths of π, where the probability of any margin is between nought and one to the eye."""
    shares = np.stack([probability(margin, theta)[0] for margin in margins])
    changing = theta[((shares > EYE) & (shares < 1 - EYE)).any(axis=0)]
    if not len(changing):
        return 0, math.pi
    low, high = np.floor(changing[0] / EIGHTH), np.ceil(changing[-1] / EIGHTH)
    return low * EIGHTH, min(max(high, low + 1), 8) * EIGHTH


def _looks() -> Iterator[dict[str, Any]]:
    """Yield looks of lines that differ in style as well as in colour; never the same within 42."""
    for colour, style in zip(itertools.cycle(COLOURS), itertools.cycle(STYLES)):
        yield {"color": colour, "linestyle": style, "linewidth": 1.6}


def _scale(title: str, margin: Margin) -> float:
    """Return s as g(0): the margin's scale, whatever its parameter is called."""
    scale = float(curves(margin)[1](np.zeros(1)))
    if not scale > 0:
        raise LatseError(f"{title}: h(θ) is drawn in units of g(0), which is {scale:g}, not above 0")
    return scale


def _finish(cell: Axes, theta: np.ndarray, title: str) -> None:
    cell.set(ylabel=title, xlabel="θ (radians)")
    every = 2 if theta[-1] - theta[0] > 6 * EIGHTH else 1
    ticks = range(round(theta[0] / EIGHTH), round(theta[-1] / EIGHTH) + 1, every)
    cell.set_xticks([tick * EIGHTH for tick in ticks], [TICKS[tick] for tick in ticks])
    cell.set_xlim(theta[0], theta[-1])
    cell.grid(color="0.85", linewidth=0.6)
    cell.spines[["top", "right"]].set_visible(False)
