"""The likeness of generated faces to the mean faces of people."""

import tracemalloc

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import structural_similarity

from latse.eval.restoration import judge_restoration, mean_face, similarity


def wang(x, y):
    """SSIM of two images (3, H, W) in [0, 1] as Wang et al. 2004 define it, over windows inside the image."""

    def blur(image):
        kernel = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
        kernel /= kernel.sum()
        return cv2.sepFilter2D(image, -1, kernel, kernel)[5:-5, 5:-5]

    values = []
    for a, b in zip(x, y):
        mean_a, mean_b = blur(a), blur(b)
        variances = blur(a * a) + blur(b * b) - mean_a**2 - mean_b**2
        covariance = blur(a * b) - mean_a * mean_b
        luminance = (2 * mean_a * mean_b + 0.01**2) / (mean_a**2 + mean_b**2 + 0.01**2)
        values.append(luminance * (2 * covariance + 0.03**2) / (variances + 0.03**2))
    return np.mean(values)


def pictures(seed, count):
    return np.random.default_rng(seed).integers(0, 256, (count, 3, 20, 24)).astype(np.uint8)


def means_of(images, numbers):
    """The mean face of each person."""
    return np.stack([mean_face(images[numbers == person]) for person in range(numbers.max() + 1)])


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1))
def test_similarity_is_that_of_wang(seed):
    x, y = pictures(seed, 2) / 255
    y = (x + y) / 2
    assert similarity(x, y) == pytest.approx(wang(x, y), abs=1e-9)


def test_the_mean_face_is_that_of_a_persons_images_and_mirror_images():
    images = pictures(0, 5)
    both = np.concatenate([images, images[..., ::-1]]).astype(np.float64) / 255
    np.testing.assert_allclose(mean_face(images), both.mean(axis=0), atol=1e-12)


@pytest.mark.parametrize("batch_size", [1, 4, 6])
def test_what_is_generated_is_compared_with_the_mean_face_of_its_person(batch_size):
    images, people = pictures(1, 6), np.array([7, 3, 7, 9, 3, 9])
    numbers, seen = np.array([1, 0, 1, 2, 0, 2]), []

    def decoder(given):
        seen.append(given)
        return np.clip(given / 127.5 - 1 + 0.1, -1, 1).astype(np.float32)

    twice = np.concatenate([images, images[:2]])
    found = judge_restoration(decoder, twice, np.concatenate([people, people[:2]]), batch_size)
    assert found.images == 6
    np.testing.assert_array_equal(np.concatenate(seen), images)
    generated, means = (decoder(images).astype(np.float64) + 1) / 2, means_of(images, numbers)

    def expected(faces, shift):
        return np.mean([wang(face, means[(n + shift) % 3]) for face, n in zip(faces, numbers)])

    assert found.ssim == pytest.approx(expected(generated, 0), abs=1e-9)
    assert found.ssim_to_other == pytest.approx(expected(generated, 1), abs=1e-9)
    assert found.ssim_of_average == pytest.approx(expected([means[numbers].mean(axis=0)] * 6, 0), abs=1e-9)


def test_a_decoder_that_draws_the_mean_faces_is_perfect_and_one_that_draws_all_alike_knows_nobody():
    images, people = pictures(2, 6), np.array([0, 0, 0, 1, 1, 1])
    means = means_of(images, people)
    perfect = judge_restoration(lambda given: 2 * means[people] - 1, images, people, 6)
    assert perfect.ssim == pytest.approx(1)
    assert perfect.ssim_to_other < 0.9
    alike = judge_restoration(lambda given: np.repeat(2 * means[:1] - 1, 6, axis=0), images, people, 6)
    assert alike.ssim == pytest.approx(alike.ssim_to_other)


def test_memory_does_not_grow_with_the_images():
    def peak(count):
        images, people = pictures(4, count), np.arange(count) % 2
        tracemalloc.start()
        judge_restoration(lambda given: (given / 127.5 - 1).astype(np.float32), images, people, 8)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    assert peak(400) - peak(100) < 300 * pictures(4, 1).nbytes


def test_similarity_is_that_of_scikit_image():
    x, y = np.random.default_rng(3).random((2, 3, 112, 112))
    like_ours = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    expected = structural_similarity(x, 0.7 * x + 0.3 * y, data_range=1, channel_axis=0, **like_ours)
    assert similarity(x, 0.7 * x + 0.3 * y) == pytest.approx(expected, abs=1e-12)
