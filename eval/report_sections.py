"""The sections of the report: what result files say, as tables, charts and pictures, without any HTML."""

from __future__ import annotations

import base64
import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

from markupsafe import Markup

from latse.errors import LatseError
from latse.eval import report_charts as charts
from latse.eval.report_charts import Look

MEDIA = {".png": "image/png", ".svg": "image/svg+xml", ".jpg": "image/jpeg"}
FACTS = ("source", "recipe", "seed", "command", "commit", "device", "data", "from", "digest", "versions")
PAIR_KINDS = (("pairs of one person", "same"), ("pairs of two", "different"))


@dataclass(frozen=True)
class Cell:
    """A cell of a table: its text, a smaller line below it, the look of the series that it is the key to."""

    text: str
    note: str = ""
    look: Optional[Look] = None


@dataclass(frozen=True)
class Table:
    """A table; the first cell of each row heads it."""

    head: List[str]
    rows: List[List[Cell]]
    title: str = ""
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Chart:
    """An <svg>, its title, what is to be known to read it, and its lines: look -> name."""

    svg: Markup
    title: str
    caption: str = ""
    legend: Sequence[Tuple[Look, str]] = ()
    fills: Sequence[Tuple[str, str]] = ()  # name, variable of the style sheet
    small: bool = False


@dataclass(frozen=True)
class Picture:
    """A file, as a data: address, with its caption."""

    address: str
    title: str
    caption: str = ""


@dataclass(frozen=True)
class Card:
    """A title and what is to be said of it: term -> text, commands by themselves."""

    title: str
    facts: List[Tuple[str, str]]


@dataclass
class Section:
    """One heading of the report, with whatever stands under it, in this order."""

    anchor: str
    title: str
    lead: str = ""
    tables: List[Table] = field(default_factory=list)
    charts: List[Chart] = field(default_factory=list)
    pictures: List[Picture] = field(default_factory=list)
    cards: List[Card] = field(default_factory=list)
    absent: str = ""


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what a file lacks, or holds in the wrong shape, into a LatseError that names file and key."""
    try:
        yield
    except KeyError as error:
        raise LatseError(f"{path} lacks the key {error}") from error
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        raise LatseError(f"{path} is not as its command writes it: {error}") from error


def percent(fraction: Optional[float]) -> str:
    """Write a fraction in percent, two digits behind the point; nothing known is a dash."""
    return "–" if fraction is None else f"{100 * fraction:.2f}"


def interval(bounds: Optional[Sequence[float]]) -> str:
    """Write an interval of fractions in percent; none is no text."""
    return "" if bounds is None else f"{100 * bounds[0]:.1f} to {100 * bounds[1]:.1f}"


def titles(*results: Optional[Mapping[str, Any]]) -> List[str]:
    """Return the titles of the models in results, each once, in order."""
    return list(dict.fromkeys(title for result in results if result for title in result["models"]))


def verification(result: Mapping[str, Any], look: Mapping[str, Look]) -> Section:
    """Lay out what `latse eval --json` wrote: a summary of several sets, then each set."""
    section = Section(
        "verification",
        "Verification",
        "Accuracy in percent over ten folds by insightface's protocol: the threshold of the squared "
        "distance, 0 to 4 by 0.01, is picked on nine folds and judged on the tenth. TAR is the true accept rate "
        "at a false accept rate (FAR). ± is the standard deviation over the folds.",
    )
    sets = result["sets"]
    if len(sets) > 1:
        section.tables.append(_overview(sets, look))
    for name, found in sets.items():
        section.tables.append(_verification_table(name, found, look))
        section.charts += _verification_charts(name, found, look)
    return section


def _overview(sets: Mapping[str, Any], look: Mapping[str, Look]) -> Table:
    names = list(dict.fromkeys(title for found in sets.values() for title in found["results"]))
    rows = [
        [
            Cell(title, look=look[title]),
            *(Cell(percent(_at(found["results"], title, "accuracy"))) for found in sets.values()),
        ]
        for title in names
    ]
    return Table(["", *sets], rows, "Accuracy on every set")


def _verification_table(name: str, found: Mapping[str, Any], look: Mapping[str, Look]) -> Table:
    results = found["results"]
    some = next(iter(results.values()))
    resolved = [far for far in some["tar_at_far"] if far not in some["unresolved_far"]]
    interpolated = any(result["val_at_far_1e-3"] for result in results.values())
    head = ["", "accuracy", "exact threshold", *(f"TAR at {charts.power(float(far))}" for far in resolved)]
    head += [*(["VAL at 10⁻³"] if interpolated else []), "AUC", "EER"]
    rows = []
    for title, result in results.items():
        bounds = result["intervals"] or {}
        tar_bounds = bounds.get("tar_at_far", {})
        row = [
            Cell(title, look=look[title]),
            Cell(
                f"{percent(result['accuracy'])} ± {percent(result['std'])}", interval(bounds.get("accuracy"))
            ),
            Cell(f"{percent(result['exact']['accuracy'])} ± {percent(result['exact']['std'])}"),
            *(Cell(percent(result["tar_at_far"][far]), interval(tar_bounds.get(far))) for far in resolved),
        ]
        if interpolated:
            row.append(Cell(percent((result["val_at_far_1e-3"] or {}).get("val"))))
        row += [Cell(percent(result[key]), interval(bounds.get(key))) for key in ("auc", "eer")]
        rows.append(row)
    return Table(head, rows, name, _verification_notes(found, some))


def _verification_notes(found: Mapping[str, Any], some: Mapping[str, Any]) -> List[str]:
    people = f" of {found['people']:,} people" if found["people"] else ""
    notes = [f"{found['pairs']:,} pairs{people}, {found['different_pairs']:,} of them of two people."]
    if some["unresolved_far"]:
        coarsest = max(map(float, some["unresolved_far"]))
        notes.append(f"They resolve no FAR of {charts.power(coarsest)} or below.")
    bounds = some["intervals"]
    if bounds:
        notes.append(
            f"Small figures: {100 * bounds['level']:g} % confidence by bootstrap over {bounds['unit']}, "
            f"{bounds['samples']:,} samples."
        )
    else:
        notes.append("The file does not say who is in the pairs, so there are no confidence intervals.")
    return notes


def _verification_charts(name: str, found: Mapping[str, Any], look: Mapping[str, Look]) -> List[Chart]:
    results = found["results"]
    banded = any(result["roc"]["low"] is not None for result in results.values())
    roc = Chart(
        charts.roc({title: result["roc"] for title, result in results.items()}, look),
        f"ROC on {name}",
        "Bands: confidence by bootstrap over people." if banded else "",
        [(look[title], title) for title in results],
    )
    panels = [
        Chart(
            # The distance d² between unit vectors is 2 - 2·cos.
            charts.histogram(result["histogram"], 1 - result["threshold"] / 2),
            f"Scores of {title}",
            f"On {name}; dashed: the mean threshold.",
            fills=PAIR_KINDS,
            small=True,
        )
        for title, result in results.items()
    ]
    return [roc, *panels]


def identification(result: Mapping[str, Any], look: Mapping[str, Look]) -> Section:
    """Lay out what `latse identify --json` wrote: rank-1 for each size of the gallery, CMC at the largest."""
    models = result["models"]
    sizes = sorted({int(size) for model in models.values() for size in model["sizes"]})
    largest = str(sizes[-1])
    fars = list(dict.fromkeys(far for model in models.values() for far in model["tar_at_far"]))
    rows = [
        [
            Cell(title, look=look[title]),
            *(Cell(percent(_at(model["sizes"], str(size), "rank_1"))) for size in sizes),
            *(Cell(_marked(model, far)) for far in fars),
        ]
        for title, model in models.items()
    ]
    head = ["", *(f"{size:,}" for size in sizes), *(f"TAR at {charts.power(float(far))}" for far in fars)]
    unresolved = any(model["unresolved_far"] for model in models.values())
    notes = ["* finer than the pairs of probe and distractor resolve."] if unresolved else []
    rank_1 = {
        title: {size: row["rank_1"] for size, row in model["sizes"].items()}
        for title, model in models.items()
    }
    cmc = {
        title: model["sizes"][largest]["cmc"] for title, model in models.items() if largest in model["sizes"]
    }
    legend = [(look[title], title) for title in models]
    return Section(
        "identification",
        "Identification",
        f"{result['probes']:,} probes, each looked up among one mate and a number of distractors, up to "
        f"{result['distractors']:,}: how often, in percent, the mate comes first (rank 1), and the true "
        "accept rate (TAR) of probes with mates at a false accept rate over probes with distractors.",
        [Table(head, rows, "Rank-1 rate by number of distractors", notes)],
        [
            Chart(charts.steps(rank_1, look, "distractors"), "Rank 1 as the gallery grows", legend=legend),
            Chart(charts.steps(cmc, look, "rank"), f"CMC among {int(largest):,} distractors", legend=legend),
        ],
    )


def templates(result: Mapping[str, Any], look: Mapping[str, Look]) -> Section:
    """Lay out what `latse templates --json` wrote: 1:1 and 1:N rates."""
    models = result["models"]
    parts = (("tar_at_far", "TAR at {}"), ("tpir_at_fpir", "TPIR at {}"), ("rank", "rank {}"))
    columns = [
        (part, key, text.format(key if part == "rank" else charts.power(float(key))))
        for part, text in parts
        for key in dict.fromkeys(key for model in models.values() for key in model.get(part) or {})
    ]
    rows = [
        [
            Cell(title, look=look[title]),
            *(Cell(percent((model.get(part) or {}).get(key))) for part, key, _ in columns),
        ]
        for title, model in models.items()
    ]
    return Section(
        "templates",
        "Templates",
        "Rates in percent for templates, the mean of a person's media: TAR at FAR for pairs of templates "
        "(1:1), TPIR at FPIR and the rank of the mate for a search (1:N).",
        [Table(["", *(text for *_, text in columns)], rows)],
    )


def training(runs: Mapping[str, List[Dict[str, Any]]]) -> Section:
    """Lay out the metrics of runs, title -> records, as curves."""
    names = charts.line_names(runs)
    every = list(dict.fromkeys(name for lines in names.values() for name in lines))
    # A run keeps its colour in all charts; its further lines differ in style.
    look = charts.looks(every)
    return Section(
        "training",
        "Training",
        charts=[
            Chart(svg, title.capitalize(), legend=[(look[name], name) for name in names[title]], small=True)
            for title, svg in charts.training(runs, look).items()
        ],
    )


def figures(result: Mapping[str, Any], folder: Path) -> Section:
    """Lay out what `latse figures` drew into `folder`; raise LatseError if a picture cannot be read."""
    pictures = [
        Picture(_address(folder / figure["file"]), f"Figure {number}", figure["caption"])
        for number, figure in sorted(result["figures"].items())
    ]
    lead = ["Numbered as in the paper."]
    lead += [f"Figure {number} is left out: {why}." for number, why in result.get("absent", {}).items()]
    return Section("figures", "Figures", " ".join(lead), pictures=pictures)


def settings(runs: Mapping[str, Mapping[str, Any]]) -> Section:
    """Lay out the settings of runs, title -> run.json, side by side."""
    flat = {
        title: {
            f"{section}.{key}": value
            for section, content in record["settings"].items()
            for key, value in content.items()
        }
        for title, record in runs.items()
    }
    keys = list(dict.fromkeys(key for values in flat.values() for key in values))
    rows = [[Cell(key), *(Cell(_value(values.get(key))) for values in flat.values())] for key in keys]
    return Section("settings", "Settings", tables=[Table(["", *flat], rows)])


def provenance(records: Mapping[str, Mapping[str, Any]]) -> Section:
    """Lay out where results come from: title -> facts, as `latse.provenance` and run.json have them."""
    return Section(
        "provenance",
        "Provenance",
        cards=[Card(title, list(_facts(record))) for title, record in records.items()],
    )


def _facts(record: Mapping[str, Any]) -> Iterator[Tuple[str, str]]:
    for key in FACTS:
        value = record.get(key)
        if isinstance(value, dict):
            value = ", ".join(f"{name} {part}" for name, part in value.items() if part is not None)
        if value is not None:
            yield key, str(value)


def _address(path: Path) -> str:
    if path.suffix not in MEDIA:
        raise LatseError(f"{path}: a picture of the report must be one of {', '.join(MEDIA)}")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise LatseError(f"cannot read {path}: {error.strerror}") from error
    return f"data:{MEDIA[path.suffix]};base64,{base64.b64encode(content).decode()}"


def _at(results: Mapping[str, Any], name: str, key: str) -> Optional[float]:
    return results[name][key] if name in results else None


def _marked(model: Mapping[str, Any], far: str) -> str:
    return percent(model["tar_at_far"].get(far)) + ("*" if far in model["unresolved_far"] else "")


def _value(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_value, value))
    if isinstance(value, (bool, type(None))):
        return {True: "yes", False: "no", None: "–"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)
