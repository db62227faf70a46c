"""The report, made of made-up result files; where chromium is installed, looked at in it."""

import json
import math
import re
import shlex
import shutil
import subprocess
from html.parser import HTMLParser

import cv2
import matplotlib.figure
import numpy as np
import pytest

from latse.cli import main
from latse.paper import report_charts

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
in_chromium = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
PROVENANCE = {
    "command": "latse eval --model student=out/orl/student/model,0 --json out/orl/student/verification.json",
    "commit": "0123456789ab+",
    "versions": {"latse": "0.1.0", "mxnet": "1.9.1"},
    "device": "cpu(0) of a machine",
}
MODELS = {
    "student": 2.4,
    "teacher": 2.2,
    "pixels": 0.7,
    "dlib": 3.4,
}
UNDRAWN = '<svg viewBox="0 0 1 1"></svg>'
FARS = ("0.1", "0.01", "0.001", "0.0001", "1e-05", "1e-06")


def judged(strength, known_people=True):
    """What `latse eval` says of scores, normal with means ±strength / 2; higher is better."""
    rng = np.random.default_rng(int(100 * strength))
    same, different = (rng.normal(side * strength / 2, 1, 450) for side in (1, -1))
    far = np.geomspace(1 / 450, 1, 60)
    tar = [float((same > np.quantile(different, 1 - value)).mean()) for value in far]
    low, high = ([max(0.0, min(1.0, value + shift)) for value in tar] for shift in (-0.05, 0.04))
    accuracy = float(((same > 0).mean() + (different < 0).mean()) / 2)
    tar_at_far = {value: float((same > np.quantile(different, 1 - float(value))).mean()) for value in FARS}
    edges = np.linspace(-1, 1, 81)
    counts = {
        kind: np.histogram(np.tanh(values / 3), edges)[0].tolist()
        for kind, values in (("same", same), ("different", different))
    }
    bounds = [accuracy - 0.02, min(1.0, accuracy + 0.015)]
    return {
        "accuracy": accuracy,
        "std": 0.0213,
        "threshold": 1.6,
        "fold_accuracies": [accuracy] * 10,
        "exact": {"accuracy": accuracy + 0.001, "std": 0.02, "threshold": 1.583},
        "val_at_far_1e-3": None,
        "tar_at_far": tar_at_far,
        "cosine_at_far": dict(zip(FARS, (0.25, 0.4121, 0.5, 0.6, 0.7, 0.8))),
        "unresolved_far": list(FARS[2:]),
        "auc": 0.5 + accuracy / 2,
        "eer": 1 - accuracy,
        "intervals": {
            "unit": "people",
            "level": 0.95,
            "samples": 2000,
            "accuracy": bounds,
            "auc": bounds,
            "eer": [1 - bounds[1], 1 - bounds[0]],
            "tar_at_far": {value: [tar - 0.04, tar] for value, tar in tar_at_far.items()},
            "cosine_at_far": dict.fromkeys(FARS, [0.2, 0.4379]),
        }
        if known_people
        else None,
        "restoration": {"images": 80, "ssim": 0.75, "ssim_to_other": 0.66, "ssim_of_average": 0.71},
        "roc": {
            "far": far.tolist(),
            "tar": tar,
            "low": low if known_people else None,
            "high": high if known_people else None,
        },
        "histogram": {"edges": edges.tolist(), **counts},
    }


def verification(sets=("orl",), known_people=True):
    return {
        "kind": "verification",
        "provenance": PROVENANCE,
        "models": {title: {"source": title} for title in MODELS},
        "sets": {
            name: {
                "pairs": 900,
                "different_pairs": 450,
                "people": 10 if known_people else None,
                "results": {
                    title: judged(strength + number / 5, known_people) for title, strength in MODELS.items()
                },
            }
            for number, name in enumerate(sets)
        },
    }


def identification(sizes=(10, 100, 1000, 10_000)):
    def model(strength):
        rates = {size: 1 / (1 + math.log(size) / (4 * strength)) for size in sizes}
        return {
            "origin": {},
            "sizes": {
                str(size): {
                    "rank_1": rate,
                    "cmc": {str(rank): rate ** (1 / rank) for rank in (1, 2, 5, 10)},
                }
                for size, rate in rates.items()
            },
            "tar_at_far": {"1e-05": 0.1 * strength, "1e-06": 0.1},
            "unresolved_far": ["1e-06"],
        }

    return {
        "kind": "identification",
        "provenance": PROVENANCE,
        "probes": 3530,
        "mates": 80,
        "distractors": sizes[-1],
        "models": {title: model(MODELS[title]) for title in ("student", "teacher", "pixels")},
    }


def templates():
    rates = {
        "tar_at_far": {"0.0001": 0.7321, "1e-05": 0.61},
        "unresolved_far": ["1e-05"],
        "tar_at_nearest_far": {"0.0001": 0.7411},
        "tpir_at_fpir": {"0.01": 0.5},
        "rank": {"1": 0.8, "5": 0.9},
        "open_set": {
            "G1": {"tpir_at_fpir": {"0.1": 0.4321}, "rank": {"1": 0.81}, "mated": 9, "non_mated": 8}
        },
    }
    return {"kind": "templates", "provenance": PROVENANCE, "models": {"student": rates}}


def run_record(name, iterations):
    return {
        "recipe": f"orl_{name}",
        "seed": 0,
        "settings": {
            "encoder": {"name": "resnet_tiny", "dropout": 0.4},
            "decoder": {"enabled": name == "student"},
            "filter": {"k": 3 if name == "student" else None},
            "train": {"iterations": iterations, "weight_decay": 0.0005},
            "schedule": {"mode": "cosine", "steps": [10000, 16000]},
        },
        "data": {"images": 300, "people": 30, "digest": "f01da9687f5d6a5a7c8051cb0fd03e75"},
        "from": {"data": "data/orl", "teacher": None},
        "versions": PROVENANCE["versions"],
        "device": PROVENANCE["device"],
    }


def metrics(decoder):
    lines = []
    for iteration in range(20, 601, 20):
        record = {
            "iteration": iteration,
            "lr": 0.05 * (1 + math.cos(math.pi * iteration / 600)) / 2,
            "dloss": 2 + 30 * math.exp(-iteration / 120) + 0.5 * math.sin(iteration),
            "kept": 0.97 if decoder else 1.0,
        }
        if decoder:
            record.update(
                l1=0.1 + 0.4 * math.exp(-iteration / 200), ssim=0.2 + 0.3 * math.exp(-iteration / 150)
            )
        lines.append(json.dumps(record))
    return "\n".join(lines) + "\n"


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def figures(folder):
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    picture = cv2.resize(
        rng.integers(0, 255, (6, 20, 3), np.uint8), (1100, 350), interpolation=cv2.INTER_CUBIC
    )
    cv2.imwrite(str(folder / "figure-1.png"), picture)
    (folder / "figure-3.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 4"/>')
    drawn = {
        "1": {"file": "figure-1.png", "caption": "Ten people <restored>."},
        "3": {"file": "figure-3.svg", "caption": "Target logits."},
    }
    absent = {"4": "the student was trained without a filter"}
    content = {"kind": "figures", "provenance": PROVENANCE, "figures": drawn, "absent": absent}
    write(folder / "figures.json", content)


def fill(folder, sets=("orl",), known_people=True):
    """Write everything that a report reads."""
    for name in ("teacher", "student"):
        write(folder / name / "run.json", run_record(name, 600))
        write(folder / name / "metrics.jsonl", metrics(name == "student"))
    write(folder / "student" / "verification.json", verification(sets, known_people))
    write(folder / "student" / "identification.json", identification())
    write(folder / "student" / "templates.json", templates())
    figures(folder / "figures")
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run that has everything."""
    return fill(tmp_path_factory.mktemp("out") / "orl", sets=("orl", "cross-pose"))


@pytest.fixture(scope="module")
def page(run):
    """The report of `run`."""
    path = run.parent / "report.html"
    assert report(run, path) == 0
    return path


@pytest.fixture
def undrawn(monkeypatch):
    """Lay charts out but do not draw them, which takes most of the time: for tests of words and numbers."""
    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", lambda _, file, **__: file.write(UNDRAWN))


def report(folder, out):
    return main(["report", str(folder), "--out", str(out)])


class Reader(HTMLParser):
    """Collects tags with their attributes, text, and the rows of tables; refuses tags that do not match."""

    VOID = {"meta", "img"}

    def __init__(self, html):
        super().__init__()
        self.tags, self.open, self.words, self.rows = [], [], [], []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td"):
            self.rows[-1].append("")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)
        if {"th", "td"} & set(self.open):
            self.rows[-1][-1] += data

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def row(self, *start):
        """The row that begins so."""
        rows = [[" ".join(cell.split()) for cell in row] for row in self.rows]
        return next(row for row in rows if row[: len(start)] == list(start))


def test_the_page_says_from_which_cosine_on_a_pair_is_one_person(page, tmp_path, undrawn):
    reader = Reader(page.read_text())
    rows = [row[1:] for row in reader.rows if row[1:2] == ["0.2500.200 to 0.438"]]
    assert rows == 2 * len(MODELS) * [["0.2500.200 to 0.438", "0.4120.200 to 0.438"]]
    assert "orl: thresholds by false accept rate" in reader.text
    strangers, older = verification(known_people=False), verification()
    for result in older["sets"]["orl"]["results"].values():
        del result["cosine_at_far"]
    for content, count in ((strangers, len(MODELS)), (older, 0)):
        write(tmp_path / "verification.json", content)
        assert report(tmp_path, tmp_path / "a.html") == 0
        rows = Reader((tmp_path / "a.html").read_text()).rows
        assert [row[1:] for row in rows].count(["0.250", "0.412"]) == count


def test_every_result_is_on_the_page(run, page):
    reader = Reader(page.read_text())
    student = verification()["sets"]["orl"]["results"]["student"]
    low, high = student["intervals"]["accuracy"]
    row = next(row for row in reader.rows if row[0].split() == ["student"] and "±" in row[1])
    assert row[1] == f"{100 * student['accuracy']:.2f} ± 2.13{100 * low:.1f}–{100 * high:.1f}"
    assert row[3].startswith(f"{100 * student['tar_at_far']['0.1']:.2f}")
    heads = [row for row in reader.rows if row[:2] == ["", "accuracy"]]
    assert heads == 2 * [["", "accuracy", "exact threshold", "TAR at 10⁻¹", "TAR at 10⁻²", "AUC", "EER"]]
    assert "95\xa0% confidence by bootstrap over people, 2,000 samples" in page.read_text()
    assert "student generates faces with SSIM 0.750 to the mean face of the person" in page.read_text()
    rank_1 = identification()["models"]["teacher"]["sizes"]["1000"]["rank_1"]
    assert reader.row("", "10", "100", "1,000", "10,000") == [
        *("", "10", "100", "1,000", "10,000"),
        "TAR at 10⁻⁵",
    ]
    teacher = next(row for row in reader.rows if row[-1] == f"{10 * MODELS['teacher']:.2f}")
    assert teacher[0].strip() == "teacher"
    assert teacher[3] == f"{100 * rank_1:.2f}"
    assert "The pairs resolve no false accept rate of 10⁻⁶ or below." in reader.text
    assert ["73.21", "61.00*", "80.00", "90.00"] in [row[1:] for row in reader.rows]
    assert reader.row("", "TAR at 10⁻⁴", "TPIR at 10⁻²")
    assert ["74.11", "50.00"] in [row[1:] for row in reader.rows]
    assert "1:N in G1 alone" in reader.text
    assert ["43.21", "81.00"] in [row[1:] for row in reader.rows]
    assert reader.row("train.weight_decay") == ["train.weight_decay", "0.0005", "0.0005"]
    assert reader.row("filter.k") == ["filter.k", "–", "3"]
    assert PROVENANCE["command"] in reader.text
    assert f"latse report {run}" in reader.text
    assert "Figure 4 is left out: the student was trained without a filter." in reader.text


def test_without_a_run_of_the_papers_its_tables_are_not_there(run, page):
    reader = Reader(page.read_text())
    assert "Table 1." not in reader.text and "not run" not in reader.text
    command = f"latse tables --runs {run} --data CASIA=FOLDER"
    assert reader.row("the paper’s tables") == ["the paper’s tables", command]
    assert reader.text.count("Not here") == 2  # in the list of sections, and its heading


def test_a_row_of_the_paper_that_was_run_stands_beside_it(tmp_path):
    folder = tmp_path / "casia"
    record = {**run_record("student", 24000), "recipe": "casia_student", "changed": {}}
    write(folder / "student" / "run.json", record)
    result = verification(("calfw",))
    result["models"]["student"] = {
        "source": f"{folder}/student/model,0",
        **{key: record[key] for key in ("recipe", "seed", "settings")},
    }
    write(folder / "student" / "verification.json", result)
    assert report(folder, tmp_path / "r.html") == 0
    reader = Reader((tmp_path / "r.html").read_text())
    ours = f"{100 * result['sets']['calfw']['results']['student']['accuracy']:.2f}"
    row = next(row for row in reader.rows if row[0].startswith("LinearFace+TS+Gen"))
    assert row[1:4] == ["94.58", "–", ours]
    assert reader.row("LinearFace")[1:4] == ["93.30", "–", "not run"]
    assert [number for number in range(1, 7) if f"Table {number}." in reader.text] == [4]
    assert not [row for row in reader.rows if row[0] == "the paper’s tables"]
    assert "trained on 30 people instead of the 10,572" in reader.text


def test_a_change_while_it_ran_is_said(tmp_path):
    change = {"iteration": 90, "key": "schedule.learning_rate", "from": 0.2, "to": 0.1}
    write(tmp_path / "one" / "teacher" / "run.json", {**run_record("teacher", 600), "changes": [change]})
    assert report(tmp_path / "one", tmp_path / "r.html") == 0
    text = Reader((tmp_path / "r.html").read_text()).text
    assert "teacher: schedule.learning_rate 0.2 until iteration 90, then 0.1" in text


def test_the_page_needs_nothing_but_itself(page):
    html = page.read_text()
    reader = Reader(html)
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in reader.tags}
    addresses = [
        value
        for _, attributes in reader.tags
        for name, value in attributes.items()
        if name in ("src", "href", "xlink:href", "srcset", "action")
    ]
    assert addresses
    assert all(address.startswith(("#", "data:image/")) for address in addresses)
    assert "@import" not in html
    assert set(re.findall(r"url\(.", html)) <= {"url(#"}
    identifiers = [attributes["id"] for _, attributes in reader.tags if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    targets = {address[1:] for address in addresses if address.startswith("#")}
    assert targets | set(re.findall(r"url\(#([^)]*)\)", html)) <= set(identifiers)


def test_charts_take_their_colours_from_the_style_sheet(page):
    charts = re.findall(r'<svg class="chart".*?</svg>', page.read_text(), flags=re.DOTALL)
    # For each set a ROC and four histograms; rank 1 and CMC; four panels of training.
    assert len(charts) == 2 * 5 + 2 + 4
    defined = set(re.findall(r"--([\w-]+):", page.read_text()))
    for chart in charts:
        assert not re.search(r"(fill|stroke): *#", chart)
        assert set(re.findall(r"var\(--([\w-]+)\)", chart)) <= defined


def test_the_same_results_give_the_same_page(run, page):
    before = page.read_bytes()
    assert report(run, page) == 0
    assert page.read_bytes() == before


def test_charts_are_told_apart_without_being_seen(page):
    labels = [
        attributes["aria-label"]
        for tag, attributes in Reader(page.read_text()).tags
        if tag == "svg" and "aria-label" in attributes
    ]
    assert len(labels) == len(set(labels)) == 2 * 5 + 2 + 4
    assert {"ROC on orl", "Similarities of dlib on cross-pose", "Learning rate"} <= set(labels)


def test_words_of_the_user_are_no_markup(tmp_path):
    folder = fill(tmp_path / "<b>run</b> & more")
    result = verification()
    results = result["sets"]["orl"]["results"]
    title = "<script>alert('$x$')</script>"
    result["models"][title], results[title] = {"source": "x"}, results["student"]
    write(folder / "student" / "verification.json", result)
    assert report(folder, tmp_path / "r.html") == 0
    reader = Reader((tmp_path / "r.html").read_text())
    assert "script" not in {tag for tag, _ in reader.tags}
    assert title in reader.text
    assert "<b>run</b> & more" in reader.text
    assert "Ten people <restored>." in reader.text


def test_what_is_absent_is_said_once(tmp_path):
    folder = tmp_path / "a bare run"
    write(folder / "teacher" / "metrics.jsonl", metrics(decoder=False))
    assert report(folder, tmp_path / "r.html") == 0
    reader = Reader((tmp_path / "r.html").read_text())
    judged_by = {"verification": "eval", "identification": "identify", "templates": "templates"}
    for kind, command in judged_by.items():
        words = shlex.split(reader.row(kind)[1])
        assert words[:4] == ["latse", command, "--model", str(folder)]
        assert words[-2:] == ["--json", str(folder / f"{kind}.json")]
    figures_command = f"latse figures --run FOLDER --data FOLDER --pairs FILE.bin --out '{folder}/figures'"
    assert reader.row("figures") == ["figures", figures_command]
    assert reader.row("settings") == ["settings", f"latse train RECIPE --data FOLDER --out '{folder}'"]
    assert reader.text.count("by the command beside it") == 1
    assert [row for row in reader.rows if row[0] == "training"] == []
    headings = re.findall("<h2>(.*)</h2>", (tmp_path / "r.html").read_text())
    assert headings == ["Training", "Provenance", "Not here"]
    assert "Discrimination loss" in reader.text
    assert "Generated faces" not in reader.text


def test_a_folder_of_results_alone_says_that_nothing_was_trained(tmp_path):
    write(tmp_path / "out" / "verification.json", verification())
    assert report(tmp_path / "out", tmp_path / "r.html") == 0
    reader = Reader((tmp_path / "r.html").read_text())
    for kind in ("training", "settings"):
        assert reader.row(kind) == [kind, f"latse train RECIPE --data FOLDER --out {tmp_path / 'out'}"]


def test_the_tables_of_a_study_are_shown_as_they_are(tmp_path, capsys):
    path = tmp_path / "out" / "study.json"
    found = {
        "margins": [["", "what it changes", "accuracy, %"], ["arc & <b>", "margin.m2: 0.5", "91.00 ± 1.00"]]
    }
    content = {"kind": "study", "provenance": PROVENANCE, "recipe": "orl_teacher", "tables": found}
    write(path, content)
    assert report(tmp_path / "out", tmp_path / "r.html") == 0
    reader = Reader((tmp_path / "r.html").read_text())
    assert reader.row("arc & <b>") == found["margins"][1]
    assert "What orl_teacher gives where each row changes something of it." in reader.text
    (tmp_path / "out" / "dots.svg").write_text("<svg/>")
    write(path, {**content, "plots": {"dots": "dots.svg"}})
    assert report(tmp_path / "out", tmp_path / "r.html") == 0
    assert "data:image/svg+xml;base64," in (tmp_path / "r.html").read_text()
    write(path, {**content, "tables": {"margins": []}})
    assert report(tmp_path / "out", tmp_path / "r.html") == 1
    assert "study.json: tables.margins is [], must be a list of at least 1" in capsys.readouterr().err


def run_of(folder, *titles):
    """Write a run, and what `latse eval` said of models where there are any, under a name of one's own."""
    write(folder / "run.json", run_record("teacher", 40))
    write(folder / "metrics.jsonl", metrics(decoder=False))
    if titles:
        result = verification()
        judged_models = {title: judged(2 + number) for number, title in enumerate(titles)}
        result["models"] = {title: {"source": f"{folder}/model,0"} for title in titles}
        result["sets"]["orl"]["results"] = judged_models
        write(folder / "judged.json", result)
    return folder


@pytest.mark.parametrize("titles", [(), ("mine",), ("mine", "pixels")])
def test_a_single_run_of_any_name_has_a_page(tmp_path, titles):
    run = run_of(tmp_path / "mine", *titles)
    assert report(run, tmp_path / "r.html") == 0
    reader = Reader((tmp_path / "r.html").read_text())
    assert reader.row("train.iterations") == ["train.iterations", "40"]
    assert "Discrimination loss" in reader.text
    assert (f"latse eval --model {run} --pairs FILE.bin" in reader.text) == (not titles)
    assert f"latse identify --model {run} --probes FILE.bin" in reader.text
    for number, title in enumerate(titles):
        accuracy = f"{100 * judged(2 + number)['accuracy']:.2f} ±"
        assert any(row[0].split() == [title] and row[1].startswith(accuracy) for row in reader.rows)


def test_a_page_replaces_a_page_and_nothing_else(tmp_path, capsys):
    run_of(tmp_path / "run")
    page, recipe = tmp_path / "r.html", tmp_path / "recipe.yaml"
    for older in ("", "<!DOCTYPE html>"):
        page.write_text(older)
        assert report(tmp_path / "run", page) == 0
        assert len(page.read_text()) > 1000
    recipe.write_text("base: orl_teacher")
    capsys.readouterr()
    assert report(tmp_path / "run", recipe) == 1
    assert capsys.readouterr().err == f"latse: {recipe} is there and no HTML: choose another name\n"
    assert recipe.read_text() == "base: orl_teacher"


def test_each_of_several_runs_is_shown_with_its_own_results(tmp_path):
    """Also where eval's file lies beside the runs, and where both judged models have one name."""
    out = tmp_path / "out"
    first, second = run_of(out / "a", "model"), run_of(out / "b", "model")
    write(out / "beside.json", verification())
    write(out / "notes.json", ["not", "a", "result"])
    write(out / "other.json", {"kind": ["neither"]})
    (out / "out").mkdir()
    assert report(out, tmp_path / "r.html") == 0
    html = (tmp_path / "r.html").read_text()
    reader = Reader(html)
    assert reader.row("train.iterations") == ["train.iterations", "40", "40"]
    for file in ("beside.json", "a/judged.json", "b/judged.json"):
        assert f"Verification in {file}" in reader.text
        assert f"ROC on orl in {file}" in html
    sources = [row[1] for row in reader.rows if row[0].startswith("model") and len(row) == 2]
    assert {f"{first}/model,0", f"{second}/model,0"} <= {*sources}
    anchors = [attributes["id"] for _, attributes in reader.tags if "id" in attributes]
    assert len(anchors) == len(set(anchors))


@pytest.mark.usefixtures("undrawn")
def test_a_run_in_the_folder_of_a_run_keeps_its_own_name(tmp_path):
    run_of(run_of(tmp_path / "mine", "outer") / "mine", "inner")
    assert report(tmp_path / "mine", tmp_path / "r.html") == 0
    reader = Reader((tmp_path / "r.html").read_text())
    assert reader.row("", "mine") == ["", "mine", "mine/mine"]


def test_without_people_there_are_no_intervals(tmp_path):
    folder = fill(tmp_path / "run", known_people=False)
    assert report(folder, tmp_path / "r.html") == 0
    text = Reader((tmp_path / "r.html").read_text()).text
    assert "Who is in the pairs is not known, so there are no confidence intervals." in text
    assert "bootstrap" not in text
    assert "Band:" not in text


def test_pairs_of_one_kind_have_an_accuracy_and_no_rates(tmp_path):
    folder = fill(tmp_path / "run", known_people=False)
    result = verification(known_people=False)
    for judged_model in result["sets"]["orl"]["results"].values():
        judged_model.update(tar_at_far=dict.fromkeys(FARS), unresolved_far=list(FARS), auc=None, eer=None)
        judged_model["roc"] = {"far": [], "tar": [], "low": None, "high": None}
        judged_model["histogram"]["different"] = [0] * 80
    write(folder / "student" / "verification.json", result)
    assert report(folder, tmp_path / "r.html") == 0
    row = next(row for row in Reader((tmp_path / "r.html").read_text()).rows if "± 2.13" in "".join(row))
    assert row[3:] == ["–", "–"]


@pytest.mark.usefixtures("undrawn")
def test_a_val_stands_beside_the_rate_that_it_was_reached_at(tmp_path):
    """Few pairs reach another than the wanted 0.1 %."""
    folder = fill(tmp_path / "run")
    result = verification()
    for judged_model in result["sets"]["orl"]["results"].values():
        judged_model["val_at_far_1e-3"] = {"val": 0.7889, "std": 0.1, "far": 0.0074}
    write(folder / "student" / "verification.json", result)
    assert report(folder, tmp_path / "r.html") == 0
    rows = Reader((tmp_path / "r.html").read_text()).rows
    assert any(row[-1] == "VAL at FAR" for row in rows)
    assert any(row[-1].split() == ["78.89", "at", "0.74"] for row in rows)


@pytest.mark.usefixtures("undrawn")
def test_models_need_not_be_judged_on_all(tmp_path):
    folder = fill(tmp_path / "run", sets=("a", "b"))
    result = verification(("a", "b"))
    del result["sets"]["b"]["results"]["dlib"]
    write(folder / "student" / "verification.json", result)
    found = identification()
    del found["models"]["pixels"]["sizes"]["10000"]
    write(folder / "student" / "identification.json", found)
    assert report(folder, tmp_path / "r.html") == 0
    reader = Reader((tmp_path / "r.html").read_text())
    assert next(row for row in reader.rows if row[0].split() == ["dlib"])[2] == "–"
    assert next(row for row in reader.rows if "pixels" in row[0] and row[-1] == "7.00")[4] == "–"


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("left_out", "sentence"),
    [
        ({"probes": 11, "distractors": 1707}, "Left out as noise: 11 probes and 1,707 distractors."),
        ({"probes": None, "distractors": 707}, "Left out as noise: 707 distractors."),
        ({"probes": None, "distractors": None}, None),
    ],
)
def test_noise_that_was_left_out_is_said(tmp_path, left_out, sentence):
    folder = fill(tmp_path / "run")
    write(folder / "student" / "identification.json", {**identification(), "left_out": left_out})
    assert report(folder, tmp_path / "r.html") == 0
    text = Reader((tmp_path / "r.html").read_text()).text
    assert sentence in text if sentence else "Left out" not in text


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    "file, content, complaint",
    [
        ("student/verification.json", "{", "verification.json is damaged: it is not JSON"),
        ("student/verification.json", "[]", 'verification.json: its kind is null, must be "verification"'),
        (
            "student/verification.json",
            {"kind": "templates"},
            'its kind is "templates", must be "verification"',
        ),
        (
            "student/templates.json",
            {"kind": "templates", "provenance": {}},
            "templates.json lacks the key models, which must be an object with keys",
        ),
        (
            "student/identification.json",
            {**identification(), "models": {"a": {"sizes": {}}}},
            "identification.json: models.a.sizes is {}, must be an object with at least 1 key",
        ),
        (
            "figures/figures.json",
            {"kind": "figures", "provenance": {}, "figures": {"1": {"file": "gone.png", "caption": ""}}},
            "gone.png: No such file",
        ),
        (
            "figures/figures.json",
            {"kind": "figures", "provenance": {}, "figures": {"1": {"file": "a.html", "caption": ""}}},
            "a.html: a picture of the report must be one of .png, .svg, .jpg",
        ),
        (
            "student/verification.json",
            {"kind": "verification", "provenance": {}, "models": {"a": 3}, "sets": {}},
            "verification.json: models.a is 3, must be an object with keys\n",
        ),
        (
            "student/verification.json",
            {"kind": "verification", "provenance": {}, "models": {}, "sets": {}},
            "verification.json: models is {}, must be an object with at least 1 key\n",
        ),
        (
            "student/templates.json",
            {"kind": "templates", "provenance": {}, "models": {"a": {"origin": 3}}},
            "templates.json: models.a.origin is 3, must be an object with keys\n",
        ),
        (
            "teacher/run.json",
            {"recipe": "orl_teacher", "data": {}, "settings": {"train": []}},
            "teacher/run.json: settings.train is [], must be an object with keys\n",
        ),
        (
            "student/run.json",
            {"recipe": "orl_student"},
            "student/run.json lacks the key settings, which must be an object",
        ),
        (
            "student/run.json",
            {"recipe": "casia_student", "seed": 0, "settings": {}, "changed": {}},
            "student/run.json lacks the key data, which must be an object",
        ),
        ("teacher/metrics.jsonl", "{}\n", "line 1 lacks the key iteration, which must be a number"),
    ],
)
def test_damage_is_one_sentence_and_leaves_an_old_page(tmp_path, capsys, file, content, complaint):
    folder, out = fill(tmp_path / "run"), tmp_path / "r.html"
    out.write_text("<old>")
    write(folder / file, content)
    assert report(folder, out) == 1
    error = capsys.readouterr().err
    assert error.startswith("latse: ")
    assert error.count("\n") == 1
    assert complaint in error
    assert str(folder / file).rpartition("/")[0] in error
    assert out.read_text() == "<old>"


def test_a_missing_key_is_named(tmp_path, capsys):
    folder = fill(tmp_path / "run")
    result = verification()
    del result["sets"]["orl"]["results"]["pixels"]["roc"]
    write(folder / "student" / "verification.json", result)
    assert report(folder, tmp_path / "r.html") == 1
    assert (
        "verification.json lacks the key sets.orl.results.pixels.roc, which must be an object"
        in capsys.readouterr().err
    )


def test_a_folder_without_results_is_no_run(tmp_path, capsys):
    assert report(tmp_path / "nowhere", tmp_path / "r.html") == 1
    assert "nowhere is no folder of a run" in capsys.readouterr().err
    assert report(tmp_path, tmp_path / "r.html") == 1
    assert "holds no result" in capsys.readouterr().err


def test_lines_differ_in_colour_and_style():
    looks = report_charts.looks([str(number) for number in range(56)])
    assert len(set(looks.values())) == 56


@pytest.mark.parametrize(
    "value, text", [(1e-06, "10⁻⁶"), (0.1, "10⁻¹"), (1, "10⁰"), (1e10, "10¹⁰"), (0.003, "0.003"), (0, "0")]
)
def test_powers_of_ten_are_written_as_such(value, text):
    assert report_charts.power(value) == text


def chromium(page, *arguments):
    """Show a page in a chromium with a profile of its own, and return what it prints."""
    profile = page.parent / "profile"
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += [f"--user-data-dir={profile}", *arguments, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


def screenshot(page, width, height, *arguments):
    path = page.parent / "screenshot.png"
    chromium(page, f"--window-size={width},{height}", f"--screenshot={path}", *arguments)
    picture = cv2.imread(str(path))
    assert picture.shape == (height, width, 3)
    return picture


@in_chromium
def test_a_desktop_shows_it_by_day_and_by_night(page):
    day = screenshot(page, 1280, 1600)
    night = screenshot(page, 1280, 1600, "--blink-settings=preferredColorScheme=0")
    assert day[5, 5].min() > 240
    assert night[5, 5].max() < 40
    for picture in (day, night):  # neither text nor lines vanish in the paper
        ground = picture[5, 5].astype(int)
        assert (np.abs(picture.astype(int) - ground).max(axis=2) > 100).mean() > 0.02


@in_chromium
def test_a_telephone_need_not_be_scrolled_sideways(page):
    measured = page.parent / "telephone.html"
    measured.write_text(
        f"""<iframe src="{page.name}" style="border:0;width:390px;height:800px"></iframe><script>
        onload = () => {{
          const root = document.querySelector("iframe").contentDocument.documentElement;
          document.body.innerHTML = `<p>${{root.clientWidth}} ${{root.scrollWidth}}</p>`;
        }}</script>"""
    )
    dom = chromium(measured, "--allow-file-access-from-files", "--dump-dom")
    assert re.search(r"<p>(\d+) (\d+)</p>", dom).groups() == ("390", "390")


@in_chromium
def test_it_prints(page):
    path = page.parent / "report.pdf"
    chromium(page, "--no-pdf-header-footer", f"--print-to-pdf={path}")
    pdf = path.read_bytes()
    assert pdf.startswith(b"%PDF")
    assert 3 <= len(re.findall(rb"/Type\s*/Page[^s]", pdf)) <= 14
