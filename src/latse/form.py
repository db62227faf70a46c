"""What a JSON file must hold, said once as data: a file that holds something else is one sentence.

A form is a `Leaf`, `Each`, `Rows`, `Maybe`, or a mapping of key -> form: an object with these keys and
perhaps others, of which one that ends in `?` may be missing.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any, Callable, Iterator, Mapping, NamedTuple, Union

from latse.errors import LatseError

LONGEST = 60  # characters of a wrong value that are shown
FINITE = sys.float_info.max


class Leaf(NamedTuple):
    """One value: in words after "must be", and whether a value obeys."""

    says: str
    holds: Callable[[Any], bool]


NUMBER = Leaf("a number", lambda value: type(value) in (int, float) and -FINITE <= value <= FINITE)
COUNT = Leaf("a whole number of at least 0", lambda value: type(value) is int and 0 <= value < 2**63)
TEXT = Leaf("a text", lambda value: isinstance(value, str))
INTERVAL = Leaf(
    "a list of two numbers",
    lambda value: isinstance(value, list) and len(value) == 2 and all(map(NUMBER.holds, value)),
)
SWITCH = Leaf("true or false", lambda value: isinstance(value, bool))
NUMERAL = Leaf("a whole number", lambda key: key.isascii() and key.isdigit() and len(key) < 19)  # of a key
ANYTHING = Leaf("a value", lambda _: True)


class Each(NamedTuple):
    """An object of at least `least` keys, each of which obeys `key`, over values of one form."""

    form: Form
    key: Leaf = TEXT
    least: int = 0


class Rows(NamedTuple):
    """A list of at least `least` entries of one form."""

    form: Form
    least: int = 0


class Maybe(NamedTuple):
    """Null, or what is of a form."""

    form: Form


Form = Union[Leaf, Mapping[str, "Form"], Each, Rows, Maybe]


def check(path: str | os.PathLike, content: Any, form: Form, where: str = "") -> None:
    """Raise LatseError unless the content of the file `path` is of a form.

    The sentence names the file, the key, which starts at `where`, what is there, and what must be.
    """
    inner = form.form if isinstance(form, Maybe) else form
    if content is None and inner is not form:
        return
    if not _begins(content, inner):
        subject = f"{where} is" if where else "it is"
        raise LatseError(f"{path}: {subject} {shown(content)}, must be {in_words(form)}")
    for key, value, part in _parts(path, content, inner, f"{where}." if where else ""):
        check(path, value, part, key)


def in_words(form: Form) -> str:
    """Return what follows "must be"."""
    if isinstance(form, Maybe):
        return f"null or {in_words(form.form)}"
    if isinstance(form, Leaf):
        return form.says
    least = form.least if isinstance(form, (Rows, Each)) else 0
    if isinstance(form, Rows):
        return f"a list of at least {least}" if least else "a list"
    return f"an object with at least {least} key" if least else "an object with keys"


def shown(content: Any) -> str:
    """Return a value as JSON writes it, the end of a long one cut off."""
    text = json.dumps(content, ensure_ascii=False)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def _begins(content: Any, form: Form) -> bool:
    """Tell whether a value is of the form, but for what is in it."""
    if isinstance(form, Leaf):
        return form.holds(content)
    if isinstance(form, Rows):
        return isinstance(content, list) and len(content) >= form.least
    return isinstance(content, dict) and len(content) >= (form.least if isinstance(form, Each) else 0)


def _parts(path: str | os.PathLike, content: Any, form: Form, before: str) -> Iterator[tuple[str, Any, Form]]:
    """Iterate what is in a value: where it is, itself, and its form."""
    if isinstance(form, Rows):
        for number, value in enumerate(content):
            yield f"{before[:-1]}[{number}]", value, form.form
    elif isinstance(form, Each):
        for key, value in content.items():
            if not form.key.holds(key):
                raise LatseError(f"{path}: the key {before}{key} must be {form.key.says}")
            yield f"{before}{key}", value, form.form
    elif isinstance(form, Mapping):
        for name, part in form.items():
            key = name.rstrip("?")
            if key in content:
                yield f"{before}{key}", content[key], part
            elif key == name:
                raise LatseError(f"{path} lacks the key {before}{key}, which must be {in_words(part)}")
