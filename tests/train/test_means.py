"""The people's means: every formula derived again with loops, what must not matter, and the hard points."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latse.errors import LatseError
from latse.train import means
from latse.train.means import TIE, Means, Settled, settle

NOBODY = -np.inf


def unit(vectors):
    vectors = np.asarray(vectors, float)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@st.composite
def noisy_sets(draw):
    """Unit rows and labels of two to six people, some of them wrong, in any order; all labels are in use."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    people, size = draw(st.integers(2, 6)), draw(st.integers(2, 8))
    shown = np.repeat(np.arange(people), draw(st.lists(st.integers(1, 6), min_size=people, max_size=people)))
    shown = np.append(shown, 0)  # two images of somebody
    rows = rng.normal(size=(people, size))[shown] + draw(st.floats(0.1, 1.5)) * rng.normal(
        size=(len(shown), size)
    )
    wrong = rng.random(len(shown)) < draw(st.sampled_from([0, 0.2, 0.5]))
    labels = np.where(wrong, rng.integers(people, size=len(shown)), shown)
    labels = np.concatenate([labels, np.arange(people)])
    order = rng.permutation(len(labels))
    return unit(np.concatenate([rows, rng.normal(size=(people, size))]))[order], labels[order]


def cosine(vector, others):
    """The cosine of a vector and the sum of others."""
    total = np.sum([np.asarray(other, float) for other in others], axis=0) if others else np.zeros(1)
    length = np.linalg.norm(total)
    return float(vector.astype(float) @ total / length) if length > TIE else NOBODY


def own_and_others(rows, labels, members, image):
    """The cosine with the image's own person, without the image, and those with the other people."""
    scores = {}
    for person in sorted(set(labels.tolist())):
        theirs = [row for row in range(len(rows)) if labels[row] == person]
        believed = [row for row in theirs if members[row]]
        if person == labels[image]:
            scores[None] = cosine(rows[image], [rows[row] for row in believed or theirs if row != image])
        else:
            scores[person] = cosine(rows[image], [rows[row] for row in believed])
    return scores.pop(None), list(scores.values())


def half_way(own, best, members, before):
    everybody = [i for i in range(len(own)) if np.isfinite(own[i]) and np.isfinite(best[i])]
    taken = [i for i in everybody if members[i] and own[i] > best[i] + TIE] or everybody
    if not taken:
        return before
    return (np.median([own[i] for i in taken]) + np.median([best[i] for i in taken])) / 2


def judged(rows, labels, members, before):
    """The threshold by these members, and the rank of every label."""
    count = len(rows)
    own, others = zip(*(own_and_others(rows, labels, members, image) for image in range(count)))
    best = [max(cosines) for cosines in others]
    threshold = half_way(own, best, members, before)
    like_another = [best[i] > max(own[i], threshold) + TIE for i in range(count)]
    ranks = []
    for i in range(count):
        rest = [j for j in range(count) if j != i and labels[j] == labels[i] and not like_another[j]]
        excused = len(rest) <= 1 and not like_another[i]
        ranks.append(0 if excused else sum(score > own[i] + TIE for score in others[i]))
    return threshold, ranks


def held_back(rows, labels, members, leaving):
    """The leaving images that look less like a person than an image of that person looks like theirs."""
    persons = sorted({*labels.tolist()})
    best, other = {}, {}
    for i in leaving:
        cosines = own_and_others(rows, labels, members, i)[1]
        best[i] = max(cosines)
        other[i] = [person for person in persons if person != labels[i]][cosines.index(best[i])]
    return {
        i
        for i in leaving
        for j in leaving
        if (labels[j], other[j]) == (other[i], labels[i]) and best[j] > best[i] + TIE
    }


def settled_by_loops(rows, labels):
    """The members at the end, the threshold, and the ranks."""
    count = len(rows)
    members = [True] * count
    own, others = zip(*(own_and_others(rows, labels, members, image) for image in range(count)))
    threshold = half_way(own, [max(cosines) for cosines in others], members, 1.0)
    central = [
        own[i] >= max(own[j] for j in range(count) if labels[j] == labels[i]) - TIE for i in range(count)
    ]
    for i in range(count):
        mine, theirs = own_and_others(rows, labels, central, i)
        members[i] = central[i] or mine > max(theirs) + TIE
    left = [0] * count
    while True:
        threshold, ranks = judged(rows, labels, members, threshold)
        chosen = [ranks[i] == 0 and left[i] < 2 for i in range(count)]
        back = held_back(rows, labels, members, [i for i in range(count) if members[i] and not chosen[i]])
        chosen = [chosen[i] or i in back for i in range(count)]
        if chosen == members:
            return members, threshold, ranks
        left = [left[i] + (members[i] and not chosen[i]) for i in range(count)]
        members = chosen


def ranks_of(rows, labels, people=None):
    settled = settle(rows, labels, people or labels.max() + 1)
    return settled.ranks(rows, slice(0, len(rows))).rank


@given(noisy_sets())
def test_every_formula_agrees_with_loops(given_set):
    rows, labels = given_set
    members, threshold, ranks = settled_by_loops(rows, labels)
    found = settle(rows, labels, labels.max() + 1)
    assert found.members.tolist() == members
    assert found.threshold == pytest.approx(threshold, abs=1e-6)
    assert found.ranks(rows, slice(0, len(rows))).rank.tolist() == ranks


@given(noisy_sets())
def test_it_stands_still(given_set):
    """The ranks by the last means choose the members that these are of, save those that are barred."""
    rows, labels = given_set
    found = settle(rows, labels, labels.max() + 1)
    threshold, ranks = judged(rows, labels, found.members, found.threshold)
    assert threshold == pytest.approx(found.threshold, abs=1e-6)
    assert ((np.array(ranks) == 0) & ~found.barred).tolist() == found.members.tolist()


@given(noisy_sets(), st.integers(0, 2**32 - 1))
def test_the_order_of_images_and_of_people_does_not_matter(given_set, seed):
    rows, labels = given_set
    rng = np.random.default_rng(seed)
    order, numbers = rng.permutation(len(rows)), rng.permutation(labels.max() + 1)
    before = ranks_of(rows, labels)
    assert ranks_of(rows[order], numbers[labels[order]]).tolist() == before[order].tolist()


@given(noisy_sets())
def test_people_without_images_change_nothing(given_set):
    rows, labels = given_set
    assert ranks_of(rows, labels + 2, labels.max() + 6).tolist() == ranks_of(rows, labels).tolist()


@given(noisy_sets(), st.integers(1, 7))
def test_the_size_of_parts_does_not_matter(given_set, size):
    rows, labels = given_set
    before = ranks_of(rows, labels)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(means, "ROWS_AT_ONCE", size)
        assert ranks_of(rows, labels).tolist() == before.tolist()


@given(noisy_sets())
def test_an_image_never_pulls_its_own_mean(given_set):
    """Its own cosine is the same whether it is a member or not."""
    rows, labels = given_set
    everybody = np.ones(len(rows), bool)
    within = Means.of(rows, labels, everybody, labels.max() + 1).own(rows, slice(0, len(rows)))
    for image in range(len(rows)):
        if (labels == labels[image]).sum() == 1:
            assert within[image] == NOBODY
            continue
        others = everybody.copy()
        others[image] = False
        without = Means.of(rows, labels, others, labels.max() + 1)
        assert without.own(rows[[image]], np.array([image])) == pytest.approx(within[image], abs=1e-5)


@given(noisy_sets())
def test_what_rounding_may_change_lies_between_least_and_most(given_set):
    rows, labels = given_set
    found = settle(rows, labels, labels.max() + 1)
    rng = np.random.default_rng(0)
    moved = unit(rows + TIE / 8 * rng.uniform(-1, 1, rows.shape) / np.sqrt(rows.shape[1]))
    every = slice(0, len(rows))
    before, after = found.ranks(rows, every), found.ranks(moved, every)
    assert (before.least <= before.rank).all() and (before.rank <= before.most).all()
    assert (after.least <= before.rank).all() and (before.rank <= after.most).all()


# --- hard points, in a space where person p is the axis p

AXES = np.eye(12)


def people(*images):
    """Rows and labels of (label, vector); persons 0 and 1 have four clear images besides, the first eight."""
    rng = np.random.default_rng(0)
    clear = [(person, AXES[person] + 0.1 * rng.normal(size=12)) for person in (0, 1) for _ in range(4)]
    labels, vectors = zip(*clear, *images)
    return unit(vectors), np.array(labels)


def judge(*images):
    """The ranks of these images, while the clear ones of persons 0 and 1 keep rank 0."""
    ranks = ranks_of(*people(*images))
    assert ranks[:8].tolist() == [0] * 8
    return ranks[8:].tolist()


def test_a_single_image_is_kept_unless_it_looks_like_another():
    assert judge((2, AXES[2])) == [0]
    assert judge((2, AXES[2] + 0.2 * AXES[0])) == [0]
    assert judge((2, AXES[0] + 0.1 * AXES[2])) == [2]


def test_two_images_that_disagree_are_kept_unless_they_look_like_another():
    assert judge((2, AXES[2]), (2, AXES[3])) == [0, 0]
    first, second = judge((2, AXES[2]), (2, AXES[1] + 0.1 * AXES[4]))
    assert first == 0 < second


def test_of_two_labels_of_a_person_the_one_with_another_s_image_is_wrong():
    """The right single image looks like the other label too, but only by way of the wrong image there."""
    wrong = (2, AXES[4] + 0.4 * AXES[3])
    assert [rank == 0 for rank in judge((2, AXES[5]), wrong, (3, AXES[4]))] == [True, False, True]


def test_of_three_images_two_that_agree_outweigh_the_third():
    agreeing = [(2, AXES[2] + 0.3 * AXES[axis]) for axis in (3, 4)]
    first, second, wrong = judge(*agreeing, (2, AXES[5] + 0.1 * AXES[0]))
    assert first == second == 0 < wrong


def test_three_images_that_disagree_are_refused():
    """At most one of them is right."""
    images = [(2, AXES[axis] + 0.1 * (AXES[0] + AXES[1])) for axis in (3, 4, 5)]
    assert min(judge(*images)) > 0


def test_all_images_of_a_person_may_be_wrong():
    images = [(2, AXES[shown] + 0.1 * AXES[axis]) for shown, axis in ((0, 5), (0, 6), (1, 7), (1, 8))]
    rows, labels = people(*images)
    found = settle(rows, labels, 3)
    assert found.members.tolist() == [True] * 8 + [False] * 4 and not found.means.compete[2]
    assert min(found.ranks(rows, slice(0, 12)).rank[8:]) > 0


def test_two_labels_of_one_person_are_kept_by_k_2():
    rng = np.random.default_rng(1)
    images = [(label, AXES[2] + 0.1 * rng.normal(size=12)) for label in (2, 3) for _ in range(5)]
    ranks = judge(*images)
    assert 0 in ranks and max(ranks) <= 1


@pytest.mark.parametrize("labels", [(2, 2, 2), (2, 2, 3, 3), (2, 3)])
def test_identical_images_tie(labels):
    assert judge(*((label, AXES[2]) for label in labels)) == [0] * len(labels)


def test_embeddings_that_cancel_out_have_no_mean():
    ranks = judge(*[(2, sign * AXES[2]) for sign in (1, -1, 1, -1)], (3, AXES[3]), (3, -AXES[3]))
    assert ranks[4:] == [0, 0]


def test_where_nobody_is_like_anybody_it_ends():
    rows = np.eye(6, dtype=np.float32)
    assert ranks_of(rows, np.array([0, 0, 1, 1, 2, 2])).tolist() == [0] * 6
    opposite = np.array([[1, 0], [-1, 0], [1, 0], [-1, 0]], np.float32)
    assert ranks_of(opposite, np.array([0, 0, 1, 1])).tolist() == [0] * 4


@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 1, 2]])
def test_without_other_people_or_other_images_it_is_refused(labels):
    with pytest.raises(LatseError, match="mine: means need two people or more, and two images of"):
        means.check_people(np.array(labels), "mine")


class Made:
    """Rows that are made as they are read; person p is near its own direction, every fifth image wrong."""

    def __init__(self, count, people):
        self.labels = np.arange(count) % people
        self._centres = np.random.default_rng(0).normal(size=(people, 64))

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, part):
        positions = np.arange(len(self))[part]
        shown = (self.labels[positions] + (positions % 5 == 4)) % len(self._centres)
        noise = [np.random.default_rng(position).normal(size=64) for position in positions]
        return unit(self._centres[shown] + np.array(noise))


def test_memory_does_not_grow_with_the_embeddings(monkeypatch):
    """Ten times the images take a few bytes more for each, not the 256 of an embedding."""
    monkeypatch.setattr(means, "ROWS_AT_ONCE", 128)
    peaks = []
    for count in (400, 4000):
        rows = Made(count, 21)
        tracemalloc.start()
        found = settle(rows, rows.labels, 21)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert found.members.tolist() == (np.arange(count) % 5 != 4).tolist()
    assert peaks[1] - peaks[0] < 100 * 3600


@pytest.mark.parametrize(
    "ahead, ranks", [(-0.5, (0, 0, 0)), (0.5, (0, 0, 1)), (1.5, (1, 0, 1)), (2.5, (1, 1, 1))]
)
@pytest.mark.parametrize("is_single", [False, True])
def test_near_ties(ahead, ranks, is_single):
    """Another person who is ahead by so many times TIE, of the own one or of the threshold."""
    cosines = np.array([0.3, 0.3 + ahead * TIE])
    rows = np.array([[1, 0, 0], *([c, (1 - c**2) ** 0.5, 0] for c in cosines)])
    labels, members = np.array([0, 1 if is_single else 0, 1]), np.ones(3, bool)
    if is_single:
        rows[1] = rows[2]
    found = Settled(Means.of(rows, labels, members, 2), members, 0.3, np.full(3, is_single), ~members, 1)
    assert tuple(int(rank[0]) for rank in found.ranks(rows[:1], np.array([0]))) == ranks
