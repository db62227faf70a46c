"""A network in a user's file: checked before the first iteration, then trained, kept and read like others."""

import json

import numpy as np
import pytest

from latse import cli
from latse.models.embedding import Network

SOURCE = '''"""A network of a few thousand numbers."""

import itertools

from mxnet.gluon import nn

from latse.symbols.encoders import Encoder

COUNTER = itertools.count()


class Own(Encoder):
    """Features by two convolutions."""

    embedding_size = 24

    def features(self):
        body = nn.HybridSequential()
        with body.name_scope():
            body.add(nn.Conv2D(4, 3, 4, 1), nn.BatchNorm(), nn.Activation("relu"), nn.Conv2D(6, 3, 4, 1))
        return body
'''


@pytest.fixture
def recipe(tmp_path, tiny):
    """Write a recipe beside `own.py`, the source with a part of it replaced, that trains its class `Own`."""

    def make(*replaced, source=SOURCE):
        for before, after in replaced:
            assert before in source
            source = source.replace(before, after)
        folder = tmp_path / "mine"
        folder.mkdir(exist_ok=True)
        (folder / "own.py").write_text(source)
        path = folder / "own.yaml"
        path.write_text(f"base: {tiny}\nencoder: {{name: own.py:Own}}\ntrain: {{iterations: 2}}\n")
        return path

    return make


@pytest.fixture
def latse(tmp_path, monkeypatch):
    """Run `latse` in the test's folder and return its exit status."""
    monkeypatch.chdir(tmp_path)
    return lambda *words: cli.main([*map(str, words)])


@pytest.fixture
def train(latse, people):
    """Train a recipe into the folder `run`; return the exit status."""
    return lambda recipe, *options, out="run": latse(
        "train", recipe, "--data", people, "--out", out, *options
    )


def test_a_network_of_ones_own_is_kept_and_read_as_any_other(recipe, latse, train, people, tmp_path, capsys):
    path = recipe()
    assert train(path) == 0
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["settings"]["encoder"] == {"name": "own.py:Own", "dropout": 0.4}
    assert len(record["encoder"]) == 32
    assert Network("run/model", 0)(np.zeros((3, 3, 112, 112), np.uint8)).shape == (3, 24)
    assert latse("export", "run/model,0", "--plain", "plain") == 0
    assert latse("plan", path, "--classes", 5, "--out", "plan.json") == 0
    assert train(path, "--plan", "plan.json", "--start", "run/model,0", out="planned") == 0
    assert "run/model,0: encoder " in capsys.readouterr().out
    assert latse("filter", "--data", people, "--teacher", "run/model,0", "--out", "verdicts") == 0
    assert train(path, "--set=filter.k=5", "--verdicts", "verdicts", out="student") == 0
    assert train(path, "--resume") == 0
    assert "the run is finished, 2 iterations" in capsys.readouterr().out
    recipe(("nn.Conv2D(4,", "nn.Conv2D(5,"))
    assert train(path, "--resume") == 1
    assert "holds a run with another encoder (" in capsys.readouterr().err


WIDE = """    def __init__(self, lean=False, width=4):
        self._width = width
        super().__init__(lean)

    def features"""


def test_a_whole_number_is_a_networks_own_parameter(recipe, latse, train, tmp_path, capsys):
    path = recipe(("    def features", WIDE), ("nn.Conv2D(4,", "nn.Conv2D(self._width,"))
    assert latse("encoders", "list", "mine/own.py:Own") == 0
    assert train(path, "--set=encoder.width=5") == 0
    printed = capsys.readouterr().out
    left = "run holds model-symbol.json, model-0000.params, run.json, metrics.jsonl and train.log"
    assert printed.splitlines()[-3] == left
    assert Network("run/model", 0)(np.zeros((3, 3, 112, 112), np.uint8)).shape == (3, 24)
    assert train(path, "--set=encoder.width=4.5", out="half") == 1
    assert "encoder.width: width is 4.5, must be a whole number as its" in capsys.readouterr().err


def test_the_list_of_encoders_refuses_what_training_does(recipe, latse, capsys):
    recipe((BODY, 'nn.HybridSequential(prefix=f"body{next(COUNTER)}_")'))
    assert latse("encoders", "list", "mine/own.py:Own") == 1
    assert "which no iteration trains" in capsys.readouterr().err


OWN_FORWARD = """    def hybrid_forward(self, F, data):
        {}

    def features"""
FORWARD = "    def features"
IN_PREFIX = """    def __init__(self, lean=False, dropout=0.4):
        super(Encoder, self).__init__()
        self.body = self.features()

    def hybrid_forward(self, F, data):
        return F.identity(F.mean(self.body(data), axis=(2, 3)), name="fc1")

    def features"""
BODY, FIRST, LAST = "nn.HybridSequential()", "nn.Conv2D(4, 3, 4, 1)", "nn.Conv2D(6, 3, 4, 1)"
EMBEDDING = """    def embedding(self, dropout):
        return nn.Dense(23, prefix="pre_fc1_")

    def features"""
LATE = """    def __init__(self, lean=False, width=4):
        super().__init__(lean)
        self._width = width

    def features(self):
        return nn.Conv2D(self._width, 3, 4, 1)

    def unused"""
WRONG = {
    "its output is called otherwise": (
        (FORWARD, IN_PREFIX),
        "has the output own0_fc1_output, not fc1_output: override `features` and `embedding`, or call the "
        "last operator fc1 in a block whose prefix is empty",
    ),
    "it has two outputs": (
        (FORWARD, OWN_FORWARD.format("return F.identity(data, name='fc1'), F.identity(data, name='fc2')")),
        "has the output fc1_output, fc2_output, not fc1_output: ",
    ),
    "its blocks count": (
        (BODY, 'nn.HybridSequential(prefix=f"body{next(COUNTER)}_")'),
        "_conv0_weight, which no iteration trains, as two such networks have other names: give each block a "
        "prefix that is always the same",
    ),
    "its blocks grow": (
        (FIRST, "nn.Conv2D(4 + next(COUNTER), 3, 4, 1)"),
        ", 3, 3, 3) is its shape where it is trained: two such networks must be alike",
    ),
    "two variables of one name": (
        (FORWARD, OWN_FORWARD.format("return F.identity(data * F.var('more') * F.var('more'), name='fc1')")),
        "has two variables called more: give one another name",
    ),
    "a name of the class centres": (
        (BODY, 'nn.HybridSequential(prefix="fc7_")'),
        "must not call a parameter fc7_conv0_weight: such names are a loss's, the decoder's or a second",
    ),
    "a name of what a loss remembers": (
        (FORWARD, OWN_FORWARD.format("return F.identity(data * F.var('scale_running'), name='fc1')")),
        "must not call a parameter scale_running: such names are a loss's, the decoder's or a second",
    ),
    "a length that it does not have": (
        (FORWARD, EMBEDDING),
        "has embeddings of shape (23,), but its embedding_size is 24",
    ),
    "no images": (
        (FORWARD, OWN_FORWARD.format("return F.identity(F.var('image'), name='fc1')")),
        ": its network has no input named 'data'",
    ),
    "no such images": (
        (LAST, "nn.Conv2D(6, 99)"),
        ": its network does not take 'data' of shape (3, 112, 112)",
    ),
    "it cannot be traced": (
        (FORWARD, OWN_FORWARD.format("return data.asnumpy()")),
        " cannot be traced: ",
    ),
    "no features": (
        ("def features", "def feature"),
        "own.py:Own' cannot be made: NotImplementedError: Own must say what its features are",
    ),
    "what its features read comes too late": (
        (FORWARD, LATE),
        "'Own' object has no attribute '_width'; what features and embedding read must be set before super()",
    ),
    "a margin that cannot be traced": (
        (
            "class Own(Encoder)",
            """from latse.symbols.margins import Margin


class Bare(Margin):
    pass


class Own(Encoder)""",
        ),
        "latse: the network of the recipe cannot be traced: NotImplementedError: Bare must say what its",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_could_not_be_read_again_is_refused_before_the_first_iteration(
    name, recipe, train, tmp_path, capsys
):
    replaced, sentence = WRONG[name]
    path = recipe(replaced)
    margin = [f"--set=margin.name={path.with_name('own.py')}:Bare"] if "margin" in name else []
    assert train(path, *margin) == 1
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1
    assert not (tmp_path / "run").exists()
