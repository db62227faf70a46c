import dataclasses

from latse.eval.table import aligned, verification_table
from latse.eval.verification import Verification

RESULT = Verification(
    accuracy=0.91,
    std=0.0234,
    threshold=1.2,
    tar_at_far={"0.01": 0.5, "0.001": 0.25},
    unresolved_far=["0.001"],
    auc=0.98765,
    pairs=900,
    different_pairs=450,
    fold_accuracies=[0.91] * 10,
)


def test_columns_are_aligned():
    lines = aligned([["", "a", "long title"], ["first", "1.00", "2"], ["x", "100.00", "20"]]).splitlines()
    assert lines == [
        "            a  long title",
        "-------------------------",
        "first    1.00           2",
        "x      100.00          20",
    ]


def test_results_are_shown_in_percent():
    lines = verification_table([("raw pixels", RESULT), ("student", RESULT)]).splitlines()
    assert lines[2].split() == ["raw", "pixels", "91.00", "±", "2.34", "50.00", "25.00*", "98.77"]
    assert lines[3].split()[0] == "student"
    assert lines[4] == "* before the first false accept: 450 different pairs resolve no finer"
    assert len(lines) == 5


def test_a_resolved_far_needs_no_note():
    lines = verification_table([("student", dataclasses.replace(RESULT, unresolved_far=[]))]).splitlines()
    assert "*" not in lines[2]
    assert len(lines) == 3
