"""What a checkpoint has learnt: angles to class centres, generated faces, and what embeddings hold."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple, Sequence

import numpy as np
from tqdm import tqdm

from latse.data.pairs.pairs import check_people, read_pairs, read_people
from latse.data.shards.noise import CLEAN, read_truth
from latse.data.shards.records import Shard
from latse.data.synth import truth_file
from latse.eval import class_centres, generation
from latse.eval.linear_probes import FOLDS, probe
from latse.eval.restoration import mean_face
from latse.eval.verification import distinct_images
from latse.files import digest
from latse.models import checkpoint, run_folder
from latse.models.embedding import Network
from latse.models.features import unit

FACES = "generated_output"
TRAINING_IMAGES = 512  # whose angles are measured
FACES_OF_A_SET = 100  # that are generated
TO_MEAN, TO_FRONTAL = "mean", "frontal"  # what generated faces are compared with


class Strangers(NamedTuple):
    """The distinct images of a file of pairs.

    Attributes
    ----------
    images : uint8 (m, 3, 112, 112)
    people : int (m,) or None
        None if nobody says who is who.
    facts : dict of str to ndarray
        What is known of each image, (m,): numbers and truth values; empty if nothing is.
    frontal : uint8 (m, 3, 112, 112) or None
        The true face of each image's person.
    """

    images: np.ndarray
    people: np.ndarray | None
    facts: dict[str, np.ndarray]
    frontal: np.ndarray | None


class Inspected(NamedTuple):
    """A checkpoint and what runs it."""

    prefix: str
    number: int
    contexts: Sequence[Any]
    batch_size: int

    def output(self, images: np.ndarray, name: str = "fc1_output") -> np.ndarray:
        """Return an output for uint8 images (m, 3, 112, 112)."""
        return Network(self.prefix, self.number, name, self.contexts, self.batch_size)(images)

    def embed(self, images: np.ndarray) -> np.ndarray:
        """Return the embeddings of images, not of their mirror images, as unit vectors: float32 (m, d)."""
        return unit(self.output(images), "the embedding of image {}".format)

    def stages(self) -> list[int]:
        """Return the checkpoints that the run has kept, the last one once, and this one."""
        kept = run_folder.stored(self.prefix)
        digests = {number: digest(run_folder.parameters_path(self.prefix, number)) for number in kept}
        return [*(number for number in kept if digests[number] != digests[self.number]), self.number]


def open_strangers(path: str | os.PathLike) -> Strangers:
    """Read the distinct images of pairs, and what stands beside them; LatseError if a file is damaged."""
    pairs, people = read_pairs(path), read_people(path)
    check_people(path, people, pairs.issame)
    first, _ = distinct_images(pairs.images)
    facts, frontal = {}, None
    if truth_file.truth_path(path).exists():
        truth = truth_file.read(path, len(pairs.images))
        facts = {name: array[first] for name, array in _facts(truth).items()}
        frontal = truth.frontal[truth.number[first]]
    return Strangers(pairs.images[first], None if people is None else people[first], facts, frontal)


def _facts(truth: truth_file.Truth) -> dict[str, np.ndarray]:
    """Return what is to be read from embeddings, (n,) each."""
    return {
        **{name: getattr(truth, name) for name in ("yaw", "pitch", "roll", "age")},
        "light side": truth.light[:, 0],
        "light height": truth.light[:, 1],
        "female": truth.female[truth.number] > 0.5,
        "smile": truth.smile > 0,
        "glasses": np.isin(truth.occlusion, ("glasses", "sunglasses")),
    }


def judge_angles(model: Inspected, shard: Shard) -> dict[str, Any] | None:
    """Return quantiles of the angles of training images, as they are in tests, to class centres.

    Of `all`, and on a set of `latse data noise` of those with `right` and with `wrong` labels: `images`, and
    quantiles of the angle to the `own` centre and to the nearest `other`, degrees. None of a model without
    class centres, or with those of other people.
    """
    centres = class_centres.read_centres(model.prefix, model.number)
    if centres is None or not 1 < len(centres) == shard.classes:
        return None
    chosen = np.linspace(0, len(shard) - 1, min(TRAINING_IMAGES, len(shard))).astype(int)
    cosine = class_centres.cosines(model.embed(shard.batch(chosen).image), centres)
    own, other = class_centres.angles(cosine, shard.labels[chosen].astype(int))
    groups = {"all": np.ones(len(chosen), bool)}
    if Path(shard.folder, "noise.npz").exists():
        right = read_truth(shard.folder).kind[chosen] == CLEAN
        groups.update(right=right, wrong=~right)
    return {
        name: {
            "images": int(group.sum()),
            "own": class_centres.quantiles(own[group]),
            "other": class_centres.quantiles(other[group]),
        }
        for name, group in groups.items()
        if group.any()
    }


def judge_linear(model: Inspected, sets: dict[str, Strangers]) -> dict[str, Any] | None:
    """Return what is read from the embeddings of all sets of which the truth is known; None without any."""
    known = [one for one in sets.values() if one.facts and one.people is not None]
    people = np.concatenate([one.people for one in known]) if known else np.empty(0)
    if len(np.unique(people)) < FOLDS:
        return None
    facts = {name: np.concatenate([one.facts[name] for one in known]) for name in known[0].facts}
    embeddings = np.concatenate([model.embed(one.images) for one in known])
    return {"images": len(people), "facts": probe(embeddings, facts, people)}


def judge_decoder(model: Inspected, shard: Shard, sets: dict[str, Strangers]) -> dict[str, Any] | None:
    """Compare generated faces with their person's mean face and true face, at each stage of the run.

    `average`, by set: how like the mean of all training images is to them; `stages` by checkpoint and set:
    the same of the faces that are `generated`, and of the mean face of the `nearest` training person, by the
    class centres (None without any). None without a decoder or people.
    """
    symbol = checkpoint.load_symbol(run_folder.symbol_path(model.prefix))
    told = {name: _some(one) for name, one in sets.items() if one.people is not None}
    if FACES not in symbol.get_internals().list_outputs() or not told:
        return None
    targets = {name: _targets(sets[name], some) for name, some in told.items()}
    average = generation.average_face(shard)[None]
    of_average = {
        name: generation.likeness(np.broadcast_to(average, next(iter(one.values())).shape), one)
        for name, one in targets.items()
    }
    stages = {}
    for number in tqdm(model.stages(), desc="stages", unit="checkpoint", leave=False, delay=1):
        stage = model._replace(number=number)
        images = {name: sets[name].images[some] for name, some in told.items()}
        stages[str(number)] = {
            name: _judge_stage(stage, shard, images[name], targets[name]) for name in images
        }
    images = {name: len(some) for name, some in told.items()}
    return {"images": images, "average": of_average, "stages": stages}


def _some(strangers: Strangers) -> np.ndarray:
    """Return the positions of the images whose faces are generated, drawn at random, ascending."""
    count = len(strangers.images)
    return np.sort(np.random.default_rng(0).permutation(count)[:FACES_OF_A_SET])


def _targets(strangers: Strangers, some: np.ndarray) -> dict[str, np.ndarray]:
    means = [mean_face(strangers.images[strangers.people == person]) for person in strangers.people[some]]
    targets = {TO_MEAN: np.stack(means)}
    if strangers.frontal is not None:
        targets[TO_FRONTAL] = strangers.frontal[some] / 255
    return targets


def _judge_stage(
    stage: Inspected, shard: Shard, images: np.ndarray, targets: dict[str, np.ndarray]
) -> dict[str, Any]:
    generated = (stage.output(images, FACES).astype(np.float64) + 1) / 2
    centres, nearest = class_centres.read_centres(stage.prefix, stage.number), None
    if centres is not None and len(centres) == shard.classes:
        labels = class_centres.cosines(stage.embed(images), centres)
        labels[:, np.bincount(shard.labels.astype(int), minlength=shard.classes) == 0] = -np.inf
        nearest = generation.likeness(generation.faces_of(shard, labels.argmax(axis=1)), targets)
    return {"generated": generation.likeness(generated, targets), "nearest": nearest}
