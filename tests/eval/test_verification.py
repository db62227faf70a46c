import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latse.errors import LatseError
from latse.eval.verification import (
    distinct_images,
    flip_sum,
    judge,
    pair_distance,
    tar_at_far,
    verify,
)


def brute_force(distance, issame):
    """The protocol again, with plain loops: fold accuracies and thresholds."""
    n = len(issame)
    sizes = [n // 10 + (fold < n % 10) for fold in range(10)]
    accuracies, thresholds, start = [], [], 0
    for size in sizes:
        fold = range(start, start + size)
        others = [i for i in range(n) if i not in fold]
        best, best_right = None, -1
        for step in range(400):
            right = sum((distance[i] < step * 0.01) == issame[i] for i in others)
            if right > best_right:
                best, best_right = step * 0.01, right
        accuracies.append(sum((distance[i] < best) == issame[i] for i in fold) / size)
        thresholds.append(best)
        start += size
    return accuracies, thresholds


def brute_force_tar(distance, issame, far):
    """Try every distance (and infinity) as the threshold; the largest with few enough false accepts."""
    different = distance[~issame]
    fitting = [
        t for t in [*distance, 4.1] if sum(d < t for d in different) <= far * len(different) * (1 + 1e-12)
    ]
    return np.mean([d < max(fitting) for d in distance[issame]])


def labelled_distances(distances):
    """Pairs of (distance, issame), 10 to 40, of both kinds."""
    pair = st.tuples(distances, st.booleans())
    both = st.lists(pair, min_size=10, max_size=40).filter(
        lambda pairs: len({same for _, same in pairs}) == 2
    )
    return both.map(lambda pairs: (np.array([d for d, _ in pairs]), np.array([same for _, same in pairs])))


# On the grid of thresholds and half-way between: ties with thresholds and with each other abound.
GRID = st.integers(0, 800).map(lambda step: step * 0.005)
COARSE = st.integers(0, 4).map(lambda step: step * 0.25)
ANY = st.floats(0, 4)


@settings(max_examples=40, deadline=None)
@given(st.one_of(labelled_distances(GRID), labelled_distances(COARSE), labelled_distances(ANY)))
def test_judge_equals_plain_loops(labelled):
    distance, issame = labelled
    accuracies, thresholds = brute_force(distance, issame)
    result = judge(distance, issame)
    np.testing.assert_allclose(result.fold_accuracies, accuracies, rtol=1e-12)
    assert result.threshold == pytest.approx(sum(thresholds) / 10, abs=1e-12)
    assert result.accuracy == pytest.approx(sum(accuracies) / 10)
    assert result.std == pytest.approx(np.sqrt(sum((a - sum(accuracies) / 10) ** 2 for a in accuracies) / 10))
    same, different = distance[issame], distance[~issame]
    wins = sum((d > s) + 0.5 * (d == s) for s in same for d in different)
    assert result.auc == pytest.approx(wins / len(same) / len(different))
    for key, tar in result.tar_at_far.items():
        assert tar == pytest.approx(brute_force_tar(distance, issame, float(key)))


@settings(max_examples=60, deadline=None)
@given(labelled_distances(COARSE), st.sampled_from([0.0, 0.1, 0.29, 0.3, 0.5, 0.57, 1.0]))
def test_tar_is_that_of_the_largest_fitting_threshold(labelled, far):
    distance, issame = labelled
    assert tar_at_far(distance, issame, far) == pytest.approx(brute_force_tar(distance, issame, far))


def test_equality_with_the_threshold_is_no_acceptance():
    distance = np.array([0.0, 0.01] * 10)
    issame = np.array([True, False] * 10)
    result = judge(distance, issame)
    assert result.accuracy == 1
    assert result.threshold == pytest.approx(0.01)
    assert result.tar_at_far == {"0.01": 1.0, "0.001": 1.0}


def test_false_accepts_are_counted_exactly():
    """With 29 of 100 allowed the 30th distance is the threshold; 0.29 * 100 is 28.999… in floats."""
    distance = np.concatenate([np.arange(100) / 100, [0.285, 0.29, 0.295]])
    issame = np.array([False] * 100 + [True] * 3)
    assert tar_at_far(distance, issame, 0.29) == pytest.approx(1 / 3)
    assert tar_at_far(distance, issame, 0.30) == 1


@pytest.mark.parametrize(
    ("different", "unresolved"), [(10, ["0.01", "0.001"]), (100, ["0.001"]), (999, ["0.001"]), (1000, [])]
)
def test_a_far_that_the_pairs_cannot_resolve_is_named(different, unresolved):
    distance = np.linspace(1, 2, different + 10)
    result = judge(distance, np.arange(different + 10) < 10)
    assert result.unresolved_far == unresolved
    assert (result.pairs, result.different_pairs) == (different + 10, different)


def test_constant_features_are_judged_by_chance():
    images = np.zeros((40, 3, 4, 4), np.uint8)
    result = verify(lambda x: np.ones((len(x), 8)), images, np.arange(20) % 2 == 0, "constant")
    assert result.accuracy == 0.5
    assert result.auc == 0.5
    assert result.tar_at_far == {"0.01": 0.0, "0.001": 0.0}


def test_the_distance_is_of_the_normalised_sum_with_the_mirror_image():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6, 3, 5, 5), np.uint8)
    images[4] = images[1]
    weight = rng.normal(size=(75, 7)).astype(np.float32)

    def feature(x):
        return np.tanh(x.reshape(len(x), -1).astype(np.float32) / 255 @ weight)

    distance = pair_distance(flip_sum(feature, images))
    for pair in range(3):
        unit = []
        for image in images[2 * pair : 2 * pair + 2]:
            mirror = np.stack([np.fliplr(channel) for channel in image])
            summed = feature(image[None])[0].astype(np.float64) + feature(mirror[None])[0]
            unit.append(summed / np.sqrt((summed**2).sum()))
        cosine = (unit[0] * unit[1]).sum()
        assert distance[pair] == pytest.approx(2 - 2 * cosine, abs=1e-6)


def test_each_distinct_image_is_embedded_once():
    images = np.zeros((6, 3, 2, 2), np.uint8)
    images[:, 0, 0, 0] = [5, 7, 5, 5, 9, 7]
    calls = []

    def feature(x):
        calls.append(x[:, 0].max(axis=(1, 2)).tolist())
        return x.reshape(len(x), -1).astype(np.float32)

    summed = flip_sum(feature, images)
    assert calls == [[5, 7, 9], [5, 7, 9]]
    assert summed[:, 0].tolist() == [5, 7, 5, 5, 9, 7]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=20))
def test_distinct_images_are_found_in_order(values):
    images = np.array(values, np.uint8)[:, None, None, None] * np.ones((1, 3, 2, 2), np.uint8)
    first, inverse = distinct_images(images)
    assert [values[i] for i in first] == list(dict.fromkeys(values))
    assert first.tolist() == sorted(values.index(value) for value in set(values))
    np.testing.assert_array_equal(images[first][inverse], images)


def test_what_cannot_be_judged_is_refused():
    both = np.arange(9) % 2 == 0
    with pytest.raises(LatseError, match="9 pairs are too few for 10 folds"):
        judge(np.ones(9), both)
    for issame in (np.ones(12, bool), np.zeros(12, bool)):
        with pytest.raises(LatseError, match="all 12 pairs are of one kind"):
            judge(np.ones(12), issame)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_embedding_that_is_not_finite_is_refused(value):
    images = np.arange(24, dtype=np.uint8)[:, None, None, None] * np.ones((1, 3, 2, 2), np.uint8)

    def feature(x):
        embedding = np.ones((len(x), 4))
        embedding[x[:, 0, 0, 0] == 5, 2] = value
        return embedding

    with pytest.raises(LatseError, match="broken: the embedding of image 5 is not finite"):
        verify(feature, images, np.arange(12) % 2 == 0, "broken")
