"""The memory planner: marks which activations of a training Symbol are computed again instead of kept.

MXNet's symbolic executor drops the output of every node that carries ``__force_mirroring__`` and computes
it again during the backward pass. Which nodes these should be is searched on a model of the executor
(`latse.plan.model`, `latse.plan.search`); a short list of what the search finds is bound, and what the
executor itself says that it would allocate on the device decides.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, Mapping, Union

import mxnet as mx
from tqdm import tqdm

from latse.errors import LatseError, is_short_of_memory
from latse.graph.nodes import Shapes, sentence
from latse.plan.file import digest, read_plan, write_plan
from latse.plan.model import PREFIX, Candidate, Model
from latse.plan.plan_graph import Marks, PlanGraph
from latse.plan.search import front, refined

__all__ = ["Budget", "Memory", "Plan", "Time", "plan", "planned_megabytes", "read_plan", "write_plan"]

MEBIBYTE = 2**20
_SHORT_LIST = 8  # plans at most that are bound to compare them, where the least memory is looked for


@dataclass(frozen=True)
class Memory:
    """A budget of memory: the least extra time within so many MiB of activations on a device."""

    megabytes: float

    def __post_init__(self) -> None:
        if not self.megabytes > 0:
            raise LatseError(f"a memory budget of {self.megabytes:g} MiB: must be positive")


@dataclass(frozen=True)
class Time:
    """A budget of time: the least memory at a predicted time of at most `ratio` times the plain step's."""

    ratio: float

    def __post_init__(self) -> None:
        if not self.ratio >= 1:
            raise LatseError(f"a time budget of {self.ratio:g} times the plain step: must be at least 1")


Budget = Union[Memory, Time, None]


@dataclass(frozen=True)
class Plan:
    """A Symbol with its mirroring marks, and what the executor says about it; memory is in MiB."""

    symbol: mx.sym.Symbol  # the planned one, or the caller's own where nothing is computed again
    before_megabytes: float  # planned without the plan; infinite if that does not fit into the device
    after_megabytes: float  # planned with it, the same as before if nothing was gained
    stages: int  # 1 and the number of times that something kept ends what is computed again
    predicted_time: float  # of the step by `latse.plan.cost`, as a multiple of the plain step's
    bound_megabytes: float  # what one operator at one moment reads and writes at most: no plan can be below
    graph: str  # digest of the plain graph, `latse.plan.file.digest`
    shapes: Mapping[str, tuple]  # of the inputs, for which the figures hold
    marks: Marks = Marks()  # what the plan sets on which nodes

    def as_json(self) -> dict[str, Any]:
        """Return all but the Symbol, null for a figure that has no end."""
        content = {name: value for name, value in vars(self).items() if name not in ("symbol", "marks")}
        marks = {name: sorted(nodes) for name, nodes in vars(self.marks).items()}
        return {**{name: None if value == math.inf else value for name, value in content.items()}, **marks}


def planned_megabytes(symbol: mx.sym.Symbol, shapes: Shapes, context: mx.Context) -> float:
    """Bind `symbol` for training and return the memory that its executor plans for activations, in MiB.

    Parameters
    ----------
    symbol : mx.sym.Symbol
        A training graph with one or many outputs.
    shapes : mapping of str to tuple of int
        The shape of every input (data, labels, masks) on one device, and of parameters that are not trained
        (a teacher's). These get no gradient; all other arguments do.
    context : mx.Context
        The device. The executor is really bound there and freed again.

    Returns
    -------
    float
        Whole MiB, the resolution of the executor's figure; infinite if the device cannot hold the graph.
        Parameters and their gradients are not counted, and it is not the resident memory: on CPU an operator
        without an MKLDNN kernel (relu, negative, elemwise_sub, but not Activation or elemwise_add) also holds
        its operands in plain layout as long as the executor lives.

    Raises
    ------
    LatseError
        If the graph cannot be bound for another reason, such as a wrong shape.
    """
    return _megabytes(_report(symbol, shapes, context))


def _report(symbol: mx.sym.Symbol, shapes: Shapes, context: mx.Context) -> str | None:
    """Return what the executor says of itself; None if the device cannot hold the graph."""
    requests = {name: "null" if name in shapes else "write" for name in symbol.list_arguments()}
    types = dict.fromkeys(shapes, "float32")
    try:
        executor = symbol.simple_bind(context, requests, types, **shapes)
        report = executor.debug_str()
        mx.nd.waitall()
    except (mx.MXNetError, RuntimeError) as error:
        if is_short_of_memory(error):
            return None
        raise LatseError(f"the graph cannot be bound on {context}: {sentence(error)}") from error
    return report


def _megabytes(report: str | None) -> float:
    if report is None:
        return math.inf
    return float(re.search(r"^Total (\d+) MB allocated$", report, re.MULTILINE).group(1))


def plan(
    symbol: mx.sym.Symbol,
    shapes: Shapes,
    context: mx.Context,
    budget: Budget = None,
    progress: bool = False,
) -> Plan:
    """Search the mirroring plan of `symbol` that suits a budget on `context`.

    The caller's Symbol is not altered. Never computed again are Dropout and all else that would not repeat
    itself, and the outputs. A BatchNorm that is computed again gets ``cudnn_off=True``: cuDNN would move its
    statistics with each forward pass, so twice, while MXNet's own kernels (CPU and CUDA) move them in the
    backward pass, which happens once.

    Parameters
    ----------
    symbol, shapes, context : mx.sym.Symbol, Shapes, mx.Context
        As in `planned_megabytes`. Executors bound here leave their arrays in the allocator's pool of this
        process: a training process should call this by `latse.child.in_child`.
    budget : Memory, Time or None, default None
        None: the least memory. The same graph and budget have the same plan at every run.
    progress : bool, default False
        Show progress bars on stderr.

    Returns
    -------
    Plan

    Raises
    ------
    LatseError
        If shapes are missing or wrong, if `symbol` cannot be bound, if no plan fits into the device, or none
        into the budget.
    """
    search = _Search(symbol, shapes, context, progress)
    if isinstance(budget, Memory):
        best = search.within_memory(budget.megabytes)
    else:
        ratio = math.inf if budget is None else budget.ratio
        best = search.least_memory(search.model.plain_seconds * (ratio - 1))
    return search.plan(best)


class _Search:
    """The search for one graph on one device, with the executor as the judge."""

    def __init__(self, symbol: mx.sym.Symbol, shapes: Shapes, context: mx.Context, progress: bool) -> None:
        self._symbol, self._shapes, self._context, self._progress = symbol, shapes, context, progress
        self._graph = PlanGraph(symbol, shapes)
        numbered = self._graph.renamed(PREFIX).symbol()
        report = _report(numbered, shapes, context)
        self._before = _megabytes(report)
        if report is None:  # what reads what does not depend on the size of the device
            report = _report(numbered, shapes, mx.cpu())
        if report is None:
            raise LatseError(f"no plan fits into the memory of {context}: use a smaller batch")
        self.model = Model(self._graph, report)
        self._bound = self.model.bound() / MEBIBYTE
        self._front = front(self.model, progress)
        self._judged = {Marks(): self._before}

    def least_memory(self, most_seconds: float) -> Candidate:
        """Return what needs the least memory, computing again for at most so many seconds."""
        within = [candidate for candidate in self._front if candidate.seconds <= most_seconds * (1 + 1e-9)]
        last = refined(self.model, within[-1], most_seconds, self._progress)
        few = [within[0], *within[1:][-_SHORT_LIST:], last]
        best = min(
            tqdm(few, "planning memory", leave=False, disable=not self._progress),
            key=lambda candidate: (self._megabytes(candidate), candidate.seconds),
        )
        if math.isinf(self._megabytes(best)):
            raise LatseError(f"no plan fits into the memory of {self._context}: use a smaller batch")
        return best

    def within_memory(self, megabytes: float) -> Candidate:
        """Return what computes again for the least seconds, in at most so many MiB."""
        for candidate in tqdm(self._front, "planning memory", leave=False, disable=not self._progress):
            if self._megabytes(candidate) <= megabytes:  # the executor's figures do not fall steadily
                return candidate
        least = self.least_memory(math.inf)
        if self._megabytes(least) > megabytes:
            raise LatseError(
                f"no plan fits into {megabytes:g} MiB on {self._context}: the least found is "
                f"{self._megabytes(least):.0f} MiB, and one operator alone needs {int(self._bound)} MiB"
            )
        return least

    def plan(self, candidate: Candidate) -> Plan:
        """Return the plan that keeps what the candidate keeps."""
        marks = self.model.marks(candidate.keep)
        return Plan(
            symbol=marks.on(self._symbol) if marks.recomputed else self._symbol,
            before_megabytes=self._before,
            after_megabytes=self._megabytes(candidate),
            stages=self._stages(marks),
            predicted_time=1 + candidate.seconds / self.model.plain_seconds,
            bound_megabytes=self._bound,
            graph=digest(self._graph),
            shapes=dict(self._shapes),
            marks=marks,
        )

    def _megabytes(self, candidate: Candidate) -> float:
        marks = self.model.marks(candidate.keep)
        if marks not in self._judged:
            planned = marks.on(self._symbol)
            self._judged[marks] = planned_megabytes(planned, self._shapes, self._context)
        return self._judged[marks]

    def _stages(self, marks: Marks) -> int:
        again = [i in marks.recomputed and i not in marks.kept for i in self.model.order]
        return 1 + sum(was and not goes_on for was, goes_on in zip(again, again[1:]))
