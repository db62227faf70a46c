"""Semi-hard mining: near samples, ties, duplicates, batches without positives or negatives."""

import numpy as np
import pytest
from closed_forms import FORMULAS, Batch, error_norm, evaluate_named, unit
from hypothesis import example, given, settings
from hypothesis import strategies as st

from latse.errors import LatseError
from latse.symbols import margins

# Unit vectors whose scalar products are exact, -1 to 1 by quarters: real ties and real duplicates.
AXES = np.eye(4)
HALVES = np.array([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, 1, 1, -1]]) / 2
POOL = np.zeros((16, 512), np.float32)
POOL[:, :4] = np.concatenate([AXES, -AXES, HALVES, -HALVES])


def batch_of(embedding, label, classes=4):
    return Batch(np.asarray(embedding, np.float32), np.asarray(label), classes)


def plane(*degrees):
    """Embeddings on a circle, in degrees, of length 3."""
    vectors = np.zeros((len(degrees), 512))
    vectors[:, 0], vectors[:, 1] = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return 3 * vectors


def squared(degrees):
    """Squared distance of two unit vectors that many degrees apart."""
    return 4 * np.sin(np.radians(degrees) / 2) ** 2


def loss_of(embedding, label, m=0.2):
    return evaluate_named("triplet", {"m": m}, batch_of(embedding, label))[0]


@pytest.mark.parametrize("m", [0.0, 0.2, 1.0])
@settings(max_examples=40)
@example(samples=[(0, 0)] * 4, seed=0)
@example(samples=[(0, 0), (0, 0), (0, 1), (0, 1)], seed=0)
@example(samples=[(0, 0), (1, 0), (0, 1), (1, 1), (2, 0), (2, 1)], seed=0)
@given(
    samples=st.lists(st.tuples(st.integers(0, 15), st.integers(0, 3)), min_size=1, max_size=9),
    seed=st.integers(0, 2**32 - 1),
)
def test_mining_is_that_of_the_definition_with_ties_and_duplicates(m, samples, seed):
    which, label = np.array(samples).T
    scale = 2.0 ** np.random.default_rng(seed).integers(-2, 3, (len(which), 1))
    batch = batch_of(POOL[which] * scale, label)
    loss, gradients = evaluate_named("triplet", {"m": m}, batch)
    right = FORMULAS["triplet"](batch, m=m)
    np.testing.assert_allclose(loss, right.loss, rtol=1e-6, atol=1e-7)
    assert np.isfinite(gradients["data"]).all()


@settings(max_examples=40)
@given(
    label=st.lists(st.integers(0, 4), min_size=1, max_size=12),
    spread=st.sampled_from([1e-4, 1e-2, 1, 100]),
    m=st.floats(0, 4, allow_subnormal=False),
    seed=st.integers(0, 2**32 - 1),
)
def test_loss_and_gradient_are_those_of_the_loops(label, spread, m, seed):
    """Also of a batch that has collapsed to almost one embedding."""
    rng = np.random.default_rng(seed)
    batch = batch_of(rng.normal(size=512) + spread * rng.normal(size=(len(label), 512)), label, 5)
    loss, gradients = evaluate_named("triplet", {"m": m}, batch)
    right = FORMULAS["triplet"](batch, m=m)
    np.testing.assert_allclose(loss, right.loss, rtol=1e-6, atol=1e-7)
    difference, length = error_norm(gradients["data"], right.gradients["data"])
    assert difference <= 1e-4 * length + 1e-9


@settings(max_examples=20)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), min_size=2, max_size=12), st.integers(0, 99))
def test_the_same_image_under_several_labels_is_equally_far(samples, seed):
    which, label = np.array(samples).T
    batch = batch_of(np.random.default_rng(seed).normal(size=(5, 512))[which], label)
    loss, _ = evaluate_named("triplet", {"m": 1.0}, batch)
    np.testing.assert_allclose(loss, FORMULAS["triplet"](batch, m=1.0).loss, rtol=1e-6, atol=1e-7)


def test_the_loops_gradient_is_that_of_finite_differences():
    rng = np.random.default_rng(3)
    embedding, label = rng.normal(size=(7, 6)), np.array([0, 0, 0, 1, 1, 2, 3])
    gradient = FORMULAS["triplet"](Batch(embedding, label, 4), m=1.0).gradients["data"]
    assert np.linalg.norm(gradient) > 0.1
    for index in np.ndindex(*embedding.shape):
        sides = []
        for side in (1e-6, -1e-6):
            moved = embedding.copy()
            moved[index] += side
            sides.append(FORMULAS["triplet"](Batch(moved, label, 4), m=1.0).loss.sum())
        assert abs((sides[0] - sides[1]) / 2e-6 - gradient[index]) < 1e-8


def test_the_nearest_of_the_farther_negatives_is_taken():
    # From the anchor at 0: its positive at 40°, negatives at 10° (nearer: too hard), 50° and 90°.
    loss = loss_of(plane(0, 40, 10, 50, 90), [0, 0, 1, 2, 3], m=1.0)
    assert loss[0] == pytest.approx(squared(40) - squared(50) + 1, abs=1e-6)


def test_without_a_farther_negative_the_farthest_is_taken():
    loss = loss_of(plane(0, 60, 10, 30), [0, 0, 1, 2])
    assert loss[0] == pytest.approx(squared(60) - squared(30) + 0.2, abs=1e-6)


def test_a_negative_as_far_as_the_positive_is_not_farther():
    # ±e1 and e0 are equally far from e2; the farther is -e2.
    loss = loss_of(POOL[[2, 1, 0, 6]], [0, 0, 1, 2], m=3.0)
    assert loss[0] == 2 - 4 + 3
    loss = loss_of(POOL[[2, 1, 0]], [0, 0, 1], m=3.0)
    assert loss[0] == 3


@pytest.mark.parametrize("seed", range(10))
def test_the_only_negative_may_equal_the_anchor(seed):
    """Whether their squared distance comes out as 0, or as a rounding above or below it."""
    anchor, positive = np.random.default_rng(seed).normal(size=(2, 512)).astype(np.float32)
    distance = 2 - 2 * (anchor @ positive) / np.linalg.norm(anchor) / np.linalg.norm(positive)
    loss = loss_of([anchor, positive, anchor], [0, 0, 1])
    assert loss[0] == pytest.approx(distance + 0.2, rel=1e-5)


def test_the_loss_is_the_mean_over_the_positives():
    loss = loss_of(plane(0, 20, -40, 30), [0, 0, 0, 1], m=1.0)
    easy = squared(20) - squared(30) + 1
    hard = squared(40) - squared(30) + 1
    assert loss[0] == pytest.approx((easy + hard) / 2, abs=1e-6)


@pytest.mark.parametrize("label", [[0, 1, 2, 3], [2, 2, 2, 2], [1]])
@pytest.mark.parametrize("m", [0.2, 4.0])
def test_no_positives_or_no_negatives_cost_nothing(label, m):
    embedding = unit(np.random.default_rng(0).normal(size=(len(label), 512)))[0]
    loss, gradients = evaluate_named("triplet", {"m": m}, batch_of(embedding, label))
    assert (loss == 0).all()
    assert (gradients["data"] == 0).all()


def test_opposite_positives_without_a_negative_cost_nothing_at_the_widest_margin():
    assert (loss_of(plane(0, 180), [1, 1], m=4.0) == 0).all()


def test_the_margin_is_at_most_the_largest_distance():
    with pytest.raises(LatseError, match=r"^m is 4.1, must be from 0 to 4$"):
        margins.create("triplet", 4, m=4.1)
