import cv2
import mxnet as mx
import numpy as np
import pytest

from latse.errors import LatseError
from latse.models import checkpoint
from latse.paper import stages_figure


def save_stage(prefix, number, seed, decoder=True):
    """Save a network of one dense layer before the embedding and one after it; return its parameters."""
    data = mx.sym.Pooling(mx.sym.var("data") / 255, kernel=(16, 16), stride=(16, 16), pool_type="avg")
    net = mx.sym.FullyConnected(data, num_hidden=8, name="pre_fc1")
    outputs = [mx.sym.BatchNorm(net, name="fc1", fix_gamma=True, eps=2e-5)]
    rng = np.random.default_rng(seed)
    args = {
        "pre_fc1_weight": rng.normal(size=(8, 147)) / 12,
        "pre_fc1_bias": rng.normal(size=8),
        "fc1_gamma": np.ones(8),
        "fc1_beta": rng.normal(size=8),
    }
    aux = {"fc1_moving_mean": rng.normal(size=8), "fc1_moving_var": rng.uniform(0.5, 2, 8)}
    if decoder:
        grown = mx.sym.FullyConnected(outputs[0], num_hidden=147, name="decoder_expand")
        grown = mx.sym.UpSampling(mx.sym.reshape(grown, (-1, 3, 7, 7)), scale=16, sample_type="nearest")
        outputs.append(mx.sym.tanh(grown, name="generated"))
        args["decoder_expand_weight"] = rng.normal(size=(147, 8)) / 3
        args["decoder_expand_bias"] = rng.normal(size=147)
    arrays = [{name: mx.nd.array(value) for name, value in part.items()} for part in (args, aux)]
    checkpoint.save(prefix, number, mx.sym.Group(outputs), *arrays)
    return {**args, **aux}


def test_the_encoder_is_of_its_stage_and_the_decoder_the_last(tmp_path):
    prefix = tmp_path / "model"
    early, last = (save_stage(prefix, number, seed) for number, seed in ((2, 0), (6, 1)))
    images = np.random.default_rng(2).integers(0, 256, (5, 3, 112, 112), np.uint8)
    pooled = images.reshape(5, 3, 7, 16, 7, 16).mean(axis=(3, 5)).reshape(5, 147) / 255
    hidden = pooled @ early["pre_fc1_weight"].T + early["pre_fc1_bias"]
    hidden = (hidden - early["fc1_moving_mean"]) / np.sqrt(early["fc1_moving_var"] + 2e-5) + early["fc1_beta"]
    small = np.tanh(hidden @ last["decoder_expand_weight"].T + last["decoder_expand_bias"])
    expected = small.reshape(5, 3, 7, 7).repeat(16, axis=2).repeat(16, axis=3)
    found = stages_figure.restored(prefix, 2, 6, images, batch_size=4)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.abs(found - stages_figure.restored(prefix, 6, 6, images)).max() > 0.1


def touch(folder, *numbers):
    for number in numbers:
        (folder / f"model-{number}.params").touch()
    return folder / "model"


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (["0002", "0004", "0006"], [2, 4, 6]),
        (["0150", "0300", "0450", "0600"], [150, 300, 600]),
        (["9000", "10000", "20000", "0000"], [9000, 10000, 20000]),
    ],
)
def test_stages_are_the_first_the_middle_and_the_last(tmp_path, stored, expected):
    prefix = touch(tmp_path, *stored)
    (tmp_path / "untrained-0001.params").touch()
    (tmp_path / "model-0003.params.part").touch()
    assert stages_figure.early_middle_last(prefix) == expected


def test_fewer_than_three_stages_are_named(tmp_path):
    prefix = touch(tmp_path, "0000", "0002", "0004")
    with pytest.raises(LatseError, match=r"model: 2 checkpoints are stored, three .*checkpoint_every"):
        stages_figure.early_middle_last(prefix)


def test_a_network_without_decoder_is_named(tmp_path):
    for number in (2, 4):
        save_stage(tmp_path / "model", number, number, decoder=False)
    with pytest.raises(LatseError, match="has no output 'generated_output'"):
        stages_figure.restored(tmp_path / "model", 2, 4, np.zeros((1, 3, 112, 112), np.uint8))


def test_a_row_for_the_images_and_one_for_each_stage(tmp_path):
    path = tmp_path / "figure.png"
    images = np.stack([np.full((3, 8, 8), value, np.uint8) for value in (10, 60)])
    rows = {f"{name}\n{i} iterations": np.full((2, 3, 8, 8), i / 4 - 0.5) for i, name in enumerate("abc")}
    stages_figure.draw(path, images, rows)
    picture = cv2.imread(str(path))
    heights = []
    for value in (10, 64, 96, 128):  # (x + 1) · 127.5, rounded to even
        there = np.nonzero((picture == value).all(axis=2))
        assert len(there[0]) > 1000
        heights.append(there[0].mean())
    assert heights == sorted(heights)
