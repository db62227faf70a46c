"""How a network of somebody else's wants its images: `WHAT?mean=127.5&scale=0.0078125&order=bgr&size=112`.

Without mxnet, as parsers need it; `latse.models.runner.fed` does it.
"""

from __future__ import annotations

import contextlib
import math
import re
from typing import Any, Callable, Mapping, NamedTuple

from latse.errors import LatseError, nearest

SIZE = 112
ORDERS = ("rgb", "bgr")
LARGEST = 1024  # side of an image, in pixels


class Feeding(NamedTuple):
    """What a network gets of an aligned face: (x - mean)·scale of each pixel x, 0 to 255.

    `mean` and `scale` are one number, or one for each channel in the network's `order`, "rgb" or "bgr";
    `size` is the side of the image in pixels. The default is what networks of this project get.
    """

    mean: tuple[float, ...] = (0.0,)
    scale: tuple[float, ...] = (1.0,)
    order: str = "rgb"
    size: int = SIZE

    def as_json(self) -> dict[str, Any]:
        """Return what JSON says of it."""
        return {"mean": [*self.mean], "scale": [*self.scale], "order": self.order, "size": self.size}

    def __str__(self) -> str:
        mean, scale = (", ".join(f"{number:g}" for number in value) for value in (self.mean, self.scale))
        pixels = "0 to 255" if (mean, scale) == ("0", "1") else f"0 to 255 less {mean}, times {scale}"
        return f"{self.order.upper()}, {pixels}, {self.size}x{self.size}"


def split(what: str) -> tuple[str, Feeding | None]:
    """Return what stands before `?` in `WHAT?KEY=VALUE&…`, and the feeding after it, None without one.

    Raises LatseError for an unknown key, a key twice, or a value out of range.
    """
    match = re.fullmatch(r"(.*)\?([a-z]+=[^?/]*)", what, re.DOTALL)
    if match is None:
        return what, None
    values: dict[str, Any] = {}
    for part in match[2].split("&"):
        key, _, value = part.partition("=")
        if key not in READERS:
            known = f"there are {', '.join(READERS)}{nearest(key, READERS)}"
            raise LatseError(f"{what}: unknown key {key!r}; {known}")
        if key in values:
            raise LatseError(f"{what}: {key} stands there twice")
        try:
            values[key] = READERS[key](value)
        except ValueError as error:
            raise LatseError(f"{what}: {key} is {value!r}, must be {error}") from error
    return match[1], Feeding(**values)


def _numbers(text: str) -> tuple[float, ...]:
    with contextlib.suppress(ValueError):
        numbers = tuple(map(float, text.split(",")))
        if len(numbers) in (1, 3) and all(map(math.isfinite, numbers)):
            return numbers
    raise ValueError("a number, or three with commas between")


def _factors(text: str) -> tuple[float, ...]:
    factors = _numbers(text)
    if 0 in factors:
        raise ValueError("other than 0")
    return factors


def _order(text: str) -> str:
    if text not in ORDERS:
        raise ValueError(" or ".join(ORDERS))
    return text


def _size(text: str) -> int:
    if not re.fullmatch("[0-9]{1,4}", text) or not 1 <= int(text) <= LARGEST:
        raise ValueError(f"1 to {LARGEST} pixels")
    return int(text)


# Key -> what reads its value; a ValueError of it says what must be.
READERS: Mapping[str, Callable[[str], Any]] = {
    "mean": _numbers,
    "scale": _factors,
    "order": _order,
    "size": _size,
}
