"""The one exception that stands for a mistake in the input, not in the program."""

from __future__ import annotations

import contextlib
import difflib
import math
import re
from typing import Iterable, Iterator

MOST = 2**31 - 1  # the largest whole number that MXNet takes
# In what Python, MXNet or CUDA says of an array that is too large.
TOO_LARGE = re.compile(
    r"out of memory|failed to allocate|bad_alloc|larger than 2\^31|allowed dimension exceeded", re.IGNORECASE
)


class LatseError(Exception):
    """Bad input: one clear sentence that names the file, record or key at fault.

    The command line prints it without a traceback (unless ``--debug``) and exits with status 1.
    """


def is_short_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that an array is larger than this machine, or MXNet, can hold."""
    return isinstance(error, MemoryError) or bool(TOO_LARGE.search(str(error)))


def check_range(name: str, value: float, least: float, most: float = math.inf) -> None:
    """Raise LatseError, which calls the value by its `name`, unless it is from `least` to `most`."""
    if not least <= value <= most:
        limits = f"at least {least}" if most == math.inf else f"{least} to {most}"
        raise LatseError(f"{name} is {value}, must be {limits}")


def nearest(word: str, known: Iterable[str]) -> str:
    """Return "; did you mean …?" with the known word that is very like this one, "" if there is none."""
    return "".join(f"; did you mean {name}?" for name in difflib.get_close_matches(word, known, 1, 0.8))


@contextlib.contextmanager
def blaming(what: str) -> Iterator[None]:
    """Turn what a user's code or a package raises in the body into one sentence that begins with `what`."""
    try:
        yield
    except LatseError:
        raise
    except Exception as error:  # such code has exceptions of its own, which share no other class
        first = next(filter(None, map(str.strip, str(error).splitlines())), "nothing more is said")
        raise LatseError(f"{what}: {type(error).__name__}: {first}") from error
