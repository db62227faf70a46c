"""`--kvstore dist_async`: the servers move the parameters whenever a worker's gradients come."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from pathlib import Path

import mxnet as mx
import numpy as np
import pytest

from latse.cli import main
from latse.cluster.pace import AHEAD, Loose

LATSE = sys.executable, "-m", "latse"
ASYNCHRONOUS = "--kvstore", "dist_async"
PARTED = {"MXNET_KVSTORE_BIGARRAY_BOUND": "100"}  # so that small arrays are parted among servers, too
PART = """\
from latse.arguments import later
from latse.cluster.place import WORKER, from_environment
from latse.cluster.serving import serve

place = from_environment()
if place.role == WORKER:
    from latse.cluster.workers import Workers

    Workers(place, "dist_async").tell_servers({"skip": 1})
else:
    serve(place, later("latse.train.server", "Server"))
"""


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

    def launch(name, *settings, words=(), **options):
        process = launched(recipe, tmp_path / name, *settings, words=(*ASYNCHRONOUS, *words), **options)
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


def test_the_parts_of_a_batch_move_the_parameters_as_far_as_the_whole(train, launch, parameters):
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
    """Two workers of two devices each, which go on once; arrays are on either of two servers, or parted."""
    parted, slow = {"MXNET_KVSTORE_BIGARRAY_BOUND": "10000"}, "schedule.learning_rate=0.01"
    for iterations in (4, 8):
        run = launch("run", slow, f"train.iterations={iterations}", servers=2, words=("--cpus", 2), **parted)
    lines = run_metrics(run)
    assert len(lines) == len(run_metrics(alone)) and lines[-1]["loss"] < lines[0]["loss"]
    assert parameters(run).keys() == parameters(alone).keys()
    train("run", slow, "train.iterations=10")
    changes = json.loads((run / "run.json").read_text())["changes"]
    assert {"iteration": 8, "key": "train.kvstore", "from": "dist_async", "to": "local"} in changes
    assert len(run_metrics(run)) == len(lines) + 1


def test_a_signal_ends_all_workers_at_the_same_iteration(launched, recipe, finished, until, tmp_path):
    out = tmp_path / "run"
    settings = "train.iterations=100000", "train.checkpoint_every=100000", "train.log_every=50"
    process = launched(recipe, out, *settings, words=ASYNCHRONOUS)
    until(lambda: (out / "metrics.jsonl").exists() and (out / "metrics.jsonl").stat().st_size)
    process.send_signal(signal.SIGTERM)
    status, output = finished(process)
    assert status == 128 + signal.SIGTERM, output
    assert "latse: interrupted: checkpoint at iteration" in output and "has died" not in output
    assert (out / "state.params").exists()


def test_a_command_that_a_server_cannot_do_ends_the_run(tmp_path, finished):
    """A real server, which is told something before it is told what there is."""
    (tmp_path / "part.py").write_text(PART)
    launch = ["launch", "-n", "1", "-s", "1", "--timeout", "20", "--"]
    words = *LATSE, *launch, sys.executable, tmp_path / "part.py"
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    status, output = finished(subprocess.Popen([*map(str, words)], **streams))
    assert status == 1, output
    assert "the run has ended: a server got a command that it cannot do: KeyError('settings')" in output


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
            done.put(iteration)
            if fast.stops(iteration, asked=iteration == 6):
                break

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert [done.get(timeout=10) for _ in range(AHEAD)] == [*range(1, AHEAD + 1)]
    with pytest.raises(queue.Empty):
        done.get(timeout=0.2)
    last = next(iteration for iteration in range(1, 100) if slow.stops(iteration, asked=False))
    thread.join(10)
    assert last == 6 + AHEAD - 1 and [*done.queue][-1] == last


def _assert_equal(one, other):
    assert one.keys() == other.keys()
    for name, array in one.items():
        np.testing.assert_array_equal(other[name], array, err_msg=name)
