"""Classifiers of gluoncv's model zoo as encoders."""

import socket

import mxnet as mx
import numpy as np
import pytest
from gluoncv.model_zoo import get_model

from latse.errors import LatseError
from latse.symbols import encoders, networks

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 3, 112, 112))
# A name of each way in which a classifier is written -> its layers up to the last map of several pixels.
FEATURES = {
    "resnet18_v1": lambda net: net.features[:-1],
    "squeezenet1.1": lambda net: net.features[:-1],  # without its dropout
    "vgg11": lambda net: net.features[:-5],  # pooling, then two dense layers with dropout
    "darknet53": lambda net: net.features,  # which end in an activation
    "resnet18_v1b": lambda net: [
        net.conv1,
        net.bn1,
        net.relu,
        net.maxpool,
        *map(net.__getattribute__, LAYERS),
    ],
    "mobilenetv2_0.25": lambda net: net.features[:-1],
}
LAYERS = [f"layer{number}" for number in range(1, 5)]


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """No test may ask the network for weights."""

    def refuse(*_):
        raise AssertionError("something asks the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.parametrize("name", FEATURES)
def test_it_is_the_classifiers_features_and_the_papers_head(name):
    encoder = encoders.create(f"gluoncv/{name}")
    encoder.initialize(mx.init.Xavier())
    found = encoder.body(mx.nd.array((IMAGES - 127.5) / 128))
    with mx.name.NameManager():
        network = get_model(name, pretrained=False)
    mine = encoder.collect_params()
    for key, parameter in network.collect_params().items():
        if key in mine:
            parameter.shape = mine[key].shape
            parameter.initialize()
            parameter.set_data(mine[key].data())
    expected = mx.nd.array((IMAGES - 127.5) / 128)
    for block in FEATURES[name](network):
        expected = block(expected)
    assert found.shape == expected.shape and min(found.shape[2:]) > 1
    np.testing.assert_allclose(found.asnumpy(), expected.asnumpy(), rtol=1e-4, atol=1e-5)
    assert [type(layer).__name__ for layer in encoder.head] == ["BatchNorm", "Dropout", "Dense", "BatchNorm"]


@pytest.mark.parametrize("name", [*FEATURES, "googlenet", "shufflenet_v1", "resnest14", "nasnet_4_1056"])
def test_two_have_the_same_parameters_and_no_more_dropout_than_ours(name):
    symbols = [networks.trace(encoders.create(f"gluoncv/{name}", lean)) for lean in (False, True)]
    names = [symbol.list_inputs() for symbol in symbols]
    assert names[0] == names[1] and len({*names[0]}) == len(names[0])
    assert symbols[0].infer_shape(data=IMAGES.shape)[1] == [(2, 512)]
    assert symbols[0].tojson().count('"op": "Dropout"') == 1
    biases = [key for key in symbols[0].list_arguments() if key.endswith(("_bias", "_beta"))]
    multipliers = symbols[0].attr_dict()
    assert biases and all(float(multipliers[key]["__wd_mult__"]) == 0 for key in biases)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "hrnet_w18_small_v1_c",
            "hrnet_w18_small_v1_s",
            "dla34",
            "residualattentionnet56",
            "resnet50_v1b_gn",
        ),
        *(
            "ssd_512_resnet50_v1_voc",
            "deeplab_resnet50_ade",
            "mobilenet1.0_int8",
            "vgg16_ucf101",
            "i3d_resnet50_v1_custom",
        ),
        *("simple_pose_resnet18_v1b", "alpha_pose_resnet101_v1b_coco", "resnet18_v1b_custom"),
    ],
)
def test_what_does_not_classify_images_of_this_size_is_refused(name):
    with pytest.raises(LatseError) as caught:
        encoders.create(f"gluoncv/{name}")
    assert str(caught.value) == f"gluoncv's {name} is no image classifier that takes images of 112x112"


def test_a_name_that_is_not_in_the_zoo_is_refused():
    with pytest.raises(
        LatseError, match="^unknown encoder 'gluoncv/resnet19': gluoncv's model zoo has no resnet19$"
    ):
        encoders.create("gluoncv/resnet19")
