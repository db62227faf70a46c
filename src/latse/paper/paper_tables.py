"""Tables 1 to 6 of the paper: its figures, those that the baselines published, and ours.

All figures are percent. A row that this project can train names its recipe; ours are found in the folders
that `latse train` has made, where `latse eval --json` and `latse identify --json` have left their results.
"""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator, NamedTuple, Sequence

from latse.files import read_json
from latse.form import COUNT, NUMBER, NUMERAL, TEXT, Each, Form, Leaf, Maybe, check
from latse.models.run_folder import parse
from latse.text_table import aligned
from latse.train import run_record

RUN, VERIFICATION, IDENTIFICATION = "run.json", "verification.json", "identification.json"
NOT_RUN = "not run"


class Column(NamedTuple):
    """What a column of a table is headed with, and how much its benchmark holds."""

    title: str
    size: int
    unit: str = "pairs"


COLUMNS = {
    "lfw": Column("LFW", 6000),
    "cfp_fp": Column("CFP-FP", 7000),
    "agedb_30": Column("AgeDB-30", 6000),
    "calfw": Column("CALFW", 6000),
    "cplfw": Column("CPLFW", 6000),
    "megaface_id": Column("Identification", 1_000_000, "distractors"),
    "megaface_ver": Column("Verification", 1_000_000, "distractors"),
}
MEGAFACE = ("megaface_id", "megaface_ver")
MEGAFACE_FAR = "1e-06"
# Of the probes that MegaFace takes from FaceScrub; every row that this project trains was judged on the set
# that insightface cleaned ("r"), after which there are fewer.
PROBES = 3530

DENG = "Deng et al. 2019a (ArcFace, CVPR 2019)"
ZOO = "insightface's model zoo, {}"
V1 = ZOO.format("ArcFace@ms1m-refine-v1: trained on 3.8 M images, not on MS1MV2")
V2 = ZOO.format("R100, ArcFace@MS1MV2")


@dataclass(frozen=True)
class DataSet:
    """A training set of the paper: what insightface calls it, and how many people its `property` names."""

    folder: str
    people: int
    images: int


# The first word of a recipe's name -> its set. The images of CASIA are those of Yi et al. 2014;
# insightface, which leaves three people out, says 0.5 M.
DATA_SETS = {
    "casia": DataSet("faces_webface_112x112", 10_572, 494_414),
    "ms1mv2": DataSet("faces_emore", 85_742, 5_822_653),
    "ms1mv3": DataSet("ms1m-retinaface-t1", 93_431, 5_179_510),
}


@dataclass(frozen=True)
class Published:
    """Figures of a baseline in percent, by column, where its own authors give them, and where that is."""

    figures: dict[str, float]
    source: str


@dataclass(frozen=True)
class Measured:
    """Figures of a run of ours in percent, by column.

    Attributes
    ----------
    folder : str
        Where the run is.
    differences : tuple of str
        What was otherwise than the row says: settings of the recipe, number of people, size of a benchmark,
        MegaFace with its noise. Only figures without any can be compared with the paper's.
    """

    figures: dict[str, float]
    folder: str
    differences: tuple[str, ...]


@dataclass(frozen=True)
class PaperRow:
    """A row of a table.

    Attributes
    ----------
    name : str
        As the paper has it.
    paper : dict of str to float
        The paper's figures in percent by column; a column is missing where the paper has a dash.
    published : Published or None, optional
        What the original baseline published, where it did and it is known.
    recipe : str or None, optional
        File name in recipes/ of what the row trains; None for a row that was only cited.
    ours : Measured or None, optional
        Set by `filled`; None where it was not run.
    """

    name: str
    paper: dict[str, float]
    published: Published | None = None
    recipe: str | None = None
    ours: Measured | None = None


@dataclass(frozen=True)
class PaperTable:
    """A table of the paper; `columns` are keys of `COLUMNS`."""

    number: int
    title: str
    columns: tuple[str, ...]
    rows: tuple[PaperRow, ...]


def filled(folder: str | os.PathLike) -> list[PaperTable]:
    """Return the tables with our figures from the runs in and below `folder`.

    A run belongs to a row by the recipe that its run.json names. Of several, the one with the fewest
    differences from the row counts, and of those the first by path. A folder that does not exist holds none.
    Raises LatseError if a file of a run is damaged.
    """
    runs = [_read(path.parent) for path in sorted(Path(folder).rglob(RUN))]
    tables = []
    for table in TABLES:
        rows = (dataclasses.replace(row, ours=_ours(row, table.columns, runs)) for row in table.rows)
        tables.append(dataclasses.replace(table, rows=tuple(rows)))
    return tables


def data_set(recipe: str) -> str:
    """Return the key of `DATA_SETS` that a recipe of a row is for."""
    return recipe.partition("_")[0]


def text(table: PaperTable) -> str:
    """Lay out a table as text: below a row of the paper the published one and ours, notes at the end."""
    rows, notes = [["", *(COLUMNS[column].title for column in table.columns)]], {}

    def add(title: str, note: str, figures: dict[str, float], missing: str = "-") -> None:
        mark = f" [{notes.setdefault(note, len(notes) + 1)}]" if note else ""
        cells = (f"{figures[column]:.2f}" if column in figures else missing for column in table.columns)
        rows.append([title + mark, *cells])

    for row in table.rows:
        add(row.name, "", row.paper)
        if row.published:
            add("  published", row.published.source, row.published.figures)
        if row.ours:  # what cannot be compared is called so at once
            title = "  ours, changed" if row.ours.differences else "  ours"
            add(title, "; ".join([row.ours.folder, *row.ours.differences]), row.ours.figures, NOT_RUN)
        elif row.recipe:
            add("  ours", "", {}, NOT_RUN)
    marked = [f"[{number}] {note}" for note, number in notes.items()]
    return "\n".join([f"Table {table.number}. {table.title}", "", aligned(rows), *marked])


class _Figure(NamedTuple):
    """A figure in percent, and what its benchmark was otherwise than the paper's."""

    percent: float
    differences: list[str]


class _Run(NamedTuple):
    """What a run's folder holds: its figures by column, and what the run was otherwise than its recipe."""

    recipe: str
    folder: Path
    figures: dict[str, _Figure]
    differences: list[str]


def _read(folder: Path) -> _Run:
    record = read_json(folder / RUN)
    check(folder / RUN, record, run_record.FORM)
    figures: dict[str, _Figure] = {}
    for kind, name, read in _RESULTS:
        path = folder / name
        if path.exists():
            results = read_json(path)
            check(path, results, _FORMS[kind])
            figures.update(read(results, record))
    return _Run(record["recipe"], folder, figures, _differences(record))


def _ours(row: PaperRow, columns: Sequence[str], runs: list[_Run]) -> Measured | None:
    """Return the figures of the run that is nearest to a row."""
    ours = []
    for run in runs:
        figures = {column: run.figures[column] for column in columns if column in run.figures}
        if figures and row.recipe == f"{run.recipe}.yaml":
            benchmarks = dict.fromkeys(one for figure in figures.values() for one in figure.differences)
            percent = {column: figure.percent for column, figure in figures.items()}
            ours.append(Measured(percent, str(run.folder), (*run.differences, *benchmarks)))
    return min(ours, key=lambda measured: len(measured.differences), default=None)


def _differences(run: dict[str, Any]) -> list[str]:
    """Return settings that are or were not those of this project's recipe, a warm start, and other people."""
    changed = run.get("changed")
    if changed is None:
        said = ["settings not compared with the recipe's"]
    else:
        said = [f"{key}={value}" for key, value in changed.items()]
        said += run_record.told(run.get("changes", []))
        said += (
            [f"started from {run.get('from', {}).get('start') or 'a checkpoint'}"] if run.get("start") else []
        )
    known = DATA_SETS.get(data_set(run["recipe"]))
    if known and run["data"]["people"] != known.people:
        people = f"{run['data']['people']:,} people instead of the {known.people:,}"
        said.append(f"trained on {people} of {known.folder}")
    return said


def _verification(results: dict[str, Any], run: dict[str, Any]) -> dict[str, _Figure]:
    """Return the accuracies of the sets that the run's last checkpoint was judged on, by column."""
    return {
        name: _Figure(100 * judged["results"][title]["accuracy"], _other_size(name, judged["pairs"]))
        for title in _titles(results, run)
        for name, judged in results["sets"].items()
        if name in COLUMNS and title in judged["results"]
    }


def _identification(results: dict[str, Any], run: dict[str, Any]) -> dict[str, _Figure]:
    """Return the figures of MegaFace: with its million distractors, or else with the most there were."""
    figures = {}
    for title in _titles(results, run):
        judged, otherwise = results["models"][title], _other_probes(results)
        sizes = {int(size): result["rank_1"] for size, result in judged["sizes"].items()}
        million = COLUMNS["megaface_id"].size
        size = million if million in sizes else max(sizes)
        figures["megaface_id"] = _Figure(100 * sizes[size], _other_size("megaface_id", size) + otherwise)
        tar = judged["tar_at_far"].get(MEGAFACE_FAR)
        if tar is not None:
            # A rate of all comparisons: more distractors than the paper's only resolve it better.
            size = min(results["distractors"], COLUMNS["megaface_ver"].size)
            figures["megaface_ver"] = _Figure(100 * tar, _other_size("megaface_ver", size) + otherwise)
    return figures


_ORIGIN = {"source?": TEXT}
_MODEL = {**_ORIGIN, "origin?": _ORIGIN}
_FORMS: dict[str, Form] = {
    "verification": {
        "kind": Leaf('"verification"', "verification".__eq__),
        "models": Each(_MODEL),
        "sets": Each({"pairs": COUNT, "results": Each({"accuracy": NUMBER})}),
    },
    "identification": {
        "kind": Leaf('"identification"', "identification".__eq__),
        "models": Each(
            {**_MODEL, "sizes": Each({"rank_1": NUMBER}, NUMERAL, 1), "tar_at_far": Each(Maybe(NUMBER))}
        ),
        "probes": COUNT,
        "distractors": COUNT,
        "left_out?": Maybe(dict.fromkeys(("probes", "distractors"), Maybe(COUNT))),
    },
}
_RESULTS = (
    ("verification", VERIFICATION, _verification),
    ("identification", IDENTIFICATION, _identification),
)


def _other_size(column: str, size: int) -> list[str]:
    title, paper, unit = COLUMNS[column]
    return [] if size == paper else [f"{title} on {size:,} {unit} instead of {paper:,}"]


def _other_probes(results: dict[str, Any]) -> list[str]:
    """Say which noise is still among probes and distractors, and how many probes there are but for noise."""
    left_out = results.get("left_out") or {"probes": None, "distractors": None}
    noisy = [name for name in ("probes", "distractors") if left_out[name] is None]
    probes = results["probes"] + (left_out["probes"] or 0)
    return [
        *([f"not refined: no noise was left out of the {' and '.join(noisy)}"] if noisy else []),
        *([f"{probes:,} probes instead of {PROBES:,}"] if probes != PROBES else []),
    ]


def _titles(results: dict[str, Any], run: dict[str, Any]) -> Iterator[str]:
    """Iterate the models that are the last checkpoint of this run, not of another and not its first."""
    for title, model in results["models"].items():
        origin = model.get("origin", model)
        if all(origin.get(key) == run.get(key) for key in ("recipe", "seed", "settings")):
            prefix, number = parse(origin["source"])
            if (Path(prefix).name, number) == ("model", 0):
                yield title


def _table(number: int, title: str, columns: Sequence[str], *rows: tuple[Any, ...]) -> PaperTable:
    """Make a table of rows: name, figures, recipe, and where they are known, published figures, their source.

    None in figures is a dash.
    """

    def by_column(figures: Sequence[float | None]) -> dict[str, float]:
        return {column: figure for column, figure in zip(columns, figures) if figure is not None}

    made = []
    for name, paper, recipe, *original in rows:
        published = Published(by_column(original[0]), original[1]) if original else None
        made.append(PaperRow(name, by_column(paper), published, recipe))
    return PaperTable(number, title, tuple(columns), tuple(made))


R34, R50, R100 = (f"ms1mv2_arcface_r{depth}_{{}}.yaml".format for depth in (34, 50, 100))
TABLE_2, TABLE_5, TABLE_6 = (f"{DENG}, Table {number}" for number in (2, 5, 6))
TABLES = [
    _table(
        1,
        "Verification (%) with different margins, ResNet-50 on CASIA",
        ("lfw", "cfp_fp", "agedb_30"),
        ("ArcFace", (99.53, 95.56, 95.15), "casia_arcface.yaml", (99.53, 95.56, 95.15), TABLE_2),
        (
            *("SphereFace", (99.42, None, None), "casia_sphereface.yaml", (99.11, 94.38, 91.70)),
            f"{TABLE_2}: SphereFace (1.35) with this network; 99.42 is that of Liu et al. 2017b with theirs",
        ),
        ("CosFace", (99.51, 95.44, 94.56), "casia_cosface.yaml", (99.51, 95.44, 94.56), TABLE_2),
        ("LinearFace(a=0.88, b=0.88)", (99.55, 97.01, 94.66), "casia_teacher.yaml"),
        ("LinearFace(a=0.88, b=1)", (99.48, 96.81, 95.05), "casia_linearface_088_1.yaml"),
        ("LinearFace(a=1, b=1)", (99.48, 96.80, 94.40), "casia_linearface_1_1.yaml"),
    ),
    _table(
        2,
        "Verification (%) with the teacher's filter, ArcFace on MS1MV2",
        ("lfw", "calfw", "cfp_fp"),
        ("resnet34", (99.65, 95.85, 92.12), R34("teacher"), (99.65, None, 92.12), V1),
        ("resnet34(k=1)", (99.76, 96.03, 97.23), R34("student_k1")),
        ("resnet34(k=3)", (99.76, 96.05, 97.27), R34("student_k3")),
        ("resnet50", (99.80, 95.80, 92.74), R50("teacher"), (99.80, None, 92.74), V1),
        ("resnet50(k=1)", (99.81, 95.93, 98.25), R50("student_k1")),
        ("resnet50(k=3)", (99.81, 95.95, 98.30), R50("student_k3")),
        ("resnet100", (99.77, 96.10, 98.27), R100("teacher"), (99.77, None, 98.27), V2),
        ("resnet100(k=1)", (99.83, 96.10, 98.64), R100("student_k1")),
        ("resnet100(k=3)", (99.83, 96.10, 98.71), R100("student_k3")),
    ),
    _table(
        3,
        "MegaFace (%) with the teacher's filter, ArcFace on MS1MV2",
        MEGAFACE,
        ("resnet34", (96.09, 96.72), R34("teacher"), (96.70, None), V1),
        ("resnet34(k=1)", (97.61, 98.03), R34("student_k1")),
        ("resnet34(k=3)", (97.74, 98.03), R34("student_k3")),
        ("resnet50", (97.26, 97.62), R50("teacher"), (97.64, None), V1),
        ("resnet50(k=1)", (98.26, 98.48), R50("student_k1")),
        ("resnet50(k=3)", (98.33, 98.55), R50("student_k3")),
        ("resnet100", (98.35, 98.6), R100("teacher"), (98.35, 98.48), TABLE_6),
        ("resnet100(k=1)", (98.56, 98.8), R100("student_k1")),
        ("resnet100(k=3)", (98.70, 98.83), R100("student_k3")),
    ),
    _table(
        4,
        "Verification (%) with different components, ResNet-50 on CASIA",
        ("calfw", "cplfw", "agedb_30"),
        ("LinearFace", (93.3, 89.08, 94.66), "casia_teacher.yaml"),
        ("LinearFace+TS", (93.73, 89.75, 95.05), "casia_student_ts.yaml"),
        ("LinearFace+Gen", (94.3, 90.13, 95.91), "casia_gen.yaml"),
        ("LinearFace+TS+Gen", (94.58, 90.33, 95.91), "casia_student.yaml"),
    ),
    _table(
        5,
        "Verification (%) of different methods",
        ("lfw", "calfw", "cplfw"),
        ("Human-Individual", (97.27, 82.32, 81.21), None, (97.27, 82.32, 81.21), TABLE_5),
        ("Human-Fusion", (99.85, 86.50, 85.24), None, (99.85, 86.50, 85.24), TABLE_5),
        ("CenterLoss", (98.75, 85.48, 77.48), None, (98.75, 85.48, 77.48), TABLE_5),
        ("SphereFace", (99.27, 90.30, 81.40), None, (99.27, 90.30, 81.40), TABLE_5),
        ("VGGFace2", (99.43, 90.37, 84.00), None, (99.43, 90.57, 84.00), TABLE_5),
        ("ArcFace", (99.82, 95.45, 92.08), R100("teacher"), (99.82, 95.45, 92.08), TABLE_5),
        ("Proposed LATSE", (99.82, 96.20, 93.48), "ms1mv2_student.yaml"),
    ),
    _table(
        6,
        "MegaFace (%) of different methods, small and large training sets",
        MEGAFACE,
        ("Softmax (small)", (54.85, 65.92), None, (54.85, 65.92), TABLE_6),
        ("TripletLoss (small)", (64.79, 78.32), None, (64.79, 78.32), TABLE_6),
        ("SphereFace (small)", (72.73, 85.56), None, (72.729, 85.561), TABLE_6),
        ("SphereFace+ (small)", (73.03, None), None, (73.03, None), TABLE_6),
        ("CosFace (small)", (77.11, 89.88), None, (77.11, 89.88), TABLE_6),
        ("ArcFace (CASIA)", (77.50, 92.34), None, (77.50, 92.34), TABLE_6),
        ("ArcFace,r (CASIA)", (91.75, 93.69), "casia_arcface.yaml", (91.75, 93.69), TABLE_6),
        ("Proposed LATSE,r (CASIA)", (94.74, 95.38), "casia_student.yaml"),
        ("TripletLoss (large)", (70.49, 86.47), None, (70.49, 86.47), TABLE_6),
        ("CosFace (large)", (82.72, 96.65), None, (82.72, 96.65), TABLE_6),
        ("ArcFace,r (large)", (98.35, 98.48), R100("teacher"), (98.35, 98.48), TABLE_6),
        ("SV-AM-Softmax,r (large)", (98.82, 99.03), None),
        ("Proposed LATSE,r (large)", (99.14, 99.19), "ms1mv3_student.yaml"),
    ),
]
