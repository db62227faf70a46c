"""The graph that a memory plan is made for, and the graph that a plan makes of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Collection

import mxnet as mx

from latse.errors import LatseError
from latse.graph.nodes import Entry, Graph, Node, Rewriting, Shapes

MARK = "__force_mirroring__"
# What a plan sets on a node; all else of a node is the network's.
PLAN_ATTRIBUTES = frozenset({MARK, "cudnn_off"})

# Operators whose output, or whose gradient, may take the place of an input of the same size.
IN_PLACE = frozenset(
    """
    Activation BlockGrad Cast Dropout Flatten LeakyReLU MakeLoss Reshape _copy abs add_n arccos arctan clip
    cos exp expand_dims hard_sigmoid log log_softmax negative reciprocal relu reshape_like rsqrt sigmoid sin
    softmax sqrt square squeeze tanh
    elemwise_add elemwise_sub elemwise_mul elemwise_div
    broadcast_add broadcast_sub broadcast_mul broadcast_div broadcast_maximum broadcast_minimum
    broadcast_greater broadcast_lesser
    _plus_scalar _minus_scalar _rminus_scalar _mul_scalar _div_scalar _rdiv_scalar _power_scalar
    _rpower_scalar _maximum_scalar _minimum_scalar _greater_scalar _lesser_scalar
    """.split()  # noqa: SIM905 - as a list it would take one line each
)
# Operators that may be computed again: a second pass gives the same output and changes nothing else. What is
# not among them (Dropout, random numbers, Custom, loss layers, control flow) is always kept.
REPEATABLE = (IN_PLACE - {"BlockGrad", "Dropout", "MakeLoss"}).union(
    """
    BatchNorm Concat Convolution Deconvolution Embedding FullyConnected GroupNorm InstanceNorm
    L2Normalization LayerNorm Pad Pooling SliceChannel SwapAxis UpSampling _contrib_AdaptiveAvgPooling2D
    _contrib_BilinearResize2D _maximum _minimum _power batch_dot broadcast_axis broadcast_like
    broadcast_power broadcast_to max mean min slice slice_axis stack sum take tile transpose where
    """.split()  # noqa: SIM905
)
# Operators through which no gradient flows: what only they read is not kept for the backward pass.
_NO_GRADIENT = frozenset(
    {"BlockGrad", "zeros_like", "ones_like", "argmax", "one_hot", "sign", "floor", "ceil"}
)


class PlanGraph(Graph):
    """The nodes of a Symbol in the order of their execution, with what a plan must know of each.

    Parameters
    ----------
    symbol : mx.sym.Symbol
        A training graph.
    shapes : mapping of str to tuple of int
        The shape of every input, and of each parameter that is not trained.

    Raises
    ------
    LatseError
        If there is no operator, or the shapes cannot be inferred.
    """

    def __init__(self, symbol: mx.sym.Symbol, shapes: Shapes) -> None:
        super().__init__(**vars(Graph.read(symbol)))
        if all(node.is_variable for node in self.nodes):
            raise LatseError("the graph computes nothing: there is nothing to plan")
        arrays = self.arrays(shapes)
        self.shapes = [[array.shape for array in each] for each in arrays]  # of each node's visible outputs
        self.sizes = [[array.bytes for array in each] for each in arrays]
        self.outputs = {i for i, _ in self.heads}  # their nodes
        self.trained = self._on_gradient_path({*shapes, *symbol.list_auxiliary_states()})
        self.may_repeat = [  # whether a plan may compute the node again; the slopes of rrelu are random
            node.op in REPEATABLE and node.attrs.get("act_type") != "rrelu" and trained
            for node, trained in zip(self.nodes, self.trained)
        ]
        for i in self.outputs:
            self.may_repeat[i] = False

    def _on_gradient_path(self, untrained: set[str]) -> list[bool]:
        """Tell which nodes a gradient flows through on its way from an output to a trained parameter."""
        trained: list[bool] = []
        for node in self.nodes:
            is_parameter = node.is_variable and node.name not in untrained
            passes_on = node.op not in _NO_GRADIENT and any(trained[j] for j, _ in node.inputs)
            trained.append(is_parameter or passes_on)
        reached = set(self.outputs)
        for i in reversed(range(len(self.nodes))):
            if i in reached and trained[i]:
                reached.update(j for j, _ in self.nodes[i].inputs)
        return [trained[i] and i in reached for i in range(len(self.nodes))]


@dataclass(frozen=True)
class Marks:
    """What a plan makes of a graph, whose nodes are known by their numbers.

    MXNet's executor computes a node that carries ``__force_mirroring__`` a second time for the backward pass,
    from what is computed again of its inputs or, where they are not, from what was kept.

    Attributes
    ----------
    recomputed : collection of int
        The nodes that are computed again. A BatchNorm among them gets ``cudnn_off=True``.
    kept : collection of int
        Those of them whose first output is kept all the same: the others read it through a node `_copy`,
        which works in place. Their second pass is for what their own gradient reads.
    read : collection of int
        Those of them whose second output nobody would read: another `_copy` does, as Convolution refuses
        to run for nothing in MXNet's own kernels.
    """

    recomputed: Collection[int] = frozenset()
    kept: Collection[int] = frozenset()
    read: Collection[int] = frozenset()

    def on(self, symbol: mx.sym.Symbol) -> mx.sym.Symbol:
        """Return a new Symbol in which just these nodes are computed again."""
        return _Marking(Graph.read(symbol), self).done().symbol()


class _Marking(Rewriting):
    def __init__(self, source: Graph, marks: Marks) -> None:
        super().__init__(source)
        self._marks = marks

    def rewritten(self, i: int, node: Node, inputs: list[Entry]) -> Entry:
        marks = self._marks
        attributes = {MARK: "True"} if i in marks.recomputed else {}
        if attributes and node.op == "BatchNorm":
            attributes["cudnn_off"] = "True"
        entry = self.copied(i, node, inputs, **attributes)
        if i not in marks.recomputed:
            self.graph.nodes[entry[0]].attrs.pop(MARK, None)
        if i in marks.read:
            entry = self.graph.add("_copy", f"{node.name}_again", [entry], **{MARK: "True"})
        if i in marks.kept:
            entry = self.graph.add("_copy", f"{node.name}_kept", [entry])
        return entry
