"""`latse study`: rows × seeds as the commands train and judge them, resumed, refused, and laid out."""

import json
import shutil
import statistics
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from latse import recipe as recipes
from latse.cli import main
from latse.data.pairs.pairs import people_path, write_people
from latse.data.shards import verdict_file
from latse.data.shards.noise import CLEAN, add_noise, read_truth
from latse.data.shards.records import Shard
from latse.data.shards.shard_writer import write_shard
from latse.errors import LatseError
from latse.eval.figures import read_metrics
from latse.files import digest, digest_of, locked, make_folder
from latse.study import study_command, study_result, study_table
from latse.study.study_file import Row, Study, read_study
from latse.study.study_reading import read_results
from latse.study.study_run import Run
from latse.study.study_table import summary, tables
from latse.symbols.margins import MARGINS
from latse.text_table import markdown
from latse.train import run_record
from latse.train.metrics import COSTS

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
TITLE = "people: mean ± standard deviation over 2 seeds"
WHOLE = """\
recipe: tiny.yaml
seeds: [3]
noise: {flips: {mislabel: 0.25}}
rows:
  goes-on: {start: clean, margin: {name: cosface}}
  of-clean: {noise: flips, teacher: clean, filter: {k: 1}}
  of-pixels: {noise: flips, teacher: {model: pixels, centres: means}, filter: {k: 1}}
  of-file: {teacher: {model: features.npy, centres: means}, filter: {k: 1}}
  faces: {decoder: {enabled: true, widths: [2, 2, 2, 2]}}
  clean: {}
"""
TAUGHT = """\
recipe: tiny.yaml
seeds: [0, 1]
noise: {flips: {mislabel: 0.25}}
rows:
  pupil: {noise: flips, teacher: noisy, filter: {k: 2}}
  clean: {}
  noisy: {noise: flips}
claims:
  noise harms: [clean, noisy]
"""


@pytest.fixture(scope="module")
def study_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    (folder / "tiny.yaml").write_text(RECIPE)
    (folder / "two.yaml").write_text(STUDY)
    return folder / "two.yaml"


@pytest.fixture(scope="module")
def run_study(study_file, small_encoder, people, pairs_file):
    """Run `latse study` with two iterations, one run at a time, and return its exit status."""

    def run(out, *arguments, file=study_file, pairs=(pairs_file,)):
        places = "--data", people, "--pairs", *pairs, "--out", out
        settings = "--set", "train.iterations=2", "--set", f"encoder.name={small_encoder}"
        return main(["study", *map(str, [file, *places, "--jobs", 1, *settings, *arguments])])

    return run


@pytest.fixture(scope="module")
def finished(run_study, tmp_path_factory, one_process):
    """The folder of the finished study."""
    out = tmp_path_factory.mktemp("out")
    with one_process():
        assert run_study(out) == 0
    return out


@pytest.fixture(scope="module")
def taught(run_study, study_file, pairs_file, tmp_path_factory, one_process):
    """The folder of a finished study with a noisy set and a teacher, judged on two sets of pairs."""
    out = tmp_path_factory.mktemp("taught")
    file, again = study_file.with_name("taught.yaml"), out / "again.bin"
    file.write_text(TAUGHT + "plots: {both: {rows: [noisy, pupil], dots: accuracy}}\n")
    again.write_bytes(pairs_file.read_bytes())
    with one_process():
        assert run_study(out, file=file, pairs=(pairs_file, again)) == 0
    return out


@pytest.fixture(scope="module")
def told_pairs(pairs_file, tmp_path_factory):
    """The pairs of `pairs_file`, of which a file says who is who."""
    file = tmp_path_factory.mktemp("told") / "told.bin"
    file.write_bytes(pairs_file.read_bytes())
    rounds = [(person, number) for person in range(8) for number in (1, 2, 2)]
    people = [(person, person, person, (person + 1 + number) % 8) for person, number in rounds]
    write_people(file, np.array(people).reshape(-1, 2))
    return file


@pytest.fixture(scope="module")
def whole(run_study, study_file, people, told_pairs, photograph_bytes, tmp_path_factory, one_process):
    """The folder of a finished study with everything in it."""
    out = tmp_path_factory.mktemp("whole")
    file = study_file.with_name("whole.yaml")
    file.write_text(WHOLE)
    np.save(file.with_name("features.npy"), np.random.default_rng(0).normal(size=(15, 4)))
    strangers = [(person, photograph_bytes(70 + person, 0)) for person in (0, 1)]
    write_shard(out / "found" / "distractors", strangers, 2)
    shutil.copytree(people, out / "found" / "probes")
    with one_process():
        judged = "--identification", out / "found", "--inspect"
        assert run_study(out, *judged, file=file, pairs=(told_pairs,)) == 0
    return out


@pytest.fixture(scope="module")
def results(whole):
    """The results of that study, by row."""
    return {file.parent.name: json.loads(file.read_text()) for file in (whole / "results").rglob("*.json")}


def runs(out):
    return [out / row / f"seed-{seed}" for row in ("line", "cos-0.2") for seed in (0, 1)]


def judged(run):
    """What `latse eval` said of the model of a run, on the pairs of `pairs_file`."""
    return json.loads((run / "verification.json").read_text())["sets"]["people"]["results"]["model"]


def times(out):
    """When the model, the judgement and the result of each run were written, by file."""
    names = "model-0000.params", "verification.json"
    files = [run / name for run in runs(out) for name in names]
    files += [out / "results" / run.parent.name / f"{run.name}.json" for run in runs(out)]
    return {file: file.stat().st_mtime_ns for file in files}


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


def test_the_report_is_that_of_the_judgements(finished):
    report = json.loads((finished / "study.json").read_text())
    assert (report["kind"], report["recipe"]) == ("study", "tiny")
    assert report["tables"] == {TITLE: tables(report["rows"])["people"]}
    assert report["provenance"]["command"].startswith("latse study ")
    assert list(report["rows"]) == ["line", "cos-0.2"]
    assert [row["changes"] for row in report["rows"].values()] == [
        {},
        {"margin": {"name": "cosface", "m3": 0.2}},
    ]
    for name, row in report["rows"].items():
        seeds = [judged(finished / name / f"seed-{seed}") for seed in (0, 1)]
        found = row["sets"]["people"]
        for title, values in (
            ("accuracy", [one["accuracy"] for one in seeds]),
            ("TAR@1%FAR", [one["tar_at_far"]["0.01"] for one in seeds]),
            ("AUC", [one["auc"] for one in seeds]),
        ):
            first, second = values
            assert found[title]["mean"] == pytest.approx((first + second) / 2)
            assert found[title]["std"] == pytest.approx(abs(first - second) / 2**0.5)
        assert found["SSIM"] is None
    cells = tables(report["rows"])["people"]
    assert cells[0] == ["", "accuracy", "TAR@1%FAR", "AUC"]
    assert (finished / "table.md").read_text() == f"**{TITLE}**\n\n{markdown(cells)}\n"


def test_the_result_of_a_run_is_small_and_says_what_made_it(finished, people, pairs_file):
    for run in runs(finished):
        file = finished / "results" / run.parent.name / f"{run.name}.json"
        result, record = json.loads(file.read_text()), json.loads((run / "run.json").read_text())
        assert file.stat().st_size < 8192
        figures = result["sets"]["people"]
        assert figures.items() <= {**judged(run), "intervals": None}.items()  # nobody says who is who
        assert result["metrics"] == json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
        asked = result["asked"]
        assert (asked["row"], asked["seed"]) == (run.parent.name, record["seed"])
        assert asked["settings"]["margin"] == record["settings"]["margin"]
        assert asked["data"] == record["data"]["digest"] == Shard(people).digest()
        assert asked["pairs"] == {"people": {"pairs": digest(pairs_file), "people": None}}
        assert (asked["noise"], asked["teacher"]) == (None, None)


def test_a_row_learns_from_its_noisy_set_under_its_teacher(taught, people):
    for seed in (0, 1):
        noisy = taught / "data" / "flips" / f"seed-{seed}"
        made = json.loads((noisy / "noise.json").read_text())
        assert (made["source_digest"], made["seed"], made["mislabel"]) == (Shard(people).digest(), seed, 0.25)
        records = {
            row: json.loads((taught / row / f"seed-{seed}" / "run.json").read_text())
            for row in ("clean", "noisy", "pupil")
        }
        digests = {row: record["data"]["digest"] for row, record in records.items()}
        assert digests == {
            "clean": Shard(people).digest(),
            **dict.fromkeys(("noisy", "pupil"), made["digest"]),
        }
        teacher = digest(taught / "noisy" / f"seed-{seed}" / "model-0000.params")
        assert records["pupil"]["teacher"] == teacher and records["noisy"]["teacher"] is None
        result = json.loads((taught / "results" / "pupil" / f"seed-{seed}.json").read_text())
        assert result["asked"]["noise"] == {"mislabel": 0.25}
        assert result["asked"]["teacher"]["row"] == "noisy" and result["asked"]["teacher"]["seed"] == seed
        assert 0 < result["metrics"]["kept"] < 1


def test_a_row_learns_from_what_is_near_the_dominant_centres(
    run_study, study_file, tmp_path, one_process, run_metrics
):
    file = study_file.with_name("dropped.yaml")
    file.write_text(
        "recipe: tiny.yaml\nseeds: [0]\nrows:\n"
        "  several: {margin: {name: subcentre_arcface}}\n"
        "  dropped: {teacher: {row: several, centres: dominant}, filter: {k: 1}}\n"
    )
    with one_process():
        assert run_study(tmp_path / "out", file=file) == 0
    folder = tmp_path / "out" / "dropped" / "seed-0"
    verdicts = verdict_file.read(folder / "teacher.keep")
    near = [verdicts.keeps(1, [*range(15)], mirrored).all() for mirrored in (False, True)]
    assert all(line["kept"] == 1 for line in run_metrics(folder)) == all(near)
    asked = json.loads((tmp_path / "out/results/dropped/seed-0.json").read_text())["asked"]
    assert asked["centres"] == "dominant" and asked["teacher"]["centres"] is None
    graph = digest(tmp_path / "out/several/seed-0/model-symbol.json")
    assert verdicts.binding["graph"] == digest_of(["dominant", 75.0, graph])


def test_a_teacher_that_learned_other_people_judges_by_their_means(
    run_study, study_file, people, pairs_file, tmp_path, one_process
):
    add_noise(people, tmp_path / "others", mislabel=0.5, distractor=0.0, seed=4)
    file, out = study_file.with_name("others.yaml"), tmp_path / "out"
    file.write_text(
        "recipe: tiny.yaml\nseeds: [0]\nrows:\n"
        "  stranger: {others: true}\n"
        "  taught: {teacher: {row: stranger, centres: means}, filter: {k: 1}}\n"
    )
    with one_process():
        assert run_study(out, "--others", tmp_path / "others", file=file) == 0
    results = read_results(read_study(file), out / "results")
    learned = {row: result["asked"]["data"] for (row, _), result in results.items()}
    assert learned == {"stranger": Shard(tmp_path / "others").digest(), "taught": Shard(people).digest()}
    assert results["taught", 0]["asked"]["centres"] == "means"
    assert run_record.read(out / "stranger" / "seed-0")["from"]["data"] == str(tmp_path / "others")
    judged = verdict_file.read(out / "taught" / "seed-0" / "teacher.keep").binding["teacher"]
    assert judged == digest(out / "stranger" / "seed-0" / "model-0000.params")
    assert study_table.changes(read_study(file).rows["stranger"]) == "others: true"


def test_a_baseline_is_judged_like_a_row(run_study, study_file, people, pairs_file, tmp_path, one_process):
    file, out = study_file.with_name("baselines.yaml"), tmp_path / "out"
    file.write_text(
        "recipe: tiny.yaml\nseeds: [0, 1]\nnoise: {flips: {mislabel: 0.5}}\nrows:\n"
        "  line: {}\n  components: {model: pca}\n  discriminants: {noise: flips, model: fisherfaces}\n"
        "claims: {a network is better: [line, components]}\n"
    )
    with one_process():
        assert run_study(out, "--inspect", file=file) == 0
    assert not list(out.glob("components/*/*.params")) and not list(out.glob("components/*/metrics.jsonl"))
    study = read_study(file)
    results = read_results(study, out / "results")
    assert len(results) == 6 and results["components", 0]["asked"]["model"] == "pca"
    places = "--train-data", people, "--pairs", pairs_file, "--json", tmp_path / "eval.json"
    assert main(["eval", "--model", "pca", *map(str, places)]) == 0
    (judged,) = json.loads((tmp_path / "eval.json").read_text())["sets"].values()
    (kept,) = results["components", 0]["sets"].values()
    assert kept["accuracy"] == judged["results"]["pca"]["accuracy"]
    assert results["components", 0]["inspection"] is None and results["line", 0]["inspection"] is not None
    assert study_table.changes(study.rows["discriminants"]) == "noise: flips, model: fisherfaces"
    assert run_study(out, "--inspect", file=file) == 0


def test_a_row_begins_with_the_model_of_another(whole, results):
    model = digest(whole / "clean" / "seed-3" / "model-0000.params")
    record = run_record.read(whole / "goes-on" / "seed-3")
    assert record["start"] == model and record["from"]["start"].endswith("clean/seed-3/model,0")
    asked = results["goes-on"]["asked"]
    assert asked["start"] == {
        key: value
        for key, value in results["clean"]["asked"].items()
        if key not in ("pairs", "identification", "inspection")
    }
    assert results["clean"]["asked"]["start"] is None


def test_a_model_that_a_row_begins_with_is_made_again_where_it_is_gone(
    whole, run_study, study_file, told_pairs, tmp_path, one_process
):
    shutil.copytree(whole / "results", tmp_path / "results")
    (tmp_path / "results" / "goes-on" / "seed-3.json").unlink()
    asked = {"file": study_file.with_name("whole.yaml"), "pairs": (told_pairs,)}
    with one_process():
        assert run_study(tmp_path, "--identification", whole / "found", "--inspect", **asked) == 0
    made = {file.parent.parent.name for file in tmp_path.rglob("model-0000.params")}
    assert made == {"goes-on", "clean"}


def test_a_teacher_of_clean_labels_judges_a_noisy_copy(whole, results):
    """Its verdicts, and those of pixels, are those that `latse filter` says of the copy, beside the truth."""
    noisy = whole / "data" / "flips" / "seed-3"
    wrong = read_truth(noisy).kind != CLEAN
    assert wrong.any() and not wrong.all()
    for row, teacher in (
        ("of-clean", digest(whole / "clean" / "seed-3" / "model-0000.params")),
        ("of-pixels", None),
    ):
        verdicts = verdict_file.read(whole / row / "seed-3" / "teacher.keep")
        assert teacher in (None, verdicts.binding["teacher"])
        assert verdicts.binding["data"] == Shard(noisy).digest()
        every = np.arange(15)
        plain, mirrored = (verdicts.keeps(1, every, mirror) for mirror in (False, True))
        found = results[row]["filter"]
        assert found["kept"] == {"1": {"plain": plain.mean(), "mirrored": mirrored.mean()}}
        refused = 1 - (plain + mirrored.astype(float)) / 2
        of_all = found["truth"]["1"]["all"]
        assert (of_all["wrong"], of_all["right"]) == (wrong.sum(), (~wrong).sum())
        assert of_all["wrong_refused"] == pytest.approx(refused[wrong].mean())
        assert of_all["right_refused"] == pytest.approx(refused[~wrong].mean())
    assert results["of-file"]["filter"]["truth"] is None and results["clean"]["filter"] is None


def test_a_teacher_from_elsewhere_is_told_by_its_file(results, study_file):
    features = digest(study_file.with_name("features.npy"))
    expected = {"model": "features.npy", "centres": "means", "digests": [features]}
    assert results["of-file"]["asked"]["teacher"] == expected
    assert results["of-pixels"]["asked"]["teacher"] == {"model": "pixels", "centres": "means", "digests": []}


def test_the_result_has_intervals_and_restoration(whole, results, told_pairs):
    assert results["faces"]["asked"]["pairs"]["told"]["people"] == digest(people_path(told_pairs))
    for row, result in results.items():
        path = whole / row / "seed-3" / "verification.json"
        judged = json.loads(path.read_text())["sets"]["told"]["results"]["model"]
        found = result["sets"]["told"]
        assert found["restoration"] == judged["restoration"]
        assert (found["restoration"] is None) == (row != "faces")
        assert set(found["intervals"]) == {"level", "samples", "accuracy", "auc", "eer", "tar_at_far"}
        assert found["intervals"].items() <= judged["intervals"].items()
        low, high = found["intervals"]["auc"]
        assert low <= found["auc"] <= high


def test_the_result_has_what_the_training_cost_and_how_it_went(whole, results):
    for row, result in results.items():
        lines = read_metrics(whole / row / "seed-3" / "metrics.jsonl")
        assert [line["iteration"] for line in lines] == [1, 2] == result["curve"]["iteration"]
        assert result["curve"]["loss"] == pytest.approx([line["loss"] for line in lines], rel=1e-5)
        keys = {"iteration", "lr", "loss", "dloss", "kept"}
        keys |= {"l1", "ssim"} if row == "faces" else set()
        keys |= {"precision", "recall"} if result["asked"]["noise"] else set()
        assert {*result["curve"]} == keys
        costs = {key: [line[key] for line in lines] for key in COSTS}
        assert result["cost"] == {
            "cpu_seconds": pytest.approx(sum(costs["cpu_seconds"])),
            "wall_seconds": pytest.approx(sum(costs["seconds"])),
            "peak_megabytes": max(costs["peak_megabytes"]),
        }


def test_the_result_has_what_was_inspected(whole, results):
    for row, result in results.items():
        assert result["asked"]["inspection"] == {"told": None}  # nobody knows the truth of these people
        inspected = json.loads((whole / row / "seed-3" / "inspection.json").read_text())
        found = result["inspection"]
        assert set(found) == {"angles", "linear", "decoder"}
        assert found["angles"]["all"]["own"] == pytest.approx(inspected["angles"]["all"]["own"], rel=1e-5)
        assert ("wrong" in found["angles"]) == (result["asked"]["noise"] is not None)
        assert (found["decoder"] is None) == (row != "faces")
    assert (whole / "results" / "faces" / "seed-3.json").stat().st_size < 20000


def test_a_curve_has_up_to_twenty_points_and_older_runs_no_cost():
    lines = [{"iteration": i, "loss": 1 / i, "epoch": 0} for i in range(1, 101)]
    found = study_result.of_metrics(lines)
    assert len(found["curve"]["iteration"]) == 20 and set(found["curve"]) == {"iteration", "loss"}
    assert found["curve"]["iteration"][0] == 1 and found["curve"]["iteration"][-1] == 100
    assert found["curve"]["loss"] == pytest.approx([1 / i for i in found["curve"]["iteration"]], rel=1e-5)
    assert found["cost"] == dict.fromkeys(("cpu_seconds", "wall_seconds", "peak_megabytes"))


def test_the_result_has_the_ranks_among_distractors(whole, results, people):
    shards = {name: Shard(whole / "found" / name).digest() for name in ("probes", "distractors")}
    for row, result in results.items():
        assert result["asked"]["identification"] == shards
        ranked = json.loads((whole / row / "seed-3" / "identification.json").read_text())
        size = ranked["models"]["model"]["sizes"]["2"]
        assert result["identification"] == {
            "probes": 15,
            "mates": 30,
            "distractors": 2,
            "sizes": {"2": {key: size[key] for key in ("rank_1", "rank_1_interval")}},
        }
    table = json.loads((whole / "study.json").read_text())["rows"]["clean"]["identification"]
    rank = results["clean"]["identification"]["sizes"]["2"]["rank_1"]
    assert table == {"rank 1 @2": {"mean": rank, "std": 0.0}}
    assert "**found first among distractors" in (whole / "table.md").read_text()


def test_every_set_of_pairs_has_its_table(taught):
    report = json.loads((taught / "study.json").read_text())
    found = tables(report["rows"])
    assert list(found) == ["people", "again"] and found["people"] == found["again"]
    assert [row[0] for row in found["again"][1:]] == ["pupil", "clean", "noisy"]  # as the file has them
    assert (taught / "table.md").read_text().count("**again: ") == 1


def test_the_plots_of_a_study_are_drawn(taught):
    assert json.loads((taught / "study.json").read_text())["plots"] == {"both": "both.svg"}
    assert "</svg>" in (taught / "both.svg").read_text()


def test_a_claim_is_judged_over_the_seeds(taught, capsys):
    found = json.loads((taught / "study.json").read_text())["claims"]["noise harms"]
    results = {
        (row, seed): json.loads((taught / "results" / row / f"seed-{seed}.json").read_text())["sets"]
        for row in ("clean", "noisy")
        for seed in (0, 1)
    }
    differences = [
        results["clean", seed]["people"]["accuracy"] - results["noisy", seed]["people"]["accuracy"]
        for seed in (0, 1)
    ]
    assert (found["better"], found["than"]) == ("clean", "noisy")
    assert found["effect"] == pytest.approx(statistics.fmean(differences))
    assert found["sets"] == pytest.approx(dict.fromkeys(("people", "again"), found["effect"]))
    assert "**claims, paired over 2 seeds**" in (taught / "table.md").read_text()


def test_what_has_a_result_is_not_done_again_even_if_the_run_is_gone(
    taught, run_study, study_file, pairs_file, tmp_path, one_process
):
    shutil.copytree(taught / "results", tmp_path / "results")
    asked = {"file": study_file.with_name("taught.yaml"), "pairs": (pairs_file, taught / "again.bin")}
    arguments = "--results", tmp_path / "results"
    assert run_study(tmp_path / "out", *arguments, **asked) == 0
    assert not list(tmp_path.rglob("*.params"))
    assert (tmp_path / "out" / "table.md").read_text() == (taught / "table.md").read_text()
    lost, teacher = (tmp_path / "results" / row / "seed-1.json" for row in ("pupil", "noisy"))
    before, of_teacher = json.loads(lost.read_text()), teacher.read_bytes()
    lost.unlink()
    with one_process():
        assert run_study(tmp_path / "out", *arguments, **asked) == 0
    models = tmp_path.rglob("model-0000.params")
    assert {file.parent.relative_to(tmp_path / "out") for file in models} == {
        Path("pupil/seed-1"),
        Path("noisy/seed-1"),  # its teacher's model had gone
    }
    assert teacher.read_bytes() == of_teacher
    after = json.loads(lost.read_text())
    assert (after["asked"], after["sets"]) == (before["asked"], before["sets"])


def test_results_that_were_judged_on_more_are_taken(
    taught, run_study, study_file, pairs_file, tmp_path, capsys
):
    places = {"file": study_file.with_name("taught.yaml"), "pairs": (pairs_file,)}
    assert run_study(tmp_path / "out", "--results", taught / "results", **places) == 0
    assert not list(tmp_path.rglob("*.params"))
    content = json.loads((tmp_path / "out" / "study.json").read_text())
    assert {*content["rows"]["clean"]["sets"]} == {*content["claims"]["noise harms"]["sets"]} == {"people"}
    more = {**places, "pairs": (pairs_file, taught / "again.bin"), "out": tmp_path / "more"}
    assert run_study(more.pop("out"), "--results", taught / "results", "--inspect", **more) == 1
    assert "is of a run with other inspection: choose another --results" in capsys.readouterr().err


def test_results_of_an_older_version_are_taken(taught, run_study, study_file, pairs_file, tmp_path):
    """A key of a recipe that it did not have is at its default."""
    results = shutil.copytree(taught / "results", tmp_path / "results")
    for file in results.rglob("*.json"):
        content = json.loads(file.read_text())
        for asked in (content["asked"], content["asked"]["teacher"]):
            if asked:
                del asked["settings"]["filter"]["refused_in_mean"], asked["settings"]["regularisers"]
        file.write_text(json.dumps(content))
    asked = {"file": study_file.with_name("taught.yaml"), "pairs": (pairs_file, taught / "again.bin")}
    assert run_study(tmp_path / "out", "--results", results, **asked) == 0
    assert not list(tmp_path.rglob("*.params"))
    assert len(read_results(read_study(asked["file"]), results)) == 6


def test_the_result_of_another_run_is_refused(finished, run_study, pairs_file, tmp_path, capsys):
    results = finished / "results"
    other = tmp_path / "other.bin"
    other.write_bytes(pairs_file.read_bytes())
    assert run_study(tmp_path / "out", "--results", results, pairs=(other,)) == 1
    named = f"latse: {results}/line/seed-0.json is of a run with other"
    assert capsys.readouterr().err.strip() == f"{named} pairs: choose another --results"
    assert run_study(tmp_path / "out", "--results", results, "--set", "margin.s=32") == 1
    assert capsys.readouterr().err.strip() == f"{named} settings: choose another --results"
    assert run_study(tmp_path / "out", pairs=(pairs_file, pairs_file)) == 1
    assert "two files of --pairs have one name" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.params"))


def test_a_result_by_an_own_class_that_was_edited_is_refused(
    run_study, study_file, small_encoder, tmp_path, capsys, one_process
):
    own, file = tmp_path / "own.py", study_file.with_name("one.yaml")
    shutil.copy(small_encoder.rpartition(":")[0], own)
    file.write_text("recipe: tiny.yaml\nseeds: [0]\nrows: {line: {}}")
    named = "--set", f"encoder.name={own}:Small"
    with one_process():
        assert run_study(tmp_path / "out", *named, file=file) == 0
    own.write_text(own.read_text().replace("Conv2D(8, 16", "Conv2D(6, 16"))
    assert run_study(tmp_path / "out", *named, file=file) == 1
    result = tmp_path / "out" / "results" / "line" / "seed-0.json"
    sentence = f"latse: {result} is of a run with other encoder: choose another --results"
    assert capsys.readouterr().err.splitlines()[-1] == sentence


def test_a_noisy_set_with_other_noise_is_refused(taught, run_study, study_file, tmp_path, capsys):
    file = study_file.with_name("noisier.yaml")
    file.write_text(TAUGHT.replace("mislabel: 0.25", "mislabel: 0.5"))
    assert run_study(taught, "--results", tmp_path, file=file) == 1
    made = taught / "data" / "flips" / "seed-0" / "noise.json"
    sentence = f"latse: {made} is of a run with other mislabel: choose another --out"
    assert capsys.readouterr().err.splitlines()[-1] == sentence


def test_pupils_of_a_row_are_filtered_side_by_side(taught, run_study, study_file, tmp_path, monkeypatch):
    together = threading.Barrier(2, timeout=10)

    def latse(run, environment, command, *words):
        out = Path(words[words.index("--out") + 1]) if "--out" in words else run.folder
        if command == "filter":
            with locked(make_folder(out.parent)):  # as `latse filter` does
                together.wait()
        if command == "train":
            shutil.copytree(taught / out.relative_to(tmp_path), out, dirs_exist_ok=True)

    monkeypatch.setattr(Run, "latse", latse)
    assert run_study(tmp_path, "--jobs", 2, file=study_file.with_name("taught.yaml")) == 0
    assert not together.broken


def test_the_table_has_the_likeness_of_faces_where_there_is_a_decoder():
    figures = dict.fromkeys(study_table.COLUMNS, {"mean": 0.5, "std": 0.01})
    rows = {
        "plain": {"sets": {"a": {**figures, "SSIM": None}}, "identification": {}},
        "faces": {"sets": {"a": {**figures, "SSIM": {"mean": 0.75, "std": 0.02}}}, "identification": {}},
    }
    cells = tables(rows)["a"]
    column = cells[0].index("SSIM")
    assert [row[column] for row in cells[1:]] == ["–", "75.00 ± 2.00"]
    found = [{"restoration": {"ssim": ssim}} for ssim in (0.7, 0.8)]
    assert summary(found, study_table.COLUMNS["SSIM"])["mean"] == pytest.approx(0.75)
    assert summary([*found, {"restoration": None}], study_table.COLUMNS["SSIM"]) is None


def test_a_second_time_only_what_is_missing_is_done(finished, run_study, capsys, one_process):
    before, table = times(finished), (finished / "table.md").read_text()
    lost = finished / "results" / "cos-0.2" / "seed-1.json"
    lost.unlink()
    with one_process():
        assert run_study(finished) == 0
    after = times(finished)
    changed = {file for file in after if after[file] != before[file]}
    assert changed == {lost, finished / "cos-0.2" / "seed-1" / "verification.json"}
    assert (finished / "table.md").read_text() == table
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == TITLE
    assert [line.split()[0] for line in lines[3:]] == ["line", "cos-0.2"]


def test_the_sentence_of_a_run_that_fails(run_study, study_file, tmp_path, capsys):
    """It names row and seed, ends the study, and leaves no table."""
    file = study_file.with_name("wrong.yaml")
    file.write_text("recipe: tiny.yaml\nseeds: [4, 5]\nrows: {many: {train: {kvstore: nccl}}, line: {}}")
    assert run_study(tmp_path, file=file) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error == "latse: many, seed 4: train.kvstore nccl needs the GPU build: make setup GPU=1"
    assert not (tmp_path / "study.json").exists() and not (tmp_path / "table.md").exists()


@pytest.mark.parametrize("jobs", [1, 2])
def test_after_a_run_that_fails_no_other_begins(run_study, study_file, tmp_path, capsys, monkeypatch, jobs):
    """Two at a time, the other one is under way; it comes to its end, which may take hours."""
    file, begun, under_way = study_file.with_name("six.yaml"), [], threading.Event()
    file.write_text("recipe: tiny.yaml\nseeds: [0, 1, 2, 3, 4, 5]\nrows: {line: {}}")

    def latse(run, environment, command, *words):
        begun.append((run.seed, command))
        if run.seed == 0:
            assert jobs == 1 or under_way.wait(10)
            raise LatseError("line, seed 0: no")
        under_way.set()
        time.sleep(0.2)

    monkeypatch.setattr(Run, "latse", latse)
    monkeypatch.setattr(study_command, "small", lambda *_: {})
    assert run_study(tmp_path, "--jobs", jobs, file=file) == 1
    assert capsys.readouterr().err.splitlines()[-1] == "latse: line, seed 0: no"
    assert sorted(begun) == [(0, "train"), (1, "eval"), (1, "train")][: 1 if jobs == 1 else 3]


def test_some_rows_are_run_with_what_they_need(
    run_study, study_file, pairs_file, tmp_path, capsys, monkeypatch
):
    """The claim stays if both its rows are asked for; a result of the whole study is as good."""
    file = study_file.with_name("chosen.yaml")
    file.write_text(TAUGHT + "tables: {both: {rows: [clean, pupil]}, all: {rows: ['*']}}")
    monkeypatch.setattr(Run, "latse", lambda run, *_: make_folder(run.folder))
    result = {"sets": {"people": {"accuracy": 0.5}}, "identification": None}
    monkeypatch.setattr(study_command, "small", lambda _: result)

    def made(*arguments):
        assert run_study(tmp_path, "--results", tmp_path / "kept", *arguments, file=file) == 0
        content = json.loads((tmp_path / "study.json").read_text())
        return content, {"/".join(path.parts[-2:]) for path in (tmp_path / "kept").rglob("*.json")}

    content, results = made("--rows", "pup*", "--seeds", 7)
    assert results == {"pupil/seed-7.json", "noisy/seed-7.json"} and not content["claims"]
    assert list(content["rows"]) == ["pupil", "noisy"]
    table = (tmp_path / "table.md").read_text()
    assert "**both**" in table and "| clean |" not in table
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "kept").rglob("*.json")}
    content, results = made("--seeds", 7)
    assert list(content["claims"]) == ["noise harms"] and "clean/seed-7.json" in results
    assert before.items() <= {path: path.stat().st_mtime_ns for path in before}.items()
    capsys.readouterr()
    asked = run_study(tmp_path, "--rows", "clean", "line", file=file)
    assert (asked, capsys.readouterr().err.strip()) == (1, "latse: --rows names line, which is no row")
    assert run_study(tmp_path, "--seeds", 7, 7, file=file) == 1
    assert capsys.readouterr().err.strip() == "latse: --seeds is [7, 7], must name each seed once"
    file.write_text(TAUGHT.replace("[clean, noisy]", "{better: clean, than: noisy, sets: [others]}"))
    assert run_study(tmp_path, file=file) == 1
    sentence = "latse: the claim 'noise harms' is of the set others; there are people"
    assert capsys.readouterr().err.strip() == sentence


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
    named = f"latse: {file}: the row 'cos': {tmp_path / 'cos' / 'cos.yaml'}"
    assert capsys.readouterr().err == f"{named}: {sentence}\n"
    assert not list(tmp_path.rglob("seed-*"))


def test_a_place_that_takes_no_results_is_refused_before_any_is_trained(run_study, tmp_path, capsys):
    (tmp_path / "taken").touch()
    assert run_study(tmp_path / "out", "--results", tmp_path / "taken") == 1
    assert f"cannot make the folder {tmp_path / 'taken'}" in capsys.readouterr().err
    assert not list(tmp_path.rglob("seed-*"))


@pytest.mark.parametrize("row", ["{teacher: cos-0.2}", "{filter: {k: 1}}"])
def test_a_filter_needs_a_teacher_and_a_teacher_a_filter(run_study, study_file, tmp_path, capsys, row):
    file = study_file.with_name("half.yaml")
    file.write_text(STUDY.replace("{}", row))
    assert run_study(tmp_path, file=file) == 1
    sentence = f"{file}: the row 'line' needs both, a teacher and filter.k, or neither"
    assert capsys.readouterr().err == f"latse: {sentence}\n"
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
        (
            "- 1",
            "study.yaml must hold the keys recipe, seeds and rows, perhaps noise, means, claims, tables "
            "and plots, and no others",
        ),
        ("recipe: a.yaml\nrows: {a: {}}", "study.yaml must hold the keys recipe, seeds and rows"),
        (
            STUDY + "sedes: [0]",
            "study.yaml must hold the keys recipe, seeds and rows, perhaps noise, means, claims, tables "
            "and plots, and no others",
        ),
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
        (STUDY + "claims: [a]", "study.yaml: claims is [a], must be sentences with two rows each"),
        (STUDY + "claims: {a: [line]}", "the claim 'a: [line]' must name two rows, the better one first"),
        (STUDY + "claims: {a: [line, b]}", "the claim 'a: [line, b]' must name two rows"),
        (STUDY + "claims: {a: [line, line]}", "the claim 'a: [line, line]' must name two rows"),
        (STUDY + "noise: [a]", "study.yaml: noise is [a], must name fractions"),
        (
            STUDY + "noise: {a: {mislabel: 2}}",
            "the noise 'a: {mislabel: 2}' must be named like a file and hold",
        ),
        (STUDY + "noise: {a: {flips: 0}}", "the noise 'a: {flips: 0}' must be named like a file and hold"),
        (STUDY.replace("{}", "{noise: b}"), "the row 'line' has the noise b, which is not described"),
        (STUDY.replace("{}", "{noise: [b]}"), "the noise of the row 'line' is [b], must be a name"),
        (STUDY.replace("{}", "{teacher: b}"), "the row 'line' has the teacher b, which is no row"),
        (STUDY.replace("{}", "{start: b}"), "the row 'line' has the start b, which is no row"),
        (STUDY.replace("{}", "{start: [b]}"), "the start of the row 'line' is [b], must be a name"),
        (
            STUDY.replace("{}", "{teacher: {model: pixels, centres: learned}}"),
            "the teacher of the row 'line' is {centres: learned, model: pixels}, must be a row, {row: NAME,",
        ),
        (
            STUDY.replace("{}", "{model: pcb}"),
            "the row 'line' must hold model: one of pixels, pca, fisherfaces",
        ),
        (
            STUDY.replace("{}", "{model: pca, margin: {s: 32}}"),
            "the row 'line' must hold model: one of pixels, pca, fisherfaces, dlib, perhaps noise, others",
        ),
        (
            STUDY.replace("{}", "{model: pca}").replace("m3: 0.2}", "m3: 0.2}, start: line"),
            "the row 'cos-0.2' has the start line, which is no row of a network",
        ),
        (STUDY.replace("{}", "{others: 3}"), "others of the row 'line' is 3, must be true or false"),
        (
            STUDY.replace("{}", "{others: true, noise: b}") + "noise: {b: {mislabel: 0.1}}",
            "the row 'line' has noise, which the set of other people never has",
        ),
        (
            STUDY.replace("{}", "{others: true}").replace("m3: 0.2}", "m3: 0.2}, teacher: line"),
            "the row 'cos-0.2' has the teacher line, which learns other people: write {row: line, centres: ",
        ),
        (
            STUDY.replace("{}", "{others: true}").replace("m3: 0.2}", "m3: 0.2}, start: line"),
            "the row 'cos-0.2' has the start line, which learns other people",
        ),
        (STUDY.replace("{}", "{others: true}"), "a row learns from other people: name their set by --others"),
        (
            STUDY.replace("{}", "{start: cos-0.2}").replace("m3: 0.2}", "m3: 0.2}, teacher: line"),
            "the row 'line' needs, by way of teachers and starts, itself",
        ),
        (
            STUDY.replace("{}", "{teacher: line}"),
            "the row 'line' needs, by way of teachers and starts, itself",
        ),
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
    assert refused(STUDY, pairs=(nobody,)).startswith(f"latse: cannot read {nobody}: No such file")
    assert refused(STUDY, "--jobs", 0) == "latse: --jobs is 0, must be at least 1"


def test_a_row_that_changes_nothing_may_be_left_empty(tmp_path):
    file = tmp_path / "study.yaml"
    file.write_text("recipe: ../a.yaml\nseeds: [3]\nrows: {plain: , 1.5: {train: {batch_size: 2}}}")
    found = read_study(file)
    rows = {"plain": Row({}), "1.5": Row({"train": {"batch_size": 2}})}
    assert found == Study(tmp_path / "../a.yaml", [3], rows, ["plain", "1.5"], {}, {})


def test_the_table_is_in_percent():
    values = (0.5, 0.75, 0.625)
    found = [{"accuracy": value, "tar_at_far": {"0.01": value / 2}, "auc": 1.0} for value in values]
    row = {title: summary(found, path) for title, path in study_table.COLUMNS.items()}
    deviation = 100 * statistics.stdev(values)
    head, cells = tables({"linear": {"sets": {"a": row}, "identification": {}}})["a"]
    assert head == ["", "accuracy", "TAR@1%FAR", "AUC"]
    assert cells == [
        "linear",
        f"62.50 ± {deviation:.2f}",
        f"31.25 ± {deviation / 2:.2f}",
        "100.00 ± 0.00",
    ]
    assert summary(found[:1], ("accuracy",)) == {"mean": 0.5, "std": 0.0}


@pytest.mark.parametrize("name", ["orl_losses", "orl_settings"])
def test_the_shipped_studies_change_recipes_that_are_there(name):
    """Each row of them is a recipe without mistakes, and no two rows are the same."""
    found = read_study(STUDIES / f"{name}.yaml")
    assert found.recipe.resolve() == STUDIES.parent / "orl_teacher.yaml"
    assert found.seeds == [0, 1, 2]
    settings = []
    for row in found.rows.values():
        overrides = [
            f"{section}.{key}={yaml.safe_dump(value, default_flow_style=True)}"
            for section, values in row.changes.items()
            for key, value in values.items()
        ]
        settings.append(recipes.as_dict(recipes.load(found.recipe, overrides)))
    assert all(settings.count(one) == 1 for one in settings)


def test_every_loss_is_in_the_study_of_losses():
    rows = read_study(STUDIES / "orl_losses.yaml").rows
    assert {row.changes["margin"]["name"] for row in rows.values()} == set(MARGINS)
