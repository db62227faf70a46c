"""The graph that a memory plan is made for, and the graph that a plan makes of it."""

from __future__ import annotations

import json
import re
from typing import Iterable, Mapping, Sequence

import mxnet as mx
import numpy as np

from latse.errors import LatseError

Shapes = Mapping[str, Sequence[int]]
Types = Mapping[str, str]

MARK = "__force_mirroring__"
# What a plan sets on a node; all else of a node is the network's.
PLAN_ATTRIBUTES = frozenset({MARK, "cudnn_off"})

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

# Operators through which no gradient flows: what only they read is not kept for the backward pass.
_NO_GRADIENT = frozenset(
    {"BlockGrad", "zeros_like", "ones_like", "argmax", "one_hot", "sign", "floor", "ceil"}
)


class Graph:
    """The nodes of a Symbol in the order of their execution, with what a plan must know of each.

    Parameters
    ----------
    symbol : mx.sym.Symbol
        A training graph.
    shapes : mapping of str to tuple of int
        The shape of every input.
    types : mapping of str to str, optional
        Data types that are not float32.
    fixed : iterable of str
        Parameters that are not trained.

    Attributes
    ----------
    nodes : list of dict
        As in `Symbol.tojson()`.
    inputs : list of list of (int, int)
        The (node, output) pairs that each node reads, variables among them.
    shapes : list of list of tuple
        The shape of each node's visible outputs.
    sizes : list of list of int
        Their bytes.
    trained : list of bool
        Whether the gradient flows through a node on its way from an output to a trained parameter.
    repeatable : list of bool
        Whether a second pass through the node gives the same and changes nothing else.
    heads : set of int
        The nodes of the outputs.

    Raises
    ------
    LatseError
        If the shapes cannot be inferred.
    """

    def __init__(
        self, symbol: mx.sym.Symbol, shapes: Shapes, types: Types | None = None, fixed: Iterable[str] = ()
    ) -> None:
        self.symbol = symbol
        content = json.loads(symbol.tojson())
        self.nodes = content["nodes"]
        self.inputs = [[(entry[0], entry[1]) for entry in node["inputs"]] for node in self.nodes]
        self.heads = {head[0] for head in content["heads"]}
        self.shapes, self.sizes = _outputs(symbol, self.nodes, shapes, types)
        untrained = {*shapes, *fixed, *symbol.list_auxiliary_states()}
        self.trained = _on_gradient_path(self.nodes, self.heads, untrained)
        self.repeatable = [_is_repeatable(node) for node in self.nodes]

    def is_variable(self, i: int) -> bool:
        """Tell whether node i is an input, a parameter or a state."""
        return self.nodes[i]["op"] == "null"


def rewritten(
    symbol: mx.sym.Symbol, recomputed: Iterable[int], kept: Iterable[int] = (), read: Iterable[int] = ()
) -> mx.sym.Symbol:
    """Return a new Symbol in which exactly the nodes `recomputed` are computed again.

    MXNet's executor computes a node that carries ``__force_mirroring__`` a second time for the backward pass,
    from what is computed again of its inputs or, where they are not, from what was kept.

    Parameters
    ----------
    symbol : mx.sym.Symbol
        The graph as it is traced; it is not altered.
    recomputed : iterable of int
        Numbers of nodes in the order of `symbol.tojson()`. A BatchNorm among them gets ``cudnn_off=True``.
    kept : iterable of int
        Those of them whose first output is kept all the same: the others read it through a node `_copy`,
        which works in place. Their second pass is for what their own gradient reads.
    read : iterable of int
        Those of them whose second output nobody would read: another `_copy` does, as Convolution refuses
        to run for nothing in MXNet's own kernels.
    """
    recomputed, kept, read = set(recomputed), set(kept), set(read)
    content = json.loads(symbol.tojson())
    nodes: list[dict] = []
    place: dict[tuple[int, int], list[int]] = {}  # where an output of the old graph is found in the new one

    def copy(i: int, attributes: dict[str, str]) -> None:
        name = f"{content['nodes'][i]['name']}_{'again' if attributes else 'kept'}"
        nodes.append({"op": "_copy", "name": name, "attrs": attributes, "inputs": [[*place[i, 0], 0]]})
        place[i, 0] = [len(nodes) - 1, 0]

    def moved(entry: list[int]) -> list[int]:
        j, output = entry[:2]
        return [*place.get((j, output), [place[j, -1][0], output]), *entry[2:]]

    for i, node in enumerate(content["nodes"]):
        attributes = {key: value for key, value in node.get("attrs", {}).items() if key != MARK}
        if i in recomputed:
            attributes[MARK] = "True"
            if node["op"] == "BatchNorm":
                attributes["cudnn_off"] = "True"
        nodes.append({**node, "attrs": attributes, "inputs": [moved(entry) for entry in node["inputs"]]})
        place[i, -1] = place[i, 0] = [len(nodes) - 1, 0]
        if i in read:
            copy(i, {MARK: "True"})
        if i in kept:
            copy(i, {})
    content["heads"] = [moved(entry) for entry in content["heads"]]
    content["nodes"] = nodes
    content["arg_nodes"] = [i for i, node in enumerate(nodes) if node["op"] == "null"]
    content.pop("node_row_ptr", None)
    return mx.sym.load_json(json.dumps(content))


def renamed(symbol: mx.sym.Symbol, prefix: str) -> mx.sym.Symbol:
    """Return the Symbol with its operators named `prefix` and their number: names need not be unique."""
    content = json.loads(symbol.tojson())
    for i, node in enumerate(content["nodes"]):
        if node["op"] != "null":
            node["name"] = f"{prefix}{i}"
    return mx.sym.load_json(json.dumps(content))


def all_types(shapes: Shapes, types: Types | None) -> dict[str, str]:
    """Return the type of every input, float32 where nothing is said."""
    return {**dict.fromkeys(shapes, "float32"), **(types or {})}


def as_tuples(shapes: Shapes) -> dict[str, tuple[int, ...]]:
    """Return the shapes as MXNet takes them."""
    return {name: tuple(shape) for name, shape in shapes.items()}


def sentence(error: Exception) -> str:
    """Return the one line of an MXNet error that says what is wrong."""
    found = re.search(r"MXNetError: (.*)", str(error))
    return found.group(1) if found else str(error).strip().splitlines()[-1]


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


def _outputs(
    symbol: mx.sym.Symbol, nodes: list[dict], shapes: Shapes, types: Types | None
) -> tuple[list[list[tuple[int, ...]]], list[list[int]]]:
    """Return the shapes and the bytes of each node's visible outputs."""
    internals = symbol.get_internals()
    try:
        _, outputs, _ = internals.infer_shape(**as_tuples(shapes))
        _, kinds, _ = internals.infer_type(**all_types(shapes, types))
    except mx.MXNetError as error:
        raise LatseError(f"the shapes of the graph cannot be inferred: {sentence(error)}") from error
    if outputs is None or kinds is None:
        given = ", ".join(shapes) or "nothing"
        raise LatseError(f"the shapes of the graph cannot be inferred: only that of {given} was given")
    found: list[list[tuple[int, ...]]] = [[] for _ in nodes]
    sizes: list[list[int]] = [[] for _ in nodes]
    names = [node["name"] if node["op"] == "null" else f"operator_{i}" for i, node in enumerate(nodes)]
    at = 0
    for entry, shape, kind in zip(renamed(symbol, "operator_").get_internals(), outputs, kinds):
        while names[at] != entry.name:  # a node with several outputs has several entries in a row
            at += 1
        found[at].append(tuple(shape))
        sizes[at].append(int(np.prod(shape, dtype=np.int64)) * np.dtype(kind).itemsize)
    return found, sizes
