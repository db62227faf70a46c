"""One step's numbers: the rule of the optimiser in numpy, what dropout drops, what is drawn at the start."""

import dataclasses
import itertools

import mxnet as mx
import numpy as np
import pytest

from latse.data.shards.records import Shard
from latse.symbols.networks import IMAGE_SHAPE
from latse.train.learner import Learner
from latse.train.state import RunState
from latse.train.trainer import Trainer
from latse.train.training import Training, TrainingGraph
from latse.train.verdicts import KeepAll

BATCH, WIDTH = 4, 6
DROPPED = 0.4


@pytest.fixture
def training(tiny_recipe):
    """Make the training of a graph with `data` of a shape and the labels."""

    def training(symbol, shape, *overrides, devices=1, seed=3):
        shapes = {"data": (BATCH, *shape), "softmax_label": (BATCH,)}
        contexts = [mx.cpu(number) for number in range(devices)]
        return Training(tiny_recipe(*overrides), 5, contexts, TrainingGraph(symbol, shapes), symbol, seed)

    return training


def regression():
    """Half the squared error of a linear function of the data."""
    line = mx.sym.FullyConnected(mx.sym.var("data"), num_hidden=1, name="fc")
    error = mx.sym.reshape(line, (-1,)) - mx.sym.var("softmax_label")
    return mx.sym.MakeLoss(error**2 / 2, name="loss")


@pytest.mark.parametrize("update_on_kvstore", ["1", "0"])
@pytest.mark.parametrize("devices", [1, 2])
def test_steps_follow_the_rule(training, monkeypatch, devices, update_on_kvstore):
    """g the mean gradient of the batch: m ← 0.9·m - rate·(g + decay·w), w ← w + m; biases do not decay."""
    monkeypatch.setenv("MXNET_UPDATE_ON_KVSTORE", update_on_kvstore)
    rule = "train.momentum=0.9", "train.weight_decay=0.05"
    rates = "schedule.mode=step", "schedule.learning_rate=0.1", "schedule.steps=[1,2]", "schedule.factor=0.5"
    values = np.random.default_rng(0)
    data, target = values.normal(size=(BATCH, WIDTH)), values.normal(size=BATCH)
    w, b = values.normal(size=(1, WIDTH)), values.normal(size=1)
    begin = RunState(0, {"fc_weight": mx.nd.array(w), "fc_bias": mx.nd.array(b)})
    learner = Learner(training(regression(), (WIDTH,), *rule, *rates, devices=devices), begin)
    momentum_w, momentum_b = np.zeros_like(w), np.zeros_like(b)
    for number, rate in enumerate((0.1, 0.05, 0.025), 1):
        error = data @ w[0] + b - target
        outputs = learner.step({"data": data, "softmax_label": target}, seed=0)
        momentum_w = 0.9 * momentum_w - rate * ((error[:, None] * data).mean(axis=0) + 0.05 * w)
        momentum_b = 0.9 * momentum_b - rate * error.mean()
        w, b = w + momentum_w, b + momentum_b
        state = learner.capture(number)
        assert learner.learning_rate == rate
        for found, expected in (
            (outputs["loss"], error**2 / 2),
            (state.arg_params["fc_weight"], w),
            (state.arg_params["fc_bias"], b),
            (state.momentum["fc_weight"], momentum_w),
            (state.momentum["fc_bias"], momentum_b),
        ):
            rounding = 50 * np.finfo(np.float32).eps * np.abs(expected).max()  # in as many operations
            np.testing.assert_allclose(mx.nd.array(found).asnumpy(), expected, rtol=0, atol=rounding)


@pytest.fixture
def masks(training, people, tmp_path, monkeypatch):
    """Train six iterations and return what dropout left of ones in each, (B, 3, 112, 112)."""

    def masks(folder, seed, devices=1):
        ones = mx.sym.ones_like(mx.sym.var("data"))
        mask = mx.sym.Dropout(ones, p=DROPPED)
        line = mx.sym.FullyConnected(mask, num_hidden=1, name="fc")
        loss = mx.sym.MakeLoss(mx.sym.reshape(line, (-1,)) + 0 * mx.sym.var("softmax_label"), name="loss")
        symbol = mx.sym.Group([loss, mx.sym.BlockGrad(mask, name="mask")])
        seen, step = [], Learner.step
        (tmp_path / folder).mkdir()
        with monkeypatch.context() as patch:
            patch.setattr(Learner, "step", lambda *given: seen.append(step(*given)) or seen[-1])
            run = training(symbol, IMAGE_SHAPE, devices=devices, seed=seed)
            Trainer(run, Shard(people), tmp_path / folder, KeepAll()).run()
        return [values["mask"] for values in seen]

    return masks


def alike(one, other):
    """Share of the places that both masks keep or both drop."""
    return (one == other).mean()


@pytest.mark.parametrize("devices", [1, 2])
def test_dropout_is_another_in_every_iteration_and_the_seed_decides(masks, devices):
    first, again, other = masks("one", 3, devices), masks("again", 3, devices), masks("other", 4, devices)
    assert len(first) == 6
    assert all((one == two).all() for one, two in zip(first, again))
    by_chance = DROPPED**2 + (1 - DROPPED) ** 2
    for one, two in itertools.combinations([*first, *other], 2):
        assert alike(one, two) == pytest.approx(by_chance, abs=0.01)
    for mask in first:
        assert (mask > 0).mean() == pytest.approx(1 - DROPPED, abs=0.01)
        for one, two in itertools.combinations(mask, 2):  # of one device and of two
            assert alike(one, two) == pytest.approx(by_chance, abs=0.02)


def test_parameters_begin_as_the_seed_draws_them(tiny_recipe):
    """Weights are Gaussian as in insightface, of variance 2 over the number of weights that an input has."""
    training = Training.of(tiny_recipe(), 5, [mx.cpu()])
    drawn = [Learner(dataclasses.replace(training, seed=seed)).capture(0) for seed in (3, 3, 4)]
    first, again, other = ({name: a.asnumpy() for name, a in s.arg_params.items()} for s in drawn)
    weights = [name for name in first if name.endswith("weight") and not name.startswith("fc7")]
    assert len(weights) > 10
    for name in weights:
        assert (first[name] == again[name]).all()
        assert (first[name] != other[name]).all()
        leaving = first[name].size / first[name].shape[1]
        scaled = first[name] / np.sqrt(2 / leaving)
        noise = 5 / np.sqrt(scaled.size)  # five standard errors
        assert scaled.mean() == pytest.approx(0, abs=noise)
        assert scaled.std() == pytest.approx(1, abs=noise)
        assert (scaled**4).mean() == pytest.approx(3, abs=10 * noise)  # uniform numbers have 1.8


@pytest.mark.parametrize("update_on_kvstore", ["1", "0"])
@pytest.mark.parametrize("devices", [1, 2])
def test_a_step_that_is_not_accepted_changes_nothing(
    tiny_recipe, small_encoder, monkeypatch, devices, update_on_kvstore
):
    """Neither parameters nor momentum nor the statistics of BatchNorm; the schedule goes on."""
    monkeypatch.setenv("MXNET_UPDATE_ON_KVSTORE", update_on_kvstore)
    recipe = tiny_recipe(f"encoder.name={small_encoder}", "schedule.mode=linear", "train.iterations=10")
    contexts = [mx.cpu(number) for number in range(devices)]
    made = [Learner(Training.of(recipe, 5, contexts, 3)) for _ in range(2)]
    random, batches = np.random.default_rng(0), []
    for _ in range(3):
        images, labels = random.integers(0, 256, (BATCH, *IMAGE_SHAPE)), random.integers(0, 5, BATCH)
        batches.append({"data": images, "softmax_label": labels})
    seen = []
    for learner in made:
        learner.step(batches[0], 0)
    states = [learner.capture(1) for learner in made]
    refused = made[0].step(batches[1], 1, lambda outputs: bool(seen.append(outputs)))
    assert seen == [refused] and np.isfinite(refused["loss"]).all()
    states[0] = made[0].capture(2)
    for one, other in zip(states[0][1:4], states[1][1:4]):
        assert one.keys() == other.keys()
        for name in one.keys() - {"fc1_gamma"}:  # which every forward pass sets to 1
            np.testing.assert_array_equal(one[name].asnumpy(), other[name].asnumpy(), err_msg=name)
    accepted = made[0].step(batches[2], 2, lambda outputs: True)
    assert made[0].learning_rate < made[1].learning_rate
    made[1].step(batches[1], 1)
    assert made[0].learning_rate < made[1].learning_rate and accepted["loss"].shape == (BATCH,)
