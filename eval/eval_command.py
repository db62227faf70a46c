"""`latse eval`: judge models on pairs of people that they have never seen."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, Sequence

import numpy as np

from latse import devices
from latse.data.pairs.pairs import check_people, read_encoded, read_pairs, read_people
from latse.errors import MOST, LatseError, check_range
from latse.eval import confidence, figures, protocol
from latse.eval.candidates import FaceModel, open_models
from latse.eval.eval_arguments import DEFAULT_PAIRS
from latse.eval.restoration import judge_restoration
from latse.eval.verification import Verification, check_number, judge, pair_distance
from latse.files import make_parents, write_json
from latse.models import checkpoint
from latse.models.embedding import Network
from latse.models.feeding import Feeding
from latse.models.run_folder import parse
from latse.provenance import provenance
from latse.text_table import threshold_table, verification_table

FACES = "generated_output"


class PairSet(NamedTuple):
    """A file of pairs before its images are decoded.

    issame : bool (n,); people : int64 (2n,), the person on each image, None if nobody says.
    """

    path: str
    issame: np.ndarray
    people: np.ndarray | None


def run(args: argparse.Namespace) -> None:
    """Judge, print the table, and write what was asked for; raise LatseError for bad input."""
    make_parents(args.json, args.figure, args.generated, args.curves)
    check_range("--samples", args.samples, 0, MOST)
    pairs = args.pairs or ([] if args.protocol else _default_pairs())
    sets, models, contexts = read_sets(pairs), open_models(args), devices.contexts(args)
    _draw(args, models, sets)
    results = {name: judge_set(name, pair_set, models, args.samples) for name, pair_set in sets.items()}
    protocols = protocol.judge_by(args.protocol, models)
    report = {
        "kind": "verification",
        "provenance": provenance(args, contexts),
        "models": {model.title: model.origin for model in models},
        "sets": results,
        **({"protocols": protocols} if protocols else {}),
    }
    if args.json:
        write_json(args.json, report)
    if results:
        print(verification_table(results))
    if results and args.thresholds:
        print(threshold_table(results))
    for model in models:
        if "feeding" in model.origin:
            print(f"{model.title} gets {Feeding(**model.origin['feeding'])}")
    if protocols:
        print(protocol.figure_table(protocols))


def _default_pairs() -> list[str]:
    if not Path(DEFAULT_PAIRS).exists():
        raise LatseError(f"name the pairs with --pairs: there is no {DEFAULT_PAIRS}, the default")
    return [DEFAULT_PAIRS]


def read_sets(paths: Sequence[str]) -> dict[str, PairSet]:
    """Read what files of pairs say of their pairs, by the file's name without its ending.

    The images are decoded later, a set at a time: five sets of 6,000 pairs are 2 GB.

    Raises
    ------
    LatseError
        If two have one name, a file is damaged, has too few pairs, or its people contradict its pairs.
    """
    sets: dict[str, PairSet] = {}
    for path in paths:
        name = Path(path).stem
        if name in sets:
            raise LatseError(f"{path}: the name {name!r} is already taken; rename the file")
        issame, people = read_encoded(path).issame, read_people(path)
        check_number(len(issame), f"{path}: ")
        check_people(path, people, issame)
        sets[name] = PairSet(path, issame, people)
    return sets


def judge_set(name: str, pair_set: PairSet, models: Sequence[FaceModel], samples: int) -> dict[str, Any]:
    """Judge all models on one set and return what the JSON says of it."""
    images = read_pairs(pair_set.path).images
    return {
        "pairs": len(pair_set.issame),
        "different_pairs": int((~pair_set.issame).sum()),
        "people": None if pair_set.people is None else len(np.unique(pair_set.people)),
        "results": {model.title: judge_model(model, name, images, pair_set, samples) for model in models},
    }


def judge_model(
    model: FaceModel, name: str, images: np.ndarray, pair_set: PairSet, samples: int
) -> dict[str, Any]:
    """Judge one model on one set: all figures, with intervals where people are known."""
    distance = pair_distance(model.embed(images, name))
    verification, intervals = judge(distance, pair_set.issame), None
    if pair_set.people is not None and samples and verification.auc is not None:
        intervals = confidence.intervals(
            distance, pair_set.issame, pair_set.people, verification.roc["far"], samples
        )
    return {
        **verification_json(verification, intervals),
        "restoration": _restoration(model, images, pair_set),
    }


def verification_json(verification: Verification, intervals: confidence.Intervals | None) -> dict[str, Any]:
    """Return what the JSON says of one model on one set."""
    result = asdict(verification)
    result["exact"] = verification.exact._asdict()
    result["val_at_far_1e-3"] = verification.val._asdict() if verification.val else None
    del result["val"]
    spread = asdict(intervals) if intervals else {"low": None, "high": None}
    result["roc"].update(low=spread.pop("low"), high=spread.pop("high"))
    result["intervals"] = {"unit": "people", **spread} if intervals else None
    return result


def _restoration(model: FaceModel, images: np.ndarray, pair_set: PairSet) -> dict[str, Any] | None:
    """Judge the faces that a checkpoint generates; None without a decoder or known people."""
    if pair_set.people is None or _encoder(model) is None:
        return None
    symbol = checkpoint.load_symbol(checkpoint.symbol_path(parse(model.origin["source"])[0]))
    if FACES not in symbol.get_internals().list_outputs():
        return None
    decoder = _decoder(model)
    return judge_restoration(decoder, images, pair_set.people, decoder.batch_size)._asdict()


def _encoder(model: FaceModel) -> Network | None:
    """Return the network of a checkpoint; None for all else."""
    feature = getattr(model, "feature", None)
    return feature if isinstance(feature, Network) else None


def _decoder(model: FaceModel) -> Network:
    """Return the faces of a checkpoint as a function of images; raise LatseError if it has no decoder."""
    encoder, source = _encoder(model), model.origin["source"]
    return Network(*parse(source), FACES, encoder.contexts, encoder.batch_size, encoder.feeding)


def _draw(args: argparse.Namespace, models: Sequence[FaceModel], sets: dict[str, PairSet]) -> None:
    """Draw what was asked for of the checkpoints among the models."""
    if not (args.figure or args.generated or args.curves):
        return
    networks = [model for model in models if _encoder(model) is not None]
    if not networks:
        raise LatseError("there is no checkpoint among the models to draw pictures of")
    if args.curves:
        runs: dict[Path, str] = {}  # the models of one folder are of one run
        for model in networks:
            runs.setdefault(Path(model.origin["source"]).parent, model.title)
        metrics = {title: folder / "metrics.jsonl" for folder, title in runs.items()}
        figures.training_curves(args.curves, metrics)
    if args.figure or args.generated:
        if not sets:
            raise LatseError("there are no --pairs to draw the people of")
        _draw_faces(args, networks[0], next(iter(sets.values())))


def _draw_faces(args: argparse.Namespace, model: FaceModel, pair_set: PairSet) -> None:
    images = read_pairs(pair_set.path).images
    images = images[figures.one_image_per_person(images, pair_set.issame)]
    generated = _decoder(model)(images)
    if args.figure:
        figures.faces(args.figure, images, generated)
    if args.generated:
        figures.generated_faces(args.generated, generated)
