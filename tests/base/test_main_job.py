"""The main job from photographs to judgement, on few people and few iterations, through the command line."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from latse.cli import main

RECIPES = Path(__file__).parents[2] / "recipes"
SHORT = ["--set", "train.iterations=3", "--set", "train.batch_size=4", "--set", "schedule.warmup=0"]
MODELS = ["student", "teacher", "untrained", "pixels", "pca", "fisherfaces"]


@pytest.fixture
def latse(capsys):
    """Run `latse ARGUMENTS` and return what it prints."""

    def run(*arguments):
        status, said = main([*map(str, arguments)]), capsys.readouterr()
        assert status == 0, said.err
        return said.out

    return run


@pytest.mark.slow
def test_faces_to_shards_to_teacher_to_student_to_judgement(tmp_path, latse):
    data, teacher, student = tmp_path / "data", tmp_path / "teacher", tmp_path / "student"
    latse("data", "fetch-orl", "--out", data, "--train-people", "1-12", "--test-people", "13-15")
    latse("train", RECIPES / "orl_teacher.yaml", "--data", data, "--out", teacher, *SHORT)
    latse(
        *("train", RECIPES / "orl_student.yaml", "--data", data, "--out", student, *SHORT),
        *("--teacher", f"{teacher}/model,0"),
    )
    table = latse(
        *("eval", "--model", f"student={student}/model,0", f"teacher={teacher}/model,0"),
        *(f"untrained={student}/untrained,0", "pixels", "pca", "fisherfaces", "--train-data", data),
        *("--pairs", data / "orl.bin", "--samples", 50),
        *("--json", student / "verification.json", "--figure", student / "faces.png"),
    )
    result = json.loads((student / "verification.json").read_text())
    orl = result["sets"]["orl"]
    assert list(orl["results"]) == list(result["models"]) == MODELS and orl["people"] == 3
    for found in orl["results"].values():
        low, high = found["intervals"]["accuracy"]
        assert 0 <= low <= high <= 1 and 0 <= found["accuracy"] <= 1 and found["std"] >= 0
        assert set(found["tar_at_far"]) >= {"0.01", "0.001"}
    origin = result["models"]["student"]
    assert (origin["recipe"], origin["seed"]) == ("orl_student", 0)
    assert "mxnet" in result["provenance"]["versions"]
    assert f"{100 * orl['results']['student']['accuracy']:.2f}" in table
    picture = cv2.imread(str(student / "faces.png"))
    assert min(picture.shape[:2]) > 200 and np.std(picture) > 10
    lines = [json.loads(line) for line in (student / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["iteration"] == 3 and {"l1", "ssim", "kept"} <= set(lines[-1])
