import mxnet as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latse.symbols.gate import Gate, Rank


def gated_gradient(x, keep, head):
    x = mx.nd.array(x)
    x.attach_grad()
    with mx.autograd.record():
        y = Gate()(x, mx.nd.array(keep))
    y.backward(mx.nd.array(head))
    return y.asnumpy(), x.grad.asnumpy()


@settings(max_examples=30)
@given(keep=st.lists(st.sampled_from([0, 1]), min_size=1, max_size=8), seed=st.integers(0, 2**32 - 1))
def test_the_gate_is_the_identity_forwards_and_a_mask_backwards(keep, seed):
    rng = np.random.default_rng(seed)
    for shape in ((len(keep),), (len(keep), 5), (len(keep), 2, 3, 4)):
        x, head = rng.normal(size=(2, *shape)).astype(np.float32)
        y, gradient = gated_gradient(x, keep, head)
        np.testing.assert_array_equal(y, x)
        kept = np.array(keep, dtype=bool)
        np.testing.assert_array_equal(gradient[kept], head[kept])
        assert (gradient[~kept] == 0).all()


def test_a_refused_row_passes_nothing_of_an_infinite_gradient():
    head = np.array([[np.inf, np.nan], [1, 2]], np.float32)
    _, gradient = gated_gradient(np.ones((2, 2)), [0, 1], head)
    np.testing.assert_array_equal(gradient, [[0, 0], [1, 2]])


@settings(max_examples=60)
@given(
    scores=st.integers(1, 12).flatmap(
        lambda classes: st.lists(
            st.lists(st.integers(-3, 3), min_size=classes, max_size=classes), min_size=1, max_size=5
        )
    ),
    data=st.data(),
)
def test_the_rank_counts_the_strictly_higher_scores(scores, data):
    scores = np.array(scores, np.float32) / 4  # so few values that there are many ties
    rows, classes = scores.shape
    label = data.draw(st.lists(st.integers(0, classes - 1), min_size=rows, max_size=rows))
    rank = Rank()(mx.nd.array(scores), mx.nd.array(label)).asnumpy()
    descending = -np.sort(-scores, axis=1)
    for row in range(rows):
        own = scores[row, label[row]]
        assert rank[row] == list(descending[row]).index(
            own
        )  # the first place of the score in the sorted list
        for k in range(1, classes + 1):
            # In the top k by a sort: no lower than the k-th highest score.
            assert (rank[row] < k) == (own >= descending[row, k - 1])


def test_the_rank_is_exact_over_many_classes():
    scores = np.random.default_rng(0).permutation(85742).astype(np.float32)[None]
    label = np.array([0, 50000, 85741])
    rank = Rank()(mx.nd.array(np.repeat(scores, 3, axis=0)), mx.nd.array(label)).asnumpy()
    np.testing.assert_array_equal(rank, 85741 - scores[0, label])


@pytest.mark.parametrize("slack, expected", [(0.0, 2), (0.25, 1), (0.6, 0), (-0.25, 4)])
def test_slack_counts_only_what_is_so_much_higher(slack, expected):
    scores, label = mx.nd.array([[0.0, 0.2, 0.5, 0.1, -0.4]]), mx.nd.array([3])
    assert Rank(slack)(scores, label).asscalar() == expected
