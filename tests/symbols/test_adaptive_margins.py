"""Margins and scales that the data set, over several steps, and the annealing of SphereFace."""

import math

import mxnet as mx
import numpy as np
import pytest
from closed_forms import FORMULAS, at_angles, error_norm, evaluate, unit
from hypothesis import given, settings
from hypothesis import strategies as st

from latse.symbols import margins


def stepped(block, name, batches):
    """Run batches through one block, its running parameter moving by the mean of its gradient."""
    for batch in batches:
        value = block.collect_params()[name].data().asnumpy()
        batch.arrays[name] = value
        loss, gradients = evaluate(block, batch)
        moved = value - gradients[name] / len(batch.label)
        block.collect_params()[name].set_data(mx.nd.array(moved))
        yield batch, loss, moved


@pytest.mark.parametrize("classes", [3, 30])
@pytest.mark.parametrize("samples", [1, 2, 5, 8])
def test_adacos_scale_follows_the_published_rule(classes, samples):
    block = margins.create("adacos", classes)
    block.initialize()
    s = math.sqrt(2) * math.log(classes - 1)
    assert block.scale.data().asscalar() == pytest.approx(s, rel=1e-6)
    rng = np.random.default_rng(classes + samples)
    # As training goes: the angles fall from beyond π/4, where the rule has its break, to below it.
    batches = [
        at_angles("adacos", rng.uniform(0.7, 1.3, samples) * middle, classes, seed)
        for seed, middle in enumerate([1.6, 1.2, 0.9, 0.6, 0.3, 0.1])
    ]
    for batch, loss, found in stepped(block, "fc7_scale_running", batches):
        x, w = (unit(v.astype(np.float64))[0] for v in (batch.embedding, batch.arrays["fc7_weight"]))
        theta = np.arccos(np.clip(x @ w.T, -1, 1))
        own = np.arange(classes) == batch.label[:, None]
        average = (np.exp(s * np.cos(theta)) * ~own).sum() / samples
        median = np.sort(theta[own])[(samples - 1) // 2]
        s = np.log(average) / np.cos(min(np.pi / 4, median))
        assert found[0] == pytest.approx(s, rel=1e-5)
        # The new scale is that of this very batch.
        np.testing.assert_allclose(loss, FORMULAS["normalised_softmax"](batch, s=s).loss, rtol=1e-4)


def test_adacos_scale_is_the_same_for_every_permutation_of_the_batch():
    batch = at_angles("adacos", [0.1, 0.4, 0.5, 0.9, 1.4], 6)
    order = [3, 0, 4, 1, 2]
    loss, gradients = evaluate(margins.create("adacos", 6), batch)
    batch.embedding, batch.label = batch.embedding[order], batch.label[order]
    again, gradients_again = evaluate(margins.create("adacos", 6), batch)
    np.testing.assert_allclose(again, loss[order], rtol=1e-5)
    key = "fc7_scale_running"
    np.testing.assert_allclose(gradients_again[key], gradients[key], rtol=1e-5)


@settings(max_examples=30)
@given(st.lists(st.floats(0, math.pi), min_size=1, max_size=7), st.integers(0, 99))
def test_adacos_median_is_the_lower_of_the_middle_two(theta, seed):
    batch = at_angles("adacos", theta, 5, seed)
    _, gradients = evaluate(margins.create("adacos", 5), batch)
    found = batch.arrays["fc7_scale_running"] - gradients["fc7_scale_running"] / len(theta)
    expected = FORMULAS["adacos"](batch).running["fc7_scale_running"]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["adacos", "adacos_fixed"])
def test_adacos_target_logit_has_the_first_scale(name):
    theta = np.linspace(0, math.pi, 7)
    found = margins.create(name, 11).target_logit(mx.nd, mx.nd.array(theta, dtype="float64")).asnumpy()
    np.testing.assert_allclose(found, math.sqrt(2) * math.log(10) * np.cos(theta), atol=1e-14)


def test_adaptiveface_margins_learn_and_a_negative_one_counts_as_0():
    batch = at_angles("adaptiveface", [0.8, 1.0, 1.2, 1.1], 4, seed=1)
    batch.label[:] = [0, 1, 2, 2]
    batch.arrays["fc7_margin"][:] = [[0.3], [-0.2], [0.5], [-0.1]]
    loss, gradients = evaluate(margins.create("adaptiveface", 4, s=8.0, weight=5.0), batch)
    right = FORMULAS["adaptiveface"](batch, s=8.0, weight=5.0)
    np.testing.assert_allclose(loss, right.loss, rtol=1e-5)
    np.testing.assert_allclose(gradients["fc7_margin"], right.gradients["fc7_margin"], rtol=1e-5)
    # Four samples, four people: from weight·mean each has -5, to which a positive margin's cost comes.
    assert gradients["fc7_margin"][[1, 3], 0] == pytest.approx([-5, -5])
    assert (gradients["fc7_margin"][[0, 2], 0] > -5).all()
    # But for the term of the mean, the loss of the person with -0.2 is that of no margin.
    plain = FORMULAS["normalised_softmax"](batch, s=8.0).loss[1]
    assert loss[1] + 5 * batch.arrays["fc7_margin"].mean() == pytest.approx(plain, rel=1e-5)


def test_the_rate_of_adaptivefaces_margins_is_that_of_the_network_over_s_squared():
    margin = margins.create("adaptiveface", 4, s=8.0).margin
    assert (margin.lr_mult, margin.wd_mult) == (1 / 64, 0)


def test_adaptiveface_starts_with_m3():
    block = margins.create("adaptiveface", 4, m3=0.25)
    block.initialize()
    assert (block.margin.data().asnumpy() == np.float32(0.25)).all()
    found = block.target_logit(mx.nd, mx.nd.array([0.5], dtype="float64")).asscalar()
    assert found == pytest.approx(64 * (math.cos(0.5) - 0.25))


@pytest.mark.parametrize(
    "iteration, weight",
    # The original's recipe: base 1000, gamma 0.12, power 1, lambda_min 5.
    [(0, 1000.0), (1, 1000 / 1.12), (100, 1000 / 13), (1657, 1000 / 199.84), (1659, 5.0), (10**6, 5.0)],
)
def test_spherefaces_lambda_falls_with_the_iterations(iteration, weight):
    batch = at_angles("sphereface_annealed", [0.2, 1.0, 2.0, 3.0], 5, seed=3)
    batch.iteration = iteration
    block = margins.create("sphereface_annealed", 5, s=32.0)
    assert block.inputs == ("iteration",)
    loss, gradients = evaluate(block, batch)
    psi = [np.cos(4 * 0.2), -np.cos(4 * 1.0) - 2, np.cos(4 * 2.0) - 4, -np.cos(4 * 3.0) - 6]
    x, w = (unit(v.astype(np.float64))[0] for v in (batch.embedding, batch.arrays["fc7_weight"]))
    logits = 32 * x @ w.T
    rows = np.arange(4)
    logits[rows, batch.label] = 32 * (weight * np.cos([0.2, 1, 2, 3]) + psi) / (1 + weight)
    excess = logits - logits[rows, batch.label][:, None]
    excess[rows, batch.label] = -np.inf
    expected = np.log1p(np.exp(excess).sum(axis=1))
    np.testing.assert_allclose(loss, expected, rtol=1e-4)
    right = FORMULAS["sphereface_annealed"](batch, s=32.0)
    difference, length = error_norm(gradients["data"], right.gradients["data"])
    assert difference < 1e-4 * length


def test_annealed_target_logit_is_that_of_the_end():
    theta = np.linspace(0, math.pi / 4, 9)
    block = margins.create("sphereface_annealed", 5, s=1.0, lambda_min=3.0)
    found = block.target_logit(mx.nd, mx.nd.array(theta, dtype="float64")).asnumpy()
    np.testing.assert_allclose(found, (3 * np.cos(theta) + np.cos(4 * theta)) / 4, atol=1e-14)


def test_support_vectors_are_the_classes_above_the_target():
    """Classes in a plane: one nearer than the target, one above its logit by the margin alone, one not."""
    angles = np.radians([0, 20, 50, 120])
    batch = at_angles("sv_am_softmax", [0.1], 4)
    batch.arrays["fc7_weight"][:] = 0
    batch.arrays["fc7_weight"][:, 0], batch.arrays["fc7_weight"][:, 1] = np.cos(angles), np.sin(angles)
    batch.embedding[:] = 0
    batch.embedding[0, :2] = np.cos(np.radians(15)), np.sin(np.radians(15))
    batch.label[:] = 0
    loss, _ = evaluate(margins.create("sv_am_softmax", 4, s=10.0, m3=0.35, t=1.5), batch)
    cosine = np.cos(np.radians([15, 5, 35, 105]))
    target = 10 * (cosine[0] - 0.35)
    logits = [target, *(10 * (1.5 * cosine[1:3] + 0.5)), 10 * cosine[3]]
    assert cosine[2] < cosine[0]
    assert loss[0] == pytest.approx(np.log(np.exp(logits).sum()) - target, rel=1e-6)


@pytest.mark.parametrize("side", [1e-5, -1e-5])
def test_a_class_is_a_support_vector_just_above_the_target(side):
    batch = at_angles("sv_am_softmax", [0.1], 2)
    theta, other = 0.5, math.acos(math.cos(0.5) - 0.35 + side)
    batch.arrays["fc7_weight"][:] = 0
    batch.arrays["fc7_weight"][:, :2] = [
        [math.cos(theta), -math.sin(theta)],
        [math.cos(other), math.sin(other)],
    ]
    batch.embedding[:] = np.eye(1, 512)
    batch.label[:] = 0
    loss, _ = evaluate(margins.create("sv_am_softmax", 2, s=1.0, t=2.0), batch)
    target = math.cos(theta) - 0.35
    logit = 2 * (target + side) + 1 if side > 0 else target + side
    assert loss[0] == pytest.approx(math.log1p(math.exp(logit - target)), rel=1e-5)
