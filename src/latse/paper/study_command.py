"""`latse study`: train every row of a study with every seed, judge all on the same pairs, write one table.

A study is a YAML file with `recipe`, which all rows share (a shipped one, or a path relative to the file),
`seeds`, and `rows`: the name of each, and what it changes of the recipe. Rows are trained and judged by
`latse train` and `latse eval` in processes of their own: a study does what its reader could do by hand. It
can be stopped and resumed.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from tqdm import tqdm

from latse import recipe as recipes
from latse.errors import MOST, LatseError, check_range
from latse.files import digest, locked, make_folder, read_json, write_json, write_text
from latse.form import NUMBER, Each, Maybe, check
from latse.runtime import cores, versions
from latse.text_table import NOTHING, aligned, markdown
from latse.train import run_record

NAME = re.compile(r"[A-Za-z0-9][\w.+=-]*")
# Title of a column of the table -> where its figure is in what the JSON says of one run's models.
COLUMNS = {
    "accuracy": ("model", "accuracy"),
    "TAR@1%FAR": ("model", "tar_at_far", "0.01"),
    "AUC": ("model", "auc"),
    "SSIM": ("model", "restoration", "ssim"),
    "untrained accuracy": ("untrained", "accuracy"),
}
JUDGED = {
    "accuracy": NUMBER,
    "auc?": Maybe(NUMBER),
    "tar_at_far?": Each(Maybe(NUMBER)),
    "restoration?": Maybe({"ssim?": Maybe(NUMBER)}),
}
DRAWN = ("roc", "histogram")  # of a judgement: it stays in the run's own file


@dataclass(frozen=True)
class Study:
    """What a study file says."""

    recipe: Path  # that the rows change
    seeds: list[int]  # at least one, each at least 0, none twice
    rows: dict[str, dict[str, Any]]  # what each changes: section -> key -> value; a name is a folder's too


@dataclass(frozen=True)
class Run:
    """One row with one seed, in a folder of its own, and the `result` that `latse eval` writes."""

    row: str
    seed: int
    folder: Path
    result: Path


def run(args: argparse.Namespace) -> None:
    """Train and judge what is missing, then print and write the table.

    Raises LatseError for a malformed study, or with the sentence of the first run that fails.
    """
    check_range("--jobs", args.jobs, 1)
    study = read_study(args.study)
    pairs = digest(args.pairs)  # other pairs, another file; missing ones are better known before the work
    out = make_folder(args.out)
    with locked(out):
        runs = []
        for row, changes in study.rows.items():
            for seed in study.seeds:
                folder = out / row / f"seed-{seed}"
                runs.append(Run(row, seed, folder, folder / f"verification-{pairs[:8]}.json"))
            recipe, base = out / row / f"{row}.yaml", str(study.recipe.resolve())
            write_text(recipe, yaml.safe_dump({"base": base, **changes}, sort_keys=False))
            # A wrong row is better known now than after those above it.
            changed = recipes.load(recipe, args.set)
            for seed in study.seeds:
                run_record.refuse_others(out / row / f"seed-{seed}", changed)
        _run_all(runs, args)
        report = _report(args, study, runs)
        write_json(out / "study.json", report)
        rows = table(report["rows"])
        write_text(out / "table.md", markdown(rows) + "\n")
    print(f"{Path(args.pairs).stem}: mean ± standard deviation over {len(study.seeds)} seeds")
    print(aligned(rows))


def read_study(path: str | os.PathLike) -> Study:
    """Read a study, shipped or a file; raise LatseError, naming file and key, if it is malformed."""
    path = recipes.find(path, shipped=recipes.STUDIES)
    if not path.exists():
        raise LatseError(f"cannot read the study {path}: {recipes.nothing(path, recipes.STUDIES)}")
    content = recipes.read_yaml(path, str(path))
    if not isinstance(content, dict) or set(content) != {"recipe", "seeds", "rows"}:
        raise LatseError(f"{path} must hold the keys recipe, seeds and rows, and no others")
    seeds, rows = content["seeds"], content["rows"]
    if not (
        isinstance(seeds, list) and seeds and all(type(seed) is int and 0 <= seed <= MOST for seed in seeds)
    ):
        wrong = recipes.in_yaml(seeds)
        raise LatseError(f"{path}: seeds is {wrong}, must be a list of whole numbers from 0 to {MOST}")
    if len({*seeds}) < len(seeds):
        raise LatseError(f"{path}: seeds is {recipes.in_yaml(seeds)}, must name each seed once")
    if not isinstance(rows, dict) or not rows:
        raise LatseError(f"{path}: rows is {recipes.in_yaml(rows)}, must hold at least one row")
    for name, changes in rows.items():
        if not NAME.fullmatch(str(name)) or not isinstance(changes, (dict, type(None))):
            raise LatseError(
                f"{path}: the row '{recipes.in_yaml(name)}' must be named like a file and hold sections of a "
                "recipe"
            )
    if not isinstance(content["recipe"], str):
        wrong = recipes.in_yaml(content["recipe"])
        raise LatseError(f"{path}: recipe is {wrong}, must be the name or the file of a recipe")
    recipe = recipes.find(content["recipe"], path.parent)
    return Study(recipe, seeds, {str(name): changes or {} for name, changes in rows.items()})


def table(rows: dict[str, dict[str, Any]]) -> list[list[str]]:
    """Return the cells of a study's table in percent, head first, from the `rows` of its JSON.

    A column without a figure, such as SSIM where no row has a decoder, is left out.
    """
    columns = [column for column in COLUMNS if any(row[column] for row in rows.values())]

    def cell(figure: dict[str, float] | None) -> str:
        return NOTHING if figure is None else f"{100 * figure['mean']:.2f} ± {100 * figure['std']:.2f}"

    return [["", *columns], *([name, *(cell(row[key]) for key in columns)] for name, row in rows.items())]


def _run_all(runs: list[Run], args: argparse.Namespace) -> None:
    """Do the runs, some at a time; the first that fails ends the study, those under way come to their end."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(max(1, cores() // args.jobs))}
    with ThreadPoolExecutor(args.jobs) as pool:
        futures = [pool.submit(_run_one, run, args, environment) for run in runs]
        try:
            for future in tqdm(
                as_completed(futures), total=len(futures), unit=" runs", desc=Path(args.study).stem
            ):
                future.result()
        except BaseException:
            for future in futures:
                future.cancel()
            raise


def _run_one(run: Run, args: argparse.Namespace, environment: dict[str, str]) -> None:
    recipe = run.folder.parent / f"{run.row}.yaml"
    changes = [word for change in args.set for word in ("--set", change)]
    trained = ("--data", args.data, "--out", run.folder, "--seed", run.seed, "--resume", *changes)
    _latse(run, environment, "train", recipe, *trained)
    model = run.folder / "model-0000.params"
    judged = run.result.exists() and run.result.stat().st_mtime >= model.stat().st_mtime
    content = read_json(run.result) if judged else None
    if not isinstance(content, dict) or content.get("kind") != "verification":
        models = f"model={run.folder}/model,0", f"untrained={run.folder}/untrained,0"
        _latse(run, environment, "eval", "--model", *models, "--pairs", args.pairs, "--json", run.result)


def _latse(run: Run, environment: dict[str, str], *arguments: object) -> None:
    command = [sys.executable, "-m", "latse", *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"ended with status {done.returncode}"])[-1]
        raise LatseError(f"{run.row}, seed {run.seed}: {last.replace('latse: ', '', 1)}")


def _report(args: argparse.Namespace, study: Study, runs: list[Run]) -> dict[str, Any]:
    """Return what study.json says: for each row its changes, the figures of each seed, their mean and std."""
    results: dict[str, dict[int, Any]] = {row: {} for row in study.rows}
    for run in runs:
        content, name = read_json(run.result), Path(args.pairs).stem
        check(run.result, content, {"sets": {name: {"results": Each(JUDGED)}}})
        judged = content["sets"][name]["results"]
        results[run.row][run.seed] = {
            title: {key: value for key, value in figures.items() if key not in DRAWN}
            for title, figures in judged.items()
        }
    rows = {}
    for row, changes in study.rows.items():
        figures = {title: _summary(results[row], path) for title, path in COLUMNS.items()}
        rows[row] = {"changes": changes, **figures, "seeds": results[row]}
    return {
        "study": Path(args.study).stem,
        "recipe": study.recipe.stem,
        "set": args.set,
        "data": args.data,
        "pairs": args.pairs,
        "rows": rows,
        "versions": versions(),
    }


def _summary(per_seed: dict[int, dict[str, Any]], path: tuple) -> dict[str, float] | None:
    """Return mean and standard deviation of a figure over the seeds; None if a seed has none."""
    values: list[Any] = list(per_seed.values())
    for key in path:
        values = [value and value.get(key) for value in values]
    if None in values:
        return None
    return {"mean": statistics.fmean(values), "std": statistics.stdev(values) if len(values) > 1 else 0.0}
