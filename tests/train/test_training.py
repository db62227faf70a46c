"""From a recipe to its graphs."""

import json

import mxnet as mx
import numpy as np
import pytest

from latse.errors import LatseError
from latse.train.training import Training, inference, traced


def test_the_graph_that_is_trained_and_the_one_that_is_kept_have_the_decoder_of_the_recipe(tiny_recipe):
    recipe = tiny_recipe("decoder.enabled=true", "decoder.widths=[40, 30, 20, 10]")
    trained, shapes = traced(recipe, 5, 2)
    kept = inference(recipe)
    for symbol, inputs in ((trained, shapes), (kept, {"data": (2, 3, 112, 112)})):
        found = dict(zip(symbol.list_arguments(), symbol.infer_shape(**inputs)[0]))
        assert found["decoder_expand_weight"] == (40 * 7 * 7, 512)
        assert found["decoder_stage4_unit2_deconv2_weight"] == (10, 10, 3, 3)
        assert found["decoder_conv0_weight"] == (3, 10, 3, 3)


@pytest.mark.parametrize("encoder", ["resnet_tiny", "gluoncv/squeezenet1.1", "gluoncv/mobilenetv3_small"])
def test_the_momentum_of_the_statistics_reaches_every_batch_normalisation(tiny_recipe, encoder):
    momentum = "train.statistics_momentum=0.98"
    symbol, _ = traced(tiny_recipe("decoder.enabled=true", f"encoder.name={encoder}", momentum), 5, 2)
    nodes = json.loads(symbol.tojson())["nodes"]
    momenta = [float(node["attrs"]["momentum"]) for node in nodes if node["op"] == "BatchNorm"]
    assert len(momenta) > 20 and set(momenta) == {0.98}


NARROW = "decoder.enabled=true", "decoder.widths=[8, 8, 8, 8]"


@pytest.mark.parametrize("gate_losses", [False, True])
def test_the_weights_and_the_gate_of_the_recipe_reach_the_graph(tiny_recipe, gate_losses):
    weights = "decoder.l1_weight=2.5", "decoder.similarity_weight=1.5"
    recipe = tiny_recipe(*NARROW, *weights, f"filter.gate_losses={gate_losses}", "filter.k=1")
    symbol, shapes = traced(recipe, 5, 2)
    executor = symbol.simple_bind(mx.cpu(), **shapes)
    for name, array in executor.arg_dict.items():
        array[:] = mx.nd.random.normal(0, 0.05, array.shape) if name not in ("softmax_label", "keep") else 0
    executor.forward(is_train=True)
    loss, dloss, l1, ssim = (output.asnumpy() for output in executor.outputs)
    np.testing.assert_allclose(loss, dloss + 2.5 * l1 + 1.5 * (1 - ssim) / 2, rtol=1e-5)
    executor.backward()
    assert executor.grad_dict["fc7_weight"].asnumpy().any() != gate_losses  # both samples are refused


@pytest.mark.parametrize(
    "key, op, name, value",
    [
        ("encoder.dropout", "Dropout", "p", 0.25),
        ("train.statistics_momentum", "BatchNorm", "momentum", 0.8),
        ("margin.s", "_mul_scalar", "scalar", 23.0),
    ],
)
def test_numbers_of_the_recipe_are_those_of_the_graph(tiny_recipe, key, op, name, value):
    symbol, _ = traced(tiny_recipe(f"{key}={value}"), 5, 2)
    nodes = json.loads(symbol.tojson())["nodes"]
    assert value in {float(node["attrs"][name]) for node in nodes if node["op"] == op}


@pytest.mark.parametrize("word", ["iteration", "lr", "images_per_second", "peak_megabytes", "skipped"])
def test_a_loss_is_not_called_like_something_else_in_the_metrics(tiny_recipe, tmp_path, word):
    (tmp_path / "own.py").write_text(
        "from latse.symbols.losses import GenerativeLoss\n\n"
        f"class Own(GenerativeLoss):\n    metric = {word!r}\n\n"
        "    def hybrid_forward(self, F, x, y):\n        return F.mean(F.abs(x - y), axis=0, exclude=True)\n"
    )
    recipe = tiny_recipe(*NARROW, f"decoder.losses={{{tmp_path}/own.py:Own: 1.0}}")
    with pytest.raises(LatseError, match=f"another name than '{word}', which the metrics have for something"):
        Training.of(recipe, 5, [mx.cpu()])
