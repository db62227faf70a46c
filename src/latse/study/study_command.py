"""`latse study`: train every row of a study with every seed, judge all on the same pairs, write one table.

A study is a YAML file, `latse.study.study_file`. Rows are trained and judged by `latse filter`, `latse train`
and `latse eval` in processes of their own: a study does what its reader could do by hand. It can be stopped
and resumed. What came out of a run is one small file in a folder of its own; a run whose file is there is not
trained again, even where its folder is gone.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Mapping, Tuple

import yaml
from tqdm import tqdm

from latse import recipe as recipes
from latse.data.shards.noise import add_noise
from latse.data.shards.records import Shard
from latse.errors import LatseError, check_range
from latse.files import digest, locked, make_folder, read_json, read_object, write_json, write_text
from latse.form import ANYTHING, Each, check
from latse.provenance import provenance
from latse.runtime import cores
from latse.study.study_file import KINDS, Study, read_study
from latse.study.study_table import JUDGED, claim_table, report, small, tables
from latse.text_table import aligned, markdown
from latse.train import run_record

KIND = "study run"
MODEL, METRICS = "model-0000.params", "metrics.jsonl"
FORM = {
    "asked": Each(ANYTHING),
    "sets": Each({"model": JUDGED, "untrained": JUDGED}, least=1),
}


@dataclass(frozen=True)
class Run:
    """One row with one seed.

    Attributes
    ----------
    row, seed : str, int
    asked : dict
        All that decides what comes out of it: `row`, `seed`, `settings`, those of `own_files` that there are,
        `data`, `noise`, `teacher` (the same of the teacher, or None), `pairs`.
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
    asked: dict[str, Any]
    recipe: Path
    folder: Path
    data: Path
    result: Path

    def is_done(self) -> bool:
        """Tell whether the result is there; raise LatseError if it is of a run with other settings."""
        if not self.result.exists():
            return False
        content = read_json(self.result)
        check(self.result, content, FORM)
        _refuse_other(self.result, content["asked"], self.asked, "--results")
        return True

    def make_data(self, source: str) -> None:
        """Make its noisy copy of the set `source`; raise LatseError if another one is there."""
        if self.asked["noise"] is None:
            return
        fractions = {**dict.fromkeys(KINDS, 0.0), **self.asked["noise"]}
        if not (self.data / "property").exists():
            add_noise(source, self.data, **fractions, seed=self.seed)
        made, asked = self.data / "noise.json", {"source_digest": self.asked["data"], **fractions}
        _refuse_other(made, read_object(made), asked, "--out")


Runs = Dict[Tuple[str, int], Run]  # by row and seed


def _refuse_other(path: Path, made: Mapping[str, Any], asked: Mapping[str, Any], option: str) -> None:
    other = [key for key, value in asked.items() if made.get(key) != value]
    if other:
        raise LatseError(f"{path} is of a run with other {', '.join(other)}: choose another {option}")


def run(args: argparse.Namespace) -> None:
    """Train and judge what is missing, then print and write the tables.

    Raises LatseError for a malformed study, or with the sentence of the first run that fails.
    """
    check_range("--jobs", args.jobs, 1)
    study = read_study(args.study)
    pairs = {Path(path).stem: digest(path) for path in args.pairs}  # better missed before the work
    if len(pairs) < len(args.pairs):
        raise LatseError("two files of --pairs have one name, which is a column's: rename one")
    out = make_folder(args.out)
    with locked(out):
        runs = _runs(args, study, pairs, out)
        _run_all(args, study, runs)
        content = report(study, {key: read_json(run.result) for key, run in runs.items()})
        write_json(out / "study.json", {**content, "provenance": provenance(args)})
        found, seeds = tables(content["rows"]), f"{len(study.seeds)} seeds"
        found = {f"{name}: mean ± standard deviation over {seeds}": rows for name, rows in found.items()}
        if study.claims:
            found[f"claims, by accuracy, paired over {seeds}"] = claim_table(content["claims"])
        text = [f"**{title}**\n\n{markdown(rows)}\n" for title, rows in found.items()]
        write_text(out / "table.md", "\n".join(text))
    for title, rows in found.items():
        print(title, aligned(rows), sep="\n")


def _runs(args: argparse.Namespace, study: Study, pairs: dict[str, str], out: Path) -> Runs:
    """Return the run of each row and seed, teachers first; write the recipe of each row."""
    data, runs = Shard(args.data).digest(), {}
    results = make_folder(args.results or out / "results")
    for name in study.order:
        row, recipe = study.rows[name], out / name / f"{name}.yaml"
        base = str(study.recipe.resolve())
        write_text(recipe, yaml.safe_dump({"base": base, **row.changes}, sort_keys=False))
        # A wrong row is better known now than after those above it.
        try:
            settings = recipes.load(recipe, args.set)
        except LatseError as error:
            raise LatseError(f"{args.study}: the row '{name}': {error}") from error
        if (settings.filter.k is None) != (row.teacher is None):
            raise LatseError(f"{args.study}: the row '{name}' needs both, a teacher and filter.k, or neither")
        for seed in study.seeds:
            folder = out / name / f"seed-{seed}"
            run_record.refuse_others(folder, settings)
            asked = {
                "row": name,
                "seed": seed,
                "settings": recipes.as_dict(settings),
                **{key: digests for key, digests in run_record.own_files(settings).items() if digests},
                "data": data,
                "noise": row.noise and study.noise[row.noise],
                "teacher": row.teacher and runs[row.teacher, seed].asked,
                "pairs": pairs,
            }
            place = out / "data" / row.noise / f"seed-{seed}" if row.noise else Path(args.data)
            runs[name, seed] = Run(
                name, seed, asked, recipe, folder, place, results / name / f"seed-{seed}.json"
            )
    return runs


def _missing(study: Study, runs: Runs) -> Runs:
    """Return the runs without a result, and their teachers whose models are gone; teachers first."""
    needed = {key for key, run in runs.items() if not run.is_done()}
    for row, seed in reversed([*runs]):
        teacher = study.rows[row].teacher
        if (row, seed) in needed and teacher and not (runs[teacher, seed].folder / MODEL).exists():
            needed.add((teacher, seed))
    return {key: run for key, run in runs.items() if key in needed}


def _run_all(args: argparse.Namespace, study: Study, runs: Runs) -> None:
    """Do what is missing, some at a time; the first that fails ends the study, others come to their end."""
    missing = _missing(study, runs)
    for one in missing.values():
        one.make_data(args.data)
    environment = {**os.environ, "OMP_NUM_THREADS": str(max(1, cores() // args.jobs))}
    futures: dict[tuple[str, int], Future] = {}
    is_over, at_work = threading.Event(), []
    bar = tqdm(total=len(missing), unit=" runs", desc=Path(args.study).stem)

    def work(key: tuple[str, int]) -> None:
        if is_over.is_set():
            return
        teacher, called = (study.rows[key[0]].teacher, key[1]), "{}, seed {}".format(*key)
        at_work.append(called)
        bar.set_postfix_str("; ".join(at_work))
        try:
            _run_one(args, missing[key], environment, runs.get(teacher), futures.get(teacher))
        except BaseException:
            is_over.set()  # before this thread takes up another run
            raise
        at_work.remove(called)

    with bar, ThreadPoolExecutor(args.jobs) as pool:
        try:
            for key in missing:  # runs begin in this order: one only ever waits for one that has begun
                futures[key] = pool.submit(work, key)
            for future in as_completed(futures.values()):
                future.result()
                bar.update()
        except BaseException:
            is_over.set()
            raise


def _run_one(
    args: argparse.Namespace,
    run: Run,
    environment: Mapping[str, str],
    teacher: Run | None,
    taught: Future | None,
) -> None:
    """Train and judge; `taught` is what is done when the teacher's model is there."""
    filtered: tuple[object, ...] = ()
    if teacher:
        if taught:
            taught.result()
        filtered = "--verdicts", run.folder / "teacher.keep"  # `latse filter` locks the folder
        asks = "--teacher", teacher.folder, "--k", run.asked["settings"]["filter"]["k"]
        _latse(run, environment, "filter", "--data", run.data, *asks, "--out", filtered[1])
    changes = [word for change in args.set for word in ("--set", change)]
    trained = ("--data", run.data, "--out", run.folder, "--seed", run.seed, "--resume", *changes)
    _latse(run, environment, "train", run.recipe, *trained, *filtered)
    judged = run.folder / "verification.json"
    models = f"model={run.folder}/model,0", f"untrained={run.folder}/untrained,0"
    _latse(run, environment, "eval", "--model", *models, "--pairs", *args.pairs, "--json", judged)
    write_json(run.result, {"kind": KIND, "asked": run.asked, **small(judged, run.folder / METRICS)})


def _latse(run: Run, environment: Mapping[str, str], *arguments: object) -> None:
    command = [sys.executable, "-m", "latse", *map(str, arguments)]
    done = subprocess.run(command, env=dict(environment), capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"ended with status {done.returncode}"])[-1]
        raise LatseError(f"{run.row}, seed {run.seed}: {last.replace('latse: ', '', 1)}")
