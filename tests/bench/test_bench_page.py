"""The page of the benchmarks: every number is one of the JSON files', and what is written by hand stays."""

import argparse
import json
import shutil
import sys
from pathlib import Path

import cv2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latse import provenance as provenances
from latse import recipe as recipes
from latse.bench import all_command as suite
from latse.bench import head_command as head
from latse.bench.page_command import cell
from latse.bench.result import read
from latse.cli import main
from latse.errors import LatseError
from latse.files import write_json
from latse.goals import Figure, Goal, number


def figure(values, unit=""):
    return Figure.of(values, unit).as_json()


def goal(text, values, unit="", **bound):
    return Goal.of(text, values, unit, **bound).as_json()


def result(kind="bench train", speed=(1.7, 1.62, 1.66), **changes):
    """A result as a benchmark writes it."""
    contenders = {
        "ours": {"step": figure([12.5, 12.0, 13.0], "s"), "peak": figure([2310.4], "MiB")},
        "a|b": {"step": figure([20.0, 21.0, 22.0], "s")},
    }
    goals = [
        goal("images/s of ours over theirs", speed, at_least=1.6),
        goal("planned memory", [870.0], at_most=850, unit="MiB"),
        goal("time over faiss", [0.5, 0.52, 0.55]),
    ]
    args = argparse.Namespace(command_line=["bench", "train", "--encoder", "res net"])
    return {
        "kind": kind,
        "provenance": provenances.provenance(args),
        "setting": {"batch_size": 32, "peers": None, "sizes": {"threads": [1, 2]}},
        "contenders": contenders,
        "goals": goals,
        **changes,
    }


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "results"
    write_json(path / "train-resnet34.json", result())
    return path


@pytest.fixture
def page(folder, capsys):
    """Write the pages of `folder`; return the text of the details or the summary, and what was printed."""

    def write(*options, summary=False):
        out = folder.parent / "docs" / "performance.md"
        assert main(["bench", "page", str(folder), "--out", str(out), *options]) == 0
        shown = out if summary else out.with_name("performance_details.md")
        return shown.read_text(), capsys.readouterr().out

    return write


def test_it_says_what_was_measured_how_and_where(page, folder):
    origin = json.loads((folder / "train-resnet34.json").read_text())["provenance"]
    text, printed = page()
    assert "    latse bench train --encoder 'res net'\n" in text
    assert "batch size 32; sizes.threads 1 / 2." in text
    assert f"{origin['machine']['processor']}, {origin['machine']['processors']} processors" in text
    assert f"{origin['commit'].rstrip('+')}" in text and origin["date"] in text
    assert "|  | step, s | peak, MiB |" in text
    assert "| ours | 12.5 (12 to 13) | 2,310 |" in text
    assert "| a\\|b | 21 (20 to 22) | – |" in text
    assert "| images/s of ours over theirs | 1.66 (1.62 to 1.7) | at least 1.6 | met |" in text
    assert "| planned memory | 870 MiB | at most 850 MiB | **missed** |" in text
    assert "| time over faiss | 0.52 (0.5 to 0.55) | – | information |" in text
    assert "missed: train-resnet34: planned memory: 870 MiB, at most 850 MiB; no note says why" in printed


def test_the_summary_has_every_goal_with_its_verdict_and_why_it_is_missed(page, folder):
    notes = folder.parent / "docs" / "performance_notes"
    notes.mkdir(parents=True)
    (notes / "train-resnet34.md").write_text("arrays are\nlarge\n\nMore of it.")
    content = result(goals=[*result()["goals"], goal("resident | memory", [1.0], at_least=3)])
    write_json(folder / "train-resnet34.json", content)
    text, _ = page(summary=True)
    rows = [line for line in text.splitlines() if line.startswith("|")][2:]
    link = "[train-resnet34](performance_details.md#train-resnet34)"
    assert rows == [
        f"| {link} | images/s of ours over theirs | 1.66 (1.62 to 1.7) | at least 1.6 | met |",
        "|  | planned memory | 870 MiB | at most 850 MiB | **missed**: arrays are large |",
        "|  | resident \\| memory | 1 | at least 3 | **missed** |",
    ]
    assert "1 of 3 goals are met." in text and "More of it" not in text
    assert "[Every figure](performance_details.md)" in text
    assert '<a id="train-resnet34"></a>' in page()[0]


def test_a_changed_figure_changes_the_page_and_nothing_else_does(page, folder):
    before, _ = page()
    assert page()[0] == before
    file = folder / "train-resnet34.json"
    content = json.loads(file.read_text())
    content["contenders"]["ours"]["step"].update(median=12.75)
    content["goals"][0] = goal("images/s of ours over theirs", [1.5], at_least=1.6)
    write_json(file, content)
    after, _ = page()
    assert "| ours | 12.8 (12 to 13) |" in after
    assert "| images/s of ours over theirs | 1.5 | at least 1.6 | **missed** |" in after
    kept = [line for line in before.splitlines() if "12.5" not in line and "1.66" not in line]
    assert {*kept} <= {*after.splitlines()}
    assert "0 of 2 goals are met" in page(summary=True)[0]


def test_what_is_written_by_hand_stays(page, folder):
    notes = folder.parent / "docs" / "performance_notes"
    notes.mkdir(parents=True)
    (notes / "train-resnet34.md").write_text("Because of *this* & that.\n")
    (notes / "details.md").write_text("Read slowly.")
    (notes / "introduction.md").write_text("Read first.")
    (notes / "gone.md").write_text("Of a result that is no longer there.")
    text, printed = page()
    assert text.index("Read slowly.") < text.index("## Training step")
    assert text.index("**missed**") < text.index("Because of *this* & that.\n")
    assert "Read first." not in text and "Read first." in page(summary=True)[0]
    assert "the note gone.md has no result" in printed and "no longer" not in text
    assert "no note says why" not in printed
    other = folder.parent / "other"
    other.mkdir()
    assert "Read slowly." not in page("--notes", str(other))[0]


def test_every_commit_is_named(page, folder):
    content = result("bench head")
    content["provenance"]["commit"] = "0123456789ab"
    write_json(folder / "head.json", content)
    text, _ = page()
    assert "Measured at several commits: commit " in text
    assert "commit 0123456789ab (head)" in text
    assert "commit 0123456789ab; " in text[text.index("## Margin head") :]
    (folder / "train-resnet34.json").unlink()
    assert "Everything was measured at commit 0123456789ab.\n" in page()[0]


def test_results_of_one_kind_have_their_names_in_the_headings(page, folder):
    assert "## Training step\n" in page()[0]
    write_json(folder / "train-resnet50.json", result())
    write_json(folder / "bank.json", result("bench bank"))
    text, _ = page()
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert headings == [
        "## Training step: train-resnet34",
        "## Training step: train-resnet50",
        "## Mean-face bank",
    ]


def test_the_chart_grows_with_the_goals(page, folder):
    chart = folder.parent / "docs" / "images" / "performance.png"
    text, _ = page("--chart", str(chart), summary=True)
    assert "](images/performance.png)" in text
    small = cv2.imread(str(chart))
    write_json(folder / "train-resnet50.json", result(speed=[1.1]))
    page("--chart", str(chart))
    large = cv2.imread(str(chart))
    assert large.shape[0] > small.shape[0] and large.shape[1] == small.shape[1]
    missed = (abs(large.astype(int) - (0, 0x5E, 0xD5)).max(axis=2) < 8).sum()
    assert missed > (abs(small.astype(int) - (0, 0x5E, 0xD5)).max(axis=2) < 8).sum() > 100


@pytest.mark.parametrize("path", ["performance.md", "performance_details.md"])
def test_the_pages_of_the_repository_are_those_of_its_results(path, tmp_path):
    docs = Path(__file__).parents[2] / "docs"
    out, notes = tmp_path / "performance.md", docs / "performance_notes"
    chart = tmp_path / "images" / "performance.png"
    options = ["--out", str(out), "--notes", str(notes), "--chart", str(chart)]
    assert main(["bench", "page", str(docs / "performance_results"), *options]) == 0
    assert (tmp_path / path).read_text() == (docs / path).read_text()
    height, width = cv2.imread(str(chart)).shape[:2]
    assert height <= 1000 and width <= 1400  # a screen


@pytest.mark.parametrize(
    "goals", [[], [goal("rows", [0.0], at_most=0)], [goal("share", [-0.01], at_most=0.03)]]
)
def test_a_chart_without_ratios_is_a_chart(page, folder, goals):
    write_json(folder / "train-resnet34.json", result(goals=goals))
    chart = folder.parent / "chart.png"
    page("--chart", str(chart))
    assert cv2.imread(str(chart)) is not None


def damaged(**changes):
    return json.dumps({**result(), **changes})


FALLING = {"ours": {"step": {"unit": "s", "median": 1.0, "min": 2.0, "max": 3.0}}}


@pytest.mark.parametrize(
    "content, complaint",
    [
        ("{", "is damaged: it is not JSON"),
        ("[]", "is no result of a benchmark: its kind is null"),
        ('{"kind": "verification"}', 'is no result of a benchmark: its kind is "verification"'),
        ('{"kind": ["bench head"]}', "is no result of a benchmark"),
        ('{"kind": "bench head"}', "x.json lacks the key provenance, which must be an object"),
        (
            damaged(provenance={"command": "x"}),
            "x.json lacks the key provenance.device, which must be a text",
        ),
        (damaged(provenance=3), "x.json: provenance is 3, must be an object"),
        (damaged(setting=[]), "x.json: setting is [], must be an object"),
        (damaged(contenders={"ours": {"step": 3}}), "contenders.ours.step is 3, must be null or an object"),
        (damaged(contenders=FALLING), "a median is 1, must be from its min 2 to its max 3"),
        (damaged(goals=[{"text": "x"}]), "x.json lacks the key goals[0].figure, which must be an object"),
        (damaged(goals=[{**goal("x", [1.0], at_least=1), "at_most": 2}]), "the goal 'x' has two bounds"),
        (
            damaged(goals=[{**goal("x", [1.0]), "at_most": "2"}]),
            'goals[0].at_most is "2", must be null or a number',
        ),
        (damaged(goals=[{**goal("x", [1.0]), "text": 7}]), "goals[0].text is 7, must be a text"),
    ],
)
def test_another_file_is_refused_in_one_sentence(folder, capsys, content, complaint):
    (folder / "x.json").write_text(content)
    out = folder.parent / "page.md"
    assert main(["bench", "page", str(folder), "--out", str(out)]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and str(folder / "x.json") in error and complaint in error
    assert not out.exists()


def test_a_folder_without_results_is_refused(tmp_path, capsys):
    assert main(["bench", "page", str(tmp_path), "--out", str(tmp_path / "p.md")]) == 1
    assert "holds no result of a benchmark" in capsys.readouterr().err


def test_a_figure_in_two_units_is_refused(folder, capsys):
    contenders = {"a": {"step": figure([1.0], "s")}, "b": {"step": figure([1.0], "ms")}}
    write_json(folder / "x.json", result(contenders=contenders))
    assert main(["bench", "page", str(folder), "--out", str(folder / "p.md")]) == 1
    assert "is given in 's' and in 'ms'" in capsys.readouterr().err


def test_a_real_benchmark_goes_through_the_page(folder, page, capsys, monkeypatch):
    monkeypatch.setattr(head, "in_child", lambda *_: 1.5)  # three processes' time; tests of head have it
    file = folder / "head.json"
    size = ["--classes", "100", "--batch-size", "4", "--repeats", "1"]
    assert main(["bench", "head", *size, "--json", str(file)]) == 0
    capsys.readouterr()
    found = read(file)
    text, _ = page()
    section = text[text.index("## Margin head") :]
    step = found.contenders["ours"]["step"].median
    assert f"| ours | {number(1000 * step)} |" in section
    assert f"    latse bench head {' '.join(size)} --json " in section


@given(st.floats(0.01, 1e6), st.floats(0.01, 1e6), st.booleans())
def test_the_page_and_the_benchmark_judge_alike(value, limit, least):
    written = Goal.of("x", [value], **{"at_least" if least else "at_most": limit})
    back = Goal.read(json.loads(json.dumps(written.as_json())))
    assert back.met == (value >= limit if least else value <= limit)
    assert written.in_words().endswith(": met") == back.met
    assert back.judged.endswith(": met") == back.met


def test_a_median_does_not_look_like_the_bound_that_it_misses():
    one = Goal("x", Figure("", 1.5995, 1.5, 1.7), 1.6, None)
    assert (one.measured, one.wanted) == ("1.599 (1.5 to 1.7)", "at least 1.6") and one.met is False
    assert Goal("x", Figure("s", 1.6, 1.6, 1.6), 1.6, None).measured == "1.6 s"


@pytest.mark.parametrize(
    "value, text", [(85742, "85,742"), (850.4, "850"), (1.625, "1.62"), (2.2e-6, "2.2e-06"), (0, "0")]
)
def test_numbers(value, text):
    assert number(value) == text


def test_cells():
    assert cell("a |\n b") == "a \\| b"


# `latse bench all`


@pytest.fixture
def calls(monkeypatch, tmp_path):
    """Replace every benchmark's process by one that keeps its words and writes a result, or fails."""
    made, failing, commit = [], set(), ["0123456789ab"]
    monkeypatch.setattr(provenances, "commit", lambda folder: commit[0])
    monkeypatch.setattr(provenances, "is_same_code", lambda folder, other: other == commit[0])

    def run(command, check):
        words = command[command.index("latse") + 1 :]
        name = words[-1].rpartition("/")[2][: -len(".json")]
        made.append((name, command))
        if name not in failing:
            args = argparse.Namespace(command_line=words)
            write_json(words[-1], {**result(), "provenance": provenances.provenance(args)})
        return argparse.Namespace(returncode=int(name in failing))

    monkeypatch.setattr(suite.subprocess, "run", run)
    return argparse.Namespace(made=made, failing=failing, commit=commit)


def bench_all(folder, *options):
    return main(["bench", "all", str(folder), *options])


def test_all_runs_once_and_what_is_missing_again(tmp_path, calls, capsys):
    calls.failing.update({"bank", "head"})
    assert bench_all(tmp_path) == 1
    names = [one.name for one in suite.jobs(None)]
    assert [name for name, *_ in calls.made] == names
    assert f"2 of {len(names)} benchmarks failed: bank, head" in capsys.readouterr().err
    calls.made.clear()
    calls.failing.clear()
    assert bench_all(tmp_path) == 0
    assert [name for name, *_ in calls.made] == ["bank", "head"]
    assert capsys.readouterr().out.count("its result is there") == len(names) - 2


@pytest.mark.parametrize(
    "change", ["commit", "unknown commit", "no commit", "changed files", "command", "machine", "damage"]
)
def test_a_result_of_something_else_is_measured_again(tmp_path, calls, monkeypatch, change):
    options = ["--only", "head"]
    if change == "changed files":
        calls.commit[0] += "+"
    assert bench_all(tmp_path, *options) == 0
    if change == "commit":
        calls.commit[0] = "ba9876543210"
    elif change == "unknown commit":
        calls.commit[0] = None
    elif change == "no commit":
        content = json.loads((tmp_path / "head.json").read_text())
        content["provenance"]["commit"] = f"--output={tmp_path / 'head.json'}"
        write_json(tmp_path / "head.json", content)
    elif change == "machine":
        monkeypatch.setattr(provenances, "machine", lambda: {"processor": "another"})
    elif change == "damage":
        (tmp_path / "head.json").write_text("{")
    elif change == "command":
        smaller = suite.Job("head", ("bench", "head", "--repeats", "3"))
        monkeypatch.setattr(suite, "jobs", lambda peers: [smaller])
    assert bench_all(tmp_path, *options) == 0
    assert len(calls.made) == 2


def test_one_core_is_one_thread_on_one_processor(tmp_path, calls):
    assert bench_all(tmp_path, "--only", "head", "search") == 0
    (_, pinned), (_, free) = calls.made
    assert pinned[:2] == ["env", "OMP_NUM_THREADS=1"]
    if shutil.which("taskset"):
        assert pinned[2:4] == ["taskset", "-c"] and pinned[4].isdigit()
    assert free[:3] == [sys.executable, "-m", "latse"]


def test_peers_reach_those_that_use_them(tmp_path, calls):
    reader = tmp_path / "peers" / suite.FACE_IMAGE_ITER
    reader.parent.mkdir(parents=True)
    reader.touch()
    assert bench_all(tmp_path / "out", "--peers", str(tmp_path / "peers")) == 0
    commands = {name: " ".join(command) for name, command in calls.made}
    assert f" --peer {reader} " in commands["loader"]
    assert f" --peers {tmp_path / 'peers'} " in commands["train-resnet34"]
    assert "--peer" not in commands["head"]


def test_it_works_from_any_folder_and_leaves_the_plans_of_others_alone(tmp_path, calls, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert bench_all(tmp_path / "out") == 0
    planning = [words for _, words in calls.made if "plan" in words]
    assert len(planning) == 4
    for words in planning:
        assert recipes.find(words[words.index("plan") + 1]).is_file()
        assert "bench" in words or words[words.index("--out") + 1].startswith(f"{tmp_path}/out/plans/")


def test_an_unknown_name_is_refused(tmp_path, capsys):
    assert bench_all(tmp_path, "--only", "heat") == 1
    assert "there is no benchmark 'heat': --only takes train-resnet34" in capsys.readouterr().err


def test_read_names_the_file(tmp_path):
    with pytest.raises(LatseError, match="cannot read .*missing.json"):
        read(tmp_path / "missing.json")
