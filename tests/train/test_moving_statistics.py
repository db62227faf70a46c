"""What a network knows of its images at test time: the rule in numpy, and networks after a few iterations."""

import cv2
import mxnet as mx
import numpy as np
import pytest

from latse.cli import main
from latse.models.embedding import Network
from latse.train.learner import Learner
from latse.train.moving_statistics import with_momentum
from latse.train.training import Training, TrainingGraph

BATCH, CHANNELS, SIDE = 4, 3, 5
MEAN, VARIANCE = "bn_moving_mean", "bn_moving_var"


def regression(net):
    """Half the squared error of a linear function of what the normalisations return."""
    line = mx.sym.FullyConnected(net, num_hidden=1, name="fc")
    error = mx.sym.reshape(line, (-1,)) - mx.sym.var("softmax_label")
    return mx.sym.MakeLoss(error**2 / 2, name="loss")


@pytest.fixture
def learner(tiny_recipe):
    """Make what learns from `data` (4, 3, 5, 5) by a graph, with the momentum of the recipe in it."""

    def learner(net, momentum, devices=1, begin=None):
        symbol = with_momentum(regression(net), momentum)
        shapes = {"data": (BATCH, CHANNELS, SIDE, SIDE), "softmax_label": (BATCH,)}
        contexts = [mx.cpu(number) for number in range(devices)]
        recipe = tiny_recipe(f"train.statistics_momentum={momentum}")
        training = Training(recipe, 5, contexts, TrainingGraph(symbol, shapes), symbol, seed=3)
        return Learner(training, *([begin] if begin else []))

    return learner


def batches(number):
    """Batches whose mean and scale drift, from far off what statistics begin with."""
    values = np.random.default_rng(0)
    for i in range(number):
        scale = 1e-3 * (1 + i / 10)
        yield (scale * (7 + values.normal(size=(BATCH, CHANNELS, SIDE, SIDE)))).astype(np.float32)


def step(learner, data):
    learner.step({"data": data, "softmax_label": np.zeros(BATCH)}, seed=0)


def expected(number, momentum, devices=1):
    """Mean and variance after so many batches: the first sets them, a twentieth of the run is averaged."""
    shape = 2, devices, CHANNELS
    value = np.full(shape, np.nan)
    for n, data in enumerate(batches(number)):
        parts = data.astype(np.float64).reshape(devices, -1, CHANNELS, SIDE, SIDE)
        batch = np.array([parts.mean(axis=(1, 3, 4)), parts.var(axis=(1, 3, 4))])
        old = min(momentum, n / (n + 19))
        value = (old * value if n else 0) + (1 - old) * batch
    return value.mean(axis=1)  # over the devices


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("momentum", [0.0, 0.9, 0.98])
@pytest.mark.parametrize("number", [1, 2, 20, 300])
def test_statistics_follow_the_rule(learner, number, momentum, devices):
    net = mx.sym.BatchNorm(mx.sym.var("data"), name="bn")
    learned = learner(net, momentum, devices)
    for data in batches(number):
        step(learned, data)
    found = learned.capture(number).aux_params
    for name, value in zip((MEAN, VARIANCE), expected(number, momentum, devices)):
        np.testing.assert_allclose(found[name].asnumpy(), value, rtol=2e-4)


def test_statistics_that_are_fixed_stay(learner):
    net = mx.sym.BatchNorm(mx.sym.var("data"), use_global_stats=True, name="bn")
    learned = learner(net, 0.9)
    for data in batches(3):
        step(learned, data)
    found = learned.capture(3).aux_params
    assert not found[MEAN].asnumpy().any()
    assert (found[VARIANCE].asnumpy() == 1).all()


def test_a_normalisation_that_is_used_twice_has_the_mean_of_both(learner):
    """With the momentum of the recipe, a step moves it twice; the later use weighs a little more."""
    data = mx.sym.var("data")
    shared = {name: mx.sym.var(f"bn_{name}") for name in ("gamma", "beta", "moving_mean", "moving_var")}
    first, second = (mx.sym.BatchNorm(part, **shared) for part in (data, data + 1))
    learned = learner(first + second, 0.9)
    (values,) = batches(1)
    step(learned, values)
    means = values.astype(np.float64).mean(axis=(0, 2, 3))
    found = learned.capture(1).aux_params[MEAN].asnumpy()
    assert ((found > means + 0.4) & (found < means + 0.6)).all()


@pytest.mark.parametrize("kill", [1, 4, 30])
def test_a_run_that_goes_on_has_the_same_statistics(learner, kill):
    net = mx.sym.BatchNorm(mx.sym.var("data"), name="bn")
    whole, before = learner(net, 0.9), learner(net, 0.9)
    for i, data in enumerate(batches(40)):
        step(whole, data)
        if i == kill:
            before = learner(net, 0.9, begin=before.capture(kill))
        step(before, data)
    one, other = (each.capture(40) for each in (whole, before))
    assert all(
        (one.aux_params[name].asnumpy() == other.aux_params[name].asnumpy()).all()
        for name in (MEAN, VARIANCE)
    )


@pytest.mark.parametrize("iterations", [1, 20])
def test_embeddings_are_as_long_at_test_time_as_in_training(tiny, people, pictures, tmp_path, iterations):
    """The last normalisation makes each number of an embedding of variance 1, at any length of run."""
    short = f"train.iterations={iterations}", "train.statistics_momentum=0.98", "schedule.learning_rate=0.001"
    words = [word for text in short for word in ("--set", text)]
    assert main(["train", str(tiny), "--data", str(people), "--out", str(tmp_path / "run"), *words]) == 0
    images = np.stack([cv2.imdecode(np.frombuffer(jpeg, np.uint8), 1)[..., ::-1] for _, jpeg in pictures])
    embeddings = Network(tmp_path / "run" / "model", 0)(images.transpose(0, 3, 1, 2))
    lengths = np.linalg.norm(embeddings, axis=1) / np.sqrt(512)
    assert lengths.min() > 0.5 and lengths.max() < 2
