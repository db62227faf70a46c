import mxnet as mx
import numpy as np
import pytest

from latse.errors import LatseError
from latse.models import checkpoint


def small_network():
    net = mx.sym.FullyConnected(mx.sym.var("data"), num_hidden=3, name="fc1")
    net = mx.sym.BatchNorm(net, name="bn")
    args = {"fc1_weight": mx.nd.random.normal(shape=(3, 5)), "fc1_bias": mx.nd.ones((3,))}
    args.update(
        {"bn_gamma": mx.nd.ones((3,)), "bn_beta": mx.nd.zeros((3,)), "fc7_weight": mx.nd.ones((7, 3))}
    )
    return net, args, {"bn_moving_mean": mx.nd.zeros((3,)), "bn_moving_var": mx.nd.ones((3,))}


@pytest.fixture
def prefix(tmp_path):
    prefix = tmp_path / "deep" / "model"
    checkpoint.save(prefix, 7, *small_network())
    return prefix


def assert_same_arrays(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name].asnumpy(), array.asnumpy())


def test_round_trip_and_file_names(tmp_path):
    symbol, args, aux = small_network()
    checkpoint.save(tmp_path / "model", 12, symbol, args, aux)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model-0012.params", "model-symbol.json"]
    found, found_args, found_aux = checkpoint.load(tmp_path / "model", 12)
    assert found.tojson() == symbol.tojson()
    assert_same_arrays(found_args, args)
    assert_same_arrays(found_aux, aux)


def test_mxnet_itself_reads_and_writes_the_same_files(tmp_path):
    symbol, args, aux = small_network()
    checkpoint.save(tmp_path / "ours", 1, symbol, args, aux)
    found, found_args, found_aux = mx.model.load_checkpoint(str(tmp_path / "ours"), 1)
    assert found.tojson() == symbol.tojson()
    assert_same_arrays(found_args, args)
    assert_same_arrays(found_aux, aux)
    mx.model.save_checkpoint(str(tmp_path / "theirs"), 3, symbol, args, aux)
    assert_same_arrays(checkpoint.load(tmp_path / "theirs", 3)[1], args)


@pytest.mark.parametrize("missing", ["model-symbol.json", "model-0007.params"])
def test_a_missing_file_is_named(prefix, missing):
    (prefix.parent / missing).unlink()
    with pytest.raises(LatseError, match=missing):
        checkpoint.load(prefix, 7)


@pytest.mark.parametrize("keep", [0, 1, 20, 100, 0.5, -1])
@pytest.mark.parametrize("name", ["model-symbol.json", "model-0007.params"])
def test_a_truncated_file_is_named(prefix, name, keep):
    path = prefix.parent / name
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep) if isinstance(keep, float) else keep])
    with pytest.raises(LatseError, match=name):
        checkpoint.load(prefix, 7)


@pytest.mark.parametrize(
    "arrays", [[mx.nd.ones((2,))], {"weight": mx.nd.ones((2,))}, {"arg": mx.nd.ones((2,))}]
)
def test_arrays_that_are_no_parameters_are_refused(prefix, arrays):
    mx.nd.save(f"{prefix}-0007.params", arrays)
    with pytest.raises(LatseError, match=r"model-0007\.params"):
        checkpoint.load(prefix, 7)


def test_a_failed_save_leaves_the_older_checkpoint(prefix):
    before = {path.name: path.read_bytes() for path in prefix.parent.iterdir()}
    symbol, args, aux = small_network()
    with pytest.raises(TypeError):
        checkpoint.save(prefix, 7, symbol, {**args, "fc1_bias": "no array"}, aux)
    assert {path.name: path.read_bytes() for path in prefix.parent.iterdir()} == before


def test_an_unwritable_place_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LatseError, match="model-0000"):
        checkpoint.save(tmp_path / "file" / "model", 0, *small_network())


def test_outputs_are_picked_by_name_inner_ones_too(prefix):
    symbol = checkpoint.load(prefix, 7)[0]
    assert checkpoint.pick_outputs(symbol, ["bn_output", "fc1_output"], prefix).list_outputs() == [
        "bn_output",
        "fc1_output",
    ]
    with pytest.raises(LatseError, match=r"model-symbol\.json has no output 'generated_output'"):
        checkpoint.pick_outputs(symbol, ["generated_output"], prefix)


def test_fitting_parameters_are_those_that_the_symbol_needs():
    symbol, args, aux = small_network()
    found, statistics = checkpoint.fitting(
        symbol, args, {**aux, "other": mx.nd.ones((1,))}, (4, 5), "a.params"
    )
    assert set(args) - set(found) == {"fc7_weight"}
    assert_same_arrays(found, {name: args[name] for name in found})
    assert_same_arrays(statistics, aux)


@pytest.mark.parametrize(
    ("name", "array", "sentence"),
    [
        ("fc1_bias", None, "a.params lacks the parameter 'fc1_bias'"),
        ("bn_moving_var", None, "a.params lacks the parameter 'bn_moving_var'"),
        (
            "fc1_weight",
            mx.nd.ones((3, 6)),
            r"a.params: 'fc1_weight' has shape \(3, 6\), the symbol needs \(3, 5\)",
        ),
        ("bn_moving_mean", mx.nd.ones((2,)), r"a.params: 'bn_moving_mean' has shape \(2,\), .* needs \(3,\)"),
    ],
)
def test_parameters_that_do_not_fit_are_named(name, array, sentence):
    symbol, *both = small_network()
    for arrays in both:
        if name in arrays:
            arrays.update({name: array})
        if array is None:
            arrays.pop(name, None)
    with pytest.raises(LatseError, match=sentence):
        checkpoint.fitting(symbol, *both, (4, 5), "a.params")


def test_networks_without_fitting_input_are_named():
    symbol, args, aux = small_network()
    data, other = mx.sym.var("data"), mx.sym.var("other")
    for wrong, sentence in (
        (mx.sym.FullyConnected(other, num_hidden=3), "has no input named 'data'"),
        (mx.sym.broadcast_add(data, other), "has other inputs than 'data'"),
        (mx.sym.Convolution(data, num_filter=3, kernel=(3, 3)), r"does not take images of \(5,\)"),
        (mx.sym.SoftmaxOutput(symbol, name="softmax"), "lacks the parameter 'softmax_label'"),
    ):
        with pytest.raises(LatseError, match=f"a.params.*{sentence}"):
            checkpoint.fitting(wrong, args, aux, (4, 5), "a.params")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a/model,3", ("a/model", 3)), ("a,b/model,0012", ("a,b/model", 12)), ("model", ("model", 0))],
)
def test_parse(text, expected):
    assert checkpoint.parse(text) == expected


@pytest.mark.parametrize("text", ["", ",1", "model,", "model,-1", "model,x", "model,1.5", "model,²"])
def test_parse_refuses(text):
    with pytest.raises(LatseError):
        checkpoint.parse(text)
