"""What a study's file asks of its results: columns, tables, claims; judged from results made by hand."""

import statistics

import pytest

from latse.errors import LatseError
from latse.study.study_claims import claim_table, judge, refuse_unknown_sets
from latse.study.study_columns import NAMES, column, curve
from latse.study.study_file import part, read_study
from latse.study.study_shown import Claim, Plot
from latse.study.study_table import changes, named_table

STUDY = """\
recipe: orl_teacher
seeds: [0, 1, 2]
noise: {flips: {mislabel: 0.2}}
rows:
  arc: {margin: {name: arcface, m2: 0.5}}
  arc-noisy: {margin: {name: arcface, m2: 0.5}, noise: flips}
  cos: {margin: {name: cosface}}
  plain:
"""
RESULT = {
    "asked": {"settings": {"filter": {"k": 2}}},
    "sets": {
        "a": {
            "accuracy": 0.9,
            "auc": 0.8,
            "eer": None,
            "tar_at_far": {"0.01": 0.5},
            "restoration": {"ssim": 0.7},
        },
        "b": {
            "accuracy": 0.7,
            "auc": 0.6,
            "eer": 0.1,
            "tar_at_far": {"0.01": None},
            "restoration": {"ssim": 0.5},
        },
    },
    "identification": {"sizes": {"9": {"rank_1": 0.9}, "100": {"rank_1": 0.4}}},
    "filter": {"truth": {"2": {"all": {"wrong_refused": 0.75, "right_refused": 0.25}}}},
    "metrics": {"kept": 0.8, "precision": 0.95, "recall": 0.9, "loss": 1.5},
    "cost": {"cpu_seconds": 90, "wall_seconds": 80, "peak_megabytes": 512.5},
    "faces": {"a": {"ssim": 0.4, "l1": 0.1}, "b": {"ssim": 0.2}},
    "truth": {"probes": {"age": {"r2": 0.123456}}},
}
EXPECTED = {
    "accuracy": "80.00",
    "accuracy on b": "70.00",
    "AUC": "70.00",
    "EER": "–",
    "EER on b": "10.00",
    "TAR@1%FAR on a": "50.00",
    "TAR@1%FAR": "–",
    "TAR@10%FAR on a": "–",
    "SSIM": "60.00",
    "SSIM on nothing": "–",
    "rank 1": "40.00",
    "rank 1 @9": "90.00",
    "rank 1 @8": "–",
    "kept": "80.00",
    "precision": "95.00",
    "recall": "90.00",
    "wrong refused": "75.00",
    "right refused": "25.00",
    "CPU minutes": "1.5",
    "peak MiB": "512",
    "truth/probes/age/r2": "0.1235",
    "sets/a/tar_at_far/0.01": "0.5",
    "sets/a": "–",
    "faces/*/ssim": "0.3",
    "faces/*/ssim on b": "0.2",
    "faces/*/l1": "–",
}


def results(**rows):
    """A result for each accuracy of a row on the sets a and b, by row and seed."""
    return {
        (row.replace("_", "-"), seed): {
            "sets": {"a": {"accuracy": accuracy + 0.05}, "b": {"accuracy": accuracy - 0.05}},
            "cost": {"cpu_seconds": 60 * accuracy},
        }
        for row, accuracies in rows.items()
        for seed, accuracy in enumerate(accuracies)
        if accuracy is not None
    }


@pytest.fixture
def read(tmp_path):
    """Read the study with something below it."""

    def read(text):
        (tmp_path / "study.yaml").write_text(STUDY + text)
        return read_study(tmp_path / "study.yaml")

    return read


@pytest.mark.parametrize(("name", "shown"), EXPECTED.items())
def test_a_column_is_a_figure_of_a_run(name, shown):
    one = column(name)
    assert one.shown(one.of(RESULT)) == shown
    empty = {"sets": {"a": {"accuracy": 0.5}, "b": {"accuracy": 0.5}}, "identification": None, "filter": None}
    assert one.shown(one.of(empty)) == ("50.00" if "accuracy" in name else "–")


def test_a_mean_goes_over_the_sets_that_are_asked_for():
    assert column("AUC", ["b"]).of(RESULT) == 0.6
    assert column("AUC", ["b", "a"]).of(RESULT) == pytest.approx(0.7)
    assert column("AUC", ["b", "c"]).of(RESULT) is None
    assert column("faces/*/l1", ["a"]).of(RESULT) == 0.1 and column("faces/*/l1").is_by_set
    for name in ("kept", "accuracy on a"):
        with pytest.raises(LatseError, match=f"the column '{name}' is no mean over sets of pairs"):
            column(name, ["a"])
    with pytest.raises(LatseError, match="there is no column 'acuracy': there are accuracy, "):
        column("acuracy")
    assert all(column(name).name == name for name in NAMES)


def test_a_curve_goes_over_the_iterations_or_the_stages_of_a_run():
    stages = {str(number): {"a": {"ssim": number / 1000}} for number in (1000, 250, 0)}
    found = {"curve": {"iteration": [1, 2, 3], "loss": [9.0, None, 7.0]}, "stages": {**stages, "x": {}}}
    assert curve("loss", found) == [(1, 9.0), (3, 7.0)]
    assert curve("stages/*/a/ssim", {**found, "metrics": {"iteration": 1500}}) == [
        (250, 0.25),
        (1000, 1.0),
        (1500, 0.0),
    ]
    for name in ("acuracy", "stages/*/b/ssim", "curve/*/a", "loss/*/a"):
        assert curve(name, found) == []
    assert curve("loss", {"curve": None}) == curve("stages/*/a/ssim", {}) == []


@pytest.mark.parametrize(
    ("differences", "interval", "verdict"),
    [
        # 0.02 ± 4.302653 · 0.01 / √3, Student's t for two degrees of freedom
        ([0.01, 0.02, 0.03], [-0.0048414, 0.0448414], "undecided"),
        ([0.03, 0.04, 0.05], [0.0151586, 0.0648414], "holds"),
        ([-0.05, -0.03, -0.04], [-0.0648414, -0.0151586], "does not hold"),
        ([0.04], None, "undecided"),
    ],
)
def test_a_claim_holds_if_the_interval_of_its_effect_says_so(differences, interval, verdict):
    found = results(x=[0.55 + gain for gain in differences], y=[0.55] * len(differences))
    for result in (result for (row, _), result in found.items() if row == "x"):
        result["sets"]["a"]["accuracy"] += 0.01  # the mean over the sets counts
        result["sets"]["b"]["accuracy"] -= 0.01
    judged = judge(Claim(("x", "y")), found)
    effect = statistics.fmean(differences)
    assert judged["effect"] == pytest.approx(effect)
    assert judged["interval"] == (interval and pytest.approx(interval, abs=1e-6))
    assert (judged["verdict"], judged["seeds"]) == (verdict, len(differences))
    assert judged["sets"] == pytest.approx({"a": effect + 0.01, "b": effect - 0.01})
    head, row = claim_table({"it helps": {**Claim(("x", "y")).as_dict(), **judged}})
    assert head == ["claim", "verdict", "by", "effect", "95 % interval", "seeds", "a", "b"]
    written = "–" if interval is None else "{:+.2f} to {:+.2f}".format(*(100 * bound for bound in interval))
    assert row[:6] == [
        "it helps",
        verdict,
        "accuracy",
        f"{100 * effect:+.2f}",
        written,
        str(len(differences)),
    ]


def test_the_sets_of_a_claim_are_told_apart_by_name():
    """The results of other seeds may have them in another order: the study went on with other --pairs."""
    x = [{"a": 0.6, "b": 0.7}, {"b": 0.7, "a": 0.6}]
    y = [{"a": 0.5, "b": 0.5}, {"a": 0.5, "b": 0.5}]
    found = {
        (row, seed): {"sets": {title: {"accuracy": value} for title, value in sets.items()}}
        for row, seeds in {"x": x, "y": y}.items()
        for seed, sets in enumerate(seeds)
    }
    assert judge(Claim(("x", "y")), found)["sets"] == pytest.approx({"a": 0.1, "b": 0.2})
    only = judge(Claim(("x", "y"), sets=("b",)), found)
    assert (only["effect"], only["sets"]) == (pytest.approx(0.2), pytest.approx({"b": 0.2}))


def test_a_gain_is_compared_with_another_gain():
    found = results(a=[0.9, 0.92, 0.95], b=[0.8, 0.8, 0.8], c=[0.7, 0.71, 0.7], d=[0.69, 0.69, 0.69])
    judged = judge(Claim(("a", "b"), ("c", "d")), found)
    expected = [0.1 - 0.01, 0.12 - 0.02, 0.15 - 0.01]
    assert judged["effect"] == pytest.approx(statistics.fmean(expected))
    half = 4.302653 * statistics.stdev(expected) / 3**0.5
    assert judged["interval"][1] == pytest.approx(judged["effect"] + half, abs=1e-6)
    assert judged["verdict"] == "holds"


def test_a_claim_goes_by_the_seeds_that_all_its_rows_have():
    found = results(x=[0.6, 0.7, None], y=[None, 0.5, 0.6])
    judged = judge(Claim(("x", "y")), found)
    assert (judged["seeds"], judged["effect"], judged["interval"]) == (1, pytest.approx(0.2), None)
    nothing = judge(Claim(("x", "z")), found)
    assert (nothing["seeds"], nothing["effect"], nothing["verdict"]) == (0, None, "undecided")
    assert claim_table({"s": {**Claim(("x", "z")).as_dict(), **nothing}})[1][3:6] == ["–", "–", "0"]
    assert judge(Claim(("x", "y")), {})["seeds"] == 0


def test_less_is_better_of_what_costs():
    found = results(x=[0.5, 0.51, 0.52], y=[0.9, 0.91, 0.93])
    judged = judge(Claim(("x", "y"), by="CPU minutes"), found)
    assert judged["effect"] < 0 and judged["verdict"] == "holds" and judged["sets"] == {}
    cells = claim_table({"s": {**Claim(("x", "y"), by="CPU minutes").as_dict(), **judged}})[1]
    assert cells[2:4] == ["CPU minutes", "-0.4"]
    assert judge(Claim(("y", "x"), by="CPU minutes"), found)["verdict"] == "does not hold"


def test_a_table_shows_its_rows_and_what_they_change(read):
    study = read(
        "tables:\n"
        "  margins: {rows: [plain, 'arc*'], columns: [accuracy, accuracy on *, CPU minutes], base: arc}\n"
        "  default: {rows: [cos]}\n"
        "  headed: {rows: [cos], columns: {first: accuracy on a}, base: cos}\n"
    )
    found = results(arc=[0.8, 0.82, 0.84], arc_noisy=[0.7, 0.74, 0.72], cos=[0.6, 0.6, 0.6])
    cells = named_table(study, study.tables["margins"], found)
    assert cells == [
        ["", "what it changes", "accuracy, %", "accuracy on a, %", "accuracy on b, %", "CPU minutes"]
        + ["accuracy above arc", "seeds"],
        [
            "plain",
            "margin.name as in the recipe, margin.m2 as in the recipe",
            "–",
            "–",
            "–",
            "–",
            "–",
            "0 of 3",
        ],
        ["arc", "margin.name: arcface, margin.m2: 0.5", "82.00 ± 2.00", "87.00 ± 2.00", "77.00 ± 2.00"]
        + ["0.8 ± 0.0", "–", "3 of 3"],
        ["arc-noisy", "noise: flips", "72.00 ± 2.00", "77.00 ± 2.00", "67.00 ± 2.00", "0.7 ± 0.0"]
        + ["-10.00 (-14.97 to -5.03)", "3 of 3"],
    ]
    default = named_table(study, study.tables["default"], found)
    assert default[0] == ["", "what it changes", "accuracy, %", "CPU minutes"]
    headed = named_table(study, study.tables["headed"], {("cos", 1): found["cos", 1]})
    assert headed == [
        ["", "what it changes", "first", "first above cos", "seeds"],
        ["cos", "margin.name: cosface", "65.00", "–", "1 of 3"],
    ]
    assert changes(study.rows["plain"]) == "–"


def test_means_go_over_the_sets_that_the_study_names(read):
    study = read(
        "means: [b]\n"
        "tables: {both: {rows: [arc, cos], columns: [accuracy, accuracy on *, CPU minutes], base: cos}}\n"
        "claims:\n"
        "  x: [arc, cos]\n"
        "  y: {better: arc, than: cos, sets: [a]}\n"
        "  z: {better: arc, than: cos, by: rank 1}\n"
        "plots: {dots: {rows: [arc], dots: accuracy}}\n"
    )
    found = results(arc=[0.8, 0.82, 0.84], cos=[0.6, 0.6, 0.6])
    for result in (result for (row, _), result in found.items() if row == "arc"):
        result["sets"]["a"]["accuracy"] = 0.5
    cells = named_table(study, study.tables["both"], found)
    assert [row[2] for row in cells] == ["accuracy, %", "77.00 ± 2.00", "55.00 ± 0.00"]
    assert cells[1][3] == "50.00 ± 0.00" and cells[1][6].startswith("+22.00 (")
    effects = {said: judge(claim, found)["effect"] for said, claim in study.claims.items()}
    assert effects == {"x": pytest.approx(0.22), "y": pytest.approx(-0.15), "z": None}
    assert study.plots["dots"].sets == ("b",)
    with pytest.raises(LatseError, match="means is 3, must be a list of sets of pairs"):
        read("means: 3\n")


def test_some_rows_of_a_study_are_shown_without_the_others(read):
    study = read(
        "tables: {both: {rows: ['*'], base: plain}, none: {rows: [arc]}}\n"
        "claims: {a: [cos, plain], b: {gain: [cos, plain], over: [arc, plain]}, c: [arc, plain]}\n"
        "plots: {one: {rows: ['*'], dots: accuracy}}\n"
    )
    some = part(study, ["cos"], [4])
    assert ([*some.rows], some.order, some.seeds) == (["cos"], ["cos"], [4])
    assert [*some.tables] == ["both"] and not some.claims
    cells = named_table(some, some.tables["both"], {("cos", 4): results(cos=[0.6])["cos", 0]})
    assert [row[0] for row in cells] == ["", "cos"] and "above" not in " ".join(cells[0])
    assert [*part(study, ["cos", "plain"], None).claims] == ["a"]
    assert part(study, None, None) == study


def test_claims_tables_and_plots_are_read(read):
    study = read(
        "claims:\n"
        "  short: [arc, cos]\n"
        "  long: {better: arc, than: cos, by: AUC, sets: [a]}\n"
        "  shrinks: {gain: [arc, cos], over: [arc-noisy, plain]}\n"
        "plots: {one: {rows: [cos, '*'], dots: accuracy}, two: {rows: [cos], scatter: [recall, precision]},"
        " three: {rows: [cos], curve: loss}}\n"
    )
    assert [*study.claims.values()] == [
        Claim(("arc", "cos")),
        Claim(("arc", "cos"), None, "AUC", ("a",)),
        Claim(("arc", "cos"), ("arc-noisy", "plain")),
    ]
    assert [*study.plots.values()] == [
        Plot(("cos", "arc", "arc-noisy", "plain"), "dots", ("accuracy",)),
        Plot(("cos",), "scatter", ("recall", "precision")),
        Plot(("cos",), "curve", ("loss",)),
    ]
    with pytest.raises(LatseError, match="the claim 'long' is of the set a; there are b, c"):
        refuse_unknown_sets(study.claims, ["b", "c"])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "claims: {a: {better: arc}}",
            "the claim 'a: {better: arc}' must be two rows, the better one first, or",
        ),
        ("claims: {a: {better: arc, than: arc}}", "must name two rows, the better one first"),
        ("claims: {a: {gain: [arc, cos], over: [arc]}}", "the better one first, in gain and in over"),
        (
            "claims: {a: {better: arc, than: cos, by: speed}}",
            "there is no column 'speed': there are accuracy",
        ),
        ("claims: {a: {better: arc, than: cos, by: [1]}}", "[1] is no column, which is a text"),
        ("claims: {a: {better: arc, than: cos, sets: b}}", "must have a list of sets of pairs in sets"),
        ("claims: {a: {better: arc, than: cos, sets: [b], by: kept}}", "is no mean over sets of pairs"),
        ("claims: {a: {better: arc, than: cos, on: b}}", "must be two rows, the better one first, or"),
        ("tables: [a]", "study.yaml: tables is [a], must be names with rows each"),
        ("tables: {a: {}}", "the table 'a': rows is null, must be a list of rows"),
        (
            "tables: {a: {rows: [arc], column: [AUC]}}",
            "must be named like a file and hold base, columns, rows",
        ),
        ("tables: {a b: {rows: [arc]}}", "tables: 'a b: {rows: [arc]}' must be named like a file"),
        ("tables: {a: {rows: [ark]}}", "the table 'a': rows names ark, which is no row"),
        (
            "tables: {a: {rows: [arc], columns: []}}",
            "the table 'a': columns is [], must be a list of columns",
        ),
        (
            "tables: {a: {rows: [arc], columns: [1]}}",
            "the table 'a': columns is [1], must be a list of columns",
        ),
        ("tables: {a: {rows: [arc], columns: {b: 1}}}", "the table 'a': 1 is no column, which is a text"),
        ("tables: {a: {rows: [arc], columns: [b]}}", "the table 'a': there is no column 'b': there are"),
        (
            "tables: {a: {rows: [arc], base: cos}}",
            "the table 'a' has the base cos, which is none of its rows",
        ),
        ("plots: 3", "study.yaml: plots is 3, must be names with rows each"),
        ("plots: {a: {rows: [arc]}}", "the plot 'a' must have one of dots: COLUMN, scatter:"),
        ("plots: {a: {rows: [arc], dots: AUC, curve: loss}}", "the plot 'a' must have one of dots: COLUMN"),
        ("plots: {a: {rows: [arc], scatter: [AUC]}}", "the plot 'a' must have one of dots: COLUMN, scatter:"),
        ("plots: {a: {rows: [arc], dots: b}}", "the plot 'a': there is no column 'b': there are"),
        ("plots: {a: {dots: AUC}}", "the plot 'a': rows is null, must be a list of rows"),
    ],
)
def test_what_is_asked_wrongly_is_one_sentence(read, text, sentence):
    with pytest.raises(LatseError) as error:
        read(text)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)
