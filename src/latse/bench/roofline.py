"""A contender that does only what a training step must multiply: its convolutions and dense layers.

Each distinct layer (shapes and stride) is bound alone, forward and backward, and counts as often as the
network has it. A convolution stands between two 1x1 deconvolutions, so that what it reads and writes is in
oneDNN's blocked layouts as it is inside a network; its time is taken from MXNet's profiler, which measures
the operator itself, without the conversions of layout at the ends. 1x1 depthwise convolutions, by which a
PReLU can be written, do not count.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
from collections import Counter
from typing import Any, Mapping, NamedTuple, Sequence

import mxnet as mx

from latse.bench import equivalents
from latse.bench.protocol import Step
from latse.graph.nodes import Node
from latse.plan.plan_graph import PlanGraph
from latse.symbols.networks import IMAGE_SHAPE

NEIGHBOUR = 16  # channels on the far sides of the neighbours, one block of AVX-512
RUNS = 3  # of each layer in a step; the median counts


class Layer(NamedTuple):
    """A layer as far as its time depends on it; `learns_input`: whether its input gets a gradient."""

    operator: str
    data: tuple[int, ...]
    weight: tuple[int, ...]
    stride: int
    learns_input: bool


def layers(symbol: mx.sym.Symbol, shapes: Mapping[str, Sequence[int]]) -> Counter[Layer]:
    """Count the ungrouped convolutions and the dense layers of a training Symbol with any outputs.

    `shapes` are those of all inputs; a layer that reads one by way of no parameter does not learn its input.
    """
    graph = PlanGraph(symbol, shapes)
    counted: Counter[Layer] = Counter()
    for node in filter(is_layer, graph.nodes):
        data, weight = (graph.shapes[i][output] for i, output in node.inputs[:2])
        learns_input = graph.trained[node.inputs[0][0]]
        counted[Layer(node.op, data, weight, node.numbers("stride", (1,))[0], learns_input)] += 1
    return counted


def is_layer(node: Node) -> bool:
    """Tell whether a node is an ungrouped convolution or a dense layer."""
    return node.op in ("Convolution", "FullyConnected") and node.attrs.get("num_group", "1") == "1"


def bound(layer: Layer) -> mx.executor.Executor:
    """Return the executor of one layer alone, with random arrays."""
    data = mx.sym.var("data")
    if layer.operator == "Convolution":
        symbol, shape = _between_deconvolutions(data, layer)
    else:
        symbol = mx.sym.FullyConnected(data, num_hidden=layer.weight[0], no_bias=True)
        shape = layer.data
    requests = dict.fromkeys(symbol.list_arguments(), "write")
    if layer.operator == "Convolution" or not layer.learns_input:
        requests["data"] = "null"
    executor = symbol.simple_bind(mx.cpu(), requests, data=shape)
    for array in executor.arg_arrays:
        mx.nd.random.normal(0, 0.05, shape=array.shape, out=array)
    return executor


def _between_deconvolutions(data: mx.sym.Symbol, layer: Layer) -> tuple[mx.sym.Symbol, tuple[int, ...]]:
    """Return a convolution with its neighbours, and the shape of the input."""
    number, channels, *size = layer.data
    filters, _, *kernel = layer.weight
    neighbour = {"kernel": (1, 1), "no_bias": True}
    if layer.learns_input:
        data = mx.sym.Deconvolution(data, num_filter=channels, **neighbour)
        channels = NEIGHBOUR
    stride, pad = (layer.stride, layer.stride), tuple(side // 2 for side in kernel)
    x = mx.sym.Convolution(data, num_filter=filters, kernel=kernel, stride=stride, pad=pad, no_bias=True)
    return mx.sym.Deconvolution(x, num_filter=NEIGHBOUR, **neighbour), (number, channels, *size)


def measure(executor: mx.executor.Executor, operator: str) -> float:
    """Run an executor forward and backward; return the seconds that its `operator` took."""
    mx.profiler.dumps(reset=True)
    executor.forward(is_train=True)
    executor.backward(executor.outputs)
    mx.nd.waitall()
    operators = json.loads(mx.profiler.dumps(reset=True, format="json"))["Time"]["operator"]
    return sum(operators[name]["Total"] for name in (operator, f"_backward_{operator}")) / 1000


def contender(encoder: str, classes: int, batch_size: int) -> tuple[dict[str, Any], Step]:
    """Return the layers of an encoder with ArcFace's head, as `latse.bench.protocol.serve` takes them."""
    os.environ["MXNET_EXEC_BULK_EXEC_TRAIN"] = "0"  # else the profiler sees several operators as one
    shapes = {"data": (batch_size, *IMAGE_SHAPE), equivalents.LABEL: (batch_size,)}
    counted = layers(equivalents.training_symbol(encoder, classes, batch_size), shapes)
    executors = {layer: bound(layer) for layer in counted}
    folder = tempfile.TemporaryDirectory(prefix="latse-roofline-")  # gone with the process
    mx.profiler.set_config(
        profile_symbolic=True, aggregate_stats=True, filename=f"{folder.name}/profile.json"
    )
    mx.profiler.set_state("run")

    def step() -> dict[str, float]:
        each = {
            layer: statistics.median(measure(executor, layer.operator) for _ in range(RUNS))
            for layer, executor in executors.items()
        }
        return {"seconds": sum(count * each[layer] for layer, count in counted.items())}

    return {"planned_megabytes": None, "parameters": 0}, step
