"""`latse bench loader`: images per second of CPU and of the clock, from a shard to batches in memory.

The same work for each, over whole epochs in random order: read, decode, mirror half of the images, and lay
out batches of 3 x height x width. `FaceImageIter` is insightface's, taken from a file that the user names; it
and `ImageRecordIter` deliver float32 in an NDArray, `ImageRecordUInt8Iter` uint8 in an NDArray, ours uint8 in
a numpy array, or, to compare like with like, float32 in an NDArray too, as training hands it to the network.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib.util
import io
import itertools
import math
import tempfile
from pathlib import Path
from typing import Any, Callable

import cv2
import mxnet as mx
import numpy as np
from tqdm import tqdm

from latse.bench.benchmark import Outcome
from latse.bench.timing import Times, in_turn, ratios
from latse.data.images import encode
from latse.data.shards.loader import BatchStream
from latse.data.shards.records import Shard
from latse.data.shards.shard_writer import ShardWriter
from latse.data.shards.staging import staged
from latse.errors import MOST, LatseError, check_range
from latse.goals import Figure, Goal
from latse.models import runner

SIZE, QUALITY = 112, 95  # of the made-up images: 7 KB each
PER_PERSON = 20
FACE_IMAGE_ITER = "FaceImageIter"
PER_CPU = "images per CPU second"
# (width of a random image that is enlarged to SIZE, grey levels): a face's large forms, features, texture
SCALES = ((4, 40), (12, 22), (48, 16))


def measure(args: argparse.Namespace) -> Outcome:
    """Read the same shard with each loader, in turn."""
    for threads in args.threads:
        check_range("--threads", threads, 1, MOST)
    with tempfile.TemporaryDirectory(prefix="latse-bench-") as folder:
        shard = Shard(args.data or make_shard(Path(folder) / "made", args.images))
        if len(shard) < args.batch_size:
            raise LatseError(f"{len(shard)} images do not fill a batch of {args.batch_size}")
        times = in_turn(_loaders(args, shard, Path(folder)), args.repeats)
        sizes = [len(shard.content(row)) for row in range(0, len(shard), 100)]
    speeds = {name: _speeds(each) for name, each in times.items()}
    setting = {"images": len(shard), "bytes_per_image": float(np.mean(sizes))}
    left_out = [] if args.peer else [f"{FACE_IMAGE_ITER} is not run: no --peer is given"]
    goals = _goals(speeds, _ours_with(args.threads[0]))
    return Outcome(speeds, goals, {**setting, "loader_threads": args.threads}, left_out, contexts=[mx.cpu()])


def make_shard(folder: Path, images: int) -> Path:
    """Write a shard of smooth random images, like faces in size and in detail, and return its folder.

    Raises LatseError if the folder cannot be written.
    """
    people = math.ceil(images / PER_PERSON)
    with staged(folder) as stage, ShardWriter(stage, people, (SIZE, SIZE)) as writer:
        for number in tqdm(range(images), desc="images", unit="image"):
            writer.add(number // PER_PERSON, encode(random_image(number), QUALITY))
    return folder


def random_image(number: int) -> np.ndarray:
    """Return the smooth random image of a number: uint8 (112, 112, 3), mostly grey with some colour."""
    random = np.random.default_rng(number)
    image = np.full((SIZE, SIZE, 3), 128, np.float32)
    for width, grey_levels in SCALES:
        shape = random.standard_normal((width, width, 1), np.float32)
        colour = random.standard_normal((width, width, 3), np.float32)
        image += grey_levels * cv2.resize(shape + colour / 2, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
    return np.clip(image, 0, 255).astype(np.uint8)


def _loaders(args: argparse.Namespace, shard: Shard, folder: Path) -> dict[str, Callable[[], int]]:
    """Return each loader's function that makes the batches of one turn and returns the number of images."""
    batch_size, shape = args.batch_size, (3, *shard.image_size)
    loaders = {_ours_with(number): _ours(shard, batch_size, number) for number in args.threads}
    loaders["ours, 1 thread, float32 NDArray"] = _ours(shard, batch_size, 1, as_input=True)
    plain = _write_plain(shard, folder / "plain")
    readers = {
        f"mx.io.{name}": getattr(mx.io, name)(
            path_imgrec=f"{plain}.rec",
            path_imgidx=f"{plain}.idx",
            data_shape=shape,
            batch_size=batch_size,
            shuffle=True,
            rand_mirror=True,
            preprocess_threads=1,  # beside the caller's
        )
        for name in ("ImageRecordIter", "ImageRecordUInt8Iter")
    }
    if args.peer:
        with contextlib.redirect_stdout(io.StringIO()):
            peer = _peer_class(args.peer)
            reader = peer(batch_size, shape, f"{plain}.rec", shuffle=True, rand_mirror=True)
        readers[FACE_IMAGE_ITER] = reader
    drains = {name: functools.partial(_drain, reader, batch_size) for name, reader in readers.items()}
    return {**loaders, **drains}


def _ours_with(number: int) -> str:
    return f"ours, {number} thread{'s' * (number > 1)}"


def _ours(shard: Shard, batch_size: int, threads: int, as_input: bool = False) -> Callable[[], int]:
    stream = BatchStream(shard, batch_size)
    batches = len(shard) // batch_size
    starts = itertools.count(step=batches)

    def epoch() -> int:
        start = next(starts)
        for _, batch in stream.prefetch(start, start + batches, threads):
            if as_input:
                runner.as_input(batch.image).wait_to_read()
        return batches * batch_size

    return epoch


def _write_plain(shard: Shard, stem: Path) -> Path:
    """Write the images without header and identity records, which ImageRecordIter takes for images."""
    output = mx.recordio.MXIndexedRecordIO(f"{stem}.idx", f"{stem}.rec", "w")
    for position in tqdm(range(len(shard)), desc="plain copy", unit="image"):
        header = mx.recordio.IRHeader(0, float(shard.labels[position]), position, 0)
        output.write_idx(position, mx.recordio.pack(header, shard.content(position).tobytes()))
    output.close()
    return stem


def _drain(reader: Any, batch_size: int) -> int:
    """Read an epoch; what insightface's reader prints is left out."""
    images = 0
    with contextlib.redirect_stdout(io.StringIO()):
        reader.reset()
        for batch in reader:
            batch.data[0].wait_to_read()
            images += batch_size
    return images


def _peer_class(file: str) -> type:
    specification = importlib.util.spec_from_file_location("latse_bench_peer", file)
    try:
        module = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(module)
        return getattr(module, FACE_IMAGE_ITER)
    except Exception as error:  # whatever a stranger's file may raise
        raise LatseError(f"cannot take {FACE_IMAGE_ITER} from {file}: {error}") from error


def _speeds(times: Times) -> dict[str, Figure]:
    images = [answer["value"] for answer in times.answers]
    taken = {PER_CPU: times.processor_seconds, "images per second": times.seconds}
    return {
        name: Figure.of([count / each for count, each in zip(images, seconds)], "images/s")
        for name, seconds in taken.items()
    }


def _goals(speeds: dict[str, dict[str, Figure]], reference: str) -> list[Goal]:
    return [
        Goal.of(
            f"images per CPU second of {reference}, over {name}",
            ratios(speeds[reference][PER_CPU].values, speed[PER_CPU].values),
            at_least=2.0 if name == FACE_IMAGE_ITER else None,
        )
        for name, speed in speeds.items()
        if not name.startswith("ours")
    ]
