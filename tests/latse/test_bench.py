"""The benchmarks: what they compare is the same, and what they print and write is what they measured."""

import json

import mxnet as mx
import numpy as np
import pytest

from latse.bench import head, timing
from latse.cli import main


def test_all_heads_have_the_same_gradients():
    gradients = []
    for name in head.GRAPHS:
        executor = head._bound(name, classes=50, batch_size=6)
        head._step(executor)
        gradients.append([executor.grad_dict[key].asnumpy() for key in ("data", "fc7_weight")])
    *others, ours = gradients
    for other in others:
        for theirs, own in zip(other, ours):
            assert np.linalg.norm(theirs - own) < 1e-4 * np.linalg.norm(own)


def test_head_measures_and_writes(tmp_path, capsys):
    arguments = ["--classes", "3000", "--batch-size", "64", "--repeats", "2"]
    assert main(["bench", "head", *arguments, "--json", str(tmp_path / "head.json")]) == 0
    report = json.loads((tmp_path / "head.json").read_text())
    assert (report["classes"], report["batch_size"]) == (3000, 64) and "mxnet" in report["versions"]
    printed = capsys.readouterr().out
    for figure in report["figures"].values():
        assert 0 < figure["seconds"]["min"] <= figure["seconds"]["median"] <= figure["seconds"]["max"]
        assert f"{1000 * figure['seconds']['median']:.0f} (" in printed
    planned = {name: figure["planned_megabytes"] for name, figure in report["figures"].items()}
    assert 0 < planned["ours"] <= planned["one-hot"] / 2
    assert all(report["over_ours"][name]["min"] > 0 for name in ("one-hot", "one-hot, loss"))


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


def test_steps_are_run_in_turn_after_a_first_round():
    calls = []
    steps = {name: lambda name=name: calls.append(name) for name in "ab"}
    seconds = timing.in_turn(steps, 3)
    assert "".join(calls) == "ab" * 4
    assert {name: len(times) for name, times in seconds.items()} == {"a": 3, "b": 3}


def test_summaries():
    assert timing.summary([3.0, 1.0, 2.0]) == {"median": 2.0, "min": 1.0, "max": 3.0}
    assert timing.ratios([4.0, 9.0], [2.0, 3.0]) == [2.0, 3.0]
