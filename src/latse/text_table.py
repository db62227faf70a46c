"""Results as a table of aligned text."""

from __future__ import annotations

from typing import Any, Mapping, Sequence

NOTHING = "–"
ACCEPTED = "accepted above the cosine, below d², the squared distance of unit embeddings: 2 - 2·cosine"
LAST = ("AUC", "EER", "VAL at FAR")


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Lay out `rows` in columns, the first to the left, the others to the right, a rule below the first."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows)]
    lines = []
    for first, *others in rows:
        cells = [first.ljust(widths[0])] + [cell.rjust(width) for cell, width in zip(others, widths[1:])]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "-" * (sum(widths) + 2 * (len(widths) - 1)))
    return "\n".join(lines)


def markdown(rows: Sequence[Sequence[str]], texts: int = 1) -> str:
    """Lay out `rows` as a table of Markdown, the first row its head, figures right of the first `texts`."""
    head, *body = rows
    rule = ["---"] * texts + ["---:"] * (len(head) - texts)
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *body))


def percent(fraction: float | None) -> str:
    """Write a fraction in percent, two digits behind the point; nothing known is a dash."""
    return NOTHING if fraction is None else f"{100 * fraction:.2f}"


def val_and_rate(val: Mapping[str, float] | None) -> str:
    """Write insightface's VAL and the false accept rate that it was reached at; nothing known is a dash."""
    return f"{percent(val['val'])} at {100 * val['far']:5.2f}" if val else NOTHING


def verification_table(sets: dict[str, dict[str, Any]]) -> str:
    """Show models on sets of pairs in percent, from the `sets` of the JSON that `latse eval` writes.

    The columns of TAR are those that the different pairs of some set resolve; a TAR that those of its own set
    do not is marked by `*` and explained below the table, where the sets are described too.
    """
    firsts = [next(iter(judged["results"].values())) for judged in sets.values()]
    unresolved = [result["unresolved_far"] for result in firsts]
    fars = [far for far in firsts[0]["tar_at_far"] if not all(far in too_fine for too_fine in unresolved)]
    tars = [f"TAR@{100 * float(far):g}%FAR" for far in fars]
    rows = [["", "accuracy ± std", "95 % interval", "threshold", "exact thresholds", *tars, *LAST]]
    descriptions, notes = [], []
    for name, judged in sets.items():
        rows.append([name, *[""] * (len(rows[0]) - 1)])
        rows += [_row(title, result, fars) for title, result in judged["results"].items()]
        descriptions.append(_description(name, judged))
        notes += [f"{name}: {note}" for note in restoration_notes(judged["results"])]
    if any(far in too_fine for too_fine in unresolved for far in fars):
        notes.append("* before the first false accept: so few different pairs resolve no finer")
    return "\n".join([aligned(rows), *descriptions, *notes])


def threshold_table(sets: Mapping[str, Mapping[str, Any]]) -> str:
    """Show the thresholds of models at each false accept rate that the pairs of a set resolve.

    From the same `sets` as `verification_table`; a pair is accepted whose cosine is above the one threshold,
    which is to say, whose squared distance is below the other.
    """
    rows = [["", "FAR %", "TAR %", "cosine", "95 % interval", "d²", "95 % interval"]]
    notes = []
    for name, judged in sets.items():
        rows.append([name, *[""] * (len(rows[0]) - 1)])
        for title, result in judged["results"].items():
            resolved = [far for far in result["tar_at_far"] if far not in result["unresolved_far"]]
            rows += [_threshold_row(title, result, far) for far in resolved]
        too_fine = next(iter(judged["results"].values()))["unresolved_far"]
        if too_fine:
            finest = max(map(float, too_fine))
            notes.append(
                f"{name}: {judged['different_pairs']} different pairs resolve no FAR of "
                f"{100 * finest:g} % or below; {1 / finest:.0f} resolve that"
            )
    return "\n".join([aligned(rows), *notes, ACCEPTED])


def _threshold_row(title: str, result: Mapping[str, Any], far: str) -> list[str]:
    cells = [f"  {title}", f"{100 * float(far):g}", percent(result["tar_at_far"][far])]
    for key in ("cosine_at_far", "threshold_at_far"):
        bounds = (result["intervals"] or {}).get(key)
        cells.append(f"{result[key][far]:.4f}")
        cells.append(" to ".join(f"{bound:.4f}" for bound in bounds[far]) if bounds else NOTHING)
    return cells


def restoration_notes(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Say of each model with a decoder how like its faces are to the people's, from the JSON of a set."""
    return [
        f"{title} generates faces with SSIM {face['ssim']:.3f} to the mean face of the person and "
        f"{face['ssim_to_other']:.3f} to that of another; the average has {face['ssim_of_average']:.3f}"
        for title, result in results.items()
        for face in filter(None, [result.get("restoration")])
    ]


def _row(title: str, result: dict[str, Any], fars: Sequence[str]) -> list[str]:
    exact, intervals = result["exact"], result["intervals"]
    return [
        f"  {title}",
        _with_std(result),
        " to ".join(map(percent, intervals["accuracy"])) if intervals else NOTHING,
        f"{result['threshold']:.3f}",
        _with_std(exact),
        *(
            percent(result["tar_at_far"][far]) + ("*" if far in result["unresolved_far"] else " ")
            for far in fars
        ),
        percent(result["auc"]),
        percent(result["eer"]),
        val_and_rate(result["val_at_far_1e-3"]),
    ]


def _description(name: str, judged: dict[str, Any]) -> str:
    """Return what a set consists of, and whose intervals there are."""
    pairs = f"{name}: {judged['pairs']} pairs, {judged['different_pairs']} of them of different people"
    intervals = next(iter(judged["results"].values()))["intervals"]
    if intervals:
        return (
            f"{pairs}; {judged['people']} people, drawn again {intervals['samples']} times for the interval"
        )
    if judged["people"] is None:
        return f"{pairs}; no interval: there is no {name}.people.npy to say who is who"
    return f"{pairs}; {judged['people']} people, no interval"


def _with_std(result: dict[str, Any]) -> str:
    return f"{100 * result['accuracy']:.2f} ± {100 * result['std']:5.2f}"
