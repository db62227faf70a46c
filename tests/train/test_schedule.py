"""The learning rate at each update, numbered from 1."""

import copy
import math

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


def test_steps_count_from_the_first_update_warm_up_included(rates):
    rate = rates("schedule.warmup=100", "schedule.steps=[200]", "train.iterations=300")
    assert rate(100) == rate(200) == pytest.approx(0.1)
    assert rate(201) == rate(300) == pytest.approx(0.01)


def test_cosine_after_a_linear_warm_up(rates):
    warmup, last, peak = 20, 100, 0.3
    rate = rates(
        "schedule.mode=cosine",
        f"schedule.warmup={warmup}",
        f"train.iterations={last}",
        f"schedule.learning_rate={peak}",
    )
    rising = [rate(update) for update in range(1, warmup + 1)]
    steps = [after - before for before, after in zip(rising, rising[1:-1])]
    assert steps == pytest.approx([steps[0]] * len(steps))
    assert rising[0] == pytest.approx(steps[0])
    assert max(rising) == rising[-1] == pytest.approx(peak)
    for update in range(warmup, last + 1):
        share = (update - warmup) / (last - warmup)
        assert rate(update) == pytest.approx(peak * (1 + math.cos(math.pi * share)) / 2, abs=1e-12)
    assert rate(last) == pytest.approx(0, abs=1e-12)


def test_linear_poly_and_constant(rates):
    halfway = {
        mode: rates(f"schedule.mode={mode}", "train.iterations=100")(50)
        for mode in ("linear", "poly", "constant")
    }
    assert halfway == pytest.approx({"linear": 0.05, "poly": 0.025, "constant": 0.1})


@given(
    mode=st.sampled_from(SCHEDULES),
    iterations=st.integers(1, 50),
    warmup=st.integers(0, 50),
    order=st.randoms(),
)
@settings(max_examples=100)
def test_every_schedule_has_a_rate_from_0_to_the_peak_and_no_memory(rates, mode, iterations, warmup, order):
    warmup = warmup if 2 <= warmup < iterations else 0
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
