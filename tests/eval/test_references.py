import tracemalloc

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from latse.data.pairs.pairs import read_pairs
from latse.data.shards.shard_writer import write_shard
from latse.errors import LatseError
from latse.eval import references
from latse.eval.verification import flip_sum, judge, pair_distance

RNG = np.random.default_rng(3)


def test_raw_pixels_are_compared_by_normalised_cross_correlation():
    images = RNG.integers(0, 256, (2, 3, 112, 112), np.uint8)
    grey = np.einsum("nchw,c->nhw", images.astype(float), [0.299, 0.587, 0.114]).reshape(2, -1)
    correlation = np.corrcoef(grey)[0, 1]
    assert pair_distance(references.raw_pixels(images))[0] == pytest.approx(2 - 2 * correlation, abs=1e-5)


def peak_memory(function):
    """Bytes that numpy holds at most, beside what there is already, while a function runs."""
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_large_set_is_never_held_as_floats_of_three_channels(monkeypatch):
    images = RNG.integers(0, 256, (600, 3, 56, 56), np.uint8)
    monkeypatch.setattr(references, "BATCH_SIZE", 20)
    found = references.raw_pixels(images)
    np.testing.assert_allclose(found[::60], references.raw_pixels(images[::60]), atol=1e-6)
    assert peak_memory(lambda: references.raw_pixels(images)) < 1.5 * found.nbytes
    for fit in (references.whitened_pca, references.fisherfaces):
        feature = fit(images[:40], np.arange(40) % 4)
        assert peak_memory(lambda feature=feature: feature(images)) < 0.3 * found.nbytes
        np.testing.assert_allclose(feature(images)[::60], feature(images[::60]), atol=1e-3)


def test_a_black_image_has_a_feature_but_no_direction():
    feature = references.raw_pixels(np.zeros((2, 3, 112, 112), np.uint8))
    assert (feature == 0).all()
    with pytest.raises(LatseError, match="the embedding of image 0 is zero"):
        pair_distance(feature)


def test_whitened_pca_makes_the_training_features_white():
    images = RNG.integers(0, 256, (120, 3, 12, 12), np.uint8)
    features = references.whitened_pca(images, np.arange(120))(images)
    assert features.shape == (120, references.COMPONENTS)
    np.testing.assert_allclose(np.cov(features.T), np.eye(references.COMPONENTS), atol=1e-3)


def test_fisherfaces_are_pca_then_lda_of_the_training_people():
    label = np.arange(130) % 5
    centres = RNG.integers(60, 190, (5, 3, 12, 12))
    images = np.clip(centres[label] + RNG.normal(0, 30, (130, 3, 12, 12)), 0, 255).astype(np.uint8)
    probes = images[::7]
    pixels = np.einsum("nchw,c->nhw", images / 255.0, [0.299, 0.587, 0.114]).reshape(130, -1)
    pixels -= pixels.mean(axis=1, keepdims=True)
    pca = PCA(100).fit(pixels)
    expected = (
        LinearDiscriminantAnalysis().fit(pca.transform(pixels), label).transform(pca.transform(pixels[::7]))
    )
    found = references.fisherfaces(images, label)(probes)
    assert found.shape == (19, 4)
    np.testing.assert_allclose(np.abs(found), np.abs(expected), rtol=0.02, atol=0.02)


def test_few_images_leave_few_components():
    images = RNG.integers(0, 256, (8, 3, 12, 12), np.uint8)
    assert references.whitened_pca(images, np.arange(8))(images[:3]).shape == (3, 7)


@pytest.mark.parametrize("fit", [references.whitened_pca, references.fisherfaces])
def test_references_fitted_to_a_shard_judge_other_people(shard_folder, pairs_file, fit):
    pairs = read_pairs(pairs_file)
    feature = fit(*references.training_images(shard_folder))
    assert judge(pair_distance(flip_sum(feature, pairs.images)), pairs.issame).auc > 0.9


def test_training_images_are_the_first_people(shard_folder, monkeypatch):
    monkeypatch.setattr(references, "TRAINING_IMAGES", 10)
    images, label = references.training_images(shard_folder)
    assert images.shape == (10, 3, 112, 112)
    assert label.tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2]


@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 1, 2]])
def test_people_that_cannot_be_told_apart_are_refused(tmp_path, labels, photograph_bytes):
    write_shard(
        tmp_path, [(label, photograph_bytes(label, number)) for number, label in enumerate(labels)], 3
    )
    with pytest.raises(LatseError, match="fisherfaces need"):
        references.training_images(tmp_path)
