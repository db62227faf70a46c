"""What all benchmarks share: options, checks, the JSON, what is printed."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Mapping, NamedTuple, Sequence

import mxnet as mx

from latse.bench.result import flat, table
from latse.errors import LatseError
from latse.files import make_folder, write_json
from latse.goals import Figure, Goal
from latse.provenance import provenance
from latse.runtime import threads
from latse.text_table import aligned

Figures = Mapping[str, Mapping[str, Figure]]  # of each contender by name


class Option(NamedTuple):
    """What a benchmark is given as `--NAME`; whole numbers have a least value and are part of the setting."""

    name: str
    default: Any
    text: str
    kind: Callable[[str], Any] = str
    least: int | None = None


def count(name: str, default: int, text: str, least: int = 1) -> Option:
    """Return the option for a whole number."""
    return Option(name, default, text, int, least)


@dataclass(frozen=True)
class Outcome:
    """What a benchmark found.

    Attributes
    ----------
    contenders : mapping of str to mapping of str to Figure
        By title the figures by name.
    goals : sequence of Goal
    setting : mapping
        What was chosen, besides the whole numbers.
    remarks : sequence of str
        Lines to print.
    """

    contenders: Figures
    goals: Sequence[Goal]
    setting: Mapping[str, Any] = field(default_factory=dict)
    remarks: Sequence[str] = ()


class Benchmark:
    """A command `latse bench NAME`; subclasses override `measure`, and what else is their own.

    Attributes
    ----------
    kind : str
        Of the result, one of `latse.bench.result.KINDS`.
    options : tuple of Option
    contexts : list of mx.Context
        Where it computes; empty: with numpy.
    args : argparse.Namespace
        The options of this run.
    """

    kind = ""
    options: tuple[Option, ...] = ()
    contexts: list[mx.Context] = [mx.cpu()]

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument("--json", metavar="FILE", help="write the figures, versions and device")
        for option in cls.options:
            text = option.text if option.default is None else f"{option.text} (default: {option.default})"
            metavar = "N" if option.kind is int else option.name.rpartition("-")[2].upper()
            parser.add_argument(
                f"--{option.name}", type=option.kind, default=option.default, metavar=metavar, help=text
            )

    @classmethod
    def run(cls, args: argparse.Namespace) -> None:
        """Measure, write and print.

        Raises
        ------
        LatseError
            For an option that makes no sense, a file that cannot be written, or work that failed.
        """
        benchmark = cls(args)
        setting = benchmark.sizes()
        benchmark.check()
        if args.json:
            make_folder(Path(args.json).parent)  # an unwritable place is better known before the work
        outcome = benchmark.measure()
        setting.update(outcome.setting)
        setting.setdefault("threads", threads())
        if args.json:
            write_json(args.json, benchmark.report(outcome, setting))
        print("; ".join(f"{name} {value}" for name, value in flat(setting)))
        rows = table(outcome.contenders)
        print(min((aligned(rows), aligned(list(zip(*rows)))), key=lambda text: text.index("\n")))
        print(*outcome.remarks, *(goal.in_words() for goal in outcome.goals), sep="\n")

    def sizes(self) -> dict[str, Any]:
        """Return the whole numbers that are given; raise LatseError for one that is too small."""
        sizes = {}
        for option in (option for option in self.options if option.kind is int):
            key = option.name.replace("-", "_")
            sizes[key] = value = getattr(self.args, key)
            if value < option.least:
                raise LatseError(f"--{option.name} {value}: must be at least {option.least}")
        return sizes

    def check(self) -> None:
        """Raise LatseError for options that make no sense, before anything is measured."""

    def measure(self) -> Outcome:
        """Do the work."""
        raise NotImplementedError

    def report(self, outcome: Outcome, setting: Mapping[str, Any]) -> dict[str, Any]:
        """Return the content of the JSON."""
        return {
            "kind": self.kind,
            "provenance": provenance(self.args, self.contexts),
            "setting": setting,
            "contenders": {
                title: {name: figure.as_json() for name, figure in figures.items()}
                for title, figures in outcome.contenders.items()
            },
            "goals": [goal.as_json() for goal in outcome.goals],
        }


def add_peers(parser: argparse.ArgumentParser, text: str) -> None:
    """Declare `--peers`, a folder of others' software."""
    parser.add_argument(
        "--peers",
        metavar="FOLDER",
        default=os.environ.get("PEERS"),
        help=f"holds {text} (default: PEERS of the environment)",
    )


def check_peers(peers: str | None) -> None:
    """Raise LatseError if there is no such folder."""
    if peers and not Path(peers).is_dir():
        raise LatseError(f"--peers {peers}: there is no such folder")
