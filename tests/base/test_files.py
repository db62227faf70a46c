"""Files: whole or not at all, one writer in a folder, and digests."""

import contextlib
import json
import os
import subprocess
import sys

import pytest

from latse.errors import LatseError
from latse.files import NAMES, digest, locked, make_folder, read_json, read_lines, replacing, write_json

MEBIBYTE = 1 << 20


class Crash(BaseException):
    """Stands for Control-C and the like."""


def test_what_is_no_file_is_not_replaced(tmp_path):
    pipe, target, link = tmp_path / "pipe", tmp_path / "target", tmp_path / "link"
    os.mkfifo(pipe)
    for path in (pipe, tmp_path):
        with pytest.raises(LatseError, match=f"cannot write {path}: it is no regular file"):
            write_json(path, {})
    assert pipe.is_fifo() and tmp_path.is_dir()
    link.symlink_to(target)
    write_json(link, {"a": 1})
    assert link.is_symlink() and json.loads(target.read_text()) == {"a": 1}


def test_a_file_is_replaced_at_the_end_and_not_before(tmp_path):
    path = tmp_path / "deep" / "file"
    for content, before in (("old", None), ("new", "old")):
        with replacing(path) as temporary:
            temporary.write_text(content)
            assert temporary.parent == path.parent
            assert (path.read_text() if path.exists() else None) == before
        assert path.read_text() == content
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("failure", [ValueError, Crash, LatseError])
def test_a_failure_leaves_the_old_file_and_no_other(tmp_path, failure):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(failure), replacing(path) as temporary:
        temporary.write_text("half of the n")
        raise failure
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_one_sentence_and_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(LatseError, match="cannot write .*file: No space left"), replacing(path) as temporary:
        temporary.write_text("half of the n")
        raise OSError(28, os.strerror(28))
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_takes_no_file_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "below", tmp_path / "folder"):
        with pytest.raises(LatseError, match=f"cannot write {path}"), replacing(path) as temporary:
            temporary.write_text("new")
    assert {path.name for path in tmp_path.iterdir()} == {"file", "folder"}


def test_a_replaced_file_may_be_read_by_whom_the_umask_lets(tmp_path):
    mask = os.umask(0o027)
    try:
        with replacing(tmp_path / "file") as temporary:
            temporary.write_text("new")
    finally:
        assert os.umask(mask) == 0o027
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_json_comes_back(tmp_path):
    content = {"a": [1, 0.1, None, "é"], "b": {"c": True}}
    write_json(tmp_path / "file.json", content)
    assert read_json(tmp_path / "file.json") == content == json.loads((tmp_path / "file.json").read_text())


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_what_json_cannot_say_is_not_written(tmp_path, number):
    write_json(tmp_path / "file.json", 1)
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "file.json", {"loss": number})
    assert read_json(tmp_path / "file.json") == 1


@pytest.mark.parametrize(
    "content, lines",
    [
        (b"", []),
        (b"\xef\xbb\xbf", []),
        (b"\xff\xfe", []),
        (b" a\tb \t", [(1, "a\tb")]),
        (b"\r\r\n\n\xef\xbb\xbf", [(4, "\ufeff")]),
        (b"a\rb\r\nc\n\td", [(1, "a"), (2, "b"), (3, "c"), (4, "d")]),
        (
            "a\x0b\x0c\x1c\x85\u2028\xa0\n\U0001f600".encode(),
            [(1, "a\x0b\x0c\x1c\x85\u2028\xa0"), (2, "\U0001f600")],
        ),
        (b"\xfe\xff\xd8\x3d\xde\x00\x00\r\x00\n\x00a", [(1, "\U0001f600"), (2, "a")]),
    ],
)
def test_lines_of_a_text(tmp_path, content, lines):
    (tmp_path / "file").write_bytes(content)
    assert list(read_lines(tmp_path / "file")) == lines


@pytest.mark.parametrize(
    "content, sentence",
    [
        (b"\xe9", "line 1: the byte 0xe9 is no text in UTF-8"),
        (b"a\rb\r\nc\n\xc3\x28", "line 4: the byte 0xc3 is no text in UTF-8"),
        (b"\xef\xbb\xbf\n\xff", "line 2: the byte 0xff is no text in UTF-8"),
        (b"x" * 100_000 + b"\n\x80", "line 2: the byte 0x80 is no text in UTF-8"),
        (b"\xff\xfe\n\0a", "line 2: the byte 0x61 is no text in UTF-16-LE"),
        (b"\xfe\xff\xd8\0\0a", "line 1: the byte 0xd8 is no text in UTF-16-BE"),
    ],
)
def test_a_byte_that_is_no_text_is_named(tmp_path, content, sentence):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(LatseError, match=f"^{tmp_path}/file, {sentence}$"):
        list(read_lines(tmp_path / "file"))


def test_a_pipe_is_read_once():
    """A shell hands over `<(command)` so."""
    for content, lines in ((b"\xef\xbb\xbfa\nb", [(1, "a"), (2, "b")]), (b"\xe9", [(1, "\udce9")])):
        with _pipe(content) as name:
            assert list(read_lines(name, NAMES)) == lines
    with _pipe(b"\xe9") as name, pytest.raises(LatseError, match=f"^{name} is no text in UTF-8$"):
        list(read_lines(name))


@contextlib.contextmanager
def _pipe(content):
    reading, writing = os.pipe()
    os.write(writing, content)
    os.close(writing)
    yield f"/dev/fd/{reading}"
    os.close(reading)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000])
def test_damaged_or_missing_json_is_named(tmp_path, content):
    with pytest.raises(LatseError, match=r"file\.json: No such file"):
        read_json(tmp_path / "file.json")
    (tmp_path / "file.json").write_bytes(content)
    with pytest.raises(LatseError, match=r"file\.json is damaged"):
        read_json(tmp_path / "file.json")


def test_a_folder_is_made_with_its_parents_or_named(tmp_path):
    assert make_folder(tmp_path / "a" / "b").is_dir()
    assert make_folder(str(tmp_path / "a" / "b")) == tmp_path / "a" / "b"
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(LatseError, match=f"cannot make the folder {path}"):
            make_folder(path)


def test_a_digest_stands_for_the_content_alone(tmp_path):
    one, copy = tmp_path / "one", tmp_path / "elsewhere"
    one.write_bytes(b"content")
    copy.write_bytes(b"content")
    os.utime(copy, (1, 1))
    assert digest(one) == digest(copy) == digest(str(one))
    assert len(digest(one)) == 32
    assert int(digest(one), 16) >= 0


def test_every_byte_and_the_length_count_in_a_digest(tmp_path):
    path = tmp_path / "file"
    content = bytearray(2 * MEBIBYTE + 5)
    variants = [bytes(content), bytes(content[:-1]), bytes(content) + b"\0", b""]
    for at in (0, MEBIBYTE - 1, MEBIBYTE, 2 * MEBIBYTE, len(content) - 1):
        variants.append(bytes(content[:at] + b"\1" + content[at + 1 :]))
    digests = set()
    for variant in variants:
        path.write_bytes(variant)
        digests.add(digest(path))
    assert len(digests) == len(variants) == 9


def test_what_cannot_be_read_has_no_digest(tmp_path):
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(LatseError, match=f"cannot read {path}: "):
            digest(path)


def test_only_one_is_in_a_locked_folder(tmp_path):
    (tmp_path / "other").mkdir()
    for _ in range(2):
        with locked(tmp_path):
            with pytest.raises(LatseError, match=f"^another process is at work in {tmp_path}$"), locked(
                tmp_path
            ):
                pytest.fail("two in one folder")
            with locked(tmp_path / "other"):
                pass
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


@pytest.mark.parametrize("failure", [BlockingIOError, PermissionError, Crash])
def test_a_failure_inside_passes_unchanged_and_frees_the_folder(tmp_path, failure):
    with pytest.raises(failure), locked(tmp_path):
        raise failure
    with locked(tmp_path):
        pass


def test_a_killed_process_leaves_no_lock(tmp_path):
    code = f"from latse.files import locked\nwith locked({str(tmp_path)!r}): print(flush=True); input()"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    process.stdout.readline()
    with pytest.raises(LatseError, match="another process"), locked(tmp_path):
        pass
    process.kill()
    process.communicate()
    with locked(tmp_path):
        pass
