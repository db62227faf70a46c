"""Times are taken in turn."""

from latse.bench import timing


def test_steps_are_run_in_turn_after_a_first_round():
    calls = []
    steps = {name: lambda name=name: calls.append(name) or len(calls) for name in "ab"}
    times = timing.in_turn(steps, 3)
    assert "".join(calls) == "ab" * 4
    assert [answer["value"] for answer in times["a"].answers] == [3, 5, 7]
    for one in times.values():
        assert len(one.seconds) == len(one.processor_seconds) == 3 and min(one.seconds) > 0


def test_ratios_are_taken_round_by_round():
    assert timing.ratios([4.0, 9.0], [2.0, 3.0]) == [2.0, 3.0]
