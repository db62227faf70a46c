"""A Symbol taken apart into its nodes, and put together again."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Any, Collection, Dict, Mapping, NamedTuple, Sequence, Tuple

import mxnet as mx
import numpy as np

from latse.errors import LatseError

Entry = Tuple[int, int]  # a node's number and which of its outputs
Shapes = Mapping[str, Tuple[int, ...]]
Arrays = Dict[str, mx.nd.NDArray]

VARIABLE = "null"
_NUMBERED = "numbered_node_"


class Array(NamedTuple):
    """What is known of an output without computing it."""

    shape: tuple[int, ...]
    bytes: int


@dataclass
class Node:
    """One node of a graph."""

    op: str  # the operator; VARIABLE for an input, a parameter or a state
    name: str
    attrs: dict[str, str] = field(default_factory=dict)  # its settings
    inputs: list[Entry] = field(default_factory=list)  # the outputs that it reads
    more: dict[str, Any] = field(default_factory=dict)  # what else MXNet says of it, such as subgraphs

    @property
    def is_variable(self) -> bool:
        """Whether it is an input, a parameter or a state."""
        return self.op == VARIABLE

    def is_true(self, key: str, default: bool = False) -> bool:
        """Tell whether a flag is set."""
        return self.attrs.get(key, str(default)) in ("True", "true", "1")

    def numbers(self, key: str, default: tuple[int, ...]) -> tuple[int, ...]:
        """Return a tuple of whole numbers such as `kernel`; an empty one counts as absent."""
        text = self.attrs.get(key, "").strip("()[] ").rstrip(",")
        return tuple(int(number) for number in text.split(",")) if text else default


@dataclass
class Graph:
    """Nodes, each behind those that it reads, and outputs; what MXNet says of the whole are its settings."""

    nodes: list[Node] = field(default_factory=list)  # a node is known by its number, its place here
    heads: list[Entry] = field(default_factory=list)  # the outputs
    settings: dict[str, Any] = field(default_factory=lambda: {"mxnet_version": ["int", 10901]})

    @classmethod
    def read(cls, symbol: mx.sym.Symbol) -> Graph:
        """Take a Symbol apart."""
        content = json.loads(symbol.tojson())
        nodes = [
            Node(
                node.pop("op"),
                node.pop("name"),
                node.pop("attrs", {}),
                _entries(node.pop("inputs")),
                node,
            )
            for node in content["nodes"]
        ]
        return cls(nodes, _entries(content["heads"]), content["attrs"])

    def symbol(self) -> mx.sym.Symbol:
        """Return the graph as a Symbol, from which MXNet leaves out what no output needs."""
        nodes = [
            {
                "op": node.op,
                "name": node.name,
                "attrs": node.attrs,
                "inputs": [[*entry, 0] for entry in node.inputs],
                **node.more,
            }
            for node in self.nodes
        ]
        content = {
            "nodes": nodes,
            "arg_nodes": [i for i, node in enumerate(self.nodes) if node.is_variable],
            "heads": [[*entry, 0] for entry in self.heads],
            "attrs": self.settings,
        }
        return mx.sym.load_json(json.dumps(content, ensure_ascii=False))  # MXNet knows no \u

    def add(self, op: str, name: str, inputs: Sequence[Entry] = (), /, **attrs: object) -> Entry:
        """Append a node and return its first output."""
        return self.append(Node(op, name, {key: str(value) for key, value in attrs.items()}, list(inputs)))

    def append(self, node: Node) -> Entry:
        """Append a node and return its first output."""
        self.nodes.append(node)
        return len(self.nodes) - 1, 0

    def uses(self) -> list[int]:
        """Return how often each node is an input or an output."""
        counts = [0] * len(self.nodes)
        for i, _ in [entry for node in self.nodes for entry in node.inputs] + self.heads:
            counts[i] += 1
        return counts

    def renamed(self, prefix: str) -> Graph:
        """Return the graph with its operators called `prefix` and their number: names need not be unique."""
        nodes = [
            node if node.is_variable else Node(node.op, f"{prefix}{i}", node.attrs, node.inputs, node.more)
            for i, node in enumerate(self.nodes)
        ]
        return Graph(nodes, self.heads, self.settings)

    def digest(self, without: Collection[str] = ()) -> str:
        """Return 32 hexadecimal digits that stand for the structure of the graph.

        Operators, their settings and connexions, the names of variables and the outputs count. Names of other
        nodes do not, which depend on how often a network was traced, nor settings called as in `without`.
        """
        nodes = [
            [
                node.op,
                node.name if node.is_variable else None,
                sorted(item for item in node.attrs.items() if item[0] not in without),
                node.inputs,
            ]
            for node in self.nodes
        ]
        text = json.dumps([nodes, self.heads], separators=(",", ":"))
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def arrays(self, shapes: Shapes) -> list[list[Array]]:
        """Infer the visible outputs of each node.

        Parameters
        ----------
        shapes : mapping of str to tuple of int
            The shape of every input; inputs are float32.

        Raises
        ------
        LatseError
            If an input's shape is missing or wrong.
        """
        internals = self.symbol().get_internals()
        try:
            _, outputs, _ = internals.infer_shape(**shapes)
            _, kinds, _ = internals.infer_type(**dict.fromkeys(shapes, "float32"))
        except mx.MXNetError as error:
            raise LatseError(f"the shapes of the graph cannot be inferred: {sentence(error)}") from error
        if outputs is None or kinds is None:
            known = ", ".join(shapes) or "nothing"
            raise LatseError(f"the shapes of the graph cannot be inferred: only that of {known} was given")
        names = {f"{_NUMBERED}{i}": i for i, node in enumerate(self.nodes) if not node.is_variable}
        names.update({node.name: i for i, node in enumerate(self.nodes) if node.is_variable})
        arrays: list[list[Array]] = [[] for _ in self.nodes]
        for entry, shape, kind in zip(self.renamed(_NUMBERED).symbol().get_internals(), outputs, kinds):
            size = int(np.prod(shape, dtype=np.int64)) * np.dtype(kind).itemsize
            arrays[names[entry.name]].append(Array(tuple(shape), size))
        return arrays


class Rewriting:
    """A new graph made of the nodes of an old one, one by one in their order.

    Subclasses override `rewritten`, which puts into the new graph what stands for a node. The old graph
    `source` is not altered; the new nodes go into `graph`, by default an empty one.
    """

    def __init__(self, source: Graph, graph: Graph | None = None) -> None:
        self.source, self.graph = source, graph or Graph(settings=source.settings)
        self._first: dict[int, Entry] = {}
        self._body: dict[int, int] = {}

    def done(self) -> Graph:
        """Return the new graph."""
        for i, node in enumerate(self.source.nodes):
            entry = self.rewritten(i, node, [self.moved(each) for each in node.inputs])
            self._first[i] = entry
            self._body.setdefault(i, entry[0])
        self.graph.heads = [self.moved(entry) for entry in self.source.heads]
        return self.graph

    def rewritten(self, i: int, node: Node, inputs: list[Entry]) -> Entry:
        """Append what stands for node `i` of the old graph; return where its first output is found.

        Its other outputs are those of the same new node, or of the one that `copied` appended.
        """
        return self.copied(i, node, inputs)

    def copied(self, i: int, node: Node, inputs: list[Entry], **attrs: str) -> Entry:
        """Append a node as it was but for its inputs and some settings."""
        entry = self.graph.append(Node(node.op, node.name, {**node.attrs, **attrs}, inputs, node.more))
        self._body[i] = entry[0]
        return entry

    def moved(self, entry: Entry) -> Entry:
        """Return where an output of the old graph is in the new one."""
        i, output = entry
        return self._first[i] if output == 0 else (self._body[i], output)


def sentence(error: Exception) -> str:
    """Return the one line of an MXNet error that says what is wrong."""
    match = re.search(r"MXNetError: (.*)", str(error))
    return match.group(1) if match else str(error).strip().splitlines()[-1]


def _entries(content: list[list[int]]) -> list[Entry]:
    return [(entry[0], entry[1]) for entry in content]
