"""A teacher's verdicts on device and CPU, those that hang on rounding among them."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Iterator, NamedTuple

import mxnet as mx
import numpy as np
from tqdm import tqdm

from latse.bench.embed_command import random_parameters
from latse.bench.gpu_check.outcome import row
from latse.bench.gpu_check.setting import CPU, Setting
from latse.bench.gpu_check.steps import tiles
from latse.data.shards.records import Batch
from latse.goals import Goal
from latse.models import checkpoint
from latse.models.runner import Runner, in_batches
from latse.symbols import encoders
from latse.symbols.networks import IMAGE_SHAPE, trace
from latse.train.verdicts import DOUBT, Judge

BATCH = 16  # images that a device judges together
COSINES = 1e-2  # TF32 keeps 11 bits of a number, as float16 does
TIED = 1 / 4  # share of the images whose verdict hangs on rounding
NOISE = 3.0  # most of a class centre, as a multiple of what sets images apart


class Teacher(NamedTuple):
    """A checkpoint `PREFIX,NUMBER` of so many classes; images with labels; which of them hang on rounding."""

    path: str
    classes: int
    images: np.ndarray
    labels: np.ndarray
    tied: np.ndarray


class Judgement(NamedTuple):
    """Of each image: whether it is kept, its cosines with the label and the likeliest other class.

    And how many images were looked at alone.
    """

    kept: np.ndarray
    own: np.ndarray
    other: np.ndarray
    alone: int


def rows(setting: Setting) -> Iterator[Goal | str]:
    """Judge images, labelled right and wrong, in batches, in other batches, alone, and on the CPU."""
    with tempfile.TemporaryDirectory(prefix="latse-check-gpu-") as folder:
        teacher = made(Path(folder), setting)
        devices, size = list(setting.devices), BATCH * len(setting.devices)
        found = judged(teacher, devices, size)
        yield from against_cpu(teacher, found, judged(teacher, [CPU], BATCH))
        yield from against_itself(found, judged(teacher, devices, size // 2), judged(teacher, devices[:1], 1))


def against_cpu(teacher: Teacher, found: Judgement, expected: Judgement) -> Iterator[Goal]:
    """Hold the verdicts of the device against those of the CPU."""
    error = max(np.abs(found.own - expected.own).max(), np.abs(found.other - expected.other).max())
    margin, differ = np.abs(expected.own - expected.other), found.kept != expected.kept
    # Both cosines may be off, each by the error.
    clear = margin > 2 * error + DOUBT
    count = f"of {len(differ)} verdicts"
    yield row("cosines, device against CPU", error, at_most=COSINES)
    yield row(f"{count}, share that is decided by more than that", clear.mean(), at_least=0.5)
    yield row(f"{count}, others than on the CPU", differ.sum())
    yield row(f"{count}, others than there, not by rounding", (differ & clear).sum(), at_most=0)
    yield row("share of the images that is kept", found.kept.mean(), at_least=0.1)
    ties = int(teacher.tied.sum())
    yield row(f"images asked again, of {ties} that hang on rounding", found.alone, at_least=ties)


def against_itself(found: Judgement, other: Judgement, alone: Judgement) -> Iterator[Goal]:
    """Hold verdicts against those of the same device in other batches, and in none."""
    for title, again in (("in batches of half the size", other), ("alone", alone)):
        differ = (found.kept != again.kept).sum()
        yield row(f"of {len(found.kept)} verdicts, others {title}", differ, at_most=0)
    rounding = np.abs((found.own - found.other) - (alone.own - alone.other)).max()
    yield row("difference of two cosines, in a batch against alone", rounding, at_most=DOUBT)


def judged(teacher: Teacher, devices: list[mx.Context], size: int) -> Judgement:
    """Judge all images in batches of a size, k = 1."""
    judge = Judge(teacher.path, teacher.classes, size, devices)
    kept, cosines = [], []
    for first in tqdm(range(0, len(teacher.images), size), f"verdicts of {size}", unit="batch"):
        part = slice(first, first + size)
        records = np.arange(first, first + len(teacher.labels[part]))
        batch = Batch(teacher.images[part], teacher.labels[part], records, np.zeros(len(records), bool))
        kept.append(judge.ranks(batch, [1]) < 1)
        cosines.append(judge.likeliest(batch)[:2])
    own, other = (np.concatenate(each) for each in zip(*cosines))
    return Judgement(np.concatenate(kept), own, other, judge.alone)


def made(folder: Path, setting: Setting) -> Teacher:
    """Write a teacher whose class centres are what sets the embedding of each image apart, with noise.

    Every second image is labelled with its own class, the others with the next one's. The first images have
    their own, without noise, and that has a twin, three times as long, so that rounding alone decides.
    """
    count, rng = setting.sizes.judged, np.random.default_rng(0)
    symbol = trace(encoders.create(setting.sizes.middle))
    parameters = random_parameters(symbol, data=(1, *IMAGE_SHAPE))
    images = tiles(count)
    runner = Runner(symbol, *parameters, {"data": (BATCH, *IMAGE_SHAPE)}, [CPU])
    embeddings = in_batches(lambda part: runner(part)[0], images, BATCH, "teacher")
    numbers = np.arange(count)
    tied = numbers < TIED * count
    apart = embeddings - embeddings.mean(axis=0)
    noise = rng.normal(0, apart.std(), apart.shape) * rng.uniform(0, NOISE, (count, 1))
    centres = np.where(tied[:, None], apart, apart + noise)
    centres = np.concatenate([centres, 3 * centres[tied]])
    args = {**parameters.args, "fc7_weight": mx.nd.array(centres)}
    checkpoint.save(folder / "teacher", 0, symbol, args, parameters.aux)
    labels = np.where(tied | (numbers % 2 == 0), numbers, (numbers + 1) % count)
    return Teacher(f"{folder / 'teacher'},0", len(centres), images, labels.astype(np.float32), tied)
