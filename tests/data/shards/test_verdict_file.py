"""Stored verdicts: what comes back, what is refused, and that a killed run goes on."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latse.data.shards import verdict_file
from latse.data.shards.verdict_file import VerdictWriter, read
from latse.errors import LatseError

BINDING = {"teacher": "a", "graph": "b", "data": "c", "preprocessing": "d"}


def written(path, ranks, ks=(1, 3, 5)):
    """Write verdicts by ranks (n, 2) and return the path."""
    writer = VerdictWriter(path, BINDING, ks, len(ranks))
    writer.put(np.arange(len(ranks)), np.asarray(ranks))
    writer.finish()
    return path


@given(
    ranks=st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=40),
    ks=st.sets(st.integers(1, 15), min_size=1, max_size=14),
)
def test_keep_is_rank_below_k(tmp_path_factory, ranks, ks):
    path = written(tmp_path_factory.mktemp("v") / "a.keep", ranks, ks)
    found = read(path)
    assert (found.binding, found.ks) == (BINDING, tuple(sorted(ks)))
    for k in ks:
        assert both(found, k).tolist() == [[first < k, second < k] for first, second in ranks]


def both(verdicts, k):
    """Whether each image and its mirror image is kept: bool (n, 2)."""
    asked = np.arange(len(verdicts.packed))
    return np.stack([verdicts.keeps(k, asked, np.full(len(asked), mirror)) for mirror in (False, True)], 1)


def test_images_are_asked_for_in_any_order_and_mirrored_by_turns(tmp_path):
    found = read(written(tmp_path / "a.keep", [[0, 4], [2, 0], [9, 1]]))
    kept = found.keeps(3, np.array([2, 0, 2, 0, 1]), np.array([True, True, False, False, True]))
    assert (kept.dtype, kept.tolist()) == (bool, [True, False, False, True, True])
    assert found.keeps(3, np.array([], int), np.array([], bool)).tolist() == []


def test_the_bytes_are_as_documented(tmp_path):
    content = written(tmp_path / "a.keep", [[0, 4], [2, 9]]).read_bytes()
    assert content[:8] == b"LATSEKP2"
    length = int.from_bytes(content[8:12], "little")
    assert json.loads(content[12 : 12 + length]) == {"ks": [1, 3, 5], "images": 2, **BINDING}
    assert list(content[12 + length : -32]) == [0x20, 0x31]
    assert content[-32:] == hashlib.blake2b(content[:-32], digest_size=32).digest()
    assert [path.name for path in tmp_path.iterdir()] == ["a.keep"]


def test_a_killed_writer_goes_on(tmp_path):
    ranks = np.random.default_rng(0).integers(0, 6, (50, 2))
    whole = written(tmp_path / "whole.keep", ranks).read_bytes()
    first = VerdictWriter(tmp_path / "a.keep", BINDING, (1, 3, 5), 50)
    first.put(np.arange(20), ranks[:20])
    del first  # never finished
    second = VerdictWriter(tmp_path / "a.keep", BINDING, (1, 3, 5), 50)
    assert second.open_images().tolist() == list(range(20, 50))
    second.put(np.arange(20, 50), ranks[20:])
    second.finish()
    assert (tmp_path / "a.keep").read_bytes() == whole


@pytest.mark.parametrize(
    "binding, ks, images, said",
    [
        ({**BINDING, "teacher": "n"}, (1, 3), 4, "the digest of the teacher's parameters is a, not n"),
        ({**BINDING, "graph": "n"}, (1, 3), 4, "the digest of the teacher's graph is b, not n"),
        ({**BINDING, "data": "n"}, (1, 3), 4, "the digest of the set is c, not n"),
        ({**BINDING, "preprocessing": "n"}, (1, 3), 4, "the digest of the decoded images is d, not n"),
        (BINDING, (1,), 4, "k is 1, 3, not 1"),
        (BINDING, (1, 3), 5, "the number of images is 4, not 5"),
        ({**BINDING, "data": "n"}, (5, 1), 4, "the digest of the set is c, not n; k is 1, 3, not 1, 5"),
    ],
)
def test_a_part_of_another_run_is_not_mixed(tmp_path, binding, ks, images, said):
    VerdictWriter(tmp_path / "a.keep", BINDING, (1, 3), 4)
    advice = "remove it, or choose another name"
    with pytest.raises(LatseError, match=f"a.keep.part holds other verdicts: {said}: {advice}$"):
        VerdictWriter(tmp_path / "a.keep", binding, ks, images)


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"notes", "is not a file of verdicts"), (b"LATSEKP2" + b"\xff" * 9, "has a header that no file")],
)
def test_a_part_that_is_none_is_named(tmp_path, content, said):
    (tmp_path / "a.keep.part").write_bytes(content)
    with pytest.raises(LatseError, match=f"a.keep.part {said}"):
        VerdictWriter(tmp_path / "a.keep", BINDING, (1, 3), 4)


def test_a_cut_part_is_damaged(tmp_path):
    VerdictWriter(tmp_path / "a.keep", BINDING, (1, 3), 4)
    part = tmp_path / "a.keep.part"
    part.write_bytes(part.read_bytes()[:-1])
    with pytest.raises(LatseError, match="a.keep.part is damaged: its header promises another number"):
        VerdictWriter(tmp_path / "a.keep", BINDING, (1, 3), 4)


@pytest.mark.parametrize("at", [0, 9, 20, -40, -1])
def test_a_changed_byte_is_noticed(tmp_path, at):
    path = written(tmp_path / "a.keep", [[0, 1]] * 30)
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    with pytest.raises(LatseError, match="a.keep is (damaged|not a file of verdicts)"):
        read(path)


@pytest.mark.parametrize("size", [0, 7, 12, 30, 100])
def test_a_cut_file_is_noticed(tmp_path, size):
    path = written(tmp_path / "a.keep", [[0, 1]] * 30)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(LatseError, match="a.keep"):
        read(path)


@pytest.mark.parametrize(
    ("header", "said"),
    [
        *((header, ": header is .*, must be an object with keys$") for header in ([1], "ks", None)),
        ({}, " lacks the key header.ks, which must be a list of 1 to 14 whole numbers of at least 1$"),
        ({"ks": 5}, ": header.ks is 5, must be a list of 1 to 14 whole numbers of at least 1$"),
        ({"ks": [0], "images": 1}, r": header.ks is \[0\], must be a list of 1 to 14 whole numbers"),
        ({"ks": [1], "images": 1}, " lacks the key header.teacher, which must be a text$"),
    ],
)
def test_a_wrong_header_is_one_sentence(tmp_path, header, said):
    text = json.dumps(header).encode()
    content = b"LATSEKP2" + len(text).to_bytes(4, "little") + text + b"\0"
    (tmp_path / "a.keep").write_bytes(content + hashlib.blake2b(content, digest_size=32).digest())
    with pytest.raises(LatseError, match=f"a.keep{said}"):
        read(tmp_path / "a.keep")


@pytest.mark.parametrize("content", [b"LATSEKP1", b"LATSEKP1" + bytes(100)])
def test_an_older_file_is_to_be_made_again(tmp_path, content):
    (tmp_path / "a.keep").write_bytes(content)
    (tmp_path / "b.keep.part").write_bytes(content)
    advice = "is of an older version: remove it and make it again with `latse filter`"
    with pytest.raises(LatseError, match=f"a.keep {advice}"):
        read(tmp_path / "a.keep")
    with pytest.raises(LatseError, match=f"b.keep.part {advice}"):
        VerdictWriter(tmp_path / "b.keep", BINDING, (1,), 9)


def test_a_kill_while_the_part_is_made_leaves_none(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        VerdictWriter(tmp_path / "a.keep", BINDING, (1,), 9)
    monkeypatch.undo()
    assert len(VerdictWriter(tmp_path / "a.keep", BINDING, (1,), 9).open_images()) == 9


def test_what_is_not_there_is_one_sentence(tmp_path):
    with pytest.raises(LatseError, match="cannot read .*none.keep"):
        read(tmp_path / "none.keep")
    with pytest.raises(LatseError, match="none for k = 2"):
        both(read(written(tmp_path / "a.keep", [[0, 1]])), 2)
    for ks in ([], [0], range(1, 17)):
        with pytest.raises(LatseError, match="one to 14 numbers"):
            verdict_file.check_ks(ks)
