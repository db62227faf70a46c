"""The report, made of made-up result files; where chromium is installed, looked at in it."""

import json
import math
import shutil

import cv2
import numpy as np
import pytest

from latse.cli import main

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
    "untrained": 0.8,
    "pixels": 0.7,
    "pca": 1.0,
    "fisherfaces": 1.8,
    "dlib": 3.4,
}
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
        }
        if known_people
        else None,
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
            "tar_at_far": {"1e-06": 0.4},
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
        "tar_at_far": {"1e-05": 0.61, "0.0001": 0.7321},
        "tpir_at_fpir": {"0.01": 0.5},
        "rank": {"1": 0.8, "5": 0.9},
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


def test_a_run_becomes_one_page(tmp_path):
    run = fill(tmp_path / "orl")
    assert main(["report", str(run), "--out", str(tmp_path / "report.html")]) == 0
    assert "<h1>orl</h1>" in (tmp_path / "report.html").read_text()
