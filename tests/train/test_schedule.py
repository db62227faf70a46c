"""The learning rate at each update, numbered from 1."""

import copy
import itertools
import math

import mxnet as mx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latse import recipe as recipes
from latse.recipe_keys import SCHEDULES
from latse.train.optimiser import schedule


@pytest.fixture(scope="module")
def rates(tmp_path_factory):
    """Return the function update -> learning rate of a recipe with overrides over the paper's."""
    path = tmp_path_factory.mktemp("schedule") / "paper.yaml"
    path.write_text("")
    return lambda *overrides: schedule(recipes.load(path, overrides))


def test_the_paper_divides_by_ten_after_10k_16k_20k_and_22k_updates(rates):
    rate = rates()
    expected = {1: 0.1, 10000: 0.1, 10001: 1e-2, 16000: 1e-2, 16001: 1e-3, 20000: 1e-3, 20001: 1e-4}
    expected.update({22000: 1e-4, 22001: 1e-5, 24000: 1e-5})
    assert {update: rate(update) for update in expected} == pytest.approx(expected, rel=1e-9)


# Rates of iterations 1, 2, … of the default 0.1, as docs/recipes.md says them. Each is a share of 0.1: in a
# warm-up of w iterations i/w, then, with t = (i - w)/(iterations - w), what the mode makes of t.
BY_HAND = [
    ("constant", 0, [], [1, 1, 1]),
    ("constant", 1, [], [1, 1, 1]),
    ("constant", 2, [], [1 / 2, 1, 1]),
    ("constant", 3, [], [1 / 3, 2 / 3, 1, 1]),
    ("constant", 4, [], [1 / 4, 2 / 4, 3 / 4, 1, 1]),
    ("step", 0, [1, 3], [1, 1 / 10, 1 / 10, 1 / 100, 1 / 100]),
    ("step", 1, [2], [1, 1, 1 / 10, 1 / 10]),
    ("step", 2, [2], [1 / 2, 1, 1 / 10]),
    ("step", 3, [4, 5], [1 / 3, 2 / 3, 1, 1, 1 / 10, 1 / 100]),
    ("step", 3, [1, 4], [1 / 3, 2 / 3, 1, 1 / 10, 1 / 100]),
    ("step", 0, [], [1, 1]),
    ("linear", 0, [], [3 / 4, 2 / 4, 1 / 4, 0]),
    ("linear", 1, [], [1, 2 / 3, 1 / 3, 0]),
    ("linear", 2, [], [1 / 2, 1, 1 / 2, 0]),
    ("linear", 3, [], [1 / 3, 2 / 3, 1, 0]),
    ("poly", 0, [], [9 / 16, 4 / 16, 1 / 16, 0]),
    ("poly", 1, [], [1, 4 / 9, 1 / 9, 0]),
    ("poly", 2, [], [1 / 2, 1, 1 / 4, 0]),
    ("cosine", 0, [], [(2 + math.sqrt(2)) / 4, 1 / 2, (2 - math.sqrt(2)) / 4, 0]),
    ("cosine", 1, [], [1, 3 / 4, 1 / 4, 0]),
    ("cosine", 2, [], [1 / 2, 1, 1 / 2, 0]),
    ("cosine", 3, [], [1 / 3, 2 / 3, 1, 0]),
    ("linear", 0, [], [0]),
]


@pytest.mark.parametrize(("mode", "warmup", "steps", "expected"), BY_HAND)
def test_the_rate_of_each_iteration(rates, mode, warmup, steps, expected):
    rate = rates(
        f"schedule.mode={mode}",
        f"schedule.warmup={warmup}",
        f"schedule.steps={steps}",
        f"train.iterations={len(expected)}",
    )
    found = [rate(iteration) for iteration in range(1, len(expected) + 1)]
    assert found == pytest.approx([0.1 * part for part in expected], abs=1e-15)


def test_every_mode_is_in_the_table():
    assert {mode for mode, *_ in BY_HAND} == {*SCHEDULES}


@pytest.mark.parametrize("peak", [1.2e-38, 3.4e38])
@pytest.mark.parametrize("mode", SCHEDULES)
def test_mxnet_takes_every_rate_of_a_schedule(rates, mode, peak):
    """It knows no number below the least normal one of float32 but 0."""
    overrides = f"schedule.mode={mode}", f"schedule.learning_rate={peak}", "schedule.steps=[2]"
    rate = rates(*overrides, "schedule.warmup=2", "train.iterations=5")
    for iteration in range(1, 6):
        still = mx.nd.zeros(1)
        mx.nd.sgd_update(still, still, lr=rate(iteration), wd=0)
    assert rate(2) == pytest.approx(peak)


def test_a_rate_can_be_asked_for_before_the_first_iteration(rates):
    """As `Learner.learning_rate` allows."""
    for mode, warmup in itertools.product(SCHEDULES, (0, 1, 2)):
        overrides = f"schedule.mode={mode}", f"schedule.warmup={warmup}", "train.iterations=3"
        assert rates(*overrides)(0) == pytest.approx(0 if warmup else 0.1)


@given(
    mode=st.sampled_from(SCHEDULES),
    iterations=st.integers(1, 50),
    warmup=st.integers(0, 50),
    order=st.randoms(),
)
@settings(max_examples=100)
def test_every_schedule_has_a_rate_from_0_to_the_peak_and_no_memory(rates, mode, iterations, warmup, order):
    warmup = warmup if warmup < iterations else 0
    overrides = (
        f"schedule.mode={mode}",
        f"train.iterations={iterations}",
        f"schedule.warmup={warmup}",
        "schedule.steps=[7]",
    )
    updates = list(range(1, iterations + 1))
    rate = rates(*overrides)
    fresh = copy.deepcopy(rate)
    expected = [rate(update) for update in updates]
    assert all(0 <= value <= 0.1 + 1e-12 for value in expected)
    assert expected[warmup:] == sorted(expected[warmup:], reverse=True)
    order.shuffle(updates)
    assert [fresh(update) for update in updates] == [expected[update - 1] for update in updates]
