import mxnet as mx
import numpy as np
import pytest

from latse.errors import LatseError
from latse.models import checkpoint
from latse.models.run_folder import parse


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
    with pytest.raises(AttributeError):
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


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a/model,3", ("a/model", 3)), ("a,b/model,0012", ("a,b/model", 12)), ("model", ("model", 0))],
)
def test_parse(text, expected):
    assert parse(text) == expected


@pytest.mark.parametrize("text", ["", ",1", "model,", "model,-1", "model,x", "model,1.5", "model,²"])
def test_parse_refuses(text):
    with pytest.raises(LatseError):
        parse(text)
