import cv2
import mxnet as mx
import numpy as np
import pytest

from latse import checkpoint
from latse.data.pairs import write_pairs
from latse.data.shard_writer import write_shard

SIZE = 112


def blurred_noise(seed):
    """A smooth random picture, uint8 (112, 112, 3): what stands in for a person."""
    noise = np.random.default_rng(seed).normal(size=(SIZE, SIZE, 3))
    smooth = cv2.GaussianBlur(noise, (0, 0), 12)
    return np.clip(128 + 60 * smooth / smooth.std(), 0, 255).astype(np.uint8)


def photograph(person, number):
    """The `number`-th picture of `person`, uint8 (112, 112, 3): the person, other light, noise."""
    rng = np.random.default_rng([person, number])
    light = 1 + 0.2 * rng.normal()
    return np.clip(light * blurred_noise(person) + 12 * rng.normal(size=(SIZE, SIZE, 3)), 0, 255).astype(
        np.uint8
    )


def encoded(person, number):
    return cv2.imencode(".png", photograph(person, number))[1].tobytes()


@pytest.fixture(scope="session")
def photograph_bytes():
    """Give `encoded(person, number)` to a test."""
    return encoded


@pytest.fixture(scope="session")
def save_network():
    """Save a small random network with `fc1_output`, `generated_output`; return its parameters in numpy."""

    def save(prefix, seed=0, decoder=True, **replaced):
        data = (mx.sym.var("data") - 127.5) / 128
        net = mx.sym.Convolution(data, kernel=(14, 14), stride=(14, 14), num_filter=4, name="conv0")
        net = mx.sym.BatchNorm(mx.sym.Dropout(net, p=0.5), fix_gamma=False, name="bn0")
        outputs = [mx.sym.FullyConnected(net, num_hidden=512, name="fc1")]
        if decoder:
            outputs.append(mx.sym.tanh(2 * mx.sym.flip(data, axis=3), name="generated"))
        rng = np.random.default_rng(seed)
        arrays = {
            "conv0_weight": 0.05 * rng.normal(size=(4, 3, 14, 14)),
            "conv0_bias": rng.normal(size=4),
            "bn0_gamma": rng.uniform(0.5, 2, 4),
            "bn0_beta": rng.normal(size=4),
            "fc1_weight": 0.1 * rng.normal(size=(512, 256)),
            "fc1_bias": 0.1 * rng.normal(size=512),
            "fc7_weight": rng.normal(size=(6, 512)),  # class centres ride along unused
            **replaced,
        }
        aux = {"bn0_moving_mean": rng.normal(size=4), "bn0_moving_var": rng.uniform(0.5, 2, 4)}
        args = {name: mx.nd.array(array) for name, array in arrays.items() if array is not None}
        checkpoint.save(
            prefix, 0, mx.sym.Group(outputs), args, {name: mx.nd.array(a) for name, a in aux.items()}
        )
        return {**arrays, **aux}

    return save


@pytest.fixture(scope="session")
def pairs_file(tmp_path_factory):
    """Eight people with three pictures each: all 24 same pairs, 24 different ones, alternating."""
    issame, images = [], []
    for person in range(8):
        for first, second in ((0, 1), (0, 2), (1, 2)):
            images += [encoded(100 + person, first), encoded(100 + person, second)]
            images += [encoded(100 + person, first), encoded(100 + (person + 1 + second) % 8, second)]
            issame += [True, False]
    path = tmp_path_factory.mktemp("pairs") / "people.bin"
    write_pairs(path, images, issame)
    return path


@pytest.fixture(scope="session")
def shard_folder(tmp_path_factory):
    """Six people with four pictures each."""
    folder = tmp_path_factory.mktemp("shard")
    write_shard(folder, [(person, encoded(person, number)) for person in range(6) for number in range(4)], 6)
    return folder
