"""run.json: what decides a run, where it was made, and what was changed while it ran."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Mapping, Sequence

from yacs.config import CfgNode

from latse import recipe as recipes
from latse.data.shards.records import Shard
from latse.devices import contexts, describe
from latse.errors import LatseError
from latse.files import digest, read_json
from latse.form import ANYTHING, COUNT, TEXT, Each, Form, Maybe, Rows, check
from latse.models import checkpoint
from latse.models.run_folder import parse
from latse.own_class import source
from latse.recipe_keys import CHANGEABLE
from latse.runtime import versions
from latse.train.verdicts import Stored

FILE = "run.json"
_SETTINGS = {
    "settings": Each(Each(ANYTHING)),
    "changes?": Rows({"iteration": COUNT, "key": TEXT, "from": ANYTHING, "to": ANYTHING}),
}
# What readers of a run's results take from it.
FORM: Form = {
    "recipe": TEXT,
    **_SETTINGS,
    "data": {"people": COUNT},
    "changed?": Maybe(Each(ANYTHING)),
    "start?": Maybe(TEXT),
    "from?": {"start?": Maybe(TEXT)},
}
# A run goes on only where these are as they were, and of its settings all that is not `CHANGEABLE`.
DECISIVE = ("seed", "encoder", "margin", "selection", "losses", "data", "teacher", "rule", "start")


def record(args: argparse.Namespace, recipe: CfgNode, shard: Shard, stored: Stored | None) -> dict[str, Any]:
    """Return what run.json says of a run that begins: all that decides it, then where it was made."""
    return {
        "recipe": Path(args.recipe).stem,
        "seed": args.seed,
        "settings": _without_folders(recipes.as_dict(recipe)),
        "changes": [],
        "changed": recipes.changed(Path(args.recipe).stem, recipe),
        **own_files(recipe),
        "data": {"images": len(shard), "people": shard.classes, "digest": shard.digest()},
        "teacher": stored.teacher if stored else _parameters_digest(args.teacher),
        "rule": stored.rule if stored else _graph_digest(args.teacher),
        "start": _parameters_digest(args.start),
        "from": {key: getattr(args, key) for key in ("data", "teacher", "verdicts", "start")},
        "versions": versions(),
        "device": describe(contexts(args)),
    }


def own_files(recipe: CfgNode) -> dict[str, Any]:
    """Return the digests of the files of a user's own `encoder`, `margin`, `selection` and `losses`.

    None stands for a shipped one, and for no losses. Raises LatseError if a file cannot be read.
    """
    return {
        "encoder": _own_digest(recipe.encoder.name),
        "margin": _own_digest(recipe.margin.name),
        "selection": _own_digest(recipe.selection.name or ""),
        "losses": [*map(_own_digest, recipe.decoder.losses)] or None,
    }


def read(folder: Path) -> dict[str, Any] | None:
    """Return the record of the run in `folder`, None if none has begun; raise LatseError if it is damaged.

    Keys of a recipe that an older version did not have are at their defaults.
    """
    path = folder / FILE
    if not path.exists():
        return None
    found = read_json(path)
    check(path, found, _SETTINGS)
    return {**found, "settings": recipes.completed(found["settings"])}


def gone_on(folder: Path, old: Mapping[str, Any], new: Mapping[str, Any], iteration: int) -> dict[str, Any]:
    """Return the record of the `old` run in `folder`, which goes on after an iteration as the `new` one says.

    Its `changes` are those of the run up to there and those that are new. Raises LatseError if `new` is
    another run, or `old` is damaged.
    """
    check(folder / FILE, old, _SETTINGS)
    before, earlier = _settings_after(iteration, old)
    now = _flat(new["settings"])
    other = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    for key in other:
        if key not in CHANGEABLE:
            what = f"{key}: {_difference(before.get(key), now.get(key))}"
            raise LatseError(f"{folder} holds a run with other settings ({what}): choose another --out")
    old = {"rule": new["rule"], **old}  # a run of an older version does not say it
    for key in DECISIVE:
        if old.get(key) != new[key]:
            raise LatseError(
                f"{folder} holds a run with another {key} ({_difference(old.get(key), new[key])}): "
                "choose another --out"
            )
    later = [
        {"iteration": iteration, "key": key, "from": before.get(key), "to": now.get(key)} for key in other
    ]
    return {**new, "changes": [*earlier, *(later if iteration else [])]}


def refuse_others(folder: Path, recipe: CfgNode) -> None:
    """Raise LatseError unless every iteration of the run in `folder`, if there is one, is as in a recipe."""
    old = read(folder)
    if old and (old.get("settings") != _without_folders(recipes.as_dict(recipe)) or old.get("changes")):
        raise LatseError(f"{folder} holds a run that began with other settings: choose another --out")


def told(changes: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a few words for each change of a record."""
    return [
        f"{change['key']} {recipes.in_yaml(change['from'])} until iteration {change['iteration']}, then "
        f"{recipes.in_yaml(change['to'])}"
        for change in changes
    ]


def _settings_after(iteration: int, old: Mapping[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return a run's settings at an iteration, by section.key, and the changes up to there.

    A change at this iteration or a later one has changed nothing that the run goes on from.
    """
    settings, changes = _flat(old["settings"]), old.get("changes", [])
    for change in reversed(changes):
        if change["iteration"] >= iteration:
            settings[change["key"]] = change["from"]
    return settings, [change for change in changes if change["iteration"] < iteration]


def _flat(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {
        f"{section}.{key}": value for section, values in settings.items() for key, value in values.items()
    }


def _without_folders(value: Any) -> Any:
    """Return settings whose FILE.py:CLASS has no folder: the file's digest counts, not its place."""
    if isinstance(value, dict):
        return {_without_folders(key): _without_folders(part) for key, part in value.items()}
    return Path(value).name if isinstance(value, str) and source(value) else value


def _parameters_digest(text: str | None) -> str | None:
    """Return the digest of a checkpoint's parameters, None for no checkpoint."""
    return text and digest(checkpoint.parameters_path(*parse(text)))


def _graph_digest(text: str | None) -> str | None:
    """Return the digest of a checkpoint's graph, None for no checkpoint."""
    return text and digest(checkpoint.symbol_path(parse(text)[0]))


def _own_digest(name: str) -> str | None:
    """Return the digest of the file of a user's own class, None for a shipped one."""
    file = source(name)
    return file and digest(file)


def _difference(old: object, new: object) -> str:
    """Return the first place where two values differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in {**old, **new}:
            if old.get(key) != new.get(key):
                return f"{key}: {_difference(old.get(key), new.get(key))}"
    return f"{recipes.in_yaml(old)}, not {recipes.in_yaml(new)}"
