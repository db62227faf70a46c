"""Files of arrays before MXNet reads them: whole ones pass, lengths that do not fit are a sentence."""

import struct

import mxnet as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latse.errors import LatseError
from latse.models.arrays_file import Blocks, check_digest, places, read, write

TYPES = ["float32", "float64", "float16", "uint8", "int32", "int8", "int64"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A file of arrays of every type, and where the parts of the first one are."""
    path = tmp_path_factory.mktemp("arrays") / "a.params"
    arrays = {f"arg:{name}": mx.nd.ones((2, 3), dtype=name) for name in TYPES}
    mx.nd.save(str(path), {**arrays, "aux:scalar-like": mx.nd.ones((1,)), "arg:large": mx.nd.ones((70, 70))})
    return path.read_bytes()


@pytest.fixture
def checked(tmp_path):
    """Check a file of the given bytes."""

    def check(content):
        (tmp_path / "a.params").write_bytes(content)
        places(tmp_path / "a.params")
        return mx.nd.load(str(tmp_path / "a.params"))

    return check


def test_what_mxnet_writes_is_taken(whole, checked, tmp_path):
    assert len(checked(whole)) == len(TYPES) + 2
    for arrays in ([], [mx.nd.ones((1,))], [mx.nd.ones((2,) * 6)]):
        mx.nd.save(str(tmp_path / "b.params"), arrays)
        places(tmp_path / "b.params")


def legacy(magic):
    """An array as MXNet wrote it before storage types (`magic`), or in its first versions (None)."""
    shape = struct.pack("<IIqq", magic, 2, 2, 3) if magic else struct.pack("<III", 2, 2, 3)
    body = shape + struct.pack("<iii", 1, 0, 0) + np.arange(6, dtype="<f4").tobytes()
    name = struct.pack("<QQ", 1, 5) + b"arg:a"
    return struct.pack("<QQQ", 0x112, 0, 1) + body + name


@pytest.mark.parametrize("magic", [0xF993FAC8, None])
def test_what_older_versions_wrote_is_taken(checked, magic):
    (array,) = checked(legacy(magic)).values()
    np.testing.assert_array_equal(array.asnumpy(), np.arange(6).reshape(2, 3))


def changed(content, at, form, value):
    return content[:at] + struct.pack(form, value) + content[at + struct.calcsize(form) :]


# The first array begins at 24: magic, storage, dimensions, two sides, device, its number, type, numbers.
@pytest.mark.parametrize(
    ("at", "form", "value", "sentence"),
    [
        (0, "<Q", 0x113, "it does not begin like a list of arrays"),
        (16, "<Q", 2**63, "9223372036854775808 arrays are announced"),
        (28, "<i", 1, "array 0 is not dense"),
        (32, "<I", 33, "array 0 has 33 dimensions"),
        (36, "<q", -2, "array 0 has the shape (-2, 3)"),
        (36, "<q", 2**60, "array 0 takes "),
        (60, "<i", 77, "array 0 has numbers of the unknown type 77"),
    ],
)
def test_lengths_that_do_not_fit_are_refused(whole, checked, at, form, value, sentence):
    with pytest.raises(LatseError, match=r"a.params is damaged: it holds no MXNet parameters \(") as error:
        checked(changed(whole, at, form, value))
    assert sentence in str(error.value)


@given(st.data())
def test_a_file_that_is_cut_off_is_refused(whole, tmp_path_factory, data):
    path = tmp_path_factory.mktemp("cut") / "a.params"
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(LatseError, match="is damaged: it holds no MXNet parameters"):
        places(path)


@given(st.data())
def test_any_bytes_are_read_or_refused(whole, tmp_path_factory, data):
    content = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, 300))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("any") / "a.params"
    path.write_bytes(content)
    try:
        places(path)
    except LatseError as error:
        assert str(error).isprintable()


def test_what_is_written_has_the_bytes_of_mxnet(tmp_path):
    arrays = {f"arg:{name}": mx.nd.array(np.arange(6).reshape(2, 3), dtype=name) for name in TYPES}
    arrays["aux:ä"] = mx.nd.ones((70, 70))
    mx.nd.save(str(tmp_path / "theirs.params"), arrays)
    write(tmp_path / "ours.params", arrays)
    assert (tmp_path / "ours.params").read_bytes() == (tmp_path / "theirs.params").read_bytes()


def test_rows_may_come_in_blocks_and_are_read_in_others(tmp_path):
    path, rows = tmp_path / "a.params", np.random.default_rng(0).normal(size=(1000, 7)).astype(np.float32)
    blocks = (rows[start : start + 300] for start in range(0, 1000, 300))
    write(path, {"first": mx.nd.ones((2,)), "table": Blocks(rows.shape, blocks)}, digest=True)
    np.testing.assert_array_equal(mx.nd.load(str(path))["table"].asnumpy(), rows)
    place = places(path)["table"]
    assert place.shape == rows.shape
    np.testing.assert_array_equal(read(path, place), rows)
    np.testing.assert_array_equal(read(path, place, 123, 456), rows[123 : 123 + 456])
    with pytest.raises(ValueError, match="blocks that are 28 bytes short"):
        write(path, {"table": Blocks(rows.shape, iter([rows[:999]]))})
    np.testing.assert_array_equal(read(path, place), rows)  # the older file is there


@given(st.data())
def test_every_bit_counts_for_the_digest(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("digest") / "a.params"
    write(path, {"arg:a": mx.nd.ones((3, 2)), "aux:b": mx.nd.zeros((2,), dtype="int64")}, digest=True)
    before, names = path.read_bytes(), [*places(path)]
    end = places(path)["digest"].begin
    content = bytearray(before)
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    try:
        check_digest(path)
    except LatseError:
        return
    # Then the digest goes by another name, which no reader of a state knows, or nothing else has changed.
    assert "digest" not in places(path) or (content[:end] == before[:end] and [*places(path)] == names)


def test_a_file_without_a_digest_passes(whole, tmp_path):
    (tmp_path / "a.params").write_bytes(whole)
    check_digest(tmp_path / "a.params")
