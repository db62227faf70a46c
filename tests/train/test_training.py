"""From a recipe to its graphs."""

import json

import pytest

from latse.train.training import inference, traced


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
