"""`latse bench loader`: what it prints and writes is what it measured."""

import json
import tracemalloc

import numpy as np
import pytest

from latse.bench import loader_command as loader
from latse.bench.result import read
from latse.bench.timing import ratios
from latse.cli import main
from latse.data.shards.records import Shard

PEER = """
import mxnet as mx

print("chatter")

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
    printed, result = capsys.readouterr().out, read(tmp_path / "out.json")
    for name, found in report["contenders"].items():
        for figure in found.values():
            assert 0 < figure["min"] <= figure["median"] <= figure["max"]
        assert result.contenders[name]["images per CPU second"].in_words() in printed and name in printed
    per_cpu = {name: found["images per CPU second"]["values"] for name, found in report["contenders"].items()}
    for one in report["goals"]:
        peer = one["text"].rpartition("over ")[2]
        assert one["figure"]["values"] == ratios(per_cpu["ours, 1 thread"], per_cpu[peer])
        assert one.get("at_least") == (2 if peer == "FaceImageIter" else None)
    assert all(goal.in_words() in printed for goal in result.goals)
    assert ("FaceImageIter is not run" in printed) is not with_peer
    assert "chatter" not in printed


def test_made_up_images_weigh_what_faces_do(tmp_path):
    shard = Shard(loader.make_shard(tmp_path, 41))
    assert (len(shard), shard.classes, shard.image_size) == (41, 3, (112, 112))
    assert np.bincount(shard.labels).tolist() == [20, 20, 1]
    assert all(5000 < len(shard.content(position)) < 8500 for position in range(41))
    assert np.abs(shard.read(0)[0].astype(int) - loader.random_image(0)).mean() < 5
    assert (loader.random_image(3) == loader.random_image(3)).all()
    assert (loader.random_image(3) != loader.random_image(4)).any()


def test_made_up_images_are_not_kept_in_memory(tmp_path):
    peaks = []
    for images in (40, 400):
        tracemalloc.start()
        loader.make_shard(tmp_path / str(images), images)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 1 << 20  # 360 more of 7 KB are 2.5 MB


@pytest.mark.parametrize(
    "wrong, complaint",
    [
        (["--images", "0"], "--images is 0, must be 1 to 2147483647"),
        (["--images", "5"], "5 images do not fill a batch of 64"),
        (["--threads", "0"], "--threads is 0, must be 1 to 2147483647"),
        (["--data", "nowhere"], "nowhere is no training set"),
        (["--images", "64", "--peer", "no/file.py"], "cannot take FaceImageIter from no/file.py"),
        (["--images", "64", "--peer", __file__], "has no attribute 'FaceImageIter'"),
    ],
)
def test_what_the_loaders_benchmark_refuses(wrong, complaint, capsys):
    assert main(["bench", "loader", *wrong]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert complaint in error
