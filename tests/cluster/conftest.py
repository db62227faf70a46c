"""Real processes that train one network, for the tests of this folder."""

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import mxnet as mx
import pytest

from latse.cli import main
from latse.cluster.alone import Alone

LATSE = sys.executable, "-m", "latse"
# Without batch normalisation and dropout, of which each worker has its own, sums alone tell workers apart.
ENCODER = """\
from mxnet.gluon import nn

from latse.symbols.encoders import Encoder


class Bare(Encoder):
    def features(self):
        return nn.Conv2D(8, 16, 16, prefix="conv_")

    def embedding(self, dropout):
        return nn.Dense(512, prefix="pre_fc1_")
"""
RECIPE = """\
train: {batch_size: 4, iterations: 8, checkpoint_every: 4, log_every: 2, keep: 1}
schedule: {mode: cosine, learning_rate: 0.05}
"""


@pytest.fixture(scope="session")
def recipe(tmp_path_factory):
    """The file of a recipe whose network has neither batch normalisation nor dropout."""
    folder = tmp_path_factory.mktemp("recipe")
    (folder / "bare.py").write_text(ENCODER)
    (folder / "bare.yaml").write_text('encoder: {name: "bare.py:Bare"}\n' + RECIPE)
    return folder / "bare.yaml"


@pytest.fixture(scope="session")
def drawing(tiny, tmp_path_factory):
    """A recipe with everything that a run remembers: statistics, dropout, momentum, a decoder."""
    path = tmp_path_factory.mktemp("drawing") / "drawing.yaml"
    decoder = "decoder: {enabled: true, widths: [2, 2, 2, 2]}\n"
    path.write_text(
        f"base: {tiny}\n{decoder}train: {{iterations: 12, checkpoint_every: 3, log_every: 1, keep: 1}}\n"
    )
    return path


@pytest.fixture
def launched(people):
    """Start `latse launch` over `latse train`; whatever is left of it is killed."""
    started = []

    def launch(
        recipe, out, *settings, workers=2, servers=1, timeout=60, words=(), more=(), cwd=None, **variables
    ):
        options = "-n", workers, "-s", servers, "--timeout", timeout, *more
        run = "--data", people, "--out", out, "--resume", *(f"--set={setting}" for setting in settings)
        train = *LATSE, "train", recipe, *run, "--kvstore", "dist_sync", *words
        process = subprocess.Popen(
            [*map(str, [*LATSE, "launch", *options, "--", *train])],
            env={**os.environ, "OMP_NUM_THREADS": "1", **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            text=True,
        )
        started.append(process)
        return process

    yield launch
    for process in started:
        process.kill()


class Together(Alone):
    """Workers in threads of one process."""

    def __init__(self, rank, count, said, barrier):
        self.rank, self.count, self._said, self._barrier = rank, count, said, barrier

    def gather(self, what, value):
        self._said[self.rank] = value
        self._barrier.wait()
        heard = [self._said[rank] for rank in range(self.count)]
        self._barrier.wait()
        return heard


@pytest.fixture
def together():
    """Call a function with each of several workers, each in a thread; return what they return."""

    def call(count, function):
        said, barrier, found = {}, threading.Barrier(count, timeout=30), {}

        def work(rank):
            try:
                found[rank] = function(Together(rank, count, said, barrier))
            except Exception as error:
                found[rank] = error

        threads = [threading.Thread(target=work, args=(rank,)) for rank in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        return [found[rank] for rank in range(count)]

    return call


def _finished(process):
    """Return status and output of a process, which must end."""
    output, _ = process.communicate(timeout=300)
    return process.returncode, output


def _parts(process):
    """The processes that a launch has started, by name."""
    found = {}
    for path in Path(f"/proc/{process.pid}/task").glob("*/children"):
        for child in path.read_text().split():
            variables = Path("/proc", child, "environ").read_bytes().decode().split("\0")
            found[dict(v.partition("=")[::2] for v in variables)["LATSE_NAME"]] = int(child)
    return found


def _parameters(folder):
    """Return the arrays of a state by name."""
    arrays = mx.nd.load(str(folder / "state.params"))
    return {name: array.asnumpy() for name, array in arrays.items() if name != "digest"}


@pytest.fixture(scope="session")
def alone(recipe, people, tmp_path_factory):
    """The folder of a run of one process."""
    out = tmp_path_factory.mktemp("alone") / "run"
    assert main(["train", str(recipe), "--data", str(people), "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="session")
def finished():
    """Give `_finished(process)` to a test."""
    return _finished


@pytest.fixture(scope="session")
def parts():
    """Give `_parts(process)` to a test."""
    return _parts


@pytest.fixture(scope="session")
def parameters():
    """Give `_parameters(folder)` to a test."""
    return _parameters


@pytest.fixture
def killed_and_compared(launched, run_contents, until, tmp_path):
    """Kill a part of a run after its first checkpoint, let the run go on, compare it with an unbroken one.

    Returns its folder.
    """

    def compare(recipe, settings, part):
        status, output = _finished(launched(recipe, tmp_path / "unbroken", *settings))
        assert status == 0, output
        out = tmp_path / "broken"
        process = launched(recipe, out, *settings)
        until((out / "state.params").exists)
        os.kill(_parts(process)[part], signal.SIGKILL)
        status, printed = _finished(process)
        assert status == 128 + signal.SIGKILL
        assert f"latse: {part} on 127.0.0.1 was killed by SIGKILL; 3 others end" in printed
        ended = rf"the run has ended: {part} \(127.0.0.1, process \d+\) has died, after "
        assert re.search(ended, printed), printed
        assert not (out / "model-0000.params").exists()
        status, output = _finished(launched(recipe, out, *settings))
        assert status == 0, output
        assert run_contents(out) == run_contents(tmp_path / "unbroken")
        return out

    return compare
