"""metrics.jsonl, the log, and what is left of them after a crash."""

import contextlib
import json
import resource
import subprocess
import sys
import time

import numpy as np
import pytest

from latse.errors import LatseError
from latse.train import metrics
from latse.train.metrics import FILE, Journal


@pytest.fixture
def journal(tmp_path):
    """Open a journal of ten iterations, closed at the end of the test."""
    opened = []

    def open_journal(start=0, every=2):
        opened.append(Journal(tmp_path, start, 10, 4, every))
        return opened[-1]

    yield open_journal
    for one in opened:
        one.close()


def read(folder):
    return [json.loads(line) for line in (folder / FILE).read_text().splitlines()]


def test_lines_that_are_damaged_are_removed(journal, tmp_path):
    good = b'{"iteration": 1, "loss": 2.0}\n'
    bad = [b'{"a": 1}', b"xx}", b"[1]", b"\xff}", b'{"iteration": null}', b"[" * 100_000]
    (tmp_path / FILE).write_bytes(good + b"".join(line + b"\n" for line in bad))
    journal(start=1)
    assert (tmp_path / FILE).read_bytes() == good


def test_a_line_is_the_mean_since_the_last_one(journal, tmp_path):
    one = journal()
    for iteration in range(1, 5):
        one.add(iteration, {"loss": np.array([iteration, iteration + 2.0])}, epoch=0, lr=0.1)
    first, second = read(tmp_path)
    assert (first["iteration"], first["loss"], first["epoch"], first["lr"]) == (2, 2.5, 0, 0.1)
    assert (second["iteration"], second["loss"]) == (4, 4.5)


def test_a_line_says_what_it_cost(journal, tmp_path):
    one, began = journal(), (time.perf_counter(), time.process_time())
    for iteration in range(1, 5):
        one.add(iteration, {"loss": np.ones(4)})
        sum(range(10**5))
    lines, costs = read(tmp_path), ("seconds", "cpu_seconds")
    for cost, begun, now in zip(costs, began, (time.perf_counter(), time.process_time())):
        assert 0 < sum(line[cost] for line in lines) <= now - begun + 0.01
    for line in lines:
        assert line["images_per_second"] == pytest.approx(2 * 4 / line["seconds"])
        assert 10 < line["peak_megabytes"] <= resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 + 1


def test_the_memory_of_the_parent_is_not_that_of_the_run(tmp_path):
    np.ones(10**8)  # 763 MiB
    program = (
        "import sys; from pathlib import Path; import numpy as np; from latse.train.metrics import Journal\n"
        "Journal(Path(sys.argv[1]), 0, 1, 1, 1).add(1, {'loss': np.ones(1)})"
    )
    subprocess.run([sys.executable, "-c", program, tmp_path], check=True)
    assert read(tmp_path)[0]["peak_megabytes"] < 500


@pytest.mark.parametrize("status", [None, "Name:\tpython\n"])
def test_without_a_peak_of_its_own_it_is_that_of_getrusage(journal, tmp_path, monkeypatch, status):
    proc = tmp_path / "status"
    if status:
        proc.write_text(status)
    monkeypatch.setattr(metrics, "STATUS", proc)
    journal(every=1).add(1, {"loss": np.ones(1)})
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    assert read(tmp_path)[0]["peak_megabytes"] == pytest.approx(peak, rel=0.1)


def test_a_line_that_is_due_comes_early_and_starts_the_next_mean(journal, tmp_path):
    one = journal(every=4)
    for iteration, due in ((1, False), (2, True), (3, False), (4, False)):
        one.add(iteration, {"loss": np.full(4, iteration)}, due=due)
    assert [(line["iteration"], line["loss"]) for line in read(tmp_path)] == [(2, 1.5), (4, 3.5)]


def test_lines_past_the_state_and_a_torn_one_are_forgotten(journal, tmp_path):
    lines = [json.dumps({"iteration": iteration, "loss": 1.5}) for iteration in (2, 4, 6)]
    (tmp_path / FILE).write_text("\n".join(lines) + '\n{"iteration": 4, "lo')
    journal(start=4)
    assert (tmp_path / FILE).read_text() == "".join(line + "\n" for line in lines[:2])


def test_a_new_run_starts_an_empty_file(journal, tmp_path):
    (tmp_path / FILE).write_text('{"iteration": 4}\n')
    journal()
    assert (tmp_path / FILE).read_text() == ""


def test_the_log_keeps_what_was_there(journal, tmp_path):
    one = journal()
    one.note("checkpoint 2")
    one.close()
    journal(start=2).note("checkpoint 4")
    text = (tmp_path / "train.log").read_text()
    assert [word in text for word in ("checkpoint 2", "iteration 2 of 10", "checkpoint 4")] == [True] * 3
    assert text.count("checkpoint 2") == 1


def test_a_full_disk_is_named(journal, tmp_path):
    one = journal(every=1)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
    try:
        with pytest.raises(LatseError, match=f"{FILE}: File too large"):
            one.add(1, {"loss": np.ones(4)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_log_that_cannot_be_written_is_named(tmp_path, capfd):
    (tmp_path / "train.log").symlink_to("/dev/full")
    with pytest.raises(LatseError, match=r"cannot write .*train\.log: No space left on device"):
        Journal(tmp_path, 0, 10, 4, 1)
    assert "Traceback" not in capfd.readouterr().err


def test_a_log_that_becomes_full_is_named_at_its_end_too(journal, tmp_path, capsys):
    one = journal(every=1)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
    try:
        with pytest.raises(LatseError, match=r"train\.log: File too large"), contextlib.closing(one):
            one.note("a checkpoint")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "Traceback" not in capsys.readouterr().err


def test_a_folder_that_is_gone_is_not_made_anew(journal, tmp_path):
    one = journal(every=1)
    (tmp_path / FILE).unlink()
    with pytest.raises(LatseError, match=f"{FILE}: No such file or directory"):
        one.add(1, {"loss": np.ones(4)})
    assert not (tmp_path / FILE).exists()
