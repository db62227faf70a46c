"""The memory planner: marks which activations of a training Symbol are computed again instead of kept.

MXNet's symbolic executor drops the output of every node that carries ``__force_mirroring__`` and computes
it again during the backward pass. Marking everything saves nothing, because then the whole network is
computed again at once. So the network is cut into stages: what crosses a cut is kept, what lies between
two cuts is computed again from the kept values, one stage at a time (Chen et al. 2016, *Training Deep Nets
with Sublinear Memory Cost*).

No stage has to be marked by hand: a cut is laid where few bytes cross, which in a residual network is
behind an addition and in a decoder in front of an up-sampling. How long the stages should be is searched,
and each candidate is judged by what the executor itself says it would allocate on the device it will run on.
"""

from __future__ import annotations

import copy
import importlib
import json
import math
import re
import subprocess
import sys
from dataclasses import dataclass
from typing import Iterable, Mapping, Sequence

import mxnet as mx
import numpy as np
from tqdm import tqdm

from latse.errors import LatseError

Shapes = Mapping[str, Sequence[int]]
Types = Mapping[str, str]

_MARK = "__force_mirroring__"

# Lengths of a stage to try, as powers of two: first of the whole network, from 1/2 to 1/64, then of the best.
_COARSE = tuple(-k / 2 for k in range(2, 13))
_FINE = (3 / 8, 2 / 8, 1 / 8, -1 / 8, -2 / 8, -3 / 8)

# Operators that may be computed again: a second pass gives the same output and changes nothing else. What is
# not listed (Dropout, random numbers, Custom, loss layers, control flow) is always kept.
REPEATABLE = frozenset(
    """
    Activation BatchNorm Cast Concat Convolution Deconvolution Flatten FullyConnected L2Normalization
    LeakyReLU Pad Pooling Reshape SliceChannel UpSampling _copy abs add_n arccos arctan clip cos exp
    expand_dims log log_softmax max mean min negative reciprocal relu rsqrt sigmoid sin slice slice_axis
    softmax sqrt square squeeze sum tanh transpose where
    elemwise_add elemwise_sub elemwise_mul elemwise_div _maximum _minimum _power
    broadcast_add broadcast_sub broadcast_mul broadcast_div broadcast_maximum broadcast_minimum
    broadcast_power broadcast_axis broadcast_to broadcast_greater broadcast_lesser
    _plus_scalar _minus_scalar _rminus_scalar _mul_scalar _div_scalar _rdiv_scalar _power_scalar
    _rpower_scalar _maximum_scalar _minimum_scalar _greater_scalar _lesser_scalar
    """.split()  # noqa: SIM905 - as a list it would take one line each
)

# Those of them whose own gradient reads what they put out; of BatchNorm the mean and variance of the batch.
READS_OWN_OUTPUT = frozenset(
    """
    Activation BatchNorm L2Normalization LeakyReLU Pooling exp log_softmax max min relu sigmoid softmax sqrt
    tanh _rpower_scalar
    """.split()  # noqa: SIM905
)

# Operators through which no gradient flows: what only they read is not kept for the backward pass.
_NO_GRADIENT = frozenset(
    {"BlockGrad", "zeros_like", "ones_like", "argmax", "one_hot", "sign", "floor", "ceil"}
)


@dataclass(frozen=True)
class Plan:
    """A Symbol with its mirroring marks, and what the executor says about it.

    Attributes
    ----------
    symbol : mx.sym.Symbol
        The planned Symbol, or the caller's own one where no plan needs less memory.
    before_megabytes, after_megabytes : float
        Planned memory in MiB without and with the plan, equal if nothing was gained. Infinite before if the
        unplanned graph does not fit into the device.
    stages : int
        Number of stages that the graph is cut into; 1 means that nothing is computed again.
    stage_bytes : int
        The chosen length of a stage, in bytes of activations; 0 if nothing is computed again.
    """

    symbol: mx.sym.Symbol
    before_megabytes: float
    after_megabytes: float
    stages: int
    stage_bytes: int


def planned_megabytes(
    symbol: mx.sym.Symbol,
    shapes: Shapes,
    context: mx.Context,
    *,
    types: Types | None = None,
    fixed: Iterable[str] = (),
) -> float:
    """Bind `symbol` for training and return the memory that its executor plans for activations, in MiB.

    Parameters
    ----------
    symbol : mx.sym.Symbol
        A training graph with one or many outputs.
    shapes : mapping of str to tuple of int
        The shape of every input (data, labels, masks) on one device. These get no gradient; all other
        arguments do.
    context : mx.Context
        The device. The executor is really bound there and freed again.
    types : mapping of str to str, optional
        Data types of inputs or parameters that are not float32, such as ``{"data": "float16"}``.
    fixed : iterable of str, default ()
        Parameters that are not trained (a teacher's): they get no gradient.

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
    untrained = {*shapes, *fixed}
    requests = {name: "null" if name in untrained else "write" for name in symbol.list_arguments()}
    try:
        executor = symbol.simple_bind(context, requests, _all_types(shapes, types), **_tuples(shapes))
        report = executor.debug_str()
        mx.nd.waitall()
    except (mx.MXNetError, RuntimeError) as error:
        if re.search("out of memory|failed to allocate", str(error), re.IGNORECASE):
            return math.inf
        raise LatseError(f"the graph cannot be bound on {context}: {_sentence(error)}") from error
    return float(re.search(r"^Total (\d+) MB allocated$", report, re.MULTILINE).group(1))


def plan(
    symbol: mx.sym.Symbol,
    shapes: Shapes,
    context: mx.Context,
    *,
    types: Types | None = None,
    fixed: Iterable[str] = (),
    progress: bool = False,
) -> Plan:
    """Search the mirroring plan of `symbol` that needs the least memory on `context`.

    The caller's Symbol is not altered. Never computed again are Dropout and all else that would not repeat
    itself, the outputs, and what crosses from one stage to the next. A BatchNorm that is computed again gets
    ``cudnn_off=True``: cuDNN would move its statistics with each forward pass, so twice, while MXNet's own
    kernels (CPU and CUDA) move them in the backward pass, which happens once.

    Parameters
    ----------
    symbol, shapes, context, types, fixed
        As in `planned_megabytes`. Executors bound here leave their arrays in the allocator's pool of this
        process: a training process should call `plan_in_subprocess`.
    progress : bool, default False
        Show a progress bar on stderr.

    Returns
    -------
    Plan

    Raises
    ------
    LatseError
        If shapes are missing or wrong, if `symbol` cannot be bound, or if no plan fits into the device.

    Notes
    -----
    As in section 4.3 of Chen et al., the length of a stage is searched on a geometric grid, and then more
    finely around its best point.
    """
    graph = _Graph(symbol, shapes, types=types, fixed=fixed)
    before = planned_megabytes(symbol, shapes, context, types=types, fixed=fixed)
    best, tried = Plan(symbol, before, before, 1, 0), {frozenset()}
    for exponents in (_COARSE, _FINE):
        origin = best.stage_bytes or graph.total
        for exponent in tqdm(exponents, "planning memory", leave=False, disable=not progress):
            budget = int(origin * 2**exponent)
            marked, stages = graph.cut(budget)
            if marked in tried:
                continue
            tried.add(marked)
            candidate = graph.mirrored(marked)
            after = planned_megabytes(candidate, shapes, context, types=types, fixed=fixed)
            if after < best.after_megabytes:
                best = Plan(candidate, before, after, stages, budget)
    if math.isinf(best.after_megabytes):
        raise LatseError(f"no plan fits into the memory of {context}: use a smaller batch")
    return best


def plan_in_subprocess(
    symbol_json: str,
    shapes: Shapes,
    context: mx.Context,
    *,
    types: Types | None = None,
    fixed: Iterable[str] = (),
    progress: bool = False,
) -> Plan:
    """Do the work of `plan` in a child process, so that none of its memory stays in this process's pool.

    Parameters
    ----------
    symbol_json : str
        The Symbol as ``Symbol.tojson()`` gives it.
    shapes, context, types, fixed, progress
        As in `plan`.

    Returns
    -------
    Plan

    Raises
    ------
    LatseError
        As `plan` does, or if the child process is killed, which a machine short of memory does.
    """
    job = {
        "symbol": symbol_json,
        "shapes": _tuples(shapes),
        "context": [context.device_type, context.device_id],
        "types": dict(types or {}),
        "fixed": list(fixed),
        "progress": progress,
    }
    child = subprocess.run(
        [sys.executable, "-m", "latse.memonger"],
        input=json.dumps(job),
        stdout=subprocess.PIPE,
        encoding="utf-8",
        check=False,
    )
    if child.returncode != 0:
        raise LatseError(f"the search for a memory plan on {context} ended with status {child.returncode}")
    answer = json.loads(child.stdout.splitlines()[-1])
    if "error" in answer:
        raise LatseError(answer["error"])
    return Plan(symbol=mx.sym.load_json(answer.pop("symbol")), **answer)


class _Graph:
    """The nodes of a Symbol in the order of their execution, with what a plan must know of each.

    ``sizes[i]`` is the number of bytes of node i's output if the backward pass may compute it again, else 0;
    ``crossing[i]`` are those of the nodes with a size up to i that are read behind i.
    """

    def __init__(self, symbol: mx.sym.Symbol, shapes: Shapes, *, types: Types | None, fixed: Iterable[str]):
        self._content = json.loads(symbol.tojson())
        self._nodes = nodes = self._content["nodes"]
        heads = {head[0] for head in self._content["heads"]}
        on_path = _on_gradient_path(nodes, heads, {*shapes, *fixed, *symbol.list_auxiliary_states()})
        self.sizes = [
            size if on_path[i] and i not in heads and _is_repeatable(node) else 0
            for i, (node, size) in enumerate(zip(nodes, _output_bytes(symbol, nodes, shapes, types)))
        ]
        self.total = sum(self.sizes)
        self._readers = _readers(nodes, on_path)
        self.crossing = _crossing(self._readers, self.sizes)

    def cut(self, budget: int) -> tuple[frozenset[int], int]:
        """Cut the graph into stages of about `budget` bytes; return the nodes to mark and how many stages.

        The last stage is not marked: the backward pass begins with it, while its values are still there.
        """
        kept: set[int] = set()
        start, stages = 0, 1
        while (end := self._stage_end(start, budget, kept)) is not None:
            kept |= self.crossing[end]
            start, stages = end + 1, stages + 1
        marked = frozenset(i for i in range(start) if self.sizes[i] and i not in kept)
        return self._read_again(marked), stages

    def _stage_end(self, start: int, budget: int, kept: set[int]) -> int | None:
        """Return where in the second half of a stage the fewest further bytes are kept; None in the last."""
        held, best, fewest = 0, None, math.inf
        for i in range(start, len(self.sizes)):
            held += self.sizes[i]
            if held > budget and best is not None:
                return best
            further = sum(self.sizes[j] for j in self.crossing[i] - kept)
            if 2 * held >= budget and further <= fewest:
                best, fewest = i, further
        return None

    def _read_again(self, marked: frozenset[int]) -> frozenset[int]:
        """Return those of the nodes `marked` whose second output is read, by a node that is also marked.

        The gradient of an unmarked node reads first outputs only. A second output that nobody reads would be
        computed in vain, and Convolution and others refuse to run for nothing.
        """
        again: set[int] = set()
        for i in sorted(marked, reverse=True):
            if self._nodes[i]["op"] in READS_OWN_OUTPUT or not again.isdisjoint(self._readers[i]):
                again.add(i)
        return frozenset(again)

    def mirrored(self, marked: frozenset[int]) -> mx.sym.Symbol:
        """Return a new Symbol in which exactly the nodes `marked` are computed again."""
        content = copy.deepcopy(self._content)
        for i, node in enumerate(content["nodes"]):
            attributes = node.setdefault("attrs", {})
            attributes.pop(_MARK, None)
            if i in marked:
                attributes[_MARK] = "True"
                if node["op"] == "BatchNorm":
                    attributes["cudnn_off"] = "True"
        return mx.sym.load_json(json.dumps(content))


def _on_gradient_path(nodes: list[dict], heads: set[int], untrained: set[str]) -> list[bool]:
    """Tell which nodes a gradient flows through on its way from an output to a trained parameter."""
    trained: list[bool] = []
    for node in nodes:
        is_parameter = node["op"] == "null" and node["name"] not in untrained
        passes_on = node["op"] not in _NO_GRADIENT and any(trained[j] for j, *_ in node["inputs"])
        trained.append(is_parameter or passes_on)
    reached = set(heads)
    for i in reversed(range(len(nodes))):
        if i in reached and trained[i]:
            reached.update(j for j, *_ in nodes[i]["inputs"])
    return [trained[i] and i in reached for i in range(len(nodes))]


def _is_repeatable(node: dict) -> bool:
    """Tell whether a second forward pass gives the same output and changes nothing else."""
    has_random_slopes = node.get("attrs", {}).get("act_type") == "rrelu"
    return node["op"] in REPEATABLE and not has_random_slopes


def _readers(nodes: list[dict], on_path: list[bool]) -> list[list[int]]:
    """Return for each node the nodes on the gradient's path that read it, in the order of execution."""
    readers: list[list[int]] = [[] for _ in nodes]
    for i, node in enumerate(nodes):
        for j, *_ in node["inputs"] if on_path[i] else ():
            readers[j].append(i)
    return readers


def _crossing(readers: list[list[int]], sizes: list[int]) -> list[frozenset[int]]:
    """Return for each node those with a size up to it that are read behind it."""
    crossing, alive = [], frozenset()
    for i, size in enumerate(sizes):
        alive = frozenset(j for j in (alive | {i} if size else alive) if readers[j] and readers[j][-1] > i)
        crossing.append(alive)
    return crossing


def _output_bytes(symbol: mx.sym.Symbol, nodes: list[dict], shapes: Shapes, types: Types | None) -> list[int]:
    """Return the bytes of each node's visible outputs."""
    internals = symbol.get_internals()
    try:
        _, outputs, _ = internals.infer_shape(**_tuples(shapes))
        _, kinds, _ = internals.infer_type(**_all_types(shapes, types))
    except mx.MXNetError as error:
        raise LatseError(f"the shapes of the graph cannot be inferred: {_sentence(error)}") from error
    if outputs is None or kinds is None:
        given = ", ".join(shapes) or "nothing"
        raise LatseError(f"the shapes of the graph cannot be inferred: only that of {given} was given")
    sizes = [0] * len(nodes)
    at = 0
    for entry, shape, kind in zip(internals, outputs, kinds):
        while nodes[at]["name"] != entry.name:  # a node with several outputs has several entries in a row
            at += 1
        sizes[at] += int(np.prod(shape, dtype=np.int64)) * np.dtype(kind).itemsize
    return sizes


def _all_types(shapes: Shapes, types: Types | None) -> dict[str, str]:
    return {**dict.fromkeys(shapes, "float32"), **(types or {})}


def _tuples(shapes: Shapes) -> dict[str, tuple[int, ...]]:
    return {name: tuple(shape) for name, shape in shapes.items()}


def _sentence(error: Exception) -> str:
    """Return the one line of an MXNet error that says what is wrong."""
    found = re.search(r"MXNetError: (.*)", str(error))
    return found.group(1) if found else str(error).strip().splitlines()[-1]


def _answer(job: dict) -> dict:
    """Carry out the job that `plan_in_subprocess` hands over."""
    importlib.import_module("latse.symbols.margins")  # registers the operator that training graphs hold
    try:
        symbol, context = mx.sym.load_json(job.pop("symbol")), mx.Context(*job.pop("context"))
        found = plan(symbol, context=context, **job)
    except LatseError as error:
        return {"error": str(error)}
    return {**vars(found), "symbol": found.symbol.tojson()}


if __name__ == "__main__":
    print(json.dumps(_answer(json.load(sys.stdin))))
