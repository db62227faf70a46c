import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score, roc_curve

from latse.eval.roc import Thresholds, allowed

# Few different distances, so that ties abound.
PAIRS = st.lists(
    st.tuples(st.integers(0, 6), st.booleans(), st.integers(0, 3)), min_size=2, max_size=30
).filter(lambda pairs: {same for _, same, weight in pairs if weight} == {True, False})


def parts(pairs):
    distance, issame, weight = zip(*pairs)
    return np.array(distance) / 4, np.array(issame), np.array(weight)


@settings(max_examples=100)
@given(PAIRS)
def test_a_weight_is_a_repetition(pairs):
    distance, issame, weight = parts(pairs)
    found = Thresholds(distance, issame).curve(weight.astype(float))
    repeated = Thresholds(np.repeat(distance, weight), np.repeat(issame, weight)).curve()
    far = np.linspace(0, 1, 23)
    assert found.tar_at(far).tolist() == repeated.tar_at(far).tolist()
    assert found.area() == pytest.approx(repeated.area(), abs=1e-12)
    assert found.equal_error() == pytest.approx(repeated.equal_error(), abs=1e-12)


@settings(max_examples=100)
@given(PAIRS)
def test_the_curve_is_scikit_learns(pairs):
    distance, issame, weight = parts(pairs)
    found = Thresholds(distance, issame).curve(weight.astype(float))
    used = weight > 0
    far, tar, _ = roc_curve(
        issame[used], -distance[used], sample_weight=weight[used], drop_intermediate=False
    )
    points = dict.fromkeys(zip(found.far.round(12).tolist(), found.tar.round(12).tolist()))
    assert list(points) == list(dict.fromkeys(zip(far.round(12).tolist(), tar.round(12).tolist())))
    assert found.area() == pytest.approx(roc_auc_score(issame, -distance, sample_weight=weight), abs=1e-12)


@settings(max_examples=100)
@given(PAIRS)
def test_the_equal_error_lies_on_the_line_through_the_points(pairs):
    distance, issame, weight = parts(pairs)
    curve = Thresholds(distance, issame).curve(weight.astype(float))
    eer = curve.equal_error()
    # A point of the curve has far = 1 - tar = eer: on a rising piece tar at that far; at a step, between.
    at = curve.far == eer
    if at.any():
        assert curve.tar[at].min() - 1e-12 <= 1 - eer
    below, above = curve.far <= eer + 1e-12, curve.far >= eer - 1e-12
    assert curve.tar[below].min() <= 1 - eer + 1e-12
    assert curve.tar[above].max() >= 1 - eer - 1e-12
    assert 0 <= eer <= 1


@settings(max_examples=100)
@given(PAIRS, st.floats(0, 0.999))
def test_no_larger_threshold_has_the_rate(pairs, far):
    distance, issame, weight = parts(pairs)
    found = Thresholds(distance, issame).curve(weight.astype(float)).threshold_at(far)
    different = np.repeat(distance, weight)[~np.repeat(issame, weight)]
    assert (different < found).mean() <= far < (different < np.nextafter(found, 9)).mean()


def test_points_known_by_hand():
    distance = np.array([0.1, 0.2, 0.3, 0.4])
    curve = Thresholds(distance, np.array([True, False, True, False])).curve()
    assert curve.far.tolist() == [0, 0, 0.5, 0.5, 1] and curve.tar.tolist() == [0, 0.5, 0.5, 1, 1]
    assert (curve.area(), curve.equal_error()) == (0.75, 0.5)
    assert curve.tar_at([0, 0.49, 0.5, 1]).tolist() == [0.5, 0.5, 1, 1]
    assert curve.threshold_at([0, 0.49, 0.5, 1]).tolist() == [0.2, 0.2, 0.4, np.inf]
    apart = Thresholds(distance, np.array([True, True, False, False])).curve()
    assert (apart.area(), apart.equal_error()) == (1, 0)
    # A same and a different pair tie: from (0, 3/4) to (1/2, 1), so far = 1 - tar a third of the way.
    tied = Thresholds(np.array([1, 1, 1, 2, 2, 3.0]), np.array([1, 1, 1, 0, 1, 0], bool)).curve()
    assert tied.equal_error() == pytest.approx(1 / 6)


@given(st.integers(1, 400), st.floats(0, 1))
def test_allowed_is_the_largest_count_within_the_rate(count, rate):
    assert allowed(count, rate) == max(k for k in range(count + 1) if k / count <= rate)


def test_allowed_counts_a_tenth_of_ten_as_one():
    assert [allowed(10**n, 10.0**-n) for n in range(9)] == [1] * 9
    assert [allowed(10, rate) for rate in (0.3, 0.7, 0.1 - 1e-12, 0.0, 1.0)] == [3, 7, 0, 0, 10]
