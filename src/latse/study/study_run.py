"""One run of a study: a row with a seed, what decides it, and where it lies."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Mapping, Tuple

from latse.data.shards.noise import add_noise
from latse.errors import LatseError
from latse.eval.model_arguments import BASELINES, model, split
from latse.files import digest, read_json, read_object
from latse.form import Each, check
from latse.models.run_folder import checkpoint_of, parameters_path, parse, symbol_path
from latse.study.study_file import KINDS, Outsider
from latse.study.study_result import ASKED, SET, completed

MODEL = "model-0000.params"
FORM = {"asked": ASKED, "sets": Each(SET, least=1)}


@dataclass(frozen=True)
class Run:
    """One row with one seed.

    Attributes
    ----------
    row, seed : str, int
    made_by : dict
        All that decides the model: `row`, `seed`, `settings`, those of `run_record.own_files` that there are,
        `data`, `noise`; `teacher` and `start`, the same of another row's run, of a teacher from elsewhere
        what `outside` says, or None; `centres` of a teacher that is a row; `model`, the baseline that is
        judged instead of a network, or None.
    judged_by : dict
        What decides the judgement besides: `study_judge.judged_by`.
    recipe : Path
        The row's recipe.
    folder : Path
        Of the run.
    data : Path
        The set on which it learns.
    result : Path
        The file for what comes out of it.
    """

    row: str
    seed: int
    made_by: dict[str, Any]
    judged_by: dict[str, Any]
    recipe: Path
    folder: Path
    data: Path
    result: Path

    @property
    def asked(self) -> dict[str, Any]:
        """All that decides what comes out of it."""
        return {**self.made_by, **self.judged_by}

    def is_done(self) -> bool:
        """Tell whether the result is there, perhaps judged on more than is asked for.

        Raises LatseError if it is of a run with other settings, or was judged on less or on other sets.
        """
        if not self.result.exists():
            return False
        content = read_json(self.result)
        check(self.result, content, FORM)
        made = completed(content["asked"])
        covered = {
            key: made.get(key) for key, value in self.judged_by.items() if _holds(made.get(key), value)
        }
        _refuse_other(self.result, made, {**self.asked, **covered}, "--results")
        return True

    def read(self) -> dict[str, Any]:
        """Return the result, cut to what it is asked to be judged on."""
        content = read_json(self.result)
        sets = {name: content["sets"][name] for name in self.judged_by["pairs"]}
        others = {key: content.get(key) for key in ("identification", "inspection") if self.judged_by[key]}
        return {**content, "identification": None, "inspection": None, **others, "sets": sets}

    def has_model(self) -> bool:
        """Tell whether the training came to its end, and its model is still there."""
        return (self.folder / MODEL).exists()

    def make_data(self, source: str) -> None:
        """Make its noisy copy of the set `source`; raise LatseError if another one is there."""
        if self.made_by["noise"] is None:
            return
        fractions = {**dict.fromkeys(KINDS, 0.0), **self.made_by["noise"]}
        if not (self.data / "property").exists():
            add_noise(source, self.data, **fractions, seed=self.seed)
        made, asked = self.data / "noise.json", {"source_digest": self.made_by["data"], **fractions}
        _refuse_other(made, read_object(made), asked, "--out")

    def latse(self, environment: Mapping[str, str], *words: object) -> None:
        """Run `latse WORDS` in a process of its own; raise LatseError with its last sentence if it fails."""
        command = [sys.executable, "-m", "latse", *map(str, words)]
        done = subprocess.run(command, env=dict(environment), capture_output=True, text=True, check=False)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or [f"ended with status {done.returncode}"])[-1]
            raise LatseError(f"{self.row}, seed {self.seed}: {last.replace('latse: ', '', 1)}")


Runs = Dict[Tuple[str, int], Run]  # by row and seed


def outside(teacher: Outsider) -> dict[str, Any]:
    """Return what tells a teacher from others: its `model` as given but for folders, and its `digests`.

    Raises LatseError if there is no such model.
    """
    _, what, _ = split(model(teacher.model))
    files: list[str | Path] = [] if what in BASELINES else [what]
    if files and not what.endswith((".onnx", ".npy")):
        prefix, number = parse(checkpoint_of(what))
        files = [parameters_path(prefix, number), symbol_path(prefix)]
    named = {"model": Path(teacher.model).name, "centres": teacher.centres}
    return {**named, "digests": [*map(digest, files)]}


def _holds(judged: Any, asked: Mapping[str, Any] | None) -> bool:
    """Tell whether a run was judged on all sets that are asked for, None for none."""
    known = judged if isinstance(judged, Mapping) else {}
    return all(name in known and known[name] == value for name, value in (asked or {}).items())


def _refuse_other(path: Path, made: Mapping[str, Any], asked: Mapping[str, Any], option: str) -> None:
    other = [key for key, value in asked.items() if made.get(key) != value]
    if other:
        raise LatseError(f"{path} is of a run with other {', '.join(other)}: choose another {option}")
