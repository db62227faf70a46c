"""What a benchmark found, read back from the JSON that it wrote."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator, Mapping, Sequence

from latse.errors import LatseError
from latse.files import read_json
from latse.form import ANYTHING, COUNT, NUMBER, TEXT, Each, Maybe, Rows, check, shown
from latse.goals import FIGURE, GOAL, Figure, Goal
from latse.text_table import NOTHING

# Kind of a result -> heading of its section of the page, and what was measured; in the page's order.
KINDS = {
    "bench train": (
        "Training step",
        "One whole training step (forward, backward, update, outputs copied to the host; of PyTorch the "
        "loss alone), contenders in turn, each in a process of its own. Convolutions and dense layers alone "
        "are no step: the sum over single layers, each timed by MXNet's profiler; the larger their share of "
        "our step, the less is left to save. Memory risen is the process's peak less what it had before it "
        "built its network.",
    ),
    "plan compare": (
        "Memory plans",
        "The training graph of a recipe as it is (plain), planned by dmlc's rule, a threshold over the ends "
        "of residual units, and planned by ours. Planned memory is what the executor says that it allocates "
        "for activations; resident memory is by how much the peak of a fresh process rises over what it had "
        "before it bound the graph. insightface's rows are held against its own plain graph.",
    ),
    "plan": (
        "Memory of a device",
        "What one device needs for a recipe: activations as the executor plans them, parameters with "
        "gradients and momenta, and the teacher, which stored verdicts save.",
    ),
    "bench filter": (
        "Filter",
        "The student's training step without the filter, with the teacher's stored verdicts, and with the "
        "teacher asked in every step.",
    ),
    "bench bank": (
        "Mean-face bank",
        "The bank of everybody's mean face: how long it takes to open, what it costs in a step, and the "
        "memory that stays resident.",
    ),
    "bench head": (
        "Margin head",
        "One step, forward and backward, of ArcFace's head over all people, against the formulation with a "
        "one-hot array. Memory is without the class centres and their gradient.",
    ),
    "bench loader": (
        "Loader",
        "Images from a shard to batches in memory, mirrored by chance, against MXNet's and insightface's "
        "readers.",
    ),
    "bench embed": (
        "Embedding",
        "Images to embeddings on the same parameters, against a plain Module and onnxruntime.",
    ),
    "bench search": (
        "Search",
        "Ranks of all mates among distractors, against the nearest distractor alone by faiss's exact search.",
    ),
}


FORM = {
    "provenance": {
        **dict.fromkeys(("command", "device", "date"), TEXT),
        "commit": Maybe(TEXT),
        **dict.fromkeys(("cores", "threads"), COUNT),
        "machine": {"processor": TEXT, "processors": COUNT, "memory_gibibytes": NUMBER},
    },
    "setting": Each(ANYTHING),
    "contenders": Each(Each(Maybe(FIGURE))),
    "goals": Rows(GOAL),
}


@dataclass(frozen=True)
class Result:
    """The content of one file; `name` is the file's, without its ending."""

    name: str
    kind: str
    provenance: Mapping[str, Any]
    setting: Mapping[str, str]
    contenders: Mapping[str, Mapping[str, Figure]]
    goals: tuple[Goal, ...]


def read_folder(folder: Path) -> list[Result]:
    """Return all results of a folder in the order of `KINDS`, then by name.

    Raises LatseError if there is none or a file is damaged or of another kind.
    """
    files = sorted(folder.glob("*.json"))
    if not files:
        raise LatseError(f"{folder} holds no result of a benchmark (*.json)")
    order = list(KINDS)
    return sorted(map(read, files), key=lambda result: (order.index(result.kind), result.name))


def read(path: Path) -> Result:
    """Return what a file says; raise LatseError if it is damaged or no result of a benchmark."""
    content = read_json(path)
    kind = content.get("kind") if isinstance(content, dict) else None
    if not isinstance(kind, str) or kind not in KINDS:
        known = ", ".join(KINDS)
        raise LatseError(f"{path} is no result of a benchmark: its kind is {shown(kind)}, not one of {known}")
    check(path, content, FORM)
    if content["provenance"]["commit"] is None:  # what the page says in its place
        check(path, content, {"provenance": {"versions": {"latse": TEXT}}})
    try:
        return Result(
            path.stem,
            kind,
            content["provenance"],
            dict(flat(content["setting"])),
            {
                title: {name: Figure.read(figure) for name, figure in figures.items() if figure is not None}
                for title, figures in content["contenders"].items()
            },
            tuple(Goal.read(goal) for goal in content["goals"]),
        )
    except ValueError as error:
        raise LatseError(f"{path} is damaged: {error}") from error


def flat(setting: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield name and text of each setting that is set, nested ones named `outer.inner`."""
    for key, value in setting.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        elif value is not None:
            text = " / ".join(map(str, value)) if isinstance(value, list) else str(value)
            yield f"{prefix}{key}".replace("_", " "), text


def table(contenders: Mapping[str, Mapping[str, Figure]]) -> list[list[str]]:
    """Return a row for each contender, and a column for each figure that some of them have.

    Raises LatseError if a figure has two units.
    """
    columns: dict[str, list[Figure]] = {}
    for figures in contenders.values():
        for name, figure in figures.items():
            columns.setdefault(name, []).append(figure)
    shown = {name: _unit_and_factor(figures) for name, figures in columns.items()}
    head = ["", *(f"{name}, {unit}" if unit else name for name, (unit, _) in shown.items())]
    rows = [
        [
            figures[name].in_words(factor) if name in figures else NOTHING
            for name, (_, factor) in shown.items()
        ]
        for figures in contenders.values()
    ]
    return [head, *([title, *row] for title, row in zip(contenders, rows))]


def _unit_and_factor(figures: Sequence[Figure]) -> tuple[str, float]:
    """Return in which unit a column reads best, and what its figures are multiplied by."""
    (unit, *others) = dict.fromkeys(figure.unit for figure in figures)
    if others:
        raise LatseError(f"one figure is given in {unit!r} and in {others[0]!r}")
    return ("ms", 1000.0) if unit == "s" and all(figure.median < 1 for figure in figures) else (unit, 1.0)
