"""What the tests of several rooms share: made-up people, a narrow recipe, a graph that takes milliseconds."""

import latse  # noqa: F401, before mxnet, as in the command: it chooses the kernels of its OpenBLAS

# isort: split
import contextlib
import gc
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import mxnet as mx
import numpy as np
import pytest
from hypothesis import settings

from latse import cli
from latse import recipe as recipes
from latse.data.pairs.pairs import write_pairs
from latse.data.shards.shard_writer import write_shard
from latse.models import checkpoint
from latse.train.metrics import COSTS

# How long an example takes says something of the machine, not of the code.
settings.register_profile("latse", deadline=None)
settings.load_profile("latse")


def pytest_collection():
    """Thousands of tests and a hundred modules are made, none of them garbage: nobody looks for any there."""
    gc.disable()


def pytest_collection_finish():
    """Look at what the tests make alone."""
    gc.freeze()
    gc.enable()


PEOPLE, PICTURES = 5, 3
RECIPE = """\
encoder: {name: resnet_tiny}
train: {batch_size: 4, iterations: 6, checkpoint_every: 2, log_every: 1}
schedule: {mode: constant, learning_rate: 0.01}
"""
# For tests of what stands behind an encoder: 7x7 features in one layer.
ENCODER = """\
from mxnet.gluon import nn

from latse.symbols.encoders import Encoder
from latse.symbols.layers import PReLU, batch_norm


class Small(Encoder):
    def features(self):
        body = nn.HybridSequential(prefix="")
        body.add(nn.Conv2D(8, 16, 16, prefix="conv0_"), batch_norm("bn0_"), PReLU(8, "relu0_"))
        return body
"""


def picture(person, number):
    """The `number`-th picture of a made-up person, as JPEG bytes."""
    face = np.random.default_rng(person).normal(size=(112, 112, 3))
    face = cv2.GaussianBlur(face, (0, 0), 10)
    noise = np.random.default_rng((person, number)).normal(size=face.shape)
    pixels = np.clip(128 + 50 * face / face.std() + 10 * noise, 0, 255).astype(np.uint8)
    return cv2.imencode(".jpg", pixels)[1].tobytes()


@pytest.fixture(scope="session")
def pictures():
    """(label, JPEG bytes) of five people, three pictures each."""
    return [(person, picture(person, number)) for person in range(PEOPLE) for number in range(PICTURES)]


@pytest.fixture(scope="session")
def people(tmp_path_factory, pictures):
    """The folder of a shard of those pictures."""
    folder = tmp_path_factory.mktemp("people")
    write_shard(folder, pictures, PEOPLE)
    return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """The file of a recipe for `resnet_tiny`, batch 4, six iterations, a checkpoint every second."""
    path = tmp_path_factory.mktemp("recipes") / "tiny.yaml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="session")
def tiny_recipe(tiny):
    """Load that recipe with overrides `section.key=value`."""
    return lambda *overrides: recipes.load(tiny, overrides)


@pytest.fixture(scope="session")
def small_encoder(tmp_path_factory):
    """An encoder with the paper's head on one convolution, `FILE.py:CLASS`: a step takes milliseconds."""
    path = tmp_path_factory.mktemp("encoders") / "small.py"
    path.write_text(ENCODER)
    return f"{path}:Small"


@pytest.fixture(scope="session")
def latse_process():
    """Start `latse ARGUMENTS` in a process of its own, on one thread, and return it."""

    def start(*arguments):
        return subprocess.Popen(
            [sys.executable, "-m", "latse", *map(str, arguments)],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.fixture
def heeded():
    """Have Ctrl-C heeded here and in what is started, though these tests may run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def wait_until(condition, seconds=300):
    """Wait for `condition()`, as long as it may take on a machine with much else to do."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


@pytest.fixture(scope="session")
def until():
    """Give `wait_until(condition)` to a test."""
    return wait_until


@pytest.fixture(scope="session")
def kill_family():
    """Kill a process, and wait until those that it has started have ended too; return how many they were."""

    def kill(process):
        lists = Path(f"/proc/{process.pid}/task").glob("*/children")
        children = [Path("/proc", child) for path in lists for child in path.read_text().split()]
        process.kill()
        assert process.wait() == -signal.SIGKILL
        wait_until(lambda: not any(child.exists() for child in children))
        return len(children)

    return kill


@contextlib.contextmanager
def in_this_process():
    """Run each `latse` that subprocess.run should start in this process, which has imported all it needs."""
    start = subprocess.run

    def run(words, **options):
        words = [*map(str, words)]
        if words[:3] != [sys.executable, "-m", "latse"]:
            return start(words, **options)
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = cli.main(words[3:])
        if not options.get("capture_output"):
            if options.get("stdout") != subprocess.PIPE:
                print(out.getvalue(), end="", file=options.get("stdout") or sys.stdout)
            print(err.getvalue(), end="", file=sys.stderr)
        return subprocess.CompletedProcess(words, status, out.getvalue(), err.getvalue())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess, "run", run)
        yield


@pytest.fixture(scope="session")
def one_process():
    """Give `in_this_process()` to a test of a command that starts others."""
    return in_this_process


@pytest.fixture(scope="session")
def quick_student():
    """A graph with inputs and outputs of the student, BatchNorm and Dropout, but only two dense layers."""
    data, label = mx.sym.var("data"), mx.sym.var("softmax_label")
    keep, mean_face = mx.sym.var("keep"), mx.sym.var("mean_face")
    pooling = {"kernel": (16, 16), "stride": (16, 16), "pool_type": "avg"}
    net = mx.sym.Pooling((data - 127.5) / 128, **pooling)
    net = mx.sym.Dropout(mx.sym.BatchNorm(net, fix_gamma=False, name="bn1"), p=0.5)
    net = mx.sym.FullyConnected(net, num_hidden=512, name="pre_fc1")
    net = mx.sym.where(keep, net, mx.sym.BlockGrad(net))
    scores = mx.sym.FullyConnected(net, no_bias=True, num_hidden=PEOPLE, name="fc7")
    dloss = -mx.sym.pick(mx.sym.log_softmax(scores), label)
    generated = mx.sym.FullyConnected(net, num_hidden=147, name="generate")
    difference = generated - mx.sym.flatten(mx.sym.Pooling(mean_face, **pooling))
    l1, similarity = mx.sym.mean(mx.sym.abs(difference), axis=1), mx.sym.mean(difference**2, axis=1)
    return mx.sym.Group(
        [
            mx.sym.MakeLoss(dloss + l1 + similarity, name="loss"),
            mx.sym.BlockGrad(dloss, name="dloss"),
            mx.sym.BlockGrad(l1, name="l1"),
            mx.sym.BlockGrad(1 - 2 * similarity, name="ssim"),
        ]
    )


def metrics(folder):
    """Return the lines of metrics.jsonl without what depends on the machine."""
    lines = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in COSTS} for line in lines]


def contents(folder):
    """Return every array of a run's files and its metrics: what must not depend on a crash."""
    folder = Path(folder)
    found = {
        (path.name, name): array.asnumpy().tobytes()
        for path in folder.glob("*.params")
        for name, array in mx.nd.load(str(path)).items()
    }
    found.update({path.name: np.load(path).tobytes() for path in folder.glob("*.npy")})
    assert "undo" not in " ".join(path.name for path in folder.iterdir())
    return {**found, "metrics": metrics(folder)}


@pytest.fixture(scope="session")
def run_metrics():
    """Give `metrics(folder)` to a test."""
    return metrics


@pytest.fixture(scope="session")
def run_contents():
    """Give `contents(folder)` to a test."""
    return contents


def blurred_noise(seed):
    """A smooth random picture, uint8 (112, 112, 3): what stands in for a person."""
    noise = np.random.default_rng(seed).normal(size=(112, 112, 3))
    smooth = cv2.GaussianBlur(noise, (0, 0), 12)
    return np.clip(128 + 60 * smooth / smooth.std(), 0, 255).astype(np.uint8)


def photograph(person, number):
    """The `number`-th picture of `person`, uint8 (112, 112, 3): the person, other light, noise."""
    rng = np.random.default_rng([person, number])
    light = 1 + 0.2 * rng.normal()
    return np.clip(light * blurred_noise(person) + 12 * rng.normal(size=(112, 112, 3)), 0, 255).astype(
        np.uint8
    )


def encoded(person, number):
    return cv2.imencode(".png", photograph(person, number))[1].tobytes()


@pytest.fixture(scope="session")
def photograph_bytes():
    """Give `encoded(person, number)` to a test."""
    return encoded


@pytest.fixture(scope="session")
def save_network():
    """Save a small random network with `fc1_output`, `generated_output`; return its parameters in numpy."""

    def save(prefix, seed=0, decoder=True, **replaced):
        data = (mx.sym.var("data") - 127.5) / 128
        net = mx.sym.Convolution(data, kernel=(14, 14), stride=(14, 14), num_filter=4, name="conv0")
        net = mx.sym.BatchNorm(mx.sym.Dropout(net, p=0.5), fix_gamma=False, name="bn0")
        outputs = [mx.sym.FullyConnected(net, num_hidden=512, name="fc1")]
        if decoder:
            outputs.append(mx.sym.tanh(2 * mx.sym.flip(data, axis=3), name="generated"))
        rng = np.random.default_rng(seed)
        arrays = {
            "conv0_weight": 0.05 * rng.normal(size=(4, 3, 14, 14)),
            "conv0_bias": rng.normal(size=4),
            "bn0_gamma": rng.uniform(0.5, 2, 4),
            "bn0_beta": rng.normal(size=4),
            "fc1_weight": 0.1 * rng.normal(size=(512, 256)),
            "fc1_bias": 0.1 * rng.normal(size=512),
            "fc7_weight": rng.normal(size=(6, 512)),  # class centres ride along unused
            **replaced,
        }
        aux = {"bn0_moving_mean": rng.normal(size=4), "bn0_moving_var": rng.uniform(0.5, 2, 4)}
        args = {name: mx.nd.array(array) for name, array in arrays.items() if array is not None}
        checkpoint.save(
            prefix, 0, mx.sym.Group(outputs), args, {name: mx.nd.array(a) for name, a in aux.items()}
        )
        return {**arrays, **aux}

    return save


@pytest.fixture(scope="session")
def pairs_file(tmp_path_factory):
    """Eight people with three pictures each: all 24 same pairs, 24 different ones, alternating."""
    issame, images = [], []
    for person in range(8):
        for first, second in ((0, 1), (0, 2), (1, 2)):
            images += [encoded(100 + person, first), encoded(100 + person, second)]
            images += [encoded(100 + person, first), encoded(100 + (person + 1 + second) % 8, second)]
            issame += [True, False]
    path = tmp_path_factory.mktemp("pairs") / "people.bin"
    write_pairs(path, images, issame)
    return path


@pytest.fixture(scope="session")
def shard_folder(tmp_path_factory):
    """Six people with four pictures each."""
    folder = tmp_path_factory.mktemp("shard")
    write_shard(folder, [(person, encoded(person, number)) for person in range(6) for number in range(4)], 6)
    return folder
