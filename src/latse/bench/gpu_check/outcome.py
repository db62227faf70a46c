"""What came out of a check, as JSON and in Markdown."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Mapping, Sequence

from latse.goals import Goal
from latse.text_table import markdown

VERDICTS = {True: "pass", False: "**FAIL**", None: "information"}


def row(text: str, value: float, unit: str = "", **bound: float) -> Goal:
    """Return the row of one number, held against `at_least`, `at_most` or nothing."""
    return Goal.of(text, [float(value)], unit, **bound)


@dataclass
class Outcome:
    """What a check found: rows; remarks, which fail nothing; faults, each of which fails it; its seconds."""

    name: str
    title: str
    rows: list[Goal] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, said: Goal | str) -> None:
        """Take a row or a remark; a row whose figure is no finite number is a fault."""
        if isinstance(said, str):
            self.remarks.append(said)
        elif math.isfinite(said.figure.min) and math.isfinite(said.figure.max):
            self.rows.append(said)
        else:
            self.faults.append(f"{said.text}: {said.figure.median} is no finite number")

    @property
    def passed(self) -> bool:
        """Whether nothing has failed."""
        return not self.faults and all(row.met is not False for row in self.rows)

    @property
    def failures(self) -> list[str]:
        """A sentence for each failure."""
        return [*(row.in_words() for row in self.rows if row.met is False), *self.faults]

    def as_json(self) -> dict[str, Any]:
        """Return what the file of JSON says of it."""
        return {
            "check": self.name,
            "title": self.title,
            "passed": self.passed,
            "seconds": self.seconds,
            "rows": [{**row.as_json(), "passed": row.met} for row in self.rows],
            "remarks": self.remarks,
            "faults": self.faults,
        }

    def section(self) -> str:
        """Return its section of the page."""
        judged = VERDICTS[self.passed]
        parts = [f"## {self.title}", f"`{self.name}`: {judged}, {self.seconds:.0f} s."]
        if self.rows:
            rows = [[_cell(row.text), row.measured, row.wanted, VERDICTS[row.met]] for row in self.rows]
            parts.append(markdown([["", "measured", "limit", ""], *rows]))
        said = [f"**FAIL** {fault}" for fault in self.faults] + self.remarks
        parts += ["\n".join(f"- {' '.join(sentence.split())}" for sentence in said)] if said else []
        return "\n\n".join(parts)


def verdict(outcomes: Sequence[Outcome], asked: int) -> str:
    """Return the sentences on the checks that are done, of so many that were asked for."""
    failed = [outcome.name for outcome in outcomes if not outcome.passed]
    left = asked - len(outcomes)
    rest = f" {left} of {asked} are not done." if left else ""
    if failed:
        return f"{len(failed)} of {len(outcomes)} checks failed: {', '.join(failed)}.{rest}"
    return f"{len(outcomes)} of {len(outcomes)} checks passed.{rest}"


def page(outcomes: Sequence[Outcome], asked: int, facts: Mapping[str, str]) -> str:
    """Return the page on the checks that are done, of so many that were asked for.

    `facts` are what is known of machine and software, by title.
    """
    table = markdown([["", ""], *([title, _cell(text)] for title, text in facts.items())], texts=2)
    said = verdict(outcomes, asked)
    parts = ["# latse check-gpu", said, table, *(outcome.section() for outcome in outcomes)]
    return "\n\n".join([*parts, "## Verdict", said]) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
