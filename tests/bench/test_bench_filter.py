"""`latse bench filter`: the made-up teacher is as believed, and what is written and printed was measured."""

import argparse
import json

import numpy as np
import pytest

from latse.bench import filter_command as bench_filter
from latse.bench.result import read
from latse.cli import main
from latse.data.shards.records import Shard
from latse.models import checkpoint
from latse.models.embedding import Network

SIZES = argparse.Namespace(encoder="resnet_tiny", classes=40, batch_size=4, repeats=2)


def test_the_teacher_believes_three_labels_of_four(tmp_path):
    bench_filter._make_set(tmp_path / "data", SIZES)
    shard = Shard(tmp_path / "data")
    assert len(shard) == bench_filter.BATCHES * SIZES.batch_size and shard.classes == SIZES.classes
    assert len(set(shard.labels.tolist())) == len(shard)
    bench_filter._make_teacher(tmp_path / "teacher", SIZES, shard)
    embeddings = Network(tmp_path / "teacher", 0)(shard.batch(np.arange(len(shard))).image)
    centres = checkpoint.load(tmp_path / "teacher", 0)[1]["fc7_weight"].asnumpy()
    cosines = embeddings @ (centres / np.linalg.norm(centres, axis=1, keepdims=True)).T
    likeliest = cosines.argmax(axis=1) == shard.labels
    assert likeliest.tolist() == [position % 4 > 0 for position in range(len(shard))]


@pytest.fixture(scope="module")
def measured(tmp_path_factory, one_process):
    """The file that a benchmark of a narrow encoder and a narrow decoder writes."""
    folder = tmp_path_factory.mktemp("bench")
    narrow, out = folder / "narrow.yaml", folder / "filter.json"
    narrow.write_text(f"base: {bench_filter.RECIPE}\ndecoder: {{widths: [64, 64, 32, 32]}}\n")
    sizes = ["--encoder", "resnet_tiny", "--classes", "20", "--batch-size", "2", "--repeats", "1"]
    with pytest.MonkeyPatch.context() as patch, one_process():
        patch.setattr(bench_filter, "RECIPE", str(narrow))
        assert main(["bench", "filter", *sizes, "--json", str(out)]) == 0
    return out


def test_what_is_written_was_measured(measured):
    result, content = read(measured), json.loads(measured.read_text())
    assert result.kind == "bench filter"
    assert result.setting["kept"] == "0.75" and result.setting["images"] == "8"
    steps = {title: found["step"]["values"] for title, found in content["contenders"].items()}
    *students, stored = steps
    assert len(students) == 4 and len(steps[stored]) == 1 and steps[stored][0] > 0
    plain, filtered, latse, asked = (np.array(steps[title]) for title in students)
    expected = [latse / plain, filtered / plain, asked / plain, 1 - filtered / latse]
    for goal, values in zip(result.goals, expected):
        assert goal.figure.median == pytest.approx(np.median(values))
    assert result.goals[0].at_most == 1.35
    assert result.goals[-1].figure.max == 0 and result.goals[-1].at_most == 0
    for title in students:
        assert result.contenders[title]["peak memory"].median > 0
        assert result.contenders[title]["processor time"].min > 0
    # Without its decoder a student of a narrow encoder is far smaller.
    memory = [result.contenders[title]["peak memory"].median for title in students]
    assert max(memory[:2]) < min(memory[2:])


@pytest.mark.parametrize(
    "wrong, complaint",
    [
        (["--batch-size", "3"], "--batch-size 3: must be even"),
        (["--batch-size", "0"], "--batch-size is 0, must be 2 to 2147483647"),
        (["--classes", "1"], "--classes is 1, must be 2 to 2147483647"),
        (["--repeats", "0"], "--repeats is 0, must be 1 to 2147483647"),
        (["--encoder", "resnet7"], "unknown encoder 'resnet7'"),
    ],
)
def test_what_is_refused(wrong, complaint, capsys):
    assert main(["bench", "filter", *wrong]) == 1
    error = capsys.readouterr().err
    assert complaint in error and error.count("\n") == 1
