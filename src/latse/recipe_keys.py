"""Every key of a recipe: its type, the paper's value (§4.1), what it may be and what it decides."""

from __future__ import annotations

import math
from typing import Any, Callable, Iterable, NamedTuple

from yacs.config import CfgNode

from latse.arguments import KVSTORES
from latse.own_class import source
from latse.symbols import encoders, losses, margins
from latse.symbols.decoder import WIDTHS

# What the large arrays of a training graph are computed in: `latse.train.precision`.
SINGLE, HALF, EMULATED = "float32", "float16", "float16_emulated"
PRECISIONS = (SINGLE, HALF, EMULATED)
DYNAMIC = "dynamic"
LARGEST_SCALE = 2.0**24
ALL = "all"
SCHEDULES = ("step", "cosine", "poly", "linear", "constant")
# Sections whose key `name` chooses a class; their other keys are parameters of that class, all numbers.
OPEN = {"encoder": encoders, "margin": margins}
SHARED = {"dropout", "s"}  # those that mean the same in every class that has them


class Rule(NamedTuple):
    """What a value must be: in words after "must be", and whether (value, recipe) obeys."""

    says: str
    holds: Callable[[Any, CfgNode], bool]


ANY = Rule("any", lambda *_: True)


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
    must : Rule, default ANY
        What a value must be. Where its words name another key, an error says that key's value too.
    others : tuple of type
        Types that a value may have beside the default's.
    """

    name: str
    default: Any
    meaning: str
    must: Rule = ANY
    others: tuple[type, ...] = ()

    @property
    def types(self) -> dict[type, str]:
        """The types that a value may have, each with its name in YAML."""
        kinds = (type(self.default), *self.others)
        return {kind: {type(None): "null"}.get(kind, kind.__name__) for kind in kinds}


def at_least(lowest: float) -> Rule:
    """Return the rule of a number that is `lowest` or more."""
    return Rule(f"at least {lowest}", lambda value, _: value >= lowest)


def one_of(names: Iterable[str]) -> Rule:
    """Return the rule of a word that is one of `names`."""
    return Rule(f"one of {', '.join(names)}", lambda value, _: value in names)


def _is_loss_scale(value: Any, _: CfgNode) -> bool:
    return value == DYNAMIC or (
        isinstance(value, float) and 1 <= value <= LARGEST_SCALE and math.frexp(value)[0] == 0.5
    )


def _are_widths(widths: list, _: CfgNode) -> bool:
    return len(widths) == len(WIDTHS) and all(type(width) is int and width >= 1 for width in widths)


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


NAME = Rule("a name of the tables below", lambda *_: True)  # see `OPEN`
FRACTION = Rule("in [0, 1)", lambda value, _: 0 <= value < 1)
FACTOR = Rule("in (0, 1]", lambda value, _: 0 < value <= 1)
POSITIVE = Rule("positive", lambda value, _: value > 0)
STAGES = Rule(f"{len(WIDTHS)} whole numbers, each at least 1", _are_widths)
RISING = Rule("rising whole numbers from 1 on", _rises)
OWN_LOSSES = Rule("FILE.py:CLASS, each with a weight of at least 0", _are_own_losses)
KEEP = Rule(f"{ALL}, at least 1 or rising whole numbers from 1 on", _says_what_stays)
COUNT = Rule("null or at least 1", lambda value, _: value is None or value >= 1)
SCALE = Rule(f"{DYNAMIC} or a power of two from 1 to {LARGEST_SCALE:.0f}", _is_loss_scale)
DIVISOR = Rule(
    "at least 1 and divide train.batch_size",
    lambda value, recipe: value >= 1 and recipe.train.batch_size % value == 0,
)
BEFORE_END = Rule(
    "from 0 to train.iterations - 1",
    lambda value, recipe: 0 <= value < recipe.train.iterations,
)

_REGULARISERS = [
    Key(
        f"regularisers.{name}",
        0.0,
        f"Weight of `{kind.__name__}`, which spreads the class centres.",
        at_least(0),
    )
    for name, kind in margins.REGULARISERS.items()
]
_KEYS = [
    Key("encoder.name", "resnet50", "Network that embeds a face.", NAME),
    Key("margin.name", "linearface", "Loss of the embeddings.", NAME),
    *_REGULARISERS,
    Key("decoder.enabled", False, "Train a decoder, which draws the mean face of each person."),
    Key("decoder.widths", [*WIDTHS], "Channels of the decoder's stages, the first stage first.", STAGES),
    Key("decoder.l1_weight", 1.0, "Weight of the mean absolute error (eq. 14).", at_least(0)),
    Key("decoder.similarity_weight", 1.0, "Weight of (1 - SSIM)/2 (eq. 13).", at_least(0)),
    Key("decoder.losses", {}, "Further losses of the generated face, with weights.", OWN_LOSSES),
    Key("decoder.momentum", 0.9, "Momentum of a person's mean face (eq. 12).", FRACTION),
    Key("filter.k", None, "Keep samples whose label is in the teacher's top `k`; null: all.", COUNT, (int,)),
    Key("filter.gate_losses", False, "A refused sample trains neither classifier nor decoder."),
    Key("filter.refused_in_mean", False, "A refused sample still moves the mean face of its label."),
    Key("train.batch_size", 768, "Images in an iteration, over all devices.", at_least(1)),
    Key("train.images_per_person", 1, "Images of a person together in a batch; 1: in any order.", DIVISOR),
    Key("train.iterations", 24000, "Iterations of the whole run.", at_least(1)),
    Key("train.momentum", 0.9, "Momentum of SGD.", FRACTION),
    Key("train.weight_decay", 5e-4, "Weight decay of SGD.", at_least(0)),
    Key(
        "train.statistics_momentum",
        0.9,
        "Momentum of batch normalisation's moving statistics, to which it rises from 0.",
        FRACTION,
    ),
    Key("train.kvstore", "local", "How devices share gradients.", one_of(KVSTORES)),
    Key("train.precision", SINGLE, "What the large arrays are computed in.", one_of(PRECISIONS)),
    Key("train.loss_scale", DYNAMIC, "Factor of the loss where precision is not float32.", SCALE, (float,)),
    Key("train.memory_plan", False, "Train with the memory plan of least memory."),
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
    f"train.{name}" for name in ("iterations", "loss_scale", "checkpoint_every", "keep", "log_every")
}
