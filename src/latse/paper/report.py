"""The report of a run: one HTML page that stands by itself, made of the result files in the run's folder."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Tuple

import jinja2

from latse.errors import LatseError
from latse.eval.figures import read_metrics
from latse.eval.results import read_object, reading
from latse.paper import report_charts, report_sections
from latse.paper.report_blocks import Section, interval, percent
from latse.paper.report_charts import Look

JUDGED = ("verification", "identification", "templates")
RUNS = ("teacher", "student")


@dataclass(frozen=True)
class Kind:
    """A result that a report shows: where it is in the run's folder, and the command that writes it."""

    title: str
    file: str
    command: str


KINDS = {
    "verification": Kind("Verification", "student/verification.json", "latse eval --json"),
    "identification": Kind("Identification", "student/identification.json", "latse identify --json"),
    "templates": Kind("Templates", "student/templates.json", "latse templates --json"),
    "figures": Kind("Figures", "figures/figures.json", "latse figures --out"),
}


@dataclass(frozen=True)
class Material:
    """What a folder of a run holds.

    Attributes
    ----------
    folder
        Of the run.
    results
        Kind -> content of its file, None where there is no such file.
    runs
        `teacher`, `student` -> its run.json, of those that are there.
    metrics
        `teacher`, `student` -> the records of its metrics.jsonl, of those that are there.
    """

    folder: Path
    results: Dict[str, Optional[Dict[str, Any]]]
    runs: Dict[str, Dict[str, Any]]
    metrics: Dict[str, List[Dict[str, Any]]]


def gather(folder: Path) -> Material:
    """Read what a report can show of a run.

    Raises
    ------
    LatseError
        If there is no such folder, nothing in it that a report could show, or a file in it is damaged.
    """
    if not folder.is_dir():
        raise LatseError(f"{folder} is no folder of a run")
    results = {kind: _result(folder / source.file, kind) for kind, source in KINDS.items()}
    runs = {name: folder / name / "run.json" for name in RUNS}
    metrics = {name: folder / name / "metrics.jsonl" for name in RUNS}
    found = Material(
        folder,
        results,
        {name: read_object(path) for name, path in runs.items() if path.exists()},
        {name: read_metrics(path) for name, path in metrics.items() if path.exists()},
    )
    if not (any(results.values()) or found.runs or found.metrics):
        raise LatseError(f"{folder} holds no result; `latse train` and `latse eval` write some")
    return found


def page(material: Material, provenance: Mapping[str, Any]) -> str:
    """Return the report as HTML: the same material and provenance give the same text.

    Parameters
    ----------
    material
        As `gather` found it.
    provenance
        Of the page itself, as `latse.provenance` says it.

    Raises
    ------
    LatseError
        If a result is not as its command writes it, or a picture that it names cannot be read.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("latse.paper", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(
        name=material.folder.resolve().name,
        sections=sections(material, provenance),
        highlights=_highlights(material),
    )


def sections(material: Material, provenance: Mapping[str, Any]) -> List[Section]:
    """Return all sections of the page in order; one whose material is absent says so."""
    look = _looks(material)
    layouts: Dict[str, Callable[[Dict[str, Any]], Section]] = {
        "verification": functools.partial(report_sections.verification, look=look),
        "identification": functools.partial(report_sections.identification, look=look),
        "templates": functools.partial(report_sections.templates, look=look),
        "figures": functools.partial(
            report_sections.figures, folder=(material.folder / KINDS["figures"].file).parent
        ),
    }
    return [
        *(_section(material, kind, layout) for kind, layout in layouts.items()),
        _training(material, look),
        report_sections.paper(material.folder),
        _settings(material),
        _provenance(material, provenance),
    ]


def _looks(material: Material) -> Dict[str, Look]:
    """Give every model, and every run that was judged under no such title, one look for the whole page."""
    judged = (material.results[kind] for kind in JUDGED)
    models = (title for result in judged if result for title in result["models"])
    return report_charts.looks([*dict.fromkeys([*models, *material.metrics])])


def _section(material: Material, kind: str, layout: Callable[[Dict[str, Any]], Section]) -> Section:
    source, result = KINDS[kind], material.results[kind]
    if result is None:
        missing = f"Not measured: the run has no {source.file}, which {source.command} writes."
        return Section(kind, source.title, absent=missing)
    with reading(material.folder / source.file):
        return layout(result)


def _training(material: Material, look: Mapping[str, Look]) -> Section:
    if not material.metrics:
        return Section("training", "Training", absent="No run here has left its metrics.jsonl.")
    return report_sections.training(material.metrics, look)


def _settings(material: Material) -> Section:
    if not material.runs:
        return Section("settings", "Settings", absent="No run here has left its run.json.")
    flat = {}
    for name, record in material.runs.items():
        with reading(material.folder / name / "run.json"):
            flat[name] = report_sections.flattened(record["settings"])
    return report_sections.settings(flat)


def _provenance(material: Material, own: Mapping[str, Any]) -> Section:
    """Lay out where the models judged and all results on the page come from."""
    models: Dict[str, Mapping[str, Any]] = {}
    for kind in JUDGED:
        with reading(material.folder / KINDS[kind].file):
            models.update(_origins(material.results[kind] or {"models": {}}))
    records = {f"Training of the {name}": run for name, run in material.runs.items()}
    for kind, result in material.results.items():
        if result is not None:
            records[KINDS[kind].title] = result["provenance"]
    return report_sections.provenance(models, {**records, "This page": own})


def _origins(result: Mapping[str, Any]) -> Dict[str, Mapping[str, Any]]:
    """Return where the models of a result come from: title -> origin."""
    origins = {title: model.get("origin", model) for title, model in result["models"].items()}
    return {title: dict(origin) for title, origin in origins.items()}


def _highlights(material: Material) -> List[Tuple[str, str, str]]:
    """Return the figures to show first, of the first model judged: value, what it is, its interval."""
    shown = []
    if material.results["verification"]:
        with reading(material.folder / KINDS["verification"].file):
            shown += _accuracies(material.results["verification"])
    if material.results["identification"]:
        with reading(material.folder / KINDS["identification"].file):
            shown.append(_rank_1(material.results["identification"]))
    return shown


def _accuracies(result: Mapping[str, Any]) -> Iterator[Tuple[str, str, str]]:
    title = next(iter(result["models"]))
    for name, found in result["sets"].items():
        judged = found["results"][title]
        bounds = judged["intervals"]
        known = f"{100 * bounds['level']:g} % interval {interval(bounds['accuracy'])}" if bounds else ""
        yield f"{percent(judged['accuracy'])} %", f"accuracy of {title} on {name}", known


def _rank_1(result: Mapping[str, Any]) -> Tuple[str, str, str]:
    title, model = next(iter(result["models"].items()))
    size = max(model["sizes"], key=int)
    rate = f"{percent(model['sizes'][size]['rank_1'])} %"
    return rate, f"rank 1 of {title} among {int(size):,} distractors", ""


def _result(path: Path, kind: str) -> Optional[Dict[str, Any]]:
    if not path.exists():
        return None
    content = read_object(path)
    if content.get("kind") != kind:
        raise LatseError(f"{path} is no result of the kind {kind!r}")
    for key in ("provenance", "models" if kind in JUDGED else kind):
        if not isinstance(content.get(key), dict):
            raise LatseError(f"{path} lacks the key {key!r}")
    return content
