"""`latse study-page`: what a study found, between the markers of a page, from results made by hand."""

import json
import re
import shutil
from pathlib import Path

import pytest

from latse.cli import main
from latse.study.study_file import read_study
from latse.study.study_page import Page
from latse.study.study_reading import read_results

ROOT = Path(__file__).parents[2]
STUDY = """\
recipe: orl_teacher
seeds: [0, 1, 2]
noise: {flips: {mislabel: 0.2}}
rows:
  arc: {margin: {name: arcface, m2: 5e-1}}
  noisy: {noise: flips}
  filtered: {noise: flips, teacher: arc, filter: {k: 1}}
  plain:
tables:
  both: {rows: [arc, plain], columns: [accuracy]}
claims:
  "it | <b>helps</b>": [arc, plain]
  filters: [filtered, noisy]
plots:
  dots: {rows: ["*"], dots: accuracy}
  kept: {rows: [noisy, filtered], scatter: [recall, precision]}
  curves: {rows: [arc, noisy], curve: loss}
  none: {rows: [plain], dots: AUC}
"""
MARKED = """\
# By hand

<!-- study: table both --><!-- end -->
Between.
<!-- study: claims both -->
what was there before
<!-- end -->
<!-- study: compute total --><!-- end -->
<!-- study: missing --><!-- end -->
<!-- study: plot dots --><!-- end -->
<!-- study: plot kept --><!-- end -->
<!-- study: plot curves --><!-- end -->
<!-- study: plot none --><!-- end -->

The end, $x$ and all.
"""
ACCURACY = {"arc": 0.9, "noisy": 0.7, "filtered": 0.8}


def result(row, seed):
    """What `latse study` leaves of a run."""
    is_noisy = row != "arc"
    asked = {
        "row": row,
        "seed": seed,
        "settings": {
            "margin": {"name": "arcface", "m2": 0.5},
            "filter": {"k": 1 if row == "filtered" else None},
        },
        "data": "d",
        "noise": {"mislabel": 0.2} if is_noisy else None,
        "teacher": {"row": "arc", "seed": seed} if row == "filtered" else None,
        "start": None,
        "pairs": {"a": {}},
        "identification": None,
    }
    truth = {"precision": 0.8 + seed / 100, "recall": 0.9} if is_noisy else {}
    return {
        "asked": asked,
        "sets": {"a": {"accuracy": ACCURACY[row] + seed / 100}},
        "identification": None,
        "metrics": {"loss": 1, **truth},
        "curve": {"iteration": [1, 2, 3], "loss": [3.0, None, 1.0 + seed]},
        "cost": {"cpu_seconds": 1800.0, "wall_seconds": 900.0, "peak_megabytes": 400.0 + seed},
    }


@pytest.fixture
def write(tmp_path):
    """Run the command on a page with a text; return its status."""

    def write(text=MARKED, *arguments):
        (tmp_path / "study.yaml").write_text(STUDY)
        (tmp_path / "page.md").write_text(text)
        return again(tmp_path, *arguments)

    for row in ACCURACY:
        for seed in range(3):
            path = tmp_path / "results" / row / f"seed-{seed}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(result(row, seed)))
    return write


def again(folder, *arguments):
    words = folder / "study.yaml", "--results", folder / "results", "--page", folder / "page.md", *arguments
    return main(["study-page", *map(str, words)])


def test_the_page_says_what_the_results_say(write, tmp_path, capsys):
    assert write() == 0
    page = (tmp_path / "page.md").read_text()
    assert capsys.readouterr().out.split() == [
        *(str(tmp_path / "pictures" / f"{name}.svg") for name in ("dots", "kept", "curves")),
        str(tmp_path / "page.md"),
    ]
    assert page.startswith(
        "# By hand\n\n<!-- study: table both -->\n\n"
        "|  | what it changes | accuracy, % | seeds |\n| --- | --- | ---: | ---: |\n"
        "| arc | margin.name: arcface, margin.m2: 5e-1 | 91.00 ± 1.00 | 3 of 3 |\n"
        "| plain | – | – | 0 of 3 |\n\n<!-- end -->\nBetween.\n"
    )
    assert "| it \\| &lt;b>helps&lt;/b> | undecided | accuracy | – | – | 0 | – |\n" in page
    assert "what was there before" not in page and "filters" not in page
    assert "\n9 runs: 4.5 CPU hours of training, 2.2 by the clock; the largest took 402 MiB.\n" in page
    assert "\n9 of 12 runs have results. Missing:\n\n- plain: seed 0, 1, 2\n" in page
    assert "\n![dots: dots of accuracy](pictures/dots.svg)\n" in page
    assert page.count("No run of this plot has a result yet.") == 1
    assert page.endswith("<!-- end -->\n\nThe end, $x$ and all.\n")
    for prose in re.split(r"<!-- study.*?end -->", MARKED, flags=re.DOTALL):
        assert prose in page


def test_a_second_time_the_same_bytes_are_written(write, tmp_path):
    assert write() == 0
    files = [tmp_path / "page.md", *sorted((tmp_path / "pictures").iterdir())]
    before = [file.read_bytes() for file in files]
    assert len(files) == 4 and all(len(content) < 100_000 for content in before)
    assert again(tmp_path) == 0
    assert [file.read_bytes() for file in files] == before


def test_any_results_make_a_page(write, tmp_path):
    shutil.rmtree(tmp_path / "results" / "noisy")
    assert write() == 0
    (tmp_path / "results" / "arc" / "seed-2.json").unlink()
    other = json.loads((tmp_path / "results" / "arc" / "seed-0.json").read_text())
    for key in ("curve", "cost", "metrics", "identification"):
        del other[key]
    (tmp_path / "results" / "arc" / "seed-0.json").write_text(json.dumps(other))
    assert write() == 0
    assert "| 2 of 3 |" in (tmp_path / "page.md").read_text()
    shutil.rmtree(tmp_path / "results")
    (tmp_path / "results").mkdir()
    assert write(MARKED, "--pictures", str(tmp_path / "other")) == 0
    page = (tmp_path / "page.md").read_text()
    assert "0 of 12 runs" in page and "No result says what its training cost." in page
    assert page.count("No run of this plot has a result yet.") == 4 and not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "a\n<!-- study: tables both --><!-- end -->",
            "page.md, line 2: `study: tables both` is no marker: there",
        ),
        (
            "<!-- study: table --><!-- end -->",
            "page.md, line 1: `study: table` is no marker: there are table",
        ),
        (
            "<!-- study: table x --><!-- end -->",
            "page.md, line 1: the study has no table 'x'; there are both",
        ),
        (
            "<!-- study: claims x --><!-- end -->",
            "page.md, line 1: the study has no table 'x'; there are both",
        ),
        (
            "<!-- study: plot x --><!-- end -->",
            "page.md, line 1: the study has no plot 'x'; there are dots, ",
        ),
        (MARKED.replace("<!-- end -->", "", 1), "page.md, line 3: `study: table both` has no <!-- end -->"),
        (MARKED + "<!-- study: missing -->", "`study: missing` has no <!-- end -->"),
        (MARKED + "\n<!-- end -->", "page.md, line 17: <!-- end --> ends nothing"),
        ("# By hand", "page.md has no marker <!-- study: … -->: there are table NAME"),
    ],
)
def test_a_wrong_page_is_one_sentence_and_stays(write, tmp_path, capsys, text, sentence):
    assert write(text) == 1
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1
    assert (tmp_path / "page.md").read_text() == text and not (tmp_path / "pictures").exists()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda one: one["asked"].update(data="e"), "is of a run with other data than "),
        (lambda one: one["asked"].update(pairs={}), "is of a run with other pairs than "),
        (lambda one: one["asked"].update(seed=5), "is of a run with other seed than the study's row"),
        (lambda one: one["asked"].update(noise=None), "is of a run with other noise than the study's row"),
        (lambda one: one["asked"].update(teacher=None), "with other teacher than the study's row"),
        (lambda one: one["asked"]["settings"]["filter"].update(k=2), "with other filter.k than the study's"),
        (lambda one: one["asked"]["settings"].update(train={"iterations": 3}), "with other train than "),
        (lambda one: one.update(sets={}), "sets is {}, must be an object with at least 1 key"),
        (lambda one: one.update(curve={"loss": 3}), "curve.loss is 3, must be a list"),
    ],
)
def test_a_result_that_does_not_fit_is_refused(write, tmp_path, capsys, change, sentence):
    path = tmp_path / "results" / "filtered" / "seed-1.json"
    one = result("filtered", 1)
    change(one)
    path.write_text(json.dumps(one))
    assert write() == 1
    error = capsys.readouterr().err
    assert error.startswith(f"latse: {path}") and sentence in error
    assert (tmp_path / "page.md").read_text() == MARKED


def test_a_folder_that_is_not_there_is_no_empty_one(write, tmp_path, capsys):
    shutil.rmtree(tmp_path / "results")
    assert write() == 1
    assert f"there is no folder {tmp_path / 'results'} of results" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "page", "results"),
    [
        ("paper", "study", "results"),
        ("paper_settings", "study_settings", "settings"),
        ("paper_open", "study_open", "open"),
    ],
)
def test_the_page_of_a_study_is_what_its_results_say(name, page, results):
    page, folder = ROOT / "docs" / f"{page}.md", ROOT / "docs" / "study"
    study = read_study(name)
    shown = Page(study, read_results(study, folder / results), folder / "pictures", page.parent)
    text = page.read_text()
    assert shown.filled(text, page.name) == text, "make study-page"
    assert all(path.exists() for path in shown.plots.values())
