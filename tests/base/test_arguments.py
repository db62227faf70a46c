"""Help and usage errors, which are to come at once."""

import subprocess
import sys

import pytest

from latse.cli import main

# Each takes longer to import than a parser may take to answer.
SLOW = ("mxnet", "cv2", "sklearn", "pandas", "matplotlib", "scipy", "skimage")
PARSE = f"""
import argparse
import sys
from latse.cli import COMMANDS, _parser, main


def answers_at_once(line):
    try:
        main(line.split())
    except SystemExit as end:
        assert end.code == (0 if "--help" in line else 2), line
    slow = {set(SLOW)} & sys.modules.keys()
    assert not slow, f"latse {{line}} imports {{slow}}"


def walk(line, parser):
    answers_at_once(f"{{line}} --help")
    answers_at_once(f"{{line}} --unknown")
    print(line, file=sys.stderr)  # for the test, which looks who was asked
    for name, inner in commands(parser).items():
        walk(f"{{line}} {{name}}", inner)


def commands(parser):
    choices = [each.choices for each in parser._actions if isinstance(each, argparse._SubParsersAction)]
    return choices[0] if choices else {{}}


for line in ("--help", "", "unknown"):
    answers_at_once(line)
for name in COMMANDS:
    walk(name, commands(_parser([name]))[name])
"""


def test_help_and_usage_errors_import_nothing_slow():
    """What costs the second that one would wait; all in one process, where the first to blame is named."""
    done = subprocess.run([sys.executable, "-c", PARSE], capture_output=True, check=False, text=True)
    said = done.stderr.splitlines()
    assert done.returncode == 0, said[-1]
    assert {"data pack", "margins plot", "bench train", "bench page", "encoders", "import"} <= {*said}


MISTYPED = f"""
import sys
from latse.cli import main

for line in sys.stdin.read().splitlines():
    assert main(line.split()) == 1, line
    slow = {set(SLOW)} & sys.modules.keys()
    assert not slow, f"latse {{line}} imports {{slow}}"
"""
NO_CHECKPOINT = (
    "'out/nowhere' is no checkpoint, for there is no out/nowhere-0000.params: write PREFIX,NUMBER, "
)
NO_MODEL = NO_CHECKPOINT.replace("checkpoint", "model").replace("write ", "WHAT is one of ")


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("eval --model pixels out/nowhere", NO_MODEL),
        ("eval --model student=out/nowhere", NO_MODEL),
        ("data overlap x --pairs y --model out/nowhere", NO_MODEL),
        ("eval --model run/model,7", "the checkpoint file run/model-0007.params is missing"),
        ("eval --model run/model,0", "the checkpoint file run/model-symbol.json is missing"),
        ("eval --model run", "run is a folder without a run's model-symbol.json and model-0000.params"),
        ("eval --model none.onnx", "the ONNX file none.onnx is missing"),
        ("eval --model none.npy", "the file of features none.npy is missing"),
        ("eval --model run/run.npy", "the file of features run/run.npy is missing"),
        ("eval --model pixel", "; did you mean pixels?"),
        ("embed fisherface faces --out f.npy", "; did you mean fisherfaces?"),
        ("compare a.jpg b.jpg --model out/nowhere", NO_MODEL),
        ("identify --probes x.bin --model out/nowhere", NO_MODEL),
        ("templates --data x --model out/nowhere", NO_MODEL),
        ("filter --data x --out y --teacher out/nowhere", NO_CHECKPOINT),
        ("train orl_student --data x --out y --teacher out/nowhere", NO_CHECKPOINT),
        ("train orl_teacher --data x --out y --resume --start out/nowhere", NO_CHECKPOINT),
        ("export out/nowhere --onnx x.onnx", NO_CHECKPOINT),
        ("import out/nowhere --out y", NO_CHECKPOINT),
    ],
)
def test_a_mistyped_model_is_answered_at_once(tmp_path, line, sentence):
    (tmp_path / "run" / "run.npy").mkdir(parents=True)
    (tmp_path / "run" / "model-0000.params").touch()
    done = subprocess.run(
        [sys.executable, "-c", MISTYPED],
        input=line,
        cwd=tmp_path,
        capture_output=True,
        check=False,
        text=True,
    )
    (said,) = done.stderr.splitlines()
    assert done.returncode == 0 and said.startswith("latse: ") and sentence in said
    assert ("did you mean" in said) == ("did you mean" in sentence)


@pytest.mark.parametrize(
    "command", ["data pack {file} {out}", "data check {file}", "eval --model pca --pairs {file}"]
)
def test_a_report_replaces_no_input(tmp_path, capsys, command):
    file = tmp_path / "list"
    file.write_text("a.png\tann\n")
    words = command.format(file=file, out=tmp_path / "out").split()
    assert main([*words, "--json", str(file)]) == 1
    assert capsys.readouterr().err == (f"latse: {file} is there and no JSON: choose another name\n")
    assert main([*words, "--json", str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"latse: {tmp_path} is not a regular file\n"
    assert file.read_text() == "a.png\tann\n" and [*tmp_path.iterdir()] == [file]


def test_a_report_replaces_an_older_one(people, tmp_path):
    for content in ("", "[]\n", '{"sound": 0}'):
        (tmp_path / "report").write_text(content)
        words = "data", "check", str(people), "--processes", "1", "--json", str(tmp_path / "report")
        assert main([*words]) == 0
        assert '"sound": true' in (tmp_path / "report").read_text()


@pytest.mark.parametrize(
    ("words", "before"),
    [
        (["data", "merge", "one", "other", ""], "other"),
        (["data", "unpack", "", "out"], "unpack"),
        (["train", "tiny", "--data", "one", "--out="], "--out"),
        (["train", "tiny", "--data", "one", "--out", "out", "--teacher", ""], "--teacher"),
        (["", "data"], "latse"),
    ],
)
def test_an_empty_argument_is_no_path(tmp_path, monkeypatch, capsys, words, before):
    """A variable of the shell that is not set gives one, and as a path it would be the present folder."""
    monkeypatch.chdir(tmp_path)
    assert main(words) == 1
    assert capsys.readouterr().err == f"latse: the argument after {before} is empty\n"
    assert not [*tmp_path.iterdir()]
