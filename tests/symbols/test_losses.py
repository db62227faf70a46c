import mxnet as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import structural_similarity

from latse.symbols.losses import L1, SSIM, Similarity

KINDS = ("noise", "constant", "nearly constant", "two levels", "ramp", "smooth")


def image(kind, rng, shape):
    """One (C, H, W) image in [-1, 1]."""
    channels, height, width = shape
    level, other = rng.uniform(-1, 1, (2, channels, 1, 1))
    if kind == "noise":
        pixels = rng.uniform(-1, 1, shape)
    elif kind == "constant":
        pixels = np.broadcast_to(level, shape)
    elif kind == "nearly constant":
        pixels = level + rng.uniform(-1e-3, 1e-3, shape)
    elif kind == "two levels":
        pixels = np.where(np.arange(width) < rng.integers(1, width), level, other) + np.zeros(shape)
    elif kind == "ramp":
        pixels = level + (other - level) * np.linspace(0, 1, height)[:, None] + np.zeros(shape)
    else:
        waves = np.sin(np.arange(height)[:, None] * level * 2 + np.arange(width) * other * 2)
        pixels = waves + rng.normal(0, 0.1, shape)
    return np.clip(pixels, -1, 1).astype(np.float32)


def reference(x, y, data_range=2):
    wang = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": data_range}
    return np.array(
        [
            structural_similarity(a, b, channel_axis=0, **wang)
            for a, b in zip(x.astype(np.float64), y.astype(np.float64))
        ]
    )


def evaluate(block, x, y):
    return block(mx.nd.array(x), mx.nd.array(y)).asnumpy()


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    kinds=st.lists(st.tuples(st.sampled_from(KINDS), st.sampled_from(KINDS)), min_size=1, max_size=3),
    shape=st.tuples(st.sampled_from([1, 3]), st.integers(11, 30), st.integers(11, 30)),
)
def test_ssim_is_scikit_images(seed, kinds, shape):
    rng = np.random.default_rng(seed)
    x, y = (np.stack([image(pair[i], rng, shape) for pair in kinds]) for i in (0, 1))
    np.testing.assert_allclose(evaluate(SSIM(2), x, y), reference(x, y), rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [(112, 112), (16, 24), (11, 11)])
@pytest.mark.parametrize("kind", KINDS)
def test_ssim_of_equal_opposite_and_other_images(kind, size):
    rng = np.random.default_rng(5)
    x, other = (image(kind, rng, (3, *size)) for _ in range(2))
    y = np.stack([x, -x, other])
    x = np.stack([x, x, x])
    found = evaluate(SSIM(2), x, y)
    np.testing.assert_allclose(found, reference(x, y), rtol=0, atol=1e-6)
    assert found[0] == 1
    assert (np.abs(found) <= 1).all()


def test_bright_flat_images_do_not_lose_digits():
    """E[x²] - E[x]² in fp32 would make these values wrong by up to 4e-4."""
    rng = np.random.default_rng(0)
    x, y = rng.uniform(-1, 1, (2, 500, 1, 1, 1)).astype(np.float32)
    a, b = x.astype(np.float64).ravel(), y.astype(np.float64).ravel()
    c1 = (0.01 * 2) ** 2
    ones = np.ones((1, 1, 12, 13), np.float32)
    expected = (2 * a * b + c1) / (a * a + b * b + c1)
    np.testing.assert_allclose(evaluate(SSIM(2), x * ones, y * ones), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("data_range", [1, 2, 255])
def test_the_data_range_is_a_parameter(data_range):
    x, y = np.random.default_rng(2).uniform(0, data_range, (2, 1, 3, 20, 15)).astype(np.float32)
    expected = reference(x, y, data_range)
    np.testing.assert_allclose(evaluate(SSIM(data_range), x, y), expected, rtol=0, atol=1e-6)


def test_similarity_is_half_the_distance_from_1():
    x, y = np.random.default_rng(3).uniform(-1, 1, (2, 4, 3, 16, 24)).astype(np.float32)
    y[1] = x[1]
    found = evaluate(Similarity(), x, y)
    np.testing.assert_allclose(found, (1 - reference((x + 1) / 2, (y + 1) / 2, 1)) / 2, rtol=0, atol=1e-6)
    assert found[1] == 0


def gradients(block, x, y):
    x, y = mx.nd.array(x), mx.nd.array(y)
    x.attach_grad()
    y.attach_grad()
    with mx.autograd.record():
        loss = block(x, y)
    loss.backward()
    return x.grad.asnumpy(), y.grad.asnumpy()


@pytest.mark.parametrize("kinds", [("noise", "smooth"), ("ramp", "constant"), ("two levels", "noise")])
def test_the_gradient_of_ssim_is_that_of_scikit_images(kinds):
    rng = np.random.default_rng(7)
    x, y = (image(kind, rng, (1, 12, 14))[None] for kind in kinds)
    step = 1e-4
    expected = np.zeros(x.size)
    for i in range(x.size):
        shift = np.zeros(x.size)
        shift[i] = step
        shift = shift.reshape(x.shape)
        expected[i] = (reference(x + shift, y)[0] - reference(x - shift, y)[0]) / (2 * step)
    found = gradients(SSIM(2), x, y)[0].ravel()
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("block", [L1(), SSIM(2), Similarity()])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_finite_for_equal_and_opposite_images(block, kind):
    x = image(kind, np.random.default_rng(1), (3, 16, 24))
    for gradient in gradients(block, np.stack([x, x, x]), np.stack([x, -x, np.zeros_like(x)])):
        assert np.isfinite(gradient).all()


def test_equal_images_are_the_top_of_ssim():
    x = image("smooth", np.random.default_rng(1), (3, 16, 24))[None]
    assert np.abs(gradients(SSIM(2), x, x)[0]).max() < 1e-7


def test_l1_is_the_mean_over_pixels_and_channels():
    x, y = np.random.default_rng(4).uniform(-1, 1, (2, 5, 3, 9, 7)).astype(np.float32)
    expected = np.abs(x.astype(np.float64) - y).reshape(5, -1).mean(axis=1)
    np.testing.assert_allclose(evaluate(L1(), x, y), expected, rtol=1e-6)
    np.testing.assert_allclose(gradients(L1(), x, y)[0], np.sign(x - y) / (3 * 9 * 7), rtol=1e-6)


@pytest.mark.parametrize("block", [L1(), SSIM(2), Similarity()])
def test_each_sample_has_a_loss_of_its_own(block):
    x, y = np.random.default_rng(4).uniform(-1, 1, (2, 3, 3, 12, 12)).astype(np.float32)
    together = evaluate(block, x, y)
    alone = [evaluate(block, x[i : i + 1], y[i : i + 1])[0] for i in range(3)]
    assert together.shape == (3,)
    np.testing.assert_allclose(together, alone, rtol=1e-6)
