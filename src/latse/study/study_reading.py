"""The results of a study as they lie in a folder, without its data and models."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, Mapping

from latse.errors import LatseError
from latse.files import read_json
from latse.form import ANYTHING, NUMBER, NUMERAL, Each, Form, Maybe, Rows, check
from latse.study.study_claims import Results
from latse.study.study_file import Study
from latse.study.study_result import ASKED, SET, completed
from latse.study.study_table import flat

SAME = ("pairs", "identification")  # what the runs of a study are judged on
FORM: Form = {
    "asked": ASKED,
    "sets": Each(SET, least=1),
    "identification?": Maybe({"sizes": Each(ANYTHING, NUMERAL)}),
    "curve?": Maybe(Each(Rows(Maybe(NUMBER)))),
}


def read_results(study: Study, folder: Path) -> Results:
    """Return the results that are there, by row and seed, in the order of the study.

    Raises LatseError if there is no such folder, a file in it is damaged or of another run than its name
    says, its row has been changed since, or two results differ in what no row changes: in data, pairs, people
    to find or a section of the recipe.
    """
    if not folder.is_dir():
        raise LatseError(f"there is no folder {folder} of results: `latse study --results` fills it")
    found: dict[tuple[str, int], Mapping[str, Any]] = {}
    first, of_data = None, {}  # the latter by whether the people are the others
    for row, described in study.rows.items():
        for seed in study.seeds:
            path = folder / row / f"seed-{seed}.json"
            if not path.exists():
                continue
            content = read_json(path)
            check(path, content, FORM)
            asked = completed(content["asked"])
            first = first or (path, asked)
            beside = of_data.setdefault(described.others, (path, asked))
            changed = _changed(study, row, seed, asked)
            if changed:
                raise LatseError(f"{path} is of a run with other {', '.join(changed)} than the study's row")
            other = [key for key in SAME if asked.get(key) != first[1].get(key)]
            other += _other_settings(study, asked, first[1])
            if other:
                raise LatseError(f"{path} is of a run with other {', '.join(other)} than {first[0]}")
            if asked.get("data") != beside[1].get("data"):
                raise LatseError(f"{path} is of a run with other data than {beside[0]}")
            found[row, seed] = content
    return found


def _other_settings(study: Study, asked: Mapping[str, Any], first: Mapping[str, Any]) -> list[str]:
    """Return the sections of the recipe that neither row changes and that differ nevertheless."""
    changed = {*study.rows[asked["row"]].changes, *study.rows[first["row"]].changes}
    settings = asked["settings"], first["settings"]
    names = dict.fromkeys(name for one in settings for name in one if name not in changed)
    return [name for name in names if settings[0].get(name) != settings[1].get(name)]


def _changed(study: Study, row: str, seed: int, asked: Mapping[str, Any]) -> list[str]:
    """Return what a row says otherwise than what was asked of a run."""
    said = {**flat(study.rows[row]), "row": row, "seed": seed}
    said["noise"] = study.noise.get(said.get("noise"))
    said.pop("others", None)  # the digest of the data tells
    return [key for key, value in said.items() if not _is(value, _asked(asked, key))]


def _asked(asked: Mapping[str, Any], key: str) -> Any:
    """Return what was asked for of `section.key`, of the row's, or of its teacher or start: their names."""
    section, _, name = key.partition(".")
    if name:
        return asked["settings"].get(section, {}).get(name)
    value = asked.get(key)
    if key in ("teacher", "start") and isinstance(value, Mapping):
        return value.get("row", value.get("model"))
    return value


def _is(value: Any, asked: Any) -> bool:
    """Tell whether a value of a study is what was asked for; of a file, whose folder may differ, the name."""
    if isinstance(value, str) and isinstance(asked, str):
        return Path(value).name == Path(asked).name
    if isinstance(value, str) and isinstance(asked, float):  # YAML takes 5e-2 for a text, a recipe does not
        with contextlib.suppress(ValueError):
            return float(value) == asked
    return value == asked
