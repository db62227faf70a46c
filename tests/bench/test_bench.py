"""The benchmarks: what they compare is the same, and what they print and write is what they measured."""

import json

import mxnet as mx
import numpy as np
import pytest

from latse import goals
from latse.bench import head_command as head
from latse.bench import loader_command as loader
from latse.bench import timing
from latse.cli import main
from latse.data.shards.records import Shard


def test_all_heads_have_the_same_gradients():
    gradients = []
    for name in head.GRAPHS:
        executor = head._bound(name, classes=50, batch_size=6)
        head._step(executor)
        gradients.append([executor.grad_dict[key].asnumpy() for key in ("data", "fc7_weight")])
    *others, ours = gradients
    for other in others:
        for theirs, own in zip(other, ours):
            assert np.linalg.norm(theirs - own) < 1e-4 * np.linalg.norm(own)


def test_head_measures_and_writes(tmp_path, capsys):
    arguments = ["--classes", "3000", "--batch-size", "64", "--repeats", "2"]
    assert main(["bench", "head", *arguments, "--json", str(tmp_path / "head.json")]) == 0
    report = json.loads((tmp_path / "head.json").read_text())
    assert report["kind"] == "bench head" and "mxnet" in report["provenance"]["versions"]
    setting = {"classes": 3000, "batch_size": 64, "repeats": 2}
    assert report["setting"] == {**setting, "threads": report["provenance"]["threads"]}
    printed = capsys.readouterr().out
    for found in report["contenders"].values():
        step = found["step"]
        assert 0 < step["min"] <= step["median"] <= step["max"] and len(step["values"]) == 2
        assert f"{1000 * step['median']:.0f} (" in printed
    planned = {name: found["planned memory"]["median"] for name, found in report["contenders"].items()}
    assert 0 < planned["ours"] <= planned["one-hot"] / 2
    *faster, memory, arrays = report["goals"]
    assert [one["at_least"] for one in faster] == [1.5, 1.5]
    for one, name in zip(faster, ("one-hot", "one-hot, loss")):
        times = [report["contenders"][which]["step"]["values"] for which in (name, "ours")]
        assert one["figure"]["values"] == timing.ratios(*times)
        assert goals.verdict(one) in printed
    assert memory["figure"]["median"] == pytest.approx(planned["ours"] / planned["one-hot"])
    assert arrays["figure"]["median"] == pytest.approx(planned["ours"] / (64 * 3000 * 4 / 2**20))


def test_the_heads_plan_is_one_array_of_logits():
    """At 85,742 people and 96 images: the goals are 2.2 such arrays, and half of what one-hot plans."""
    classes, batch_size = 85742, 96
    planned = {
        name: head.planned_megabytes(graph(classes), head._shapes(batch_size), mx.cpu())
        for name, graph in head.GRAPHS.items()
    }
    logits = batch_size * classes * 4 / 2**20
    assert planned["ours"] <= 2.2 * logits
    assert planned["ours"] <= planned["one-hot"] / 2


@pytest.mark.parametrize("wrong", [["--classes", "1"], ["--batch-size", "0"], ["--repeats", "0"]])
def test_a_size_out_of_range_is_one_sentence(wrong, capsys):
    assert main(["bench", "head", *wrong]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_steps_are_run_in_turn_after_a_first_round():
    calls = []
    steps = {name: lambda name=name: calls.append(name) for name in "ab"}
    seconds = timing.in_turn(steps, 3)
    assert "".join(calls) == "ab" * 4
    assert {name: len(times) for name, times in seconds.items()} == {"a": 3, "b": 3}


def test_summaries():
    assert goals.summary([3.0, 1.0, 2.0]) == {"median": 2.0, "min": 1.0, "max": 3.0}
    assert timing.ratios([4.0, 9.0], [2.0, 3.0]) == [2.0, 3.0]


PEER = """
import mxnet as mx

class FaceImageIter(mx.image.ImageIter):
    def __init__(self, batch_size, data_shape, path_imgrec, shuffle, rand_mirror):
        print("chatter")
        index = path_imgrec[:-4] + ".idx"
        super().__init__(batch_size, data_shape, path_imgrec=path_imgrec, path_imgidx=index, shuffle=shuffle,
                         rand_mirror=rand_mirror, last_batch_handle="discard")
"""


@pytest.mark.parametrize("with_peer", [False, True])
def test_loader_measures_and_writes(tmp_path, capsys, with_peer):
    (tmp_path / "peer.py").write_text(PEER)
    arguments = [
        "--images",
        "70",
        "--batch-size",
        "16",
        "--repeats",
        "2",
        "--json",
        str(tmp_path / "out.json"),
    ]
    arguments += ["--peer", str(tmp_path / "peer.py")] * with_peer
    assert main(["bench", "loader", *arguments]) == 0
    report = json.loads((tmp_path / "out.json").read_text())
    peers = {"mx.io.ImageRecordIter", "mx.io.ImageRecordUInt8Iter"} | (
        {"FaceImageIter"} if with_peer else set()
    )
    setting = report["setting"]
    assert (setting["images"], setting["batch_size"], setting["repeats"]) == (70, 16, 2)
    assert {one["text"].rpartition("over ")[2] for one in report["goals"]} == peers
    assert set(report["contenders"]) - peers == {
        "ours, 1 thread",
        "ours, 2 threads",
        "ours, 1 thread, float32 NDArray",
    }
    printed = capsys.readouterr().out
    for name, found in report["contenders"].items():
        for figure in found.values():
            assert 0 < figure["min"] <= figure["median"] <= figure["max"]
        assert f"{found['images per CPU second']['median']:.0f} (" in printed and name in printed
    per_cpu = {name: found["images per CPU second"]["values"] for name, found in report["contenders"].items()}
    for one in report["goals"]:
        peer = one["text"].rpartition("over ")[2]
        assert one["figure"]["values"] == timing.ratios(per_cpu["ours, 1 thread"], per_cpu[peer])
        assert one.get("at_least") == (2 if peer == "FaceImageIter" else None)
        assert goals.verdict(one) in printed
    assert ("not run" in printed) is not with_peer
    assert "chatter" not in printed


def test_made_up_images_weigh_what_faces_do(tmp_path):
    shard = Shard(loader.make_shard(tmp_path, 41))
    assert (len(shard), shard.classes, shard.image_size) == (41, 3, (112, 112))
    assert np.bincount(shard.labels).tolist() == [20, 20, 1]
    assert all(5000 < len(shard.content(position)) < 8500 for position in range(41))
    assert np.abs(shard.read(0)[0].astype(int) - loader.random_image(0)).mean() < 5
    assert (loader.random_image(3) == loader.random_image(3)).all()
    assert (loader.random_image(3) != loader.random_image(4)).any()


@pytest.mark.parametrize(
    "wrong, complaint",
    [
        (["--images", "0"], "--images is 0"),
        (["--images", "5"], "5 images do not fill a batch of 64"),
        (["--threads", "0"], "must be at least 1"),
        (["--data", "nowhere"], "cannot read nowhere/property"),
        (["--images", "64", "--peer", "no/file.py"], "cannot take FaceImageIter from no/file.py"),
        (["--images", "64", "--peer", __file__], "has no attribute 'FaceImageIter'"),
    ],
)
def test_what_the_loaders_benchmark_refuses(wrong, complaint, capsys):
    assert main(["bench", "loader", *wrong]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert complaint in error
