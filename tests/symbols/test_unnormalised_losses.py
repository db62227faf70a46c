"""Softmax over products (eq. 1) and centre loss, its centres over several steps."""

import mxnet as mx
import numpy as np
import pytest
from closed_forms import FORMULAS, Batch, at_angles, error_norm, evaluate, evaluate_named, random_arrays

from latse.symbols import margins


def test_softmax_is_equation_1():
    embedding = np.zeros((2, 512), np.float32)
    embedding[:, :2] = [[1, 2], [-1, 0.5]]
    centres = np.zeros((3, 512), np.float32)
    centres[:, :2] = [[1, 0], [0.5, -1], [2, 1]]
    bias = np.array([0.5, -1, 0.25], np.float32)
    arrays = {"fc7_weight": centres, "fc7_bias": bias}
    # W·x of the first: 1, -1.5, 4; of the second: -1, -1, -1.5.
    plain, _ = evaluate_named("softmax", {}, Batch(embedding, np.array([2, 0]), 3, arrays))
    np.testing.assert_allclose(
        plain,
        [
            -np.log(np.exp(4) / (np.exp(1) + np.exp(-1.5) + np.exp(4))),
            -np.log(np.exp(-1) / (2 * np.exp(-1) + np.exp(-1.5))),
        ],
        rtol=1e-5,
    )
    biased, _ = evaluate_named("softmax_bias", {}, Batch(embedding, np.array([2, 0]), 3, arrays))
    np.testing.assert_allclose(
        biased,
        [
            -np.log(np.exp(4.25) / (np.exp(1.5) + np.exp(-2.5) + np.exp(4.25))),
            -np.log(np.exp(-0.5) / (np.exp(-0.5) + np.exp(-2) + np.exp(-1.25))),
        ],
        rtol=1e-5,
    )


def test_the_bias_starts_at_0_and_changes_nothing_there():
    batch = at_angles("softmax", [0.3, 1.5, 3.0])
    loss, gradients = evaluate_named("softmax", {}, batch)
    biased, gradients_biased = evaluate_named("softmax_bias", {}, batch)
    np.testing.assert_array_equal(biased, loss)
    np.testing.assert_array_equal(gradients_biased["data"], gradients["data"])


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_the_centres_follow_the_published_rule(alpha):
    """Wen et al. 2016, equation 4, three batches in a row; people without a sample stay where they are."""
    classes, rng = 4, np.random.default_rng(2)
    block = margins.create("centre_loss", classes, alpha=alpha)
    block.set_embedding_size(512)
    block.initialize()
    centres = np.zeros((classes, 512))
    assert (block.centre.data().asnumpy() == centres).all()
    arrays = random_arrays("centre_loss", classes, rng)
    for label in map(np.array, ([0, 0, 0, 2], [2, 1, 2, 0, 2, 2], [1])):
        embedding = rng.normal(size=(len(label), 512)).astype(np.float32)
        arrays["fc7_centre_running"] = block.centre.data().asnumpy()
        loss, gradients = evaluate(block, Batch(embedding, label, classes, arrays))
        moved = arrays["fc7_centre_running"] - gradients["fc7_centre_running"] / len(label)
        before = centres.copy()
        for j in range(classes):
            pull = sum((before[j] - embedding[i]) for i in range(len(label)) if label[i] == j)
            centres[j] = before[j] - alpha * pull / (1 + (label == j).sum())
        np.testing.assert_allclose(moved, centres, rtol=1e-5, atol=1e-6)
        assert (moved[3] == 0).all()
        softmax = FORMULAS["softmax_bias"](Batch(embedding, label, classes, arrays)).loss
        distance = ((embedding - before[label]) ** 2).sum(axis=1)
        np.testing.assert_allclose(loss, softmax + 0.003 / 2 * distance, rtol=1e-5)
        block.centre.set_data(mx.nd.array(moved))


def test_the_centres_do_not_move_with_the_weight_of_their_loss():
    batch = at_angles("centre_loss", [0.5, 1.0, 1.5])
    moves = [
        evaluate_named("centre_loss", {"weight": weight}, batch)[1]["fc7_centre_running"]
        for weight in (0.0, 0.01, 1.0)
    ]
    np.testing.assert_array_equal(moves[1], moves[0])
    np.testing.assert_array_equal(moves[2], moves[0])


def test_the_pull_of_the_centre_reaches_the_embedding_alone():
    batch = at_angles("centre_loss", [0.5, 1.0, 1.5])
    _, plain = evaluate_named("softmax_bias", {}, batch)
    _, gradients = evaluate_named("centre_loss", {"weight": 2.0}, batch)
    for key in ("fc7_weight", "fc7_bias"):
        np.testing.assert_array_equal(gradients[key], plain[key])
    away = batch.embedding - batch.arrays["fc7_centre_running"][batch.label].astype(np.float64)
    difference, length = error_norm(gradients["data"] - plain["data"], 2 * away)
    assert difference < 1e-6 * length
