"""What a node of a graph costs: the time of its forward pass as a plan counts it.

The same graph has the same cost on every machine and at every run, so that it has the same plan. Only the
ratio of the two constants matters: how many multiply-adds take as long as moving a byte.
"""

from __future__ import annotations

import math

from latse.plan.plan_graph import PlanGraph

# One Zen 4 core with AVX-512, fp32: a 3x3 convolution of 64 to 64 channels at 16x112x112 takes 127 ms, an
# addition of two such arrays 12 ms. GPUs have ratios of the same size.
MULTIPLY_ADDS_PER_SECOND = 58e9
BYTES_PER_SECOND = 13e9

# The backward pass of a node by its forward pass: a gradient for the input and one for the weights.
BACKWARD = 2.0


def forward_seconds(graph: PlanGraph, i: int) -> float:
    """Return the seconds that the forward pass of node i takes: what it computes or what it moves."""
    read = [graph.sizes[j][k] for j, k in graph.nodes[i].inputs if k < len(graph.sizes[j])]
    moved = sum(graph.sizes[i]) + sum(read)
    return max(multiply_adds(graph, i) / MULTIPLY_ADDS_PER_SECOND, moved / BYTES_PER_SECOND)


def multiply_adds(graph: PlanGraph, i: int) -> int:
    """Return how many multiplications the forward pass of node i takes; 0 of one that moves bytes."""
    node = graph.nodes[i]
    operator = node.op
    shapes: list[tuple[int, ...]] = [
        graph.shapes[j][k] if k < len(graph.shapes[j]) else () for j, k in node.inputs
    ]
    result = math.prod(graph.shapes[i][0]) if graph.shapes[i] else 0
    if operator == "Convolution":
        return result * math.prod(shapes[1][1:])
    if operator == "Deconvolution":  # each value of the input meets each weight of its channel
        return math.prod(shapes[0]) * math.prod(shapes[1][1:])
    if operator == "FullyConnected":
        return result * shapes[1][-1]
    if operator in ("dot", "batch_dot"):
        rows = 0 if operator == "dot" else -2
        return result * shapes[0][rows if node.is_true("transpose_a") else -1]
    if operator == "Custom" and len(shapes) > 1 and len(shapes[0]) == len(shapes[1]) == 2:
        return math.prod(shapes[0]) * shapes[1][0]  # a classifier: every sample with every class centre
    return 0
