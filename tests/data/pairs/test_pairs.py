"""Pairs files: insightface's format in, no foreign code executed."""

import os
import pickle
import re
import resource
import time
from pathlib import Path

import cv2
import mxnet as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latse.data.pairs.pairs import (
    check_people,
    read_encoded,
    read_pairs,
    read_people,
    write_pairs,
    write_people,
)
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


def test_any_python_3_can_read_a_bin(tmp_path):
    write_pairs(tmp_path / "a.bin", ENCODED, SAME)
    assert (tmp_path / "a.bin").read_bytes()[:2] == b"\x80\x03"  # protocol 3, the first that has bytes
    assert pickle.loads((tmp_path / "a.bin").read_bytes()) == (list(ENCODED), SAME)


@pytest.mark.parametrize("protocol", [0, 2, 3, 5])
def test_many_pairs_of_few_images(tmp_path, protocol):
    images = [bytes([number]) * 300 for number in range(40)]
    chosen, same = [images[number % 40] for number in range(120_000)], [True, False] * 30_000
    write_pairs(tmp_path / "own.bin", chosen, same)
    (tmp_path / "other.bin").write_bytes(pickle.dumps((chosen, same), protocol))
    for name in ("own.bin", "other.bin"):
        content = read_encoded(tmp_path / name)
        assert [bytes(image) for image in content.images] == images
        assert content.pairs.ravel().tolist() == [number % 40 for number in range(120_000)]
        assert content.issame.tolist() == same


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
    "as numpy makes it of numbers": (list(ENCODED), np.asarray([1, 0, 1])),
    "images of a column": ([np.frombuffer(content, np.uint8)[:, None] for content in ENCODED], SAME),
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


NUMBERS = [np.dtype(code) for code in "?bBhHiIlLqQefdg"]


def of_numpy_2(content):
    """A pickle as numpy 2 writes it, whose modules are below numpy._core."""
    for module in (b"numpy.core.multiarray", b"numpy.core.numeric"):
        longer = module.replace(b".core", b"._core")
        content = content.replace(b"c" + module, b"c" + longer)
        content = content.replace(b"%c%b" % (len(module), module), b"%c%b" % (len(longer), longer))
    return content


@given(
    flags=st.lists(st.booleans(), min_size=1, max_size=9),
    dtype=st.sampled_from(NUMBERS),
    order=st.sampled_from("<>"),
    protocol=st.integers(0, pickle.HIGHEST_PROTOCOL),
    form=st.sampled_from(
        [np.asarray, list, tuple, lambda a: a.astype(object), np.ndarray.tolist, lambda a: a[::-1]]
    ),
    of_numpy=st.sampled_from([bytes, of_numpy_2]),
)
def test_flags_of_any_type_of_number(tmp_path_factory, flags, dtype, order, protocol, form, of_numpy):
    given = form(np.array(flags, dtype.newbyteorder(order)))
    file = tmp_path_factory.getbasetemp() / "numbers.bin"
    file.write_bytes(of_numpy(pickle.dumps(([b"image"] * 2 * len(flags), given), protocol)))
    assert read_encoded(file).issame.tolist() == [bool(flag) for flag in given]


@pytest.mark.parametrize("protocol", [0, 2, 5])
@pytest.mark.parametrize(
    "wrong, shown",
    [
        (2, "2"),
        (-1, "-1"),
        (256, "256"),
        (0.5, "0.5"),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        (None, "nothing"),
        ("no", "text"),
        (b"1", "bytes"),
        ([1], "a list"),
        (np.array([1], np.int16), "a numpy array of int16"),
        (np.float32(0.25), "0.25"),
        (np.uint64(2**64 - 1), "18446744073709551615"),
    ],
)
def test_a_flag_that_is_neither_0_nor_1_is_named_by_its_place(tmp_path, wrong, shown, protocol):
    issame = [True] * 17 + [wrong] + [2, False]
    (tmp_path / "a.bin").write_bytes(pickle.dumps(([b"image"] * 40, issame), protocol))
    with pytest.raises(LatseError) as refused:
        read_encoded(tmp_path / "a.bin")
    assert str(refused.value) == f"{tmp_path}/a.bin: flag 17 is {shown}, must be 0 or 1"


@pytest.mark.parametrize("dtype", ["i1", "u1", ">i8", "<u4", "f2", ">f8", "longdouble"])
def test_a_wrong_flag_in_an_array_is_named_by_its_place(tmp_path, dtype):
    issame = np.array([0, 1, 1, 3, 0], dtype)
    (tmp_path / "a.bin").write_bytes(pickle.dumps((np.array([b"image"] * 10, object), issame)))
    with pytest.raises(LatseError, match=r"a\.bin: flag 3 is 3(\.0)?, must be 0 or 1$"):
        read_encoded(tmp_path / "a.bin")


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
        np.zeros(3, complex),
        np.zeros(3, "M8[s]"),
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


def test_what_is_no_pickle_is_called_so(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"# a list\nfor people\n")
    with pytest.raises(LatseError, match=r"a\.bin is not a file of pairs: it is no pickle: byte 0 is 35"):
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
@settings(max_examples=300)
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
        (12, "image 3 is 12 instead of encoded bytes"),
        (None, "image 3 is nothing instead of encoded bytes"),
        ("text", "image 3 is text instead of encoded bytes"),
        (np.zeros(9), "image 3 is a numpy array of float64 instead of encoded bytes"),
        (np.array([b"", None]), "image 3 is a numpy array of object instead of encoded bytes"),
    ],
)
def test_wrong_image_is_named(tmp_path, wrong, complaint):
    content = [*ENCODED[:3], wrong, *ENCODED[4:]]
    (tmp_path / "a.bin").write_bytes(pickle.dumps((content, SAME)))
    with pytest.raises(LatseError, match=complaint):
        read_pairs(tmp_path / "a.bin")


def test_a_file_that_shrinks_while_it_is_read(tmp_path, monkeypatch):
    """Its size is asked for, then it is cut off, then it is read."""
    for name in ("a.bin", "a.npz"):
        write_pairs(tmp_path / name, ENCODED, SAME)
        size = (tmp_path / name).stat().st_size
        opened = Path.open

        def shrinking(path, *arguments, size=size, opened=opened, **options):
            file = opened(path, *arguments, **options)
            os.truncate(path, size // 2)
            return file

        with monkeypatch.context() as patch:
            patch.setattr(Path, "open", shrinking)
            with pytest.raises(LatseError, match=rf"^{tmp_path / name} is not a file of pairs"):
                read_pairs(tmp_path / name)


def test_a_missing_and_an_empty_file_and_a_folder(tmp_path):
    (tmp_path / "empty.bin").write_bytes(b"")
    with pytest.raises(LatseError, match=r"empty\.bin is not a file of pairs: it is cut off"):
        read_pairs(tmp_path / "empty.bin")
    with pytest.raises(LatseError, match="is a folder: `latse data pairs .* FILE.bin` draws"):
        read_pairs(tmp_path)


def test_npz_is_read_as_the_bin(tmp_path):
    """By content, whatever the name; numpy alone can read it."""
    encoded = [*ENCODED[:4], ENCODED[0], ENCODED[3]]
    write_pairs(tmp_path / "a.npz", encoded, SAME)
    (tmp_path / "a.npz").replace(tmp_path / "b.bin")
    pairs = read_pairs(tmp_path / "b.bin")
    assert np.array_equal(pairs.images, EXPECTED[[0, 1, 2, 3, 0, 3]]) and pairs.issame.tolist() == SAME
    with np.load(tmp_path / "b.bin", allow_pickle=False) as plain:
        assert {name: array.dtype for name, array in plain.items()} == {
            "images": np.uint8,
            "offsets": np.int64,
            "pairs": np.int64,
            "issame": bool,
        }
        offsets, numbers = plain["offsets"], plain["pairs"]
        assert numbers.tolist() == [[0, 1], [2, 3], [0, 3]] and len(offsets) == 5
        images = [plain["images"][offsets[n] : offsets[n + 1]].tobytes() for n in numbers.ravel()]
    assert images == encoded


def test_the_same_pairs_make_the_same_bytes(tmp_path):
    for name in ("a.npz", "a.bin"):
        write_pairs(tmp_path / name, ENCODED, SAME)
        first = (tmp_path / name).read_bytes()
        write_pairs(tmp_path / name, [bytearray(image) for image in ENCODED], np.array(SAME))
        assert (tmp_path / name).read_bytes() == first


NPZ = {
    "images": np.frombuffer(b"".join(ENCODED), np.uint8),
    "offsets": np.cumsum([0, *map(len, ENCODED)]),
    "pairs": np.arange(6).reshape(3, 2),
    "issame": np.array(SAME),
}


@pytest.mark.parametrize(
    "changed, complaint",
    [
        ({"images": None}, "it lacks images.npy"),
        ({"issame": None}, "it lacks issame.npy"),
        ({"images": NPZ["images"].astype(np.int16)}, "images.npy is not an array of type |u1"),
        ({"images": NPZ["images"][:-1]}, "its offsets do not fit"),
        ({"images": np.array([b"x", None], object)}, "images.npy is not an array of type |u1"),
        ({"offsets": NPZ["offsets"][::-1].copy()}, "its offsets do not fit"),
        ({"offsets": NPZ["offsets"] + 1}, "its offsets do not fit"),
        ({"offsets": NPZ["offsets"] * np.array([1, 1, -1, 1, 1, 1, 1])}, "its offsets do not fit"),
        ({"offsets": NPZ["offsets"].astype(">i8")}, "offsets.npy is not an array of type <i8"),
        ({"offsets": np.zeros(0, np.int64)}, "its offsets do not fit"),
        ({"pairs": NPZ["pairs"] + 1}, "its pairs do not fit"),
        ({"pairs": NPZ["pairs"] - 1}, "its pairs do not fit"),
        ({"pairs": NPZ["pairs"].reshape(2, 3)}, "its pairs do not fit"),
        ({"pairs": NPZ["pairs"].ravel()}, "pairs.npy is not an array of type <i8 with 2 dimensions"),
        ({"pairs": np.zeros((0, 2), np.int64)}, "its pairs do not fit"),
        ({"issame": np.array(SAME[:2])}, "6 images do not make 2 pairs"),
        ({"issame": np.array([1, 0, 1])}, "issame.npy is not an array of type |b1"),
    ],
)
def test_wrong_npz(tmp_path, changed, complaint):
    content = {name: array for name, array in {**NPZ, **changed}.items() if array is not None}
    np.savez(tmp_path / "a.npz", **content)
    with pytest.raises(LatseError, match=rf"a\.npz.*{re.escape(complaint)}"):
        read_pairs(tmp_path / "a.npz")


def test_an_npz_may_hold_images_of_no_pair(tmp_path):
    np.savez(tmp_path / "a.npz", **{**NPZ, "pairs": np.array([[1, 2], [2, 3], [4, 1]])})
    assert np.array_equal(read_pairs(tmp_path / "a.npz").images, EXPECTED[[1, 2, 2, 3, 4, 1]])


def test_compressed_truncated_and_changed_npz(tmp_path):
    file = tmp_path / "a.npz"
    np.savez_compressed(file, **NPZ)
    with pytest.raises(LatseError, match=r"a\.npz .*images\.npy is compressed, which is refused"):
        read_pairs(file)
    np.savez(file, **NPZ)
    content = file.read_bytes()
    for size in (2, 30, len(content) // 2, len(content) - 1):
        file.write_bytes(content[:size])
        with pytest.raises(LatseError, match=r"a\.npz is not a file of pairs: it is a damaged \.npz"):
            read_pairs(file)
    directory = content.rindex(b"PK\x05\x06") + 16  # where its place stands
    place = int.from_bytes(content[directory : directory + 4], "little") + 1000
    file.write_bytes(content[:directory] + place.to_bytes(4, "little") + content[directory + 4 :])
    with pytest.raises(LatseError, match=r"a\.npz is not a file of pairs: it is a damaged \.npz"):
        read_pairs(file)
    file.write_bytes(content[:5000] + bytes([content[5000] ^ 1]) + content[5001:])
    with pytest.raises(LatseError, match=r"a\.npz is not a file of pairs: it is a damaged \.npz"):
        read_pairs(file)


def test_npz_that_promises_more_than_it_holds(tmp_path):
    """Headers of a terabyte cost nothing."""
    import zipfile

    np.savez(tmp_path / "a.npz", **NPZ)
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    length = len(NPZ["images"])
    header = members["images.npy"]
    members["images.npy"] = header.replace(b"(%d,), }      " % length, b"(%d000000,), }" % length)
    assert members["images.npy"] != header
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    with pytest.raises(LatseError, match=r"b\.npz is not a file of pairs: it is a damaged \.npz"):
        read_pairs(tmp_path / "b.npz")


def test_more_images_than_memory(tmp_path, monkeypatch):
    """3000 references to one image, on a machine of 100 MB."""
    (tmp_path / "a.bin").write_bytes(pickle.dumps(([ENCODED[0]] * 3000, [True] * 1500)))
    assert (tmp_path / "a.bin").stat().st_size < 60_000
    monkeypatch.setattr(os, "sysconf", {"SC_PHYS_PAGES": 25_600, "SC_PAGE_SIZE": 4096}.get)
    with pytest.raises(LatseError, match=r"a\.bin: its 3000 images need 107 MB, more memory than there is"):
        read_pairs(tmp_path / "a.bin")


def test_many_references_to_one_long_string_cost_nothing(tmp_path):
    """Arrays on top of one string of 4 MB, 10,000 times; each would be 4 MB to hash and to copy."""
    data = b"x" * 4_000_000
    array = np.frombuffer(data, np.uint8)
    content = pickle.dumps(([array] * 2, [True]), 3)
    start = content.index(b"cnumpy.core.multiarray")
    end = content.index(b"b", content.index(data) + len(data))
    again = content[start : end + 1]
    memo = content[content.index(data) + len(data) :][:2]
    assert memo[:1] == b"q"
    short = re.sub(rb"B....x+q.", b"h" + memo[1:], again, flags=re.DOTALL)
    flags = b"](" + b"\x88" * 5_001 + b"e"
    (tmp_path / "a.bin").write_bytes(b"\x80\x03](" + again * 2 + short * 10_000 + b"e" + flags + b"\x86.")
    start = time.process_time()
    pairs = read_encoded(tmp_path / "a.bin")
    assert time.process_time() - start < 5
    assert len(pairs.images) == 1 and len(pairs.issame) == 5_001


@pytest.mark.parametrize("encoded, same", [([], []), (ENCODED, SAME[:2]), (ENCODED[:5], SAME)])
def test_refuses_to_write_numbers_that_do_not_match(tmp_path, encoded, same):
    with pytest.raises(LatseError, match=r"a\.bin"):
        write_pairs(tmp_path / "a.bin", encoded, same)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing(tmp_path):
    limits, people = resource.getrlimit(resource.RLIMIT_FSIZE), np.arange(2 * len(SAME))
    for write, space in (
        (lambda: write_pairs(tmp_path / "a.bin", ENCODED, SAME, people), 300),  # people alone would fit
        (lambda: write_people(tmp_path / "a.bin", people), 150),
    ):
        resource.setrlimit(resource.RLIMIT_FSIZE, (space, limits[1]))
        try:
            with pytest.raises(LatseError, match=r"cannot write \S+: File too large$"):
                write()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert not list(tmp_path.iterdir())


def test_unwritable(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(LatseError, match="cannot write"):
        write_pairs(tmp_path / "file" / "a.bin", ENCODED, SAME)


def test_who_is_who_stands_beside_the_pairs(tmp_path):
    path = tmp_path / "a.b.bin"
    assert read_people(path) is None
    write_people(path, np.array([[3, 3], [5, 2**40]]))
    assert [file.name for file in tmp_path.iterdir()] == ["a.b.people.npy"]
    people = read_people(path)
    assert people.dtype == np.int64 and people.tolist() == [3, 3, 5, 2**40]
    assert read_people(tmp_path / "a.b.npz").tolist() == people.tolist()
    write_pairs(path, ENCODED, SAME, people[: 2 * len(SAME)])
    assert read_people(path).tolist() == people[: 2 * len(SAME)].tolist()
    for _ in range(2):
        write_pairs(path, ENCODED, SAME)
        assert [file.name for file in tmp_path.iterdir()] == ["a.b.bin"]


@pytest.mark.parametrize(
    "content",
    [np.zeros(4), np.zeros((2, 2), int), np.array([None]), b"", b"no", b"\x93NUMPY\x01\x00", "folder"],
)
def test_damaged_people_are_named(tmp_path, content):
    path = tmp_path / "a.people.npy"
    if isinstance(content, np.ndarray):
        np.save(path, content)
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.mkdir()
    with pytest.raises(LatseError, match=r"a\.people\.npy"):
        read_people(tmp_path / "a.bin")


def test_people_must_fit_the_pairs():
    issame = np.array([True, False])
    check_people("a.bin", None, issame)
    check_people("a.bin", np.array([4, 4, 4, 5]), issame)
    for people, sentence in (
        ([4, 4, 4], r"a\.people\.npy names 3 people, but a\.bin has 4 images"),
        ([4, 4, 4, 5, 5], r"names 5 people, but a\.bin has 4 images"),
        ([4, 5, 4, 5], r"pair 0 shows one person, but by a\.people\.npy it shows two"),
        ([4, 4, 5, 5], r"pair 1 shows two people, but by a\.people\.npy it shows one"),
    ):
        with pytest.raises(LatseError, match=sentence):
            check_people("a.bin", np.array(people), issame)
