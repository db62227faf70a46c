"""`latse report`: one HTML page that stands by itself, made of the result files in a run's folder."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import Any, Mapping, NamedTuple, Sequence

from latse.errors import LatseError
from latse.eval.figures import read_metrics
from latse.eval.results import reading
from latse.files import read_json, refuse_other, write_text
from latse.form import check, shown
from latse.paper import report_charts, report_sections
from latse.paper.report_blocks import ENVIRONMENT
from latse.paper.report_sections import Section, interval
from latse.paper.result_forms import FORMS
from latse.provenance import provenance
from latse.text_table import percent
from latse.train import run_record

JUDGED = ("verification", "identification", "templates")
# Kind of a result -> the command that writes one of a run into its folder.
KINDS = {
    "verification": "latse eval --model {run} --pairs FILE.bin --json {run}/verification.json",
    "identification": "latse identify --model {run} --probes FILE.bin --json {run}/identification.json",
    "templates": "latse templates --model {run} --data FOLDER --json {run}/templates.json",
    "figures": "latse figures --run {above} --data FOLDER --pairs FILE.bin --out {folder}/figures",
}
SHOWN = (*KINDS, "study")  # no run lacks a study
# What else may be absent -> the command that makes it.
TRAIN = "latse train RECIPE --data FOLDER --out {folder}"
OTHERS = {
    "training": TRAIN,
    "the paper’s tables": "latse tables --runs {folder} --data CASIA=FOLDER",
    "settings": TRAIN,
}
RECORD, METRICS = "run.json", "metrics.jsonl"


def run(args: argparse.Namespace) -> None:
    """Read the results, write the page and print its path; raise LatseError for bad input."""
    refuse_other(args.out, "HTML")
    html = page(gather(Path(args.run_folder)), provenance(args))
    write_text(args.out, html)
    print(args.out)


class Result(NamedTuple):
    """A file of results and its content."""

    path: Path
    content: dict[str, Any]


class Material(NamedTuple):
    """What a folder holds: of runs by their names each record and metrics that are there."""

    folder: Path
    results: dict[str, list[Result]]  # by each kind of `SHOWN`
    records: dict[str, Result]  # the run.json
    metrics: dict[str, list[dict[str, Any]]]  # the records of metrics.jsonl


def gather(folder: Path) -> Material:
    """Read what a report can show of the runs in a folder.

    Raises LatseError if there is no such folder, nothing to show in it, or a file in it is damaged.
    """
    if not folder.is_dir():
        raise LatseError(f"{folder} is no folder of a run")
    places = _places(folder)
    results: dict[str, list[Result]] = {kind: [] for kind in SHOWN}
    for path in (path for _, place in places for path in sorted(place.glob("[!.]*.json"))):
        content = read_json(path)
        kind = _kind(path, content)
        if kind:
            results[kind].append(Result(path, content))
    records = {name: place / RECORD for name, place in places if (place / RECORD).exists()}
    metrics = {name: place / METRICS for name, place in places if _begun(place / METRICS)}
    if not any((*results.values(), records, metrics)):
        raise LatseError(
            f"{folder} holds no result, nor do the folders in it; `latse train` and `latse eval` write some"
        )
    return Material(
        folder,
        results,
        {name: Result(path, _record(path)) for name, path in records.items()},
        {name: read_metrics(path) for name, path in metrics.items()},
    )


def _record(path: Path) -> dict[str, Any]:
    """Return what a run.json says; raise LatseError if it is none."""
    content = read_json(path)
    check(path, content, run_record.FORM)
    return content


def _begun(path: Path) -> bool:
    """Tell whether metrics have a line: those of a run that has just begun have none."""
    return path.exists() and path.stat().st_size > 0


def _places(folder: Path) -> list[tuple[str, Path]]:
    """Return where runs and results may be, with their names: the folder and those in it, a teacher first."""
    own = folder.resolve().name
    inner = sorted((path for path in folder.glob("[!.]*") if path.is_dir()), key=_teacher_first)
    alone = not any((folder / file).exists() for file in (RECORD, METRICS))
    return [(own, folder), *((path.name if alone else f"{own}/{path.name}", path) for path in inner)]


def _teacher_first(path: Path) -> tuple[bool, str]:
    return path.name != "teacher", path.name


def _kind(path: Path, content: Any) -> str | None:
    """Return the kind of a result, None for another file; raise LatseError for a result that is none."""
    kind = content.get("kind") if isinstance(content, dict) else None
    if path.stem in KINDS and kind != path.stem:
        raise LatseError(f'{path}: its kind is {shown(kind)}, must be "{path.stem}"')
    if kind not in SHOWN:  # it may be anything
        return None
    check(path, content, FORMS[kind])
    return kind


def page(material: Material, own: Mapping[str, Any]) -> str:
    """Return the report as HTML; the same material and the page's `own` provenance give the same text.

    Raises LatseError if a result is not as its command writes it, or a picture that it names cannot be read.
    """
    return ENVIRONMENT.get_template("report.html.j2").render(
        name=material.folder.resolve().name,
        sections=_sections(material, own),
        highlights=_highlights(material),
    )


def _sections(material: Material, own: Mapping[str, Any]) -> list[Section]:
    """Return the sections of the page that there is material for, in order; the last says what is absent."""
    judged = [result for kind in JUDGED for result in material.results[kind]]
    titles = (title for result in judged for title in result.content["models"])
    # A model, and a run that was judged under no such title, have one look on the whole page.
    look = report_charts.looks([*dict.fromkeys([*titles, *material.metrics])])
    shown, models = [], {}
    records = {f"Training of {name}": record.content for name, record in material.records.items()}
    for kind, results in material.results.items():
        for number, (path, content) in enumerate(results, 1):
            where = f" in {path.relative_to(material.folder)}" if len(results) > 1 else ""
            with reading(path):
                layout = getattr(report_sections, kind)
                section = layout(content, look if kind in JUDGED else path.parent, where)
                shown.append(section._replace(anchor=f"{kind}-{number}" if where else kind))
                records[section.title] = content["provenance"]
                for name, model in content["models"].items() if kind in JUDGED else ():
                    origin = dict(model.get("origin", model))
                    models[name if models.get(name, origin) == origin else f"{name}{where}"] = origin
    others = {
        "training": report_sections.training(material.metrics, material.records, look),
        "the paper’s tables": report_sections.paper(material.folder),
        "settings": report_sections.settings(material.records),
    }
    absent = [kind for kind in KINDS if not material.results[kind]]
    absent += [name for name, section in others.items() if section is None]
    return [
        *shown,
        *filter(None, others.values()),
        report_sections.provenance(models, {**records, "This page": own}),
        *([report_sections.absent(_commands(material, absent))] if absent else []),
    ]


def _commands(material: Material, absent: Sequence[str]) -> dict[str, str]:
    """Return the command that makes each of what is absent."""
    folder = material.folder
    run = [folder, *(record.path.parent for record in material.records.values())][-1]
    above = run.parent if run.name == "student" else "FOLDER"
    places = {"run": run, "folder": folder, "above": above}
    commands = {name: {**KINDS, **OTHERS}[name].split() for name in absent}
    return {name: shlex.join(word.format(**places) for word in words) for name, words in commands.items()}


def _highlights(material: Material) -> list[tuple[str, str, str]]:
    """Return the figures to show first, of the first model of each result: value, what, its interval."""
    shown = []
    for path, verification in material.results["verification"]:
        with reading(path):
            title = next(iter(verification["models"]))
            for name, judged in verification["sets"].items():
                result, known = judged["results"][title], ""
                if result["intervals"]:
                    level, bounds = (result["intervals"][key] for key in ("level", "accuracy"))
                    known = f"{100 * level:g} % interval {interval(bounds)}"
                shown.append((f"{percent(result['accuracy'])} %", f"accuracy of {title} on {name}", known))
    for path, identification in material.results["identification"]:
        with reading(path):
            title, model = next(iter(identification["models"].items()))
            size = max(model["sizes"], key=int)
            rate = f"{percent(model['sizes'][size]['rank_1'])} %"
            shown.append((rate, f"rank 1 of {title} among {int(size):,} distractors", ""))
    return shown
