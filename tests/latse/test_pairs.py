"""Pairs files: insightface's format in, no foreign code executed."""

import os
import pickle

import cv2
import mxnet as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latse.data.pairs import read_pairs, write_pairs
from latse.errors import LatseError


def picture(number, size=(112, 112)):
    pixels = np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)
    return pixels, cv2.imencode(".png", pixels[:, :, ::-1])[1].tobytes()


PIXELS, ENCODED = zip(*(picture(number) for number in range(6)))
EXPECTED = np.stack(PIXELS).transpose(0, 3, 1, 2)
SAME = [True, False, True]


def test_reads_back_what_was_written(tmp_path):
    write_pairs(tmp_path / "a.bin", ENCODED, SAME)
    pairs = read_pairs(tmp_path / "a.bin")
    assert pairs.images.dtype == np.uint8 and pairs.issame.dtype == bool
    assert np.array_equal(pairs.images, EXPECTED)
    assert pairs.issame.tolist() == SAME


def test_readable_as_insightface_reads(tmp_path):
    """The steps of insightface's load_bin: a plain pickle.load, then MXNet's decoder."""
    write_pairs(tmp_path / "a.bin", ENCODED, SAME)
    with (tmp_path / "a.bin").open("rb") as file:
        bins, issame = pickle.load(file)
    assert type(bins) is list and {type(content) for content in bins} == {bytes}
    assert issame == SAME and {type(same) for same in issame} == {bool}
    images = np.stack([mx.image.imdecode(content).asnumpy() for content in bins])
    assert np.array_equal(images.transpose(0, 3, 1, 2), EXPECTED)


OTHERS = {
    "tuples": (ENCODED, tuple(SAME)),
    "list of both": [list(ENCODED), SAME],
    "numbers": (list(ENCODED), [1, 0, 1]),
    "numpy flags": (list(ENCODED), np.array(SAME)),
    "numpy bool scalars": (list(ENCODED), list(np.array(SAME))),
    "numpy bytes": ([np.frombuffer(content, np.uint8) for content in ENCODED], SAME),
    "object array": (np.array(ENCODED, dtype=object), np.array(SAME, dtype=object)),
    "bytearrays": ([bytearray(content) for content in ENCODED], SAME),
}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("kind", OTHERS)
def test_other_pickles_of_the_same(tmp_path, kind, protocol):
    (tmp_path / "a.bin").write_bytes(pickle.dumps(OTHERS[kind], protocol))
    pairs = read_pairs(tmp_path / "a.bin")
    assert np.array_equal(pairs.images, EXPECTED)
    assert pairs.issame.tolist() == SAME


def test_python_2_strings(tmp_path):
    """Python 2's pickle of ([str] * 2, [True]): its strings are opcode U or T, bytes to us."""
    strings = b"".join(b"T" + len(content).to_bytes(4, "little") + content for content in ENCODED[:2])
    (tmp_path / "a.bin").write_bytes(b"\x80\x02](" + strings + b"e]\x88a\x86.")
    assert np.array_equal(read_pairs(tmp_path / "a.bin").images, EXPECTED[:2])


class Call:
    """Pickles as a call of `function`."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize(
    "function, name",
    [(os.system, "system"), (eval, "eval"), (getattr, "getattr"), (exec, "exec"), (__import__, "__import__")],
)
def test_hostile_pickles_are_refused_by_name(tmp_path, function, name, protocol):
    victim = tmp_path / "victim"
    code = f"open({str(victim)!r}, 'w')" if function in (eval, exec) else f"touch {victim}"
    (tmp_path / "a.bin").write_bytes(pickle.dumps((list(ENCODED), [Call(function, code)]), protocol))
    with pytest.raises(LatseError, match=rf"a\.bin .*{name}, which is refused"):
        read_pairs(tmp_path / "a.bin")
    assert not victim.exists()


def test_attribute_path_of_an_allowed_module_is_refused(tmp_path):
    """Protocol 4 may ask for dotted names: numpy.core.multiarray.scalar.__class__ must not be found."""
    call = b"\x8c\x15numpy.core.multiarray\x8c\x10scalar.__class__\x93)R"
    (tmp_path / "a.bin").write_bytes(b"\x80\x04" + call + b".")
    with pytest.raises(LatseError, match="scalar.__class__, which is refused"):
        read_pairs(tmp_path / "a.bin")


@pytest.mark.parametrize(
    "content",
    [
        np.zeros(3, np.float64),
        np.array(["a"]),
        np.zeros(2, [("a", "i4")]),
        Call(bytes, 10**15),
        Call(bytearray, 5),
    ],
)
def test_other_arrays_and_sizes_posing_as_bytes_are_refused(tmp_path, content):
    (tmp_path / "a.bin").write_bytes(pickle.dumps((list(ENCODED), content), 3))
    with pytest.raises(LatseError, match=r"a\.bin .* refused"):
        read_pairs(tmp_path / "a.bin")


def test_other_codecs_are_refused(tmp_path):
    import codecs

    content = (list(ENCODED), Call(codecs.encode, "abc", "rot13"))
    (tmp_path / "a.bin").write_bytes(pickle.dumps(content, 2))
    with pytest.raises(LatseError, match="rot13"):
        read_pairs(tmp_path / "a.bin")


@pytest.mark.parametrize(
    "content",
    [
        None,
        7,
        (),
        (list(ENCODED),),
        (list(ENCODED), SAME, 1),
        ([], []),
        (list(ENCODED), SAME[:2]),
        (list(ENCODED)[:5], SAME),
        (5, SAME),
        (list(ENCODED), [np.array([True, False])] * 3),
    ],
)
def test_pickles_of_another_shape(tmp_path, content):
    (tmp_path / "a.bin").write_bytes(pickle.dumps(content, 2))
    with pytest.raises(LatseError, match=r"a\.bin"):
        read_pairs(tmp_path / "a.bin")


@given(st.binary(max_size=60))
@settings(max_examples=300, deadline=None)
def test_noise_is_refused(tmp_path_factory, noise):
    file = tmp_path_factory.getbasetemp() / "noise.bin"
    file.write_bytes(noise)
    with pytest.raises(LatseError, match=r"noise\.bin"):
        read_pairs(file)


def test_truncated_and_missing(tmp_path):
    write_pairs(tmp_path / "a.bin", ENCODED, SAME)
    content = (tmp_path / "a.bin").read_bytes()
    (tmp_path / "a.bin").write_bytes(content[: len(content) // 2])
    with pytest.raises(LatseError, match=r"a\.bin is not a file of pairs"):
        read_pairs(tmp_path / "a.bin")
    with pytest.raises(LatseError, match=r"cannot read .*b\.bin"):
        read_pairs(tmp_path / "b.bin")


@pytest.mark.parametrize(
    "wrong, complaint",
    [
        (b"", "image 3 is not an image"),
        (b"no image", "image 3 is not an image"),
        (picture(1, (112, 96))[1], "image 3 is 112x96 pixels instead of 112x112"),
        (12, "image 3 is a int"),
        (None, "image 3 is a NoneType"),
    ],
)
def test_wrong_image_is_named(tmp_path, wrong, complaint):
    content = [*ENCODED[:3], wrong, *ENCODED[4:]]
    (tmp_path / "a.bin").write_bytes(pickle.dumps((content, SAME)))
    with pytest.raises(LatseError, match=complaint):
        read_pairs(tmp_path / "a.bin")


@pytest.mark.parametrize("encoded, same", [([], []), (ENCODED, SAME[:2]), (ENCODED[:5], SAME)])
def test_refuses_to_write_numbers_that_do_not_match(tmp_path, encoded, same):
    with pytest.raises(LatseError, match=r"a\.bin"):
        write_pairs(tmp_path / "a.bin", encoded, same)
    assert list(tmp_path.iterdir()) == []


def test_unwritable(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(LatseError, match="cannot write"):
        write_pairs(tmp_path / "file" / "a.bin", ENCODED, SAME)
