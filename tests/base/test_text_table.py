import copy

from latse.text_table import ACCEPTED, aligned, threshold_table, verification_table

RESULT = {
    "accuracy": 0.91,
    "std": 0.0234,
    "threshold": 1.2,
    "exact": {"accuracy": 0.92, "std": 0.1, "threshold": 1.21},
    "val_at_far_1e-3": {"val": 0.33, "std": 0.1, "far": 0.002},
    "tar_at_far": {"0.1": 0.75, "0.01": 0.5, "0.001": 0.25, "0.0001": 0.25},
    "unresolved_far": ["0.001", "0.0001"],
    "threshold_at_far": {"0.1": 1.4, "0.01": 1.25, "0.001": 1.1, "0.0001": 1.1},
    "cosine_at_far": {"0.1": 0.3, "0.01": 0.375, "0.001": 0.45, "0.0001": 0.45},
    "auc": 0.98765,
    "eer": 0.04,
    "intervals": {"accuracy": [0.8, 0.953], "samples": 70},
}


def one_set(**changes):
    result = {**copy.deepcopy(RESULT), **changes}
    pairs = {"pairs": 900, "different_pairs": 450, "people": 10}
    return {**pairs, "results": {"raw pixels": result, "student": result}}


def test_columns_are_aligned():
    lines = aligned([["", "a", "long title"], ["first", "1.00", "2"], ["x", "100.00", "20"]]).splitlines()
    assert lines == [
        "            a  long title",
        "-------------------------",
        "first    1.00           2",
        "x      100.00          20",
    ]


def test_results_are_shown_in_percent():
    lines = verification_table({"orl": one_set()}).splitlines()
    head = "accuracy ± std  95 % interval  threshold  exact thresholds "
    head += "TAR@10%FAR  TAR@1%FAR  AUC  EER  VAL at FAR"
    assert lines[0].split() == head.split()
    assert lines[2] == "orl"
    figures = "91.00 ± 2.34 80.00 to 95.30 1.200 92.00 ± 10.00 75.00 50.00 98.77 4.00 33.00 at 0.20"
    assert lines[3].split() == ["raw", "pixels", *figures.split()]
    assert lines[4].split() == ["student", *figures.split()]
    described = (
        "orl: 900 pairs, 450 of them of different people; 10 people, drawn again 70 times for the interval"
    )
    assert lines[5:] == [described]


def test_sets_share_the_columns_that_one_of_them_resolves():
    fine = one_set(unresolved_far=["0.0001"])
    lines = verification_table({"orl": one_set(), "lfw": fine}).splitlines()
    assert lines[0].split()[-6] == "TAR@0.1%FAR"
    assert [line for line in lines if "*" in line] == [
        lines[3],
        lines[4],
        "* before the first false accept: so few different pairs resolve no finer",
    ]
    assert lines[3].split()[-6] == "25.00*" and lines[6].split()[-6] == "25.00"
    assert [lines[2], lines[5]] == ["orl", "lfw"]


def test_what_is_not_known_is_said():
    nobody = {**one_set(intervals=None), "people": None}
    few = one_set(intervals=None)
    one_kind = dict.fromkeys(RESULT["tar_at_far"])
    same = one_set(
        intervals=None,
        auc=None,
        eer=None,
        tar_at_far=one_kind,
        unresolved_far=list(one_kind),
        **{"val_at_far_1e-3": None},
    )
    lines = verification_table({"nobody": nobody, "few": few, "same": same}).splitlines()
    assert lines[3].split()[5:7] == ["–", "1.200"]
    assert lines[-4].endswith("; no interval: there is no nobody.people.npy to say who is who")
    assert lines[-3].endswith("; 10 people, no interval")
    assert lines[9].split()[-5:] == ["–*", "–*", "–", "–", "–"]
    assert len(verification_table({"same": same}).splitlines()[0].split("TAR")) == 1


def test_thresholds_are_shown_for_what_the_pairs_resolve():
    bounds = {
        "threshold_at_far": {"0.1": [1.3, 1.5], "0.01": [1.2, 1.26]},
        "cosine_at_far": {"0.1": [0.25, 0.35], "0.01": [0.37, 0.4]},
    }
    lines = threshold_table({"orl": one_set(intervals=bounds), "few": one_set(intervals=None)}).splitlines()
    assert [" ".join(line.split()) for line in (*lines[2:5], lines[8])] == [
        "orl",
        "raw pixels 10 75.00 0.3000 0.2500 to 0.3500 1.4000 1.3000 to 1.5000",
        "raw pixels 1 50.00 0.3750 0.3700 to 0.4000 1.2500 1.2000 to 1.2600",
        "raw pixels 10 75.00 0.3000 – 1.4000 –",
    ]
    too_fine = "450 different pairs resolve no FAR of 0.1 % or below; 1000 resolve that"
    assert lines[12:] == [f"orl: {too_fine}", f"few: {too_fine}", ACCEPTED]


def test_pairs_of_one_kind_have_no_thresholds():
    none = dict.fromkeys(RESULT["tar_at_far"])
    one_kind = one_set(tar_at_far=none, threshold_at_far=none, cosine_at_far=none, unresolved_far=list(none))
    lines = threshold_table({"same": {**one_kind, "different_pairs": 0}}).splitlines()
    assert lines[2:] == [
        "same",
        "same: 0 different pairs resolve no FAR of 10 % or below; 10 resolve that",
        ACCEPTED,
    ]
