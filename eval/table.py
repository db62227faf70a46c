"""Results as a table of aligned text."""

from __future__ import annotations

from typing import List, Sequence, Tuple

from latse.eval.verification import Verification


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Lay out `rows` in columns, the first to the left, the others to the right, a rule below the first."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows)]
    lines = []
    for first, *others in rows:
        cells = [first.ljust(widths[0])] + [cell.rjust(width) for cell, width in zip(others, widths[1:])]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "-" * (sum(widths) + 2 * (len(widths) - 1)))
    return "\n".join(lines)


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Lay out `rows` as a table of Markdown, the first row its head, figures to the right."""
    head, *body = rows
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *body))


def verification_table(results: Sequence[Tuple[str, Verification]]) -> str:
    """Show titled results on one set of pairs in percent, a row each, in order.

    A TAR whose FAR the different pairs cannot resolve is marked by `*` and explained below the table.
    """
    rows = [["", "accuracy ± std", "TAR@1%FAR", "TAR@0.1%FAR", "AUC"]]
    rows += [_row(title, result) for title, result in results]
    unresolved = [result.different_pairs for _, result in results if result.unresolved_far]
    notes = [
        f"* before the first false accept: {pairs} different pairs resolve no finer"
        for pairs in unresolved[:1]
    ]
    return "\n".join([aligned(rows), *notes])


def _row(title: str, result: Verification) -> List[str]:
    tars = [
        f"{100 * tar:.2f}{'*' if far in result.unresolved_far else ' '}"
        for far, tar in result.tar_at_far.items()
    ]
    return [title, f"{100 * result.accuracy:.2f} ± {100 * result.std:5.2f}", *tars, f"{100 * result.auc:.2f}"]
