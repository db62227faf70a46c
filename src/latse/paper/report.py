"""The report of a run: one HTML page that stands by itself, made of the result files in the run's folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Iterator, Mapping

import jinja2

from latse.errors import LatseError
from latse.eval.figures import read_metrics
from latse.eval.results import reading
from latse.files import read_object
from latse.paper import report_charts, report_sections
from latse.paper.report_blocks import Section, interval, percent

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
    folder : path
        Of the run.
    results : dict of str to dict of str to object or None
        Kind -> content of its file, None where there is no such file.
    runs : dict of str to dict of str to object
        `teacher`, `student` -> its run.json, of those that are there.
    metrics : dict of str to list of dict of str to object
        `teacher`, `student` -> the records of its metrics.jsonl, of those that are there.
    """

    folder: Path
    results: dict[str, dict[str, Any] | None]
    runs: dict[str, dict[str, Any]]
    metrics: dict[str, list[dict[str, Any]]]


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
    material = Material(
        folder,
        results,
        {name: read_object(path) for name, path in runs.items() if path.exists()},
        {name: read_metrics(path) for name, path in metrics.items() if path.exists()},
    )
    if not (any(results.values()) or material.runs or material.metrics):
        raise LatseError(f"{folder} holds no result; `latse train` and `latse eval` write some")
    return material


def page(material: Material, provenance: Mapping[str, Any]) -> str:
    """Return the report as HTML: the same material and provenance give the same text.

    Parameters
    ----------
    material : Material
        As `gather` found it.
    provenance : mapping of str to object
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


def sections(material: Material, provenance: Mapping[str, Any]) -> list[Section]:
    """Return all sections of the page in order; one whose material is absent says so."""
    judged = (material.results[kind] for kind in JUDGED)
    models = (title for result in judged if result for title in result["models"])
    # A model, and a run that was judged under no such title, have one look on the whole page.
    look = report_charts.looks([*dict.fromkeys([*models, *material.metrics])])
    pictures = (material.folder / KINDS["figures"].file).parent
    return [
        *(_section(material, kind, getattr(report_sections, kind), look) for kind in JUDGED),
        _section(material, "figures", report_sections.figures, pictures),
        report_sections.training(material.metrics, look),
        report_sections.paper(material.folder),
        report_sections.settings(_settings(material)),
        _provenance(material, provenance),
    ]


def _section(material: Material, kind: str, layout: Callable[[Any, Any], Section], how: Any) -> Section:
    source, result = KINDS[kind], material.results[kind]
    if result is None:
        missing = f"Not measured: the run has no {source.file}, which {source.command} writes."
        return Section(kind, source.title, absent=missing)
    with reading(material.folder / source.file):
        return layout(result, how)


def _settings(material: Material) -> dict[str, dict[str, Any]]:
    """Return the settings of each run by `section.key`."""
    flat: dict[str, dict[str, Any]] = {}
    for name, record in material.runs.items():
        with reading(material.folder / name / "run.json"):
            items = ((part, *item) for part, keys in record["settings"].items() for item in keys.items())
            flat[name] = {f"{part}.{key}": value for part, key, value in items}
    return flat


def _provenance(material: Material, own: Mapping[str, Any]) -> Section:
    """Lay out where the models judged and all results on the page come from."""
    models: dict[str, Mapping[str, Any]] = {}
    for kind in JUDGED:
        with reading(material.folder / KINDS[kind].file):
            judged = (material.results[kind] or {"models": {}})["models"]
            models.update({title: dict(model.get("origin", model)) for title, model in judged.items()})
    records = {f"Training of the {name}": run for name, run in material.runs.items()}
    for kind, result in material.results.items():
        if result is not None:
            records[KINDS[kind].title] = result["provenance"]
    return report_sections.provenance(models, {**records, "This page": own})


def _highlights(material: Material) -> list[tuple[str, str, str]]:
    """Return the figures to show first, of the first model judged: value, what it is, its interval."""
    shown = []
    if material.results["verification"]:
        with reading(material.folder / KINDS["verification"].file):
            shown += _accuracies(material.results["verification"])
    if material.results["identification"]:
        with reading(material.folder / KINDS["identification"].file):
            shown.append(_rank_1(material.results["identification"]))
    return shown


def _accuracies(result: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    title = next(iter(result["models"]))
    for name, content in result["sets"].items():
        judged = content["results"][title]
        bounds = judged["intervals"]
        known = f"{100 * bounds['level']:g} % interval {interval(bounds['accuracy'])}" if bounds else ""
        yield f"{percent(judged['accuracy'])} %", f"accuracy of {title} on {name}", known


def _rank_1(result: Mapping[str, Any]) -> tuple[str, str, str]:
    title, model = next(iter(result["models"].items()))
    size = max(model["sizes"], key=int)
    rate = f"{percent(model['sizes'][size]['rank_1'])} %"
    return rate, f"rank 1 of {title} among {int(size):,} distractors", ""


def _result(path: Path, kind: str) -> dict[str, Any] | None:
    if not path.exists():
        return None
    content = read_object(path)
    if content.get("kind") != kind:
        raise LatseError(f"{path} is no result of the kind {kind!r}")
    for key in ("provenance", "models" if kind in JUDGED else kind):
        if not isinstance(content.get(key), dict):
            raise LatseError(f"{path} lacks the key {key!r}")
    return content
