"""`latse margins`: list the losses, check one for the paper's principles, plot several (Figure 3)."""

from __future__ import annotations

import argparse
import math
import re
from typing import Mapping, Sequence

from latse.errors import LatseError
from latse.eval import principles
from latse.eval.margin_curves import draw_curves
from latse.files import write_json
from latse.runtime import versions
from latse.symbols import margins
from latse.symbols.margins import Margin
from latse.text_table import aligned

# A margin and its parameters; a comma in the path of FILE.py:CLASS is part of it.
NAME = re.compile(r"(.*\.py:[^,]*|[^,]*)(.*)", re.DOTALL)
# Principle -> its title, what is so where it fails, and what its largest violation measures.
TEXTS = {
    "non_negativity": ("non-negativity (eq. 8)", "{of} is no finite number", ""),
    "penalty": ("penalty (eq. 8)", "{of} exceeds g", "by {largest:.6g} at most, at θ = {at:.6f}"),
    "order": ("order (eq. 9)", "h rises with a stricter {of}", "by {largest:.6g} at most, at θ = {at:.6f}"),
    "decrease": (
        "monotonic decrease",
        "{of} does not fall as θ grows",
        "rising by {largest:.6g} at most, up to θ = {at:.6f}",
    ),
}


def run(args: argparse.Namespace) -> int:
    """Run the sub-command; return 1 if a margin fails a principle, else 0; raise LatseError for bad input."""
    return {"list": _list, "check": _check, "plot": _plot}[args.margins_command](args)


def _list(args: argparse.Namespace) -> int:
    rows = [["name", "parameters", "loosest", "fails"]]
    rows += [[name, *_description(name, args.classes)] for name in margins.MARGINS]
    print(aligned(rows))
    return 0


def _description(name: str, classes: int) -> list[str]:
    """Say of a loss with its defaults: parameters, loosest values, principles that it fails."""
    parameters = margins.parameters(name)
    loss = margins.create(name, classes)
    if not isinstance(loss, Margin):
        return [_text(parameters) or "-", "-", "-"]
    findings = principles.check(loss, parameters)
    failed = [principle for principle, finding in findings.items() if not finding.holds]
    return [_text(parameters) or "-", _text(loss.loosest) or "-", ", ".join(failed) or "none"]


def _check(args: argparse.Namespace) -> int:
    margin, parameters = _margin(args.margin, args.parameters, args.classes)
    findings = principles.check(margin, parameters)
    holds = all(finding.holds for finding in findings.values())
    if args.json:
        write_json(
            args.json,
            {
                "margin": args.margin,
                "parameters": parameters,
                "classes": args.classes,
                "holds": holds,
                "principles": {name: finding.as_json() for name, finding in findings.items()},
                "versions": versions(),
            },
        )
    print(f"{args.margin} {_text(parameters)}".rstrip())
    for principle, finding in findings.items():
        print(f"  {_sentence(principle, finding, margin)}")
    return 0 if holds else 1


def _plot(args: argparse.Namespace) -> int:
    lines: dict[str, Margin] = {}
    for text in args.margins:
        name, words = NAME.fullmatch(text).groups()
        margin, parameters = _margin(name, words.split(",")[1:], args.classes)
        shown = {key: parameters[key] for key in margin.loosest}
        lines[f"{name} {_text(shown)}".rstrip()] = margin
    print(*draw_curves(args.out, lines), sep="\n")
    return 0


def _margin(name: str, words: Sequence[str], classes: int) -> tuple[Margin, dict[str, float]]:
    """Return the margin `name` with the parameters `words` as KEY=VALUE, and all of its parameters."""
    parameters = _parameters(words)
    loss = margins.create(name, classes, **parameters)
    if not isinstance(loss, Margin):
        raise LatseError(f"'{name}' has no target logit h(θ), so that there is nothing to check or to plot")
    defaults = margins.parameters(name)
    return loss, {key: type(default)(parameters.get(key, default)) for key, default in defaults.items()}


def _parameters(words: Sequence[str]) -> dict[str, float]:
    parameters: dict[str, float] = {}
    for pair in words:
        key, equals, value = pair.partition("=")
        if not (key and equals) or key in parameters:
            raise LatseError(f"'{pair}' is no KEY=VALUE, or KEY is given twice")
        parameters[key] = _number(key, value)
    return parameters


def _number(key: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise LatseError(f"{key} is '{text}', not a finite number")
    return value


def _sentence(principle: str, finding: principles.Finding, margin: Margin) -> str:
    title, fails, how_much = TEXTS[principle]
    if principle == "order" and not margin.loosest:
        return f"{title:<22}  not checked: `loosest` names no parameter as a margin"
    if finding.holds:
        return f"{title:<22}  holds"
    where = " and ".join(_interval(*interval) for interval in finding.intervals)
    of = " and ".join(finding.of)
    amount = "" if finding.largest is None else f", {how_much.format(**vars(finding))}"
    return f"{title:<22}  fails: {fails.format(of=of)} {where}{amount}"


def _interval(low: float, high: float) -> str:
    """Say where, in radians: an interval, or a single point such as that of a jump."""
    ends = f"{low:.6f}", f"{high:.6f}"
    return f"at θ = {ends[0]}" if ends[0] == ends[1] else f"on [{ends[0]}, {ends[1]}]"


def _text(parameters: Mapping[str, float]) -> str:
    return " ".join(f"{key}={value:g}" for key, value in parameters.items())
