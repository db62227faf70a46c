"""The columns of a study's tables: a name stands for one figure of a run, which its result holds."""

from __future__ import annotations

import re
import statistics
from typing import Any, Callable, Mapping, NamedTuple, Sequence

from latse.errors import LatseError
from latse.text_table import NOTHING

Result = Mapping[str, Any]  # what ROW/seed-N.json holds
ACCURACY = "accuracy"
DEFAULT = (
    ACCURACY,
    "TAR@1%FAR",
    "rank 1",
    "kept",
    "wrong refused",
    "right refused",
    "SSIM",
    "CPU minutes",
)
# Of one set of pairs -> its keys in the result of the set.
OF_SET = {ACCURACY: ("accuracy",), "AUC": ("auc",), "EER": ("eer",), "SSIM": ("restoration", "ssim")}
TAR = re.compile(r"TAR@(\d+(?:\.\d+)?)%FAR")
RANK = re.compile(r"rank 1(?: @(\d+))?")
ON, EACH = " on ", "*"
# Of the run -> its keys in the result; K is the filter's.
K = "K"
OF_RUN = {
    "kept": ("metrics", "kept"),
    "precision": ("metrics", "precision"),
    "recall": ("metrics", "recall"),
    "wrong refused": ("filter", "truth", K, "all", "wrong_refused"),
    "right refused": ("filter", "truth", K, "all", "right_refused"),
    "CPU minutes": ("cost", "cpu_seconds"),
    "peak MiB": ("cost", "peak_megabytes"),
}
LESS = ("EER", "right refused", "CPU minutes", "peak MiB")  # that are better
WRITTEN = {"CPU minutes": (1 / 60, ".1f"), "peak MiB": (1, ".0f")}
SHARE, ANY = (100, ".2f"), (1, ".4g")
NAMES = (*OF_SET, "TAR@1%FAR", "rank 1", *OF_RUN)


class Column(NamedTuple):
    """One figure of a run.

    Attributes
    ----------
    name : str
        As the study writes it.
    of : callable
        Takes a result; returns the figure, None where the result has none.
    scale, digits : float, str
        A figure is shown times `scale`, as `format` has it for `digits`.
    is_by_set : bool
        Whether each set of pairs has one; `of` is their mean.
    """

    name: str
    of: Callable[[Result], float | None]
    scale: float
    digits: str
    is_by_set: bool = False

    @property
    def sign(self) -> int:
        """1 where more is better, -1 where less is."""
        return -1 if self.name.partition(ON)[0] in LESS else 1

    @property
    def label(self) -> str:
        """The name, with percent where it is a share."""
        return f"{self.name}, %" if self.scale == 100 else self.name

    def shown(self, value: float | None, sign: str = "") -> str:
        """Write a figure, with a `sign` of `format`; None is a dash."""
        return NOTHING if value is None else f"{value * self.scale:{sign}{self.digits}}"


def column(name: str, sets: Sequence[str] = ()) -> Column:
    """Return the column of a name.

    Parameters
    ----------
    name : str
        `accuracy`, `AUC`, `EER`, `SSIM` and `TAR@X%FAR` are means over the sets of pairs, or of the set that
        is named, as in `accuracy on SET`; `rank 1`, `rank 1 @SIZE`; a name of `OF_RUN`; or the keys of
        another number in a result, with / between them; with * for the name of a set of pairs they are such
        a mean, too.
    sets : sequence of str
        Of a mean, over which sets it goes; none: over all.

    Raises
    ------
    LatseError
        If there is no such column, or it is no mean over the sets that are asked for.
    """
    kind, _, one = name.partition(ON)
    of_set = _of_set(kind)
    if of_set and not (one and sets):
        written = SHARE if _in_set(kind) else ANY
        return Column(name, _mean(of_set, [one] if one else sets), *written, is_by_set=not one)
    if sets:
        raise LatseError(f"the column '{name}' is no mean over sets of pairs, and takes no others")
    rank = RANK.fullmatch(name)
    if rank:
        return Column(name, lambda result: _rank(result, rank[1]), *SHARE)
    if name in OF_RUN:
        return Column(name, _of_run(OF_RUN[name]), *WRITTEN.get(name, SHARE))
    if "/" in name:
        return Column(name, _of_run(name.split("/")), *ANY)
    known = ", ".join(NAMES)
    raise LatseError(f"there is no column '{name}': there are {known}, and keys of a result with / between")


def is_mean(name: str) -> bool:
    """Tell whether a column is a mean over sets of pairs."""
    kind, _, one = name.partition(ON)
    return bool(_of_set(kind)) and not one


def averaged(name: str, sets: Sequence[str]) -> Column:
    """Return the column of a name, a mean over these sets of pairs (none: all) if it is one."""
    return column(name, sets if is_mean(name) else ())


def expanded(columns: Mapping[str, str], sets: Sequence[str]) -> dict[str, str]:
    """Return heading -> name, a column on every set, `… on *`, as one for each of the `sets`."""
    found = {}
    for heading, name in columns.items():
        kind, on, one = name.partition(ON)
        found.update({f"{kind} on {each}": f"{kind} on {each}" for each in sets} if one == EACH else {})
        found.update({} if one == EACH else {heading: name})
    return found


def at(content: Any, keys: Sequence[str]) -> float | None:
    """Return the number at `keys` of nested objects, None where there is none."""
    found = _inside(content, keys)
    return found if isinstance(found, (int, float)) and not isinstance(found, bool) else None


def curve(name: str, result: Result) -> list[tuple[float, float]]:
    """Return iteration and figure of each point of a curve, ascending; none where the result has none.

    `name` is a key of metrics.jsonl; or keys of a result with / between them, of which one is *, for each
    number there. That number is the iteration; 0, a run's final checkpoint, stands for its last one.
    """
    before, every, after = name.partition("/*/")
    if not every:
        known = result.get("curve") or {}
        pairs = zip(known.get("iteration", ()), known.get(name, ()))
    else:
        stages = _inside(result, before.split("/"))
        numbers = [key for key in stages if key.isdigit()] if isinstance(stages, Mapping) else []
        last = at(result, ("metrics", "iteration")) or 0
        pairs = ((int(key) or last, at(stages[key], after.split("/"))) for key in numbers)
    return sorted((place, value) for place, value in pairs if value is not None)


def in_set(name: str) -> tuple[str, ...]:
    """Return the keys of a figure in the result of one set of pairs, a name of `OF_SET` or `TAR@X%FAR`."""
    keys = _in_set(name)
    assert keys, name
    return keys


def _in_set(name: str) -> tuple[str, ...] | None:
    far = TAR.fullmatch(name)
    return ("tar_at_far", str(float(f"{float(far[1]) / 100:g}"))) if far else OF_SET.get(name)


def _inside(content: Any, keys: Sequence[str]) -> Any:
    for key in keys:
        content = content.get(key) if isinstance(content, Mapping) else None
    return content


def _of_set(name: str) -> Callable[[Result, str], float | None] | None:
    """Return what takes the figure of one set of pairs from a result; None for a figure of the run."""
    keys, (before, every, after) = _in_set(name), name.partition("/*/")
    if keys:
        return lambda result, title: at(result["sets"].get(title), keys)
    if every:
        return lambda result, title: at(result, [*before.split("/"), title, *after.split("/")])
    return None


def _mean(
    of_set: Callable[[Result, str], float | None], sets: Sequence[str]
) -> Callable[[Result], float | None]:
    def of(result: Result) -> float | None:
        values = [of_set(result, title) for title in sets or result["sets"]]
        known = [value for value in values if value is not None]
        return statistics.fmean(known) if len(known) == len(values) else None

    return of


def _rank(result: Result, size: str | None) -> float | None:
    sizes = (result.get("identification") or {}).get("sizes") or {}
    return at(sizes, (size or max(sizes, key=int, default=""), "rank_1"))


def _of_run(keys: Sequence[str]) -> Callable[[Result], float | None]:
    def of(result: Result) -> float | None:
        k = at(result, ("asked", "settings", "filter", "k"))
        return at(result, [str(k) if key is K else key for key in keys])

    return of
