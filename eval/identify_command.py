"""`latse identify`: find a person's other picture among distractors, as MegaFace does."""

from __future__ import annotations

import argparse
from pathlib import Path, PurePosixPath
from typing import Any, Dict, Iterator, NamedTuple, Tuple

import numpy as np
from tqdm import tqdm

from latse import devices
from latse.data.pairs.pairs import people_path
from latse.errors import LatseError, check_range
from latse.eval import canvas, megaface
from latse.eval.candidates import FaceModel, open_models
from latse.eval.confidence import share_interval
from latse.eval.identification import (
    FARS,
    Gallery,
    Identification,
    UnitRows,
    identify,
    identify_among,
    mate_pairs,
)
from latse.eval.image_sets import ImageSet, embed, open_images
from latse.eval.megaface import Refined
from latse.files import make_folder, make_parents, write_json
from latse.provenance import provenance
from latse.text_table import aligned

KIT_OPTIONS = ("probe_features", "distractor_features", "ending")


class Found(NamedTuple):
    """Ranks, and whose pair of probe and mate each is: int (pairs,)."""

    result: Identification
    person: np.ndarray


Judged = Tuple[str, Dict[str, Any], int, Found]  # title, origin, number of probes, ranks


def run(args: argparse.Namespace) -> None:
    """Rank, write what was asked for, and print a table; raise LatseError for bad input.

    A rank is 1 + the number of distractors whose cosine similarity to the probe is not below the mate's.
    """
    (_check_images if args.probes else _check_kit)(args)
    for size in args.sizes or ():
        check_range("--sizes", size, 1)
    make_parents(args.json, args.figure)
    if args.write_features:
        make_folder(args.write_features)
    listed = _lists(args)
    judged = list(_of_images(args, **listed) if args.probes else _of_kit(args, **listed))
    results = {title: found.result for title, _, _, found in judged}
    *_, probes, (first, _) = judged[0]
    counts = {"probes": probes, "mates": first.ranks.shape[1], "distractors": first.sizes[-1]}
    if args.json:
        report = {
            "kind": "identification",
            "provenance": provenance(args, devices.contexts(args) if args.model else None),
            **counts,
            "left_out": {key: refined and refined.left_out for key, refined in listed.items()},
            "models": {
                title: {"origin": origin, **_with_intervals(found)} for title, origin, _, found in judged
            },
        }
        write_json(args.json, report)
    if args.figure:
        _draw(args.figure, results)
    print("{probes} probes, {mates} pairs of probe and mate, {distractors} distractors".format(**counts))
    print(_table(results))


def _check_images(args: argparse.Namespace) -> None:
    stray = next((name for name in KIT_OPTIONS if getattr(args, name)), None)
    if stray:
        raise LatseError(f"--probes takes images, --{stray.replace('_', '-')} features: give one of them")
    if not args.model:
        raise LatseError("--probes needs a --model that embeds its images")
    if args.distractor_list and not args.distractors:
        raise LatseError("--distractor-list names pictures in a folder, which --distractors must name")
    for kind in ("probe", "distractor"):
        if getattr(args, f"noisy_{kind}s") and not getattr(args, f"{kind}_list"):
            raise LatseError(f"--noisy-{kind}s names entries of a --{kind}-list, which is missing")


def _check_kit(args: argparse.Namespace) -> None:
    needed = ("probe_features", "probe_list", "distractor_features", "distractor_list", "ending")
    missing = next((name for name in needed if not getattr(args, name)), None)
    if missing:
        option = f"--{missing.replace('_', '-')}"
        raise LatseError(f"name the images with --probes, or of a kit's features also {option}")
    if args.model or args.distractors or args.write_features:
        raise LatseError("--model, --distractors and --write-features go with images, which --probes names")
    if len({_title(ending) for ending in args.ending}) < len(args.ending):
        raise LatseError(f"--ending {' '.join(args.ending)}: two of them name the same model")


def _of_images(
    args: argparse.Namespace, probes: Refined | None, distractors: Refined | None
) -> Iterator[Judged]:
    models, images = open_models(args), open_images(args.probes, probes)
    others = open_images(args.distractors, distractors) if args.distractors else None
    if images.people is None:
        raise LatseError(f"{people_path(args.probes)} is missing: nobody says who is on these images")
    for model in tqdm(models, desc="models", unit="model", leave=False, disable=len(models) == 1):
        yield model.title, model.origin, len(images.picked), _judge(model, images, others, args)


def _lists(args: argparse.Namespace) -> dict[str, Refined | None]:
    """Read the lists of probes and distractors that are given, and which of their entries are noise."""
    files = {
        "probes": (args.probe_list, args.noisy_probes, megaface.PROBE_PARTS),
        "distractors": (args.distractor_list, args.noisy_distractors, megaface.DISTRACTOR_PARTS),
    }
    return {key: megaface.read_refined(*each) if each[0] else None for key, each in files.items()}


def _judge(
    model: FaceModel, probes: ImageSet, distractors: ImageSet | None, args: argparse.Namespace
) -> Found:
    """Embed and rank; a gallery is gone before that of the next model is made."""
    features = embed(model, probes)[:]
    gallery = embed(model, distractors) if distractors else None
    if args.write_features:
        _write_features(args.write_features, model.title, "probes", probes, features)
        if distractors:
            _write_features(args.write_features, model.title, "distractors", distractors, gallery)
    return _identify(features, probes.people, gallery, args)


def _of_kit(args: argparse.Namespace, probes: Refined, distractors: Refined) -> Iterator[Judged]:
    _, people = np.unique(megaface.people_of(probes.images), return_inverse=True)
    files = (args.probe_features, probes.images.paths), (args.distractor_features, distractors.images.paths)
    for ending in args.ending:
        opened = (megaface.FeatureFiles(folder, paths, ending) for folder, paths in files)
        features, gallery = (UnitRows(rows, rows.called) for rows in opened)
        origin = {
            "source": [args.probe_features, args.distractor_features],
            "ending": ending,
            "noisy_probes": args.noisy_probes,
            "noisy_distractors": args.noisy_distractors,
        }
        yield _title(ending), origin, len(people), _identify(features[:], people, gallery, args)


def _title(ending: str) -> str:
    """Name a model as its files end: r100 for `_r100.bin`."""
    return PurePosixPath(ending).stem.strip("_") or ending


def _identify(
    probes: np.ndarray, people: np.ndarray, gallery: Gallery | None, args: argparse.Namespace
) -> Found:
    """Rank among a gallery, None for the images of the probes' other people."""
    order = np.random.default_rng(args.seed).permutation(len(probes if gallery is None else gallery))
    pairs = mate_pairs(people)
    person = people[pairs[:, 0]]
    if gallery is None:
        return Found(identify_among(probes, people, args.sizes, order), np.sort(person))
    return Found(identify(probes, pairs, gallery, args.sizes, order), person)


def _with_intervals(found: Found) -> dict[str, Any]:
    """Return what the JSON says of ranks, with intervals of rank 1 over the people of the probes."""
    content = found.result.as_json()
    for size, ranks in zip(found.result.sizes, found.result.ranks):
        content["sizes"][str(size)]["rank_1_interval"] = share_interval(ranks == 1, found.person)
    return content


def _write_features(folder: str, title: str, key: str, images: ImageSet, features: Gallery) -> None:
    """Write features for the kit, under the paths of the images' list or else under their numbers."""
    listed = images.listed
    if listed is None:
        names = [str(person) for person in images.people] if key == "probes" else None
        paths = [f"{names[row] if names else key}/{row}.png" for row in range(len(features))]
        listed = megaface.ImageList(paths, names)
    place = Path(folder)
    megaface.write_features(place / key, listed, features, f"_{title}.bin", place / f"{key}.json")


def _table(results: dict[str, Identification]) -> str:
    """Show rank-1 by number of distractors and TAR by FAR, in percent, a row for each model."""
    first = next(iter(results.values()))
    rows = [["", *(f"rank 1 @{size}" for size in first.sizes), *(f"TAR@{far:g}" for far in FARS)]]
    for title, result in results.items():
        ranks = [f"{100 * result.cmc(size, 1):.2f}" for size in result.sizes]
        tars = [f"{100 * result.tar_at_far(far):.2f}{'' if result.resolves(far) else '*'}" for far in FARS]
        rows.append([title, *ranks, *tars])
    if all(first.resolves(far) for far in FARS):
        return aligned(rows)
    note = f"* before the first false accept: {first.comparisons} comparisons resolve no finer"
    return f"{aligned(rows)}\n{note}"


def _draw(path: str, results: dict[str, Identification]) -> None:
    figure = canvas.blank((6, 4.5))
    cell = figure.subplots()
    for title, result in results.items():
        cell.step(*result.curve(result.sizes[-1]), where="post", label=canvas.plain(title))
    distractors = next(iter(results.values())).sizes[-1]
    cell.set(xscale="log", xlabel="rank", ylabel="mates found", title=f"CMC among {distractors} distractors")
    cell.grid(alpha=0.3)
    cell.legend(frameon=False)
    canvas.save(figure, path)
