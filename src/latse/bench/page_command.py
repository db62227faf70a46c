"""`latse bench page`: a page of all goals, a page of all figures and a chart, from the results in a folder.

Every number on the pages is in the JSON files. Why a goal is missed is in NOTES/NAME.md: a clause, the first
paragraph, for the table of goals, and what the reader of the section of NAME.json should know.
"""

from __future__ import annotations

import argparse
import os
from collections import Counter
from pathlib import Path
from typing import Any, Mapping, Sequence

import jinja2

from latse.bench.page_chart import draw
from latse.bench.result import KINDS, Result, read_folder, table
from latse.eval.canvas import save
from latse.files import read_text, write_text
from latse.text_table import markdown

OF_PAGES = {"introduction", "details"}  # notes of the pages themselves; all others are of results
VERDICTS = {True: "met", False: "**missed**", None: "information"}


def run(args: argparse.Namespace) -> None:
    """Write pages and chart; print what is missed and which note has no result.

    Raises LatseError if the folder holds no results, one is damaged or of another kind, a note cannot be
    read, or a page or the chart cannot be written.
    """
    results = read_folder(Path(args.folder))
    summary = Path(args.out)
    details = summary.with_name(f"{summary.stem}_details.md")
    notes = read_notes(Path(args.notes) if args.notes else summary.with_name(f"{summary.stem}_notes"))
    chart = None
    if args.chart:
        save(draw(results), args.chart)
        chart = Path(os.path.relpath(args.chart, summary.parent)).as_posix()
    missed = [(result, goal) for result in results for goal in result.goals if goal.met is False]
    commits: dict[str, list[str]] = {}
    for result in results:
        commits.setdefault(commit(result.provenance), []).append(result.name)
    shown = {
        "results": results,
        "notes": notes,
        "kinds": KINDS,
        "counts": Counter(result.kind for result in results),
        "commits": commits,
        "bounded": sum(goal.met is not None for result in results for goal in result.goals),
        "missed": missed,
        "table": goals_table(results, notes, details.name),
        "summary": summary.name,
        "details": details.name,
        "chart": chart,
    }
    for path, name in ((summary, "summary.md.j2"), (details, "details.md.j2")):
        write_text(path, _templates().get_template(name).render(shown))
        print(path)
    for result, goal in missed:
        unexplained = "" if result.name in notes else "; no note says why"
        print(f"missed: {result.name}: {goal.text}: {goal.measured}, {goal.wanted}{unexplained}")
    for name in sorted(notes.keys() - {result.name for result in results} - OF_PAGES):
        print(f"the note {name}.md has no result and is left out")


def _templates() -> jinja2.Environment:
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("latse.bench", "."),
        autoescape=False,  # it is Markdown
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters.update(commit=commit, contenders=contenders, goals=goals)
    return templates


def read_notes(folder: Path) -> dict[str, str]:
    """Return name -> text of each Markdown file of a folder (which may be missing); may raise LatseError."""
    return {path.stem: read_text(path).strip() for path in sorted(folder.glob("*.md"))}


def goals_table(results: Sequence[Result], notes: Mapping[str, str], details: str) -> str:
    """Return the table of all bounded goals, each with its verdict; a missed one says why."""
    rows = [["benchmark", "figure", "measured", "goal", ""]]
    for result in results:
        name = f"[{result.name}]({details}#{result.name})"
        reason = " ".join(notes.get(result.name, "").partition("\n\n")[0].split())
        for goal in result.goals:
            if goal.met is None:
                continue
            verdict = VERDICTS[goal.met] + (f": {reason}" if goal.met is False and reason else "")
            rows.append([name, cell(goal.text), goal.measured, goal.wanted, cell(verdict)])
            name = ""
            reason = reason if goal.met else ""  # said once
    return markdown(rows).replace("---:", "---")


def contenders(result: Result) -> str:
    """Return the table of contenders."""
    return markdown([[cell(text) for text in row] for row in table(result.contenders)])


def goals(result: Result) -> str:
    """Return the table of goals: what was measured, the bound, whether it is kept."""
    rows = [[cell(goal.text), goal.measured, goal.wanted, VERDICTS[goal.met]] for goal in result.goals]
    return markdown([["", "measured", "goal", ""], *rows])


def commit(provenance: Mapping[str, Any]) -> str:
    """Say which code made a result."""
    if provenance["commit"] is None:
        return f"latse {provenance['versions']['latse']}, not from a checkout"
    changed = " with changed files" if provenance["commit"].endswith("+") else ""
    return f"commit {provenance['commit'].rstrip('+')}{changed}"


def cell(text: str) -> str:
    """Make a text fit into a cell of a table of Markdown."""
    return " ".join(text.split()).replace("|", "\\|")
