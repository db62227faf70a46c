"""What all benchmarks share: options, checks, the JSON, what is printed."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Mapping, NamedTuple, Sequence

from latse.bench.result import flat, table
from latse.errors import MOST, LatseError, check_range
from latse.files import make_parents, write_json
from latse.goals import Figure, Goal
from latse.provenance import provenance
from latse.runtime import threads
from latse.text_table import aligned

SOURCES = Path("insightface", "recognition", "arcface_mxnet")  # of its MXNet trainer, in a folder of peers


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
    """What a benchmark found: the contenders' figures by title and name, goals, and remarks to print.

    `setting` is what was chosen besides the whole numbers, `contexts` (of mx.Context) where it was computed,
    empty for numpy.
    """

    contenders: Mapping[str, Mapping[str, Figure]]
    goals: Sequence[Goal]
    setting: Mapping[str, Any] = field(default_factory=dict)
    remarks: Sequence[str] = ()
    contexts: Sequence[Any] = ()


@dataclass(frozen=True)
class Benchmark:
    """A command `latse bench NAME`, whose result is of a `kind` of `latse.bench.result.KINDS`.

    `measure` does the work that the options ask for, and first raises LatseError if they make no sense.
    `peers` says what `--peers` holds; without it there is no such option. `declare` declares more options.
    """

    kind: str
    measure: Callable[[argparse.Namespace], Outcome]
    options: Sequence[Option]
    peers: str | None = None
    declare: Callable[[argparse.ArgumentParser], None] | None = None

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the options."""
        if self.declare:
            self.declare(parser)
        parser.add_argument("--json", metavar="FILE", help="write the figures, versions and device")
        for option in self.options:
            text = option.text if option.default is None else f"{option.text} (default: {option.default})"
            metavar = "N" if option.kind is int else option.name.rpartition("-")[2].upper()
            parser.add_argument(
                f"--{option.name}", type=option.kind, default=option.default, metavar=metavar, help=text
            )
        if self.peers:
            add_peers(parser, self.peers)

    def run(self, args: argparse.Namespace) -> None:
        """Measure, write and print.

        Raises LatseError for an option that makes no sense, a file that cannot be written, or failed work.
        """
        setting = self._sizes(args)
        if self.peers and args.peers and not Path(args.peers).is_dir():
            raise LatseError(f"--peers {args.peers}: there is no such folder")
        make_parents(args.json)
        outcome = self.measure(args)
        setting.update(outcome.setting)
        setting.setdefault("threads", threads())
        if args.json:
            contenders = {
                title: {name: figure.as_json() for name, figure in figures.items()}
                for title, figures in outcome.contenders.items()
            }
            report = {
                "kind": self.kind,
                "provenance": provenance(args, outcome.contexts),
                "setting": setting,
                "contenders": contenders,
                "goals": [goal.as_json() for goal in outcome.goals],
            }
            write_json(args.json, report)
        print("; ".join(f"{name} {value}" for name, value in flat(setting)))
        rows = table(outcome.contenders)
        print(min((aligned(rows), aligned(list(zip(*rows)))), key=lambda text: text.index("\n")))
        print(*outcome.remarks, *(goal.in_words() for goal in outcome.goals), sep="\n")

    def _sizes(self, args: argparse.Namespace) -> dict[str, Any]:
        """Return the whole numbers that are given; raise LatseError for one out of range."""
        sizes = {}
        for option in (option for option in self.options if option.kind is int):
            key = option.name.replace("-", "_")
            sizes[key] = value = getattr(args, key)
            check_range(f"--{option.name}", value, option.least, MOST)
        return sizes


def peer(peers: str | None, path: Path) -> Path | None:
    """Return a file or folder of others' software if there is such a folder `peers` and it is there."""
    found = Path(peers, path) if peers else None
    return found if found and found.exists() else None


def add_peers(parser: argparse.ArgumentParser, text: str) -> None:
    """Declare `--peers`, a folder of others' software."""
    parser.add_argument(
        "--peers",
        metavar="FOLDER",
        default=os.environ.get("PEERS"),
        help=f"holds {text} (default: PEERS of the environment)",
    )
