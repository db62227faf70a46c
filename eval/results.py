"""Reading the JSON files that runs and judgements leave."""

from __future__ import annotations

import contextlib
import os
from typing import Iterator

from latse.errors import LatseError


@contextlib.contextmanager
def reading(path: str | os.PathLike) -> Iterator[None]:
    """Turn what the parts of a file are at odds about into a LatseError that names the file.

    That each part is right by itself, `latse.form` sees to.
    """
    try:
        yield
    except KeyError as error:
        raise LatseError(f"{path} lacks the key {error}") from error
    except (IndexError, TypeError, ValueError) as error:
        raise LatseError(f"{path} is at odds with itself: it is not as its command writes it") from error
