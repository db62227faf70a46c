"""The campaign's own command, on a stand-in for `latse` that does what should not happen."""

import importlib.util
import json
import sys
from pathlib import Path

import chaos_trial
import pytest

SPEC = importlib.util.spec_from_file_location("chaos_run", Path(__file__).with_name("run.py"))
run = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(run)

# It trains by writing a line an iteration, and goes on from the lines that are there.
STAND_IN = """
import json, os, signal, subprocess, sys, time
from pathlib import Path

def end(*_):
    if DEED == "no sentence":
        sys.exit(143)
    if DEED == "traceback":
        1 / 0
    if DEED == "temporary file":
        (out / ".state.params.1.part").touch()
    if DEED == "child":
        subprocess.Popen(["sleep", "60"], start_new_session=True)
    if DEED == "hang":
        time.sleep(60)
    if DEED != "no effect":
        print("latse: interrupted: checkpoint at iteration 1")
        sys.exit(1 if DEED == "status" else 143)

signal.signal(signal.SIGTERM, end)
out = Path(sys.argv[sys.argv.index("--out") + 1])
out.mkdir(exist_ok=True)
metrics = out / "metrics.jsonl"
begin = len(metrics.read_text().splitlines()) if metrics.exists() else 0
for iteration in range(begin + 1, 17):
    time.sleep(0.05)
    loss = 1 if DEED == "other numbers" and begin else 0
    with metrics.open("a") as file:
        file.write(json.dumps({"iteration": iteration, "loss": loss, "seconds": time.time()}) + "\\n")
(out / "model-symbol.json").write_text("{}")
"""


@pytest.mark.parametrize(
    ("deed", "why"),
    [
        ("", ""),
        ("status", "ended with status 1, not 143"),
        ("no sentence", "did not say why"),
        ("traceback", "printed a traceback"),
        ("temporary file", ".state.params.1.part is left"),
        ("child", "is left"),
        ("hang", "hung: no end within 4 s"),
        ("no effect", "no effect, 2 times"),
        ("other numbers", "metrics differs"),
    ],
)
def test_what_should_not_happen_is_lost(tmp_path, monkeypatch, capsys, deed, why):
    (tmp_path / "latse.py").write_text(f"DEED = {deed!r}\n{STAND_IN}")
    monkeypatch.setattr(chaos_trial, "LATSE", (sys.executable, str(tmp_path / "latse.py")))
    monkeypatch.setattr(chaos_trial, "SURVIVING", 0.2)
    monkeypatch.setattr(run, "TRIES", 2)
    words = ["--faults", "8", "--kinds", "^SIGTERM$", "--out", str(tmp_path / "out")]
    words += ["--json", str(tmp_path / "chaos.json")]
    if deed == "hang":
        words += ["--limit", "4"]
    assert run.main(words) == (1 if deed else 0)
    (line,) = map(json.loads, (tmp_path / "out" / "faults.jsonl").read_text().splitlines())
    assert line["outcome"] == ("lost" if deed else "survived") and why in line["why"]
    counts = json.loads((tmp_path / "chaos.json").read_text())
    assert (counts["faults"], counts["lost"]) == (1, int(bool(deed)))
    assert capsys.readouterr().out.count("| SIGTERM | 1 |") == 1


def test_it_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    (tmp_path / "latse.py").write_text(f"DEED = ''\n{STAND_IN}")
    monkeypatch.setattr(chaos_trial, "LATSE", (sys.executable, str(tmp_path / "latse.py")))
    words = ["--faults", "8", "--kinds", "^SIGTERM$", "^kill -9 in", "--out", str(tmp_path)]
    done = {"number": 1, "seed": 0, "kind": "kill -9 in a checkpoint", "outcome": "survived"}
    results = tmp_path / "faults.jsonl"
    results.write_text(json.dumps({**done, "why": "", "seconds": 1.0}) + "\n")
    assert run.main(words) == 0
    assert [json.loads(line)["number"] for line in results.read_text().splitlines()] == [1, 4]


def test_the_page_shows_what_was_measured():
    docs = Path(__file__).parents[2] / "docs"
    found = json.loads((docs / "reliability_results" / "chaos.json").read_text())
    page = (docs / "reliability.md").read_text()
    assert run.table(found["kinds"]) in page
    assert f"{found['faults']} faults with seed {found['seed']}" in page
    assert found["lost"] == 0
