"""Symbol files before MXNet's parser: real ones pass, and what would lead it astray is a sentence."""

import json

import mxnet as mx
import pytest

from latse.errors import LatseError
from latse.models.symbol_file import check_symbol
from latse.symbols import encoders
from latse.symbols.margins.head import OPERATOR
from latse.symbols.networks import trace


def graph(*nodes, heads=((2, 0, 0),)):
    """A graph of two variables and the given nodes, as JSON."""
    variables = [{"op": "null", "name": name, "inputs": []} for name in ("data", "weight")]
    return json.dumps({"nodes": [*variables, *nodes], "arg_nodes": [0, 1], "heads": [*map(list, heads)]})


def node(op="FullyConnected", inputs=((0, 0, 0), (1, 0, 0)), **attributes):
    attributes = attributes or {"num_hidden": "3", "no_bias": "True"}
    return {"op": op, "name": "fc", "inputs": [*map(list, inputs)], "attrs": attributes}


@pytest.mark.parametrize("name", ["resnet_tiny", "resnet50", "y1"])
def test_the_symbols_of_encoders_are_taken(name):
    check_symbol(trace(encoders.create(name)).tojson(), "x-symbol.json")


def test_our_own_operator_in_python_is_taken():
    check_symbol(graph(node("Custom", op_type=OPERATOR)), "x-symbol.json")


def test_what_mxnet_writes_and_wrote_is_taken():
    split = mx.sym.SliceChannel(mx.sym.var("data"), num_outputs=3)
    joined = mx.sym.concat(split[2], mx.sym.BatchNorm(split[1]), mx.sym.topk(split[0], ret_typ="both")[1])
    with mx.AttrScope(ctx_group="a", force_mirroring="True"):
        grouped = mx.sym.Group([joined, split[2]])
    for symbol in (split, joined, grouped, joined.get_internals()):
        check_symbol(symbol.tojson(), "x-symbol.json")
    old = node()
    old["param"], old["attr"] = old.pop("attrs"), {"lr_mult": "2"}
    old["inputs"] = [[0, 0], [1, 0]]
    check_symbol(graph(old, heads=((2, 0),)), "x-symbol.json")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "holds no MXNet symbol (Expecting property name"),
        ("[" * 100_000, "it is nested too deeply"),
        ("[]", "x-symbol.json: it is [], must be an object with keys"),
        ('{"nodes": []}', "nodes is [], must be a list of at least 1"),
        (graph(node(inputs=((0, -1, 0), (1, 0, 0)))), "inputs[0][1] is -1, must be a whole number"),
        (
            graph(node(inputs=((0, 2**40, 0), (1, 0, 0)))),
            "is output 1099511627776 of node 0, which has fewer",
        ),
        (
            graph(node(inputs=((0, 0, 0), (2, 0, 0)))),
            "of node 2, 'fc' is of node 2, which does not come before it",
        ),
        (graph(node(), heads=((3, 0, 0),)), "an output of the graph is of node 3"),
        (graph(node(), heads=((2, 1, 0),)), "an output of the graph is output 1 of node 2, which has fewer"),
        (graph(node("Custom", op_type="mine")), "is the operator Custom, which is not read from files"),
        (graph(node("_cvimread", filename="/etc/passwd")), "is the operator _cvimread, which is not read"),
        (graph(node("_foreach")), "is the operator _foreach, which is not read from files"),
        (graph(node("NoSuch")), "is 'NoSuch', which is no operator of MXNet"),
        (graph(node("Fully\0Connected")), "which is no operator of MXNet"),
        (graph(node("Convolution", num_group="0")), "has num_group 0, must be at least 1"),
        (graph(node("Convolution", stride="(1, 0)")), "has stride (1, 0), must be at least 1"),
        (graph(node("Pooling", pad="(0, -2)")), "has pad (0, -2), must be at least 0"),
        (graph(node("add_n", num_args="7")), "has num_args 7 and 2 inputs"),
        (graph({**node(), "attrs": {"num_hidden": 3}}), "has attrs that are no texts by name"),
        (
            graph(node()).replace('"arg_nodes": [0, 1]', '"arg_nodes": [0, 2]'),
            "arg_nodes names node 2, which is",
        ),
        (
            graph(node()).replace('"arg_nodes": [0, 1]', '"arg_nodes": [9]'),
            "arg_nodes names node 9, which is",
        ),
    ],
)
def test_what_leads_astray_is_refused(text, sentence):
    with pytest.raises(LatseError) as error:
        check_symbol(text, "x-symbol.json")
    assert sentence in str(error.value) and str(error.value).startswith("x-symbol.json")
    assert str(error.value).isprintable()


def test_a_file_of_any_length_is_not_parsed(monkeypatch):
    monkeypatch.setattr("latse.models.symbol_file.MOST_CHARACTERS", 10)
    with pytest.raises(LatseError, match="holds no MXNet symbol"):
        check_symbol(graph(node()), "x-symbol.json")
