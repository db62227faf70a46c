"""What a plan would take, without the executor: a model of its memory and of its time.

MXNet's executor gives every array of a step a place, and a place serves one array at a time, of any size up
to its own. So a step does not need what lives together at the worst moment, but more: for every size, as many
places of at least that size as ever hold such arrays at once. That is what the model counts.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Iterable, NamedTuple, Sequence

import numpy as np

from latse.graph.nodes import Entry
from latse.plan.cost import BACKWARD, BYTES_PER_SECOND, forward_seconds
from latse.plan.plan_graph import IN_PLACE, Marks, PlanGraph

PREFIX = "planned_node_"  # names of the operators in the executor's report that a model is made from

# Operators whose gradient is the gradient of their output itself.
_PASSES_ON = frozenset({"elemwise_add", "add_n", "_copy", "Reshape", "Flatten", "expand_dims", "squeeze"})

_SIZES = 12  # sizes that are told apart
_LEAST = 1 / 512  # of the largest: smaller arrays are not counted
_POWER = 16  # of the mean over all moments


@dataclass(frozen=True)
class Candidate:
    """A plan, and what its step would take."""

    keep: frozenset  # the nodes whose outputs it keeps, besides those that are always kept
    allocated: float  # bytes of all places
    mean: float  # the same, not at each size's worst moment, but in a mean in which bad moments weigh most
    seconds: float  # of computing again


@dataclass(frozen=True)
class Stage:
    """What the backward pass through some nodes takes."""

    kept: frozenset  # those of the nodes whose output of the forward pass it reads
    places: np.ndarray  # how many arrays of each size or more it holds at most, but those of earlier nodes
    seconds: float  # of computing again


class Model:
    """Estimates what it takes to keep some outputs of a graph and to compute the others again.

    Parameters
    ----------
    graph : PlanGraph
        The nodes.
    report : str
        What the executor of the plain graph, its operators renamed with `PREFIX`, says of itself.
    """

    def __init__(self, graph: PlanGraph, report: str) -> None:
        self.graph = graph
        self.reads, self.follows = _backward(report, len(graph.nodes))
        self.order = [i for i in range(len(graph.nodes)) if not graph.nodes[i].is_variable]
        self.inputs = [{j for j, _ in node.inputs} for node in graph.nodes]
        self.in_place = [node.op in IN_PLACE for node in graph.nodes]
        self.seconds = [forward_seconds(graph, i) for i in range(len(graph.nodes))]
        # Of the whole step if nothing is computed again.
        self.plain_seconds = sum(s * (1 + BACKWARD * t) for s, t in zip(self.seconds, graph.trained))
        # The sizes that are told apart, in bytes, falling, and by how much each is larger than the next.
        self.thresholds = _thresholds([size for i in self.order for size in graph.sizes[i]])
        self.steps = self.thresholds - np.append(self.thresholds[1:], 0)
        # The nodes on the gradient's path that read each node.
        self.readers = [set() for _ in graph.nodes]
        for i in self.order:
            for j, _ in graph.nodes[i].inputs if graph.trained[i] else ():
                self.readers[j].add(i)
        # What the gradient of each node gives a gradient to.
        self.entries = [
            [(j, k) for j, k in node.inputs if graph.trained[j] and not graph.nodes[j].is_variable]
            for node in graph.nodes
        ]
        # The nodes that must be there, computed again if need be, for the gradient of each node.
        self.wanted = [
            {j for j, _ in reads} | ({i} if follows else set())
            for i, (reads, follows) in enumerate(zip(self.reads, self.follows))
        ]
        # Nodes whose output is kept whatever the plan.
        stays = {i for i in self.order if not graph.may_repeat[i]}
        self.always = frozenset(stays | {j for i in stays for j, _ in self.reads[i]})
        self._estimates: dict[bytes, tuple[float, float, float]] = {}
        # The forward pass once it is played: sizes of arrays, steps, and which output is which array.
        self.forward: tuple[list[int], list[_Step], dict[Entry, int]] | None = None

    def size(self, entry: Entry) -> int:
        """Return the bytes of an output, 0 of a variable and of a hidden output."""
        i, k = entry
        return (
            0 if self.graph.nodes[i].is_variable or k >= len(self.graph.sizes[i]) else self.graph.sizes[i][k]
        )

    def is_dear(self, i: int) -> bool:
        """Tell whether a node takes its time by computing, not by moving bytes."""
        moved = self.size((i, 0)) + sum(map(self.size, self.graph.nodes[i].inputs))
        return self.seconds[i] > 2 * moved / BYTES_PER_SECOND

    def marks(self, keep: Iterable[int], nodes: Sequence[int] | None = None) -> Marks:
        """Return what must be marked to keep the outputs of just these nodes and of those always kept.

        A node is computed again if something else needs what it puts out and that is not kept, or if its own
        gradient reads something that is not kept. Only `nodes` are looked at, by default all, and what
        others put out is taken for kept.
        """
        nodes = self.order if nodes is None else nodes
        lost = set(nodes) - self.always.union(keep)
        needed, recomputed, read = set(), set(), set()
        for i in reversed(nodes):
            reads_itself = any(j == i for j, _ in self.reads[i])
            own_reads = self.reads[i] if self.graph.trained[i] else ()
            lacks = any(j in lost and (j, k) != (i, k or -1) for j, k in own_reads)
            if i in self.always or not (i in needed or lacks and self.follows[i]):
                continue
            recomputed.add(i)
            if i in needed or reads_itself:
                read.add(i)
            needed.update(j for j, _ in self.graph.nodes[i].inputs if j in lost)
        kept = recomputed - lost
        return Marks(frozenset(recomputed), frozenset(kept), frozenset(recomputed - read))

    def estimate(self, keep: frozenset) -> Candidate:
        """Return what the step takes that keeps the outputs of these nodes."""
        marks = self.marks(keep)
        # Outputs that nobody reads may be kept or not: the marks are those of another set.
        sets = marks.recomputed, marks.kept, marks.read
        key = bytes(i in nodes for nodes in sets for i in self.order)
        if key not in self._estimates:
            run = _Run(self, marks)
            places = self.places(run)
            most, mean = places.max(0), (places**_POWER).mean(0) ** (1 / _POWER)
            self._estimates[key] = float(most @ self.steps), float(mean @ self.steps), run.seconds
        return Candidate(keep, *self._estimates[key])

    def stage(self, keep: Iterable[int], nodes: Sequence[int]) -> Stage:
        """Return what the backward pass through `nodes` takes, if the outputs of all others are kept."""
        run = _Run(self, self.marks(keep, nodes), nodes)
        read = run.read_later()
        return Stage(frozenset(read), self.places(run).max(0), run.seconds)

    def bound(self) -> float:
        """Return the bytes of the largest set of arrays that one operator needs together."""
        run = _Run(self, Marks())
        return float(max(map(run.bytes_at, range(len(run.steps)))))

    def count(self, keep: Iterable[int]) -> np.ndarray:
        """Return how many of the outputs of these nodes have each size or more."""
        sizes = np.array([self.graph.sizes[i][0] for i in keep if self.graph.sizes[i]] or [0])
        above = np.append(self.thresholds[1:], _LEAST * self.thresholds[0])
        return (sizes[:, None] > above).sum(0).astype(float)

    def places(self, run: _Run) -> np.ndarray:
        """Return how many arrays of each size or more live together, for each moment and size."""
        starts, ends, sizes = run.lives()
        counted = sizes > _LEAST * self.thresholds[0]
        classes = np.searchsorted(-self.thresholds, -sizes[counted], side="right") - 1
        change = np.zeros((len(run.steps) + 1, len(self.thresholds)))
        np.add.at(change, (starts[counted], classes), 1)
        np.add.at(change, (ends[counted], classes), -1)
        return change.cumsum(0).cumsum(1)


class _Step(NamedTuple):
    reads: list
    writes: list
    in_place: bool


class _Run:
    """A step played through operator by operator: which array is read and written when.

    The executor orders a step by what depends on what: the forward pass; then the gradients from the last
    node to the first, each preceded by what it reads, where that has to be computed again.

    Given `nodes`, their backward passes alone are played, in their order. What others put out is there and
    not counted; there is at the start what the nodes kept, and the gradient of what later nodes read.
    """

    def __init__(self, model: Model, marks: Marks, nodes: Sequence[int] | None = None) -> None:
        self._model, self._graph, self._marks = model, model.graph, marks
        self.sizes: list[int] = []
        self.steps: list[_Step] = []
        self.seconds = 0.0
        self._first: dict[Entry, int] = {}
        self._second: dict[Entry, int] = {}
        self._gradients: dict[Entry, list[int]] = {}
        if nodes is None:
            nodes = model.order
            self._forward()
        else:
            self._step(None, [array for i in nodes for array in self._outputs(i, self._first)], [])
            self._receive(nodes)
        self._again = set(marks.recomputed).intersection(nodes)  # what is still to be computed again
        for i in reversed(nodes):
            if self._graph.trained[i]:
                self._backward(i)

    def lives(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return of each array the step it comes with, the first step without it, and its bytes."""
        starts, ends = [0] * len(self.sizes), [0] * len(self.sizes)
        for time, step in enumerate(self.steps):
            for array in step.writes:
                starts[array], ends[array] = time, time + 1
            for array in step.reads:
                ends[array] = time + 1
        for time, step in enumerate(self.steps):
            if step.in_place and step.writes:
                size = self.sizes[step.writes[0]]
                for array in step.reads:
                    if ends[array] == time + 1 and self.sizes[array] == size:
                        ends[array] = time
                        break
        return np.array(starts), np.array(ends), np.array(self.sizes)

    def bytes_at(self, time: int) -> int:
        """Return the bytes that the operator of one step reads and writes, as few as it can do with."""
        step = self.steps[time]
        written = [] if step.in_place else step.writes
        return sum(self.sizes[array] for array in {*step.reads, *written})

    def read_later(self) -> set[int]:
        """Return the nodes whose output of the forward pass the backward pass reads."""
        read = {array for step in self.steps[1:] for array in step.reads}
        return {i for (i, _), array in self._first.items() if array in read}

    def _forward(self) -> None:
        """Play the forward pass, which is the same whatever is computed again: the model keeps it."""
        if self._model.forward is None:
            for i in self._model.order:
                reads = [self._first.get(entry) for entry in self._graph.nodes[i].inputs]
                self._step(i, self._outputs(i, self._first), reads)
            self._model.forward = self.sizes, self.steps, self._first
        sizes, steps, self._first = self._model.forward
        self.sizes, self.steps = [*sizes], [*steps]

    def _array(self, size: int) -> int:
        self.sizes.append(size)
        return len(self.sizes) - 1

    def _outputs(self, i: int, place: dict[Entry, int]) -> list[int]:
        first, sizes = len(self.sizes), self._graph.sizes[i]
        self.sizes += sizes
        arrays = range(first, first + len(sizes))
        place.update(zip([(i, k) for k in range(len(sizes))], arrays))
        return [*arrays]

    def _step(self, i: int | None, writes: list[int], reads: list[int | None]) -> None:
        in_place = i is not None and self._model.in_place[i]
        self.steps.append(_Step([a for a in reads if a is not None], writes, in_place))

    def _receive(self, nodes: Sequence[int]) -> None:
        """Lay out the gradients that nodes behind the last one pass to these."""
        arrays, inside = [], set(nodes)
        for i in nodes:
            if self._graph.trained[i] and not self._model.readers[i] <= inside:
                arrays.append(self._array(self._model.size((i, 0))))
                self._gradients[i, 0] = [arrays[-1]]
        self._step(None, arrays, [])

    def _backward(self, i: int) -> None:
        graph, model = self._graph, self._model
        from_above = [self._sum(i, k) for k in range(len(graph.sizes[i]))]
        if i not in graph.outputs and all(array is None for array in from_above):
            return
        entries = model.entries[i]
        if graph.nodes[i].op in _PASSES_ON:
            passed = self._array(0) if from_above[0] is None else from_above[0]  # an output's: the caller's
            for entry in entries:
                self._gradients.setdefault(entry, []).append(passed)
            return
        if not self._again.isdisjoint(model.wanted[i]):
            self._recompute(model.wanted[i])
        reads = self._sources(model.reads[i], by=i)
        writes = [self._array(model.size(entry)) for entry in entries]
        self._step(i, writes, [*from_above, *reads])
        for entry, array in zip(entries, writes):
            self._gradients.setdefault(entry, []).append(array)

    def _sum(self, i: int, k: int) -> int | None:
        """Return the gradient of an output, the sum of what its readers pass to it."""
        parts = self._gradients.pop((i, k), [])
        if len(parts) < 2:
            return parts[0] if parts else None
        total = self._array(self.sizes[parts[0]])
        self.steps.append(_Step(parts, [total], in_place=True))
        return total

    def _sources(self, entries: Iterable[Entry], by: int) -> list[int | None]:
        """Return the arrays that the gradient of node `by`, or its second pass, reads for these outputs."""
        recomputed, kept = self._marks.recomputed, self._marks.kept
        if by not in recomputed:
            return [*map(self._first.get, entries)]
        return [
            (self._second if i in recomputed and (i == by or k > 0 or i not in kept) else self._first).get(
                (i, k)
            )
            for i, k in entries
        ]

    def _recompute(self, wanted: set[int]) -> None:
        """Compute nodes again, and before them what they need."""
        again: set[int] = set()
        stack = [*self._again.intersection(wanted)]
        while stack:
            i = stack.pop()
            again.add(i)
            stack += self._again.intersection(self._model.inputs[i]).difference(again, self._marks.kept)
        self._again -= again
        for i in sorted(again):
            self.seconds += self._model.seconds[i]
            self._step(i, self._outputs(i, self._second), self._sources(self._graph.nodes[i].inputs, by=i))


def _thresholds(sizes: Iterable[int]) -> np.ndarray:
    """Return at most so many sizes, falling, that stand for all: each of those that take the most."""
    arrays = Counter(sizes)
    largest = max(arrays, default=1)
    counted = [size for size in arrays if size > _LEAST * largest]
    most = sorted(counted, key=lambda size: (-size * arrays[size], -size))[: _SIZES - 1]
    return np.array(sorted({*most, largest}, reverse=True), float)


def _backward(report: str, count: int) -> tuple[list[set[Entry]], list[bool]]:
    """Read from the executor's report which outputs each node's gradient reads, and whether it runs the node.

    It runs the node, where that is marked, because it depends on it.
    """
    reads: list[set[Entry]] = [set() for _ in range(count)]
    follows = [False] * count
    for block in report.split("--------------------\n"):
        named = re.search(rf"^Op:\S+, Name={PREFIX}(\d+)_", block, re.MULTILINE)
        if named:
            i = int(named.group(1))
            reads_ = re.findall(rf"^\targ\[\d+\]={PREFIX}(\d+)\((\d+)\)", block, re.MULTILINE)
            reads[i].update((int(j), int(k)) for j, k in reads_)
            follows[i] = follows[i] or bool(re.search(rf"^\tcdep\[\d+\]={PREFIX}{i}$", block, re.MULTILINE))
    return reads, follows
