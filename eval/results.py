"""Reading the JSON files that runs and judgements leave."""

from __future__ import annotations

import contextlib
import os
from typing import Iterator

from latse.errors import LatseError


@contextlib.contextmanager
def reading(path: str | os.PathLike) -> Iterator[None]:
    """Turn what a file lacks, or holds in the wrong shape, into a LatseError that names file and key."""
    try:
        yield
    except KeyError as error:
        raise LatseError(f"{path} lacks the key {error}") from error
    except (AttributeError, IndexError, StopIteration, TypeError, ValueError) as error:
        raise LatseError(f"{path} is not as its command writes it") from error
