import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latse.errors import LatseError
from latse.eval.confidence import intervals, pair_weights, share_interval
from latse.eval.roc import FAR_TARGETS, Thresholds
from latse.eval.verification import judge


def people_and_pairs(rng, people=30, pairs=200):
    """Persons of 2n images and whether pairs are same; every other pair is."""
    person = rng.integers(0, people, (pairs, 2))
    person[::2, 1] = person[::2, 0]
    return 7 * person.ravel() + 3, person[:, 0] == person[:, 1]  # any numbers stand for people


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.integers(3, 12))
def test_a_pair_counts_as_often_as_its_people(seed, people):
    rng = np.random.default_rng(seed)
    persons, issame = people_and_pairs(rng, people, 20)
    if issame.all():
        return
    weight = next(pair_weights(persons, issame, np.random.default_rng(seed)))
    # Do it again with a list of drawn names, one number of times for each.
    generator, names = np.random.default_rng(seed), sorted(set(persons.tolist()))
    while True:
        drawn = [names[i] for i in generator.integers(len(names), size=len(names))]
        expected = []
        for first, second, same in zip(persons[0::2], persons[1::2], issame):
            expected.append(drawn.count(first) * (1 if same else drawn.count(second)))
        if any(np.array(expected)[issame]) and any(np.array(expected)[~issame]):
            break
    assert weight.tolist() == expected


def test_two_people_are_drawn_until_both_kinds_of_pairs_are_there():
    persons, issame = np.array([0, 0, 0, 1, 1, 1]), np.array([True, False, True])
    weights = pair_weights(persons, issame, np.random.default_rng(0))
    assert all(next(weights).tolist() == [1, 1, 1] for _ in range(20))


@pytest.mark.parametrize("same", [True, False])
def test_pairs_of_one_kind_have_no_intervals(same):
    with pytest.raises(LatseError, match="intervals need pairs of one person and of two"):
        intervals(np.ones(12), np.full(12, same), np.arange(24))


def test_intervals_are_of_95_percent_and_a_thousand_samples_by_default():
    persons, issame = people_and_pairs(np.random.default_rng(3), pairs=40)
    distance = np.where(issame, 1.0, 1.4) + np.arange(40) / 100
    found = intervals(distance, issame, persons)
    assert found == intervals(distance, issame, persons, samples=1000, level=0.95)


def test_intervals_are_quantiles_of_samples_judged_one_by_one():
    """The pairs repeated as often as drawn, fold by fold, each sample judged by the protocol's own loops."""
    rng = np.random.default_rng(3)
    persons, issame = people_and_pairs(rng)
    distance = np.clip(rng.normal(np.where(issame, 1.0, 1.4), 0.3), 0, 4)
    far = [0.05, 0.5]
    found = intervals(distance, issame, persons, far, samples=40, level=0.9, seed=5)
    weights = pair_weights(persons, issame, np.random.default_rng(5))
    fold = np.arange(200) // 20
    rows = []
    for _ in range(40):
        weight = next(weights).astype(int)
        d, s, f = (np.repeat(array, weight) for array in (distance, issame, fold))
        accuracies = []
        for number in np.unique(f):
            right = [np.sum((d[f != number] < t) == s[f != number]) for t in np.arange(0, 4, 0.01)]
            best = np.arange(0, 4, 0.01)[np.argmax(right)]
            accuracies.append(np.mean((d[f == number] < best) == s[f == number]))
        curve = Thresholds(d, s).curve()
        tars, thresholds = curve.tar_at([*FAR_TARGETS, *far]), curve.threshold_at(FAR_TARGETS)
        rows.append([np.mean(accuracies), curve.area(), curve.equal_error(), *tars, *thresholds])
    low, high = np.percentile(rows, [5, 95], axis=0)
    ends = np.stack([low, high], axis=1)
    assert found.accuracy == pytest.approx(ends[0]) and found.auc == pytest.approx(ends[1])
    assert found.eer == pytest.approx(ends[2])
    assert list(found.tar_at_far) == [str(target) for target in FAR_TARGETS]
    assert np.array(list(found.tar_at_far.values())) == pytest.approx(ends[3:9])
    assert (found.low, found.high) == (pytest.approx(low[9:11]), pytest.approx(high[9:11]))
    threshold = np.array(list(found.threshold_at_far.values()))
    assert threshold == pytest.approx(ends[11:]) and np.ptp(threshold, axis=0).min() > 0.1
    assert np.array(list(found.cosine_at_far.values())) == pytest.approx(1 - ends[11:, ::-1] / 2)
    assert list(found.threshold_at_far) == list(found.cosine_at_far) == list(found.tar_at_far)
    assert (found.level, found.samples) == (0.9, 40)


def test_the_same_seed_draws_the_same():
    rng = np.random.default_rng(0)
    persons, issame = people_and_pairs(rng)
    distance = rng.uniform(0, 2, 200)
    first, again, other = (intervals(distance, issame, persons, samples=20, seed=seed) for seed in (0, 0, 1))
    assert first == again != other


def simulated(rng, people=24, images=6):
    """Pairs of people of whom some are much harder than others; what would be true is the mean of many."""
    spread = rng.uniform(0.2, 2.2, people)
    feature = rng.normal(size=(people, 1, 4)) + spread[:, None, None] * rng.normal(size=(people, images, 4))
    person = np.repeat(np.arange(people), images)
    feature = feature.reshape(-1, 4)
    unit = feature / np.linalg.norm(feature, axis=1, keepdims=True)
    first, second = np.triu_indices(len(person), 1)
    same = person[first] == person[second]
    different = rng.permutation(np.flatnonzero(~same))[: same.sum()]
    chosen = rng.permutation(np.concatenate([np.flatnonzero(same), different]))
    first, second = first[chosen], second[chosen]
    distance = np.square(unit[first] - unit[second]).sum(axis=1)
    return distance, same[chosen], np.stack([person[first], person[second]], axis=1).ravel()


def test_intervals_cover_the_truth_and_pairs_alone_would_not():
    """Nearly as often as they say, over 80 sets of 24 people; with all pairs taken alone, less often."""
    rng = np.random.default_rng(1)
    truth = np.mean([judge(*simulated(rng)[:2]).auc for _ in range(300)])
    covered, widths = [0, 0], [0.0, 0.0]
    for _ in range(80):
        distance, issame, people = simulated(rng)
        alone = 2 * np.arange(len(issame)).repeat(2) + np.where(
            issame.repeat(2), 0, np.arange(2 * len(issame)) % 2
        )
        for method, persons in enumerate((people, alone)):
            low, high = intervals(distance, issame, persons, samples=100).auc
            covered[method] += low <= truth <= high
            widths[method] += high - low
    assert covered[0] / 80 >= 0.85
    assert covered[1] < covered[0] and widths[1] < widths[0]


def test_the_interval_of_a_share_is_that_of_people_drawn_again():
    rng = np.random.default_rng(4)
    people = rng.integers(0, 12, 300) ** 2
    found = rng.random(300) < (people % 7) / 7
    names = np.unique(people)
    shares = []
    for _ in range(4000):
        drawn = np.concatenate([found[people == name] for name in rng.choice(names, len(names))])
        shares.append(drawn.mean())
    interval = share_interval(found, people, samples=4000)
    assert interval == pytest.approx(np.quantile(shares, [0.025, 0.975]).tolist(), abs=0.02)
    assert interval == share_interval(found, people, samples=4000)
    assert share_interval(found, np.zeros(300, int)) == pytest.approx([found.mean()] * 2)
