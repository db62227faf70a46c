"""`--kvstore dist_async`: the servers move the parameters whenever a worker's gradients come."""

import json
import os
import queue
import signal
import threading
from pathlib import Path

import mxnet as mx
import numpy as np
import pytest

from latse.cli import main
from latse.cluster.pace import AHEAD, Loose

ASYNCHRONOUS = "--kvstore", "dist_async"
PARTED = {"MXNET_KVSTORE_BIGARRAY_BOUND": "100"}  # so that small arrays are parted among servers, too


@pytest.fixture
def train(recipe, people, tmp_path):
    """Train in this process, into a folder of the test; return the folder."""

    def train(name, *settings):
        words = "--data", people, "--out", tmp_path / name, "--resume", *(f"--set={s}" for s in settings)
        assert main(["train", *map(str, [recipe, *words])]) == 0
        return tmp_path / name

    return train


@pytest.fixture
def launch(launched, recipe, finished, tmp_path):
    """Train in several processes, as `train` does; `options` are those of `launched`."""

    def launch(name, *settings, **options):
        process = launched(recipe, tmp_path / name, *settings, words=ASYNCHRONOUS, **options)
        status, output = finished(process)
        assert status == 0, output
        return tmp_path / name

    return launch


@pytest.mark.parametrize(
    ("margin", "servers", "variables"), [("adaptiveface", 1, {}), ("centre_loss", 2, PARTED)]
)
def test_one_worker_learns_the_bits_of_a_run_of_one_process(
    train, launch, run_metrics, parameters, margin, servers, variables
):
    """Schedule, momentum, decay, factors and what a loss remembers: all of them are on the servers."""
    settings = f"margin.name={margin}", "schedule.warmup=2"
    alone = train("alone", *settings)
    served = launch("served", *settings, workers=1, servers=servers, **variables)
    assert run_metrics(alone) == run_metrics(served)
    _assert_equal(parameters(alone), parameters(served))


def test_a_run_goes_on_with_its_momentum(train, launch, parameters):
    constant, half = "schedule.mode=constant", "train.iterations=4"
    whole = train("whole", constant)
    train("parts", constant, half)
    _assert_equal(parameters(whole), parameters(launch("parts", constant, workers=1)))


def test_the_parts_of_a_batch_move_the_parameters_as_far_as_the_whole(train, launch, alone, parameters):
    """With steps so small that it does not matter of which parameters a gradient is."""
    small = "schedule.mode=constant", "schedule.learning_rate=1e-5"
    small += "train.momentum=0", "train.weight_decay=0.5"
    one = train("one", *small)
    several = launch("several", *small, workers=2, servers=2, **PARTED)
    assert {path.name for path in one.iterdir()} == {path.name for path in several.iterdir()}
    begin = mx.nd.load(str(one / "untrained-0000.params"))
    ends = parameters(one), parameters(several)
    assert ends[0].keys() == ends[1].keys()
    for name, array in begin.items():
        moved, too = (end[name] - array.asnumpy() for end in ends)
        assert np.linalg.norm(too - moved) < 0.05 * np.linalg.norm(moved), name


def test_workers_learn_and_one_process_goes_on(train, launch, alone, run_metrics, parameters):
    """Not to its bits: with a momentum that stays below that of the whole batch, the loss falls alike."""
    run = launch("run", "train.iterations=8")
    lines = run_metrics(run)
    assert [line["lr"] for line in lines] == [line["lr"] for line in run_metrics(alone)]
    assert lines[-1]["loss"] < lines[0]["loss"] / 2
    assert parameters(run).keys() == parameters(alone).keys()
    train("run", "train.iterations=10")
    changes = json.loads((run / "run.json").read_text())["changes"]
    assert {"iteration": 8, "key": "train.kvstore", "from": "dist_async", "to": "local"} in changes
    assert len(run_metrics(run)) == len(lines) + 1


def test_a_signal_ends_all_workers_at_the_same_iteration(launched, recipe, finished, until, tmp_path):
    out = tmp_path / "run"
    settings = "train.iterations=100000", "train.checkpoint_every=100000"
    process = launched(recipe, out, *settings, words=ASYNCHRONOUS)
    until(lambda: (out / "metrics.jsonl").exists() and (out / "metrics.jsonl").stat().st_size)
    process.send_signal(signal.SIGTERM)
    status, output = finished(process)
    assert status == 128 + signal.SIGTERM, output
    assert "latse: interrupted: checkpoint at iteration" in output and "has died" not in output
    assert (out / "state.params").exists()


def test_a_server_that_is_killed_ends_the_run(launched, recipe, finished, parts, until, tmp_path):
    out = tmp_path / "run"
    process = launched(recipe, out, "train.iterations=100000", words=ASYNCHRONOUS)
    until((out / "state.params").exists)
    pids = parts(process)
    os.kill(pids["server 0"], signal.SIGKILL)
    status, output = finished(process)
    assert status == 128 + signal.SIGKILL and "server 0 (127.0.0.1, process" in output
    until(lambda: not any(Path("/proc", str(pid)).exists() for pid in pids.values()), 60)
    assert set(mx.nd.load(str(out / "state.params"))) > {"iteration"}


class Meeting:
    """Two workers whose lines come when both have said them."""

    def __init__(self):
        self.said, self.heard = {}, threading.Condition()


class Worker:
    """One of them, as `Loose` sees it."""

    def __init__(self, meeting, rank):
        self._meeting, self._rank, self._number = meeting, rank, 0

    def say(self, what, value):
        self._number += 1
        with self._meeting.heard:
            self._meeting.said.setdefault(self._number, {})[self._rank] = value
            self._meeting.heard.notify_all()
        return self._number

    def hear(self, number):
        with self._meeting.heard:
            assert self._meeting.heard.wait_for(lambda: len(self._meeting.said[number]) == 2, 30)
        return [self._meeting.said[number][rank] for rank in (0, 1)]


def test_the_fastest_worker_waits_for_the_slowest_and_both_stop_together():
    meeting, done = Meeting(), queue.Queue()
    fast, slow = (Loose(Worker(meeting, rank)) for rank in (0, 1))

    def run():
        for iteration in range(1, 100):
            stops = fast.stops(iteration, asked=iteration == 6)
            done.put(iteration)
            if stops:
                break

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert [done.get(timeout=10) for _ in range(AHEAD)] == [*range(1, AHEAD + 1)]
    with pytest.raises(queue.Empty):
        done.get(timeout=0.2)
    last = next(iteration for iteration in range(1, 100) if slow.stops(iteration, asked=False))
    thread.join(10)
    assert last == 6 + AHEAD and [*done.queue][-1] == last


def _assert_equal(one, other):
    assert one.keys() == other.keys()
    for name, array in one.items():
        np.testing.assert_array_equal(other[name], array, err_msg=name)
