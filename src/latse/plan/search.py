"""The search for a memory plan: which outputs to keep, so that little is computed again in little memory.

The graph is cut where few arrays cross. What lies between two cuts, a stage, is computed again from what
crosses the first; or only what is cheap in it is; or nothing. The best chain of stages is found by dynamic
programming (Chen et al. 2016, *Training Deep Nets with Sublinear Memory Cost*, fix the stages by hand and
compute all of a stage again): at each cut, for every amount of memory held there and every amount needed so
far, the chain that takes the least time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Iterator, NamedTuple, Sequence

import numpy as np
from tqdm import tqdm

from latse.plan.model import Candidate, Model, Stage

_NEAR = 6  # cuts that a stage may pass without regard to how many arrays cross
_FAR = 12  # cuts crossed by a single array that a stage may pass
_GRAIN = 0.03  # amounts of memory that are told apart differ by so much of themselves
_TRIALS, _TRIALS_EACH = 1000, 4  # of a refinement, and for each output that is large
_APART = 14  # outputs between two that a refinement exchanges


@dataclass(frozen=True)
class _Option:
    """One way to treat the nodes between two cuts."""

    begin: int  # number of the cut in front
    keep: frozenset
    held: np.ndarray  # places that its arrays take from the forward pass on
    places: np.ndarray  # that its backward pass takes
    seconds: float


def front(model: Model, progress: bool = False) -> list[Candidate]:
    """Return plans from the least time to the least memory, none worse in both than another.

    Parameters
    ----------
    model : Model
        Of the graph.
    progress : bool, default False
        Show a progress bar on stderr.
    """
    cuts, stages = _cuts(model), _Stages(model)
    numbers = tqdm(range(1, len(cuts)), "cutting the graph", leave=False, disable=not progress)
    options = [[], *(_options(model, stages, cuts, number) for number in numbers)]
    plain = model.estimate(frozenset(model.order))
    candidates = [
        model.estimate(frozenset().union(*(option.keep for option in chain)))
        for chain in chains_of_least_time(options, model.steps, plain.allocated)
    ]
    return pareto([plain, *candidates])


def refined(model: Model, start: Candidate, most_seconds: float, progress: bool = False) -> Candidate:
    """Return a plan in less memory than another by keeping one output more, one less, or one for another.

    Parameters
    ----------
    model : Model
        Of the graph.
    start : Candidate
        Where the search begins.
    most_seconds : float
        Of computing again.
    progress : bool, default False
        Show a progress bar on stderr.

    Returns
    -------
    Candidate
        What the search comes to after a fixed number of trials. It descends not by the memory, of which
        several moments at once are often the worst, but by a mean over all moments near to it.
    """
    large = [i for i in model.order if i not in model.always and bool(model.count([i])[-1])]
    best = replace(model.estimate(start.keep), keep=start.keep & frozenset(large))
    most = min(_TRIALS, _TRIALS_EACH * len(large))
    trials = tqdm(total=most, desc="refining the plan", leave=False, disable=not progress)
    improved = True
    while improved and trials.n < most:
        improved = False
        for move in _moves(large):
            if trials.n >= most or len(move) == 2 and len(move & best.keep) != 1:
                continue
            candidate = model.estimate(best.keep ^ move)
            trials.update()
            if candidate.mean < best.mean * (1 - 1e-6) and candidate.seconds <= most_seconds:
                best, improved = candidate, True
    trials.close()
    return min(start, best, key=lambda candidate: candidate.allocated)


def _moves(nodes: Sequence[int]) -> Iterator[frozenset]:
    """Return what to exchange between those kept and the others: one node, or two near to each other."""
    yield from (frozenset({i}) for i in nodes)
    for at, i in enumerate(nodes):
        yield from (frozenset({i, j}) for j in nodes[at + 1 : at + _APART])


def pareto(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return those that no other beats in both figures, by rising time."""
    best: list[Candidate] = []
    for candidate in sorted(candidates, key=lambda c: (c.seconds, c.allocated, sorted(c.keep))):
        if not best or candidate.allocated < best[-1].allocated:
            best.append(candidate)
    return best


def chains_of_least_time(
    options: Sequence[Sequence[_Option]], steps: np.ndarray, largest: float
) -> list[list[_Option]]:
    """Return chains of options from the first cut to the last.

    Parameters
    ----------
    options : sequence
        For each cut the options that end there.
    steps : array
        The bytes by which each size of place is larger than the next.
    largest : float
        Bytes, more than zero; chains that need more are left out where others do with less.

    Returns
    -------
    list of list
        For every amount of memory that the whole needs, the chain of the least time, as far as amounts are
        told apart.
    """
    none = np.zeros((1, len(steps)))
    labels = [_Labels(none, none, np.zeros(1), np.zeros(1, int), np.zeros(1, int))]
    for ending in options[1:]:
        labels.append(_best([_extended(labels[o.begin], o, n) for n, o in enumerate(ending)], steps, largest))
    needed, best, rows = labels[-1].needed @ steps, np.inf, []
    for row in np.lexsort((needed, labels[-1].seconds)):
        if needed[row] < best:
            best = needed[row]
            rows.append(row)
    return [_chain(options, labels, row) for row in rows]


class _Labels(NamedTuple):
    """Chains up to a cut: what they hold there, what they have needed, their time, and how they came."""

    held: np.ndarray
    needed: np.ndarray
    seconds: np.ndarray
    option: np.ndarray
    parent: np.ndarray

    def take(self, rows: np.ndarray) -> _Labels:
        return _Labels(*(array[rows] for array in self))


def _extended(before: _Labels, option: _Option, number: int) -> _Labels:
    """Return the chains that go on with an option."""
    count = len(before.seconds)
    return _Labels(
        before.held + option.held,
        np.maximum(before.needed, before.held + option.places),
        before.seconds + option.seconds,
        np.full(count, number),
        np.arange(count),
    )


def _best(parts: list[_Labels], steps: np.ndarray, largest: float) -> _Labels:
    """Return for each amount held and each amount needed the chain of the least time."""
    whole = _Labels(*map(np.concatenate, zip(*parts)))
    all_needed = whole.needed @ steps
    whole = whole.take(np.flatnonzero(all_needed <= max(largest, all_needed.min())))
    held, needed = (
        np.ceil(np.log(figure @ steps / largest + _GRAIN) / _GRAIN).astype(int)
        for figure in (whole.held, whole.needed)
    )
    held, needed = held - held.min(), needed - needed.min()
    order = np.lexsort((whole.held @ steps, whole.needed @ steps, whole.seconds, held, needed))
    cells = np.stack([held, needed])[:, order]
    is_first = np.append(True, (np.diff(cells) != 0).any(0))
    rows, cells = order[is_first], tuple(cells[:, is_first])
    least = np.full((held.max() + 2, needed.max() + 2), np.inf)
    least[cells[0] + 1, cells[1] + 1] = whole.seconds[rows]
    least = np.minimum.accumulate(np.minimum.accumulate(least, 0), 1)
    beaten = np.minimum(least[cells[0], cells[1] + 1], least[cells[0] + 1, cells[1]])
    return whole.take(rows[whole.seconds[rows] < beaten])


def _chain(options: Sequence[Sequence[_Option]], labels: list[_Labels], row: int) -> list[_Option]:
    chain, cut = [], len(labels) - 1
    while cut:
        option = options[cut][labels[cut].option[row]]
        chain.append(option)
        row, cut = int(labels[cut].parent[row]), option.begin
    return chain


class _Stages:
    """What stages take; those of like nodes, as a network has many, are played through once."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._place = {i: at for at, i in enumerate(model.order)}
        kinds: dict[tuple, int] = {}
        self._kinds = {i: kinds.setdefault(self._kind(i), len(kinds)) for i in model.order}
        self._known: dict[tuple, tuple[int, Stage]] = {}

    def of(self, keep: frozenset, nodes: Sequence[int]) -> Stage:
        """Return `model.stage(keep, nodes)`; `nodes` follow each other in the order of execution."""
        key = tuple(self._kinds[i] for i in nodes), tuple(i in keep for i in nodes)
        start = self._place[nodes[0]]
        if key not in self._known:
            self._known[key] = start, self._model.stage(keep, nodes)
        origin, stage = self._known[key]
        kept = frozenset(self._model.order[self._place[i] + start - origin] for i in stage.kept)
        return replace(stage, kept=kept)

    def _kind(self, i: int) -> tuple:
        """Return all that a stage may depend on of a node, other nodes by their distance."""
        model, graph = self._model, self._model.graph
        inputs, reads = (
            tuple(sorted((self._place[i] - self._place[j], k) for j, k in entries if j in self._place))
            for entries in (graph.nodes[i].inputs, model.reads[i])
        )
        readers = tuple(sorted(self._place[j] - self._place[i] for j in model.readers[i]))
        sources = tuple((model.size(entry), graph.trained[entry[0]]) for entry in graph.nodes[i].inputs)
        own = (
            graph.nodes[i].op,
            tuple(graph.sizes[i]),
            sources,
            model.seconds[i],
            graph.trained[i],
            model.follows[i],
        )
        return (*own, i in model.always, i in graph.outputs, inputs, reads, readers)


class _Cut(NamedTuple):
    """A place in the order of execution: how many nodes lie before it, and which outputs cross it."""

    position: int
    crossing: frozenset
    is_narrow: bool


def _cuts(model: Model) -> list[_Cut]:
    """Return where at most two arrays cross, of which one is easily kept or dear, with both ends."""
    order = model.order
    place = {i: at for at, i in enumerate(order)}
    last = {i: max((place[j] for j in model.readers[i]), default=-1) for i in order}
    cuts, crossing = [_Cut(0, frozenset(), True)], frozenset()
    for at, i in enumerate(order[:-1]):
        crossing = frozenset(j for j in crossing | {i} if last[j] > at and j not in model.always)
        count = sum(bool(model.count([j])[-1]) for j in crossing)
        is_easy = i in crossing and (not model.follows[i] or model.is_dear(i))
        if count == 1 or count == 2 and is_easy:
            cuts.append(_Cut(at + 1, crossing, count == 1))
    return [*cuts, _Cut(len(order), frozenset(), True)]


def _options(model: Model, stages: _Stages, cuts: list[_Cut], number: int) -> list[_Option]:
    """Return all ways to treat the nodes in front of a cut, back to an earlier cut."""
    end, options, narrow = cuts[number], [], 0
    for begin in range(number - 1, -1, -1):
        is_near = number - begin <= _NEAR
        if not is_near and not (end.is_narrow and cuts[begin].is_narrow):
            continue
        narrow += cuts[begin].is_narrow
        if not is_near and narrow > _FAR:
            break
        nodes = model.order[cuts[begin].position : end.position]
        inside = [frozenset()]
        if is_near:
            dear = frozenset(filter(model.is_dear, nodes))
            with_reads = dear.union(j for i in dear for j, _ in model.reads[i])  # need not be computed again
            inside += [dear, with_reads.intersection(nodes), frozenset(nodes)]
        ways: list[_Option] = []
        for keep in dict.fromkeys(inside):
            stage = stages.of(keep | end.crossing, nodes)
            kept = (stage.kept | end.crossing) & frozenset(nodes)
            way = _Option(begin, kept, model.count(kept), stage.places, stage.seconds)
            if not any(_is_no_worse(other, way) for other in ways):
                ways = [*(other for other in ways if not _is_no_worse(way, other)), way]
        options += ways
    return options


def _is_no_worse(option: _Option, other: _Option) -> bool:
    no_more = (option.held <= other.held).all() and (option.places <= other.places).all()
    return bool(no_more) and option.seconds <= other.seconds
