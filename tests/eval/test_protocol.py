"""Evaluations of a user's own: what one gives is in tests/base/test_extending.py."""

import json

import numpy as np
import pytest

from latse.cli import main

FILE = """
import numpy as np
from latse.eval.protocol import Protocol


class Spread(Protocol):
    def images(self):
        return np.random.default_rng(0).integers(0, 256, {shape}, np.uint8)

    def judge(self, features):
        return {figures}
"""
SHAPE = (4, 3, 112, 112)


@pytest.fixture
def judge(tmp_path, capsys):
    def judge(*models, shape=SHAPE, figures="{'spread': features.std()}", name="Spread", more=()):
        path = tmp_path / "own.py"
        path.write_text(FILE.format(shape=shape, figures=figures))
        protocol = ["--protocol", f"{path}:{name}", "--json", str(tmp_path / "out.json"), *more]
        status = main(["eval", "--model", *models, *protocol])
        return status, "".join(capsys.readouterr())

    return judge


def test_each_model_is_judged_without_pairs(judge, tmp_path):
    np.save(tmp_path / "features-spread.npy", np.arange(8.0).reshape(4, 2))
    status, said = judge("pixels", f"own={tmp_path}/features-{{set}}.npy")
    assert status == 0
    report = json.loads((tmp_path / "out.json").read_text())
    assert report["sets"] == {}
    found = report["protocols"]["Spread"]
    assert found["images"] == 4
    assert found["results"]["own"] == {"spread": pytest.approx(np.arange(8).std())}
    assert said.splitlines()[3].split()[:3] == ["Spread", "own", "spread"]


@pytest.mark.parametrize(
    "named, sentence",
    [
        ({"shape": (4, 112, 112)}, "its images are uint8 (4, 112, 112), not uint8 (n, 3, 112, 112)"),
        ({"shape": (0, 3, 112, 112)}, "its images are uint8 (0, 3, 112, 112), not"),
        ({"figures": "{}"}, "own.py:Spread returns no figure"),
        ({"figures": "{'a': 'b'}"}, "own.py:Spread: ValueError: could not convert"),
        ({"figures": "1 / 0"}, "own.py:Spread: ZeroDivisionError"),
        ({"name": "Other"}, "own.py has no class Other over latse.eval.protocol.Protocol"),
        ({"more": ["--generated", "faces.png"]}, "there is no checkpoint among the models"),
    ],
)
def test_what_is_wrong_is_one_sentence(judge, named, sentence):
    status, said = judge("pixels", **named)
    assert status == 1 and sentence in said
