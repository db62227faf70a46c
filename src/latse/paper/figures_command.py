"""`latse figures`: the paper's Figures 1, 3, 4 and 5 from a run, its data and pairs of other people."""

from __future__ import annotations

import argparse
import functools
from pathlib import Path
from typing import Any, NamedTuple

import mxnet as mx
import numpy as np

from latse import devices
from latse.data.pairs.pairs import check_people, read_pairs, read_people
from latse.errors import MOST, LatseError, check_range
from latse.eval import figures, margin_curves
from latse.eval.margins_arguments import CLASSES, FIGURE_3
from latse.eval.verification import distinct_images
from latse.files import make_folder, read_json, write_json
from latse.form import ANYTHING, COUNT, NUMBER, SWITCH, TEXT, Each, Maybe, check
from latse.models.embedding import Network
from latse.models.run_folder import named_checkpoint, parameters_path, parse, stored
from latse.paper import filter_figure, stages_figure
from latse.provenance import provenance
from latse.symbols import margins
from latse.symbols.margins import Margin
from latse.train.training import open_shard

PEOPLE = 10  # of Figure 1
LABELS = 8  # of Figure 4
IMAGES = 10  # of the person of Figure 5
# What the figures take from the student's run.json.
FORM = {
    "settings": {
        "decoder": {"enabled": SWITCH},
        "filter": {"k": Maybe(COUNT)},
        "margin": {"name": TEXT},
    },
    "data?": Each(ANYTHING),
}


def run(args: argparse.Namespace) -> None:
    """Draw what was asked for, and write figures.json; raise LatseError for bad input."""
    contexts = devices.contexts(args)
    check_range("--batch-size", args.batch_size, 1, MOST)
    check_range("--asked", args.asked, 1)
    if args.k is not None:
        check_range("--k", args.k, 1)
    devices.share(args.batch_size, contexts)
    source = Source(args, contexts)
    absent = {} if args.only else source.absent()
    out = make_folder(args.out)
    drawn: dict[str, dict[str, Any]] = {}
    for number in args.only or FIGURES:
        if number in absent:
            print(f"Figure {number}: {absent[number]}")
            continue
        drawn[number] = FIGURES[number](source, out)
        print(f"Figure {number}: {out / drawn[number]['file']}")
    report = {
        "kind": "figures",
        "provenance": provenance(args, contexts),
        "run": {key: source.record.get(key) for key in ("recipe", "seed", "settings")},
        "figures": drawn,
        "absent": absent,
    }
    write_json(out / "figures.json", report)


class People(NamedTuple):
    """The distinct images of a set of pairs, and whom they show.

    Attributes
    ----------
    name : str
        Of the set.
    images : uint8 (m, 3, 112, 112)
        RGB, as they come.
    person : int64 (m,)
        The number of each image's person, from 0 on as they come.
    """

    name: str
    images: np.ndarray
    person: np.ndarray

    def first_images(self, people: int) -> np.ndarray:
        """Return the first image of each of the first people, uint8 (up to `people`, 3, 112, 112)."""
        return self.images[np.unique(self.person, return_index=True)[1][:people]]

    def most_images(self) -> int:
        """Return the first of those people who have the most images."""
        return int(np.bincount(self.person).argmax())


def people_in_pairs(path: str) -> People:
    """Read pairs and who is on them, from the file beside them, else from what the pairs say themselves.

    Raises LatseError if one of the two is missing or damaged, or they do not fit.
    """
    pairs = read_pairs(path)
    known = read_people(path)
    check_people(path, known, pairs.issame)
    numbers = figures.find_people(pairs.images, pairs.issame) if known is None else known
    distinct = distinct_images(pairs.images)[0]
    _, first, person = np.unique(numbers[distinct], return_index=True, return_inverse=True)
    return People(Path(path).stem, pairs.images[distinct], np.argsort(np.argsort(first))[person])


class Source:
    """What figures are drawn from: the options, the devices, the student's folder and its run.json.

    Raises LatseError if run.json is missing or lacks settings.
    """

    def __init__(self, args: argparse.Namespace, contexts: list[mx.Context]) -> None:
        self.args, self.contexts = args, contexts
        self.folder = Path(args.run_folder) / "student"
        self.prefix = self.folder / "model"
        self.record = read_json(self.folder / "run.json")
        check(self.folder / "run.json", self.record, FORM)
        self.settings: dict[str, Any] = self.record["settings"]
        self.k = self.settings["filter"]["k"] if args.k is None else args.k

    @functools.cached_property
    def teacher(self) -> str:
        """The checkpoint that is asked for verdicts, by default the last one of the run's teacher."""
        folder = Path(self.args.run_folder) / "teacher"
        if self.args.teacher:
            return self.args.teacher
        return named_checkpoint(str(folder)) if stored(folder / "model") else f"{folder / 'model'},0"

    @functools.cached_property
    def people(self) -> People:
        """People of the pairs."""
        return people_in_pairs(self.args.pairs)

    def absent(self) -> dict[str, str]:
        """Return why some figures cannot be drawn of this run, by their numbers."""
        reasons = {}
        if not self.settings["decoder"]["enabled"]:
            reasons.update(dict.fromkeys("15", "the student has no decoder"))
        elif not self.args.stages and len(stages_figure.stored_stages(self.prefix)) < 3:
            reasons["5"] = (
                "the run has stored fewer than three checkpoints: it needs train.keep all, or three of the "
                "iterations that it reaches, and train.checkpoint_every at most a third of train.iterations"
            )
        if self.k is None:
            reasons["4"] = "the student was trained without a filter"
        elif not (self.args.verdicts or self.args.teacher or parameters_path(*parse(self.teacher)).exists()):
            reasons["4"] = "the run has no teacher, and no --verdicts are given"
        return reasons


def _faces(source: Source, out: Path) -> dict[str, Any]:
    people = source.people
    images = people.first_images(PEOPLE)
    network = Network(source.prefix, 0, "generated_output", source.contexts, source.args.batch_size)
    figures.faces(out / "figure-1.png", images, network(images))
    return {
        "file": "figure-1.png",
        "caption": f"{len(images)} people of {people.name}. From above: the image, the frontal face that the "
        "decoder restores from its embedding, and the absolute difference of the two.",
    }


def _logits(source: Source, out: Path) -> dict[str, Any]:
    lines = dict(_line(name, {}) for name in FIGURE_3)
    own = dict(source.settings["margin"])
    name = own.pop("name")
    check(source.folder / "run.json", own, Each(NUMBER), "settings.margin")
    # Of a class in a user's own file run.json does not say where it lies; others than margins have no h(θ).
    if margins.source(name) is None and isinstance(margins.create(name, CLASSES, **own), Margin):
        lines.update([_line(name, own)])
    png, svg = margin_curves.draw_curves(out / "figure-3", lines)
    return {
        "file": svg.name,
        "png": png.name,
        "caption": f"Target logits of {len(lines)} losses over the angle θ between embedding and class "
        "centre; the probability that they give the target while all other centres are at π/2; its gradient.",
    }


def _line(name: str, changed: dict[str, float]) -> tuple[str, Margin]:
    """Return the title of a margin with its parameters, and the margin."""
    margin, parameters = margins.create(name, CLASSES, **changed), {**margins.parameters(name), **changed}
    return " ".join([name, *(f"{key}={parameters[key]:g}" for key in margin.loosest)]), margin


def _kept_and_refused(source: Source, out: Path) -> dict[str, Any]:
    args = source.args
    if source.k is None:
        raise LatseError(f"{source.folder} was trained without a filter: name --k for Figure 4")
    shard = open_shard(args.data)
    if args.verdicts:
        judged = filter_figure.stored_verdicts(args.verdicts, source.k, shard)
    else:
        how = args.asked, source.contexts, args.batch_size
        judged = filter_figure.asked_verdicts(source.teacher, source.k, shard, *how)
    labels = filter_figure.choose_people(judged, LABELS)
    filter_figure.draw(out / "figure-4.png", shard, judged, labels)
    caption = filter_figure.caption(judged, source.k)
    if source.record.get("data", {}).get("digest") != shard.digest():
        name = shard.folder.resolve().name
        caption += f" The set {name} is not the one that the student was trained on."
    return {
        "file": "figure-4.png",
        "caption": caption,
        "k": source.k,
        "counts": judged.counts(),
    }


def _stages(source: Source, out: Path) -> dict[str, Any]:
    args, people = source.args, source.people
    person = people.most_images() if args.person is None else args.person
    images = people.images[people.person == person][:IMAGES]
    if not len(images):
        raise LatseError(f"--person {person}: {args.pairs} has people 0 to {people.person.max()}")
    numbers = args.stages or stages_figure.early_middle_last(source.prefix)
    early, middle, last = numbers
    rows = {
        f"{stage}\n{number} iterations": stages_figure.restored(
            source.prefix, number, last, images, source.contexts, args.batch_size
        )
        for stage, number in zip(stages_figure.STAGES, numbers)
    }
    stages_figure.draw(out / "figure-5.png", images, rows)
    return {
        "file": "figure-5.png",
        "caption": f"Images of one person of {people.name}, and what the decoder after {last} iterations "
        f"restores from the embeddings of the encoders after {early}, {middle} and {last}.",
        "person": person,
        "stages": list(numbers),
    }


FIGURES = {"1": _faces, "3": _logits, "4": _kept_and_refused, "5": _stages}
