"""Every key of a recipe: the paper's value (§4.1), what it may be and what it decides."""

from __future__ import annotations

import math
from typing import Any, Callable, Iterable, NamedTuple

from yacs.config import CfgNode

from latse.arguments import ASYNCHRONOUS, KVSTORES, SYNCHRONOUS
from latse.own_class import source
from latse.symbols import encoders, losses, margins, selection
from latse.symbols.decoder import WIDEST, WIDTHS

# What the large arrays of a training graph are computed in: `latse.train.precision`.
SINGLE, HALF, EMULATED = "float32", "float16", "float16_emulated"
PRECISIONS = (SINGLE, HALF, EMULATED)
DYNAMIC = "dynamic"
LARGEST_SCALE = 2.0**24
ALL = "all"
STOP, SKIP = "stop", "skip"
DENSE, SAMPLED = "dense", "sampled"
SCHEDULES = ("step", "cosine", "poly", "linear", "constant")
# Sections whose key `name` chooses a class; their other keys are parameters of that class, all numbers.
OPEN = {"encoder": encoders, "margin": margins, "selection": selection}
SHARED = {"dropout", "s"}  # those that mean the same in every class that has them


class Rule(NamedTuple):
    """What a value must be: in words after "must be", type and range, and whether (value, recipe) obeys.

    Only values of the key's types are tried.
    """

    says: str
    holds: Callable[[Any, CfgNode], bool]


class Key(NamedTuple):
    """One key of a recipe: a line of `KEYS` is all that a new one needs.

    Attributes
    ----------
    name : str
        `section.key`.
    default : object
        The value where a recipe says nothing; the paper's (§4.1) where it gives one.
    meaning : str
        What the key decides, for docs/recipes.md.
    must : Rule
        What a value must be. Where its words name another key, an error says that key's value too.
    others : tuple of type
        Types that a value may have beside the default's.
    """

    name: str
    default: Any
    meaning: str
    must: Rule
    others: tuple[type, ...] = ()

    @property
    def types(self) -> tuple[type, ...]:
        """The types that a value may have."""
        return (type(self.default), *self.others)


def at_least(lowest: float) -> Rule:
    """Return the rule of a number that is `lowest` or more, a whole one where `lowest` is an int."""
    kind = "whole number" if isinstance(lowest, int) else "number"
    return Rule(f"a {kind} of at least {lowest:g}", lambda value, _: value >= lowest)


def one_of(names: Iterable[str]) -> Rule:
    """Return the rule of a word that is one of `names`."""
    return Rule(f"one of {', '.join(names)}", lambda value, _: value in names)


def _is_compression(value: float | None, recipe: CfgNode) -> bool:
    if value is None:
        return True
    return value > 0 and recipe.train.kvstore in SYNCHRONOUS and _is_plain(recipe)


def _is_kvstore(name: str, recipe: CfgNode) -> bool:
    return name in KVSTORES and (name != ASYNCHRONOUS or _is_plain(recipe))


def _is_plain(recipe: CfgNode) -> bool:
    """Tell whether the parameters are as MXNet's servers handle them in every mode."""
    return (recipe.head.kind, recipe.train.precision) == (DENSE, SINGLE)


def _is_loss_scale(value: Any, _: CfgNode) -> bool:
    return value == DYNAMIC or (
        isinstance(value, float) and 1 <= value <= LARGEST_SCALE and math.frexp(value)[0] == 0.5
    )


def _are_widths(widths: list, _: CfgNode) -> bool:
    return len(widths) == len(WIDTHS) and all(type(width) is int and 1 <= width <= WIDEST for width in widths)


def _says_what_stays(keep: Any, recipe: CfgNode) -> bool:
    if isinstance(keep, list):
        return bool(keep) and _rises(keep, recipe)
    return keep == ALL or (isinstance(keep, int) and keep >= 1)


def _rises(steps: list, _: CfgNode) -> bool:
    return (
        all(type(step) is int for step in steps) and steps == sorted({*steps}) and min(steps, default=1) > 0
    )


def _are_own_losses(weights: dict, _: CfgNode) -> bool:
    return all(
        type(weight) in (int, float) and 0 <= weight < math.inf and source(str(name)) and losses.create(name)
        for name, weight in weights.items()
    )


SWITCH = Rule("true or false", lambda *_: True)
NAME = Rule("a name that `latse recipes --keys` lists, or FILE.py:CLASS", lambda *_: True)  # see `OPEN`
SELECTION = Rule(
    "null with decoder.enabled, filter.k or a margin.name that remembers something from batch to batch, else "
    "also a name of `latse recipes --keys` or FILE.py:CLASS",
    lambda name, recipe: (
        name is None
        or not (recipe.decoder.enabled or recipe.filter.k is not None or margins.remembers(**recipe.margin))
    ),
)
FRACTION = Rule("a number in [0, 1)", lambda value, _: 0 <= value < 1)
FACTOR = Rule("a number in (0, 1]", lambda value, _: 0 < value <= 1)
POSITIVE = Rule("a positive number", lambda value, _: value > 0)
NOT_NEGATIVE = at_least(0.0)
STAGES = Rule(f"a list of {len(WIDTHS)} whole numbers, each from 1 to {WIDEST}", _are_widths)
RISING = Rule("a list of rising whole numbers from 1 on", _rises)
OWN_LOSSES = Rule("FILE.py:CLASS, each with a weight of at least 0", _are_own_losses)
KEEP = Rule(f"{ALL}, {at_least(1).says} or {RISING.says}", _says_what_stays)
COUNT = Rule(f"null or {at_least(1).says}", lambda value, _: value is None or value >= 1)
SCALE = Rule(f"{DYNAMIC} or a power of two from 1 to {LARGEST_SCALE:.0f}", _is_loss_scale)
COMPRESSION = Rule(
    f"null or, with train.kvstore {' or '.join(SYNCHRONOUS)}, head.kind {DENSE} and train.precision "
    f"{SINGLE}, a positive number",
    _is_compression,
)
KVSTORE = Rule(
    f"one of {', '.join(KVSTORES)}; {ASYNCHRONOUS} only with head.kind {DENSE} and train.precision {SINGLE}",
    _is_kvstore,
)
DIVISOR = Rule(
    "a whole number of at least 1 that divides train.batch_size",
    lambda value, recipe: value >= 1 and recipe.train.batch_size % value == 0,
)
BEFORE_END = Rule(
    "a whole number from 0 to train.iterations - 1",
    lambda value, recipe: 0 <= value < recipe.train.iterations,
)

_REGULARISERS = [
    Key(
        f"regularisers.{name}",
        0.0,
        f"Weight of `{kind.__name__}`, which spreads the class centres.",
        NOT_NEGATIVE,
    )
    for name, kind in margins.REGULARISERS.items()
]
_KEYS = [
    Key("encoder.name", "resnet50", "Network that embeds a face.", NAME),
    Key("margin.name", "linearface", "Loss of the embeddings.", NAME),
    Key(
        "head.kind",
        DENSE,
        "Whether the loss compares all people or, `sampled`, those of the batch and a sample of the others.",
        Rule(
            f"{DENSE}, or with train.precision {SINGLE} also {SAMPLED}",
            lambda value, recipe: value == DENSE or (value == SAMPLED and recipe.train.precision == SINGLE),
        ),
    ),
    Key(
        "head.rate",
        0.1,
        "Kind `sampled`: which share of the people the loss compares, those of the batch among them.",
        Rule("a number in (0, 1]", lambda value, _: 0 < value <= 1),
    ),
    *_REGULARISERS,
    Key("decoder.enabled", False, "Train a decoder, which draws the mean face of each person.", SWITCH),
    Key("decoder.widths", [*WIDTHS], "Channels of the decoder's stages, the first stage first.", STAGES),
    Key("decoder.l1_weight", 1.0, "Weight of the mean absolute error (eq. 14).", NOT_NEGATIVE),
    Key("decoder.similarity_weight", 1.0, "Weight of (1 - SSIM)/2 (eq. 13).", NOT_NEGATIVE),
    Key("decoder.losses", {}, "Further losses of the generated face, with weights.", OWN_LOSSES),
    Key("decoder.momentum", 0.9, "Momentum of a person's mean face (eq. 12).", FRACTION),
    Key(
        "decoder.mirrored_in_mean",
        True,
        "An image moves the mean face as the network sees it, perhaps mirrored; false: as the set holds it.",
        SWITCH,
    ),
    Key("filter.k", None, "Keep samples whose label is in the teacher's top `k`; null: all.", COUNT, (int,)),
    Key("filter.gate_losses", False, "A refused sample trains neither classifier nor decoder.", SWITCH),
    Key("filter.refused_in_mean", False, "A refused sample still moves the mean face of its label.", SWITCH),
    Key("selection.name", None, "Strategy by which losses select samples; null: none.", SELECTION, (str,)),
    Key("train.batch_size", 768, "Images in an iteration, over all devices.", at_least(1)),
    Key("train.images_per_person", 1, "Images of a person together in a batch; 1: in any order.", DIVISOR),
    Key("train.iterations", 24000, "Iterations of the whole run.", at_least(1)),
    Key("train.momentum", 0.9, "Momentum of SGD.", FRACTION),
    Key("train.weight_decay", 5e-4, "Weight decay of SGD.", NOT_NEGATIVE),
    Key(
        "train.statistics_momentum",
        0.9,
        "Momentum of batch normalisation's moving statistics, to which it rises from 0.",
        FRACTION,
    ),
    Key("train.kvstore", "local", "How devices share gradients.", KVSTORE),
    Key(
        "train.compression_threshold",
        None,
        "The t of gradients that are sent as -t, 0 or t, and the rest of them later; null: sent whole.",
        COMPRESSION,
        (float,),
    ),
    Key("train.precision", SINGLE, "What the large arrays are computed in.", one_of(PRECISIONS)),
    Key("train.loss_scale", DYNAMIC, "Factor of the loss where precision is not float32.", SCALE, (float,)),
    Key(
        "train.not_finite",
        STOP,
        "What comes of a batch whose loss is no finite number: the run stops, or goes on without it.",
        one_of((STOP, SKIP)),
    ),
    Key("train.memory_plan", False, "Train with the memory plan of least memory.", SWITCH),
    Key("train.checkpoint_every", 1000, "Iterations between checkpoints.", at_least(1)),
    Key("train.keep", ALL, "Checkpoints that stay: `all`, the newest N, or a list.", KEEP, (int, list)),
    Key("train.log_every", 20, "Iterations between lines of the log.", at_least(1)),
    Key("schedule.mode", "step", "How the learning rate falls.", one_of(SCHEDULES)),
    Key("schedule.learning_rate", 0.1, "The highest learning rate.", POSITIVE),
    Key("schedule.steps", [10000, 16000, 20000, 22000], "Mode `step`: when the rate falls.", RISING),
    Key("schedule.factor", 0.1, "Mode `step`: the rate after a fall over that before.", FACTOR),
    Key("schedule.warmup", 0, "Iterations over which the rate rises from 0.", BEFORE_END),
]  # fmt: skip
KEYS = {key.name: key for key in _KEYS}
# What a run that goes on may have otherwise than it began: no array has another shape or meaning for it.
CHANGEABLE = {name for name in KEYS if name.startswith("schedule.")} | {
    f"train.{name}"
    for name in (
        "iterations",
        "kvstore",
        "compression_threshold",
        "not_finite",
        "loss_scale",
        "checkpoint_every",
        "keep",
        "log_every",
    )
}
