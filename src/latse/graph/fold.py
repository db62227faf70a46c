"""A checkpoint's network in the form that computes fastest at test time.

A batch normalisation is an affine map a·x + b of each channel, and neighbours can take it over: the layer
before it (its weights times a, its bias), or the layer after it. Only the shift b of one that stands before a
zero-padded convolution, as in each improved-residual unit, seems to have no place to go: the padding is zero
after it, not before. But with t = b/a, a·x + b = a·(x + t), so that the convolution takes a, and whoever
computes x adds t to its bias; all other readers of x know of t and subtract it in theirs. Along a chain of
residual units the differences of the t lie in the biases of the last convolutions. Nothing is approximated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Mapping

import mxnet as mx
import numpy as np

from latse.graph.nodes import VARIABLE, Arrays, Entry, Node
from latse.graph.simplify import ValuedGraph, simplified

ADDITIONS = ("elemwise_add", "_plus", "_Plus")
LINEAR = ("Convolution", "FullyConnected")

# A shift is moved only where it is no more than so many standard deviations of what it is added to: float32
# keeps about seven digits of the sum.
LARGEST_SHIFT = 64.0


@dataclass
class Value:
    """What stands in the new graph for a tensor of the old one: scale·stored + shift, by channel.

    Attributes
    ----------
    entry : Entry
        The stored tensor, (N, C, …), in the new graph.
    scale, shift : ndarray or None, optional
        float64 (C,) each; None means 1 and 0. After a Flatten there is one for each channel still.
    """

    entry: Entry
    scale: np.ndarray | None = None
    shift: np.ndarray | None = None


@dataclass
class Linear:
    """A convolution or fully-connected layer, not yet in the new graph, that may take over what follows.

    Attributes
    ----------
    node : Node
        As it stands in the old graph, for its name and attributes.
    entry : Entry
        Its input in the new graph.
    weight : ndarray
        float64 (O, I/groups, …) of a convolution, (O, I) of a fully-connected layer.
    bias : float64 (O,)
    """

    node: Node
    entry: Entry
    weight: np.ndarray
    bias: np.ndarray

    def then(self, scale: np.ndarray, shift: np.ndarray) -> None:
        """Take over scale·y + shift of the output y, both float64 (O,)."""
        self.weight = self.weight * scale.reshape((-1,) + (1,) * (self.weight.ndim - 1))
        self.bias = self.bias * scale + shift


def fast(
    symbol: mx.sym.Symbol,
    args: Mapping[str, mx.nd.NDArray],
    aux: Mapping[str, mx.nd.NDArray],
    contexts: list[mx.Context],
) -> tuple[mx.sym.Symbol, Arrays, Arrays]:
    """Return symbol and parameters that give the same outputs, rounding apart, in the least time.

    On the CPU convolutions are fused with what follows them by MXNet's oneDNN backend. The symbol is for
    inference only: bind it with `for_training=False`.

    Parameters
    ----------
    symbol : mx.sym.Symbol
        One or more outputs (`checkpoint.pick_outputs`). The new symbol's come in the same order, but may be
        called otherwise.
    args, aux : mapping of str to mx.nd.NDArray
        Parameters by name; those that the symbol does not use are passed over.
    contexts : list of mx.Context
        Where it is to run.
    """
    on_cpu = all(context.device_type == "cpu" for context in contexts)
    one_dnn = on_cpu and mx.runtime.Features().is_enabled("MKLDNN")
    graph = folded(simplified(symbol, args, aux), depthwise_slopes=one_dnn)
    symbol, args, aux = graph.write()
    return (symbol.optimize_for("MKLDNN") if one_dnn else symbol), args, aux


def folded(graph: ValuedGraph, depthwise_slopes: bool = False) -> ValuedGraph:
    """Return a graph whose batch normalisations have gone into their neighbours wherever that is exact.

    Parameters
    ----------
    graph : ValuedGraph
        As `latse.graph.simplify.simplified` gives it.
    depthwise_slopes : bool, default False
        Write each PReLU as two depthwise convolutions, which oneDNN computes about ten times as fast as MXNet
        its LeakyReLU; else it stays a LeakyReLU.
    """
    return _Folding(graph, depthwise_slopes).graph.pruned()


class _Folding:
    """Walks over a graph and writes the folded one."""

    def __init__(self, source: ValuedGraph, depthwise_slopes: bool):
        self._source = source
        self._depthwise = depthwise_slopes
        self._uses = source.uses()
        self._wanted = self._wanted_shifts()
        self._found: dict[int, Value | Linear] = {}
        self._affine: dict[Entry, Entry] = {}  # what was left on a tensor, written once for all who need it
        self.graph = ValuedGraph(auxiliary=set(source.auxiliary))
        for number, node in enumerate(source.nodes):
            self._found[number] = self._folded(number, node)
        self.graph.heads = [self._named(entry) for entry in source.heads]

    def _wanted_shifts(self) -> dict[int, np.ndarray]:
        """Return t of each tensor that goes through a batch normalisation into a padded convolution."""
        wanted: dict[int, np.ndarray] = {}
        for node in self._source.nodes:
            if node.op != "Convolution" or not any(node.numbers("pad", ())):
                continue
            before = self._source.nodes[node.inputs[0][0]]
            if before.op == "BatchNorm" and _by_channel(before):
                scale, shift, deviation = _affine(self._source, before)
                with np.errstate(divide="ignore", invalid="ignore"):
                    moved = shift / scale
                if (np.abs(moved) <= LARGEST_SHIFT * deviation).all():
                    wanted.setdefault(before.inputs[0][0], moved)
        return wanted

    def _folded(self, number: int, node: Node) -> Value | Linear:
        if node.is_variable:
            return self._variable(node)
        if not _by_channel(node):
            return self._other(node)
        if node.op in LINEAR and all(map(self._source.is_parameter, node.inputs[1:])):
            return self._linear(node)
        if node.op in ADDITIONS:
            return self._sum(number, node)
        if node.op == "LeakyReLU" and self._depthwise and node.attrs.get("act_type") == "prelu":
            return self._rectified(number, node)
        alone = {"BatchNorm": self._batch_norm, "Flatten": self._flatten}
        return alone.get(node.op, self._other)(node)

    def _other(self, node: Node) -> Value:
        inputs = [self._plain(entry) for entry in node.inputs]
        return Value(self.graph.add(node.op, node.name, inputs, **node.attrs))

    def _flatten(self, node: Node) -> Value:
        value = self._value(node.inputs[0])
        return Value(self.graph.add(node.op, node.name, [value.entry]), value.scale, value.shift)

    def _variable(self, node: Node) -> Value:
        if node.name in self._source.parameters:
            self.graph.parameters[node.name] = self._source.parameters[node.name]
        return Value(self.graph.add(VARIABLE, node.name, **node.attrs))

    def _linear(self, node: Node) -> Linear:
        """Let a layer take over what its input still lacks."""
        weight = self._source.value(node.inputs[1])
        bias = self._source.value(node.inputs[2]) if len(node.inputs) > 2 else np.zeros(len(weight))
        value = self._value(node.inputs[0])
        if value.shift is not None and any(node.numbers("pad", ())):
            value = Value(self._plain(node.inputs[0]))
        if node.op == "FullyConnected":
            groups, size = 1, weight.shape[1]
        else:
            groups = int(node.attrs.get("num_group", 1))
            size = weight.shape[1] * groups
        by_group = weight.reshape((groups, len(weight) // groups, weight.shape[1], -1))
        if value.shift is not None:
            shift = _widened(value.shift, size).reshape(groups, -1)
            bias = bias + np.einsum("goik,gi->go", by_group, shift).ravel()
        if value.scale is not None:
            scale = _widened(value.scale, size).reshape(groups, 1, -1, 1)
            weight = (by_group * scale).reshape(weight.shape)
        return Linear(node, value.entry, weight, bias)

    def _batch_norm(self, node: Node) -> Value | Linear:
        """Make a batch normalisation part of the layer before it, else let it wait for the one behind."""
        scale, shift, _ = _affine(self._source, node)
        before = self._found[node.inputs[0][0]]
        if isinstance(before, Linear) and self._uses[node.inputs[0][0]] == 1:
            before.then(scale, shift)
            return before
        value = self._value(node.inputs[0])
        size = len(scale)
        total_scale = scale if value.scale is None else scale * _widened(value.scale, size)
        if value.shift is None:
            return Value(value.entry, total_scale, shift)
        moved = scale * _widened(value.shift, size)
        total = moved + shift
        if (np.abs(total) <= 1e-12 * (np.abs(moved) + np.abs(shift))).all():
            return Value(value.entry, total_scale)  # the shift stands where it was wanted
        return Value(value.entry, total_scale, total)

    def _sum(self, number: int, node: Node) -> Value:
        """Let a layer whose output goes only into this sum take over the shifts of all that is added."""
        for (last, _), other in zip(node.inputs[::-1], node.inputs):
            layer = self._found[last]
            if not isinstance(layer, Linear) or self._uses[last] > 1 or last == other[0]:
                continue
            value = self._value(other)
            entry = value.entry if value.scale is None else self._plain(other)
            missing = 0.0 if value.shift is None or value.scale is not None else value.shift
            wanted = self._wanted.get(number)
            layer.bias = layer.bias + missing + (0.0 if wanted is None else wanted)
            added = self.graph.add("elemwise_add", node.name, [self._written(layer), entry])
            return Value(added, None, None if wanted is None else -wanted)
        return self._other(node)

    def _rectified(self, number: int, node: Node) -> Value:
        """Write PReLU as gamma·x + relu((1 - gamma)·x), or, for gamma > 1, as -(-gamma·x + relu(…))."""
        gamma = self._source.value(node.inputs[1])
        if len(gamma) == 1:  # for all channels, whose number is not known here
            return self._other(node)
        data, name = self._plain(node.inputs[0]), node.name
        sign = np.where(gamma > 1, -1.0, 1.0)
        wanted = self._wanted.get(number)
        bias = None if wanted is None else sign * wanted
        bend = self._depthwise_convolution(f"{name}_bend", data, np.abs(1 - gamma))
        bend = self.graph.add("Activation", f"{name}_relu", [bend], act_type="relu")
        slope = self._depthwise_convolution(f"{name}_slope", data, sign * gamma, bias)
        total = self.graph.add("elemwise_add", name, [slope, bend])
        return Value(total, sign if (sign < 0).any() else None, None if wanted is None else -wanted)

    def _depthwise_convolution(
        self, name: str, entry: Entry, factors: np.ndarray, bias: np.ndarray | None = None
    ) -> Entry:
        inputs = [entry, self.graph.parameter(f"{name}_weight", factors.reshape(-1, 1, 1, 1))]
        if bias is not None:
            inputs.append(self.graph.parameter(f"{name}_bias", bias))
        size = len(factors)
        return self.graph.add(
            "Convolution",
            name,
            inputs,
            kernel=(1, 1),
            num_filter=size,
            num_group=size,
            no_bias=bias is None,
        )

    def _value(self, entry: Entry) -> Value:
        """Return what stands for an entry, its layer written if it waited."""
        number, index = entry
        value = self._found[number]
        if isinstance(value, Linear):
            wanted = self._wanted.get(number)
            if wanted is not None:
                value.bias = value.bias + wanted
            value = Value(self._written(value), None, None if wanted is None else -wanted)
            self._found[number] = value
        return value if not index else Value((value.entry[0], index))

    def _plain(self, entry: Entry) -> Entry:
        """Return the tensor itself, with a batch normalisation where a scale or shift was left."""
        value = self._value(entry)
        if value.scale is None and value.shift is None:
            return value.entry
        if entry not in self._affine:
            self._affine[entry] = self._batch_normalised(entry, value)
        return self._affine[entry]

    def _batch_normalised(self, entry: Entry, value: Value) -> Entry:
        size = len(value.scale if value.scale is not None else value.shift)
        scale = np.ones(size) if value.scale is None else value.scale
        shift = np.zeros(size) if value.shift is None else value.shift
        name = f"{self._source.nodes[entry[0]].name}_affine"
        return self.graph.batch_norm(name, value.entry, scale, shift)

    def _written(self, layer: Linear) -> Entry:
        name = layer.node.name
        inputs = [
            layer.entry,
            self.graph.parameter(f"{name}_weight", layer.weight),
            self.graph.parameter(f"{name}_bias", layer.bias),
        ]
        return self.graph.add(layer.node.op, name, inputs, **{**layer.node.attrs, "no_bias": False})

    def _named(self, entry: Entry) -> Entry:
        """Return an output under its old name."""
        name, plain = self._source.nodes[entry[0]].name, self._plain(entry)
        node = self.graph.nodes[plain[0]]
        if node.name != name and not node.is_variable and self._uses[entry[0]] == 1:
            node.name = name
        return plain if node.name == name else self.graph.add("_copy", name, [plain])


def _by_channel(node: Node) -> bool:
    """Tell whether a node takes axis 1 for the channels, as all other rules here do."""
    flat = node.op != "FullyConnected" or node.is_true("flatten", default=True)
    return (
        flat and node.attrs.get("axis", "1") == "1" and node.attrs.get("layout", "None")[:2] in ("No", "NC")
    )


def _affine(graph: ValuedGraph, node: Node) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return scale and shift of a batch normalisation, and the standard deviation that it divides by."""
    gamma, beta, mean, variance = (graph.value(entry) for entry in node.inputs[1:])
    deviation = np.sqrt(variance + float(node.attrs.get("eps", 1e-3)))
    return gamma / deviation, beta - gamma / deviation * mean, deviation


def _widened(values: np.ndarray, size: int) -> np.ndarray:
    """Repeat one value a channel for each place of a flattened map of `size` values."""
    return np.repeat(values, size // len(values))
