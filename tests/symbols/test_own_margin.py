"""A margin in a user's file, named FILE.py:CLASS."""

import mxnet as mx
import numpy as np
import pytest
from closed_forms import at_angles, error_norm, evaluate, margin

from latse.errors import LatseError
from latse.symbols import margins

SOURCE = '''"""The margin of docs/extending.md, by and large."""

from latse.symbols.margins import Margin
from latse.symbols.margins.base import at_least


class Own(Margin):
    """h(θ) = s·(cos θ - c·θ)."""

    loosest = {"c": 0.0}

    def __init__(self, classes, s=64.0, c=0.1):
        super().__init__(classes, s)
        self._c = at_least(0, "c", c)

    def target_logit(self, F, theta):
        return self._s * (F.cos(theta) - self._c * theta)


class NoLoss:
    pass


NUMBER = 3
'''


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(SOURCE, encoding="utf-8")
    return path


@pytest.mark.parametrize("theta", [0.0, 1e-4, np.pi / 2, np.pi - 1e-4, np.pi])
def test_it_has_the_value_and_gradient_of_its_formula(own, theta):
    formula = margin(lambda theta, c=0.1: (np.cos(theta) - c * theta, -np.sin(theta) - c))
    batch = at_angles("cosface", [theta] * 3, seed=1)
    loss, gradients = evaluate(margins.create(f"{own}:Own", 5, c=0.3), batch)
    right = formula(batch, c=0.3)
    np.testing.assert_allclose(loss, right.loss, rtol=1e-4)
    for key, expected in right.gradients.items():
        difference, length = error_norm(gradients[key], expected)
        assert difference < 1e-4 * length


def test_its_other_logit_is_trained_with(own):
    """All other logits up by 0.7 is the target's down by 0.7: the same loss, by another way."""
    up = "\n    def other_logit(self, F, cosine):\n        return self._s * cosine + 0.7\n"
    body, rest = SOURCE.split("\n\nclass NoLoss")
    own.write_text(f"{body}{up}\n\nclass NoLoss{rest}", encoding="utf-8")
    batch = at_angles("cosface", [0.3, 1.2, 2.5], seed=2)
    loss, gradients = evaluate(margins.create(f"{own}:Own", 5, s=4.0), batch)
    own.write_text(SOURCE.replace("- self._c * theta)", "- self._c * theta) - 0.7"), encoding="utf-8")
    same, same_gradients = evaluate(margins.create(f"{own}:Own", 5, s=4.0), batch)
    np.testing.assert_allclose(loss, same, rtol=1e-5)
    for key, expected in same_gradients.items():
        difference, length = error_norm(gradients[key], expected)
        assert difference < 1e-5 * length
    own.write_text(SOURCE, encoding="utf-8")
    assert (loss > 1.1 * evaluate(margins.create(f"{own}:Own", 5, s=4.0), batch)[0]).all()


def test_its_parameters_are_those_of_its_class(own):
    assert dict(margins.parameters(f"{own}:Own")) == {"s": 64.0, "c": 0.1}
    with pytest.raises(LatseError, match="own.py:Own' has no parameter 'm2'; it has s, c$"):
        margins.check(f"{own}:Own", m2=0.5)
    with pytest.raises(LatseError, match="^c is -1, must be at least 0$"):
        margins.check(f"{own}:Own", c=-1)


def test_its_file_is_its_source(own):
    assert margins.source(f"{own}:Own") == own
    assert margins.source("arcface") is None


def test_an_edited_file_is_read_anew(own):
    theta = mx.nd.array([1.0], dtype="float64")
    first = margins.create(f"{own}:Own", 3, s=1.0).target_logit(mx.nd, theta).asscalar()
    own.write_text(SOURCE.replace("c=0.1", "c=0.25"), encoding="utf-8")
    second = margins.create(f"{own}:Own", 3, s=1.0).target_logit(mx.nd, theta).asscalar()
    assert first - second == pytest.approx(0.15)


@pytest.mark.parametrize("name", ["Other", "NoLoss", "NUMBER", ""])
def test_a_class_that_is_none_is_refused(own, name):
    with pytest.raises(LatseError, match=f"own.py has no class {name} over latse.symbols.margins.Margin$"):
        margins.find(f"{own}:{name}")


@pytest.mark.parametrize(
    "text, reason",
    [
        ("class Own(:", "SyntaxError"),
        ("import nothing_of_that_name", "ModuleNotFoundError: No module named 'nothing_of_that_name'"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
    ],
)
def test_a_file_that_cannot_be_run_is_refused(tmp_path, text, reason):
    path = tmp_path / "broken.py"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(LatseError, match=f"^cannot run .*broken.py: {reason}"):
        margins.find(f"{path}:Own")


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(LatseError, match="^cannot run .*absent.py: FileNotFoundError"):
        margins.find(f"{tmp_path / 'absent.py'}:Own")


def test_a_margin_without_target_logit_says_what_it_lacks(tmp_path):
    path = tmp_path / "bare.py"
    path.write_text("from latse.symbols.margins import Margin\n\n\nclass Bare(Margin):\n    pass\n")
    block = margins.create(f"{path}:Bare", 5)
    with pytest.raises(NotImplementedError, match="^Bare must say what its target_logit is$"):
        evaluate(block, at_angles("cosface", [1.0]))


def test_a_parameter_without_a_default_is_refused(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(SOURCE.replace("c=0.1", "c"), encoding="utf-8")
    path.write_text(path.read_text().replace("s=64.0, c", "c, s=64.0"), encoding="utf-8")
    with pytest.raises(LatseError, match="^the parameter 'c' of the margin '.*own.py:Own' has no default$"):
        margins.check(f"{path}:Own")


def test_a_parameter_that_is_no_number_is_refused(own):
    own.write_text(SOURCE.replace("c=0.1", "c=0.1, kind='easy'"), encoding="utf-8")
    with pytest.raises(LatseError, match="^the parameter 'kind' of .* has the default 'easy', not a number$"):
        margins.parameters(f"{own}:Own")
