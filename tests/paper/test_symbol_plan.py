"""`latse plan --symbol` plans a graph that is not of this project, and any MXNet trains by it."""

import json
import re

import gluoncv
import mxnet as mx
import numpy as np
import pytest

from latse.cli import main
from latse.plan import memonger

SHAPES = {"data": (4, 3, 64, 64), "softmax_label": (4,)}
WORDS = ["--shape", *(f"{name}={','.join(map(str, shape))}" for name, shape in SHAPES.items())]


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    """The file of GluonCV's mobilenetv2_0.25 with a loss."""
    path = tmp_path_factory.mktemp("graph") / "mobile-symbol.json"
    network = gluoncv.model_zoo.get_model("mobilenetv2_0.25", classes=10, pretrained=False)
    mx.sym.SoftmaxOutput(network(mx.sym.var("data")), name="softmax").save(str(path))
    return path


def plan(*words, status=0):
    assert main(["plan", *map(str, words)]) == status


def gradients(symbol):
    """Bind for training with the same parameters and images, and return the gradient of each parameter."""
    executor = symbol.simple_bind(
        mx.cpu(), {name: "null" if name in SHAPES else "write" for name in symbol.list_arguments()}, **SHAPES
    )
    random = np.random.default_rng(0)
    for name, array in sorted(executor.arg_dict.items()):
        array[:] = (
            random.integers(0, 10, 4) if name == "softmax_label" else 0.1 * random.normal(size=array.shape)
        )
    executor.forward(is_train=True)
    executor.backward()
    return {name: array.asnumpy() for name, array in executor.grad_dict.items() if array is not None}


def test_the_planned_graph_takes_less_and_computes_the_same(graph, tmp_path, capsys):
    out, planned, figures = (tmp_path / name for name in ("plan.json", "planned.json", "figures.json"))
    plan("--symbol", graph, *WORDS, "--out", out, "--planned", planned, "--json", figures)
    printed = capsys.readouterr().out
    before, after = map(float, re.search(r"(\d+) MiB without a plan, (\d+) MiB with this", printed).groups())
    plain, found = mx.sym.load(str(graph)), mx.sym.load(str(planned))
    assert memonger.planned_megabytes(found, SHAPES, mx.cpu()) == after < before
    assert memonger.read_plan(out, plain).tojson() == found.tojson() != plain.tojson()
    written = json.loads(figures.read_text())
    assert (written["kind"], written["after_megabytes"]) == ("symbol plan", after)
    expected, computed = gradients(plain), gradients(found)
    assert expected.keys() == computed.keys() == set(plain.list_arguments()) - SHAPES.keys()
    for name, gradient in expected.items():
        scale = np.abs(gradient).max()
        assert scale > 0 and np.abs(computed[name] - gradient).max() <= 1e-4 * scale, name


def test_the_plan_is_named_after_the_graph_and_has_a_budget(graph, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    plan("--symbol", graph, *WORDS, "--time", "1")
    assert "the plan computes nothing again" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "plan" / "mobile-plan.json").read_text())["recomputed"] == []


def test_inputs_of_one_name_are_refused(tmp_path, capsys):
    path = tmp_path / "twice.json"
    (mx.sym.var("mask") * mx.sym.var("data") + mx.sym.var("mask")).save(str(path))
    plan("--symbol", path, "--shape", "data=1,2", status=1)
    assert f"{path} has several inputs called mask, which MXNet cannot tell apart" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["--symbol", "{graph}"],
            "name the shape of each input with --shape; those of {graph} begin with data",
        ),
        (["--symbol", "{graph}", "--shape", "dat=1,2"], "--shape dat: there is no such input; "),
        (["--symbol", "{graph}", "--shape", "dat=1,2"], "; did you mean data?"),
        (
            ["--symbol", "{graph}", "--shape", "data=1,,2"],
            "--shape data=1,,2: write NAME=N,N,…, as data=32,3,",
        ),
        (["--symbol", "{graph}", "--shape", "data=0,2"], "--shape data=0,2: write NAME=N,N,…"),
        (["--symbol", "{graph}", "--shape", "data=1", "data=2"], "--shape names data twice"),
        (["--symbol", "{graph}", "--shape", "data=4,3"], "the shapes of the graph cannot be inferred"),
        (["--symbol", "{graph}", *WORDS, "--planned", "{graph}"], "would replace the graph itself"),
        (["--symbol", "{graph}", *WORDS, "--out", "{graph}"], "would replace the graph itself"),
        (["--symbol", "{graph}", *WORDS, "--json", "{graph}"], "would replace the graph itself"),
        (
            ["--symbol", "{graph}", *WORDS, "--out", "{graph}.a", "--planned", "{graph}.a"],
            "--out, --planned and --json must be different files",
        ),
        (
            ["--symbol", "{graph}", *WORDS, "--out", __file__],
            "test_symbol_plan.py is there and no JSON",
        ),
        (
            ["--symbol", "{graph}", *WORDS, "--planned", __file__],
            "test_symbol_plan.py is there and no JSON",
        ),
        (
            ["--symbol", "{graph}", *WORDS, "--classes", "3"],
            "--symbol is a graph of its own, without --classes",
        ),
        (["orl_student", "--symbol", "{graph}", *WORDS], "--symbol is a graph of its own, without RECIPE"),
        (["--symbol", "none.json", *WORDS], "the graph none.json is missing"),
        (["--symbol", __file__, *WORDS], "test_symbol_plan.py"),
        (["orl_student", "--classes", "3", *WORDS], "--shape and --planned go with --symbol"),
        (["orl_student"], "name a RECIPE with --data or --classes, or a graph with --symbol and --shape"),
        ([], "name a RECIPE with --data or --classes, or a graph with --symbol and --shape"),
    ],
)
def test_bad_input_is_one_sentence(graph, words, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    content = graph.read_bytes()
    plan(*(word.format(graph=graph) for word in words), status=1)
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("latse: ") and sentence.format(graph=graph) in said
    assert graph.read_bytes() == content and not list(tmp_path.iterdir())
