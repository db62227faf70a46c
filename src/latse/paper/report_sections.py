"""The sections of the report: result files laid out as tables, charts, pictures and cards."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any, Iterator, Mapping, Sequence

from latse.errors import LatseError
from latse.files import explained
from latse.paper import paper_tables as tables
from latse.paper import report_charts as charts
from latse.paper.report_blocks import Card, Cards, Cell, Charts, Picture, Section, Table, interval, percent
from latse.paper.report_charts import Chart, Look, power
from latse.text_table import restoration_notes

MEDIA = {".png": "image/png", ".svg": "image/svg+xml", ".jpg": "image/jpeg"}
FACTS = ("recipe", "seed", "changed", "command", "commit", "device", "data", "from", "versions")
ORIGINS = ("source", "recipe", "seed", "digest")
PAIR_KINDS = (("pairs of one person", "same"), ("pairs of two people", "different"))


def verification(result: Mapping[str, Any], look: Mapping[str, Look]) -> Section:
    """Lay out what `latse eval --json` wrote: a summary of several sets, then each set."""
    sets = result["sets"]
    blocks = [_overview(sets, look)] if len(sets) > 1 else []
    for name, judged in sets.items():
        blocks += [_verification_table(name, judged, look), _verification_charts(name, judged, look)]
    return Section(
        "verification",
        "Verification",
        "Accuracy in percent over ten folds by insightface’s protocol: the threshold of the squared "
        "distance, 0 to 4 by 0.01, is picked on nine folds and judged on the tenth; ± is the standard "
        "deviation over the folds. Beside it the same with thresholds taken from the distances themselves. "
        "TAR is the true accept rate at a false accept rate.",
        blocks,
    )


def _overview(sets: Mapping[str, Any], look: Mapping[str, Look]) -> Table:
    names = list(dict.fromkeys(title for content in sets.values() for title in content["results"]))
    rows = []
    for title in names:
        judged = [content["results"].get(title, {}) for content in sets.values()]
        rows.append([_key(title, look), *(Cell(percent(result.get("accuracy"))) for result in judged)])
    return Table(["", *sets], rows, "Accuracy on every set")


def _verification_table(name: str, judged: Mapping[str, Any], look: Mapping[str, Look]) -> Table:
    results = judged["results"]
    some = next(iter(results.values()))
    resolved = [far for far in some["tar_at_far"] if far not in some["unresolved_far"]]
    interpolated = any(result["val_at_far_1e-3"] for result in results.values())
    head = ["", "accuracy", "exact threshold", *(f"TAR at {power(float(far))}" for far in resolved)]
    head += [*(["VAL at 10⁻³"] if interpolated else []), "AUC", "EER"]
    rows = []
    for title, result in results.items():
        bounds = result["intervals"] or {}
        tar_bounds = bounds.get("tar_at_far", {})
        row = [_key(title, look), Cell(_spread(result), interval(bounds.get("accuracy")))]
        row.append(Cell(_spread(result["exact"])))
        row += [Cell(percent(result["tar_at_far"][far]), interval(tar_bounds.get(far))) for far in resolved]
        if interpolated:
            row.append(Cell(percent((result["val_at_far_1e-3"] or {}).get("val"))))
        row += [Cell(percent(result[key]), interval(bounds.get(key))) for key in ("auc", "eer")]
        rows.append(row)
    return Table(head, rows, name, _verification_notes(judged, some))


def _spread(result: Mapping[str, float]) -> str:
    return f"{percent(result['accuracy'])} ± {percent(result['std'])}"


def _verification_notes(judged: Mapping[str, Any], some: Mapping[str, Any]) -> list[str]:
    people = f" of {judged['people']:,} people" if judged["people"] else ""
    notes = [f"{judged['pairs']:,} pairs{people}, {judged['different_pairs']:,} of them of two people."]
    notes += _unresolved(some)
    bounds = some["intervals"]
    if bounds is None:
        notes.append("Who is in the pairs is not known, so there are no confidence intervals.")
    else:
        notes.append(
            f"Small figures: {100 * bounds['level']:g}\xa0% confidence by bootstrap over {bounds['unit']}, "
            f"{bounds['samples']:,} samples."
        )
    return [*notes, *(f"{note}." for note in restoration_notes(judged["results"]))]


def _verification_charts(name: str, judged: Mapping[str, Any], look: Mapping[str, Look]) -> Charts:
    rocs = {title: result["roc"] for title, result in judged["results"].items()}
    first = next(iter(rocs))
    drawn = [charts.roc(f"ROC on {name}", rocs, look, first)]
    for title, result in judged["results"].items():
        threshold = 1 - result["threshold"] / 2  # the distance d² between unit vectors is 2 - 2·cos
        named = f"Similarities of {title} on {name}"
        drawn.append(charts.histogram(named, title, result["histogram"], look[title], threshold))
    band = "" if rocs[first]["low"] is None else f"Band: confidence of {first}. "
    note = "Small: share of pairs by similarity of their embeddings; dashed, the mean threshold."
    return Charts(drawn, PAIR_KINDS, band + note)


def identification(result: Mapping[str, Any], look: Mapping[str, Look]) -> Section:
    """Lay out what `latse identify --json` wrote: rank-1 for each size of the gallery, CMC at the largest."""
    models = result["models"]
    sizes = sorted({int(size) for model in models.values() for size in model["sizes"]})
    some = next(iter(models.values()))
    resolved = [far for far in some["tar_at_far"] if far not in some["unresolved_far"]]
    rows = [
        [
            _key(title, look),
            *(Cell(percent(model["sizes"].get(str(size), {}).get("rank_1"))) for size in sizes),
            *(Cell(percent(model["tar_at_far"].get(far))) for far in resolved),
        ]
        for title, model in models.items()
    ]
    head = ["", *(f"{size:,}" for size in sizes), *(f"TAR at {power(float(far))}" for far in resolved)]
    return Section(
        "identification",
        "Identification",
        f"{result['probes']:,} probes, in {result['mates']:,} pairs with a mate, up to "
        f"{result['distractors']:,} distractors: how often, in percent, the mate comes before all of "
        "them (rank 1). TAR is the true accept rate of pairs with a mate at a false accept rate over pairs "
        "with a distractor.",
        [
            Table(
                head, rows, "Rank-1 rate by number of distractors", [*_left_out(result), *_unresolved(some)]
            ),
            Charts(_identification_charts(models, sizes[-1], look)),
        ],
    )


def _left_out(result: Mapping[str, Any]) -> list[str]:
    """Say what lists of noise have taken from probes and distractors; a sentence, or none."""
    known = (result.get("left_out") or {}).items()
    noise = " and ".join(f"{number:,} {name}" for name, number in known if number is not None)
    return [f"Left out as noise: {noise}."] if noise else []


def _unresolved(result: Mapping[str, Any]) -> list[str]:
    """Say which false accept rates are finer than one of all pairs; a sentence, or none."""
    coarsest = max(map(float, result["unresolved_far"]), default=None)
    return [f"The pairs resolve no false accept rate of {power(coarsest)} or below."] if coarsest else []


def _identification_charts(models: Mapping[str, Any], largest: int, look: Mapping[str, Look]) -> list[Chart]:
    grown = {
        title: {size: row["rank_1"] for size, row in model["sizes"].items()}
        for title, model in models.items()
    }
    cmc = {
        title: model["sizes"][str(largest)]["cmc"]
        for title, model in models.items()
        if str(largest) in model["sizes"]
    }
    return [
        charts.steps("Rank 1 as the gallery grows", grown, look, "distractors"),
        charts.steps(f"CMC among {largest:,} distractors", cmc, look, "rank"),
    ]


def templates(result: Mapping[str, Any], look: Mapping[str, Look]) -> Section:
    """Lay out what `latse templates --json` wrote: 1:1 and 1:N rates, then 1:N in each gallery alone."""
    models = result["models"]
    own = (("tar_at_far", "TAR at {}"), ("rank", "rank {}"))
    insightface = (("tar_at_nearest_far", "TAR at {}"), ("tpir_at_fpir", "TPIR at {}"))
    blocks = [
        _rates("1:1, and 1:N in all galleries", models, own, look),
        _rates("The same by insightface’s rules", models, insightface, look),
    ]
    galleries = dict.fromkeys(name for model in models.values() for name in model.get("open_set", {}))
    for name in galleries:
        inside = {title: model.get("open_set", {}).get(name, {}) for title, model in models.items()}
        open_set = (("tpir_at_fpir", "TPIR at {}"), ("rank", "rank {}"))
        blocks.append(_rates(f"1:N in {name} alone", inside, open_set, look))
    return Section(
        "templates",
        "Templates",
        "Rates in percent for templates, the mean of a person’s media: TAR at a false accept rate for pairs "
        "of templates (1:1), TPIR at a false positive identification rate and the rank of the mate in a "
        "search (1:N).",
        [block for block in blocks if len(block.head) > 1],
    )


def _rates(
    title: str, models: Mapping[str, Any], parts: Sequence[tuple[str, str]], look: Mapping[str, Look]
) -> Table:
    """Lay out rates of models: `parts` are the keys of theirs, and what heads a column; * is not resolved."""
    columns = [
        (part, key, text.format(power(float(key)) if float(key) < 1 else key))
        for part, text in parts
        for key in dict.fromkeys(key for model in models.values() for key in model.get(part, {}))
    ]
    coarse = {key for model in models.values() for key in model.get("unresolved_far", [])}
    rows = []
    for name, model in models.items():
        cells = [percent(model.get(part, {}).get(key)) for part, key, _ in columns]
        marks = ["*" if part == "tar_at_far" and key in coarse else "" for part, key, _ in columns]
        rows.append([_key(name, look), *(Cell(cell + mark) for cell, mark in zip(cells, marks))])
    starred = any(part == "tar_at_far" and key in coarse for part, key, _ in columns)
    notes = ["* before the first false accept: the pairs resolve no finer."] if starred else []
    return Table(["", *(text for *_, text in columns)], rows, title, notes)


def figures(result: Mapping[str, Any], folder: Path) -> Section:
    """Lay out what `latse figures` drew into `folder`; raise LatseError if a picture cannot be read."""
    lead = ["Numbered as in the paper."]
    lead += [f"Figure {number} is left out: {why}." for number, why in result.get("absent", {}).items()]
    pictures = [
        Picture(_address(folder / figure["file"]), f"Figure {number}", figure["caption"])
        for number, figure in sorted(result["figures"].items())
    ]
    return Section("figures", "Figures", " ".join(lead), pictures)


def training(runs: Mapping[str, list[dict[str, Any]]], look: Mapping[str, Look]) -> Section:
    """Lay out the metrics of runs, title -> records, as curves."""
    if not runs:
        return Section("training", "Training", absent="No run here has left its metrics.jsonl.")
    lead = "Means over the iterations since the last record."
    return Section("training", "Training", lead, [Charts(charts.training_curves(runs, look))])


def paper(folder: Path) -> Section:
    """Lay out the paper's tables beside what baselines published and what the runs in `folder` gave."""
    return Section(
        "paper",
        "The paper’s tables",
        "In percent: the paper’s figure; what the authors of a baseline published themselves; ours, from "
        "runs in this folder by the recipe of the row.",
        [_paper_table(table) for table in tables.filled(folder)],
    )


def _paper_table(table: tables.PaperTable) -> Table:
    notes: dict[str, int] = {}
    rows = []
    for row in table.rows:
        remarks = [row.published.source] if row.published else []
        remarks += ["; ".join(["ours: " + row.ours.folder, *row.ours.differences])] if row.ours else []
        marks = [notes.setdefault(remark, len(notes) + 1) for remark in remarks]
        cells = [Cell(" ".join([row.name, *(f"[{mark}]" for mark in marks)]))]
        for column in table.columns:
            ours = row.ours.figures if row.ours else {}
            cells += [
                _figure(row.paper, column),
                _figure(row.published.figures if row.published else {}, column),
                _figure(ours, column, tables.NOT_RUN if row.recipe else "–"),
            ]
        rows.append(cells)
    head = ["", *("paper", "published", "ours") * len(table.columns)]
    groups = [("", 1), *((tables.COLUMNS[column].title, 3) for column in table.columns)]
    marked = [f"[{number}] {note}." for note, number in notes.items()]
    return Table(head, rows, f"Table {table.number}. {table.title}", marked, groups)


def _figure(figures: Mapping[str, float], column: str, missing: str = "–") -> Cell:
    return Cell(f"{figures[column]:.2f}" if column in figures else missing)


def settings(runs: Mapping[str, Mapping[str, Any]]) -> Section:
    """Lay out the settings of runs, title -> `section.key` -> value, side by side."""
    if not runs:
        return Section("settings", "Settings", absent="No run here has left its run.json.")
    keys = dict.fromkeys(key for values in runs.values() for key in values)
    rows = [[Cell(key), *(Cell(_value(values.get(key))) for values in runs.values())] for key in keys]
    return Section("settings", "Settings", "", [Table(["", *runs], rows, prose=True)])


def provenance(models: Mapping[str, Mapping[str, Any]], records: Mapping[str, Mapping[str, Any]]) -> Section:
    """Lay out where results come from.

    Parameters
    ----------
    models : mapping of str to mapping of str to object
        Title of a model -> its origin.
    records : mapping of str to mapping of str to object
        Title of a result -> what `latse.provenance`, or the run.json of a training, says of it.
    """
    keys = [key for key in ORIGINS if any(origin.get(key) is not None for origin in models.values())]
    rows = [
        [Cell(title), *(Cell(_value(origin.get(key))) for key in keys)] for title, origin in models.items()
    ]
    blocks = [Table(["model", *keys], rows, prose=True)] if rows else []
    cards = Cards([Card(title, list(_facts(record))) for title, record in records.items()])
    return Section("provenance", "Provenance", "", [*blocks, cards])


def _facts(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key in FACTS:
        value = record.get(key)
        if isinstance(value, dict):
            value = ", ".join(f"{name} {_value(part)}" for name, part in value.items() if part is not None)
        if value not in (None, ""):
            yield key, _value(value)


def _key(title: str, look: Mapping[str, Look]) -> Cell:
    return Cell(title, look=look[title])


def _value(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_value, value))
    if isinstance(value, (bool, type(None))):
        return {True: "yes", False: "no", None: "–"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


def _address(path: Path) -> str:
    if path.suffix not in MEDIA:
        raise LatseError(f"{path}: a picture of the report must be one of {', '.join(MEDIA)}")
    with explained(f"cannot read {path}"):
        content = path.read_bytes()
    return f"data:{MEDIA[path.suffix]};base64,{base64.b64encode(content).decode()}"
