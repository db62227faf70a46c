"""A page of a study: its prose is written by hand, what stands between markers is what the results say."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Collection, Iterator, NamedTuple
from urllib.parse import quote

from latse.errors import LatseError
from latse.study.study_claims import Results, claim_table, judge
from latse.study.study_columns import at
from latse.study.study_file import Study
from latse.study.study_shown import Table
from latse.study.study_table import named_table
from latse.text_table import markdown

TOKEN = re.compile(r"<!-- study: (?P<asks>.*?) -->|(?P<end><!-- end -->)")
KINDS = "table NAME, plot NAME, claims, claims TABLE, compute total and missing"


class Part(NamedTuple):
    """What stands between a marker and its end: what is asked for, on which line, from where to where."""

    asks: str
    line: int
    start: int
    stop: int


class Page:
    """What a study shows on its page.

    Parameters
    ----------
    study : Study
        What it describes.
    results : dict
        By row and seed, those that there are.
    pictures : Path
        The folder of the pictures.
    beside : Path
        The folder of the page.
    """

    def __init__(self, study: Study, results: Results, pictures: Path, beside: Path) -> None:
        self.study, self.results = study, results
        self._pictures, self._beside = pictures, beside
        self.plots: dict[str, Path] = {}  # that the filled page shows, and their files

    def filled(self, text: str, title: str) -> str:
        """Return the text of a page with what the results say between its markers.

        Raises LatseError, naming `title` and line, for a marker that is none, has no end or names what is
        not in the study.
        """
        done, before = [], 0
        for part in parts(text, title):
            try:
                content = self._content(part.asks)
            except LatseError as error:
                raise LatseError(f"{title}, line {part.line}: {error}") from error
            done += [text[before : part.start], f"\n\n{content}\n\n"]
            before = part.stop
        if not done:
            raise LatseError(f"{title} has no marker <!-- study: … -->: there are {KINDS}")
        return "".join([*done, text[before:]])

    def _content(self, asks: str) -> str:
        kind, _, name = asks.partition(" ")
        if kind == "table" and name:
            return self._table(name)
        if kind == "plot" and name:
            return self._plot(name)
        if kind == "claims" and name:
            return self._claims(self._named(name).rows)
        simple = {
            "claims": lambda: self._claims(self.study.rows),
            "compute total": self._compute,
            "missing": self._missing,
        }
        if asks not in simple:
            raise LatseError(f"`study: {asks}` is no marker: there are {KINDS}")
        return simple[asks]()

    def _named(self, name: str) -> Table:
        if name not in self.study.tables:
            raise LatseError(f"the study has no table '{name}'; {_there(self.study.tables)}")
        return self.study.tables[name]

    def _table(self, name: str) -> str:
        return _markdown(named_table(self.study, self._named(name), self.results), 2)

    def _claims(self, rows: Collection[str]) -> str:
        """Return the table of the claims on some rows."""
        judged = {
            sentence: {**claim.as_dict(), **judge(claim, self.results)}
            for sentence, claim in self.study.claims.items()
            if {*claim.rows} <= {*rows}
        }
        return _markdown(claim_table(judged), 3) if judged else "The study claims nothing of these rows."

    def _plot(self, name: str) -> str:
        if name not in self.study.plots:
            raise LatseError(f"the study has no plot '{name}'; {_there(self.study.plots)}")
        plot = self.study.plots[name]
        if not any(row in plot.rows for row, _ in self.results):
            return "No run of this plot has a result yet."
        self.plots[name] = self._pictures / f"{name}.svg"
        link = quote(os.fsencode(os.path.relpath(self.plots[name], self._beside)))
        return f"![{name}: {plot.kind} of {', '.join(plot.columns)}]({link})"

    def _compute(self) -> str:
        cost = {
            key: [at(result, ("cost", key)) for result in self.results.values()]
            for key in ("cpu_seconds", "wall_seconds", "peak_megabytes")
        }
        known = {key: [value for value in values if value is not None] for key, values in cost.items()}
        noted = len(known["cpu_seconds"])
        if not noted:
            return "No result says what its training cost."
        hours = {key: sum(known[key]) / 3600 for key in ("cpu_seconds", "wall_seconds")}
        peak = max(known["peak_megabytes"], default=0)
        return (
            f"{noted} runs: {hours['cpu_seconds']:.1f} CPU hours of training, {hours['wall_seconds']:.1f} by "
            f"the clock; the largest took {peak:.0f} MiB."
        )

    def _missing(self) -> str:
        total = len(self.study.rows) * len(self.study.seeds)
        there = f"{len(self.results)} of {total} runs have results"
        seeds = {
            row: [str(seed) for seed in self.study.seeds if (row, seed) not in self.results]
            for row in self.study.rows
        }
        lines = [f"- {row}: seed {', '.join(missing)}" for row, missing in seeds.items() if missing]
        return "\n".join([f"{there}. Missing:", "", *lines]) if lines else f"{there}."


def parts(text: str, title: str) -> Iterator[Part]:
    """Yield the parts of a page between its markers; raise LatseError for one without beginning or end."""
    begun = None
    for found in TOKEN.finditer(text):
        line = text.count("\n", 0, found.start()) + 1
        if begun and not found["end"]:
            break
        if found["end"] and not begun:
            raise LatseError(f"{title}, line {line}: <!-- end --> ends nothing")
        if begun:
            yield Part(begun["asks"], text.count("\n", 0, begun.start()) + 1, begun.end(), found.start())
        begun = None if found["end"] else found
    if begun:
        line = text.count("\n", 0, begun.start()) + 1
        raise LatseError(f"{title}, line {line}: `study: {begun['asks']}` has no <!-- end -->")


def _markdown(rows: list[list[str]], texts: int) -> str:
    """Lay out a table whose first `texts` columns are no figures; nothing in it is Markdown."""
    plain = ([" ".join(cell.split()).replace("<", "&lt;") for cell in row] for row in rows)
    return markdown([[re.sub(r"([|*])", r"\\\1", cell) for cell in row] for row in plain], texts)


def _there(names: dict) -> str:
    return f"there are {', '.join(names)}" if names else "it has none"
