"""Files: what goes wrong with one is one sentence, and a reader never sees half of one."""

from __future__ import annotations

import codecs
import contextlib
import fcntl
import hashlib
import io
import json
import os
import secrets
from pathlib import Path
from typing import Any, Iterator, TextIO

from latse.errors import LatseError

PART = ".part"  # ends the name of what is being written
ENCODINGS = {codecs.BOM_UTF8: "UTF-8", codecs.BOM_UTF16_LE: "UTF-16-LE", codecs.BOM_UTF16_BE: "UTF-16-BE"}
BEGINNINGS = {"JSON": b"{[", "HTML": b"<"}  # of the reports that a command replaces
SPACE = " \t\n"  # what means nothing at the ends of a line
# `errors` of a text that names files or people: their bytes come through, as `os.fsdecode` has them.
NAMES = "surrogateescape"


@contextlib.contextmanager
def explained(failure: str) -> Iterator[None]:
    """Turn an OSError of the body into a LatseError: `failure`, as "cannot read FILE", and the reason."""
    try:
        yield
    except OSError as error:
        raise LatseError(f"{failure}: {error.strerror or error}") from error


def refuse_irregular(path: str | os.PathLike) -> None:
    """Raise LatseError if there is a folder, device or pipe: to open a named pipe would wait for ever."""
    if Path(path).exists() and not Path(path).is_file():
        raise LatseError(f"{path} is not a regular file")


def existing(title: str, path: str | os.PathLike) -> Path:
    """Return the path of a file; raise LatseError, which calls it by its `title`, if it is not there."""
    path = Path(path)
    with explained(f"cannot read {path}"):
        if not path.is_file():
            raise LatseError(f"{title} {path} is missing")
    return path


def refuse_existing(*files: str | os.PathLike) -> None:
    """Raise LatseError if one of the files is there: nothing is replaced in silence."""
    for file in filter(os.path.lexists, files):
        raise LatseError(f"{file} is there already: remove it, or choose another name")


def refuse_same(args: Any, *names: str) -> None:
    """Raise LatseError if two outputs would be one; `names` are those of `args`, None where not asked for."""
    given = [getattr(args, name) for name in names if getattr(args, name)]
    if len({Path(path).resolve() for path in given}) < len(given):
        *options, last = [f"--{name}" for name in names]
        raise LatseError(f"{', '.join(options)} and {last} must be different files")


def refuse_other(path: str | os.PathLike, kind: str) -> None:
    """Raise LatseError if there is something that is no file of a `kind` of `BEGINNINGS`, nor empty.

    As a photograph, a list or a folder: a mistyped name replaces none.
    """
    refuse_irregular(path)
    if not Path(path).exists():
        return
    with explained(f"cannot read {path}"), Path(path).open("rb") as file:
        if file.read(1) not in BEGINNINGS[kind]:
            raise LatseError(f"{path} is there and no {kind}: choose another name")


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is synced to disk and renamed to `path`.

    On any failure the temporary file is removed and an older `path` stays as it was.

    Raises
    ------
    LatseError
        If the folder cannot be made or written to, the disk is full, or `path` is a device, pipe or folder:
        a rename would put a file in its place.
    """
    path = Path(os.path.realpath(path))  # a link stays a link
    if path.exists() and not path.is_file():
        raise LatseError(f"cannot write {path}: it is no regular file")
    temporary = None
    try:
        with explained(f"cannot write {path}"):
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_name(f".{path.name}.{secrets.token_hex(4)}{PART}")
            part.touch(exist_ok=False)
            temporary = part
            yield temporary
            _sync(temporary)
            temporary.replace(path)
            _sync(path.parent)
    finally:
        if temporary is not None and temporary.exists():
            temporary.unlink()


def remove_parts(folder: str | os.PathLike, name: str) -> None:
    """Remove what writers that were killed have left in `folder` of files called `name`, which may have `*`.

    To be called where no other process writes such files there.
    """
    for part in Path(folder).glob(f".{name}.*{PART}"):
        part.unlink()


def write_json(path: str | os.PathLike, content: Any) -> None:
    """Write `content` as indented JSON, atomically; NaN and infinity are refused (ValueError)."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write a text in UTF-8, atomically; of a path in it, bytes that are not UTF-8 come escaped."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


@contextlib.contextmanager
def open_text(path: str | os.PathLike, errors: str = "strict") -> Iterator[TextIO]:
    r"""Open for reading what people may have written with any editor: every text comes through here.

    It is UTF-8, or UTF-16 if it begins with that byte order mark; a mark is no part of the text. Lines end in
    \n, \r\n or \r, and come with \n. `errors` is that of `open`, such as `NAMES`. Raises LatseError if the
    file cannot be read; if it is no such text, also naming line and byte.
    """
    try:
        with explained(f"cannot read {path}"), Path(path).open("rb") as file:
            mark = _mark(file.peek(3))
            file.read(len(mark))
            with io.TextIOWrapper(file, ENCODINGS.get(mark, "UTF-8"), errors) as text:
                yield text
    except UnicodeDecodeError as error:
        raise LatseError(_no_text(path)) from error


def read_text(path: str | os.PathLike, errors: str = "strict") -> str:
    """Return the text of a file; arguments and errors are those of `open_text`."""
    with open_text(path, errors) as text:
        return text.read()


def read_lines(path: str | os.PathLike, errors: str = "strict") -> Iterator[tuple[int, str]]:
    """Iterate (number from 1, line) of a text, empty lines left out, without white space at either end.

    Arguments and errors are those of `open_text`.
    """
    with open_text(path, errors) as text:
        for number, line in enumerate(text, start=1):
            stripped = line.strip(SPACE)
            if stripped:
                yield number, stripped


def read_json(path: str | os.PathLike) -> Any:
    """Return the content of a JSON file; raise LatseError if it is missing or damaged."""
    text = read_text(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise LatseError(f"{path} is damaged: it is not JSON") from error


def read_object(path: str | os.PathLike) -> dict[str, Any]:
    """Return the JSON object in a file; raise LatseError if it is missing, damaged or no object."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise LatseError(f"{path} holds no JSON object")
    return content


@contextlib.contextmanager
def ascii_name(path: str | os.PathLike, mode: str = "rb") -> Iterator[str]:
    """Open a file as `open` does, and yield a name that it has meanwhile: MXNet takes no path but UTF-8."""
    with Path(path).open(mode) as file:
        yield f"/proc/self/fd/{file.fileno()}"


def make_folder(path: str | os.PathLike) -> Path:
    """Make the folder `path` with its parents and return it; raise LatseError if that is impossible."""
    path = Path(path)
    with explained(f"cannot make the folder {path}"):
        path.mkdir(parents=True, exist_ok=True)
    if not os.access(path, os.W_OK):
        raise LatseError(f"cannot write into the folder {path}: permission denied")
    return path


def make_parents(*files: str | os.PathLike | None) -> None:
    """Make the folders of files to be written: an unwritable place is better known before the work."""
    for file in filter(None, files):
        make_folder(Path(file).parent)


def digest(path: str | os.PathLike) -> str:
    """Return 32 hexadecimal digits that stand for the content of a file; LatseError if it cannot be read."""
    hashed = hashlib.blake2b(digest_size=16)
    with explained(f"cannot read {path}"), Path(path).open("rb") as file:
        for part in iter(lambda: file.read(1 << 20), b""):
            hashed.update(part)
    return hashed.hexdigest()


def digest_of(content: object) -> str:
    """Return 32 hexadecimal digits that stand for something as JSON has it."""
    return hashlib.blake2b(json.dumps(content).encode(), digest_size=16).hexdigest()


@contextlib.contextmanager
def locked(folder: str | os.PathLike) -> Iterator[None]:
    """Keep other processes that ask for the same out of a folder; raise LatseError if one is in it."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with explained(f"cannot lock {folder}"):
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise LatseError(f"another process is at work in {folder}") from error
        yield
    finally:
        os.close(handle)


def _mark(content: bytes) -> bytes:
    """Return the byte order mark that a text begins with, empty if there is none."""
    return next((mark for mark in ENCODINGS if content.startswith(mark)), b"")


def _no_text(path: str | os.PathLike) -> str:
    """Return the sentence on a file with a wrong byte, whose place is said if it can be read again."""
    content = Path(path).read_bytes() if Path(path).is_file() else b""
    encoding = ENCODINGS.get(_mark(content), "UTF-8")
    try:
        content[len(_mark(content)) :].decode(encoding)
    except UnicodeDecodeError as error:
        before = io.StringIO(error.object[: error.start].decode(encoding), newline=None).read()
        line, byte = before.count("\n") + 1, error.object[error.start]
        return f"{path}, line {line}: the byte 0x{byte:02x} is no text in {encoding}"
    return f"{path} is no text in UTF-8"


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
