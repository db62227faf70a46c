import json
import shutil
from itertools import islice

import numpy as np
import pytest

from latse.bench.bank_command import random_people
from latse.bench.result import read
from latse.cli import main

SMALL = ["--people", "30", "--batch-size", "4", "--batches", "3", "--repeats", "2"]


@pytest.fixture
def bench_bank(tmp_path):
    """Run `latse bench bank` on a small bank; return its exit status, and its result's file."""
    out = tmp_path / "results" / "bank.json"
    (tmp_path / "disk").mkdir()

    def run(*options):
        place = ["--folder", str(tmp_path / "disk"), "--json", str(out)]
        return main(["bench", "bank", *SMALL, *place, *options]), out

    return run


def test_the_figures_and_goals_of_a_small_bank(bench_bank, tmp_path, capsys):
    status, out = bench_bank("--step", "2")
    assert status == 0
    report = json.loads(out.read_text())
    figures = report["contenders"]["mean-face bank"]
    updates = {name: len(one["values"]) for name, one in figures.items() if name.startswith("update")}
    assert updates == {
        "update, new rows": 6,
        "update, warm rows": 6,
        "update, cold rows": 6,
        "update, 2 processes": 12,
    }
    goals = {goal["text"]: goal["figure"]["median"] for goal in report["goals"]}
    cold = figures["update, cold rows"]["median"]
    assert goals["update over the training step, cold rows, by image"] == pytest.approx(cold / 2)
    assert read(out).setting["people"] == "30"
    assert capsys.readouterr().out.count(", at most 1 s: ") == 3 and len(goals) == 5
    assert not list((tmp_path / "disk").iterdir())


@pytest.mark.slow
def test_without_a_step_given_one_of_the_recipe_is_measured(bench_bank, tiny):
    status, out = bench_bank("--recipe", str(tiny), "--step-batch-size", "2", "--workers", "1")
    assert status == 0
    report = json.loads(out.read_text())
    step = report["contenders"]["training step"]["step of an image"]
    assert len(step["values"]) == 2
    cold = report["contenders"]["mean-face bank"]["update, cold rows"]["median"]
    assert report["goals"][3]["figure"]["median"] == pytest.approx(cold / 4 / step["median"])


def test_a_disk_that_is_too_small_is_refused(bench_bank, monkeypatch, capsys):
    usage = shutil.disk_usage(".")
    monkeypatch.setattr("latse.bench.bank_command.shutil.disk_usage", lambda _: usage._replace(free=10**6))
    monkeypatch.setattr("latse.bench.bank_command._round", lambda *_: pytest.fail("the work began"))
    status, out = bench_bank()
    assert status == 1
    assert "has 0.001 GB free, the bank takes 0.00768 GB" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    ("option", "error"),
    [
        (("--people", "0"), "--people"),
        (("--workers", "0"), "--workers"),
        (("--step", "0"), "--step must be"),
        (("--batch-size", "31"), "31 images of different people"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(bench_bank, capsys, option, error):
    assert bench_bank(*option)[0] == 1
    assert error in capsys.readouterr().err


def test_a_failing_worker_leaves_no_folder_behind(bench_bank, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("latse.bench.contender.sys.executable", "false")
    assert bench_bank("--step", "1")[0] == 1
    assert "worker 1 ended with status 1" in capsys.readouterr().err
    assert not list((tmp_path / "disk").iterdir())


def test_nobody_is_drawn_twice_before_everybody_was_once():
    batches = list(islice(random_people(7, 3, 0), 7))
    drawn = np.concatenate(batches)
    for start in (0, 7, 14):
        assert sorted(drawn[start : start + 7]) == list(range(7))
