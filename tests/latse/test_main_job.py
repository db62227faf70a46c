"""The main job from photographs to judgement, on few people and few iterations, through the command line."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

RECIPES = Path(__file__).parents[2] / "recipes"
SHORT = ["--set", "train.iterations=3", "--set", "train.batch_size=4", "--set", "schedule.warmup=0"]
REFERENCES = {"raw_pixels", "whitened_pca", "fisherfaces", "untrained", "teacher"}


def latse(*arguments):
    """Run `latse ARGUMENTS` and return what it prints."""
    command = [sys.executable, "-m", "latse", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_faces_to_shards_to_teacher_to_student_to_judgement(tmp_path):
    data, teacher, student = tmp_path / "data", tmp_path / "teacher", tmp_path / "student"
    latse("data", "fetch-orl", "--out", data, "--train-people", "1-12", "--test-people", "13-15")
    latse("train", RECIPES / "orl_teacher.yaml", "--data", data, "--out", teacher, *SHORT)
    latse(
        *("train", RECIPES / "orl_student.yaml", "--data", data, "--out", student, *SHORT),
        *("--teacher", f"{teacher}/model,0"),
    )
    table = latse(
        *("eval", "--model", f"{student}/model,0", "--teacher", f"{teacher}/model,0"),
        *("--untrained", f"{student}/untrained,0", "--pairs", data / "orl.bin", "--train-data", data),
        *("--json", student / "verification.json", "--figure", student / "faces.png"),
    )
    result = json.loads((student / "verification.json").read_text())
    orl = result["orl"]
    assert 0 <= orl["accuracy"] <= 1 and orl["std"] >= 0 and set(orl["tar_at_far"]) >= {"0.01", "0.001"}
    assert set(orl["references"]) == REFERENCES and all(0 <= v <= 1 for v in orl["references"].values())
    assert (result["recipe"], result["seed"]) == ("orl_student", 0) and "mxnet" in result["versions"]
    assert f"{100 * orl['accuracy']:.2f}" in table
    picture = cv2.imread(str(student / "faces.png"))
    assert min(picture.shape[:2]) > 200 and np.std(picture) > 10
    lines = [json.loads(line) for line in (student / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["iteration"] == 3 and {"l1", "ssim", "kept"} <= set(lines[-1])
