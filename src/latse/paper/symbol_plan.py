"""`latse plan --symbol`: the memory plan of any training graph of MXNet."""

from __future__ import annotations

import argparse
import re
from collections import Counter
from pathlib import Path
from typing import Mapping

import mxnet as mx

from latse.devices import contexts
from latse.errors import LatseError, nearest
from latse.files import existing, write_json, write_text
from latse.models.checkpoint import load_symbol
from latse.paper.plan_command import budget_of, comparison
from latse.plan import memonger
from latse.provenance import provenance


def run(args: argparse.Namespace) -> None:
    """Plan the graph for one device and write the plan; raise LatseError for bad input."""
    source, shapes = Path(args.symbol), _shapes(args.shape)
    for path in filter(None, (args.out, args.planned, args.json)):
        if Path(path).resolve() == source.resolve():
            raise LatseError(f"{path} would replace the graph itself: choose another name")
    devices = contexts(args)
    symbol = load_symbol(existing("the graph", source))
    _check(source, symbol, shapes)
    planned = memonger.plan(symbol, shapes, devices[0], budget_of(args), progress=True)
    origin = provenance(args, devices)
    out = Path(args.out or Path("out", "plan", f"{source.stem.replace('-symbol', '')}-plan.json"))
    memonger.write_plan(out, planned, origin)
    if args.planned:
        write_text(args.planned, planned.symbol.tojson())
    if args.json:
        write_json(args.json, {"kind": "symbol plan", "provenance": origin, **planned.as_json()})
    print(*comparison(planned, str(devices[0])), f"memory plan: {out}", sep="\n")


def _check(source: Path, symbol: mx.sym.Symbol, shapes: Mapping[str, tuple]) -> None:
    """Raise LatseError unless shapes are given, of inputs that the graph has, each once."""
    there = symbol.list_arguments()
    first = f"those of {source} begin with {', '.join(there[:8])}"
    if not shapes:
        raise LatseError(f"name the shape of each input with --shape; {first}")
    twice = [name for name, times in Counter(there).items() if times > 1]
    if twice:
        raise LatseError(f"{source} has several inputs called {twice[0]}, which MXNet cannot tell apart")
    for name in shapes:
        if name not in there:
            raise LatseError(f"--shape {name}: there is no such input; {first}{nearest(name, there)}")


def _shapes(given: list[str]) -> dict[str, tuple]:
    """Return the shapes that `--shape` gives, by name of the input."""
    shapes: dict[str, tuple] = {}
    for text in given:
        name, equals, sizes = text.rpartition("=")
        if not equals or not name or not re.fullmatch(r"[1-9][0-9]{0,9}(,[1-9][0-9]{0,9})*", sizes):
            raise LatseError(f"--shape {text}: write NAME=N,N,…, as data=32,3,112,112")
        if name in shapes:
            raise LatseError(f"--shape names {name} twice")
        shapes[name] = tuple(map(int, sizes.split(",")))
    return shapes
