"""The sections of the report: result files laid out as tables, charts, pictures and cards."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any, Iterator, Mapping, NamedTuple, Sequence

from markupsafe import Markup

from latse.errors import LatseError
from latse.files import explained
from latse.paper import paper_tables as tables
from latse.paper import report_charts as charts
from latse.paper.report_blocks import BLOCKS
from latse.paper.report_charts import Look, power
from latse.text_table import NOTHING, percent, restoration_notes, val_and_rate
from latse.train import run_record

MEDIA = {".png": "image/png", ".svg": "image/svg+xml", ".jpg": "image/jpeg"}
FACTS = ("recipe", "seed", "changed", "command", "commit", "device", "data", "from", "versions")
ORIGINS = ("source", "recipe", "seed", "digest")
PAIR_KINDS = (("pairs of one person", "same"), ("pairs of two people", "different"))


class Section(NamedTuple):
    """One heading of the report, a paragraph below it, and what stands under it: HTML."""

    anchor: str
    title: str
    lead: str
    blocks: list[Markup]


def absent(commands: Mapping[str, str]) -> Section:
    """List what is not there, each with the command that makes it."""
    lead = "No file in the folder holds these; each is made by the command beside it."
    return Section("absent", "Not here", lead, [BLOCKS.table(["", "command"], commands.items(), prose=True)])


def interval(bounds: Sequence[float] | None) -> str:
    """Write an interval of fractions in percent; none is no text."""
    return "" if bounds is None else f"{100 * bounds[0]:.1f}–{100 * bounds[1]:.1f}"


def verification(result: Mapping[str, Any], look: Mapping[str, Look], where: str) -> Section:
    """Lay out what `latse eval --json` wrote: a summary of several sets, then each set.

    `where` follows the titles here and below where the page has several such results.
    """
    sets = {f"{name}{where}": judged for name, judged in result["sets"].items()}
    blocks = [_overview(sets, look)] if len(sets) > 1 else []
    for name, judged in sets.items():
        blocks += [
            _verification_table(name, judged, look),
            *_thresholds(name, judged["results"], look),
            _verification_charts(name, judged, look),
        ]
    return Section(
        "verification",
        f"Verification{where}",
        "Accuracy in percent over ten folds by insightface’s protocol: the threshold of the squared "
        "distance, 0 to 4 by 0.01, is picked on nine folds and judged on the tenth; ± is the standard "
        "deviation over the folds. Beside it the same with thresholds taken from the distances themselves. "
        "TAR is the true accept rate at a false accept rate.",
        blocks,
    )


def _overview(sets: Mapping[str, Any], look: Mapping[str, Look]) -> Markup:
    results = [judged["results"] for judged in sets.values()]
    rows = [
        [_key(title, look), *(percent(judged.get(title, {}).get("accuracy")) for judged in results)]
        for title in dict.fromkeys(title for judged in results for title in judged)
    ]
    return BLOCKS.table(["", *sets], rows, "Accuracy on every set")


def _verification_table(name: str, judged: Mapping[str, Any], look: Mapping[str, Look]) -> Markup:
    results = judged["results"]
    some = next(iter(results.values()))
    resolved = _resolved(some)
    has_val = any(result["val_at_far_1e-3"] for result in results.values())
    rows = []
    for title, result in results.items():
        bounds = result["intervals"] or {}
        rates = [(result["tar_at_far"][far], bounds.get("tar_at_far", {}).get(far)) for far in resolved]
        rates += [(result[key], bounds.get(key)) for key in ("auc", "eer")]
        accuracy = BLOCKS.noted(_spread(result), interval(bounds.get("accuracy")))
        cells = [BLOCKS.noted(percent(rate), interval(bound)) for rate, bound in rates]
        val = [val_and_rate(result["val_at_far_1e-3"])] if has_val else []
        rows.append([_key(title, look), accuracy, _spread(result["exact"]), *cells, *val])
    val = ["VAL at FAR"] if has_val else []
    head = ["", "accuracy", "exact threshold", *map(_tar, resolved), "AUC", "EER", *val]
    return BLOCKS.table(head, rows, name, _verification_notes(judged, some))


def _thresholds(name: str, results: Mapping[str, Any], look: Mapping[str, Look]) -> Iterator[Markup]:
    """Yield a table of the cosines above which a pair is one person; none of a file that lacks them."""
    some = next(iter(results.values()))
    resolved = _resolved(some)
    if not resolved or not all("cosine_at_far" in result for result in results.values()):
        return
    rows = []
    for title, result in results.items():
        bounds = (result["intervals"] or {}).get("cosine_at_far", {})
        cells = [_cosine(result["cosine_at_far"][far], bounds.get(far)) for far in resolved]
        rows.append([_key(title, look), *cells])
    head = ["", *(power(float(far)) for far in resolved)]
    note = "A pair is taken for one person if the cosine of its embeddings is larger."
    yield BLOCKS.table(head, rows, f"{name}: thresholds by false accept rate", [note])


def _cosine(value: float, bounds: Sequence[float] | None) -> Markup:
    return BLOCKS.noted(f"{value:.3f}", "{:.3f} to {:.3f}".format(*bounds) if bounds else "")


def _spread(result: Mapping[str, float]) -> str:
    return f"{percent(result['accuracy'])} ± {percent(result['std'])}"


def _resolved(result: Mapping[str, Any]) -> list[str]:
    """Return the false accept rates that are no finer than one of all pairs."""
    return [far for far in result["tar_at_far"] if far not in result["unresolved_far"]]


def _tar(far: str) -> str:
    return f"TAR at {power(float(far))}"


def _verification_notes(judged: Mapping[str, Any], some: Mapping[str, Any]) -> list[str]:
    people = f" of {judged['people']:,} people" if judged["people"] else ""
    bounds = some["intervals"]
    known = "Who is in the pairs is not known, so there are no confidence intervals."
    if bounds is not None:
        known = (
            f"Small figures: {100 * bounds['level']:g}\xa0% confidence by bootstrap over {bounds['unit']}, "
            f"{bounds['samples']:,} samples."
        )
    return [
        f"{judged['pairs']:,} pairs{people}, {judged['different_pairs']:,} of them of two people.",
        *_unresolved(some),
        known,
        *(f"{note}." for note in restoration_notes(judged["results"])),
    ]


def _verification_charts(name: str, judged: Mapping[str, Any], look: Mapping[str, Look]) -> Markup:
    rocs = {title: result["roc"] for title, result in judged["results"].items()}
    first = next(iter(rocs))
    drawn = [charts.roc(f"ROC on {name}", rocs, look, first)]
    for title, result in judged["results"].items():
        threshold = 1 - result["threshold"] / 2  # the distance d² between unit vectors is 2 - 2·cos
        named = f"Similarities of {title} on {name}"
        drawn.append(charts.histogram(named, title, result["histogram"], look[title], threshold))
    band = "" if rocs[first]["low"] is None else f"Band: confidence of {first}. "
    note = "Small: share of pairs by similarity of their embeddings; dashed, the mean threshold."
    return BLOCKS.charts(drawn, band + note, PAIR_KINDS)


def identification(result: Mapping[str, Any], look: Mapping[str, Look], where: str) -> Section:
    """Lay out what `latse identify --json` wrote: rank-1 for each size of the gallery, CMC at the largest."""
    models = result["models"]
    sizes = sorted({size for model in models.values() for size in model["sizes"]}, key=int)
    some = next(iter(models.values()))
    resolved = _resolved(some)
    rows = [
        [
            _key(title, look),
            *(percent(model["sizes"].get(size, {}).get("rank_1")) for size in sizes),
            *(percent(model["tar_at_far"].get(far)) for far in resolved),
        ]
        for title, model in models.items()
    ]
    head = ["", *(f"{int(size):,}" for size in sizes), *map(_tar, resolved)]
    notes = [*_left_out(result), *_unresolved(some)]
    grown = {
        title: {size: row["rank_1"] for size, row in model["sizes"].items()}
        for title, model in models.items()
    }
    largest = sizes[-1]
    in_all = {title: model["sizes"] for title, model in models.items() if largest in model["sizes"]}
    cmc = {title: by_size[largest]["cmc"] for title, by_size in in_all.items()}
    drawn = [
        charts.steps(f"Rank 1 as the gallery grows{where}", grown, look, "distractors"),
        charts.steps(f"CMC among {int(largest):,} distractors{where}", cmc, look, "rank"),
    ]
    return Section(
        "identification",
        f"Identification{where}",
        f"{result['probes']:,} probes, in {result['mates']:,} pairs with a mate, up to "
        f"{result['distractors']:,} distractors: how often, in percent, the mate comes before all of "
        "them (rank 1). TAR is the true accept rate of pairs with a mate at a false accept rate over pairs "
        "with a distractor.",
        [BLOCKS.table(head, rows, "Rank-1 rate by number of distractors", notes), BLOCKS.charts(drawn)],
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


def templates(result: Mapping[str, Any], look: Mapping[str, Look], where: str) -> Section:
    """Lay out what `latse templates --json` wrote: 1:1 and 1:N rates, then 1:N in each gallery alone."""
    models = result["models"]
    own = {"tar_at_far": "TAR at {}", "rank": "rank {}"}
    insightface = {"tar_at_nearest_far": "TAR at {}", "tpir_at_fpir": "TPIR at {}"}
    open_set = {"tpir_at_fpir": "TPIR at {}", "rank": "rank {}"}
    blocks = [
        *_rates("1:1, and 1:N in all galleries", models, own, look),
        *_rates("The same by insightface’s rules", models, insightface, look),
    ]
    for name in dict.fromkeys(name for model in models.values() for name in model.get("open_set", {})):
        inside = {title: model.get("open_set", {}).get(name, {}) for title, model in models.items()}
        blocks += _rates(f"1:N in {name} alone", inside, open_set, look)
    return Section(
        "templates",
        f"Templates{where}",
        "Rates in percent for templates, the mean of a person’s media: TAR at a false accept rate for pairs "
        "of templates (1:1), TPIR at a false positive identification rate and the rank of the mate in a "
        "search (1:N).",
        blocks,
    )


def _rates(
    title: str, models: Mapping[str, Any], parts: Mapping[str, str], look: Mapping[str, Look]
) -> list[Markup]:
    """Lay out rates of models, if there are any: `parts` are the keys of theirs, and what heads a column."""
    columns = {
        (part, key): text.format(power(float(key)) if float(key) < 1 else key)
        for part, text in parts.items()
        for key in dict.fromkeys(key for model in models.values() for key in model.get(part, {}))
    }
    coarse = {("tar_at_far", key) for model in models.values() for key in model.get("unresolved_far", [])}
    marks = {column: "*" if column in coarse else "" for column in columns}
    rows = [
        [
            _key(name, look),
            *(percent(model.get(part, {}).get(key)) + mark for (part, key), mark in marks.items()),
        ]
        for name, model in models.items()
    ]
    starred = any(marks.values())
    notes = ["* before the first false accept: the pairs resolve no finer."] if starred else []
    return [BLOCKS.table(["", *columns.values()], rows, title, notes)] if columns else []


def figures(result: Mapping[str, Any], folder: Path, where: str) -> Section:
    """Lay out what `latse figures` drew into `folder`; raise LatseError if a picture cannot be read."""
    lead = ["Numbered as in the paper."]
    lead += [f"Figure {number} is left out: {why}." for number, why in result.get("absent", {}).items()]
    pictures = [
        BLOCKS.picture(_address(folder / figure["file"]), f"Figure {number}", figure["caption"])
        for number, figure in sorted(result["figures"].items())
    ]
    return Section("figures", f"Figures{where}", " ".join(lead), pictures)


def study(result: Mapping[str, Any], folder: Path, where: str) -> Section:
    """Lay out what `latse study` printed, and drew into `folder`; LatseError if a picture cannot be read."""
    lead = f"What {result['recipe']} gives where each row changes something of it."
    blocks = [
        BLOCKS.table(head, rows, title, prose=True) for title, (head, *rows) in result["tables"].items()
    ]
    blocks += [
        BLOCKS.picture(
            _address(folder / file), name, "Thick: the mean over the seeds, with its 95 % interval."
        )
        for name, file in result.get("plots", {}).items()
    ]
    return Section("study", f"Study{where}", lead, blocks)


def training(
    runs: Mapping[str, list[dict[str, Any]]],
    records: Mapping[str, tuple[Path, Mapping[str, Any]]],
    look: Mapping[str, Look],
) -> Section | None:
    """Lay out the metrics of runs, title -> lines, as curves; None if there are none.

    `records` are title -> path and content of run.json: they tell of a run whether it is finished.
    """
    if not runs:
        return None
    lead = ["Means over the iterations since the last record."]
    for name, (_, record) in records.items():
        done = runs[name][-1]["iteration"] if name in runs else 0
        last = record["settings"].get("train", {}).get("iterations", 0)
        if done < last:
            lead.append(f"{name} is not finished: {done:,} of {last:,} iterations so far.")
    return Section(
        "training", "Training", " ".join(lead), [BLOCKS.charts(charts.training_curves(runs, look))]
    )


def paper(folder: Path) -> Section | None:
    """Lay out the paper's tables that runs in `folder` gave figures for, beside what baselines published.

    None if there is no such table.
    """
    filled = tables.filled(folder)
    ours = [table for table in filled if any(row.ours and row.ours.figures for row in table.rows)]
    if not ours:
        return None
    return Section(
        "paper",
        "The paper’s tables",
        "In percent: the paper’s figure; what the authors of a baseline published themselves; ours, from "
        "runs in this folder by the recipe of the row.",
        [_paper_table(table) for table in ours],
    )


def _paper_table(table: tables.PaperTable) -> Markup:
    notes: dict[str, int] = {}
    rows = []
    for row in table.rows:
        remarks = [row.published.source] if row.published else []
        remarks += ["; ".join(["ours: " + row.ours.folder, *row.ours.differences])] if row.ours else []
        marks = [notes.setdefault(remark, len(notes) + 1) for remark in remarks]
        cells = [" ".join([row.name, *(f"[{mark}]" for mark in marks)])]
        beside = [(row.paper, NOTHING), (row.published.figures if row.published else {}, NOTHING)]
        beside.append((row.ours.figures if row.ours else {}, tables.NOT_RUN if row.recipe else NOTHING))
        for column in table.columns:
            cells += [f"{figures[column]:.2f}" if column in figures else none for figures, none in beside]
        rows.append(cells)
    head = ["", *("paper", "published", "ours") * len(table.columns)]
    groups = [("", 1), *((tables.COLUMNS[column].title, 3) for column in table.columns)]
    marked = [f"[{number}] {note}." for note, number in notes.items()]
    return BLOCKS.table(head, rows, f"Table {table.number}. {table.title}", marked, groups)


def settings(runs: Mapping[str, tuple[Path, Mapping[str, Any]]]) -> Section | None:
    """Lay out the settings of runs, name -> path and content of run.json, side by side; None without runs."""
    if not runs:
        return None
    flat: dict[str, dict[str, str]] = {}
    changes = []
    for name, (_, record) in runs.items():
        changes += [f"{name}: {words}" for words in run_record.told(record.get("changes", []))]
        flat[name] = {
            f"{part}.{key}": _value(value)
            for part, values in record["settings"].items()
            for key, value in values.items()
        }
    keys = dict.fromkeys(key for values in flat.values() for key in values)
    rows = [[key, *(values.get(key, NOTHING) for values in flat.values())] for key in keys]
    return Section("settings", "Settings", "; ".join(changes), [BLOCKS.table(["", *flat], rows, prose=True)])


def provenance(models: Mapping[str, Mapping[str, Any]], records: Mapping[str, Mapping[str, Any]]) -> Section:
    """Lay out where results come from.

    `models` are title of a model -> its origin; `records` are title of a result -> what `latse.provenance`,
    or the run.json of a training, says of it.
    """
    keys = [key for key in ORIGINS if any(origin.get(key) is not None for origin in models.values())]
    rows = [[title, *(_value(origin.get(key)) for key in keys)] for title, origin in models.items()]
    table = [BLOCKS.table(["model", *keys], rows, prose=True)] if rows else []
    cards = BLOCKS.cards([(title, [*_facts(record)]) for title, record in records.items()])
    return Section("provenance", "Provenance", "", [*table, cards])


def _facts(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key in FACTS:
        value = record.get(key)
        if isinstance(value, dict):
            value = ", ".join(f"{name} {_value(part)}" for name, part in value.items() if part is not None)
        if value not in (None, ""):
            yield key, _value(value)


def _key(title: str, look: Mapping[str, Look]) -> Markup:
    return BLOCKS.key(look[title], title)


def _value(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_value, value))
    if isinstance(value, (bool, type(None))):
        return {True: "yes", False: "no", None: NOTHING}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


def _address(path: Path) -> str:
    if path.suffix not in MEDIA:
        raise LatseError(f"{path}: a picture of the report must be one of {', '.join(MEDIA)}")
    with explained(f"cannot read {path}"):
        content = path.read_bytes()
    return f"data:{MEDIA[path.suffix]};base64,{base64.b64encode(content).decode()}"
