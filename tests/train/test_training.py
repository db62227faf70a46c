"""From a recipe to its graphs."""

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
