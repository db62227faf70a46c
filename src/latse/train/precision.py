"""Mixed precision: a training graph whose large arrays are float16, and the scale of its loss.

After Micikevicius et al. 2018, *Mixed Precision Training*: products are taken of float16 arrays, weights are
kept and moved in float32, and the loss is scaled up so that small gradients do not become 0.
"""

from __future__ import annotations

from typing import Any, Iterable, Mapping

import mxnet as mx
from yacs.config import CfgNode

from latse.errors import LatseError
from latse.graph.nodes import VARIABLE, Entry, Graph, Node, Rewriting
from latse.recipe_keys import DYNAMIC, EMULATED, HALF, LARGEST_SCALE, SINGLE
from latse.symbols.names import TWIN

LOSS_SCALE = "loss_scale"  # the further input (N,) of a float16 graph

# Operators that take most of the time. On GPU MXNet reads and writes float16 there and adds in float32; on
# CPU it has no such kernels.
PRODUCTS = frozenset({"Convolution", "Deconvolution", "FullyConnected"})
# What is computed in float16 where it is given it; of BatchNorm the data alone, its parameters and statistics
# are float32. All other operators are given float32.
FOLLOWING = frozenset({"Activation", "BatchNorm", "Dropout", "Flatten", "Reshape", "_copy", "elemwise_add"})
# Parameters that begin so are a loss's, which is float32 throughout.
LOSS_PREFIXES = ("fc7_", f"{TWIN}fc7_")

_MXNET_NUMBER_OF_FLOAT16 = "2"
_MOST_ARRAYS = 200  # of which multi_all_finite has room on GPU, without a check


def check(recipe: CfgNode, devices: Iterable[mx.Context]) -> None:
    """Raise LatseError if the recipe asks for a precision that one of its devices does not compute in."""
    for device in devices:
        if recipe.train.precision == HALF and device.device_type != "gpu":
            raise LatseError(
                f"train.precision is {HALF}, which {device} cannot compute in: name GPUs with --gpus, or "
                f"choose {SINGLE}, or {EMULATED} to see the same rounding"
            )


def prepared(
    recipe: CfgNode, symbol: mx.sym.Symbol, shapes: Mapping[str, tuple[int, ...]]
) -> tuple[mx.sym.Symbol, dict[str, tuple[int, ...]]]:
    """Return a traced training graph in the recipe's precision, and the shapes of its inputs."""
    if recipe.train.precision == SINGLE:
        return symbol, dict(shapes)
    half = as_half(symbol, shapes, emulated=recipe.train.precision == EMULATED)
    return half, {**shapes, LOSS_SCALE: shapes["softmax_label"]}


def as_half(symbol: mx.sym.Symbol, inputs: Iterable[str], emulated: bool = False) -> mx.sym.Symbol:
    """Return a float32 training graph as one in mixed precision.

    Convolutions, deconvolutions and dense layers of encoder and decoder, and what lies between them, have
    float16 arrays. float32 are the input up to its normalisation (whose result, k/256 for whole grey levels,
    float16 holds exactly), what a dense layer returns (so that the embedding is not rounded again), the
    parameters and statistics of every BatchNorm, and all losses with the class centres.

    Parameters
    ----------
    symbol : mx.sym.Symbol
        As `latse.symbols.networks.trace` returns it, with its losses in nodes MakeLoss; it is not altered.
    inputs : iterable of str
        Names of its inputs, which are not trained.
    emulated : bool, default False
        For devices without such kernels: the same arrays are rounded to float16, but the products are taken
        of their float32 copies.

    Returns
    -------
    mx.sym.Symbol
        With the same outputs, and `loss_scale` (N,) as a further input by which all gradients are multiplied.
        The parameters that only products read are float16, to be trained with float32 copies of them.
    """
    return _Halving(Graph.read(symbol), frozenset(inputs), emulated).done().symbol()


class DivergenceError(LatseError):
    """Numbers that are not finite have come up, as with too high a learning rate: the run cannot go on so."""


class LossScale:
    """The factor of the loss: fixed, or as large as the gradients bear.

    The dynamic scale begins at 2¹⁶, is halved where a gradient is not finite (that step is left out), and
    doubled, up to 2²⁴, after 2000 good steps in a row. Powers of two, so that scaling rounds nothing.

    Parameters
    ----------
    chosen : float or "dynamic"
        The recipe's `train.loss_scale`.
    saved : mapping of str to array (1,), optional
        What `saved` returned; by default the scale is at its start.

    Attributes
    ----------
    value : float
        The scale of the next step.
    streak : int
        Good steps in a row up to now; steps left out in a row where negative.
    """

    START, GROWTH_INTERVAL, PATIENCE = 2.0**16, 2000, 32

    def __init__(self, chosen: float | str, saved: Mapping[str, mx.nd.NDArray] | None = None) -> None:
        self._dynamic = chosen == DYNAMIC
        self.value, self.streak = self.START if self._dynamic else float(chosen), 0
        if saved:
            self.streak = saved["streak"].asscalar().item()
        if saved and self._dynamic:
            self.value = saved["value"].asscalar().item()

    def step(self, finite: bool) -> None:
        """Go on after a step whose gradients were `finite` or not.

        Raises DivergenceError if too many in a row were not.
        """
        self.streak = max(self.streak, 0) + 1 if finite else min(self.streak, 0) - 1
        if self.streak <= -self.PATIENCE:
            other = "" if self._dynamic else f" (train.loss_scale {DYNAMIC} would lower that)"
            raise DivergenceError(
                f"the gradients of {self.PATIENCE} steps in a row are not finite, the last at loss scale "
                f"{self.value:g}{other}"
            )
        if self._dynamic and not finite:
            self.value /= 2
        elif self._dynamic and self.streak % self.GROWTH_INTERVAL == 0:
            self.value = min(2 * self.value, LARGEST_SCALE)

    def saved(self) -> dict[str, mx.nd.NDArray]:
        """Return what another one goes on from, to the same bits."""
        return {
            "value": mx.nd.array([self.value], dtype="float64"),
            "streak": mx.nd.array([self.streak], dtype="int64"),
        }


def all_finite(arrays: Iterable[mx.nd.NDArray]) -> bool:
    """Tell whether no array on a device, of float32 or float16, holds an infinity or NaN."""
    by_type: dict[Any, list[mx.nd.NDArray]] = {}
    for array in arrays:
        by_type.setdefault(array.dtype, []).append(array)
    groups = [
        same[first : first + _MOST_ARRAYS]
        for same in by_type.values()
        for first in range(0, len(same), _MOST_ARRAYS)
    ]
    verdicts = [mx.nd.multi_all_finite(*group, num_arrays=len(group)) for group in groups]
    return all(verdict.asscalar() for verdict in verdicts)


class _Halving(Rewriting):
    """Casts what a node reads to the type that it computes in, and scales the losses."""

    def __init__(self, source: Graph, inputs: frozenset[str], emulated: bool) -> None:
        super().__init__(source)
        self._inputs, self._emulated = inputs, emulated
        self._products = {i for i, node in enumerate(source.nodes) if self._is_product(node)}
        self._halves = self._half_variables()
        self._half: set[Entry] = set()  # new outputs of float16
        self._casts: dict[tuple[Entry, str], Entry] = {}
        self._scale = self.graph.add(VARIABLE, LOSS_SCALE)

    def rewritten(self, i: int, node: Node, inputs: list[Entry]) -> Entry:
        """Append a node in the precision that is its own."""
        if i in self._products:
            return self._product(i, node, inputs)
        if node.op == "MakeLoss":
            return self._loss(i, node, inputs)
        if i in self._halves:
            return self._halved(self.copied(i, node, [], __dtype__=_MXNET_NUMBER_OF_FLOAT16))
        data = inputs[:1] if node.op == "BatchNorm" else inputs
        if node.op in FOLLOWING and self._half.issuperset(data):
            return self._halved(self.copied(i, node, inputs))
        if node.op != "Cast":
            inputs = [self._cast(entry, SINGLE) for entry in inputs]
        return self.copied(i, node, inputs)

    def _halved(self, entry: Entry) -> Entry:
        """Note that a new output is float16, and return it."""
        self._half.add(entry)
        return entry

    def _product(self, i: int, node: Node, inputs: list[Entry]) -> Entry:
        inputs = [self._cast(entry, HALF) for entry in inputs]
        if self._emulated:
            inputs = [self._cast(entry, SINGLE) for entry in inputs]
            entry = self._cast(self.copied(i, node, inputs), HALF)
        else:
            entry = self._halved(self.copied(i, node, inputs))
        # A dense layer returns few numbers, of which BatchNorm makes an embedding.
        return self._cast(entry, SINGLE) if node.op == "FullyConnected" else entry

    def _loss(self, i: int, node: Node, inputs: list[Entry]) -> Entry:
        """Make of a loss x x + (scale - 1)·(x - BlockGrad(x)): the same value, `scale` times the gradient."""
        name, x, add = node.name, self._cast(inputs[0], SINGLE), self.graph.add
        constant = add("BlockGrad", f"{name}_constant", [x])
        nothing = add("elemwise_sub", f"{name}_nothing", [x, constant])
        more = add("_minus_scalar", f"{name}_scale_more", [self._scale], scalar="1")
        slope = add("elemwise_mul", f"{name}_slope", [nothing, more])
        return self.copied(i, node, [add("elemwise_add", f"{name}_scaled", [x, slope])])

    def _cast(self, entry: Entry, kind: str) -> Entry:
        """Return an output as float16 or float32, which are the only types it can have."""
        if (entry in self._half) == (kind == HALF):
            return entry
        if (entry, kind) not in self._casts:
            name = f"{self.graph.nodes[entry[0]].name}_{kind}"
            new = self.graph.add("Cast", name, [entry], dtype=kind)
            self._casts[entry, kind] = self._halved(new) if kind == HALF else new
        return self._casts[entry, kind]

    def _is_product(self, node: Node) -> bool:
        """Tell whether a node multiplies by trained weights, other than a loss's."""
        if node.op not in PRODUCTS:
            return False
        trained = self._variables(node.inputs[1][0]) - self._inputs
        return bool(trained) and not any(name.startswith(LOSS_PREFIXES) for name in trained)

    def _variables(self, i: int) -> set[str]:
        """Return the names of all variables that a node of the old graph depends on."""
        node = self.source.nodes[i]
        if node.is_variable:
            return {node.name}
        return set().union(*(self._variables(j) for j, _ in node.inputs))

    def _half_variables(self) -> set[int]:
        """Return the parameters that nothing but products reads."""
        nodes = self.source.nodes
        by_products = {j for i in self._products for j, _ in nodes[i].inputs}
        by_others = {j for i, node in enumerate(nodes) if i not in self._products for j, _ in node.inputs}
        read = by_products - by_others
        return {i for i in read if nodes[i].is_variable and nodes[i].name not in self._inputs}
