"""What the report is made of: sections of tables, charts, pictures and cards, without any HTML.

Each kind of block has a macro of its name in report.html.j2.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Sequence

from latse.paper.report_charts import Chart, Look


@dataclass(frozen=True)
class Cell:
    """A cell of a table: its text, a smaller line below it, the look of the series that it is the key to."""

    text: str
    note: str = ""
    look: Look | None = None


@dataclass(frozen=True)
class Table:
    """A table; the first cell of each row heads it.

    Attributes
    ----------
    head : list of str
        Of the columns.
    rows : list of list of Cell
        As many cells each as the head.
    title, notes : str, sequence of str
        Above and below the table.
    groups : sequence of tuple of str and int, optional
        What heads several columns at once, and how many, from the first column on.
    prose : bool, default False
        True for cells of words, set to the left and broken into lines; False for figures.
    """

    kind: ClassVar[str] = "table"
    head: list[str]
    rows: list[list[Cell]]
    title: str = ""
    notes: Sequence[str] = ()
    groups: Sequence[tuple[str, int]] = ()
    prose: bool = False


@dataclass(frozen=True)
class Charts:
    """Charts side by side; `fills` are a name and the variable of the style sheet that is its colour."""

    kind: ClassVar[str] = "charts"
    charts: list[Chart]
    fills: Sequence[tuple[str, str]] = ()
    note: str = ""


@dataclass(frozen=True)
class Picture:
    """A file, as a data: address, with its caption."""

    kind: ClassVar[str] = "picture"
    address: str
    title: str
    caption: str = ""


@dataclass(frozen=True)
class Card:
    """A title and what is to be said of it: term and text."""

    title: str
    facts: list[tuple[str, str]]


@dataclass(frozen=True)
class Cards:
    """Cards side by side."""

    kind: ClassVar[str] = "cards"
    cards: list[Card]


@dataclass(frozen=True)
class Section:
    """One heading of the report, a paragraph below it, what stands under it; or why nothing does."""

    anchor: str
    title: str
    lead: str = ""
    blocks: list[Table | Charts | Picture | Cards] = field(default_factory=list)
    absent: str = ""


def percent(fraction: float | None) -> str:
    """Write a fraction in percent, two digits behind the point; nothing known is a dash."""
    return "–" if fraction is None else f"{100 * fraction:.2f}"


def interval(bounds: Sequence[float] | None) -> str:
    """Write an interval of fractions in percent; none is no text."""
    return "" if bounds is None else f"{100 * bounds[0]:.1f}–{100 * bounds[1]:.1f}"
