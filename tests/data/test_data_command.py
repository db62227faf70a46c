"""The command line of `latse data`."""

import argparse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latse.cli import main
from latse.data import orl, orl_command


@pytest.fixture
def asked(monkeypatch):
    """What the command asks of orl.fetch, which does nothing here but answer that all is done."""
    calls = []
    monkeypatch.setattr(orl, "fetch", lambda *arguments: calls.append(arguments) or True)
    return calls


@pytest.mark.parametrize(
    "text, people",
    [
        ("31-40", range(31, 41)),
        ("1,4,7-9", [1, 4, 7, 8, 9]),
        ("5", [5]),
        ("9,2", [2, 9]),
        (" 1 , 3 ", [1, 3]),
    ],
)
def test_lists_of_people(text, people):
    assert orl_command.parse_people(text) == list(people)


@given(st.sets(st.integers(1, 40), min_size=1))
def test_any_list_of_people(people):
    assert orl_command.parse_people(",".join(map(str, people))) == sorted(people)


@pytest.mark.parametrize("text", ["", "a", "1,", "1-", "-3", "3-b", "1.5", "1;2", "1-9999999999"])
def test_no_list_of_people(text):
    with pytest.raises(argparse.ArgumentTypeError):
        orl_command.parse_people(text)


def test_defaults(asked):
    assert main(["data", "fetch-orl"]) == 0
    assert asked == [("data/orl", list(range(1, 31)), list(range(31, 41)), 0)]


def test_train_people_are_all_the_others(asked):
    assert main(["data", "fetch-orl", "--test-people", "1,3-5", "--seed", "7", "--out", "x"]) == 0
    assert asked == [("x", [2, *range(6, 41)], [1, 3, 4, 5], 7)]


def test_both_kinds_of_people(asked):
    assert main(["data", "fetch-orl", "--train-people", "1-24", "--test-people", "25-30"]) == 0
    assert asked == [("data/orl", list(range(1, 25)), list(range(25, 31)), 0)]


@pytest.mark.parametrize("people", ["5-3", "0-3", "38-41"])
def test_bad_people_are_one_sentence(tmp_path, capfd, people):
    assert main(["data", "fetch-orl", "--out", str(tmp_path / "out"), "--test-people", people]) == 1
    complaint = capfd.readouterr().err
    assert complaint.startswith("latse: test people:") and complaint.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_unwritable_output_is_one_sentence(tmp_path, capfd):
    (tmp_path / "file").write_bytes(b"")
    assert main(["data", "fetch-orl", "--out", str(tmp_path / "file")]) == 1
    assert "cannot make the folder" in capfd.readouterr().err


@pytest.mark.parametrize("arguments", [["--test-people", "x"], ["--seed", "x"], ["--nothing"]])
def test_usage_errors(arguments, capfd):
    with pytest.raises(SystemExit) as ended:
        main(["data", "fetch-orl", *arguments])
    assert ended.value.code == 2
    assert "usage:" in capfd.readouterr().err


def test_sub_command_is_needed(asked):
    with pytest.raises(SystemExit):
        main(["data"])


@pytest.mark.parametrize("words", [["data", "fetch-orl", "--seed", "-1"], ["encoders", "list", "nobody"]])
def test_debug_is_taken_anywhere(words, capfd):
    for place in range(len(words) + 1):
        if words[place - 1] != "--seed":
            assert main([*words[:place], "--debug", *words[place:]]) == 1
            assert "Traceback" in capfd.readouterr().err
