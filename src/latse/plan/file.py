"""A memory plan as a small JSON file: which nodes of which graph are computed again."""

from __future__ import annotations

import os
from typing import Any, Mapping

import mxnet as mx

from latse.errors import LatseError
from latse.files import read_json, write_json
from latse.form import TEXT, Leaf, Rows, check, shown
from latse.graph.nodes import Graph
from latse.plan.plan_graph import PLAN_ATTRIBUTES, Marks

KIND = "memory plan"
MARKS = ("recomputed", "kept", "read")  # keys with nodes


def digest(graph: Graph) -> str:
    """Return 32 hexadecimal digits that stand for a graph without the marks of a plan."""
    return graph.digest(without=PLAN_ATTRIBUTES)


def write_plan(path: str | os.PathLike, plan: Any, provenance: Mapping[str, Any] | None = None) -> None:
    """Write a plan for `read_plan`, atomically.

    Parameters
    ----------
    path : path
        The JSON file.
    plan : latse.plan.memonger.Plan
        As `latse.plan.memonger.plan` found it.
    provenance : mapping, optional
        Where the plan comes from, as `latse.provenance.provenance` says.

    Raises
    ------
    LatseError
        If the file cannot be written.
    """
    content = {"kind": KIND, **plan.as_json(), **({"provenance": provenance} if provenance else {})}
    write_json(path, content)


def read_plan(path: str | os.PathLike, symbol: mx.sym.Symbol) -> mx.sym.Symbol:
    """Return the graph with the marks of a plan that was made for it.

    Parameters
    ----------
    path : path
        What `write_plan` wrote.
    symbol : mx.sym.Symbol
        The graph as it is traced; it is not altered.

    Raises
    ------
    LatseError
        If the file cannot be read, is no memory plan, or is that of another graph.
    """
    content = read_json(path)
    kind = content.get("kind") if isinstance(content, dict) else None
    if kind != KIND:
        raise LatseError(f'{path} is no memory plan: its kind is {shown(kind)}, must be "{KIND}"')
    check(path, content, {"graph": TEXT})
    graph = Graph.read(symbol)
    if content["graph"] != digest(graph):
        raise LatseError(f"{path} is the memory plan of another graph: make one with latse plan")
    last = len(graph.nodes) - 1
    node = Leaf(f"a node of the graph, 0 to {last}", lambda value: type(value) is int and 0 <= value <= last)
    check(path, content, dict.fromkeys(MARKS, Rows(node)))
    return Marks(*(content[key] for key in MARKS)).on(symbol)
