"""The sub-command `latse filter`: a teacher's verdict on every image of a set, made once and stored."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any, Callable, Iterator, NamedTuple, Protocol, Sequence

import mxnet as mx
import numpy as np
from tqdm import tqdm

from latse.data.shards import verdict_file
from latse.data.shards.records import Batch, Shard
from latse.data.shards.refusals import NOBODY, Refusals, write_list
from latse.data.shards.verdict_file import Verdicts, VerdictWriter
from latse.data.workers import in_threads
from latse.devices import contexts, share
from latse.errors import MOST, LatseError, check_range
from latse.files import digest, locked, make_folder, make_parents, refuse_existing, refuse_same, write_json
from latse.models import checkpoint
from latse.models.run_folder import parse
from latse.provenance import provenance
from latse.train import means, verdict_truth
from latse.train.training import open_shard
from latse.train.verdicts import Judge, preprocessing, warn_of_another_set

SAMPLE = 2000  # kept images that the threshold of a list is measured on


class Judgement(Protocol):
    """What says which labels are right, as `store` asks it."""

    binding: dict[str, str]

    def judge_all(self, writer: VerdictWriter) -> None:
        """Write the verdicts on all images that `writer` lacks."""
        ...

    def again(self, faces: np.ndarray, ks: Sequence[int]) -> Iterator[Answer]:
        """Answer for `faces` in their order, a part at a time.

        The face 2·i is the image at position i, 2·i + 1 its mirror image.
        """
        ...

    def explain(self, refused: np.ndarray, kept: np.ndarray, ks: Sequence[int]) -> tuple[Refusals, float]:
        """Tell whom the images at the positions `refused` look like; `kept` is those of others.

        On which side of each of `ks` a rank lies is what the verdicts say. Also returns the least cosine at
        which an image looks like another.
        """
        ...

    def details(self) -> dict[str, Any]:
        """Return what the report says of it besides."""
        ...

    def finish(self) -> None:
        """Nothing more will be asked."""
        ...


class Answer(NamedTuple):
    """Between what the ranks of some faces lie: int or float arrays (m,) each."""

    faces: np.ndarray
    least: np.ndarray
    most: np.ndarray


class Learned:
    """The judgement of a teacher with class centres of its own."""

    def __init__(self, args: argparse.Namespace, shard: Shard, devices: list[mx.Context]):
        self.judge = Judge(args.teacher, shard.classes, args.batch_size, devices)
        self.binding = binding(args.teacher, shard)
        self._shard, self._batch_size = shard, args.batch_size
        warn_of_another_set(args.teacher, shard)

    def judge_all(self, writer: VerdictWriter) -> None:
        """Write the verdicts on all images that `writer` lacks."""
        judge_all(self.judge, self._shard, writer, self._batch_size)

    def again(self, faces: np.ndarray, ks: Sequence[int]) -> Iterator[Answer]:
        """Answer for `faces`, see `Judgement`; a rank that rounding could move across a k is exact."""
        for part, batch in batches(self._shard, faces, self._batch_size):
            ranks = self.judge.ranks(batch, ks)
            yield Answer(part, ranks, ranks)

    def explain(self, refused: np.ndarray, kept: np.ndarray, ks: Sequence[int]) -> tuple[Refusals, float]:
        """Tell whom images look like, see `Judgement`.

        Of image and mirror image the one of the lesser rank speaks. The threshold lies halfway between the
        medians of both cosines over `SAMPLE` kept images at even distances.
        """
        drawn = np.linspace(0, len(kept) - 1, min(SAMPLE, len(kept))).astype(int)
        own, best, _, _ = self._asked(2 * kept[drawn], ks, "threshold")
        threshold = means.halfway(own, best) if len(kept) else 1.0  # 1: nobody looks like another
        answers = self._asked((2 * refused[:, None] + [0, 1]).ravel(), ks, "list").reshape(4, -1, 2)
        spoken = answers[3].argmin(axis=1)
        own, best, other, rank = answers[:, np.arange(len(refused)), spoken]
        likeliest = means.Likeliest.of(own, best, other, threshold)
        return likeliest.refusals(refused, rank), threshold

    def details(self) -> dict[str, Any]:
        """Return how many images were judged alone."""
        return {"judged_alone": self.judge.alone}

    def finish(self) -> None:
        """Do nothing: nothing is left."""

    def _asked(self, faces: np.ndarray, ks: Sequence[int], doing: str) -> np.ndarray:
        """Return own, best, other and rank of some faces: float64 (4, m)."""
        found = [np.empty((4, 0))]
        with tqdm(total=len(faces), desc=doing, unit="image", leave=False) as progress:
            for part, batch in batches(self._shard, faces, self._batch_size):
                found.append(np.stack([*self.judge.likeliest(batch), self.judge.ranks(batch, ks)]))
                progress.update(len(part))
        return np.concatenate(found, axis=1)


def run(args: argparse.Namespace) -> Refusals | None:
    """Judge by class centres, write and print; see `store` for what is returned and raised."""
    return judge_by(Learned, args)


def judge_by(judgement: type[Learned], args: argparse.Namespace) -> Refusals | None:
    """Have a judgement of this kind write and print; see `store` for what is returned and raised."""
    check_range("--batch-size", args.batch_size, 2, MOST)
    if args.batch_size % 2:
        raise LatseError(
            f"--batch-size {args.batch_size}: an image and its mirror image go together, so even"
        )
    return store(args, judgement)


def store(args: argparse.Namespace, open_judgement: Callable[..., Judgement]) -> Refusals | None:
    """Judge, write and print; return what is refused if a list or a sheet is asked for.

    `open_judgement` is called with `args`, the set and the devices. Raises LatseError for bad input, or where
    a check contradicts a verdict.
    """
    _check_files(args)
    if args.check is not None:
        check_range("--check", args.check, 1)
    devices = contexts(args)
    share(args.batch_size, devices, "--batch-size")
    shard = open_shard(args.data)
    for k in args.k:
        check_range("--k", k, 1, MOST)
    ks = verdict_file.check_ks(args.k)
    judgement = open_judgement(args, shard, devices)
    verdicts = _made(args.out, shard, judgement, ks)
    record = {
        "kind": "filter",
        "provenance": provenance(args, devices),
        "images": len(shard),
        "kept": _kept(verdicts),
        "truth": _truth(verdicts, shard),
        **judgement.details(),
    }
    checked = None if args.check is None else check(judgement, verdicts, args.check)
    refusals = _listed(args, shard, judgement, verdicts) if args.list or args.sheet else None
    judgement.finish()
    if args.json:
        write_json(args.json, {**record, "checked": checked})
    if checked and checked["different"]:
        raise LatseError(
            f"{args.out}: the teacher contradicts {checked['different']} of {checked['verdicts']} verdicts"
        )
    return refusals


def _check_files(args: argparse.Namespace) -> None:
    """Raise LatseError if two files would be one, or a list or a sheet is there."""
    refuse_same(args, "out", "list", "sheet", "json")
    refuse_existing(*filter(None, [args.list, args.sheet]))
    make_parents(args.list, args.sheet)


def _listed(args: argparse.Namespace, shard: Shard, judgement: Judgement, verdicts: Verdicts) -> Refusals:
    """Return what is refused by the least k, the clearest first, and write the list that is asked for."""
    refused = verdicts.refused(verdicts.ks[0])
    kept = np.delete(np.arange(len(shard)), refused)
    refusals, threshold = judgement.explain(refused, kept, verdicts.ks)
    refusals = refusals.clearest_first()
    if args.list:
        made_with = {"verdicts": digest(args.out), "k": verdicts.ks[0], "threshold": f"{threshold:.4f}"}
        write_list(args.list, shard, refusals, made_with)
        others = (refusals.looks_like != NOBODY).sum()
        print(f"{args.list}: {len(refused)} images are refused, {others} of them look like another person")
    return refusals


def _made(name: str, shard: Shard, judgement: Judgement, ks: tuple[int, ...]) -> Verdicts:
    """Return the verdicts in the file `name`, made if it is not there; LatseError if it holds others."""
    out = Path(name)
    if out.is_dir():
        raise LatseError(f"--out {out} is a folder: name the file to write")
    with locked(make_folder(out.parent)):
        if not out.exists():
            writer = VerdictWriter(out, judgement.binding, ks, len(shard))
            judgement.judge_all(writer)
            writer.finish()
            return verdict_file.read(out)
    made = verdict_file.read(out)
    asked = {"ks": ks, "images": len(shard), **judgement.binding}
    verdict_file.refuse_others(out, {"ks": made.ks, "images": len(made.packed), **made.binding}, asked)
    print(f"{out} is there already")
    return made


def binding(teacher: str, shard: Shard) -> dict:
    """Return what verdicts belong to: digests of the teacher's two files, of set and preprocessing."""
    prefix, number = parse(teacher)
    return {
        "teacher": digest(checkpoint.parameters_path(prefix, number)),
        "graph": digest(checkpoint.symbol_path(prefix)),
        "data": shard.digest(),
        "preprocessing": preprocessing(shard),
    }


def judge_all(judge: Judge, shard: Shard, writer: VerdictWriter, batch_size: int) -> None:
    """Write the verdicts on all images that `writer` lacks; `batch_size` is even."""
    left = writer.open_images()
    faces = (2 * left[:, None] + [0, 1]).ravel()
    with tqdm(total=len(shard), initial=len(shard) - len(left), desc="filter", unit="image") as progress:
        for part, batch in batches(shard, faces, batch_size):
            writer.put(part[::2] // 2, judge.ranks(batch, writer.ks).reshape(-1, 2))
            progress.update(len(part) // 2)


def check(judgement: Judgement, verdicts: Verdicts, faces: float = math.inf) -> dict[str, int]:
    """Ask the teacher again, in another order, compare, and print what came out.

    Parameters
    ----------
    judgement, verdicts : Judgement, Verdicts
        The teacher, and what is stored.
    faces : int or infinity
        How many images, mirrored or not, are drawn; all both ways where there are no more.

    Returns
    -------
    dict
        `faces`, how many were looked at; `verdicts`, one on each for each k; `different`, how many of these.
    """
    every = 2 * len(verdicts.packed)
    count = int(min(faces, every))
    drawn = np.random.default_rng(0).permutation(every)[:count]
    different = 0
    with tqdm(total=count, desc="check", unit="image") as progress:
        for part, least, most in judgement.again(drawn, verdicts.ks):
            for k in verdicts.ks:
                kept = verdicts.keeps(k, part // 2, part % 2 == 1)
                different += int(np.where(kept, least >= k, most < k).sum())
            progress.update(len(part))
    asked = count * len(verdicts.ks)
    print(f"asked again, in another order, the teacher contradicts {different} of {asked} verdicts")
    return {"faces": count, "verdicts": asked, "different": different}


def _kept(verdicts: Verdicts) -> dict[str, dict[str, float]]:
    """Print and return for each k what share of images and of mirror images is kept."""
    shares, everything = {}, np.arange(len(verdicts.packed))
    for k in verdicts.ks:
        plain, mirrored = (float(verdicts.keeps(k, everything, mirror).mean()) for mirror in (False, True))
        shares[str(k)] = {"plain": plain, "mirrored": mirrored}
        print(
            f"k = {k}: {100 * plain:.2f} % of {len(everything)} images are kept, "
            f"{100 * mirrored:.2f} % mirrored"
        )
    return shares


def _truth(verdicts: Verdicts, shard: Shard) -> dict[str, Any] | None:
    """Print and return, of a set with known noise, what share of wrong and of right labels is refused."""
    found = verdict_truth.against_truth(verdicts, shard)
    if found:
        print(verdict_truth.table(found))
    return found


def batches(shard: Shard, faces: np.ndarray, batch_size: int) -> Iterator[tuple[np.ndarray, Batch]]:
    """Yield some of the faces and a batch of them, read while the one before is in use.

    The face 2·i is the image at position i, 2·i + 1 its mirror image.
    """

    def read(start: int) -> tuple[np.ndarray, Batch]:
        part = faces[start : start + batch_size]
        return part, shard.batch(*np.divmod(part, 2))

    return in_threads(read, zip(range(0, len(faces), batch_size)), 1)
