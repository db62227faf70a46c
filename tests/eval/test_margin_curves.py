import itertools
import math

import cv2
import numpy as np
import pytest

from latse.errors import LatseError
from latse.eval import margin_curves
from latse.symbols import margins

CLASSES = 1000
THETA = np.linspace(0, math.pi, 201)


def two():
    return {
        "arcface": margins.create("arcface", CLASSES),
        "linearface": margins.create("linearface", CLASSES, s=30.0),
    }


def logit(name):
    """h(θ) by hand, of `two`."""
    return {
        "arcface": lambda t: 64 * np.cos(t + 0.5),
        "linearface": lambda t: 30 * (0.88 - 0.88 * t),
    }[name]


@pytest.mark.parametrize("name", two())
def test_the_probability_is_that_of_the_softmax(name):
    share, slope = margin_curves.probability(two()[name], THETA)
    expected = np.exp(logit(name)(THETA))
    expected = expected / (expected + (CLASSES - 1) * math.exp(0))
    np.testing.assert_allclose(share, expected, rtol=1e-9)
    step = 1e-6
    higher, lower = (margin_curves.probability(two()[name], THETA[1:-1] + side)[0] for side in (step, -step))
    np.testing.assert_allclose(slope[1:-1], (higher - lower) / (2 * step), rtol=1e-4, atol=1e-8)


def test_a_probability_of_any_scale_is_a_number():
    share, slope = margin_curves.probability(margins.create("cosface", CLASSES, s=5000.0), THETA)
    assert share[0] == 1
    assert share[-1] == 0
    assert np.isfinite(slope).all()
    assert (slope <= 0).all()


def test_the_left_panel_has_the_target_logits_in_units_of_their_scale():
    left, *_ = margin_curves.picture(two()).axes
    assert left.get_xlim() == (0, math.pi)
    for line, name, s in zip(left.lines, two(), (64, 30)):
        theta, found = line.get_data()
        assert (theta[0], theta[-1]) == (0, math.pi)
        np.testing.assert_allclose(found, logit(name)(theta) / s, rtol=0, atol=1e-12)
    assert [text.get_text() for text in left.get_legend().get_texts()] == list(two())
    assert [label.get_text() for label in left.get_xticklabels()] == ["0", "π/4", "π/2", "3π/4", "π"]


def test_the_right_panels_show_where_the_probabilities_change():
    _, above, below = margin_curves.picture(two()).axes
    assert "999 other classes, all at π/2; s = 30 or 64" in above.get_title()
    for margin, upper, lower in zip(two().values(), above.lines, below.lines):
        theta, share = upper.get_data()
        expected, slope = margin_curves.probability(margin, theta)
        np.testing.assert_array_equal(share, expected)
        np.testing.assert_array_equal(lower.get_data()[1], slope)
        assert share.max() > 0.999
        assert share.min() < 0.001
    low, high = above.get_xlim()
    outside = THETA[(low > THETA) | (high < THETA)]
    shares = np.stack([margin_curves.probability(margin, outside)[0] for margin in two().values()])
    assert ((shares < 0.001) | (shares > 0.999)).all()
    assert high - low < math.pi


def test_a_probability_that_never_changes_is_shown_over_all_angles():
    flat = {"cosface": margins.create("cosface", 100 * CLASSES, s=0.001, m3=0.0)}
    _, above, _ = margin_curves.picture(flat).axes
    assert above.get_xlim() == (0, math.pi)


def test_lines_differ_in_style_and_colour_where_they_are_near():
    looks = [(look["color"], look["linestyle"]) for look in itertools.islice(margin_curves._looks(), 43)]
    assert len(set(looks)) == 42
    for (colour, style), (next_colour, next_style) in zip(looks, looks[1:]):
        assert colour != next_colour
        assert style != next_style


@pytest.mark.parametrize("suffix", ["", ".png", ".svg"])
def test_both_files_are_written_and_always_the_same(tmp_path, suffix):
    first = margin_curves.draw_curves(tmp_path / "one" / f"margins{suffix}", two())
    assert first == (tmp_path / "one" / "margins.png", tmp_path / "one" / "margins.svg")
    image = cv2.imread(str(first[0]))
    assert image.shape[1] > 1000
    assert image.std() > 0
    drawing = first[1].read_text()
    assert drawing.lstrip().startswith("<?xml")
    assert "</svg>" in drawing
    second = margin_curves.draw_curves(tmp_path / "two" / "margins", two())
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in second]


def test_another_format_is_refused(tmp_path):
    with pytest.raises(LatseError, match=r"margins.pdf: a figure is written as .png and .svg, not as .pdf"):
        margin_curves.draw_curves(tmp_path / "margins.pdf", two())


def test_a_margin_without_a_scale_is_refused():
    class Upside(margins.Margin):
        def target_logit(self, F, theta):
            return -theta

        def other_logit(self, F, cosine):
            return -cosine

    with pytest.raises(
        LatseError, match=r"mine: h\(θ\) is drawn in units of g\(0\), which is -1, not above 0"
    ):
        margin_curves.picture({"mine": Upside(3)})
