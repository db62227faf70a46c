"""Figures and goals: what is written is what is said, and both judge by the median."""

import pytest

from latse.goals import Figure, Goal


def test_goals_say_whether_they_are_met():
    assert Figure.of([3.0, 1.0, 2.0], "s").as_json() == {
        "unit": "s", "median": 2.0, "min": 1.0, "max": 3.0, "values": [3.0, 1.0, 2.0]
    }  # fmt: skip
    assert Goal.of("speed", [2.0], at_least=1.6).in_words() == "speed: 2, at least 1.6: met"
    assert Goal.of("speed", [1.5], at_least=1.6).in_words() == "speed: 1.5, at least 1.6: missed"
    assert Goal.of("memory", [1.0], at_most=1).in_words().endswith(", at most 1: met")
    assert Goal.of("memory", [1.1], at_most=1).in_words().endswith(", at most 1: missed")
    assert Goal.of("size", [3.0, 4.0, 5.5], "MiB").in_words() == "size: 4 (3 to 5.5) MiB"
    assert Figure.of([0.5, 2.0]).in_words(factor=1000) == "1,250 (500 to 2,000)"
    with pytest.raises(ValueError, match="two bounds"):
        Goal.of("both", [1.0], at_least=1, at_most=2)
