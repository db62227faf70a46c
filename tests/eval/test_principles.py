"""The checker against intervals and violations that are derived by hand."""

import math

import mxnet as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq

from latse.errors import LatseError
from latse.eval import principles
from latse.symbols import margins

PI = math.pi
S = 64
EXACT = 1e-6  # radians


def findings(name, **parameters):
    return principles.check(
        margins.create(name, 1000, **parameters), {**margins.parameters(name), **parameters}
    )


def made(target, other=None):
    """A margin with h(θ) = s·target(F, θ) and, if given, g(θ) = s·other(F, cos θ)."""

    class Made(margins.Margin):
        def target_logit(self, F, theta):
            return self._s * target(F, theta)

        def other_logit(self, F, cosine):
            return self._s * (other(F, cosine) if other else cosine)

    return Made(3, S)


def found(target, other=None):
    return principles.check(made(target, other), {"s": S})


def with_a_margin(target, c, loosest=0.0):
    """What is found of h(θ) = s·target(F, θ, c), whose margin is c."""
    loose = {"c": loosest}

    class Made(margins.Margin):
        loosest = loose

        def __init__(self, classes, s=S, c=0.0):
            super().__init__(classes, s)
            self._c = c

        def target_logit(self, F, theta):
            return self._s * target(F, theta, self._c)

    return principles.check(Made(3, c=c), {"s": S, "c": c})


def failing(result):
    return {name for name, finding in result.items() if not finding.holds}


def assert_fails(finding, intervals, largest, at=None):
    """The finding has these intervals, exact to 1e-6 radians, and this largest violation, in units of s."""
    assert not finding.holds
    np.testing.assert_allclose(finding.intervals, intervals, rtol=0, atol=EXACT)
    assert finding.largest == pytest.approx(S * largest, rel=1e-6, abs=1e-9)
    if at is not None:
        assert finding.at == pytest.approx(at, abs=EXACT)


HOLDING = [
    ("normalised_softmax", {}),
    ("sphereface", {}),
    ("sphereface", {"m1": 4.0}),
    ("sphereface_annealed", {}),
    ("cosface", {}),
    ("arcface", {"m2": 0.0}),
    ("arcface_shifted", {}),
    ("linearface", {"a": 0.88, "b": 0.88}),
    ("linearface", {"a": 0.88, "b": 1.0}),
    ("linearface", {"a": 1.0, "b": 1.0}),
    ("sv_am_softmax", {}),
    ("adacos_fixed", {}),
    ("adacos", {}),
    ("adaptiveface", {}),
]


@pytest.mark.parametrize("name, parameters", HOLDING)
def test_what_holds_all_principles(name, parameters):
    result = findings(name, **parameters)
    assert list(result) == ["non_negativity", "penalty", "order", "decrease"]
    assert failing(result) == set()
    assert all(finding.largest is None and finding.at is None for finding in result.values())


def test_arcface_fails_past_pi_less_its_margin():
    result = findings("arcface", m2=0.5)
    assert failing(result) == {"penalty", "order", "decrease"}
    rise = 1 - math.cos(0.5)  # of cos(θ + m2) from its least value, -1, to that at π
    assert_fails(result["penalty"], [(PI - 0.25, PI)], rise, at=PI)
    assert_fails(result["order"], [(PI - 0.5, PI)], rise, at=PI)
    assert_fails(result["decrease"], [(PI - 0.5, PI)], rise, at=PI)
    assert [result[name].of for name in ("penalty", "order", "decrease")] == [["h"], ["m2"], ["h"]]


def test_sphereface_without_its_psi_fails_past_pi_over_its_margin():
    result = findings("sphereface_literal", m1=1.35)
    assert failing(result) == {"penalty", "order", "decrease"}
    rise = 1 + math.cos(1.35 * PI)
    # cos(m1·θ) = cos θ where m1·θ = 2π - θ.
    assert_fails(result["penalty"], [(2 * PI / 2.35, PI)], rise, at=PI)
    assert_fails(result["order"], [(PI / 1.35, PI)], rise, at=PI)
    assert_fails(result["decrease"], [(PI / 1.35, PI)], rise, at=PI)


def test_easy_margin_fails_where_it_lets_go_of_the_margin():
    result = findings("arcface_easy_margin", m2=0.5)
    assert failing(result) == {"decrease"}
    assert_fails(result["decrease"], [(PI / 2, PI / 2)], math.sin(0.5), at=PI / 2)


def test_shifted_arcface_fails_with_a_margin_past_a_right_angle():
    result = findings("arcface_shifted", m2=2.5)
    assert failing(result) == {"order", "decrease"}
    jump = math.cos(PI - 2.5) - 2.5 * math.sin(2.5) + 1
    assert_fails(result["decrease"], [(PI - 2.5, PI - 2.5)], jump, at=PI - 2.5)


def test_the_combined_margin_names_the_parameters_at_fault():
    result = findings("combined", m1=1.2, m2=0.4, m3=0.1)
    assert failing(result) == {"penalty", "order", "decrease"}
    assert result["order"].of == ["m1", "m2"]
    turn = (PI - 0.4) / 1.2
    assert_fails(result["decrease"], [(turn, PI)], 1 + math.cos(1.2 * PI + 0.4), at=PI)
    np.testing.assert_allclose(result["order"].intervals, [(turn, PI)], rtol=0, atol=EXACT)
    start = brentq(lambda t: math.cos(1.2 * t + 0.4) - 0.1 - math.cos(t), 2, 3)
    assert_fails(result["penalty"], [(start, PI)], math.cos(1.2 * PI + 0.4) - 0.1 + 1, at=PI)
    # With its defaults, m1 = 1, m2 = 0.3 and m3 = 0.2, it stays below cos θ.
    result = findings("combined")
    assert failing(result) == {"order", "decrease"}
    assert_fails(result["order"], [(PI - 0.3, PI)], 1 - math.cos(0.3), at=PI)


def test_a_linear_margin_above_the_cosine_fails():
    result = findings("linearface", b=1.2)
    assert failing(result) == {"penalty", "order"}
    end = brentq(lambda t: 1.2 - 0.88 * t - math.cos(t), 0, 1)
    assert_fails(result["penalty"], [(0, end)], 0.2, at=0)
    assert_fails(result["order"], [(0, PI)], 0.2)


def test_a_linear_margin_without_slope_does_not_fall():
    result = findings("linearface", a=0.0)
    assert failing(result) == {"penalty", "decrease"}
    assert_fails(result["decrease"], [(0, PI)], 0)
    assert_fails(result["penalty"], [(math.acos(0.88), PI)], 1.88)


def test_flat_points_are_no_failure():
    assert failing(found(lambda F, t: -1 - (t - 1) ** 3 - 1)) == set()
    assert failing(found(lambda F, t: F.cos(t) - F.relu(t - 2) ** 2)) == set()


def test_a_rise_between_two_points_of_the_grid_is_found():
    low = principles.GRID[5000] + 2e-5
    high = low + 1e-5

    def target(F, t):
        return -2 - t + 100 * (F.relu(t - low) - F.relu(t - high))

    result = found(target)
    assert failing(result) == {"decrease"}
    np.testing.assert_allclose(result["decrease"].intervals, [(low, high)], rtol=0, atol=1e-9)
    assert result["decrease"].largest == pytest.approx(S * 99 * 1e-5, rel=1e-6)


def test_a_jump_at_the_end_of_a_rise_is_one_interval_with_it():
    def target(F, t):
        return -3 - t + 1.5 * (F.relu(t - 1) - F.relu(t - 2)) + 0.25 * (t >= 2)

    assert_fails(found(target)["decrease"], [(1, 2)], 0.5 + 0.25, at=2)


def test_a_fall_by_a_jump_does_not_hide_a_rise():
    def target(F, t):
        return -3 - t + 1.5 * (F.relu(t - 1) - F.relu(t - 2)) - 0.75 * (t >= 1.5)

    finding = found(target)["decrease"]
    np.testing.assert_allclose(finding.intervals, [(1, 2)], rtol=0, atol=EXACT)
    assert finding.largest == pytest.approx(S * 0.25, rel=1e-3)  # the running minimum is that of the grid


def test_a_rise_that_the_derivative_hides_is_seen_by_the_grid():
    hidden = found(lambda F, t: -3 - t + 2 * F.BlockGrad(F.relu(t - 1)))
    (interval,) = hidden["decrease"].intervals
    np.testing.assert_allclose(interval, (1, PI), rtol=0, atol=PI / 2**14)
    assert hidden["decrease"].largest == pytest.approx(S * (PI - 1), rel=1e-3)


def test_the_logit_of_the_others_must_fall_too():
    result = found(lambda F, t: -2 - t, other=lambda F, cosine: -cosine)
    assert failing(result) == {"decrease"}
    assert result["decrease"].of == ["g"]
    assert_fails(result["decrease"], [(0, PI)], 2, at=PI)


def test_infinite_logits_are_no_numbers_and_nothing_else():
    result = found(lambda F, t: -2 - t - F.log(F.relu(t - 1)))
    assert_fails_without_amount(result["non_negativity"], [(0, 1)], at=0)
    result = found(lambda F, t: -2 - t + F.log(t))
    assert_fails_without_amount(result["non_negativity"], [(0, 0)], at=0)
    for finding in result.values():
        assert finding.largest is None or math.isfinite(finding.largest)


def assert_fails_without_amount(finding, intervals, at):
    np.testing.assert_allclose(finding.intervals, intervals, rtol=0, atol=EXACT)
    assert (finding.largest, finding.at) == (None, at)


def test_the_last_step_finds_where_a_margin_starts_to_work_backwards():
    # dh/dc = s·(c - θ): the last of the steps towards c = 0.7 is the only one that fails up to θ = 0.7.
    result = with_a_margin(lambda F, t, c: F.cos(t) - c * t + c**2 / 2, c=0.7)
    assert_fails(result["order"], [(0, 0.7)], 0.7**2 / 2, at=0)


@given(st.floats(0, 1, exclude_max=True))
def test_the_end_of_an_interval_is_narrowed_down_from_both_sides(end):
    for inside, outside, fails in [(0.0, 1.0, lambda x: x <= end), (1.0, 0.0, lambda x: x > end)]:
        last = principles._last(fails, inside, outside)
        assert fails(last)
        assert abs(last - end) <= 256**-6 + 1e-15


@pytest.mark.parametrize("turn", [0.2, 0.69, 0.6999])
def test_a_margin_that_turns_shortly_before_the_given_one_is_seen_at_its_turn(turn):
    result = with_a_margin(lambda F, t, c: F.cos(t) + (c - turn) ** 2, c=0.7)
    np.testing.assert_allclose(result["order"].intervals, [(0, PI)], rtol=0, atol=EXACT)
    # No value of the ladder is farther from the turn than a third of its distance from the given margin.
    assert 8 / 9 * S * (0.7 - turn) ** 2 <= result["order"].largest <= S * (0.7 - turn) ** 2 * (1 + 1e-6)


def test_a_margin_that_is_given_as_its_loosest_has_no_order_to_keep():
    assert with_a_margin(lambda F, t, c: F.cos(t) + c, c=0.0)["order"].holds
    assert not with_a_margin(lambda F, t, c: F.cos(t) + c, c=0.1)["order"].holds
    assert with_a_margin(lambda F, t, c: F.cos(t) + c, c=0.1, loosest=0.2)["order"].holds


def raising(F, theta):
    raise ZeroDivisionError("no way")


@pytest.mark.parametrize(
    "target, complaint",
    [
        (raising, "Made.target_logit cannot be computed: ZeroDivisionError: no way"),
        (lambda F, t: F.cast(t, dtype="float32"), r"Made.target_logit makes float32 \(16385,\) of float64"),
        (lambda F, t: F.sum(t), r"Made.target_logit makes float64 \(1,\) of float64 \(16385,\)"),
        (lambda F, t: F.reshape(t, shape=(7, 7)), "Made.target_logit cannot be computed: MXNetError"),
    ],
)
def test_a_margin_that_cannot_be_computed_is_refused(target, complaint):
    with pytest.raises(LatseError, match=complaint) as caught:
        found(target)
    assert "\n" not in str(caught.value)


def test_a_margin_whose_loosest_is_no_parameter_is_refused():
    margin = made(lambda F, t: F.cos(t))
    type(margin).loosest = {"d": 0.0}
    with pytest.raises(LatseError, match="Made.loosest names 'd', which is no parameter"):
        principles.check(margin, {"s": S})


def intervals():
    """Pairs low < high in [0, π], neither too near to the other nor to the ends."""
    pairs = st.tuples(st.floats(0.02, PI - 0.02), st.floats(0.05, PI))
    return pairs.map(lambda pair: (pair[0], min(pair[0] + pair[1], PI - 0.01))).filter(
        lambda p: p[1] - p[0] > 0.01
    )


sizes = st.floats(-5, 0).map(lambda exponent: 10**exponent)
few = settings(max_examples=15)
fewer = settings(max_examples=10)  # a margin is made anew for every step towards it


@few
@given(intervals(), sizes, st.just(0) | st.floats(0.1, 0.9))
def test_a_bump_above_the_cosine_is_caught(interval, size, buried):
    """A parabola on cos θ, of which the share `buried` of the height is below it."""
    low, high = interval
    middle, half = (low + high) / 2, (high - low) / 2
    height = size * half**2
    result = found(lambda F, t: F.cos(t) + size * F.relu(t - low) * F.relu(high - t) - buried * height)
    reach = half * math.sqrt(1 - buried)
    assert "penalty" in failing(result)
    assert_fails(result["penalty"], [(middle - reach, middle + reach)], height * (1 - buried), at=None)
    assert abs(result["penalty"].at - middle) < 1e-3


@few
@given(intervals(), st.just(0) | sizes, st.floats(0.01, 3))
def test_a_rising_or_flat_stretch_is_caught(interval, rise, fall):
    """Straight lines that fall, with the slope `rise` on the interval."""
    low, high = interval

    def target(F, t):
        return -1 - fall * t + (fall + rise) * (F.relu(t - low) - F.relu(t - high))

    result = found(target)
    assert_fails(result["decrease"], [interval], rise * (high - low))
    assert result["non_negativity"].holds
    assert result["order"].holds


@few
@given(st.floats(0.01, PI - 0.01), sizes, st.floats(0.01, 3))
def test_a_jump_up_is_caught(place, jump, fall):
    result = found(lambda F, t: -2 - jump - fall * t + jump * (t > place))
    assert failing(result) == {"decrease"}
    assert_fails(result["decrease"], [(place, place)], jump, at=place)


@fewer
@given(intervals(), st.floats(0.01, 1))
def test_a_margin_that_helps_on_an_interval_is_caught(interval, c):
    low, high = interval
    result = with_a_margin(lambda F, t, c: F.cos(t) - c * (t - low) * (t - high), c)
    assert_fails(result["order"], [interval], c * ((high - low) / 2) ** 2)
    assert result["order"].of == ["c"]


@few
@given(intervals())
def test_a_gap_in_the_domain_is_caught(interval):
    low, high = interval
    result = found(lambda F, t: -6 - t - 0 * F.sqrt((t - low) * (t - high)))
    assert failing(result) == {"non_negativity"}
    np.testing.assert_allclose(result["non_negativity"].intervals, [interval], rtol=0, atol=EXACT)


# mxnet reads no subnormal number as a scalar.
offsets = st.floats(0, 1, allow_subnormal=False)
ramps = st.lists(
    st.tuples(st.floats(0, PI, allow_subnormal=False), st.floats(0, 3, allow_subnormal=False)), max_size=4
)


@fewer
@given(ramps, offsets, st.floats(0.001, 2))
def test_the_cosine_less_growing_penalties_passes(ramps, offset, c):
    def target(F, t, c):
        return F.cos(t) - c * (offset + sum(slope * F.relu(t - start) for start, slope in ramps))

    assert failing(with_a_margin(target, c)) == set()


@few
@given(st.lists(st.floats(0.05, 1), min_size=2, max_size=6), offsets, st.floats(0.01, 2))
def test_falling_straight_lines_below_the_cosine_pass(widths, below, last):
    """At each knot h is cos of the next knot, or less: so it is nowhere above cos θ in between."""
    knots = PI * np.concatenate([[0], np.cumsum(widths) / np.sum(widths)])
    heights = np.append(np.cos(knots[1:]) - below, -1 - below - last)
    slopes = np.diff(heights) / np.diff(knots)
    bends = np.diff(slopes, prepend=0)

    def target(F, t):
        return heights[0] + sum(float(bend) * F.relu(t - float(knot)) for bend, knot in zip(bends, knots))

    assert failing(found(target)) == set()


@fewer
@given(st.floats(0.01, PI / 2), st.floats(1, 128))
def test_arcface_is_judged_right_at_any_margin_and_scale(m2, s):
    result = findings("arcface", m2=m2, s=s)
    np.testing.assert_allclose(result["decrease"].intervals, [(PI - m2, PI)], rtol=0, atol=EXACT)
    np.testing.assert_allclose(result["order"].intervals, [(PI - m2, PI)], rtol=0, atol=EXACT)
    np.testing.assert_allclose(result["penalty"].intervals, [(PI - m2 / 2, PI)], rtol=0, atol=EXACT)
    assert result["decrease"].largest == pytest.approx(s * (1 - math.cos(m2)), rel=1e-6)


def test_curves_are_those_of_the_margin_and_their_slopes_are_derivatives():
    h, g = principles.curves(margins.create("arcface", 10, s=30, m2=0.3))
    theta = np.linspace(0, PI, 7)
    np.testing.assert_allclose(h(theta), 30 * np.cos(theta + 0.3), rtol=0, atol=1e-13)
    np.testing.assert_allclose(g(theta), 30 * np.cos(theta), rtol=0, atol=1e-13)
    np.testing.assert_allclose(h.slope(theta), -30 * np.sin(theta + 0.3), rtol=0, atol=1e-13)
    np.testing.assert_allclose(g.slope(theta), -30 * np.sin(theta), rtol=0, atol=1e-13)
    constant = principles.LogitCurve("constant", mx.nd.ones_like)
    assert constant.slope(theta).tolist() == [0] * 7
