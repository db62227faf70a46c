"""`latse study-page`: write into a page what the results of a study say, without training anything."""

from __future__ import annotations

import argparse
from pathlib import Path

from latse.files import read_text, write_text
from latse.study.study_claims import refuse_unknown_sets
from latse.study.study_file import read_study
from latse.study.study_page import Page
from latse.study.study_plots import draw
from latse.study.study_reading import read_results


def run(args: argparse.Namespace) -> None:
    """Fill the page and draw its pictures; print what was written.

    Raises LatseError, with nothing written, for a malformed study, page or result.
    """
    file = Path(args.page)
    study = read_study(args.study)
    results = read_results(study, Path(args.results))
    if results:
        refuse_unknown_sets(study.claims, [*next(iter(results.values()))["sets"]])
    text = read_text(file)
    page = Page(study, results, Path(args.pictures or file.parent / "pictures"), file.parent)
    filled = page.filled(text, args.page)
    for name, path in page.plots.items():
        draw(path, study.plots[name], study.seeds, results)
        print(path)
    write_text(file, filled)
    print(file)
