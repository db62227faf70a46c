import json
import math
import re
from pathlib import Path

import pytest

from latse.cli import main
from latse.symbols import margins

DOCUMENT = Path(__file__).parents[2] / "docs" / "margins.md"
OWN = """
from latse.symbols.margins import Margin


class Own(Margin):
    loosest = {"c": 0.0}

    def __init__(self, classes, s=64.0, c=0.1):
        super().__init__(classes, s)
        self._c = c

    def target_logit(self, F, theta):
        return self._s * (F.cos(theta) - self._c * theta)


class Needs(Own):
    def __init__(self, classes, c):
        super().__init__(classes, c=c)


class Refuses(Own):
    def __init__(self, classes, c=0.1):
        if c == 0:
            raise ValueError("c is 0")
        super().__init__(classes, c=c)


class Broken(Margin):
    def target_logit(self, F, theta):
        return F.no_such_function(theta)
"""


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(OWN)
    return path


def command(*arguments):
    return main(["margins", *map(str, arguments)])


def test_a_margin_that_holds_all(capsys):
    assert command("check", "linearface", "a=0.88", "b=1") == 0
    first, *principles = capsys.readouterr().out.splitlines()
    assert first == "linearface s=64 a=0.88 b=1"
    assert [line.split("  ")[1] for line in principles] == [
        "non-negativity (eq. 8)",
        "penalty (eq. 8)",
        "order (eq. 9)",
        "monotonic decrease",
    ]
    assert all(line.endswith(" holds") for line in principles)


def test_a_margin_that_fails_is_a_result_and_no_error(tmp_path, capsys):
    assert command("check", "arcface", "m2=0.5", "--json", tmp_path / "deep" / "arcface.json") == 1
    output = capsys.readouterr()
    assert output.err == ""
    positive, penalty, order, decrease = output.out.splitlines()[1:]
    rise = f"{64 * (1 - math.cos(0.5)):.6g}"
    assert positive.endswith("holds")
    assert f"fails: h exceeds g on [2.891593, 3.141593], by {rise} at most, at θ = 3.141593" in penalty
    assert f"fails: h rises with a stricter m2 on [2.641593, 3.141593], by {rise} at most" in order
    assert f"fails: h does not fall as θ grows on [2.641593, 3.141593], rising by {rise} at most" in decrease

    report = json.loads((tmp_path / "deep" / "arcface.json").read_text())
    assert report["margin"] == "arcface"
    assert report["parameters"] == {"s": 64, "m2": 0.5}
    assert report["holds"] is False
    assert {"latse", "mxnet", "numpy"} <= set(report["versions"])
    assert report["principles"]["non_negativity"] == {
        "holds": True,
        "intervals": [],
        "largest": None,
        "at": None,
        "of": [],
    }
    decrease = report["principles"]["decrease"]
    assert decrease["holds"] is False
    assert decrease["intervals"] == [pytest.approx([math.pi - 0.5, math.pi], abs=1e-6)]
    assert decrease["largest"] == pytest.approx(64 * (1 - math.cos(0.5)), rel=1e-9)
    assert decrease["at"] == pytest.approx(math.pi)


def test_a_jump_is_named_as_one_point(capsys):
    assert command("check", "arcface_easy_margin") == 1
    assert "at θ = 1.570796, rising by 30.6832" in capsys.readouterr().out


def test_a_margin_of_a_file_is_checked_as_well(own, tmp_path, capsys):
    assert command("check", f"{own}:Own", "c=0.2", "--json", tmp_path / "own.json") == 0
    assert capsys.readouterr().out.splitlines()[0] == f"{own}:Own s=64 c=0.2"
    assert json.loads((tmp_path / "own.json").read_text())["parameters"] == {"s": 64, "c": 0.2}
    # A negative margin adds to the logit, and more so the larger θ is: where sin θ < 0.2, h rises.
    assert command("check", f"{own}:Own", "c=-0.2") == 1
    report = capsys.readouterr().out
    assert "h exceeds g on [0.000000, 3.141593]" in report
    assert "h rises with a stricter c on [0.000000, 3.141593]" in report
    low, high = math.asin(0.2), math.pi - math.asin(0.2)
    assert f"h does not fall as θ grows on [0.000000, {low:.6f}] and on [{high:.6f}, 3.141593]" in report


def test_a_whole_number_stays_one_where_the_order_is_checked(tmp_path, capsys):
    path = tmp_path / "own.py"
    whole = OWN.replace("s=64.0, c=0.1", "s=64.0, c=0.1, n=2")
    path.write_text(whole.replace("self._c = c", "self._c = sum(c / n for _ in range(n))"))
    assert command("check", f"{path}:Own", "c=0.2", "n=3") == 0
    assert capsys.readouterr().out.splitlines()[0] == f"{path}:Own s=64 c=0.2 n=3"
    assert command("check", f"{path}:Own", "n=2.5") == 1
    assert "n is 2.5, must be a whole number as its default 2 is" in capsys.readouterr().err


def test_an_order_that_is_not_checked_does_not_hold(capsys):
    assert command("check", "adacos", "--classes", 20) == 0
    order = next(line for line in capsys.readouterr().out.splitlines() if "order (eq. 9)" in line)
    assert order.endswith("  not checked: `loosest` names no parameter as a margin")


@pytest.mark.parametrize(
    "arguments, complaint",
    [
        (["nosuch"], "unknown margin 'nosuch'"),
        (["softmax_bias"], "'softmax_bias' has no target logit"),
        (["triplet"], "'triplet' has no target logit"),
        (["linearface", "c=1"], "has no parameter 'c'"),
        (["linearface", "a=-1"], "a is -1.0, must be at least 0"),
        (["linearface", "a=wide"], "a is 'wide', not a finite number"),
        (["linearface", "a=nan"], "a is 'nan', not a finite number"),
        (["linearface", "a"], "'a' is no KEY=VALUE"),
        (["linearface", "=1"], "'=1' is no KEY=VALUE"),
        (["linearface", "a=1", "a=2"], "KEY is given twice"),
        (["adacos", "--classes", "2"], "AdaCos takes its scale from the number of people"),
        (["nosuch.py:Own"], "cannot run nosuch.py"),
    ],
)
def test_bad_input_is_one_sentence(arguments, complaint, capsys):
    assert command("check", *arguments) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("latse: ")
    assert complaint in output.err
    assert output.err.count("\n") == 1


def test_a_file_that_fails_is_one_sentence(own, capsys):
    assert command("check", f"{own}:Broken") == 1
    error = capsys.readouterr().err
    assert error.startswith("latse: Broken.target_logit cannot be computed: AttributeError")
    assert error.count("\n") == 1


def test_a_parameter_without_a_default_is_one_sentence(own, capsys):
    assert command("check", f"{own}:Needs", "c=1") == 1
    sentence = f"latse: the parameter 'c' of the margin '{own}:Needs' has no default\n"
    assert capsys.readouterr().err == sentence


def test_a_class_that_refuses_what_is_given_is_one_sentence(own, capsys):
    assert command("check", f"{own}:Refuses", "c=0") == 1
    assert (
        capsys.readouterr().err == f"latse: the margin '{own}:Refuses' cannot be made: ValueError: c is 0\n"
    )


@pytest.mark.parametrize("classes", ["1", "many", "-3"])
def test_a_number_of_people_is_at_least_two(classes, capsys):
    with pytest.raises(SystemExit, match="2"):
        command("check", "linearface", "--classes", classes)
    assert "no whole number of at least 2" in capsys.readouterr().err


def test_the_list_has_every_loss_and_what_it_fails(capsys):
    assert command("list") == 0
    head, _, *rows = (line.split("  ") for line in capsys.readouterr().out.splitlines())
    rows = {cells[0]: [cell.strip() for cell in cells[1:] if cell.strip()] for cells in rows}
    assert [cell.strip() for cell in head if cell.strip()] == ["name", "parameters", "loosest", "fails"]
    assert list(rows) == list(margins.MARGINS)
    assert rows["linearface"] == ["s=64 a=0.88 b=0.88", "a=0 b=1", "none"]
    assert rows["arcface"] == ["s=64 m2=0.5", "m2=0", "penalty, order, decrease"]
    assert rows["arcface_easy_margin"][-1] == "decrease"
    assert rows["normalised_softmax"] == ["s=64", "-", "none"]
    assert rows["triplet"] == ["m=0.2", "-", "-"]


def test_margins_are_plotted_with_their_parameters(own, tmp_path, capsys):
    out = tmp_path / "figures" / "mine.svg"
    assert command("plot", "linearface,a=1,b=1", f"{own}:Own,c=0.3", "--out", out) == 0
    assert capsys.readouterr().out.split() == [str(out.with_suffix(".png")), str(out)]
    drawing = out.read_text()
    assert "linearface a=1 b=1" in drawing
    assert f"{own}:Own c=0.3" in drawing
    assert "arcface" not in drawing


def test_figure_3_is_plotted_by_default(tmp_path):
    assert command("plot", "--out", tmp_path / "margins") == 0
    drawing = (tmp_path / "margins.svg").read_text()
    for name in (
        "normalised_softmax",
        "sphereface m1=1.35",
        "cosface m3=0.35",
        "arcface m2=0.5",
        "linearface",
    ):
        assert name in drawing


def test_what_has_no_target_logit_is_not_plotted(tmp_path, capsys):
    assert command("plot", "centre_loss", "--out", tmp_path / "margins") == 1
    assert "'centre_loss' has no target logit" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_document_has_every_loss_with_its_parameters_and_what_it_fails(capsys):
    rows = [line.strip("| ").split(" | ") for line in DOCUMENT.read_text().splitlines() if line[:3] == "| `"]
    documented = {cells[0].strip("`"): cells for cells in rows}
    assert set(documented) == set(margins.MARGINS)
    command("list")
    for line in capsys.readouterr().out.splitlines()[2:]:
        name, *_, fails = re.split(r"  +", line)
        assert documented[name][3] == fails.replace("-", "–")
    for name, cells in documented.items():
        for parameter, default in margins.parameters(name).items():
            assert cells[2] == "as `arcface`" or re.search(rf"\b{parameter}\b.*: {default:g}\b", cells[2])
