import json

import mxnet as mx
import numpy as np
import pytest

from latse.bench import embed_command as embed
from latse.cli import main
from latse.models.embedding import Network
from latse.symbols import encoders
from latse.symbols.networks import trace

pytest.importorskip("onnxruntime")


def test_the_benchmark_measures_all_ways_on_one_network(tmp_path):
    arguments = ["--encoder", "resnet_tiny", "--batch-size", "2", "--repeats", "2"]
    assert main(["bench", "embed", *arguments, "--json", str(tmp_path / "b.json")]) == 0
    report = json.loads((tmp_path / "b.json").read_text())
    product = report["contenders"].pop("matrix product")
    assert product["multiply-adds"]["min"] > 0
    assert list(report["contenders"]) == ["Module", "Module, LeakyReLU", "onnxruntime", "ours"]
    for way in report["contenders"].values():
        assert way["relative error"]["median"] < 1e-5
        assert way["images"]["min"] > 0
        # as many for an image, however it is computed
        assert way["multiply-adds"]["min"] / way["images"]["min"] == pytest.approx(
            embed.multiply_adds(encoder_symbol("resnet_tiny"), (3, 112, 112)) / 1e9
        )
    ours = report["contenders"]["ours"]["images"]["values"]
    for one in report["goals"]:
        peer = one["text"].rpartition("over ")[2]
        theirs = report["contenders"][peer]["images"]["values"]
        assert one["figure"]["values"] == pytest.approx([a / b for a, b in zip(ours, theirs)])
    assert {one.get("at_least") for one in report["goals"]} == {None, 1.15}
    assert report["provenance"]["command"].startswith("latse bench embed")


def encoder_symbol(name):
    return trace(encoders.create(name))


def test_multiplications_are_counted_layer_by_layer():
    data = mx.sym.var("data")
    x = mx.sym.Convolution(data, name="a", kernel=(3, 3), num_filter=8, stride=(2, 2), pad=(1, 1))
    x = mx.sym.Convolution(x, name="b", kernel=(1, 1), num_filter=8, num_group=8)  # not counted
    x = mx.sym.FullyConnected(x, name="c", num_hidden=5)
    x = mx.sym.identity(x, name="fc1")
    convolution, dense = 8 * 6 * 6 * 3 * 3 * 3, 5 * 8 * 6 * 6
    assert embed.multiply_adds(x, (3, 12, 12)) == convolution + dense


def test_a_checkpoint_can_be_measured(tmp_path):
    prefix, number = embed.random_checkpoint(tmp_path, "resnet_tiny")
    arguments = ["--model", f"{prefix},{number}", "--batch-size", "1", "--repeats", "1"]
    assert main(["bench", "embed", *arguments]) == 0


def test_the_random_network_tells_images_apart(tmp_path):
    network = Network(*embed.random_checkpoint(tmp_path, "resnet_tiny"))
    one, other = network(np.random.default_rng(0).integers(0, 256, (2, 3, 112, 112), np.uint8))
    assert np.isfinite(one).all()
    assert np.linalg.norm(one - other) > 0.01 * np.linalg.norm(one)


@pytest.mark.parametrize(
    "wrong, complaint",
    [
        (["--batch-size", "0"], "--batch-size is 0, must be 1 to 2147483647"),
        (["--encoder", "resnet7"], "unknown encoder 'resnet7'"),
        (["--model", "nowhere/model,1"], "model-0001.params is missing"),
    ],
)
def test_what_is_refused(wrong, complaint, capsys):
    assert main(["bench", "embed", *wrong]) == 1
    assert complaint in capsys.readouterr().err.strip().splitlines()[-1]


def test_the_place_of_the_json_is_tried_before_and_filled_before_anything_is_said(
    tmp_path, capsys, monkeypatch
):
    (tmp_path / "file").touch()
    arguments = [
        "bench",
        "embed",
        "--encoder",
        "resnet_tiny",
        "--batch-size",
        "1",
        "--repeats",
        "1",
        "--json",
    ]

    def too_early(*_):
        raise AssertionError("measured before the place of its result was tried")

    with monkeypatch.context() as patched:
        patched.setattr(embed, "in_turn", too_early)
        assert main([*arguments, str(tmp_path / "file" / "b.json")]) == 1
    assert "cannot make the folder" in capsys.readouterr().err
    assert main([*arguments, str(tmp_path)]) == 1  # a folder, not a file
    said = capsys.readouterr()
    assert said.out == ""
    assert "is not a regular file" in said.err
