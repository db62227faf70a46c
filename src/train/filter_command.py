"""The sub-command `latse filter`: a teacher's verdict on every image of a set, made once and stored."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Iterator

import numpy as np
from tqdm import tqdm

from latse import checkpoint
from latse.data.loader import Batch
from latse.data.records import Shard
from latse.devices import add_device_arguments, contexts, describe, share
from latse.errors import LatseError
from latse.files import digest, locked, make_folder, write_json
from latse.runtime import versions
from latse.symbols.networks import IMAGE_SHAPE
from latse.train import graph, verdict_file
from latse.train.verdicts import TopK


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `latse filter`."""
    parser.add_argument("--data", required=True, metavar="FOLDER", help="train.rec, train.idx and property")
    parser.add_argument("--teacher", required=True, metavar="PREFIX,N", help="checkpoint of the teacher")
    parser.add_argument("--out", required=True, metavar="FILE", help="the file; a killed run goes on")
    parser.add_argument("--k", type=int, nargs="+", default=[1, 3, 5], help="default: 1 3 5")
    parser.add_argument(
        "--batch-size", type=int, default=64, metavar="N", help="images at a time (default 64)"
    )
    parser.add_argument("--json", metavar="FILE", help="write what share is kept, versions and device")
    add_device_arguments(parser)


def run(args: argparse.Namespace) -> None:
    """Judge what has not been judged, write the file, print what it keeps; raise LatseError for bad input."""
    if args.batch_size < 2 or args.batch_size % 2:
        raise LatseError(
            f"--batch-size {args.batch_size}: an image and its mirror image go together, so even"
        )
    devices = contexts(args)
    share(args.batch_size, devices)
    shard = graph.open_shard(args.data)
    prefix, number = checkpoint.parse(args.teacher)
    ks = verdict_file.check_ks(args.k)
    teacher = TopK(prefix, number, ks[0], shard.classes, IMAGE_SHAPE, args.batch_size, devices)
    out, belongs = Path(args.out), binding(args.teacher, shard)
    if out.is_dir():
        raise LatseError(f"--out {out} is a folder: name the file to write")
    with locked(make_folder(out.parent)):
        if not _is_made(out, belongs, ks):
            writer = verdict_file.VerdictWriter(out, belongs, ks, len(shard))
            judge(teacher, shard, writer, args.batch_size)
            writer.finish()
    keeps = {k: verdict_file.read(args.out).keep(k).mean(axis=0).tolist() for k in ks}
    for k, (plain, mirrored) in keeps.items():
        print(
            f"k = {k}: {100 * plain:.2f} % of {len(shard)} images are kept, {100 * mirrored:.2f} % mirrored"
        )
    if args.json:
        kept = {str(k): {"plain": plain, "mirrored": mirrored} for k, (plain, mirrored) in keeps.items()}
        record = {"images": len(shard), "kept": kept, "versions": versions(), "device": describe(devices)}
        write_json(args.json, record)


def _is_made(out: Path, belongs: dict, ks: tuple[int, ...]) -> bool:
    """Tell whether the verdicts are there already; raise LatseError if `out` holds others."""
    if not out.exists():
        return False
    made = verdict_file.read(out)
    if (made.binding, made.ks) != (belongs, ks):
        raise LatseError(
            f"{out} holds verdicts of another teacher, set or k: remove it, or choose another name"
        )
    print(f"{out} is there already")
    return True


def binding(teacher: str, shard: Shard) -> dict:
    """Return what verdicts belong to: digests of the teacher's parameters and graph, and of the set."""
    prefix, number = checkpoint.parse(teacher)
    return {
        "teacher": digest(checkpoint.parameters_path(prefix, number)),
        "graph": digest(checkpoint.symbol_path(prefix)),
        "data": shard.digest(),
    }


def judge(teacher: TopK, shard: Shard, writer: verdict_file.VerdictWriter, batch_size: int) -> None:
    """Write the verdicts on all images that `writer` lacks."""
    left = writer.open_images()
    with tqdm(total=len(shard), initial=len(shard) - len(left), desc="filter", unit="image") as progress:
        for positions, batch in _batches(shard, left, batch_size):
            ranks = teacher.ranks(batch).reshape(-1, 2)[: len(positions)]
            writer.put(positions, ranks)
            progress.update(len(positions))


def _batches(shard: Shard, left: np.ndarray, batch_size: int) -> Iterator[tuple[np.ndarray, Batch]]:
    """Yield positions and a batch of each image followed by its mirror image; the last batch is filled up."""
    for start in range(0, len(left), batch_size // 2):
        positions = left[start : start + batch_size // 2]
        filled = np.resize(positions, batch_size // 2)
        image = np.empty((len(filled), 2, *IMAGE_SHAPE), np.uint8)
        for planes, position in zip(image[:, 0], filled.tolist()):
            shard.read_into(planes, position, mirrored=False)
        image[:, 1] = image[:, 0, :, :, ::-1]
        twice, mirrored = np.repeat(filled, 2), np.tile([False, True], len(filled))
        labels = shard.labels[twice].astype(np.float32)
        yield positions, Batch(image.reshape(-1, *IMAGE_SHAPE), labels, shard.records[twice], mirrored)
