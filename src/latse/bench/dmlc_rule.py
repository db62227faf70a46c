"""dmlc's rule for a memory plan, to compare with: a threshold, searched over stages that are marked by hand.

Everything is computed again but the ends of stages, and a stage may end only at a node that the network's
author has marked. It ends at the first such node at which more than a threshold of bytes have been passed.
A short search finds the threshold whose plan takes the least (Chen et al. 2016, *Training Deep Nets with
Sublinear Memory Cost*, §4.3; dmlc/memonger and insightface's copy of it, whose ResNets mark the shortcut of
each residual unit). What must not be computed again is left alone here, and an executor on the device at hand
judges each plan.
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

import mxnet as mx
from tqdm import tqdm

from latse.graph.nodes import Shapes
from latse.plan import memonger
from latse.plan.plan_graph import Marks, PlanGraph

GUESSES, STEPS = 3, 6

# How a traced residual unit names its addition, and the end of its shortcut where that has layers.
_SUM, _SHORTCUT = re.compile(r"unit\d+__plus\d+$"), re.compile(r"unit\d+_sc_fwd$")


class Found(NamedTuple):
    """The best plan of the rule: the marked graph, its planned MiB, and the threshold in bytes."""

    symbol: mx.sym.Symbol
    megabytes: float
    threshold: float


class Stages(NamedTuple):
    """What a threshold makes of a graph: the nodes kept, their bytes, and the bytes of the longest stage."""

    kept: frozenset
    kept_bytes: int
    longest: int


def search(symbol: mx.sym.Symbol, shapes: Shapes, context: mx.Context, progress: bool = False) -> Found:
    """Search the threshold whose plan of a training graph takes the least memory.

    The arguments are those of `latse.plan.memonger.plan`; `progress` shows a bar on stderr.

    The first threshold is 0, so that each stage is as short as may be; each of the next two is the root of
    half the product of the bytes kept and the bytes of the longest stage. Six more go in even steps up to
    √2 times the guess that would come next, from the shortest longest stage.
    """
    graph = PlanGraph(symbol, shapes)
    ends, plans, longest = stage_ends(graph), [], []
    with tqdm(total=GUESSES + STEPS, desc="dmlc's rule", leave=False, disable=not progress) as bar:

        def tried(threshold: float) -> Stages:
            cut = stages(graph, ends, threshold)
            planned = marks(graph, cut.kept).on(symbol)
            plans.append(Found(planned, memonger.planned_megabytes(planned, shapes, context), threshold))
            bar.update()
            return cut

        guess = 0.0
        for _ in range(GUESSES):
            cut = tried(guess)
            longest.append(cut.longest)
            guess = math.sqrt(cut.kept_bytes * cut.longest / 2)
        step = (guess * math.sqrt(2) - min(longest)) / STEPS
        for number in range(1, STEPS + 1 if step > 0 else 1):
            tried(min(longest) + number * step)
    return min(plans, key=lambda plan: plan.megabytes)


def stage_ends(graph: PlanGraph) -> frozenset:
    """Return the nodes that insightface marks: what a residual unit adds to its body.

    That is its input, or where the shape changes the batch normalisation of its shortcut.
    """
    ends = set()
    for node in graph.nodes:
        if _SUM.search(node.name):
            operands = [i for i, _ in node.inputs]
            layered = [i for i in operands if _SHORTCUT.search(graph.nodes[i].name)]
            ends.update(layered or [min(operands)])
    return frozenset(ends)


def stages(graph: PlanGraph, ends: frozenset, threshold: float) -> Stages:
    """Cut the graph at those of `ends` at which more than `threshold` bytes have been passed."""
    kept, passed, longest = set(), 0, 0
    for i, sizes in enumerate(graph.sizes):
        passed += 0 if graph.nodes[i].is_variable else sum(sizes)
        if i in ends and passed > threshold:
            kept.add(i)
            passed, longest = 0, max(longest, passed)
    return Stages(frozenset(kept), sum(sum(graph.sizes[i]) for i in kept), longest)


def marks(graph: PlanGraph, kept: frozenset) -> Marks:
    """Return a plan by which all is computed again that may be, but what is kept."""
    return Marks([i for i, may in enumerate(graph.may_repeat) if may and i not in kept])
