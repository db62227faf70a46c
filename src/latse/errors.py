"""The one exception that stands for a mistake in the input, not in the program."""

from __future__ import annotations

import contextlib
import math
from typing import Iterator


class LatseError(Exception):
    """Bad input: one clear sentence that names the file, record or key at fault.

    The command line prints it without a traceback (unless ``--debug``) and exits with status 1.
    """


def check_range(name: str, value: float, least: float, most: float = math.inf) -> None:
    """Raise LatseError, which calls the value by its `name`, unless it is from `least` to `most`."""
    if not least <= value <= most:
        limits = f"at least {least}" if most == math.inf else f"{least} to {most}"
        raise LatseError(f"{name} is {value}, must be {limits}")


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
