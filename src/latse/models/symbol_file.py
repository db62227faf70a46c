"""Symbol files, looked at before MXNet's parser sees them: it follows every number that is in one."""

from __future__ import annotations

import ast
import ctypes
import json
import re
from typing import Any, Mapping, Sequence

import mxnet as mx
from mxnet.base import _LIB, c_str, c_str_array, check_call

from latse.errors import LatseError
from latse.form import ANYTHING, COUNT, TEXT, Each, Form, Rows, check
from latse.symbols.margins.head import OPERATOR

MOST_CHARACTERS = 1 << 27
# Operators that run Python, read files or hold graphs of their own: no network of faces needs one.
REFUSED = re.compile(
    r"Custom|_CustomFunction|_Native|_NDArray|_foreach|_while_loop|_cond|_subgraph_op|_sg_.*|_FusedOp.*|"
    r"_TensorRT|_cv.*|_image_.*|_npi_load.*|_contrib_.*quantize.*|_backward_.*|CachedOp|_CachedOp.*"
)
# Attributes whose numbers divide sizes: MXNet does not look whether they are 0.
POSITIVE = {"kernel", "stride", "dilate", "num_group", "num_groups", "num_outputs", "num_args", "block_size"}
NOT_NEGATIVE = {"pad", "pad_width", "adj"}
ATTRIBUTES = ("attrs", "attr", "param")  # by the version of MXNet
FORM: Form = {
    "nodes": Rows({"op": TEXT, "name": TEXT, "inputs": Rows(Rows(COUNT, 2))}, 1),
    "arg_nodes": Rows(COUNT),
    "heads": Rows(Rows(COUNT, 2), 1),
    "node_row_ptr?": Rows(COUNT),
    "attrs?": Each(ANYTHING),
}


def check_symbol(text: str, path: str) -> None:
    """Raise LatseError, which names the file `path`, unless MXNet may parse the symbol in its `text`.

    Its nodes must be in order, each input and output one that there is, each operator one of MXNet's and none
    of `REFUSED`, and the numbers that divide sizes positive.
    """
    try:
        if len(text) > MOST_CHARACTERS:
            raise ValueError(f"{len(text):,} characters")
        graph = json.loads(text)
        check(path, graph, FORM)
        _check_graph(graph)
    except RecursionError as error:
        raise LatseError(f"{path} is damaged: it holds no MXNet symbol (it is nested too deeply)") from error
    except ValueError as error:
        raise LatseError(f"{path} is damaged or unreadable: it holds no MXNet symbol ({error})") from error


def _check_graph(graph: Mapping[str, Any]) -> None:
    nodes = graph["nodes"]
    for number, node in enumerate(nodes):
        called = f"node {number}, {node['name']!r}"
        attributes = _attributes(node, called)
        if node["op"] != "null":
            _check_operator(node["op"], attributes, called)
            _check_numbers(attributes, len(node["inputs"]), called)
        for entry in node["inputs"]:
            _check_entry(nodes, number, entry, f"an input of {called}")
    for entry in graph["heads"]:
        _check_entry(nodes, len(nodes), entry, "an output of the graph")
    for number in graph["arg_nodes"]:
        if number >= len(nodes) or nodes[number]["op"] != "null":
            raise ValueError(f"arg_nodes names node {number}, which is no variable")


def _attributes(node: Mapping[str, Any], called: str) -> dict[str, str]:
    found = {}
    for key in ATTRIBUTES:
        attributes = node.get(key, {})
        if not isinstance(attributes, dict) or not all(isinstance(text, str) for text in attributes.values()):
            raise ValueError(f"{called} has {key} that are no texts by name")
        found.update(attributes)
    return found


def _check_operator(name: str, attributes: Mapping[str, str], called: str) -> None:
    is_ours = name == "Custom" and attributes.get("op_type") == OPERATOR  # of a training graph
    if REFUSED.fullmatch(name) and not is_ours:
        raise ValueError(f"{called} is the operator {name}, which is not read from files")
    handle = ctypes.c_void_p()
    if "\0" in name or _LIB.NNGetOpHandle(c_str(name), ctypes.byref(handle)):
        raise ValueError(f"{called} is {name!r}, which is no operator of MXNet {mx.__version__}")


def _check_numbers(attributes: Mapping[str, str], inputs: int, called: str) -> None:
    for key in attributes.keys() & (POSITIVE | NOT_NEGATIVE):
        least = int(key in POSITIVE)
        if any(number < least for number in _numbers(attributes[key])):
            raise ValueError(f"{called} has {key} {attributes[key]}, must be at least {least}")
    if _numbers(attributes.get("num_args", "")) not in ([], [inputs]):
        raise ValueError(f"{called} has num_args {attributes['num_args']} and {inputs} inputs")


def _numbers(text: str) -> list[float]:
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return []  # MXNet says what is wrong with it
    values = value if isinstance(value, (tuple, list)) else [value]
    return [number for number in values if isinstance(number, (int, float))]


def _check_entry(nodes: Sequence[Mapping[str, Any]], limit: int, entry: Sequence[int], called: str) -> None:
    number, output = entry[0], entry[1]
    if number >= limit:
        raise ValueError(f"{called} is of node {number}, which does not come before it")
    if output and output >= _outputs(nodes[number]):
        raise ValueError(f"{called} is output {output} of node {number}, which has fewer")


def _outputs(node: Mapping[str, Any]) -> int:
    """Return how many outputs of a node others may read."""
    if node["op"] == "null":
        return 1
    attributes = {key: text for key, text in _attributes(node, "").items() if not key.startswith("__")}
    creator, handle, count = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_uint()
    check_call(_LIB.NNGetOpHandle(c_str(node["op"]), ctypes.byref(creator)))
    keys, values = c_str_array([*attributes]), c_str_array([*attributes.values()])
    try:
        check_call(
            _LIB.MXSymbolCreateAtomicSymbol(
                creator, ctypes.c_uint(len(attributes)), keys, values, ctypes.byref(handle)
            )
        )
    except mx.base.MXNetError as error:
        raise ValueError(
            f"the node {node['name']!r} has attributes that its operator does not take"
        ) from error
    symbol = mx.sym.Symbol(handle)
    check_call(_LIB.MXSymbolGetNumOutputs(symbol.handle, ctypes.byref(count)))
    return count.value
