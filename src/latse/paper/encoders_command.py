"""`latse encoders`: what networks there are and how large they are."""

from __future__ import annotations

import argparse
import math

from latse.errors import LatseError
from latse.models.parameters import needed_shapes
from latse.plan.cost import multiply_adds
from latse.plan.plan_graph import PlanGraph
from latse.symbols import encoders
from latse.symbols.encoders import gluoncv
from latse.text_table import aligned, markdown
from latse.train import network_check

HEAD = ["encoder", "parameters, M", "multiply-adds, M", "embedding"]


def run(args: argparse.Namespace) -> None:
    """Print the table; raise LatseError for a name or a network that `latse train` would refuse."""
    rows = [row(name) for name in args.names or ([] if args.gluoncv else encoders.ENCODERS)]
    if args.gluoncv:
        rows += fitting_rows()
    print((markdown if args.markdown else aligned)([HEAD, *rows]))


def row(name: str) -> list[str]:
    """Return the cells of an encoder; raises as `latse train` would."""
    encoder = encoders.create(name)
    symbol = network_check.checked(name, encoder)
    lean = network_check.checked(name, encoders.create(name, lean=True))
    network_check.check_trained(name, symbol, lean, network_check.IMAGE)
    graph = PlanGraph(symbol, network_check.IMAGE)
    trained = needed_shapes(symbol, **network_check.IMAGE)
    for statistics in symbol.list_auxiliary_states():
        del trained[statistics]
    computed = sum(multiply_adds(graph, i) for i in range(len(graph.nodes)) if not _is_slope(graph, i))
    sizes = [sum(map(math.prod, trained.values())), computed]
    return [name, *(f"{size / 1e6:.2f}" for size in sizes), str(encoder.embedding_size)]


def _is_slope(graph: PlanGraph, i: int) -> bool:
    """Tell whether node i is one of the 1x1 depthwise convolutions by which a PReLU is written."""
    node = graph.nodes[i]
    groups, filters = (node.attrs.get(key, "1") for key in ("num_group", "num_filter"))
    return node.op == "Convolution" and node.numbers("kernel", ()) == (1, 1) and groups == filters != "1"


def fitting_rows() -> list[list[str]]:
    """Return the rows of all classifiers of gluoncv's model zoo that take images of 112x112."""
    rows = []
    for name in gluoncv.classifiers():
        try:
            rows.append(row(gluoncv.PREFIX + name))
        except LatseError:
            continue
    return rows
