"""Margins against their formulas in float64; the formulas' gradients against finite differences."""

import math

import mxnet as mx
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from latse.errors import LatseError
from latse.symbols import margins

# Name -> parameters to test, and what they make of θ: h(θ)/s and its derivative.
FORMULAS = {
    "softmax": ([{}], lambda t: (np.cos(t), -np.sin(t))),
    "cosface": ([{}, {"m3": 0.2}], lambda t, m3=0.35: (np.cos(t) - m3, -np.sin(t))),
    "arcface": ([{}, {"m2": 0.3}], lambda t, m2=0.5: (np.cos(t + m2), -np.sin(t + m2))),
    "sphereface": (
        [{}, {"m1": 4.0}, {"m1": 1.0}],
        lambda t, m1=1.35: (
            (-1) ** np.floor(m1 * t / np.pi) * np.cos(m1 * t) - 2 * np.floor(m1 * t / np.pi),
            -m1 * np.abs(np.sin(m1 * t)),
        ),
    ),
    "linearface": (
        [{}, {"a": 1.0, "b": 1.0}, {"b": 1.0}],
        lambda t, a=0.88, b=0.88: (b - a * t, np.full_like(t, -a)),
    ),
}
CASES = [(name, parameters) for name, (several, _) in FORMULAS.items() for parameters in several]
# Where h'(0) = 0, the loss is smooth at θ = 0; where h'(π) = 0 too, also there.
SMOOTH_AT_0 = ("softmax", "cosface", "sphereface")
SMOOTH_AT_PI = ("softmax", "cosface")


def unit(vectors):
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / lengths, lengths


def reference(name, parameters, s, embedding, label, centres):
    """Losses (N,), and the gradients of their sum with respect to embedding and centres; all float64."""
    rows = np.arange(len(label))
    x, length_x = unit(embedding.astype(np.float64))
    w, length_w = unit(centres.astype(np.float64))
    target = w[label]
    theta = 2 * np.arctan2(np.linalg.norm(x - target, axis=1), np.linalg.norm(x + target, axis=1))
    h, slope = FORMULAS[name][1](theta, **parameters)
    logits = s * (x @ w.T)
    logits[rows, label] = s * h
    top = logits.max(axis=1, keepdims=True)
    log_sum = top + np.log(np.exp(logits - top).sum(axis=1, keepdims=True))
    loss = log_sum[:, 0] - logits[rows, label]
    error = np.exp(logits - log_sum)  # derivative of the loss with respect to each logit
    error[rows, label] = -np.expm1(-loss) * -1
    others = error.copy()
    others[rows, label] = 0
    pull = (error[rows, label] * s * slope)[:, None]  # derivative of the loss with respect to θ
    grad_x = s * others @ w + pull * toward(x, target)
    grad_w = s * others.T @ x
    np.add.at(grad_w, label, pull * toward(target, x))
    return loss, along_the_sphere(grad_x, x) / length_x, along_the_sphere(grad_w, w) / length_w


def toward(x, y):
    """The derivative of the angle between unit vectors with respect to `x`; 0 where it is not defined."""
    tangent = along_the_sphere(y - x, x)
    length = np.linalg.norm(tangent, axis=1, keepdims=True)
    return -np.divide(tangent, length, out=np.zeros_like(tangent), where=length > 0)


def along_the_sphere(gradient, x):
    return gradient - (gradient * x).sum(axis=1, keepdims=True) * x


def evaluate(name, parameters, s, embedding, label, centres):
    """Losses and gradients of the margin itself, in fp32."""
    margin = margins.create(name, len(centres), s=s, **parameters)
    margin.initialize()
    margin.weight.set_data(mx.nd.array(centres))
    embedding = mx.nd.array(embedding)
    embedding.attach_grad()
    with mx.autograd.record():
        loss = margin(embedding, mx.nd.array(label))
    loss.backward()
    return loss.asnumpy(), embedding.grad.asnumpy(), margin.weight.grad().asnumpy()


def at_angle(theta, classes=5, seed=0):
    """Embeddings of a random length at the angles `theta` (N,) from their class centres; fp32."""
    rng = np.random.default_rng(seed)
    theta = np.asarray(theta, dtype=np.float64)[:, None]
    centres = rng.normal(0, rng.uniform(0.01, 2), (classes, 512)).astype(np.float32)
    label = rng.integers(0, classes, len(theta))
    w = unit(centres.astype(np.float64))[0][label]
    aside = unit(along_the_sphere(rng.normal(size=w.shape), w))[0]
    length = rng.uniform(0.5, 50, theta.shape)
    return (length * (np.cos(theta) * w + np.sin(theta) * aside)).astype(np.float32), label, centres


def relative(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize("name, parameters", CASES)
def test_the_reference_gradient_is_that_of_finite_differences(name, parameters):
    rng = np.random.default_rng(3)
    embedding, centres = rng.normal(size=(3, 6)), rng.normal(size=(4, 6))
    label = np.array([0, 3, 1])
    _, grad_x, grad_w = reference(name, parameters, 8, embedding, label, centres)
    for array, gradient in ((embedding, grad_x), (centres, grad_w)):
        for index in np.ndindex(*array.shape):
            value, sides = array[index], []
            for side in (1e-6, -1e-6):
                array[index] = value + side
                sides.append(reference(name, parameters, 8, embedding, label, centres)[0].sum())
            array[index] = value
            assert abs((sides[0] - sides[1]) / 2e-6 - gradient[index]) < 1e-6 * max(1, np.abs(gradient).max())


@pytest.mark.parametrize("name, parameters", CASES)
@settings(max_examples=40, deadline=None)
@example(theta=[0.0, math.pi], classes=2, s=128.0, seed=0)
@example(theta=[0.0] * 6 + [math.pi] * 6, classes=3, s=64.0, seed=1)
@given(
    theta=st.lists(st.floats(0, math.pi), min_size=1, max_size=6),
    classes=st.integers(2, 40),
    s=st.floats(1, 128),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_loss_is_that_of_the_formula(name, parameters, theta, classes, s, seed):
    embedding, label, centres = at_angle(theta, classes, seed)
    expected = reference(name, parameters, s, embedding, label, centres)[0]
    loss, *gradients = evaluate(name, parameters, s, embedding, label, centres)
    # Logits of fp32 are good to about s·1e-6, times 4 for SphereFace's steepest ψ.
    np.testing.assert_allclose(loss, expected, rtol=1e-6, atol=5e-6 * s)
    assert (loss > -1e-6 * s).all()
    assert all(np.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize(
    "theta, tolerance",
    # fp32 knows the direction from one unit vector to another that is 1e-4 away to about 1e-3.
    [(1e-4, 1e-2), (1e-2, 1e-4), (0.5, 1e-5), (math.pi / 2, 1e-5), (2.2, 1e-5), (math.pi - 1e-3, 1e-3)],
)
@pytest.mark.parametrize("s", [1, 64, 128])
@pytest.mark.parametrize("name, parameters", CASES)
def test_gradients_are_those_of_the_formula(name, parameters, s, theta, tolerance):
    embedding, label, centres = at_angle([theta] * 3, seed=int(s))
    _, expected_x, expected_w = reference(name, parameters, s, embedding, label, centres)
    _, grad_x, grad_w = evaluate(name, parameters, s, embedding, label, centres)
    for found, expected, vectors in ((grad_x, expected_x, embedding), (grad_w, expected_w, centres)):
        # oneDNN's log_softmax gives probabilities to 2e-6, which s and a small length multiply.
        rounding = 1e-5 * s / np.linalg.norm(vectors, axis=1).min()
        assert np.linalg.norm(found - expected) <= tolerance * np.linalg.norm(expected) + rounding


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("s", [1, 64, 128])
@pytest.mark.parametrize("name, parameters", CASES)
def test_exactly_at_0_and_pi_all_is_finite_and_bounded(name, parameters, s, sign):
    centres = np.random.default_rng(4).normal(0, 0.1, (4, 512)).astype(np.float32)
    label = np.array([0, 3, 1])
    embedding = sign * 4 * centres[label]  # a power of two: the unit vectors are equal to the last bit
    loss, grad_x, grad_w = evaluate(name, parameters, s, embedding, label, centres)
    expected, expected_x, expected_w = reference(name, parameters, s, embedding, label, centres)
    np.testing.assert_allclose(loss, expected, rtol=1e-6, atol=5e-6 * s)
    assert np.isfinite(grad_x).all() and np.isfinite(grad_w).all()
    steepest = s * (parameters.get("m1", 1.35) if name == "sphereface" else 1)
    assert np.linalg.norm(grad_x, axis=1).max() <= 2 * steepest / np.linalg.norm(embedding, axis=1).min()
    if name in (SMOOTH_AT_0 if sign > 0 else SMOOTH_AT_PI):
        assert np.abs(grad_x - expected_x).max() < 1e-5 * s
        assert np.abs(grad_w - expected_w).max() < 1e-5 * s


@pytest.mark.parametrize("name, parameters", CASES)
def test_an_embedding_of_zeros_gives_finite_gradients(name, parameters):
    centres = np.random.default_rng(4).normal(0, 0.1, (4, 512)).astype(np.float32)
    for part in evaluate(name, parameters, 64, np.zeros((2, 512), np.float32), np.array([0, 3]), centres):
        assert np.isfinite(part).all()


@pytest.mark.parametrize("name, parameters", CASES)
def test_the_lengths_do_not_matter(name, parameters):
    embedding, label, centres = at_angle([0.3, 1.2, 2.9], seed=8)
    scale = np.random.default_rng(0).uniform(0.5, 4, (3, 1)).astype(np.float32)
    np.testing.assert_allclose(
        evaluate(name, parameters, 64, embedding * scale, label, 3 * centres)[0],
        evaluate(name, parameters, 64, embedding, label, centres)[0],
        rtol=1e-5,
        atol=1e-3,
    )


@pytest.mark.parametrize("position", [0, 6])
@pytest.mark.parametrize("name, parameters", CASES)
def test_the_first_and_the_last_class(name, parameters, position):
    rng = np.random.default_rng(1)
    embedding, centres = (rng.normal(size=(n, 512)).astype(np.float32) for n in (2, 7))
    label = np.array([position, position])
    loss, _, grad_w = evaluate(name, parameters, 16, embedding, label, centres)
    expected, _, expected_w = reference(name, parameters, 16, embedding, label, centres)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    assert relative(grad_w, expected_w) < 1e-5


@pytest.mark.parametrize("m1", [1, 1.35, 2, 3.7, 4])
def test_spherefaces_psi_falls_without_a_step(m1):
    theta = np.linspace(0, np.pi, 20001)
    margin = margins.create("sphereface", 2, s=1, m1=m1)
    found = margin.target_logit(mx.nd, mx.nd.array(theta)).asnumpy().astype(np.float64)
    # ψ(0) = 1 and ψ' = -m1·|sin(m1·θ)|, so that ψ is its integral.
    slope = -m1 * np.abs(np.sin(m1 * theta))
    integral = 1 + np.concatenate([[0], np.cumsum((slope[1:] + slope[:-1]) / 2 * np.diff(theta))])
    np.testing.assert_allclose(found, integral, rtol=0, atol=1e-5)
    assert np.diff(found).max() < 2e-6
    assert -np.diff(found).min() < m1 * theta[1] + 2e-6
    inside = theta <= np.pi / m1
    np.testing.assert_allclose(found[inside], np.cos(m1 * theta[inside]), rtol=0, atol=1e-5)


def test_points_of_one_family():
    """Without a margin, all but LinearFace are the normalised softmax."""
    embedding, label, centres = at_angle(np.linspace(0.01, 3.1, 9), seed=2)
    plain = evaluate("softmax", {}, 64, embedding, label, centres)
    for name, parameters in (("cosface", {"m3": 0}), ("arcface", {"m2": 0}), ("sphereface", {"m1": 1})):
        for found, expected in zip(evaluate(name, parameters, 64, embedding, label, centres), plain):
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@settings(max_examples=60, deadline=None)
@given(
    angle=st.one_of(st.floats(0, math.pi), st.floats(0, 1e-3), st.floats(math.pi - 1e-3, math.pi)),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_angle_is_exact_to_rounding_everywhere(angle, seed):
    rng = np.random.default_rng(seed)
    x = unit(rng.normal(size=(1, 512)))[0]
    aside = unit(along_the_sphere(rng.normal(size=x.shape), x))[0]
    y = np.cos(angle) * x + np.sin(angle) * aside
    x, y = x.astype(np.float32), y.astype(np.float32)
    found = margins.angle(mx.nd, mx.nd.array(x), mx.nd.array(y)).asscalar()
    assert abs(found - angle) < 3e-6
    assert 0 <= found <= np.float32(math.pi)


def test_class_centres_give_cosines():
    embedding, _, centres = at_angle([0.0, 0.7, math.pi], classes=6, seed=3)
    block = margins.ClassCentres(6)
    block.initialize()
    block.weight.set_data(mx.nd.array(centres))
    expected = unit(embedding.astype(np.float64))[0] @ unit(centres.astype(np.float64))[0].T
    np.testing.assert_allclose(block(mx.nd.array(embedding)).asnumpy(), expected, rtol=0, atol=1e-6)
    assert [*block.collect_params()] == ["fc7_weight"]


@pytest.mark.parametrize("name", margins.MARGINS)
def test_the_class_centres_are_the_only_parameter(name):
    margin = margins.create(name, 10)
    assert {key: value.shape for key, value in margin.collect_params().items()} == {"fc7_weight": (10, 512)}


def test_every_margin_is_tested():
    assert set(FORMULAS) == set(margins.MARGINS)


def test_unknown_margins_and_parameters_are_refused():
    with pytest.raises(LatseError, match="unknown margin 'triplet'; there are softmax, cosface, arcface"):
        margins.create("triplet", 10)
    with pytest.raises(LatseError, match="the margin 'arcface' has no parameter 'm3'; it has s, m2"):
        margins.create("arcface", 10, m3=0.2)
    with pytest.raises(LatseError, match="has no parameter 'classes'"):
        margins.check("softmax", classes=3)


@pytest.mark.parametrize(
    ("name", "parameter", "value"),
    [
        ("softmax", "s", -1.0),
        ("cosface", "m3", -0.1),
        ("arcface", "m2", -0.5),
        ("sphereface", "m1", 0.9),
        ("linearface", "a", -0.88),
        ("linearface", "a", float("nan")),
    ],
)
def test_a_parameter_out_of_range_is_refused(name, parameter, value):
    with pytest.raises(LatseError, match=f"{parameter} is {value}, must be at least"):
        margins.check(name, **{parameter: value})
