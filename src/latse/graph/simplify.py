"""A checkpoint's network without what only training needs: the nodes of a symbol, rewritten one by one."""

from __future__ import annotations

from dataclasses import dataclass, field

import mxnet as mx
import numpy as np

from latse.graph.nodes import VARIABLE, Arrays, Entry, Graph, Node, Rewriting

ADDITIONS = ("elemwise_add", "_plus", "_Plus")
# Operators that hand on their input, unless a gradient or a mask passes.
PASSING = {"Dropout", "BlockGrad", "MakeLoss", "make_loss", "_copy", "identity"}


@dataclass
class ValuedGraph(Graph):
    """A graph with the values of the variables that are parameters or states."""

    parameters: dict[str, np.ndarray] = field(default_factory=dict)  # float32 by name

    def write(self) -> tuple[mx.sym.Symbol, Arrays, Arrays]:
        """Return the symbol, its parameters and its states."""
        symbol = self.symbol()
        args, aux = (
            {name: mx.nd.array(self.parameters[name]) for name in names if name in self.parameters}
            for names in (symbol.list_arguments(), symbol.list_auxiliary_states())
        )
        return symbol, args, aux

    def pruned(self) -> ValuedGraph:
        """Return the graph without the nodes that no output needs."""
        graph = Graph.read(self.symbol())
        names = {node.name for node in graph.nodes if node.is_variable}
        parameters = {name: value for name, value in self.parameters.items() if name in names}
        return ValuedGraph(**vars(graph), parameters=parameters)

    def parameter(self, name: str, value: np.ndarray) -> Entry:
        """Append a variable with a value."""
        self.parameters[name] = np.asarray(value, np.float32)
        return self.add(VARIABLE, name)

    def batch_norm(self, name: str, entry: Entry, scale: np.ndarray, shift: np.ndarray) -> Entry:
        """Append the batch normalisation that computes scale·x + shift for each channel."""
        epsilon = 1e-5
        inputs = [
            entry,
            self.parameter(f"{name}_gamma", scale),
            self.parameter(f"{name}_beta", shift),
            self.parameter(f"{name}_moving_mean", np.zeros_like(scale)),
            self.parameter(f"{name}_moving_var", np.full_like(scale, 1 - epsilon)),
        ]
        return self.add("BatchNorm", name, inputs, eps=epsilon, fix_gamma=False, use_global_stats=True)

    def value(self, entry: Entry) -> np.ndarray:
        """Return the value of a parameter in float64."""
        return self.parameters[self.nodes[entry[0]].name].astype(np.float64)

    def is_parameter(self, entry: Entry) -> bool:
        """Tell whether an entry is a variable with a value."""
        node = self.nodes[entry[0]]
        return node.is_variable and node.name in self.parameters


def simplified(symbol: mx.sym.Symbol, args: Arrays, aux: Arrays) -> ValuedGraph:
    """Return a network as it computes at test time, in MXNet's ordinary operators.

    Dropout and gradient stops are gone, operators on parameters alone are computed, a PReLU that is written
    as two depthwise convolutions is one LeakyReLU again, and a fixed gamma is a gamma of ones. The outputs
    keep their names, and so do the parameters.

    Parameters
    ----------
    symbol : mx.sym.Symbol
        One or more outputs (`checkpoint.pick_outputs`).
    args, aux : dict of str to mx.nd.NDArray
        Parameters by name; those that the symbol does not use are passed over.
    """
    return _Simplifying(symbol, args, aux).done().pruned()


class _Simplifying(Rewriting):
    """Leaves out or replaces what only training needs."""

    graph: ValuedGraph

    def __init__(self, symbol: mx.sym.Symbol, args: Arrays, aux: Arrays) -> None:
        source = Graph.read(symbol)
        super().__init__(source, ValuedGraph(settings=source.settings))
        self._symbol, self._args = symbol, args
        names = {node.name for node in source.nodes if node.is_variable}
        present = {**args, **aux}
        self.graph.parameters = {name: present[name].asnumpy() for name in present if name in names}

    def done(self) -> ValuedGraph:
        """Return the new graph, its outputs called as before."""
        super().done()
        names = [self.source.nodes[i].name for i, _ in self.source.heads]
        heads, self.graph.heads = self.graph.heads, []
        for entry, name in zip(heads, names):
            self.graph.heads.append(_named(self.graph, entry, name))
        return self.graph

    def rewritten(self, i: int, node: Node, inputs: list[Entry]) -> Entry:
        """Append what stands for a node at test time."""
        graph = self.graph
        if node.op in PASSING:
            return inputs[0]
        if inputs and all(map(graph.is_parameter, inputs)):
            inner = self._symbol.get_internals()[f"{node.name}_output"]
            needed = {name: self._args[name] for name in inner.list_inputs()}
            return graph.parameter(node.name, inner.eval(mx.cpu(), **needed)[0].asnumpy())
        if node.op == "BatchNorm" and node.is_true("fix_gamma", default=True):
            gamma = graph.nodes[inputs[1][0]].name
            graph.parameters[gamma] = np.ones_like(graph.parameters[gamma])
            return self.copied(i, node, inputs, fix_gamma="False")
        if node.op == "FullyConnected" and node.is_true("flatten", default=True):
            # After a convolution down to 1x1 (MobileFaceNet's last), oneDNN's layer fails at its second pass.
            inputs = [graph.add("Flatten", f"{node.name}_flat", inputs[:1]), *inputs[1:]]
        slopes = _slopes(graph, node, inputs)
        if slopes is None:
            return self.copied(i, node, inputs)
        name = graph.nodes[slopes[1][0]].name
        graph.parameters[name] = graph.parameters[name].reshape(-1)
        graph.nodes[slopes[1][0]].attrs = {}
        return graph.add("LeakyReLU", name[: -len("_gamma")], slopes, act_type="prelu")


def _slopes(graph: ValuedGraph, node: Node, inputs: list[Entry]) -> tuple[Entry, Entry] | None:
    """Return x and gamma where the node adds gamma·x and (1 - gamma)·relu(x), depthwise convolutions."""
    if node.op not in ADDITIONS:
        return None
    for entries in (inputs, inputs[::-1]):
        linear, rectified = (_channel_factor(graph, entry) for entry in entries)
        if linear is None or rectified is None:
            continue
        (data, gamma), (relu, rest) = linear, rectified
        activation = graph.nodes[relu[0]]
        is_relu = activation.op == "Activation" and activation.attrs["act_type"] == "relu"
        named = graph.nodes[gamma[0]].name.endswith("_gamma")
        if not (is_relu and activation.inputs == [data] and named):
            continue
        if np.allclose(graph.value(gamma) + graph.value(rest), 1, atol=1e-6):
            return data, gamma
    return None


def _channel_factor(graph: ValuedGraph, entry: Entry) -> tuple[Entry, Entry] | None:
    """Return input and weight of a 1x1 depthwise convolution with no bias."""
    node = graph.nodes[entry[0]]
    if node.op != "Convolution" or not node.is_true("no_bias") or not graph.is_parameter(node.inputs[1]):
        return None
    shape = graph.value(node.inputs[1]).shape
    plain = node.numbers("stride", (1, 1)) == (1, 1) and node.numbers("pad", (0, 0)) == (0, 0)
    depthwise = shape[1:] == (1, 1, 1) and int(node.attrs["num_group"]) == shape[0]
    return (node.inputs[0], node.inputs[1]) if plain and depthwise else None


def _named(graph: ValuedGraph, entry: Entry, name: str) -> Entry:
    """Give an output its name: that of its node where nothing else is called so."""
    node = graph.nodes[entry[0]]
    if node.name == name:
        return entry
    if node.is_variable or entry in graph.heads:
        return graph.add("_copy", name, [entry])
    node.name = name
    return entry
