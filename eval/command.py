"""`latse eval`: judge a checkpoint on pairs of people that it has never seen."""

from __future__ import annotations

import argparse
import functools
from pathlib import Path
from typing import Any, Callable, Dict, List

import mxnet as mx

from latse import checkpoint, devices
from latse.data.pairs import Pairs, read_pairs
from latse.errors import LatseError
from latse.eval import figures
from latse.eval.embedding import Network
from latse.eval.references import fitted_references, raw_pixels
from latse.eval.table import verification_table
from latse.eval.verification import Feature, verify
from latse.files import make_folder, read_json, write_json
from latse.runtime import versions

TITLES = {
    "raw_pixels": "raw pixels",
    "whitened_pca": "whitened PCA",
    "fisherfaces": "fisherfaces",
    "untrained": "untrained encoder",
    "teacher": "teacher",
}
ORIGIN_KEYS = ("checkpoint", "recipe", "seed", "settings", "versions", "device")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `latse eval`."""
    parser.add_argument(
        "--model",
        required=True,
        metavar="PREFIX,NUMBER",
        help="checkpoint to judge, of this project or insightface: PREFIX-symbol.json and PREFIX-NNNN.params "
        "with the output fc1_output (NUMBER 0 if left out)",
    )
    parser.add_argument(
        "--pairs",
        nargs="+",
        default=["data/orl/orl.bin"],
        metavar="FILE.bin",
        help="pairs in insightface's format; the name of a set is the file's (default: data/orl/orl.bin)",
    )
    reference = parser.add_argument_group(
        "references, judged on the same pairs beside the aligned raw pixels"
    )
    reference.add_argument("--teacher", metavar="PREFIX,NUMBER", help="checkpoint of the teacher")
    reference.add_argument("--untrained", metavar="PREFIX,NUMBER", help="checkpoint of the untrained encoder")
    reference.add_argument(
        "--train-data",
        metavar="FOLDER",
        help="shard to fit whitened PCA and fisherfaces to (train.rec, train.idx)",
    )
    output = parser.add_argument_group("output, beside the printed table")
    output.add_argument("--json", metavar="FILE", help="write all results, recipe, seed, versions and device")
    output.add_argument(
        "--figure",
        metavar="FILE.png",
        help="draw people of the first set, their generated frontal faces and the difference",
    )
    output.add_argument("--generated", metavar="FILE.png", help="draw the generated faces alone")
    output.add_argument(
        "--curves", metavar="FILE.png", help="plot the metrics.jsonl beside the model and beside the teacher"
    )
    devices.add_device_arguments(parser)
    parser.add_argument(
        "--batch-size", type=int, default=32, metavar="N", help="images per batch (default: 32)"
    )


def run(args: argparse.Namespace) -> None:
    """Judge, print one table per set of pairs, and write what was asked for.

    Raises
    ------
    LatseError
        If an input is missing or damaged, or an output cannot be written.
    """
    for path in filter(None, (args.json, args.figure, args.generated, args.curves)):
        make_folder(Path(path).parent)  # an unwritable place is better known before the work than after it
    contexts = devices.contexts(args)
    network = functools.partial(_network, contexts=contexts, batch_size=args.batch_size)
    sets = _read_sets(args.pairs)
    model, references = network(args.model), _references(args, network)
    if args.curves:
        figures.training_curves(args.curves, _metrics(args))
    _draw_faces(args, next(iter(sets.values())), network)
    report = _origin(args.model, contexts)
    for name, pairs in sets.items():
        report[name] = _judge(name, pairs, _title(args.model), model, references)
    if args.json:
        write_json(args.json, report)


def _judge(
    name: str, pairs: Pairs, title: str, model: Feature, references: Dict[str, Feature]
) -> Dict[str, Any]:
    """Judge model and references on one set, print the table, and return what the JSON says about the set."""
    details = {key: verify(feature, *pairs, f"{key} on {name}") for key, feature in references.items()}
    result = verify(model, *pairs, f"{title} on {name}")
    print(f"{name}: {result.pairs} pairs, {result.different_pairs} of them of different people")
    print(verification_table([*((TITLES[key], detail) for key, detail in details.items()), (title, result)]))
    return {
        **result.as_json(),
        "references": {key: detail.accuracy for key, detail in details.items()},
        "reference_details": {key: detail.as_json() for key, detail in details.items()},
    }


def _references(args: argparse.Namespace, network: Callable[[str], Network]) -> Dict[str, Feature]:
    references: Dict[str, Feature] = {"raw_pixels": raw_pixels}
    if args.train_data:
        references.update(fitted_references(args.train_data))
    for name in ("untrained", "teacher"):
        if getattr(args, name):
            references[name] = network(getattr(args, name))
    return references


def _network(
    text: str, output: str = "fc1_output", *, contexts: List[mx.Context], batch_size: int
) -> Network:
    return Network(*checkpoint.parse(text), output, contexts, batch_size)


def _read_sets(paths: List[str]) -> Dict[str, Pairs]:
    """Read sets of pairs, by name; a name must be free in the JSON that holds it."""
    sets: Dict[str, Pairs] = {}
    for path in paths:
        name = Path(path).stem
        if name in sets or name in ORIGIN_KEYS:
            raise LatseError(f"{path}: the name {name!r} is already taken; rename the file")
        sets[name] = read_pairs(path)
    return sets


def _origin(model: str, contexts: List[mx.Context]) -> Dict[str, Any]:
    """Say where the figures come from: the recipe and seed of the model, this machine, these versions."""
    path = _folder(model) / "run.json"
    run_record = read_json(path) if path.exists() else {}  # a checkpoint from elsewhere has no such record
    if not isinstance(run_record, dict):
        raise LatseError(f"{path} holds no JSON object")
    run = (run_record.get(key) for key in ("recipe", "seed", "settings"))
    return dict(zip(ORIGIN_KEYS, (model, *run, versions(), devices.describe(contexts))))


def _draw_faces(args: argparse.Namespace, pairs: Pairs, network: Callable[..., Network]) -> None:
    if not (args.figure or args.generated):
        return
    images = pairs.images[figures.one_image_per_person(pairs.images, pairs.issame)]
    generated = network(args.model, "generated_output")(images)
    if args.figure:
        figures.faces(args.figure, images, generated)
    if args.generated:
        figures.generated_faces(args.generated, generated)


def _metrics(args: argparse.Namespace) -> Dict[str, Path]:
    models = [model for model in (args.teacher, args.model) if model]
    return {_title(model): _folder(model) / "metrics.jsonl" for model in models}


def _folder(model: str) -> Path:
    return Path(checkpoint.parse(model)[0]).parent


def _title(model: str) -> str:
    """Name a model as its folder is named: `student` for out/orl/student/model,0."""
    return _folder(model).resolve().name
