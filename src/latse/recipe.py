"""Recipes: YAML files over a checked default, one per experiment.

A recipe names only what differs from the default below, which is the paper's §4.1. The key `base` names
another recipe (relative to the file) that is read first.
"""

from __future__ import annotations

import contextlib
import math
import os
from pathlib import Path
from typing import Any, Iterable

import yaml
from yacs.config import CfgNode

import latse.recipes
from latse.errors import LatseError
from latse.symbols import encoder, margins
from latse.symbols.decoder import WIDTHS

KVSTORES = ("local", "device", "nccl")
SHIPPED = Path(latse.recipes.__file__).parent
# What the large arrays of a training graph are computed in: `latse.train.precision`.
SINGLE, HALF, EMULATED = "float32", "float16", "float16_emulated"
PRECISIONS = (SINGLE, HALF, EMULATED)
DYNAMIC = "dynamic"
LARGEST_SCALE = 2.0**24
SCHEDULES = ("step", "cosine", "poly", "linear", "constant")


def default() -> CfgNode:
    """Return the default recipe: every key with its type and the paper's value (§4.1)."""
    recipe = CfgNode()
    # encoder.name: one of latse.symbols.encoder.ENCODERS; dropout before the last fully-connected layer.
    recipe.encoder = CfgNode({"name": "resnet50", "dropout": 0.4})
    # margin.name: one of latse.symbols.margins.MARGINS, or FILE.py:CLASS, the file relative to the recipe's;
    # beside it that margin's parameters (s, a, b, m1, …).
    recipe.margin = CfgNode({"name": "linearface"}, new_allowed=True)
    # Weights of what spreads the class centres, 0 for none.
    recipe.regularisers = CfgNode(dict.fromkeys(margins.REGULARISERS, 0.0))
    # The generative part; widths: channels of the decoder's stages; momentum: that of the mean face, eq. 12.
    recipe.decoder = CfgNode(
        {
            "enabled": False,
            "widths": [*WIDTHS],
            "l1_weight": 1.0,
            "similarity_weight": 1.0,
            "momentum": 0.9,
        }
    )
    # filter.k: None for no filter. gate_losses: a refused sample teaches nothing at all. refused_in_mean: it
    # touches the mean face of its label nevertheless.
    recipe.filter = CfgNode({"k": None, "gate_losses": False, "refused_in_mean": False})
    recipe.train = CfgNode(
        {
            "batch_size": 768,  # over all devices
            "images_per_person": 1,  # that stand together in a batch; 1: images come in any order
            "iterations": 24000,
            "momentum": 0.9,
            "weight_decay": 5e-4,
            "statistics_momentum": 0.9,  # of the moving statistics of batch normalisation
            "kvstore": "local",
            "precision": "float32",  # of the large arrays, one of PRECISIONS
            "loss_scale": "dynamic",  # below float32; or a power of two
            "memory_plan": False,
            "checkpoint_every": 1000,  # iterations
            "log_every": 20,  # iterations
        }
    )
    # steps and factor count for mode `step`; warmup: iterations over which the rate rises linearly from 0.
    recipe.schedule = CfgNode(
        {
            "mode": "step",
            "learning_rate": 0.1,
            "steps": [10000, 16000, 20000, 22000],
            "factor": 0.1,
            "warmup": 0,
        }
    )
    return recipe


def load(path: str | os.PathLike, overrides: Iterable[str] = ()) -> CfgNode:
    """Read a recipe and check it.

    Parameters
    ----------
    path : path
        The YAML file.
    overrides : iterable of str
        `section.key=value`, the value in YAML, as `--set` of the command line takes them.

    Returns
    -------
    CfgNode
        Every key of `default` and every parameter of the margin, frozen.

    Raises
    ------
    LatseError
        For a missing or malformed file, an unknown key, a wrong type, or a value out of range; the sentence
        names file and key.
    """
    recipe = default()
    for file, content in _chain(Path(path)):
        _merge(recipe, content, str(file))
    for override in overrides:
        _merge(recipe, _parsed(override), "--set")
    _check(recipe, str(path))
    for key, value in margins.parameters(recipe.margin.name).items():
        recipe.margin.setdefault(key, value)
    recipe.freeze()
    return recipe


def as_dict(recipe: CfgNode) -> dict[str, Any]:
    """Return a recipe as plain dictionaries, as they are kept in run.json."""
    return {key: as_dict(value) if isinstance(value, CfgNode) else value for key, value in recipe.items()}


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
        another margin of the shipped recipe has are left out.
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


def _chain(path: Path, above: tuple[Path, ...] = ()) -> list[tuple[Path, dict]]:
    """Return (file, content) of the recipe and its bases, the innermost base first."""
    try:
        content = yaml.safe_load(path.read_bytes()) or {}
    except OSError as error:
        raise LatseError(f"cannot read the recipe {path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise LatseError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if path.resolve() in above:
        raise LatseError(f"{path}: the recipe is its own base")
    if not isinstance(content, dict):
        raise LatseError(f"{path} must hold keys with values")
    base = content.pop("base", None)
    below = _chain(path.parent / str(base), (*above, path.resolve())) if base is not None else []
    return [*below, (path, _with_whole_path(content, path.parent))]


def _parsed(override: str) -> dict:
    key, equals, value = override.partition("=")
    section, dot, name = key.partition(".")
    if not (equals and dot and section and name):
        raise LatseError(f"--set {override}: write section.key=value")
    try:
        return _with_whole_path({section: {name: yaml.safe_load(value)}}, Path())
    except yaml.YAMLError as error:
        raise LatseError(f"--set {override}: the value is not YAML") from error


def _with_whole_path(content: dict, folder: Path) -> dict:
    """Return the recipe, the whole path in the name of a margin that is FILE.py:CLASS from `folder`."""
    margin = content.get("margin")
    name = margin.get("name") if isinstance(margin, dict) else None
    if not (isinstance(name, str) and margins.source(name)):
        return content
    return {**content, "margin": {**margin, "name": str(folder.resolve() / name)}}


def _merge(recipe: CfgNode, content: dict, source: str) -> None:
    for section, values in content.items():
        if section not in recipe:
            raise LatseError(f"{source}: unknown key '{section}'; there are {', '.join(recipe)}")
        if not isinstance(values, dict):
            raise LatseError(f"{source}: '{section}' must hold keys with values")
        if section == "margin" and values.get("name", recipe.margin.name) != recipe.margin.name:
            _forget_parameters(recipe.margin, values["name"])
        for key, value in values.items():
            _set(recipe[section], key, value, f"{source}: {section}.{key}")


def _forget_parameters(margin: CfgNode, other: Any) -> None:
    """Leave nothing but the scale, where the `other` margin has one: all else is this one's own."""
    stays = {"name"}
    with contextlib.suppress(LatseError):  # an unknown margin is named by the last check
        stays |= {"s"} & margins.parameters(str(other)).keys()
    for key in margin.keys() - stays:
        del margin[key]


def _set(section: CfgNode, key: str, value: Any, where: str) -> None:
    if key not in section and not (section.is_new_allowed() and isinstance(key, str)):
        raise LatseError(f"{where}: unknown key; there are {', '.join(section)}")
    expected = type(section.get(key, 0.0))
    if key == "loss_scale":  # a word or a number
        expected = str if value == DYNAMIC else float
    if expected is float:
        value = _as_float(value)
    if key == "k":  # None or a whole number
        expected = int if value is not None else type(None)
    if type(value) is not expected:
        raise LatseError(f"{where}: expected {expected.__name__}, found {value!r}")
    if expected is float and not math.isfinite(value):
        raise LatseError(f"{where} is {value}, must be finite")
    section[key] = value


def _as_float(value: Any) -> Any:
    """Return a whole number, or one like 5e-4, which YAML takes for text, as a float; all else as it is."""
    if type(value) in (int, str):
        with contextlib.suppress(ValueError, OverflowError):
            return float(value)
    return value


def _is_loss_scale(value: Any) -> bool:
    if value == DYNAMIC:
        return True
    return isinstance(value, float) and 1 <= value <= LARGEST_SCALE and math.frexp(value)[0] == 0.5


def _rise(steps: list) -> bool:
    return (
        all(type(step) is int for step in steps) and steps == sorted({*steps}) and min(steps, default=1) > 0
    )


def _are_widths(widths: list) -> bool:
    return len(widths) == len(WIDTHS) and all(type(width) is int and width >= 1 for width in widths)


def _check(recipe: CfgNode, source: str) -> None:
    """Raise LatseError for the first value that is out of range."""
    train, schedule, decoder = recipe.train, recipe.schedule, recipe.decoder
    rules = (
        ("encoder.name", recipe.encoder.name in encoder.ENCODERS, f"one of {', '.join(encoder.ENCODERS)}"),
        ("encoder.dropout", 0 <= recipe.encoder.dropout < 1, "in [0, 1)"),
        ("decoder.widths", _are_widths(decoder.widths), f"{len(WIDTHS)} whole numbers, each at least 1"),
        ("decoder.momentum", 0 <= decoder.momentum < 1, "in [0, 1)"),
        ("decoder.l1_weight", decoder.l1_weight >= 0, "at least 0"),
        ("decoder.similarity_weight", decoder.similarity_weight >= 0, "at least 0"),
        *(
            (f"regularisers.{name}", weight >= 0, "at least 0")
            for name, weight in recipe.regularisers.items()
        ),
        ("filter.k", recipe.filter.k is None or recipe.filter.k >= 1, "null or at least 1"),
        ("train.batch_size", train.batch_size >= 1, "at least 1"),
        (
            "train.images_per_person",
            train.images_per_person >= 1 and train.batch_size % train.images_per_person == 0,
            "at least 1 and divide train.batch_size",
        ),
        ("train.iterations", train.iterations >= 1, "at least 1"),
        ("train.momentum", 0 <= train.momentum < 1, "in [0, 1)"),
        ("train.weight_decay", train.weight_decay >= 0, "at least 0"),
        ("train.statistics_momentum", 0 <= train.statistics_momentum < 1, "in [0, 1)"),
        ("train.kvstore", train.kvstore in KVSTORES, f"one of {', '.join(KVSTORES)}"),
        (
            "train.precision",
            train.precision in PRECISIONS,
            f"one of {', '.join(PRECISIONS)}",
        ),
        (
            "train.loss_scale",
            _is_loss_scale(train.loss_scale),
            f"{DYNAMIC} or a power of two from 1 to {LARGEST_SCALE:.0f}",
        ),
        ("train.checkpoint_every", train.checkpoint_every >= 1, "at least 1"),
        ("train.log_every", train.log_every >= 1, "at least 1"),
        ("schedule.mode", schedule.mode in SCHEDULES, f"one of {', '.join(SCHEDULES)}"),
        ("schedule.learning_rate", schedule.learning_rate > 0, "positive"),
        ("schedule.factor", 0 < schedule.factor <= 1, "in (0, 1]"),
        (
            "schedule.warmup",
            schedule.warmup == 0 or 2 <= schedule.warmup < train.iterations,
            "0 or 2 to train.iterations - 1",
        ),
        ("schedule.steps", _rise(schedule.steps), "rising whole numbers from 1 on"),
    )
    for key, holds, requirement in rules:
        if not holds:
            section, name = key.split(".")
            raise LatseError(f"{source}: {key} is {recipe[section][name]!r}, must be {requirement}")
    try:
        margins.check(**recipe.margin)
    except LatseError as error:
        raise LatseError(f"{source}: margin: {error}") from error
