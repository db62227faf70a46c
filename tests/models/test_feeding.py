"""How somebody else's network is fed, by what stands behind its name."""

import json
from pathlib import Path

import numpy as np
import pytest

from latse.cli import main
from latse.errors import LatseError
from latse.models import feeding
from latse.models.embedding import Network
from latse.models.feeding import Feeding
from latse.models.onnx_model import OnnxNetwork
from latse.models.runner import fed

onnx = pytest.importorskip("onnx")

IMAGES = np.random.default_rng(4).integers(0, 256, (5, 3, 112, 112), np.uint8)


def save(path, side=112):
    """A network that returns what it gets, in a row."""
    make, kind = onnx.helper, onnx.TensorProto.FLOAT
    graph = make.make_graph(
        [make.make_node("Flatten", ["data"], ["out"])],
        "net",
        [make.make_tensor_value_info("data", kind, ["n", 3, side, side])],
        [make.make_tensor_value_info("out", kind, ["n", 3 * side * side])],
    )
    opset = [make.make_operatorsetid("", 13)]
    onnx.save(make.make_model(graph, opset_imports=opset, ir_version=7), path)
    return path


@pytest.mark.parametrize(
    ("text", "what", "expected"),
    [
        ("run/model,0", "run/model,0", None),
        ("a?b/model,0", "a?b/model,0", None),
        ("n.onnx?mean=127.5", "n.onnx", Feeding(mean=(127.5,))),
        ("n.onnx?mean=1,2,3&scale=5e-1", "n.onnx", Feeding((1.0, 2.0, 3.0), (0.5,))),
        ("a?x=1/n.onnx?order=bgr&size=160", "a?x=1/n.onnx", Feeding(order="bgr", size=160)),
        ("title=n.onnx?scale=-1", "title=n.onnx", Feeding(scale=(-1.0,))),
    ],
)
def test_what_stands_behind_a_name(text, what, expected):
    assert feeding.split(text) == (what, expected)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("men=1", "unknown key 'men'; there are mean, scale, order, size; did you mean mean?"),
        ("mean=1&mean=2", "mean stands there twice"),
        ("mean=", "mean is '', must be a number, or three with commas between"),
        ("mean=1,2", "mean is '1,2', must be a number, or three"),
        ("mean=nan", "mean is 'nan', must be a number"),
        ("scale=0", "scale is '0', must be other than 0"),
        ("order=gbr", "order is 'gbr', must be rgb or bgr"),
        ("size=0", "size is '0', must be 1 to 1024 pixels"),
        ("size=1e2", "size is '1e2', must be"),
        ("size=99999", "size is '99999', must be"),
    ],
)
def test_a_wrong_feeding_is_one_sentence(options, sentence):
    with pytest.raises(LatseError) as caught:
        feeding.split(f"n.onnx?{options}")
    assert str(caught.value).startswith(f"n.onnx?{options}: {sentence}")


def test_a_network_gets_what_is_said(tmp_path):
    path = save(tmp_path / "net.onnx")
    plain = OnnxNetwork(path, feeding=Feeding())(IMAGES)
    np.testing.assert_array_equal(plain.reshape(IMAGES.shape), IMAGES)
    found = OnnxNetwork(path, feeding=Feeding((1.0, 2.0, 3.0), (0.5, 0.25, 2.0), "bgr"))(IMAGES)
    channels = [(IMAGES[:, 2] - 1.0) * 0.5, (IMAGES[:, 1] - 2.0) * 0.25, (IMAGES[:, 0] - 3.0) * 2]
    np.testing.assert_array_equal(found.reshape(IMAGES.shape), np.stack(channels, 1))


def test_another_size_is_the_same_picture(tmp_path):
    smooth = np.broadcast_to(np.linspace(0, 255, 112)[:, None], (1, 3, 112, 112)).round().astype(np.uint8)
    for side in (56, 160):
        found = OnnxNetwork(save(tmp_path / "net.onnx", side), feeding=Feeding(size=side))(smooth)
        rows = found.reshape(3, side, side)
        assert np.abs(rows - np.linspace(0, 255, side)[:, None]).max() <= 3
    hint = r"images of \(3, 160, 160\), .*; FILE.onnx\?size=160 gives them"
    with pytest.raises(LatseError, match=hint):
        OnnxNetwork(tmp_path / "net.onnx")


def test_a_checkpoint_gets_what_is_said(tmp_path, save_network):
    save_network(tmp_path / "model")
    how = Feeding((100.0,), (1.5,), "bgr")
    told = Network(tmp_path / "model", 0, feeding=how)(IMAGES)
    images = (IMAGES[:, ::-1] - np.float32(100)) * np.float32(1.5)
    np.testing.assert_array_equal(told, Network(tmp_path / "model", 0)(images))
    assert fed(IMAGES, how).dtype == np.float32


def test_results_show_how_a_network_was_fed(tmp_path, save_network, pairs_file, monkeypatch, capsys):
    save_network(tmp_path / "net" / "model")
    save(tmp_path / "own.onnx")
    models = "own.onnx", "bgr=./own.onnx?order=bgr&mean=127.5", "./net", "other=./net?scale=2"
    monkeypatch.chdir(tmp_path)
    assert main(["eval", "--model", *models, "--pairs", str(pairs_file), "--json", "it.json"]) == 0
    lines = capsys.readouterr().out.splitlines()[-3:]
    assert lines == [
        "own gets RGB, 0 to 255 less 127.5, times 0.00784314, 112x112",
        "bgr gets BGR, 0 to 255 less 127.5, times 1, 112x112",
        "other gets RGB, 0 to 255 less 0, times 2, 112x112",
    ]
    origins = json.loads(Path("it.json").read_text())["models"]
    assert origins["bgr"]["feeding"] == {"mean": [127.5], "scale": [1.0], "order": "bgr", "size": 112}
    assert origins["bgr"]["source"] == "./own.onnx" and "feeding" not in origins["net"]


@pytest.mark.parametrize("what", ["pixels", "f.npy"])
def test_only_networks_are_fed(tmp_path, monkeypatch, what, capsys):
    monkeypatch.chdir(tmp_path)
    np.save("f.npy", np.ones((2, 3)))
    assert main(["eval", "--model", f"{what}?mean=1"]) == 1
    said = f"{what}?mean=1: how it is fed can be said of networks only, and {what} is none"
    assert capsys.readouterr().err == f"latse: {said}\n"
