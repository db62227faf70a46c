"""`latse study`: rows × seeds as the commands train and judge them, resumed, refused, and laid out."""

import json
import statistics
from pathlib import Path

import pytest
import yaml

from latse import recipe as recipes
from latse.cli import main
from latse.paper import study_command as study
from latse.symbols.margins import MARGINS
from latse.text_table import markdown

STUDIES = Path(__file__).parents[2] / "recipes" / "studies"
RECIPE = """\
encoder: {name: resnet_tiny}
train: {batch_size: 4, iterations: 3, checkpoint_every: 2, log_every: 1}
schedule: {mode: constant, learning_rate: 0.01}
"""
STUDY = """\
recipe: tiny.yaml
seeds: [0, 1]
rows:
  line: {}
  cos-0.2: {margin: {name: cosface, m3: 0.2}}
"""


@pytest.fixture(scope="module")
def study_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    (folder / "tiny.yaml").write_text(RECIPE)
    (folder / "two.yaml").write_text(STUDY)
    return folder / "two.yaml"


@pytest.fixture(scope="module")
def run_study(study_file, people, pairs_file):
    """Run `latse study` with two iterations, one run at a time, and return its exit status."""

    def run(out, *arguments, file=study_file, pairs=pairs_file):
        places = "--data", people, "--pairs", pairs, "--out", out
        settings = "--jobs", 1, "--set", "train.iterations=2"
        return main(["study", *map(str, [file, *places, *settings, *arguments])])

    return run


@pytest.fixture(scope="module")
def finished(run_study, tmp_path_factory, one_process):
    """The folder of the finished study."""
    out = tmp_path_factory.mktemp("out")
    with one_process():
        assert run_study(out) == 0
    return out


def runs(out):
    return [out / row / f"seed-{seed}" for row in ("line", "cos-0.2") for seed in (0, 1)]


def times(out):
    """When the model and the judgement of each run were written, by file."""
    files = [file for run in runs(out) for file in (run / "model-0000.params", *run.glob("verification-*"))]
    return {file: file.stat().st_mtime_ns for file in files}


@pytest.mark.slow
def test_every_row_is_trained_with_every_seed(finished):
    for run in runs(finished):
        record = json.loads((run / "run.json").read_text())
        name, seed = run.parent.name, int(run.name[-1])
        assert (record["recipe"], record["seed"]) == (name, seed)
        assert record["settings"]["train"]["iterations"] == 2
        margin = record["settings"]["margin"]
        assert (margin["name"], margin.get("m3")) == {
            "line": ("linearface", None),
            "cos-0.2": ("cosface", 0.2),
        }[name]


@pytest.mark.slow
def test_the_report_is_that_of_the_judgements(finished, pairs_file):
    report = json.loads((finished / "study.json").read_text())
    assert (report["study"], report["recipe"], report["pairs"]) == ("two", "tiny", str(pairs_file))
    assert list(report["rows"]) == ["line", "cos-0.2"]
    assert [report["rows"][row]["changes"] for row in report["rows"]] == [
        {},
        {"margin": {"name": "cosface", "m3": 0.2}},
    ]
    for name, row in report["rows"].items():
        judged = []
        for seed in (0, 1):
            (file,) = (finished / name / f"seed-{seed}").glob("verification-*.json")
            judged.append(json.loads(file.read_text())["sets"]["people"]["results"])
            for title in ("model", "untrained"):
                assert judged[-1][title].pop("roc") and judged[-1][title].pop("histogram")
            assert row["seeds"][str(seed)] == judged[seed]
        for title, values in (
            ("accuracy", [one["model"]["accuracy"] for one in judged]),
            ("TAR@1%FAR", [one["model"]["tar_at_far"]["0.01"] for one in judged]),
            ("AUC", [one["model"]["auc"] for one in judged]),
            ("untrained accuracy", [one["untrained"]["accuracy"] for one in judged]),
        ):
            first, second = values
            assert row[title]["mean"] == pytest.approx((first + second) / 2)
            assert row[title]["std"] == pytest.approx(abs(first - second) / 2**0.5)
        assert row["SSIM"] is None
    cells = study.table(report["rows"])
    assert cells[0] == ["", "accuracy", "TAR@1%FAR", "AUC", "untrained accuracy"]
    assert (finished / "table.md").read_text() == markdown(cells) + "\n"


def test_the_table_has_the_likeness_of_faces_where_there_is_a_decoder():
    figures = dict.fromkeys(study.COLUMNS, {"mean": 0.5, "std": 0.01})
    rows = {"plain": {**figures, "SSIM": None}, "faces": {**figures, "SSIM": {"mean": 0.75, "std": 0.02}}}
    cells = study.table(rows)
    column = cells[0].index("SSIM")
    assert [row[column] for row in cells[1:]] == ["–", "75.00 ± 2.00"]
    judged = {seed: {"model": {"restoration": {"ssim": ssim}}} for seed, ssim in enumerate((0.7, 0.8))}
    assert study._summary(judged, study.COLUMNS["SSIM"])["mean"] == pytest.approx(0.75)
    judged[2] = {"model": {"restoration": None}}
    assert study._summary(judged, study.COLUMNS["SSIM"]) is None


@pytest.mark.slow
def test_a_second_time_only_what_is_missing_is_done(finished, run_study, capsys, one_process):
    before = times(finished)
    assert len(before) == 8
    table = (finished / "table.md").read_text()
    (lost,) = runs(finished)[3].glob("verification-*.json")
    lost.unlink()
    with one_process():
        assert run_study(finished) == 0
    after = times(finished)
    assert {file for file in after if after[file] != before[file]} == {lost}
    assert (finished / "table.md").read_text() == table
    lines = capsys.readouterr().out.splitlines()
    older, *_ = runs(finished)[0].glob("verification-*.json")
    older.write_text('{"people": {"accuracy": 0.5}}')  # as written before there were several models
    with one_process():
        assert run_study(finished) == 0
    assert json.loads(older.read_text())["kind"] == "verification"
    assert (finished / "table.md").read_text() == table
    assert lines[0] == "people: mean ± standard deviation over 2 seeds"
    assert [line.split()[0] for line in lines[3:]] == ["line", "cos-0.2"]


def test_the_sentence_of_a_run_that_fails(run_study, study_file, tmp_path, capsys):
    """It names row and seed, ends the study, and leaves no table."""
    file = study_file.with_name("wrong.yaml")
    file.write_text("recipe: tiny.yaml\nseeds: [4, 5]\nrows: {many: {train: {kvstore: nccl}}, line: {}}")
    assert run_study(tmp_path, file=file) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error == "latse: many, seed 4: train.kvstore nccl needs the GPU build: make setup GPU=1"
    assert not (tmp_path / "study.json").exists() and not (tmp_path / "table.md").exists()


@pytest.mark.parametrize("other", ["settings", "changes"])
def test_a_run_that_began_otherwise_is_refused(run_study, tiny, tmp_path, capsys, other):
    """`latse train --resume` would go on with it; a row would be what no recipe says."""
    folder = tmp_path / "line" / "seed-1"
    folder.mkdir(parents=True)
    recipe = recipes.load(tiny, ["train.iterations=3" if other == "settings" else "train.iterations=2"])
    change = {"iteration": 1, "key": "train.log_every", "from": 2, "to": 1}
    record = {"settings": recipes.as_dict(recipe), "changes": [change] if other == "changes" else []}
    (folder / "run.json").write_text(json.dumps(record))
    assert run_study(tmp_path) == 1
    sentence = f"latse: {folder} holds a run that began with other settings: choose another --out"
    assert capsys.readouterr().err.strip() == sentence


def test_a_wrong_row_is_refused_before_any_is_trained(run_study, study_file, tmp_path, capsys):
    file = study_file.with_name("wrong.yaml")
    rows = "{line: {}, cos: {margin: {name: cosface, m5: 1}}}"
    file.write_text(f"recipe: tiny.yaml\nseeds: [4]\nrows: {rows}")
    assert run_study(tmp_path, file=file) == 1
    sentence = "margin.m5: the margin 'cosface' has no parameter 'm5'; it has s, m3"
    assert capsys.readouterr().err == f"latse: {tmp_path / 'cos' / 'cos.yaml'}: {sentence}\n"
    assert not list(tmp_path.rglob("seed-*"))


@pytest.fixture
def refused(run_study, tmp_path, capsys):
    """Run a study that fails before anything is made, and return its sentence."""

    def refused(text, *arguments, **places):
        file = tmp_path / "study.yaml"
        file.write_text(text)
        assert run_study(tmp_path / "out", *arguments, file=file, **places) == 1
        assert not (tmp_path / "out").exists()
        return capsys.readouterr().err.strip()

    return refused


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("rows: [", "study.yaml is not YAML: line 1: "),
        ("- 1", "study.yaml must hold the keys recipe, seeds and rows, and no others"),
        ("recipe: a.yaml\nrows: {a: {}}", "study.yaml must hold the keys recipe, seeds and rows"),
        (STUDY + "sedes: [0]", "study.yaml must hold the keys recipe, seeds and rows, and no others"),
        (
            STUDY.replace("[0, 1]", "[]"),
            "study.yaml: seeds is [], must be a list of whole numbers from 0 to 2147483647",
        ),
        (
            STUDY.replace("[0, 1]", "3"),
            "study.yaml: seeds is 3, must be a list of whole numbers from 0 to 2147483647",
        ),
        (STUDY.replace("[0, 1]", "[2, 2]"), "study.yaml: seeds is [2, 2], must name each seed once"),
        (
            STUDY.replace("[0, 1]", "[0, -1]"),
            "study.yaml: seeds is [0, -1], must be a list of whole numbers from 0 to 2147483647",
        ),
        (
            STUDY.replace("[0, 1]", "[0.5]"),
            "study.yaml: seeds is [0.5], must be a list of whole numbers from 0 to 2147483647",
        ),
        (
            STUDY.replace("[0, 1]", "[true]"),
            "study.yaml: seeds is [true], must be a list of whole numbers from 0 to 2147483647",
        ),
        ("recipe: a.yaml\nseeds: [0]\nrows: {}", "study.yaml: rows is {}, must hold at least one row"),
        ("recipe: a.yaml\nseeds: [0]\nrows: [a]", "study.yaml: rows is [a], must hold at least one row"),
        ("recipe: [a]\nseeds: [0]\nrows: {a: {}}", "study.yaml: recipe is [a], must be the name or the file"),
        (STUDY.replace("line: {}", "null: 3"), "study.yaml: the row 'null' must be named like a file"),
        (STUDY.replace("line:", "../line:"), "study.yaml: the row '../line' must be named like a file"),
        (STUDY.replace("line: {}", "line: 3"), "study.yaml: the row 'line' must be named like a file"),
    ],
)
def test_a_malformed_study_is_one_sentence(refused, text, sentence):
    assert sentence in refused(text)


def test_what_is_missing_is_named_before_anything_is_done(refused, run_study, tmp_path, capsys):
    assert run_study(tmp_path / "out", file=tmp_path / "none.yaml") == 1
    hint = "there is no such file; `latse recipes` lists those that go by name"
    assert f"cannot read the study {tmp_path / 'none.yaml'}: {hint}\n" in capsys.readouterr().err
    assert run_study(tmp_path / "out", file="orl_loses") == 1
    assert "by name; did you mean orl_losses?\n" in capsys.readouterr().err
    nobody = tmp_path / "nobody.bin"
    assert refused(STUDY, pairs=nobody).startswith(f"latse: cannot read {nobody}: No such file")
    assert refused(STUDY, "--jobs", 0) == "latse: --jobs is 0, must be at least 1"


def test_a_row_that_changes_nothing_may_be_left_empty(tmp_path):
    file = tmp_path / "study.yaml"
    file.write_text("recipe: ../a.yaml\nseeds: [3]\nrows: {plain: , 1.5: {train: {batch_size: 2}}}")
    found = study.read_study(file)
    assert found == study.Study(
        tmp_path / "../a.yaml", [3], {"plain": {}, "1.5": {"train": {"batch_size": 2}}}
    )


def test_the_table_is_in_percent():
    values = {0: 0.5, 1: 0.75, 2: 0.625}
    results = {
        seed: {
            "model": {"accuracy": value, "tar_at_far": {"0.01": value / 2}, "auc": 1.0},
            "untrained": {"accuracy": 0.25},
        }
        for seed, value in values.items()
    }
    row = {title: study._summary(results, path) for title, path in study.COLUMNS.items()}
    deviation = 100 * statistics.stdev(values.values())
    head, cells = study.table({"linear": row})
    assert head == ["", "accuracy", "TAR@1%FAR", "AUC", "untrained accuracy"]
    assert cells == [
        "linear",
        f"62.50 ± {deviation:.2f}",
        f"31.25 ± {deviation / 2:.2f}",
        "100.00 ± 0.00",
        "25.00 ± 0.00",
    ]
    assert study._summary({0: results[0]}, ("model", "accuracy")) == {"mean": 0.5, "std": 0.0}


@pytest.mark.parametrize("name", ["orl_losses", "orl_settings"])
def test_the_shipped_studies_change_recipes_that_are_there(name):
    """Each row of them is a recipe without mistakes, and no two rows are the same."""
    found = study.read_study(STUDIES / f"{name}.yaml")
    assert found.recipe.resolve() == STUDIES.parent / "orl_teacher.yaml"
    assert found.seeds == [0, 1, 2]
    settings = []
    for changes in found.rows.values():
        overrides = [
            f"{section}.{key}={yaml.safe_dump(value, default_flow_style=True)}"
            for section, values in changes.items()
            for key, value in values.items()
        ]
        settings.append(recipes.as_dict(recipes.load(found.recipe, overrides)))
    assert all(settings.count(one) == 1 for one in settings)


def test_every_loss_is_in_the_study_of_losses():
    rows = study.read_study(STUDIES / "orl_losses.yaml").rows
    assert {row["margin"]["name"] for row in rows.values()} == set(MARGINS)
