"""`latse bench head`: what it compares is the same, and what it prints and writes is what it measured."""

import json

import mxnet as mx
import numpy as np
import pytest

from latse.bench import head_command as head
from latse.bench.result import read
from latse.bench.timing import ratios
from latse.cli import main


def test_all_heads_have_the_same_gradients():
    gradients = []
    for name in head.GRAPHS:
        executor = head._bound(name, classes=50, batch_size=6)
        head.step(executor)
        gradients.append([executor.grad_dict[key].asnumpy() for key in ("data", "fc7_weight")])
    *others, ours = gradients
    for other in others:
        for theirs, own in zip(other, ours):
            assert np.linalg.norm(theirs - own) < 1e-4 * np.linalg.norm(own)


def test_head_measures_and_writes(tmp_path, capsys):
    arguments = ["--classes", "3000", "--batch-size", "64", "--repeats", "2"]
    assert main(["bench", "head", *arguments, "--json", str(tmp_path / "head.json")]) == 0
    report = json.loads((tmp_path / "head.json").read_text())
    assert report["kind"] == "bench head" and "mxnet" in report["provenance"]["versions"]
    setting = {"classes": 3000, "batch_size": 64, "repeats": 2}
    assert report["setting"] == {**setting, "threads": report["provenance"]["threads"]}
    printed = capsys.readouterr().out
    result = read(tmp_path / "head.json")
    for name, found in report["contenders"].items():
        step = found["step"]
        assert 0 < step["min"] <= step["median"] <= step["max"] and len(step["values"]) == 2
        assert result.contenders[name]["step"].in_words(1000) in printed
    planned = {name: found["planned memory"]["median"] for name, found in report["contenders"].items()}
    assert 0 < planned["ours"] <= planned["one-hot"] / 2
    *faster, memory, arrays = report["goals"]
    assert [one["at_least"] for one in faster] == [1.5, 1.5]
    for one, name in zip(faster, ("one-hot", "one-hot, loss")):
        times = [report["contenders"][which]["step"]["values"] for which in (name, "ours")]
        assert one["figure"]["values"] == ratios(*times)
    assert all(goal.in_words() in printed for goal in result.goals)
    assert memory["figure"]["median"] == pytest.approx(planned["ours"] / planned["one-hot"])
    assert arrays["figure"]["median"] == pytest.approx(planned["ours"] / (64 * 3000 * 4 / 2**20))


def test_the_heads_plan_is_one_array_of_logits():
    """At 85,742 people and 96 images: the goals are 2.2 such arrays, and half of what one-hot plans."""
    classes, batch_size = 85742, 96
    planned = {
        name: head.planned_megabytes(graph(classes), head._shapes(batch_size), mx.cpu())
        for name, graph in head.GRAPHS.items()
    }
    logits = batch_size * classes * 4 / 2**20
    assert planned["ours"] <= 2.2 * logits
    assert planned["ours"] <= planned["one-hot"] / 2


@pytest.mark.parametrize("wrong", [["--classes", "1"], ["--batch-size", "0"], ["--repeats", "0"]])
def test_a_size_out_of_range_is_one_sentence(wrong, capsys):
    assert main(["bench", "head", *wrong]) == 1
    assert capsys.readouterr().err.count("\n") == 1
