"""A checkpoint's network without what only training needs: the nodes of a symbol, rewritten one by one."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Dict, List, Mapping, Sequence, Set, Tuple

import mxnet as mx
import numpy as np

Parameters = Dict[str, mx.nd.NDArray]
Entry = Tuple[int, int]  # a node's number and which of its outputs

# Operators that hand on their input, unless a gradient or a mask passes.
PASSING = {"Dropout", "BlockGrad", "MakeLoss", "make_loss", "_copy", "identity"}
VARIABLE = "null"
MXNET_VERSION = 10901  # whose format of JSON is written


@dataclass
class Node:
    """One node of a symbol as its JSON has it; attributes are strings."""

    op: str
    name: str
    attrs: Dict[str, str] = field(default_factory=dict)
    inputs: List[Entry] = field(default_factory=list)

    def is_true(self, key: str, default: bool = False) -> bool:
        """Tell whether a flag is set."""
        return self.attrs.get(key, str(default)) in ("True", "true", "1")

    def numbers(self, key: str, default: Tuple[int, ...]) -> Tuple[int, ...]:
        """Return a tuple of whole numbers such as `kernel`; an empty one counts as absent."""
        text = self.attrs.get(key, "").strip("()[] ").rstrip(",")
        return tuple(int(number) for number in text.split(",")) if text else default


@dataclass
class Graph:
    """Nodes in topological order, outputs, and the values of the variables that are parameters."""

    nodes: List[Node] = field(default_factory=list)
    heads: List[Entry] = field(default_factory=list)
    parameters: Dict[str, np.ndarray] = field(default_factory=dict)
    auxiliary: Set[str] = field(default_factory=set)

    @classmethod
    def read(
        cls,
        symbol: mx.sym.Symbol,
        args: Mapping[str, mx.nd.NDArray],
        aux: Mapping[str, mx.nd.NDArray],
    ) -> Graph:
        """Take a symbol apart; parameters that it does not use are left out."""
        content = json.loads(symbol.tojson())
        nodes = [
            Node(
                node["op"],
                node["name"],
                dict(node.get("attrs", {})),
                [(entry[0], entry[1]) for entry in node["inputs"]],
            )
            for node in content["nodes"]
        ]
        heads = [(entry[0], entry[1]) for entry in content["heads"]]
        present = {**args, **aux}
        used = [node.name for node in nodes if node.op == VARIABLE and node.name in present]
        return cls(nodes, heads, {name: present[name].asnumpy() for name in used}, set(aux))

    def add(self, op: str, name: str, inputs: Sequence[Entry], **attrs: object) -> Entry:
        """Append a node and return its first output."""
        texts = {key: str(value) for key, value in attrs.items()}
        self.nodes.append(Node(op, name, texts, list(inputs)))
        return len(self.nodes) - 1, 0

    def parameter(self, name: str, value: np.ndarray, auxiliary: bool = False) -> Entry:
        """Append a variable with a value."""
        self.parameters[name] = np.asarray(value, np.float32)
        if auxiliary:
            self.auxiliary.add(name)
        return self.add(VARIABLE, name, [])

    def batch_norm(self, name: str, entry: Entry, scale: np.ndarray, shift: np.ndarray) -> Entry:
        """Append the batch normalisation that computes scale·x + shift for each channel."""
        epsilon = 1e-5
        inputs = [
            entry,
            self.parameter(f"{name}_gamma", scale),
            self.parameter(f"{name}_beta", shift),
            self.parameter(f"{name}_moving_mean", np.zeros_like(scale), auxiliary=True),
            self.parameter(f"{name}_moving_var", np.full_like(scale, 1 - epsilon), auxiliary=True),
        ]
        return self.add("BatchNorm", name, inputs, eps=epsilon, fix_gamma=False, use_global_stats=True)

    def value(self, entry: Entry) -> np.ndarray:
        """Return the value of a parameter in float64."""
        return self.parameters[self.nodes[entry[0]].name].astype(np.float64)

    def is_parameter(self, entry: Entry) -> bool:
        """Tell whether an entry is a variable with a value."""
        node = self.nodes[entry[0]]
        return node.op == VARIABLE and node.name in self.parameters

    def uses(self) -> List[int]:
        """Return how often each node is an input or an output."""
        counts = [0] * len(self.nodes)
        for number, _ in [entry for node in self.nodes for entry in node.inputs] + self.heads:
            counts[number] += 1
        return counts

    def pruned(self) -> Graph:
        """Return the graph without the nodes that no output needs."""
        needed = {number for number, _ in self.heads}
        for number in reversed(range(len(self.nodes))):
            if number in needed:
                needed.update(source for source, _ in self.nodes[number].inputs)
        order = {number: place for place, number in enumerate(sorted(needed))}
        nodes = [
            Node(node.op, node.name, node.attrs, [(order[source], index) for source, index in node.inputs])
            for node in (self.nodes[number] for number in order)
        ]
        names = {node.name for node in nodes if node.op == VARIABLE}
        parameters = {name: value for name, value in self.parameters.items() if name in names}
        heads = [(order[number], index) for number, index in self.heads]
        return Graph(nodes, heads, parameters, self.auxiliary & names)

    def write(self) -> Tuple[mx.sym.Symbol, Parameters, Parameters]:
        """Return the symbol and its parameters."""
        found = self.pruned()
        content = {
            "nodes": [
                {
                    "op": node.op,
                    "name": node.name,
                    "attrs": node.attrs,
                    "inputs": [[*entry, 0] for entry in node.inputs],
                }
                for node in found.nodes
            ],
            "arg_nodes": [number for number, node in enumerate(found.nodes) if node.op == VARIABLE],
            "node_row_ptr": list(range(len(found.nodes) + 1)),
            "heads": [[*entry, 0] for entry in found.heads],
            "attrs": {"mxnet_version": ["int", MXNET_VERSION]},
        }
        arrays = {name: mx.nd.array(value) for name, value in found.parameters.items()}
        aux = {name: array for name, array in arrays.items() if name in found.auxiliary}
        args = {name: array for name, array in arrays.items() if name not in found.auxiliary}
        return mx.sym.load_json(json.dumps(content)), args, aux


def simplified(
    symbol: mx.sym.Symbol, args: Mapping[str, mx.nd.NDArray], aux: Mapping[str, mx.nd.NDArray]
) -> Graph:
    """Return a network as it computes at test time, in MXNet's ordinary operators.

    Dropout and gradient stops are gone, operators on parameters alone are computed, a PReLU that is written
    as two depthwise convolutions is one LeakyReLU again, and a fixed gamma is a gamma of ones. The outputs
    keep their names, and so do the parameters.

    Parameters
    ----------
    symbol
        One or more outputs (`checkpoint.pick_outputs`).
    args, aux
        Parameters by name; those that the symbol does not use are passed over.
    """
    source = Graph.read(symbol, args, aux)
    found = Graph(parameters=dict(source.parameters), auxiliary=set(source.auxiliary))
    place: Dict[int, Entry] = {}
    for number, node in enumerate(source.nodes):
        inputs = [_entry(place, entry) for entry in node.inputs]
        place[number] = _rewritten(symbol, args, found, node, inputs)
    outputs = [source.nodes[number].name for number, _ in source.heads]
    found.heads = [_named(found, _entry(place, entry), name) for entry, name in zip(source.heads, outputs)]
    return found.pruned()


def _entry(place: Mapping[int, Entry], entry: Entry) -> Entry:
    """Return where an output of an old node is found; only nodes that were kept have several."""
    number, index = place[entry[0]]
    return number, index or entry[1]


def _rewritten(
    symbol: mx.sym.Symbol, args: Mapping[str, mx.nd.NDArray], graph: Graph, node: Node, inputs: List[Entry]
) -> Entry:
    """Append what stands for `node` to `graph`."""
    if node.op in PASSING:
        return inputs[0]
    if inputs and all(graph.is_parameter(entry) for entry in inputs):
        inner = symbol.get_internals()[f"{node.name}_output"]
        needed = {name: args[name] for name in inner.list_inputs()}
        return graph.parameter(node.name, inner.eval(mx.cpu(), **needed)[0].asnumpy())
    if node.op == "BatchNorm" and node.is_true("fix_gamma", default=True):
        gamma = graph.nodes[inputs[1][0]].name
        graph.parameters[gamma] = np.ones_like(graph.parameters[gamma])
        return graph.add(node.op, node.name, inputs, **{**node.attrs, "fix_gamma": False})
    if node.op == "FullyConnected" and node.is_true("flatten", default=True):
        # After a convolution down to 1x1 (MobileFaceNet's last), oneDNN's layer fails at its second pass.
        inputs = [graph.add("Flatten", f"{node.name}_flat", inputs[:1]), *inputs[1:]]
    slopes = _slopes(graph, node, inputs)
    if slopes is not None:
        data, gamma = slopes
        name = graph.nodes[gamma[0]].name
        graph.parameters[name] = graph.parameters[name].reshape(-1)
        graph.nodes[gamma[0]].attrs = {}
        return graph.add("LeakyReLU", name[: -len("_gamma")], [data, gamma], act_type="prelu")
    return graph.add(node.op, node.name, inputs, **node.attrs)


def _slopes(graph: Graph, node: Node, inputs: List[Entry]) -> Tuple[Entry, Entry] | None:
    """Return x and gamma where the node adds gamma·x and (1 - gamma)·relu(x), depthwise convolutions."""
    if node.op not in ("elemwise_add", "_plus", "_Plus"):
        return None
    for linear, rectified in (inputs, inputs[::-1]):
        scaled = [_channel_factor(graph, entry) for entry in (linear, rectified)]
        if None in scaled:
            continue
        (data, gamma), (relu, rest) = scaled
        activation = graph.nodes[relu[0]]
        is_relu = activation.op == "Activation" and activation.attrs["act_type"] == "relu"
        named = graph.nodes[gamma[0]].name.endswith("_gamma")
        if not (is_relu and activation.inputs == [data] and named):
            continue
        if np.allclose(graph.value(gamma) + graph.value(rest), 1, atol=1e-6):
            return data, gamma
    return None


def _channel_factor(graph: Graph, entry: Entry) -> Tuple[Entry, Entry] | None:
    """Return input and weight of a 1x1 depthwise convolution with no bias."""
    node = graph.nodes[entry[0]]
    if node.op != "Convolution" or not node.is_true("no_bias") or not graph.is_parameter(node.inputs[1]):
        return None
    shape = graph.value(node.inputs[1]).shape
    plain = node.numbers("stride", (1, 1)) == (1, 1) and node.numbers("pad", (0, 0)) == (0, 0)
    depthwise = shape[1:] == (1, 1, 1) and int(node.attrs["num_group"]) == shape[0]
    return (node.inputs[0], node.inputs[1]) if plain and depthwise else None


def _named(graph: Graph, entry: Entry, name: str) -> Entry:
    """Give an output its name: that of its node where nothing else is called so."""
    node = graph.nodes[entry[0]]
    if node.name == name:
        return entry
    if node.op == VARIABLE or entry in graph.heads:
        return graph.add("_copy", name, [entry])
    node.name = name
    return entry
