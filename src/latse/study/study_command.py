"""`latse study`: train every row of a study with every seed, judge all on the same pairs, write one table.

A study is a YAML file, `latse.study.study_file`. Rows are trained and judged by `latse filter`, `train` and
others in processes of their own: a study does what its reader could do by hand. It can be stopped and go on.
What came out of a run is one small file in a folder of its own; a run whose file is there is not trained
again, even where its folder is gone.
"""

from __future__ import annotations

import argparse
import os
import threading
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, Mapping

import yaml
from tqdm import tqdm

from latse import recipe as recipes
from latse.data.shards.records import Shard
from latse.errors import LatseError, check_range
from latse.files import locked, make_folder, write_json, write_text
from latse.provenance import provenance
from latse.runtime import cores
from latse.study import study_judge
from latse.study.study_claims import claim_table, refuse_unknown_sets
from latse.study.study_file import Outsider, Row, Study, part, read_study
from latse.study.study_plots import draw
from latse.study.study_result import FILTER, small
from latse.study.study_run import Run, Runs, outside
from latse.study.study_table import named_table, report, tables
from latse.text_table import aligned, markdown
from latse.train import run_record

KIND = "study run"


def run(args: argparse.Namespace) -> None:
    """Train and judge what is missing, then print and write the tables, and draw the plots.

    Raises LatseError for a malformed study, or with the sentence of the first run that fails.
    """
    check_range("--jobs", args.jobs, 1)
    study = part(read_study(args.study), args.rows, args.seeds)
    if args.others is None and any(row.others for row in study.rows.values()):
        raise LatseError(f"{args.study}: a row learns from other people: name their set by --others")
    judged = study_judge.judged_by(args)  # better missed before the work
    refuse_unknown_sets(study.claims, [*judged["pairs"]])
    out = make_folder(args.out)
    with locked(out):
        runs = _runs(args, study, judged, out)
        _run_all(args, study, runs)
        results = {key: run.read() for key, run in runs.items()}
        content = report(study, results)
        found, seeds = tables(content["rows"]), f"{len(study.seeds)} seeds"
        found = {f"{name}: mean ± standard deviation over {seeds}": rows for name, rows in found.items()}
        found.update({name: named_table(study, table, results) for name, table in study.tables.items()})
        if study.claims:
            found[f"claims, paired over {seeds}"] = claim_table(content["claims"])
        plots = {name: f"{name}.svg" for name in study.plots}
        for name, file in plots.items():
            draw(out / file, study.plots[name], study.seeds, results)
        content = {
            "kind": "study",
            "provenance": provenance(args),
            **content,
            "tables": found,
            "plots": plots,
        }
        write_json(out / "study.json", content)
        text = [f"**{title}**\n\n{markdown(rows)}\n" for title, rows in found.items()]
        write_text(out / "table.md", "\n".join(text))
    for title, rows in found.items():
        print(title, aligned(rows), sep="\n")


def _runs(args: argparse.Namespace, study: Study, judged: dict[str, Any], out: Path) -> Runs:
    """Return the run of each row and seed, each after those that it needs; write the recipe of each row."""
    sets = {False: args.data, True: args.others}
    data, runs = {is_others: place and Shard(place).digest() for is_others, place in sets.items()}, {}
    results = make_folder(args.results or out / "results")
    for name in study.order:
        row, recipe = study.rows[name], out / name / f"{name}.yaml"
        base = str(study.recipe.resolve())
        write_text(recipe, yaml.safe_dump({"base": base, **row.changes}, sort_keys=False))
        try:  # a wrong row is better known now than after those above it
            settings = recipes.load(recipe, args.set)
            outsider = outside(row.teacher) if isinstance(row.teacher, Outsider) else None
        except LatseError as error:
            raise LatseError(f"{args.study}: the row '{name}': {error}") from error
        if (settings.filter.k is None) != (row.teacher is None):
            raise LatseError(f"{args.study}: the row '{name}' needs both, a teacher and filter.k, or neither")
        for seed in study.seeds:
            folder = out / name / f"seed-{seed}"
            run_record.refuse_others(folder, settings)
            made_by = {
                "row": name,
                "seed": seed,
                "settings": recipes.as_dict(settings),
                **{key: digests for key, digests in run_record.own_files(settings).items() if digests},
                "data": data[row.others],
                "noise": row.noise and study.noise[row.noise],
                "teacher": outsider or (row.teacher and runs[row.teacher, seed].made_by),
                "centres": row.centres,
                "start": row.start and runs[row.start, seed].made_by,
                "model": row.model,
            }
            noisy = row.noise and out / "data" / row.noise / f"seed-{seed}"
            place = noisy or Path(sets[row.others])
            result = results / name / f"seed-{seed}.json"
            runs[name, seed] = Run(name, seed, made_by, judged, recipe, folder, place, result)
    return runs


def _missing(study: Study, runs: Runs) -> Runs:
    """Return the runs without a result, and those whose models they need and that are gone, these first."""
    missing = {key for key, run in runs.items() if not run.is_done()}
    for row, seed in reversed([*runs]):
        if (row, seed) in missing:
            needed = ((other, seed) for other in study.rows[row].needs)
            missing |= {key for key in needed if not runs[key].has_model()}
    return {key: run for key, run in runs.items() if key in missing}


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
        row, called = study.rows[key[0]], "{}, seed {}".format(*key)
        at_work.append(called)
        bar.set_postfix_str("; ".join(at_work))
        try:
            for other in row.needs:
                if (other, key[1]) in futures:
                    futures[other, key[1]].result()
            _run_one(args, missing[key], environment, _models(row, key[1], runs))
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


def _models(row: Row, seed: int, runs: Runs) -> dict[str, tuple[object, ...]]:
    """Return how the commands are told of the `teacher` and the `start` of a row, those that it has."""
    told: dict[str, tuple[object, ...]] = {}
    if isinstance(row.teacher, Outsider):
        told["teacher"] = "--teacher", row.teacher.model, "--centres", row.teacher.centres
    elif row.teacher:
        by = ("--centres", row.centres) if row.centres else ()
        told["teacher"] = "--teacher", runs[row.teacher, seed].folder, *by
    if row.start:
        told["start"] = "--start", runs[row.start, seed].folder
    return told


def _run_one(
    args: argparse.Namespace, run: Run, environment: Mapping[str, str], models: dict[str, tuple[object, ...]]
) -> None:
    """Filter, train and judge; `models` is what `_models` returns, and they are there.

    A run whose result is there is only trained: another needs its model. A baseline is only judged.
    """
    if run.made_by["model"] is None:
        _train(args, run, environment, models)
    if run.is_done():
        return
    study_judge.judge(args, run, environment)
    write_json(run.result, {"kind": KIND, "asked": run.asked, **small(run.folder)})


def _train(
    args: argparse.Namespace, run: Run, environment: Mapping[str, str], models: dict[str, tuple[object, ...]]
) -> None:
    filtered: tuple[object, ...] = ()
    if "teacher" in models:
        filtered = "--verdicts", run.folder / "teacher.keep"  # `latse filter` locks the folder
        asks = *models["teacher"], "--k", run.made_by["settings"]["filter"]["k"]
        written = "--out", filtered[1], "--json", run.folder / FILTER
        run.latse(environment, "filter", "--data", run.data, *asks, *written)
    changes = [word for change in args.set for word in ("--set", change)]
    trained = ("--data", run.data, "--out", run.folder, "--seed", run.seed, "--resume", *changes)
    run.latse(environment, "train", run.recipe, *trained, *filtered, *models.get("start", ()))
