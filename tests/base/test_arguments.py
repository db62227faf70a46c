"""Help and usage errors, which are to come at once."""

import subprocess
import sys

import pytest

from latse.cli import COMMANDS, main

# Each takes longer to import than a parser may take to answer.
SLOW = ("mxnet", "cv2", "sklearn", "pandas", "matplotlib", "scipy", "skimage")
PARSE = f"""
import sys
from latse.cli import main

for words in sys.argv[1:]:
    try:
        main(words.split())
    except SystemExit as end:
        assert end.code == (0 if "--help" in words else 2), words
    slow = {set(SLOW)} & sys.modules.keys()
    assert not slow, f"{{words}} imports {{slow}}"
"""


def test_help_and_usage_errors_import_nothing_slow():
    """What costs the second that one would wait; all in one process, where the first to blame is named."""
    words = [text for name in COMMANDS for text in (f"{name} --help", f"{name} --unknown")]
    done = subprocess.run(
        [sys.executable, "-c", PARSE, "--help", "", "unknown", *words],
        capture_output=True,
        check=False,
        text=True,
    )
    assert done.returncode == 0, done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    "command", ["data pack {file} {out}", "data check {file}", "eval --model pca --pairs {file}"]
)
def test_a_report_replaces_no_input(tmp_path, capsys, command):
    file = tmp_path / "list"
    file.write_text("a.png\tann\n")
    words = command.format(file=file, out=tmp_path / "out").split()
    assert main([*words, "--json", str(file)]) == 1
    assert capsys.readouterr().err == (
        f"latse: {file} is there and no JSON: choose another name for the report\n"
    )
    assert main([*words, "--json", str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"latse: {tmp_path} is not a regular file\n"
    assert file.read_text() == "a.png\tann\n" and [*tmp_path.iterdir()] == [file]


def test_a_report_replaces_an_older_one(people, tmp_path):
    for content in ("", "[]\n", '{"sound": 0}'):
        (tmp_path / "report").write_text(content)
        words = "data", "check", str(people), "--processes", "1", "--json", str(tmp_path / "report")
        assert main([*words]) == 0
        assert '"sound": true' in (tmp_path / "report").read_text()
