"""A memory plan as a small JSON file: which nodes of which graph are computed again."""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any, Mapping

import mxnet as mx

from latse.errors import LatseError
from latse.files import read_json, write_json
from latse.plan.graph import PLAN_ATTRIBUTES, rewritten

KIND = "memory plan"


def digest(symbol: mx.sym.Symbol) -> str:
    """Return 32 hexadecimal digits that stand for the structure of a graph.

    Operators, their settings and connexions, the names of variables and the outputs count; names of other
    nodes, which depend on how often a network was traced, and the marks of a plan do not.
    """
    content = json.loads(symbol.tojson())
    nodes = [
        [
            node["op"],
            node["name"] if node["op"] == "null" else None,
            sorted(item for item in node.get("attrs", {}).items() if item[0] not in PLAN_ATTRIBUTES),
            [entry[:2] for entry in node["inputs"]],
        ]
        for node in content["nodes"]
    ]
    text = json.dumps([nodes, [entry[:2] for entry in content["heads"]]], separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


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
    if not isinstance(content, dict) or content.get("kind") != KIND:
        raise LatseError(f"{path} is no memory plan")
    if content.get("graph") != digest(symbol):
        raise LatseError(f"{path} is the memory plan of another graph: make one with latse plan")
    count = len(json.loads(symbol.tojson())["nodes"])
    parts = [content.get(key) for key in ("recomputed", "kept", "read")]
    if not all(isinstance(part, list) and all(_is_index(i, count) for i in part) for part in parts):
        raise LatseError(f"{path} is damaged: 'recomputed', 'kept' and 'read' must be lists of nodes")
    return rewritten(symbol, *parts)


def _is_index(value: Any, count: int) -> bool:
    return type(value) is int and 0 <= value < count
