"""`latse report`: one HTML page that stands by itself, made of the result files in a run's folder."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Mapping, NamedTuple

from latse.errors import LatseError
from latse.eval.figures import read_metrics
from latse.eval.results import reading
from latse.files import read_object, write_text
from latse.paper import report_charts, report_sections
from latse.paper.report_blocks import ENVIRONMENT
from latse.paper.report_sections import Section, absent, interval
from latse.provenance import provenance
from latse.text_table import percent

JUDGED = ("verification", "identification", "templates")
# Kind of a result -> where it is in the run's folder, and the command that writes it.
KINDS = {
    "verification": ("student/verification.json", "latse eval --json"),
    "identification": ("student/identification.json", "latse identify --json"),
    "templates": ("student/templates.json", "latse templates --json"),
    "figures": ("figures/figures.json", "latse figures --out"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `latse report`."""
    parser.description = (
        "Write one HTML page of all results of a run. It holds everything by itself, needs neither network "
        "nor scripts, follows the reader's light or dark setting, and prints."
    )
    parser.add_argument(
        "run_folder",
        metavar="RUN_FOLDER",
        help="such as out/orl; read are {teacher,student}/{run.json,metrics.jsonl}, "
        "student/{verification,identification,templates}.json and figures/figures.json. What is absent is "
        "said on the page.",
    )
    parser.add_argument("--out", required=True, metavar="FILE.html", help="the page to write")


def run(args: argparse.Namespace) -> None:
    """Read the results, write the page and print its path; raise LatseError for bad input."""
    html = page(gather(Path(args.run_folder)), provenance(args))
    write_text(args.out, html)
    print(args.out)


class Material(NamedTuple):
    """What the folder of a run holds: each dictionary has those that are there."""

    folder: Path
    results: dict[str, dict[str, Any]]  # kind -> content of its file
    runs: dict[str, dict[str, Any]]  # `teacher`, `student` -> its run.json
    metrics: dict[str, list[dict[str, Any]]]  # `teacher`, `student` -> the records of its metrics.jsonl


def gather(folder: Path) -> Material:
    """Read what a report can show of a run.

    Raises LatseError if there is no such folder, nothing to show in it, or a file in it is damaged.
    """
    if not folder.is_dir():
        raise LatseError(f"{folder} is no folder of a run")
    results = {kind: folder / file for kind, (file, _) in KINDS.items()}
    runs, metrics = (
        {name: folder / name / file for name in ("teacher", "student")}
        for file in ("run.json", "metrics.jsonl")
    )
    material = Material(
        folder,
        {kind: _result(path, kind) for kind, path in results.items() if path.exists()},
        {name: read_object(path) for name, path in runs.items() if path.exists()},
        {name: read_metrics(path) for name, path in metrics.items() if path.exists()},
    )
    if not any(material[1:]):
        raise LatseError(f"{folder} holds no result; `latse train` and `latse eval` write some")
    return material


def _result(path: Path, kind: str) -> dict[str, Any]:
    content = read_object(path)
    if content.get("kind") != kind:
        raise LatseError(f"{path} is no result of the kind {kind!r}")
    for key in ("provenance", "models" if kind in JUDGED else kind):
        if not isinstance(content.get(key), dict):
            raise LatseError(f"{path} lacks the key {key!r}")
    return content


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
    """Return all sections of the page in order; one whose material is absent says so."""
    titles = (title for kind in JUDGED for title in material.results.get(kind, {}).get("models", ()))
    # A model, and a run that was judged under no such title, have one look on the whole page.
    look = report_charts.looks([*dict.fromkeys([*titles, *material.metrics])])
    records = {f"Training of the {name}": record for name, record in material.runs.items()}
    shown, models = [], {}
    for kind, (file, command) in KINDS.items():
        title, path = kind.capitalize(), material.folder / file
        if kind not in material.results:
            missing = f"Not measured: the run has no {file}, which {command} writes."
            shown.append(absent(title, missing))
            continue
        with reading(path):
            result, layout = material.results[kind], getattr(report_sections, kind)
            shown.append(layout(result, path.parent if kind == "figures" else look))
            records[title] = result["provenance"]
            for name, model in result["models"].items() if kind in JUDGED else ():
                models[name] = dict(model.get("origin", model))
    return [
        *shown,
        report_sections.training(material.metrics, look),
        report_sections.paper(material.folder),
        report_sections.settings(material.folder, material.runs),
        report_sections.provenance(models, {**records, "This page": own}),
    ]


def _highlights(material: Material) -> list[tuple[str, str, str]]:
    """Return the figures to show first, of the first model judged: value, what it is, its interval."""
    shown = []
    verification, identification = (material.results.get(kind) for kind in JUDGED[:2])
    if verification:
        with reading(material.folder / KINDS["verification"][0]):
            title = next(iter(verification["models"]))
            for name, judged in verification["sets"].items():
                result, known = judged["results"][title], ""
                if result["intervals"]:
                    level, bounds = (result["intervals"][key] for key in ("level", "accuracy"))
                    known = f"{100 * level:g} % interval {interval(bounds)}"
                shown.append((f"{percent(result['accuracy'])} %", f"accuracy of {title} on {name}", known))
    if identification:
        with reading(material.folder / KINDS["identification"][0]):
            title, model = next(iter(identification["models"].items()))
            size = max(model["sizes"], key=int)
            rate = f"{percent(model['sizes'][size]['rank_1'])} %"
            shown.append((rate, f"rank 1 of {title} among {int(size):,} distractors", ""))
    return shown
