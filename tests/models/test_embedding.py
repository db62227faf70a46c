import mxnet as mx
import numpy as np
import pytest

from latse.errors import LatseError
from latse.models import checkpoint
from latse.models.embedding import Network


def numpy_forward(parameters, images):
    """fc1 of the network of conftest.py, from its equations."""
    patches = ((images.astype(np.float64) - 127.5) / 128).reshape(len(images), 3, 8, 14, 8, 14)
    conv = np.einsum("ncyixj,fcij->nfyx", patches, parameters["conv0_weight"])
    columns = {name: array[:, None, None] for name, array in parameters.items() if array.shape == (4,)}
    conv += columns["conv0_bias"]
    scale = columns["bn0_gamma"] / np.sqrt(columns["bn0_moving_var"] + 1e-3)
    normal = (conv - columns["bn0_moving_mean"]) * scale + columns["bn0_beta"]
    return normal.reshape(len(images), -1) @ parameters["fc1_weight"].T + parameters["fc1_bias"]


@pytest.fixture
def images():
    return np.random.default_rng(1).integers(0, 256, (7, 3, 112, 112), np.uint8)


@pytest.mark.parametrize("batch_size", [1, 3, 7, 10])
def test_the_embedding_is_the_networks_in_inference_mode(tmp_path, save_network, images, batch_size):
    parameters = save_network(tmp_path / "model")
    found = Network(tmp_path / "model", 0, batch_size=batch_size)(images)
    assert found.dtype == np.float32
    assert found.shape == (7, 512)
    np.testing.assert_allclose(found, numpy_forward(parameters, images), atol=2e-4)


def test_several_devices_share_the_batches(tmp_path, save_network, images):
    save_network(tmp_path / "model")
    alone = Network(tmp_path / "model", 0, batch_size=2)(images)  # the products of each share
    shared = Network(tmp_path / "model", 0, contexts=[mx.cpu(0), mx.cpu(1)], batch_size=4)(images)
    np.testing.assert_array_equal(shared, alone)


def test_images_of_any_type_and_layout_give_the_same_and_stay_writeable(tmp_path, save_network, images):
    save_network(tmp_path / "model")
    network = Network(tmp_path / "model", 0, batch_size=7)
    expected = network(images)
    for same in (images.astype(np.float32), images.astype(np.float64), np.asfortranarray(images)):
        np.testing.assert_array_equal(network(same), expected)
    backwards = network(images[::-1, :, :, ::-1])[::-1]  # rounding depends on the place in the batch
    np.testing.assert_allclose(backwards, network(images[..., ::-1]), atol=1e-4)
    assert np.abs(backwards - expected).max() > 1
    assert images.flags.writeable
    frozen = images.copy()
    frozen.flags.writeable = False
    np.testing.assert_array_equal(network(frozen), expected)


def test_the_generated_face_is_another_output(tmp_path, save_network, images):
    save_network(tmp_path / "model")
    found = Network(tmp_path / "model", 0, "generated_output", batch_size=3)(images)
    expected = np.tanh(2 * (images[..., ::-1].astype(np.float64) - 127.5) / 128)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_an_insightface_checkpoint_with_its_loss_on_top_fits(tmp_path, save_network, images):
    """There fc1_output is an inner output, below a softmax with a label of its own."""
    save_network(tmp_path / "model", decoder=False)
    symbol, args, aux = checkpoint.load(tmp_path / "model", 0)
    fc7 = mx.sym.FullyConnected(symbol, num_hidden=6, no_bias=True, name="fc7")
    mx.model.save_checkpoint(
        str(tmp_path / "theirs"), 4, mx.sym.SoftmaxOutput(fc7, name="softmax"), args, aux
    )
    found = Network(tmp_path / "theirs", 4)(images)
    np.testing.assert_array_equal(found, Network(tmp_path / "model", 0)(images))


def test_other_image_sizes_are_refused_by_name(tmp_path, save_network, images):
    save_network(tmp_path / "model")
    network = Network(tmp_path / "model", 0)
    with pytest.raises(LatseError, match=r"model-0000\.params"):
        network(images[:, :, :56, :56])
    with pytest.raises(LatseError, match="no image"):
        network(images[:0])


@pytest.mark.parametrize(
    ("array", "sentence"),
    [
        (None, r"model-0000.params .* 1 missing \(fc1_bias\)"),
        (np.zeros(3), r"model-0000.params .* \(fc1_bias is \(3,\), not \(512,\)\)"),
    ],
)
def test_parameters_that_do_not_fit_are_named(tmp_path, save_network, images, array, sentence):
    save_network(tmp_path / "model", fc1_bias=array)
    with pytest.raises(LatseError, match=sentence):
        Network(tmp_path / "model", 0)(images)


def test_a_missing_output_or_file_is_named(tmp_path, save_network):
    save_network(tmp_path / "teacher", decoder=False)
    with pytest.raises(LatseError, match=r"teacher-symbol\.json has no output 'generated_output'"):
        Network(tmp_path / "teacher", 0, "generated_output")
    with pytest.raises(LatseError, match=r"teacher-0003\.params is missing"):
        Network(tmp_path / "teacher", 3)


def test_a_batch_smaller_than_the_devices_is_refused(tmp_path, save_network):
    save_network(tmp_path / "model")
    with pytest.raises(LatseError, match="a batch of 1 cannot be shared by 2 devices"):
        Network(tmp_path / "model", 0, contexts=[mx.cpu(0), mx.cpu(1)], batch_size=1)
    with pytest.raises(LatseError, match="a batch of 0"):
        Network(tmp_path / "model", 0, batch_size=0)
