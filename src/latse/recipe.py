"""Recipes: YAML files over a checked default, one per experiment.

A recipe names only what differs from the defaults of `latse.recipe_keys`. Its key `base` names another recipe
that is read first: a file, the path relative to its own, or a shipped one.
"""

from __future__ import annotations

import contextlib
import copy
import math
import os
import re
from pathlib import Path
from typing import Any, Iterable, Iterator, Mapping, NamedTuple

import numpy as np
import yaml
from yacs.config import CfgNode

import latse.recipes
from latse.arguments import SET
from latse.errors import MOST, LatseError, nearest
from latse.files import read_text
from latse.own_class import source
from latse.recipe_keys import KEYS, OPEN, SHARED

SHIPPED = Path(latse.recipes.__file__).parent
STUDIES = SHIPPED / "studies"
FLOAT32 = np.finfo(np.float32)
DEFAULT = "the default"  # what sets a value, beside files and options


def default() -> CfgNode:
    """Return the default recipe: every key of `KEYS` with its default."""
    recipe = CfgNode()
    for key in KEYS.values():
        section, name = key.name.split(".")
        recipe.setdefault(section, CfgNode())[name] = copy.copy(key.default)
    return recipe


def load(
    path: str | os.PathLike,
    overrides: Iterable[str] = (),
    options: Mapping[str, tuple[str, Any]] | None = None,
) -> CfgNode:
    """Read a recipe and check it.

    Parameters
    ----------
    path : path
        The YAML file, or the name of a shipped recipe.
    overrides : iterable of str
        `section.key=value`, the value in YAML, as `--set` of the command line takes them.
    options : mapping of str to (str, object), optional
        Another option of a command, as `--kvstore` -> the `section.key` that it sets, and its value; None: it
        was not given.

    Returns
    -------
    CfgNode
        Every key of `KEYS` and every parameter of encoder, margin and selection, frozen.

    Raises
    ------
    LatseError
        For a missing or malformed file, an unknown key, a wrong type, or a value out of range; the sentence
        names the key and what set it: the file, its base, `--set` or another option.
    """
    return traced(path, overrides, options)[0]


def traced(
    path: str | os.PathLike,
    overrides: Iterable[str] = (),
    options: Mapping[str, tuple[str, Any]] | None = None,
) -> tuple[CfgNode, dict[str, str]]:
    """Read a recipe as `load` does; return it, and `section.key` -> what set it, for all but defaults."""
    recipe, origins = default(), {}
    given = (_layer(name, *setting) for name, setting in (options or {}).items() if setting[1] is not None)
    for layer in (*_chain(path, Path(), ()), *map(_parsed, overrides), *given):
        _merge(recipe, layer, origins)
    _check(recipe, origins)
    for section, classes in OPEN.items():
        for key, value in classes.parameters(recipe[section].name).items():
            recipe[section].setdefault(key, value)
    recipe.freeze()
    return recipe, origins


def find(name: str | os.PathLike, folder: Path = Path(), shipped: Path = SHIPPED) -> Path:
    """Return the file of that path from `folder`, or else the one of that name among the `shipped`."""
    path, by_name = folder / name, shipped / f"{name}.yaml"
    return by_name if by_name.is_file() and not path.is_file() else path


def nothing(name: str | os.PathLike, shipped: Path = SHIPPED) -> str:
    """Return what a sentence says of a name for which `find` found no file."""
    hint = nearest(str(name), (file.stem for file in shipped.glob("*.yaml")))
    return f"there is no such file; `latse recipes` lists those that go by name{hint}"


def read_yaml(path: str | os.PathLike, title: str) -> Any:
    """Return the content of a YAML file; raise LatseError if it is missing or, under its `title`, is none."""
    # PyYAML stumbles over such a tab.
    return _loaded(re.sub(r"[ \t]+$", "", read_text(path), flags=re.MULTILINE), title)


def in_yaml(value: Any) -> str:
    """Return a value of a YAML file in one line, as its author may have written it."""
    text = yaml.safe_dump([value], default_flow_style=True, allow_unicode=True, width=math.inf)
    return " ".join(text.split())[1:-1]


def as_dict(recipe: CfgNode) -> dict[str, Any]:
    """Return a recipe as plain dictionaries, as they are kept in run.json."""
    return {key: as_dict(value) if isinstance(value, CfgNode) else value for key, value in recipe.items()}


def completed(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return settings that an older version has kept, with the default of each key that it did not have."""
    defaults = as_dict(default())
    return {name: {**defaults.get(name, {}), **settings.get(name, {})} for name in {**defaults, **settings}}


def changed(name: str, recipe: CfgNode) -> dict[str, Any] | None:
    """Return what a recipe has otherwise than the shipped one of the same name.

    Parameters
    ----------
    name : str
        Name of a file in recipes/ without its ending.
    recipe : CfgNode
        As `load` returns it.

    Returns
    -------
    dict or None
        `section.key` -> the recipe's value; None if no recipe of that name is shipped. Parameters that only
        another encoder or margin of the shipped recipe has are left out.
    """
    path = SHIPPED / f"{name}.yaml"
    if not path.is_file():
        return None
    shipped = load(path)
    return {
        f"{section}.{key}": value
        for section, values in as_dict(recipe).items()
        for key, value in values.items()
        if key not in shipped[section] or shipped[section][key] != value
    }


def _loaded(text: str, title: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        reason = (
            f"line {error.problem_mark.line + 1}: {error.problem}" if error.problem_mark else error.problem
        )
    except yaml.YAMLError as error:  # a character that no YAML has
        reason = str(error).splitlines()[0]
    except RecursionError:
        reason = "it is nested too deeply"
    except (ValueError, KeyError, TypeError, AttributeError):  # of PyYAML for 2001-02-31 or !!bool perhaps
        reason = "it holds a date that there is not, or a value that is not as its tag says"
    raise LatseError(f"{title} is not YAML: {reason}")


class _Layer(NamedTuple):
    """What one file or one option says: its title, where relative paths begin, section -> key -> value."""

    title: str
    folder: Path
    content: dict


def _chain(name: str | os.PathLike, folder: Path, above: tuple[Path, ...]) -> Iterator[_Layer]:
    """Yield the layers of a recipe, the innermost base first; `above` are the files that stand on it."""
    path = find(name, folder)
    title = f"{_title(path)} (base of {_title(above[-1])})" if above else _title(path)
    if not path.exists():
        raise LatseError(f"cannot read the recipe {title}: {nothing(name)}")
    content = read_yaml(path, title)
    content = {} if content is None else content  # an empty file
    if path.resolve() in [file.resolve() for file in above]:
        raise LatseError(f"{path}: the recipe is its own base")
    if not isinstance(content, dict):
        raise LatseError(f"{title} must hold keys with values")
    base = content.pop("base", None)
    if base is not None:
        if not isinstance(base, str):
            raise LatseError(f"{title}: base is {in_yaml(base)}, must be the name or the file of a recipe")
        yield from _chain(base, path.parent, (*above, path))
    yield _Layer(title, path.parent, content)


def _title(path: Path) -> str:
    return path.stem if path.parent == SHIPPED else str(path)


def _parsed(override: str) -> _Layer:
    key, equals, value = override.partition("=")
    section, dot, name = key.partition(".")
    if not (equals and dot and section and name):
        raise LatseError(f"{SET} {override}: write section.key=value")
    return _layer(SET, key, _loaded(value, f"{SET} {override}"))


def _layer(option: str, key: str, value: Any) -> _Layer:
    """Return what an option says of one `section.key`."""
    section, _, name = key.partition(".")
    return _Layer(option, Path(), {section: {name: value}})


def _merge(recipe: CfgNode, layer: _Layer, origins: dict[str, str]) -> None:
    for section, values in layer.content.items():
        if section not in recipe:
            there = f"there are {', '.join(recipe)}{nearest(str(section), recipe)}"
            raise LatseError(f"{layer.title}: unknown key '{in_yaml(section)}'; {there}")
        if not isinstance(values, dict):
            raise LatseError(f"{layer.title}: '{section}' must hold keys with values")
        placed = {key: _placed(value, layer.folder) for key, value in values.items()}
        if section in OPEN and placed.get("name", recipe[section].name) != recipe[section].name:
            # All but what is `SHARED`, where the other class has it, is this one's own.
            stays = {"name"}
            with contextlib.suppress(LatseError):  # an unknown class is named by the last check
                stays |= SHARED & OPEN[section].parameters(str(placed["name"])).keys()
            for key in recipe[section].keys() - stays:
                del recipe[section][key]
        for key, value in placed.items():
            recipe[section][key] = _typed(section, key, value, recipe, layer.title)
            origins[f"{section}.{key}"] = layer.title


def _placed(value: Any, folder: Path) -> Any:
    """Return `FILE.py:CLASS` with the whole path, the file being relative to `folder`; all else as it is."""
    if isinstance(value, dict):
        return {_placed(key, folder): weight for key, weight in value.items()}
    return str(folder.resolve() / value) if isinstance(value, str) and source(value) else value


def _typed(section: str, key: Any, value: Any, recipe: CfgNode, title: str) -> Any:
    """Return the value for a key, a whole number as a float where one is asked for."""
    where = f"{title}: {section}.{in_yaml(key)}"
    known = KEYS.get(f"{section}.{key}")
    if known is None and not (section in OPEN and isinstance(key, str)):
        there = f"there are {', '.join(recipe[section])}{nearest(f'{section}.{key}', KEYS)}"
        raise LatseError(f"{where}: unknown key; {there}")
    types, must = (known.types, known.must.says) if known else ((float,), "a number")
    if float in types and type(value) in (int, str):  # YAML takes 5e-4 for text
        with contextlib.suppress(ValueError, OverflowError):
            value = float(value)
    if type(value) not in types:
        raise LatseError(f"{where} is {in_yaml(value)}, must be {must}")
    for number in value if type(value) is list else [value]:
        if type(number) is int and abs(number) > MOST:
            raise LatseError(
                f"{where} is {in_yaml(value)}, must be {must}, and no number above {MOST} in size"
            )
    if type(value) is float and value and not FLOAT32.tiny <= abs(value) <= FLOAT32.max:
        size = f"from {FLOAT32.tiny:.2g} to {FLOAT32.max:.2g}"
        raise LatseError(f"{where} is {value}, must be 0 or {size} in size, as MXNet computes in float32")
    return value


def _check(recipe: CfgNode, origins: dict[str, str]) -> None:
    """Raise LatseError for the first value that is out of range, naming what set it."""
    values = {f"{section}.{key}": value for section in recipe for key, value in recipe[section].items()}
    set_by = {**dict.fromkeys(values, DEFAULT), **origins}
    for section, classes in OPEN.items():
        parameters = {}
        for key, value in recipe[section].items():  # the name first
            parameters[key] = value
            try:
                classes.check(**parameters)
            except LatseError as error:
                name = f"{section}.{key}"
                raise LatseError(f"{set_by[name]}: {name}: {error}") from error
    for name, key in KEYS.items():
        try:
            holds = key.must.holds(values[name], recipe)
        except LatseError as error:  # of a class that the value names
            raise LatseError(f"{set_by[name]}: {name}: {error}") from error
        if not holds:
            others = [
                f" ({other} is {in_yaml(values[other])}, set by {set_by[other]})"
                for other in KEYS
                if other in key.must.says
            ]
            must = f"must be {key.must.says}{''.join(others)}"
            raise LatseError(f"{set_by[name]}: {name} is {in_yaml(values[name])}, {must}")
