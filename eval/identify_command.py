"""`latse identify`: find a person's other picture among distractors, as MegaFace does."""

from __future__ import annotations

import argparse
from pathlib import Path, PurePosixPath
from typing import Any, Callable, Dict, Iterator, NamedTuple, Optional, Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from tqdm import tqdm

from latse import devices
from latse.data.pairs import people_path, read_pairs, read_people
from latse.data.records import Shard
from latse.errors import LatseError
from latse.eval import megaface
from latse.eval.identification import (
    FARS,
    Gallery,
    Identification,
    UnitRows,
    identify,
    identify_among,
    mate_pairs,
)
from latse.eval.models import FeatureFile, Model, add_model_arguments, opened
from latse.eval.table import aligned
from latse.eval.verification import distinct_images
from latse.files import make_folder, replacing, write_json
from latse.provenance import provenance

# Images that are in memory at once: 77 MB.
IMAGES_AT_ONCE = 2048
FEATURE_OPTIONS = ("probe_features", "probe_list", "distractor_features", "distractor_list")


class Images(NamedTuple):
    """A set of images, read as they are needed.

    name : its file or folder; count : n; read : maps positions in a range to uint8 (m, 3, 112, 112);
    people : int64 (n,), None if nobody says.
    """

    name: str
    count: int
    read: Callable[[range], np.ndarray]
    people: Optional[np.ndarray]


class Subject(NamedTuple):
    """What is judged: a model's features of probes and distractors.

    title, origin : as of `latse.eval.models.Model`; probes : float32 (p, d), unit; people : int (p,);
    distractors : unit rows, None for the probes of other people.
    """

    title: str
    origin: Dict[str, Any]
    probes: np.ndarray
    people: np.ndarray
    distractors: Optional[Gallery]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `latse identify`."""
    add_model_arguments(parser, required=False)
    images = parser.add_argument_group("images, embedded by --model")
    images.add_argument(
        "--probes",
        metavar="FOLDER|FILE",
        help="shard, or pairs (.bin, .npz) with their X.people.npy: each image is a probe in turn, the other "
        "images of its person are its mates",
    )
    images.add_argument(
        "--distractors",
        metavar="FOLDER|FILE",
        help="shard or pairs of further people (default: the images of the probes' other people)",
    )
    images.add_argument(
        "--write-features",
        metavar="FOLDER",
        help="write the features as the MegaFace kit reads them: FOLDER/probes, FOLDER/distractors with the "
        "ending _TITLE.bin, FOLDER/probes.json, FOLDER/distractors.json",
    )
    features = parser.add_argument_group("or features of the MegaFace development kit")
    features.add_argument("--probe-features", metavar="FOLDER", help="of the probes (FaceScrub)")
    features.add_argument("--probe-list", metavar="FILE.json", help="their paths, and people (else: folders)")
    features.add_argument("--distractor-features", metavar="FOLDER", help="of the distractors (MegaFace)")
    features.add_argument("--distractor-list", metavar="FILE.json", help="their paths")
    features.add_argument(
        "--ending",
        nargs="+",
        metavar="ENDING",
        help="of the feature files behind an image's path, such as _r100.bin; one for each model",
    )
    features.add_argument(
        "--noisy-probes", metavar="FILE", help="leave out what insightface's facescrub_noises.txt names"
    )
    features.add_argument(
        "--noisy-distractors", metavar="FILE", help="leave out what insightface's megaface_noises.txt names"
    )
    parser.add_argument(
        "--sizes",
        type=int,
        nargs="+",
        metavar="N",
        help="numbers of distractors (default: powers of ten from 10, and all)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="S",
        help="of the order in which distractors are taken; a smaller gallery is the start of a larger one "
        "(default: %(default)s)",
    )
    parser.add_argument("--json", metavar="FILE", help="write all results and where they come from")
    parser.add_argument("--figure", metavar="FILE.png", help="plot the CMC curves of the largest gallery")


def run(args: argparse.Namespace) -> None:
    """Rank, print a table, and write what was asked for.

    A rank is 1 + the number of distractors whose cosine similarity to the probe is not below the mate's.

    Raises
    ------
    LatseError
        If an input is missing, damaged or does not fit, or an output cannot be written.
    """
    _check(args)
    for path in filter(None, (args.json, args.figure)):
        make_folder(Path(path).parent)
    report, curves = {}, {}
    for subject in _from_images(args) if args.probes else _from_kit(args):
        result = _identify(subject, args.sizes, args.seed)
        report[subject.title] = {"origin": subject.origin, **result.as_json()}
        curves[subject.title] = result
        counts = {
            "probes": len(subject.probes),
            "mates": result.ranks.shape[1],
            "distractors": result.sizes[-1],
        }
    print("{probes} probes, {mates} pairs of probe and mate, {distractors} distractors".format(**counts))
    print(_table(curves))
    if args.json:
        origin = provenance(args, devices.contexts(args) if args.model else None)
        write_json(args.json, {"kind": "identification", "provenance": origin, **counts, "models": report})
    if args.figure:
        _draw(args.figure, curves)


def _check(args: argparse.Namespace) -> None:
    given = [name for name in (*FEATURE_OPTIONS, "ending") if getattr(args, name)]
    if args.probes and given:
        raise LatseError(f"--probes takes images, --{given[0].replace('_', '-')} features: give one of them")
    if args.probes and not args.model:
        raise LatseError("--probes needs a --model that embeds its images")
    if not args.probes and len(given) < len(FEATURE_OPTIONS) + 1:
        missing = next(name for name in (*FEATURE_OPTIONS, "ending") if name not in given)
        raise LatseError(f"--{missing.replace('_', '-')} is missing (or give images with --probes)")
    if not args.probes and (args.model or args.distractors or args.write_features):
        raise LatseError("--model, --distractors and --write-features go with images, which --probes names")
    if args.probes and (args.noisy_probes or args.noisy_distractors):
        raise LatseError("lists of noisy entries name files of the MegaFace kit, not images of --probes")
    if args.ending and len({_title(ending) for ending in args.ending}) < len(args.ending):
        raise LatseError(f"--ending {' '.join(args.ending)}: two of them name the same model")
    if args.sizes and min(args.sizes) < 1:
        raise LatseError("--sizes must be at least 1")


def _from_images(args: argparse.Namespace) -> Iterator[Subject]:
    models = opened(args)
    probes = _read_images(args.probes)
    if probes.people is None:
        raise LatseError(f"{people_path(args.probes)} is missing: nobody says who is on these images")
    distractors = _read_images(args.distractors) if args.distractors else None
    for model in tqdm(models, desc="models", unit="model", leave=False, disable=len(models) == 1):
        embedded = {
            key: _embed(model, images)
            for key, images in (("probes", probes), ("distractors", distractors))
            if images is not None
        }
        if args.write_features:
            _write_features(args.write_features, model.title, embedded, probes.people)
        yield Subject(
            model.title, model.origin, embedded["probes"], probes.people, embedded.get("distractors")
        )


def _read_images(path: str) -> Images:
    """Open a shard, or read the distinct images of a file of pairs."""
    name = Path(path).stem
    if Path(path).is_dir():
        shard = Shard(path)

        def read(positions: range) -> np.ndarray:
            return np.stack([shard.read(position)[0].transpose(2, 0, 1) for position in positions])

        return Images(name, len(shard), read, shard.labels.astype(np.int64))
    people, pixels = read_people(path), read_pairs(path).images
    first, _ = distinct_images(pixels)
    return Images(
        name,
        len(first),
        lambda positions: pixels[first[positions.start : positions.stop]],
        None if people is None else people[first],
    )


def _embed(model: Model, images: Images) -> np.ndarray:
    """Return a model's features of images, float32 (n, d), each of norm 1."""
    if isinstance(model, FeatureFile):  # whose rows need no picture, but must be as many
        rows = model.embed(np.empty((images.count, 0)), images.name)
        return UnitRows(rows, f"{model.title} on {images.name}")[:]
    parts = []
    with tqdm(total=images.count, desc=f"{model.title} on {images.name}", unit="image", leave=False) as bar:
        for start in range(0, images.count, IMAGES_AT_ONCE):
            positions = range(start, min(start + IMAGES_AT_ONCE, images.count))
            name = images.name + (f" from image {start} on" if start else "")
            rows = model.embed(images.read(positions), name)
            parts.append(UnitRows(rows, f"{model.title} on {name}")[:])
            bar.update(len(positions))
    return np.concatenate(parts)


def _from_kit(args: argparse.Namespace) -> Iterator[Subject]:
    probes, distractors = megaface.read_list(args.probe_list), megaface.read_list(args.distractor_list)
    if args.noisy_probes:
        noise = megaface.read_noise(args.noisy_probes)
        probes = megaface.without_noise(probes, noise, megaface.PROBE_PARTS)
    if args.noisy_distractors:
        noise = megaface.read_noise(args.noisy_distractors)
        distractors = megaface.without_noise(distractors, noise, megaface.DISTRACTOR_PARTS)
    _, people = np.unique(megaface.people_of(probes), return_inverse=True)
    for ending in args.ending:
        files = [
            megaface.FeatureFiles(folder, images.paths, ending)
            for folder, images in ((args.probe_features, probes), (args.distractor_features, distractors))
        ]
        found, gallery = (UnitRows(each, str(each.folder)) for each in files)
        origin = {
            "source": [args.probe_features, args.distractor_features],
            "ending": ending,
            "noisy_probes": args.noisy_probes,
            "noisy_distractors": args.noisy_distractors,
        }
        yield Subject(_title(ending), origin, found[:], people, gallery)


def _title(ending: str) -> str:
    """Name a model as its files end: r100 for `_r100.bin`."""
    return PurePosixPath(ending).stem.strip("_") or ending


def _identify(subject: Subject, sizes: Optional[Sequence[int]], seed: int) -> Identification:
    gallery = subject.probes if subject.distractors is None else subject.distractors
    order = np.random.default_rng(seed).permutation(len(gallery))
    if subject.distractors is None:
        return identify_among(subject.probes, subject.people, sizes, order)
    return identify(subject.probes, mate_pairs(subject.people), gallery, sizes, order)


def _write_features(folder: str, title: str, embedded: Dict[str, np.ndarray], people: np.ndarray) -> None:
    for key, features in embedded.items():
        names = [str(person) for person in people] if key == "probes" else None
        paths = [f"{names[row] if names else key}/{row}.png" for row in range(len(features))]
        images = megaface.ImageList(paths, names)
        place = Path(folder)
        megaface.write_features(place / key, images, features, f"_{title}.bin", place / f"{key}.json")


def _table(results: Dict[str, Identification]) -> str:
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


def _draw(path: str, results: Dict[str, Identification]) -> None:
    figure = Figure(figsize=(6, 4.5), dpi=120, constrained_layout=True)
    FigureCanvasAgg(figure)
    cell = figure.subplots()
    for title, result in results.items():
        cell.step(*result.curve(result.sizes[-1]), where="post", label=title)
    distractors = next(iter(results.values())).sizes[-1]
    cell.set(xscale="log", xlabel="rank", ylabel="mates found", title=f"CMC among {distractors} distractors")
    cell.grid(alpha=0.3)
    cell.legend(frameon=False)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")
