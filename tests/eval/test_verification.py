import warnings
from dataclasses import asdict

import numpy as np
import pytest
import sklearn.preprocessing
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from latse.errors import LatseError
from latse.eval.roc import FAR_TARGETS
from latse.eval.verification import (
    GridFolds,
    distinct_images,
    exact_accuracy,
    flip_sum,
    judge,
    pair_distance,
    val_at_far,
)

# ---- the protocol again, independently: loops over pairs, folds and thresholds


def folds(n):
    """The pairs of each fold: runs, the first n % 10 of them one longer."""
    sizes = [n // 10 + (fold < n % 10) for fold in range(10)]
    starts = np.cumsum([0, *sizes])
    return [list(range(start, start + size)) for start, size in zip(starts, sizes)]


def protocol(embedding, issame):
    """Accuracies of the folds from flip-summed embeddings, as the protocol's own loops compute them.

    Returns their mean, std and the list, in the arithmetic of the protocol: counts of right pairs, divided.
    """
    unit = sklearn.preprocessing.normalize(embedding)
    distance = np.sum(np.square(np.subtract(unit[0::2], unit[1::2])), 1)
    return protocol_of_distances(distance, issame)[:3]


def protocol_of_distances(distance, issame):
    thresholds = np.arange(0, 4, 0.01)
    accuracies, chosen = np.zeros(10), np.zeros(10)
    for number, test in enumerate(folds(len(issame))):
        train = [pair for pair in range(len(issame)) if pair not in set(test)]
        right = [np.sum(np.less(distance[train], t) == issame[train]) / len(train) for t in thresholds]
        best = thresholds[np.argmax(right)]
        hits = sum(bool(distance[pair] < best) == bool(issame[pair]) for pair in test)
        accuracies[number], chosen[number] = float(hits) / len(test), best
    return np.mean(accuracies), np.std(accuracies), accuracies.tolist(), np.mean(chosen)


def protocol_val(distance, issame, far=1e-3):
    """VAL by interpolation among the points of the FAR curve; None where that gives no single answer."""
    thresholds = np.arange(0, 4, 0.001)
    val, false = [], []
    for test in folds(len(issame)):
        others = np.setdiff1d(np.arange(len(issame)), test)
        different = distance[others][~issame[others]]
        if not len(different) or len(set(issame[test].tolist())) < 2:
            return None
        rates = np.array([np.sum(different < t) / len(different) for t in thresholds])
        at = [t for t, rate in zip(thresholds, rates) if rate == far]
        below, above = thresholds[rates < far], thresholds[rates > far]
        if max(rates) < far:
            threshold = 0.0
        elif len(at) > 1:
            return None
        elif at:
            threshold = at[0]
        else:
            (a, b), (x, y) = (rates[rates < far].max(), rates[rates > far].min()), (below[-1], above[0])
            threshold = x + (far - a) / (b - a) * (y - x)
        accepted = distance[test] < threshold
        val.append(np.mean(accepted[issame[test]]))
        false.append(np.mean(accepted[~issame[test]]))
    return np.mean(val), np.std(val), np.mean(false)


def protocol_exact(distance, issame):
    """The folds with every distance of the other nine, and one above all, tried as the threshold."""
    accuracies, chosen = [], []
    for test in folds(len(issame)):
        others = [pair for pair in range(len(issame)) if pair not in set(test)]
        tried = sorted(set(distance[others].tolist()))
        tried.append(np.nextafter(tried[-1], 9))
        right = [sum((distance[i] < t) == issame[i] for i in others) for t in tried]
        best = tried[right.index(max(right))]
        accuracies.append(sum((distance[i] < best) == issame[i] for i in test) / len(test))
        chosen.append(best)
    return np.mean(accuracies), np.std(accuracies), np.mean(chosen)


def pairs_of(distances):
    """Pairs of (distance, issame), 10 to 40, of both kinds or of one."""
    pair = st.tuples(distances, st.booleans())
    both = st.lists(pair, min_size=10, max_size=40)
    return both.map(lambda pairs: (np.array([d for d, _ in pairs]), np.array([same for _, same in pairs])))


def has_both(labelled):
    return labelled[1].any() and not labelled[1].all()


# On the grids of thresholds and between: ties with thresholds and with each other abound.
GRID = st.integers(0, 800).map(lambda step: step * 0.005)
ON_THRESHOLDS = st.sampled_from(np.arange(0, 4, 0.01).tolist())
COARSE = st.integers(0, 4).map(lambda step: step * 0.25)
ANY = st.floats(0, 4)
LABELLED = st.one_of(map(pairs_of, (GRID, ON_THRESHOLDS, COARSE, ANY)))


@settings(max_examples=40)
@given(LABELLED)
def test_the_accuracy_is_the_protocols_to_the_last_bit(labelled):
    distance, issame = labelled
    accuracy, std, accuracies, threshold = protocol_of_distances(distance, issame)
    result = judge(distance, issame)
    assert (result.accuracy, result.std, result.fold_accuracies) == (accuracy, std, accuracies)
    assert result.threshold == threshold


@settings(max_examples=40)
@given(LABELLED)
def test_the_exact_variant_tries_every_distance(labelled):
    assert exact_accuracy(*labelled) == pytest.approx(protocol_exact(*labelled), rel=1e-12)


@settings(max_examples=15)
@given(LABELLED, st.sampled_from([1e-3, 0.05, 0.1, 0.3]))
def test_val_is_interpolated(labelled, far):
    expected = protocol_val(*labelled, far)
    found = val_at_far(*labelled, far)
    assert (found is None) == (expected is None)
    assert found is None or found == pytest.approx(expected, abs=1e-12)


def test_val_is_at_a_false_accept_in_a_thousand():
    rng = np.random.default_rng(0)
    issame = np.arange(400) % 2 == 0
    distance = np.clip(rng.normal(np.where(issame, 1.0, 1.6), 0.2), 0, 4)
    assert judge(distance, issame).val == pytest.approx(protocol_val(distance, issame, 1e-3), abs=1e-12)


def test_the_histogram_is_of_cosines_and_the_roc_of_20_rates_a_decade():
    cosine = np.random.default_rng(0).uniform(-0.99, 0.99, 1100)
    issame = np.arange(1100) < 100
    result = judge(2 - 2 * cosine, issame)
    edges = np.arange(81) / 40 - 1
    assert result.histogram["edges"] == pytest.approx(edges.tolist(), abs=1e-15)
    for kind, chosen in (("same", issame), ("different", ~issame)):
        assert result.histogram[kind] == np.histogram(cosine[chosen], edges)[0].tolist()
    assert np.diff(np.log10(result.roc["far"])) == pytest.approx(np.full(60, 1 / 20))


@settings(max_examples=40)
@given(LABELLED.filter(has_both))
def test_rates_are_those_of_every_threshold(labelled):
    distance, issame = labelled
    result = judge(distance, issame)
    assert result.auc == pytest.approx(roc_auc_score(issame, -distance))
    for key, tar in result.tar_at_far.items():
        assert tar == pytest.approx(every_threshold_tar(distance, issame, float(key)))
        threshold = largest_threshold(distance, issame, float(key))
        assert result.threshold_at_far[key] == threshold
        assert result.cosine_at_far[key] == pytest.approx(1 - threshold / 2)
    for far, tar in zip(result.roc["far"], result.roc["tar"]):
        assert tar == pytest.approx(every_threshold_tar(distance, issame, far))
    assert result.roc["far"][0] == 1 / (~issame).sum() and result.roc["far"][-1] == 1
    assert sum(result.histogram["same"]) == issame.sum()
    assert sum(result.histogram["different"]) == (~issame).sum()


def largest_threshold(distance, issame, far):
    """Try every distance (and infinity) as the threshold; the largest with few enough false accepts."""
    different = distance[~issame]
    return max(t for t in [*distance, np.inf] if np.sum(different < t) / len(different) <= far)


def every_threshold_tar(distance, issame, far):
    return np.mean(distance[issame] < largest_threshold(distance, issame, far))


# ---- features of hostile kinds, from images to accuracy


def embeddings():
    """Flip-summed embeddings that insightface's protocol takes, by what is odd about them."""
    rng = np.random.default_rng(0)
    n = 137  # no multiple of the folds
    people = rng.normal(size=(20, 8))
    pairs = rng.integers(0, 20, (n, 2))
    pairs[::2, 1] = pairs[::2, 0]
    noisy = people[pairs.ravel()] + 0.8 * rng.normal(size=(2 * n, 8))
    issame = pairs[:, 0] == pairs[:, 1]
    few = rng.integers(1, 4, (2 * n, 3)).astype(float)  # many equal distances
    return {
        "noisy": (noisy, issame),
        "float32": (noisy.astype(np.float32), issame),
        "constant": (np.ones((2 * n, 5)), issame),
        "ties": (few, issame),
        "one dimension": (noisy[:, :1], issame),
        "all pairs of one person": (noisy, np.ones(n, bool)),
        "all pairs of two": (noisy, np.zeros(n, bool)),
        "sorted by kind": (noisy, np.sort(issame)),
        "ten pairs": (noisy[:20], issame[:10]),
        "huge": (1e150 * noisy, issame),
        "small": (1e-12 * noisy, issame),
    }


@pytest.mark.parametrize("kind", embeddings())
def test_features_of_any_kind_are_judged_as_the_protocol_does(kind):
    embedding, issame = embeddings()[kind]
    accuracy, std, accuracies = protocol(embedding, issame)
    result = judge(pair_distance(embedding), issame)
    assert (result.accuracy, result.std, result.fold_accuracies) == (accuracy, std, accuracies)


@pytest.mark.parametrize("same", [True, False])
def test_pairs_of_one_kind_have_an_accuracy_but_no_rates(same):
    result = judge(np.tile(np.linspace(0.5, 1.5, 5), 5), np.full(25, same))
    assert result.accuracy == result.exact.accuracy == 1
    assert result.val is result.auc is result.eer is None
    assert result.tar_at_far == dict.fromkeys(map(str, FAR_TARGETS))
    assert result.unresolved_far == [str(far) for far in FAR_TARGETS]
    assert result.roc == {"far": [], "tar": []}
    assert sum(result.histogram["same" if same else "different"]) == 25


def test_constant_features_are_judged_by_chance():
    images = np.zeros((40, 3, 4, 4), np.uint8)
    distance = pair_distance(flip_sum(lambda x: np.ones((len(x), 8)), images))
    result = judge(distance, np.arange(20) % 2 == 0)
    assert (result.accuracy, result.auc, result.eer) == (0.5, 0.5, 0.5)
    assert set(result.tar_at_far.values()) == {0.0}


def test_equality_with_the_threshold_is_no_acceptance():
    distance = np.array([0.0, 0.01] * 10)
    issame = np.array([True, False] * 10)
    result = judge(distance, issame)
    assert result.accuracy == 1
    assert result.threshold == pytest.approx(0.01)
    assert result.exact == pytest.approx((1, 0, 0.01))
    assert set(result.tar_at_far.values()) == {1.0}


def test_the_last_threshold_can_be_the_best():
    result = judge(np.array([3.985, 3.995] * 10), np.array([True, False] * 10))
    assert result.accuracy == 1
    assert result.threshold == pytest.approx(3.99)


def test_exact_thresholds_part_what_the_grid_cannot():
    distance = np.array([0.501, 0.509] * 10)
    result = judge(distance, np.array([True, False] * 10))
    assert result.accuracy == 0.5 and result.exact == pytest.approx((1, 0, 0.509))


def test_false_accepts_are_counted_exactly():
    """Of 1,000 different pairs exactly one is allowed at 0.001, though 0.001 is no binary fraction."""
    distance = np.concatenate([np.arange(1, 1001) / 1000, [0.0005, 0.0015, 0.0025, 0.0035]])
    result = judge(distance, np.arange(1004) >= 1000)
    assert result.tar_at_far["0.001"] == 0.5
    assert result.tar_at_far["0.0001"] == 0.25
    assert result.unresolved_far == ["0.0001", "1e-05", "1e-06"]


@pytest.mark.parametrize(
    ("different", "resolved"), [(9, 0), (10, 1), (99, 1), (100, 2), (999, 2), (1000, 3), (100_000, 5)]
)
def test_a_far_that_the_pairs_cannot_resolve_is_named(different, resolved):
    result = judge(np.linspace(1, 2, different + 10), np.arange(different + 10) < 10)
    assert result.unresolved_far == [str(far) for far in FAR_TARGETS[resolved:]]
    assert list(result.tar_at_far) == ["0.1", "0.01", "0.001", "0.0001", "1e-05", "1e-06"]


def test_val_is_not_defined_where_several_thresholds_would_do():
    """900 different pairs in any nine folds, one of them far nearer, unless it is in the tenth."""
    issame = np.arange(1120) % 112 >= 100
    distance = np.where(issame, 0.5, 2.0)
    distance[0] = 0.1
    assert val_at_far(distance, issame, 1 / 900) is None
    # Just below, the first fold's threshold is just above 2, which accepts all; the others' just above 0.1.
    assert val_at_far(distance, issame, 1 / 901) == pytest.approx((0.1, 0.3, 0.1))


@pytest.mark.parametrize(
    ("gap", "defined"), [(0.1009, True), (0.1015, True), (0.1025, False), (0.1035, False)]
)
def test_val_is_not_defined_from_two_thresholds_on(gap, defined):
    """Half the different pairs are accepted from the threshold 0.101 on, the other half just above `gap`."""
    issame = np.arange(80) % 4 > 1
    distance = np.where(issame, 0.05, np.where(np.arange(80) % 4 == 0, 0.1005, gap))
    assert (val_at_far(distance, issame, 0.5) is not None) == defined


def test_val_at_the_very_last_threshold():
    """Half the different pairs lie just below it, the others beyond."""
    issame = np.arange(80) % 4 > 1
    distance = np.where(issame, 0.05, np.where(np.arange(80) % 4 == 0, 3.9985, 4.0))
    assert val_at_far(distance, issame, 0.5) == pytest.approx((1, 0, 0.5))


def test_val_at_no_false_accept():
    """Different pairs below the grid's second threshold: only the first one, 0, accepts none of them."""
    issame = np.arange(40) % 2 == 0
    assert val_at_far(np.where(issame, 0.5, 0.0005), issame, 0) == (0, 0, 0)


def test_val_is_nothing_where_no_threshold_has_such_a_rate():
    """Different pairs beyond the grid's last threshold: the protocol's threshold is 0 then."""
    issame = np.arange(40) % 2 == 0
    assert val_at_far(np.where(issame, 0.5, 4.0), issame) == (0, 0, 0)


# ---- from images to distances


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


# ---- weights, as the bootstrap gives them


@settings(max_examples=40)
@given(LABELLED, st.randoms(use_true_random=False))
def test_a_weight_repeats_a_pair_in_its_fold(labelled, random):
    distance, issame = labelled
    weight = np.array([random.choice([0, 0, 1, 2, 3]) for _ in issame])
    found, chosen = GridFolds(distance, issame).judge(weight.astype(float))
    expected = []
    thresholds = np.arange(0, 4, 0.01)
    for test in folds(len(issame)):
        others = np.setdiff1d(np.arange(len(issame)), test)
        repeated = np.repeat(others, weight[others])
        right = [np.sum((distance[repeated] < t) == issame[repeated]) for t in thresholds]
        best, judged = thresholds[np.argmax(right)], np.repeat(test, weight[test])
        if len(judged):
            expected.append((np.mean((distance[judged] < best) == issame[judged]), best))
    assert list(zip(found, chosen)) == expected


# ---- what cannot be judged


def test_what_cannot_be_judged_is_refused():
    with pytest.raises(LatseError, match="9 pairs are too few for 10 folds"):
        judge(np.ones(9), np.arange(9) % 2 == 0)
    with pytest.raises(LatseError, match="0 pairs are too few"):
        judge(np.ones(0), np.ones(0, bool))
    with pytest.raises(LatseError, match="12 distances, but 13 flags"):
        judge(np.ones(12), np.ones(13, bool))
    with pytest.raises(LatseError, match="25 embeddings do not make pairs"):
        pair_distance(np.ones((25, 4)))


@pytest.mark.parametrize("scale", [1e-150, 1e-30, 1e150])
def test_a_direction_has_no_scale(scale):
    embedding, issame = embeddings()["noisy"]
    scaled, plain = (asdict(judge(pair_distance(rows), issame)) for rows in (scale * embedding, embedding))
    for key in ("threshold_at_far", "cosine_at_far"):  # distances themselves, which are rounded
        assert scaled.pop(key) == pytest.approx(plain.pop(key), rel=1e-14)
    assert scaled == plain


def test_an_embedding_without_a_direction_is_refused():
    """insightface takes zeros for a point that is one away from everybody."""
    embedding = np.ones((24, 4))
    embedding[5] = 0
    with pytest.raises(LatseError, match="the embedding of image 5 is zero, which has no direction"):
        pair_distance(embedding)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(value):
    embedding = np.ones((24, 4))
    embedding[5, 2] = value
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(LatseError, match="the embedding of image 5 is not finite"):
            pair_distance(embedding)
        with pytest.raises(LatseError, match="the distance of pair 3 is not finite"):
            judge(np.where(np.arange(12) == 3, value, 1.0), np.arange(12) % 2 == 0)
