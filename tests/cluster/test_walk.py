"""docs/distributed.md: its commands lead from one device to two hosts, in this order, as printed."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from latse.cluster import launch_command

PAGE = (Path(__file__).parents[2] / "docs" / "distributed.md").read_text()
SECTION = re.search(r"^## From one GPU.*?(?=^## )", PAGE, re.MULTILINE | re.DOTALL)[0]
COMMANDS = [
    shlex.split(" ".join(text.split("\\\n")))
    for text in re.findall(r"^    (latse (?:.*\\\n)*.*)$", SECTION, re.MULTILINE)
]
SSH = """\
#!/bin/sh
exec sh -c "$4"
"""
LATSE = sys.executable, "-m", "latse"


@pytest.fixture
def walked(people, pairs_file, tiny, small_encoder, tmp_path):
    """Turn the words of the page into those of a small run here."""
    data, recipe = tmp_path / "data", tmp_path / "small.yaml"
    (data / "out").mkdir(parents=True)
    (data / "faces_webface_112x112").symlink_to(people)
    recipe.write_text(f"base: {tiny}\nencoder: {{name: '{small_encoder}'}}\ntrain: {{iterations: 12}}\n")
    (tmp_path / "hosts.txt").write_text("127.0.0.1\n127.0.0.2\n")
    (tmp_path / "ssh").write_text(SSH)
    (tmp_path / "ssh").chmod(0o755)
    devices = {"0": "1", "0,1,2,3": "2", "0,1,2,3,4,5,6,7": "2"}
    numbers = {
        "batch_size=96": "batch_size=4",
        "iterations=100": "iterations=2",
        "iterations=150": "iterations=4",
        "iterations=1000": "iterations=6",
        "every=50": "every=1",
        "every=500": "every=2",
    }

    def turned(word, before):
        if before == "--gpus":
            return devices[word]
        if before == "--cpus":
            return "2"
        if word.endswith("lfw.bin"):
            return str(pairs_file)
        word = {"--gpus": "--cpus", "casia_teacher": str(recipe)}.get(word, word)
        word = re.sub(r"(batch_size|iterations|every)=\d+$", lambda found: numbers[found[0]], word)
        return word.replace("/data/", f"{data}/")

    def command(words):
        found = [turned(*pair) for pair in zip(words, ["", *words])]
        if found[1] == "launch":
            found[2:2] = "--port", str(launch_command._free_port())
        return [part for word in found for part in (LATSE if word == "latse" else [word])]

    return command


@pytest.mark.deep
def test_the_walk_reaches_two_hosts(walked, tmp_path):
    assert COMMANDS[0] == ["latse", "check-gpu"]  # tests/bench has it
    for words in COMMANDS[1:]:
        done = subprocess.run(
            walked(words),
            cwd=tmp_path,
            env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, (words, done.stdout, done.stderr)
    folder = tmp_path / "data" / "out" / "teacher"
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["iteration"] == 12
    assert json.loads((folder / "run.json").read_text())["settings"]["train"]["kvstore"] == "dist_sync_device"


def test_all_steps_are_on_the_page():
    assert [words[1] for words in COMMANDS] == [
        "check-gpu",
        "train",
        "launch",
        "train",
        "plan",
        "launch",
        "eval",
    ]
