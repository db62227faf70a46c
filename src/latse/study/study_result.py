"""What is kept of a run: one small object, made of what the commands that made and judged it have written."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Mapping

import numpy as np

from latse import recipe as recipes
from latse.eval.figures import read_metrics
from latse.files import read_json
from latse.form import ANYTHING, COUNT, INTERVAL, NUMBER, TEXT, Each, Form, Maybe, check
from latse.train.metrics import COSTS
from latse.train.metrics import FILE as METRICS

MODEL = "model"  # its title
VERIFICATION, IDENTIFICATION = "verification.json", "identification.json"
INSPECTION, FILTER = "inspection.json", "filter.json"
POINTS = 20  # of a curve
RATES = Each(Maybe(NUMBER))
# What is kept of the judgement on one set. Its curves stay in the run's own folder.
SET: dict[str, Form] = {
    "accuracy": NUMBER,
    "auc?": Maybe(NUMBER),
    "eer?": Maybe(NUMBER),
    "tar_at_far?": RATES,
    "intervals?": Maybe(
        {
            "level": NUMBER,
            "samples": COUNT,
            "accuracy": INTERVAL,
            "auc": INTERVAL,
            "eer": INTERVAL,
            "tar_at_far": Each(INTERVAL),
        }
    ),
    "restoration?": Maybe(dict.fromkeys(("images", "ssim", "ssim_to_other", "ssim_of_average"), NUMBER)),
}
RANKED: Form = {**dict.fromkeys(("probes", "mates", "distractors"), COUNT)}
SIZE: dict[str, Form] = {"rank_1": NUMBER, "rank_1_interval": INTERVAL}
# What decided a run: `latse.study.study_run.Run.asked`.
_NEEDED: dict[str, Form] = {"settings?": Each(Each(ANYTHING))}
_NEEDED.update(dict.fromkeys(("teacher?", "start?"), Maybe(_NEEDED)))
ASKED: Form = {**_NEEDED, "row": TEXT, "seed": COUNT, "settings": Each(Each(ANYTHING))}
INSPECTED: dict[str, Form] = dict.fromkeys(("angles", "linear", "decoder"), Maybe(Each(ANYTHING)))
FILTERED: dict[str, Form] = {"kept": Each(ANYTHING), "truth": Maybe(Each(ANYTHING))}


def completed(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return what decided a run, keys of a recipe that an older version did not have at their defaults."""
    others = {key: asked[key] for key in ("teacher", "start") if "settings" in (asked.get(key) or {})}
    settings = recipes.completed(asked["settings"])
    return {**asked, **{key: completed(other) for key, other in others.items()}, "settings": settings}


def small(folder: Path) -> dict[str, Any]:
    """Return what is kept of the run in a folder.

    `provenance` of its judgement; `sets` by name; `identification`, `inspection` and `filter`, None
    where there is none; `metrics`, `curve` and `cost`, see `of_metrics`, if it was trained. Raises
    LatseError if a file is missing or damaged.
    """
    path = folder / VERIFICATION
    judged = read_json(path)
    check(path, judged, {"provenance": Each(ANYTHING), "sets": Each({"results": {MODEL: SET}}, least=1)})
    return {
        "provenance": judged["provenance"],
        "sets": {name: _kept(one["results"][MODEL], SET) for name, one in judged["sets"].items()},
        "identification": _identification(folder / IDENTIFICATION),
        "inspection": _rounded(_read_kept(folder / INSPECTION, INSPECTED)),
        "filter": _read_kept(folder / FILTER, FILTERED),
        **(of_metrics(read_metrics(folder / METRICS)) if (folder / METRICS).exists() else {}),
    }


def of_metrics(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what is kept of the lines of a metrics.jsonl, at least one.

    `metrics`, the last one; `curve`, by key the values of up to `POINTS` lines at even distances, the last
    among them; `cost` of all iterations: `cpu_seconds`, `wall_seconds` and `peak_megabytes`, None where the
    run has not noted it.
    """
    chosen = np.linspace(0, len(lines) - 1, min(POINTS, len(lines))).round().astype(int)
    keys = [key for key in lines[-1] if key not in (*COSTS, "epoch")]
    noted = {key: [line.get(key) for line in lines] for key in COSTS}
    known = {key: None if None in values else values for key, values in noted.items()}
    return {
        "metrics": lines[-1],
        "curve": {key: [_rounded(lines[at].get(key)) for at in chosen] for key in keys},
        "cost": {
            "cpu_seconds": known["cpu_seconds"] and sum(known["cpu_seconds"]),
            "wall_seconds": known["seconds"] and sum(known["seconds"]),
            "peak_megabytes": known["peak_megabytes"] and max(known["peak_megabytes"]),
        },
    }


def _kept(content: Mapping[str, Any], form: Mapping[str, Form]) -> dict[str, Any]:
    """Return what a form names of an object, at any depth."""
    kept = {}
    for name, part in form.items():
        value, inner = content.get(name.rstrip("?")), part.form if isinstance(part, Maybe) else part
        is_object = value is not None and isinstance(inner, Mapping)
        kept[name.rstrip("?")] = _kept(value, inner) if is_object else value
    return kept


def _read_kept(path: Path, form: Mapping[str, Form]) -> dict[str, Any] | None:
    """Return what a form names of a JSON file, None where it is not there."""
    if not path.exists():
        return None
    content = read_json(path)
    check(path, content, form)
    return _kept(content, form)


def _identification(path: Path) -> dict[str, Any] | None:
    """Return counts, and by number of distractors what share of mates is found first, with its interval."""
    ranked = _read_kept(path, RANKED)
    if ranked is None:
        return None
    content = read_json(path)
    check(path, content, {"models": {MODEL: {"sizes": Each(SIZE)}}})
    sizes = content["models"][MODEL]["sizes"]
    return {**ranked, "sizes": {size: _kept(found, SIZE) for size, found in sizes.items()}}


def _rounded(value: Any) -> Any:
    """Return a value with six digits of each number that is in it."""
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items()}
    return float(f"{value:.6g}") if isinstance(value, float) else value
