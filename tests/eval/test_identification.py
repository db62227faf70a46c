from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from latse.errors import LatseError
from latse.eval import identification
from latse.eval.identification import (
    Identification,
    UnitRows,
    gallery_sizes,
    identify,
    identify_among,
    mate_pairs,
)
from latse.eval.roc import Highest


def exact_scores(one, other):
    return np.array([[(a.astype(np.float64) * b).sum() for b in other] for a in one])


def plain_ranks(probes, pairs, distractors, sizes):
    """The definition: 1 + how many of the first distractors score as high as the mate."""
    scores, mates = exact_scores(probes, distractors), exact_scores(probes, probes)
    return np.array(
        [[1 + sum(scores[p, :size] >= mates[p, m]) for p, m in pairs] for size in sizes]
    ), np.sort(scores[:, : sizes[-1]].ravel())[::-1]


def features(kind, rng, probes, distractors, dimensions):
    one = rng.standard_normal((probes, dimensions)).astype(np.float32)
    other = rng.standard_normal((distractors, dimensions)).astype(np.float32)
    if kind == "small integers":  # ties everywhere
        one, other = np.rint(one), np.rint(other)
    if kind == "constant":
        one[:], other[:] = 0.3, 0.3
    if kind == "all positive":
        one, other = np.abs(one), np.abs(other)
    if kind == "copies of the mate":
        one[0], one[1:], other[:9] = 0.86614388, 0.45956823, 0.45956823
    if kind == "duplicates":
        other[::2] = one[rng.integers(0, probes, len(other[::2]))]
    if kind == "nearly the same":  # what float32 cannot tell apart
        other[:] = one[0] * (1 + 1e-7 * rng.integers(-3, 4, (distractors, 1))).astype(np.float32)
    return one, other


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    kind=st.sampled_from(["random", "small integers", "constant", "duplicates", "nearly the same"]),
    tile=st.tuples(st.integers(1, 20), st.integers(1, 90), st.integers(1, 8)),
    sparse=st.sampled_from([0, 0.05, 0.5, 1]),
    threads=st.integers(1, 3),
)
# A block of zeros, which every mate outdoes.
@example(seed=17, kind="small integers", tile=(2, 1, 1), sparse=0, threads=1)
def test_ranks_are_those_of_the_definition_however_the_work_is_cut(seed, kind, tile, sparse, threads):
    rng = np.random.default_rng(seed)
    probes, distractors = features(kind, rng, rng.integers(2, 25), rng.integers(1, 120), rng.integers(1, 20))
    pairs = mate_pairs(np.arange(len(probes)) % max(1, len(probes) // 3))
    sizes = sorted({int(size) for size in rng.integers(1, len(distractors) + 1, 3)})
    with pytest.MonkeyPatch.context() as patch:
        for name, value in zip(("PROBES_AT_ONCE", "DISTRACTORS_AT_ONCE", "COMPARED_AT_ONCE"), tile):
            patch.setattr(identification, name, value)
        patch.setattr(identification, "SPARSE", sparse)
        patch.setattr(identification, "FARS", (0.2, 1e-6))
        found = identify(probes, pairs, distractors, sizes, threads=threads)
    ranks, impostors = plain_ranks(probes, pairs, distractors, sizes)
    assert np.array_equal(found.ranks, ranks)
    assert np.array_equal(found.impostors, impostors[: len(found.impostors)])
    assert len(found.impostors) == int(0.2 * len(impostors)) + 1


def test_ranks_equal_those_of_faiss_on_the_same_arrays():
    faiss = pytest.importorskip("faiss")
    rng = np.random.default_rng(5)
    # Whole numbers, whose products float32 holds exactly: faiss's scores then have no rounding errors.
    people = np.arange(90) % 30
    probes = np.rint(20 * rng.standard_normal((30, 128))[people] + 40 * rng.standard_normal((90, 128)))
    probes, distractors = probes.astype(np.float32), np.rint(45 * rng.standard_normal((6000, 128)))
    distractors = distractors.astype(np.float32)
    distractors[:10] = probes[:10]
    index = faiss.IndexFlatIP(128)
    index.add(distractors)
    scores, _ = index.search(probes, len(distractors))
    pairs = mate_pairs(people)
    mates = np.einsum("ij,ij->i", probes[pairs[:, 0]], probes[pairs[:, 1]])
    expected = 1 + (scores[pairs[:, 0]] >= mates[:, None]).sum(axis=1)
    assert len(np.unique(expected)) > 20
    assert np.array_equal(identify(probes, pairs, distractors).ranks[-1], expected)


@pytest.mark.parametrize("dimensions", [300, 308, 512, 2048])
@pytest.mark.parametrize("value", [1.0, 0.3, 0.45956823, 0.86614388])
def test_equal_features_of_many_dimensions_find_nobody(dimensions, value):
    """Sums of equal terms stray furthest: all errors of rounding have the same sign."""
    feature = np.full(dimensions, np.float32(value), np.float32)
    for one in (feature, feature / np.sqrt(np.float32(dimensions))):
        found = identify(np.tile(one, (6, 1)), mate_pairs(np.arange(6) % 2), np.tile(one, (40, 1)), threads=1)
        assert (found.ranks == [[11], [41]]).all()
        assert (found.impostors == (one.astype(np.float64) ** 2).sum()).all()
        assert set(found.as_json()["tar_at_far"].values()) == {0.0}


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32),
    kind=st.sampled_from(["constant", "all positive", "duplicates", "copies of the mate", "nearly the same"]),
    dimensions=st.sampled_from([300, 308, 320, 511, 512, 1024, 2048]),
    sparse=st.sampled_from([0, 0.05, 1]),
)
# A mate and nine distractors that are equal, at which float32 is off by more than the usual.
@example(seed=0, kind="copies of the mate", dimensions=320, sparse=0)
@example(seed=0, kind="copies of the mate", dimensions=320, sparse=1)
def test_ranks_are_those_of_the_definition_in_many_dimensions(seed, kind, dimensions, sparse):
    rng = np.random.default_rng(seed)
    people = np.arange(int(rng.integers(2, 8))) % 2
    probes, distractors = features(kind, rng, len(people), int(rng.integers(8, 40)), dimensions)
    pairs = mate_pairs(people) if len(people) > 2 else np.array([[0, 1]])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(identification, "SPARSE", sparse)
        patch.setattr(identification, "FARS", (0.5, 1e-6))
        found = identify(probes, pairs, distractors, [5, len(distractors)], threads=1)
    ranks, impostors = plain_ranks(probes, pairs, distractors, [5, len(distractors)])
    assert np.array_equal(found.ranks, ranks)
    assert np.array_equal(found.impostors, impostors[: len(found.impostors)])


def test_a_score_that_many_mates_need_is_computed_exactly_once(monkeypatch):
    """So a model that tells nobody apart is judged in a bearable time."""
    products, exact = [], identification._exact

    def counted(one, other, left, right):
        products.append(len(left))
        return exact(one, other, left, right)

    monkeypatch.setattr(identification, "_exact", counted)
    probes, distractors = np.full((20, 300), 0.3, np.float32), np.full((500, 300), 0.3, np.float32)
    pairs = mate_pairs(np.zeros(20))
    found = identify(probes, pairs, distractors, [500], threads=1)
    assert (found.ranks == 501).all()
    # Once to count, once as the highest impostors.
    assert sum(products) <= len(pairs) + 2 * 20 * 500


@pytest.mark.parametrize("dimensions", [7, 308, 512, 2048])
@pytest.mark.parametrize("kind", ["constant", "all positive", "random"])
def test_no_product_strays_further_than_the_tolerance(kind, dimensions):
    """Summed one after the other in float32, which is the worst order that a library may take."""
    one, other = features(kind, np.random.default_rng(dimensions), 12, 30, dimensions)
    summed = np.zeros((12, 30), np.float32)
    for column in range(dimensions):
        summed += one[:, column, None] * other[None, :, column]
    tolerance = identification._tolerance(identification._bound(one, other), other)
    for product in (summed, one @ other.T):
        assert np.abs(product - exact_scores(one, other)).max() <= tolerance
    assert tolerance < 1e-3 * identification._bound(one, other)


@given(st.integers(1, 4096), st.floats(1e-3, 1e3))
def test_the_tolerance_is_not_below_highams_bound(dimensions, bound):
    """γ_d = du / (1 - du) times the product of the norms, in exact fractions."""
    share = Fraction(dimensions, 2**24)
    tolerance = identification._tolerance(bound, np.zeros((1, dimensions), np.float32))
    assert share / (1 - share) * Fraction(bound) <= Fraction(tolerance)


@pytest.mark.parametrize("sign", [-1, 1])
def test_what_is_surely_less_or_more_lies_outside_the_tolerance(sign):
    """Whatever the sign of the scores, the bounds in float32 are rounded away from the exact ones."""
    rng = np.random.default_rng(2)
    probes, block = (np.abs(rng.normal(size=(20, 64))).astype(np.float32) for _ in range(2))
    probes[::2] *= sign
    pairs = np.stack([np.arange(0, 20, 2), np.arange(1, 20, 2)], axis=1)
    best = Highest(1000)
    search = identification._MateSearch(probes, pairs, block, best)
    bound = identification._bound(search.probes, block)
    tile = identification._Tile(search, 0, block, bound, np.zeros(len(pairs), np.int64))
    assert (np.sign(tile.genuine) == sign).all()
    assert (tile.low < tile.genuine - tile.tolerance).all()
    assert (tile.high > tile.genuine + tile.tolerance).all()


def test_a_report_has_the_ranks_up_to_the_size_and_the_last():
    found = identify_among(np.eye(4, dtype=np.float32)[np.arange(124) % 4], np.arange(124) // 2, [90])
    assert list(found.as_json()["sizes"]["90"]["cmc"]) == ["1", "2", "5", "10", "20", "50", "91"]


def test_order_gives_nested_galleries():
    rng = np.random.default_rng(1)
    probes, distractors = features("random", rng, 20, 300, 16)
    pairs, order = mate_pairs(np.arange(20) % 5), rng.permutation(300)[:250]
    found = identify(probes, pairs, distractors, order=order)
    assert found.sizes == [10, 100, 250]
    assert np.array_equal(found.ranks, identify(probes, pairs, distractors[order]).ranks)
    assert np.array_equal(found.ranks[1], identify(probes, pairs, distractors[order[:100]]).ranks[-1])
    assert (np.diff(found.ranks, axis=0) >= 0).all()


def test_a_tie_counts_against_the_model():
    probes = np.array([[1, 0], [0.6, 0.8]], np.float32)
    distractors = np.array([[0.6, 0.8], [0.6, 0.8], [0, 1]], np.float32)
    found = identify(probes, np.array([[0, 1]]), distractors, [1, 3])
    assert found.ranks.tolist() == [[2], [3]]


def test_equal_features_for_everybody_find_nobody():
    probes, distractors = np.full((6, 4), 0.5, np.float32), np.full((50, 4), 0.5, np.float32)
    found = identify(probes, mate_pairs(np.arange(6) % 2), distractors)
    assert (found.ranks[-1] == 51).all()
    assert found.as_json()["sizes"]["50"]["rank_1"] == 0
    assert set(found.as_json()["tar_at_far"].values()) == {0.0}


def test_tar_is_taken_strictly_above_the_first_impostor_that_is_not_allowed():
    genuine = np.array([0.9, 0.7, 0.5, 0.5])
    found = Identification([2], np.ones((1, 4), int), genuine, np.array([0.8, 0.5, 0.1]), 10**6)
    assert found.tar_at_far(1e-7) == 0.25  # none allowed: above 0.8
    assert not found.resolves(1e-7)
    assert found.tar_at_far(1e-6) == 0.5  # one allowed: above 0.5, which two only reach
    assert found.resolves(1e-6)


def test_cmc():
    found = Identification([3], np.array([[1, 1, 2, 4]]), np.ones(4), np.ones(9), 12)
    assert found.as_json()["sizes"]["3"]["cmc"] == {"1": 0.5, "2": 0.75, "4": 1.0}
    ranks, values = found.curve(3)
    assert ranks.tolist() == [1, 2, 4]
    assert values.tolist() == [0.5, 0.75, 1.0]
    ranks, values = Identification([3], np.array([[2, 4]]), np.ones(2), np.ones(9), 6).curve(3)
    assert (ranks.tolist(), values.tolist()) == ([1, 2, 4], [0, 0.5, 1])


@given(st.lists(st.integers(0, 5), max_size=12))
def test_mate_pairs_are_all_ordered_pairs_of_one_person(people):
    expected = [
        [i, j] for i in range(len(people)) for j in range(len(people)) if i != j and people[i] == people[j]
    ]
    assert mate_pairs(np.array(people, int)).tolist() == expected


def test_gallery_sizes():
    assert gallery_sizes(7) == [7]
    assert gallery_sizes(100) == [10, 100]
    assert gallery_sizes(1_000_000) == [10, 100, 1000, 10_000, 100_000, 1_000_000]
    assert gallery_sizes(1_027_058)[-2:] == [1_000_000, 1_027_058]


def test_other_people_as_distractors():
    rng = np.random.default_rng(3)
    people = np.array([0, 1, 0, 2, 1, 0, 3, 4, 4])
    rows = rng.standard_normal((9, 6)).astype(np.float32)
    found = identify_among(rows, people, [4, 6])
    expected, impostors = [], []
    for person in (0, 1, 4):
        own, others = rows[people == person], rows[people != person]
        ranks, scores = plain_ranks(own, mate_pairs(np.zeros(len(own))), others, [4, 6])
        expected.append(ranks)
        impostors.append(scores)
    assert np.array_equal(found.ranks, np.concatenate(expected, axis=1))
    assert found.comparisons == 7 * 6
    assert np.array_equal(found.impostors, [max(np.concatenate(impostors))])
    assert identify_among(rows, people).sizes == [6]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"pairs": np.empty((0, 2), int)}, "nobody to find"),
        ({"gallery": np.empty((0, 3), np.float32)}, "no distractor"),
        ({"sizes": [5]}, "galleries of 5 to 5 cannot be made of 4 distractors"),
        ({"gallery": np.ones((4, 2), np.float32)}, "probes have 3 dimensions, distractors 2"),
        ({"gallery": np.array([[1, 2, 3], [1, np.nan, 1]], np.float32)}, "distractor 1 is not finite"),
        ({"probes": np.full((2, 3), np.inf, np.float32)}, "probe 0 is not finite"),
    ],
)
def test_what_cannot_be_ranked_is_refused(change, sentence):
    given_ = {"probes": np.ones((2, 3)), "pairs": np.array([[0, 1]]), "gallery": np.ones((4, 3)), **change}
    with pytest.raises(LatseError, match=sentence):
        identify(**given_)


def test_identification_needs_two_people_and_two_images_of_one():
    for people in ([0, 0, 0], [0, 1, 2]):
        with pytest.raises(LatseError, match="needs two people"):
            identify_among(np.ones((3, 2), np.float32), np.array(people))


def test_unit_rows():
    rows = UnitRows(np.array([[3.0, 4], [0, 2], [0, 0], [np.nan, 1]]), "ours: feature {}".format)
    assert len(rows) == 4
    assert np.allclose(rows[np.array([1, 0])], [[0, 1], [0.6, 0.8]])
    assert rows[:2].dtype == np.float32
    with pytest.raises(LatseError, match="ours: feature 2 is zero, which has no direction"):
        rows[np.array([0, 2])]
    with pytest.raises(LatseError, match="ours: feature 3 is not finite"):
        rows[3:]
    picked = UnitRows(rows.rows, rows.called, np.array([0, 2]))
    with pytest.raises(LatseError, match="ours: feature 2 is zero"):  # as it is stored
        picked[1:]


@pytest.mark.parametrize("dtype", [np.int8, np.int64, np.float16, np.float32, np.float64])
def test_unit_rows_of_every_type_of_number(dtype):
    rows = UnitRows(np.array([[1, 1], [5, 12]], dtype), "row {}".format)[:]
    assert rows.dtype == np.float32
    assert np.allclose(rows, [[0.5**0.5, 0.5**0.5], [5 / 13, 12 / 13]], atol=1e-6)


def test_a_gallery_in_a_file_is_read_block_by_block(tmp_path):
    """In whatever precision it was written, and in the order that is asked for."""
    rng = np.random.default_rng(8)
    probes, distractors = features("random", rng, 6, 90, 5)
    np.save(tmp_path / "gallery.npy", distractors.astype(np.float64))
    mapped = np.load(tmp_path / "gallery.npy", mmap_mode="r")
    asked = []

    class Watched:
        def __len__(self):
            return len(mapped)

        def __getitem__(self, positions):
            asked.append(len(positions))
            return mapped[positions]

    pairs, order = mate_pairs(np.arange(6) % 2), rng.permutation(90)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(identification, "DISTRACTORS_AT_ONCE", 20)
        found = identify(probes, pairs, UnitRows(Watched(), "row {}".format), order=order, threads=2)
    whole = UnitRows(distractors.astype(np.float64), "row {}".format)[:]
    assert np.array_equal(found.ranks, identify(probes, pairs, whole[order]).ranks)
    assert max(asked) == 20
    assert sum(asked) == 90 + 20  # the first block is looked at before


@pytest.mark.parametrize("setting", ["2,1", "", "3"])
def test_threads_are_those_of_openmp(monkeypatch, setting):
    monkeypatch.setenv("OMP_NUM_THREADS", setting)
    probes, distractors = features("random", np.random.default_rng(1), 6, 50, 4)
    assert identify(probes, mate_pairs(np.arange(6) % 2), distractors).sizes == [10, 50]
