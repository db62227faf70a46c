"""The one exception that stands for a mistake in the input, not in the program."""

from __future__ import annotations

import math


class LatseError(Exception):
    """Bad input: one clear sentence that names the file, record or key at fault.

    The command line prints it without a traceback (unless ``--debug``) and exits with status 1.
    """


def check_range(name: str, value: float, least: float, most: float = math.inf) -> None:
    """Raise LatseError, which calls the value by its `name`, unless it is from `least` to `most`."""
    if not least <= value <= most:
        limits = f"at least {least}" if most == math.inf else f"{least} to {most}"
        raise LatseError(f"{name} is {value}, must be {limits}")
