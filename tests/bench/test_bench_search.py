import json

import numpy as np
import pytest

from latse.bench.search_command import disagreements, made_up
from latse.cli import main
from latse.errors import LatseError
from latse.eval.identification import identify

pytest.importorskip("faiss")


def test_bench_search_writes_both_times_and_finds_equal_ranks(tmp_path, capsys):
    small = ["--probes", "40", "--distractors", "2000", "--dimensions", "64", "--people", "10"]
    out = tmp_path / "search.json"
    assert main(["bench", "search", *small, "--repeats", "1", "--json", str(out)]) == 0
    report = json.loads(out.read_text())
    assert report["kind"] == "bench search"
    assert report["setting"]["pairs"] == 40 * 3
    ours, theirs = (report["contenders"][name] for name in ("latse", "faiss"))
    assert 0 < ours["rank 1"]["median"] <= 1
    time, ranks = report["goals"]
    assert (ranks["figure"]["median"], ranks["at_most"]) == (0, 0)
    assert time["figure"]["median"] == pytest.approx(ours["search"]["median"] / theirs["search"]["median"])
    assert "0 of 120 ranks differ" in capsys.readouterr().out


def test_a_place_that_cannot_be_written_is_known_before_the_work(tmp_path, capsys, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("latse.bench.search_command.made_up", lambda *_: pytest.fail("the work began"))
    assert main(["bench", "search", "--json", str(tmp_path / "file" / "search.json")]) == 1
    assert "cannot make the folder" in capsys.readouterr().err


def test_figures_are_written_before_they_are_printed(tmp_path, capsys, monkeypatch):
    def refuse(*_):
        raise LatseError("no space")

    monkeypatch.setattr("latse.bench.benchmark.write_json", refuse)
    small = ["--probes", "4", "--distractors", "20", "--dimensions", "8", "--people", "2", "--repeats", "1"]
    assert main(["bench", "search", *small, "--json", str(tmp_path / "search.json")]) == 1
    printed = capsys.readouterr()
    assert printed.out == "" and "no space" in printed.err


def test_a_wrong_rank_is_noticed():
    probes, pairs, gallery = made_up(12, 4, 300, 32, 0.7)
    nearest = np.argsort(-(probes @ gallery.T), axis=1)[:, :50]
    result = identify(probes, pairs, gallery)
    assert disagreements(result, probes, pairs, gallery, nearest) == (24, 0)
    result.ranks[-1, 3] = 1 + result.ranks[-1, 3] % 20
    assert disagreements(result, probes, pairs, gallery, nearest) == (24, 1)


def test_numbers_below_one_are_refused(capsys):
    assert main(["bench", "search", "--probes", "0"]) == 1
    assert "--probes is 0, must be 1 to 2147483647" in capsys.readouterr().err
