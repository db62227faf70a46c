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
from typing import Union

import mxnet as mx
import numpy as np

from latse.graph.nodes import Arrays, Entry, Node
from latse.graph.simplify import ADDITIONS, ValuedGraph, simplified

ByChannel = Union[float, np.ndarray]  # float64 (C,), or the number that leaves all channels as they are

LINEAR = ("Convolution", "FullyConnected")

# A shift is moved only where it is no more than so many standard deviations of what it is added to: float32
# keeps about seven digits of the sum.
LARGEST_SHIFT = 64.0


@dataclass
class Value:
    """What stands in the new graph for a tensor of the old one: scale·stored + shift, by channel.

    After a Flatten there is one scale and shift for each channel still.
    """

    entry: Entry  # the stored tensor, (N, C, …), in the new graph
    scale: ByChannel = 1.0
    shift: ByChannel = 0.0


@dataclass
class Linear:
    """A convolution or fully-connected layer, not yet in the new graph, that may take over what follows."""

    node: Node  # as it stands in the old graph, for its name and attributes
    entry: Entry  # its input in the new graph
    weight: np.ndarray  # float64 (O, I/groups, …) of a convolution, (O, I) of a fully-connected layer
    bias: np.ndarray  # float64 (O,)


def fast(
    symbol: mx.sym.Symbol, args: Arrays, aux: Arrays, contexts: list[mx.Context]
) -> tuple[mx.sym.Symbol, Arrays, Arrays]:
    """Return symbol and parameters that give the same outputs, rounding apart, in the least time.

    On the CPU convolutions are fused with what follows them by MXNet's oneDNN backend. The symbol is for
    inference only: bind it without gradients.

    Parameters
    ----------
    symbol, args, aux : mx.sym.Symbol, Arrays, Arrays
        As `simplified` takes them. The new symbol's outputs come in the same order, but may be called
        otherwise.
    contexts : list of mx.Context
        Where it is to run.
    """
    on_cpu = all(context.device_type == "cpu" for context in contexts)
    one_dnn = on_cpu and mx.runtime.Features().is_enabled("MKLDNN")
    graph = folded(simplified(symbol, args, aux), depthwise_slopes=one_dnn)
    symbol, args, aux = graph.write()
    return (symbol.optimize_for("MKLDNN") if one_dnn else symbol), args, aux


def folded(graph: ValuedGraph, depthwise_slopes: bool = False) -> ValuedGraph:
    """Return a `simplified` graph, its batch normalisations in their neighbours wherever that is exact.

    With `depthwise_slopes` each PReLU, else a LeakyReLU, becomes two depthwise convolutions, which oneDNN
    computes about ten times as fast as MXNet its LeakyReLU.
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
        self.graph = ValuedGraph(parameters=dict(source.parameters))
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
            if before.op == "BatchNorm" and _by_channel(before) and self._is_given(before):
                scale, shift, deviation = _affine(self._source, before)
                with np.errstate(divide="ignore", invalid="ignore"):
                    moved = shift / scale
                if (np.abs(moved) <= LARGEST_SHIFT * deviation).all():
                    wanted.setdefault(before.inputs[0][0], moved)
        return wanted

    def _folded(self, number: int, node: Node) -> Value | Linear:
        if not _by_channel(node):
            return self._other(node)
        if node.op in LINEAR and self._is_given(node):
            return self._linear(node)
        if node.op in ADDITIONS:
            return self._sum(number, node)
        if node.op == "LeakyReLU" and self._depthwise and node.attrs.get("act_type") == "prelu":
            return self._rectified(number, node)
        if node.op == "BatchNorm" and self._is_given(node):
            return self._batch_norm(node)
        return self._flatten(node) if node.op == "Flatten" else self._other(node)

    def _is_given(self, node: Node) -> bool:
        """Tell whether all but the first input of a node are parameters."""
        return all(map(self._source.is_parameter, node.inputs[1:]))

    def _other(self, node: Node) -> Value:
        inputs = [self._plain(entry) for entry in node.inputs]
        return Value(self.graph.add(node.op, node.name, inputs, **node.attrs))

    def _flatten(self, node: Node) -> Value:
        value = self._value(node.inputs[0])
        return Value(self.graph.add(node.op, node.name, [value.entry]), value.scale, value.shift)

    def _linear(self, node: Node) -> Linear:
        """Let a layer take over what its input still lacks."""
        weight = self._source.value(node.inputs[1])
        bias = self._source.value(node.inputs[2]) if len(node.inputs) > 2 else np.zeros(len(weight))
        value = self._value(node.inputs[0])
        if np.ndim(value.shift) and any(node.numbers("pad", ())):
            value = Value(self._plain(node.inputs[0]))
        groups = int(node.attrs.get("num_group", 1))
        by_group = weight.reshape((groups, len(weight) // groups, weight.shape[1], -1))
        scale, shift = (_widened(each, weight.shape[1] * groups) for each in (value.scale, value.shift))
        bias = bias + np.einsum("goik,gi->go", by_group, shift.reshape(groups, -1)).ravel()
        weight = (by_group * scale.reshape(groups, 1, -1, 1)).reshape(weight.shape)
        return Linear(node, value.entry, weight, bias)

    def _batch_norm(self, node: Node) -> Value | Linear:
        """Make a batch normalisation part of the layer before it, else let it wait for the one behind."""
        scale, shift, _ = _affine(self._source, node)
        before = self._found[node.inputs[0][0]]
        if isinstance(before, Linear) and self._uses[node.inputs[0][0]] == 1:
            before.weight = before.weight * scale.reshape((-1,) + (1,) * (before.weight.ndim - 1))
            before.bias = before.bias * scale + shift
            return before
        value = self._value(node.inputs[0])
        moved = scale * _widened(value.shift, len(scale))
        total = moved + shift
        if np.ndim(value.shift) and (np.abs(total) <= 1e-12 * (np.abs(moved) + np.abs(shift))).all():
            total = 0.0  # the shift stands where it was wanted
        return Value(value.entry, scale * _widened(value.scale, len(scale)), total)

    def _sum(self, number: int, node: Node) -> Value:
        """Let a layer whose output goes only into this sum take over the shifts of all that is added."""
        for (last, _), other in zip(node.inputs[::-1], node.inputs):
            layer = self._found[last]
            if not isinstance(layer, Linear) or self._uses[last] > 1 or last == other[0]:
                continue
            value = self._value(other)
            if np.ndim(value.scale):
                value = Value(self._plain(other))
            wanted = self._wanted.get(number, 0.0)
            layer.bias = layer.bias + value.shift + wanted
            added = self.graph.add("elemwise_add", node.name, [self._written(layer), value.entry])
            return Value(added, shift=-wanted)
        return self._other(node)

    def _rectified(self, number: int, node: Node) -> Value:
        """Write PReLU as gamma·x + relu((1 - gamma)·x), or, for gamma > 1, as -(-gamma·x + relu(…))."""
        gamma = self._source.value(node.inputs[1])
        if len(gamma) == 1:  # for all channels, whose number is not known here
            return self._other(node)
        data, name = self._plain(node.inputs[0]), node.name
        sign = np.where(gamma > 1, -1.0, 1.0)
        wanted = self._wanted.get(number, 0.0)
        bias = sign * wanted if np.ndim(wanted) else None
        bend = self._depthwise_convolution(f"{name}_bend", data, np.abs(1 - gamma))
        bend = self.graph.add("Activation", f"{name}_relu", [bend], act_type="relu")
        slope = self._depthwise_convolution(f"{name}_slope", data, sign * gamma, bias)
        total = self.graph.add("elemwise_add", name, [slope, bend])
        return Value(total, sign if (sign < 0).any() else 1.0, -wanted)

    def _depthwise_convolution(
        self, name: str, entry: Entry, factors: np.ndarray, bias: np.ndarray | None = None
    ) -> Entry:
        inputs = [entry, self.graph.parameter(f"{name}_weight", factors.reshape(-1, 1, 1, 1))]
        if bias is not None:
            inputs.append(self.graph.parameter(f"{name}_bias", bias))
        sizes = {"kernel": (1, 1), "num_filter": len(factors), "num_group": len(factors)}
        return self.graph.add("Convolution", name, inputs, **sizes, no_bias=bias is None)

    def _value(self, entry: Entry) -> Value:
        """Return what stands for an entry, its layer written if it waited."""
        number, index = entry
        value = self._found[number]
        if isinstance(value, Linear):
            wanted = self._wanted.get(number, 0.0)
            value.bias = value.bias + wanted
            value = self._found[number] = Value(self._written(value), shift=-wanted)
        return value if not index else Value((value.entry[0], index))

    def _plain(self, entry: Entry) -> Entry:
        """Return the tensor itself, with a batch normalisation where a scale or shift was left."""
        value = self._value(entry)
        scale, shift = np.broadcast_arrays(value.scale, value.shift)
        if not scale.ndim:
            return value.entry
        if entry not in self._affine:
            name = f"{self._source.nodes[entry[0]].name}_affine"
            self._affine[entry] = self.graph.batch_norm(name, value.entry, scale, shift)
        return self._affine[entry]

    def _written(self, layer: Linear) -> Entry:
        name = layer.node.name
        weight = self.graph.parameter(f"{name}_weight", layer.weight)
        inputs = [layer.entry, weight, self.graph.parameter(f"{name}_bias", layer.bias)]
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


def _widened(values: ByChannel, size: int) -> np.ndarray:
    """Repeat one value a channel for each place of a flattened map of `size` values."""
    return np.repeat(values, size // np.size(values))
