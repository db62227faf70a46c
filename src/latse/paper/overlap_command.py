"""The sub-command `latse data overlap`: what a training set and verification pairs have in common."""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from pathlib import Path
from typing import Any, Iterator, Sequence

import numpy as np

from latse import devices
from latse.data.shards.clean import LEFT_OUT, write_clean
from latse.data.shards.names import read_names
from latse.data.shards.records import Shard
from latse.data.shards.shard_writer import MOST_SHARDS
from latse.data.shards.staging import refuse_set
from latse.errors import LatseError, check_range
from latse.eval.candidates import FaceModel, open_model
from latse.files import locked, make_parents, refuse_existing, refuse_same, write_json, write_text
from latse.paper import overlap_people, overlap_pictures
from latse.paper.overlap_pictures import digest
from latse.paper.overlap_report import BESIDE, KINDS, PERSON, Finding, Report
from latse.paper.overlap_sets import PairSet, by_digest, read_set
from latse.paper.set_embeddings import binding, embeddings_of
from latse.provenance import provenance
from latse.train import means
from latse.train.means import Rows
from latse.train.training import open_shard


def run(args: argparse.Namespace) -> None:
    """Look for pictures and people, print, and write what was asked for; raise LatseError for bad input."""
    _refuse(args)
    shard = open_shard(args.train)
    names = read_names(shard.folder, shard.classes)
    contexts = devices.contexts(args)
    model = None
    if args.model:
        means.check_people(shard.labels, str(shard.folder))
        model = open_model(args.model, contexts, args.batch_size, args.train_data)
    sets = [read_set(path) for path in args.pairs]
    with contextlib.ExitStack() as until_written:
        rows = model and until_written.enter_context(_embedded(args, model, shard))
        people, threshold, findings = None, None, []
        if model:
            people, threshold, findings = _people(args, model, shard, sets, rows)
        findings += _pictures(shard, sets)
        findings.sort(key=lambda found: (found.pairs, KINDS.index(found.kind), -found.likeness))
        report = Report(shard, names, sets, findings, threshold, people)
        print(report.table())
        _write(args, report, model, contexts)


def _refuse(args: argparse.Namespace) -> None:
    """Raise LatseError for what need not wait for hours of work."""
    if args.far is not None and not args.model:
        raise LatseError("--far is the rate of --model, which is not given")
    if args.far is not None and not 0 < args.far < 1:
        raise LatseError(f"--far is {args.far:g}, must be above 0 and below 1")
    check_range("--shards", args.shards, 1, MOST_SHARDS)
    refuse_same(args, "list", "sheet", "json", "without")
    refuse_existing(*filter(None, (args.list, args.sheet)))
    if args.without:
        refuse_set(args.without, args.train)
    make_parents(args.list, args.sheet, args.json, args.without)


@contextlib.contextmanager
def _embedded(args: argparse.Namespace, model: FaceModel, shard: Shard) -> Iterator[Rows]:
    """Yield the embeddings of the training set; beside the first output lies a file of them until the end."""
    embeddings = embeddings_of(model, shard)
    with tempfile.TemporaryDirectory() as nowhere:
        out = next(filter(None, (args.json, args.list, args.sheet, args.without)), f"{nowhere}/overlap")
        part = Path(f"{out}.embeddings.part")
        with locked(part.parent):
            rows = embeddings.all(part, binding(model, shard, args.train_data))
        yield rows
        part.unlink(missing_ok=True)


def _pictures(shard: Shard, sets: Sequence[PairSet]) -> list[Finding]:
    """Return the pictures that training set and pairs have in common."""
    starts = np.cumsum([0, *(len(pairs.images) for pairs in sets)])
    pictures = np.concatenate([pairs.grey() for pairs in sets])
    encodings = [(its, start + image) for start, pairs in zip(starts, sets) for its, image in pairs.encodings]
    images = (image for pairs in sets for image in pairs.images)
    pixels = [(digest(image), number) for number, image in enumerate(images)]
    found = overlap_pictures.find(shard, pictures, by_digest(encodings), by_digest(pixels))
    findings = []
    for match in found:
        number = int(np.searchsorted(starts, match.image, side="right")) - 1
        image = match.image - int(starts[number])
        person = int(sets[number].people[image])
        findings.append(
            Finding(match.kind, number, image, person, [match.position], match.likeness, match.mirrored, 1)
        )
    return findings


def _people(
    args: argparse.Namespace, model: FaceModel, shard: Shard, sets: Sequence[PairSet], rows: Rows
) -> tuple[int, overlap_people.Threshold, list[Finding]]:
    """Return how many training people have a mean, the threshold, and the people found."""
    embeddings = [pairs.embeddings(model) for pairs in sets]
    for pairs, its in zip(sets, embeddings):
        if its.shape[1] != rows[:1].shape[1]:
            raise LatseError(
                f"the features of {pairs.path} have {its.shape[1]} dimensions, those of {shard.folder} "
                f"{rows[:1].shape[1]}"
            )
    settled = means.settle(rows, shard.labels, shard.classes)
    threshold = overlap_people.measure(rows, settled, args.far, str(shard.folder))
    findings = []
    for number, (pairs, its) in enumerate(zip(sets, embeddings)):
        hits = overlap_people.find(settled.means, its, threshold)
        both = np.stack([pairs.people[hits.image], hits.person], axis=1)
        for person, label in np.unique(both, axis=0):
            ours = np.flatnonzero((both == [person, label]).all(axis=1))
            best = ours[np.argmax(hits.cosine[ours])]
            image, cosine = int(hits.image[best]), float(hits.cosine[best])
            positions = _likest(shard, rows, int(label), its[image])
            findings.append(Finding(PERSON, number, image, int(person), positions, cosine, False, len(ours)))
    return int((~settled.means.nobody).sum()), threshold, findings


def _likest(shard: Shard, rows: Rows, label: int, embedding: np.ndarray) -> list[int]:
    """Return the positions of the label's images that are most like an embedding, the likest first."""
    positions = np.flatnonzero(shard.labels == label)
    order = np.argsort(-(rows[positions] @ embedding), kind="stable")
    return positions[order[:BESIDE]].tolist()


def _write(args: argparse.Namespace, report: Report, model: FaceModel | None, contexts: list) -> None:
    """Write the files that were asked for."""
    content = report.as_json()
    if args.list:
        write_text(args.list, report.listed())
    if args.sheet:
        report.draw(args.sheet)
    of_model = model and {"title": model.title, "origin": model.origin}
    if args.without:
        _write_without(args, report, {"model": of_model, "threshold": content["threshold"]})
    if args.json:
        head = {"kind": "overlap", "provenance": provenance(args, contexts), "model": of_model}
        write_json(args.json, {**head, "alike": overlap_pictures.ALIKE, **content})


def _write_without(args: argparse.Namespace, report: Report, made: dict[str, Any]) -> None:
    """Write the training set without what was found."""
    shard, labels = report.shard, report.shard.labels.copy()
    reasons: dict[int, dict[str, str]] = {}
    for found in sorted(report.findings, key=lambda found: found.kind == PERSON):
        pairs, first = report.sets[found.pairs].path, found.positions[0]
        if found.kind != PERSON:
            reasons[first] = {"reason": found.kind, "pairs": pairs}
        for position in np.flatnonzero(shard.labels == shard.labels[first]).tolist():
            reasons.setdefault(position, {"reason": PERSON, "pairs": pairs})
    labels[[*reasons]] = LEFT_OUT
    made = {"overlap": {"pairs": [pairs.path for pairs in report.sets], **made}}
    content = write_clean(shard, args.without, labels, made, args.shards, reasons)
    people = len(np.unique(shard.labels)) - len(np.unique(labels[labels != LEFT_OUT]))
    print(f"{args.without}: {content['images']} images; {len(reasons)} of {people} people are left out")
