"""`latse bench loader`: images per second of CPU and of the clock, from a shard to batches in memory.

The same work for each, over whole epochs in random order: read, decode, mirror half of the images, and lay
out batches of 3 x height x width. `FaceImageIter` is insightface's, taken from a file that the user names; it
and `ImageRecordIter` deliver float32 in an NDArray, `ImageRecordUInt8Iter` uint8 in an NDArray, ours uint8 in
a numpy array, or, to compare like with like, float32 in an NDArray too, as training hands it to the network.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import resource
import tempfile
from pathlib import Path
from typing import Any, Callable

import cv2
import mxnet as mx
import numpy as np
from tqdm import tqdm

from latse.bench.timing import in_turn, ratios
from latse.data.images import encode
from latse.data.shards.loader import BatchStream
from latse.data.shards.records import Shard
from latse.data.shards.shard_writer import ShardWriter
from latse.data.shards.staging import staged
from latse.errors import LatseError
from latse.files import write_json
from latse.goals import figure, goal, verdict
from latse.models import runner
from latse.provenance import provenance
from latse.runtime import threads
from latse.text_table import aligned

SIZE, QUALITY = 112, 95  # of the made-up images: 7 KB each
PER_PERSON = 20
FACE_IMAGE_ITER = "FaceImageIter"
PER_CPU, PER_SECOND = "images per CPU second", "images per second"
# (width of a random image that is enlarged to SIZE, grey levels): a face's large forms, features, texture
SCALES = ((4, 40), (12, 22), (48, 16))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `latse bench loader`."""
    parser.add_argument(
        "--data", metavar="FOLDER", help="shard (train.rec, train.idx, property); default: made-up images"
    )
    parser.add_argument(
        "--images", type=int, default=20000, metavar="N", help="made-up images (default: 20000)"
    )
    parser.add_argument("--batch-size", type=int, default=64, metavar="N", help="images (default: 64)")
    parser.add_argument("--repeats", type=int, default=3, metavar="R", help="epochs of each (default: 3)")
    parser.add_argument(
        "--threads", type=int, nargs="+", default=[1, 2], metavar="T", help="of our loader (default: 1 2)"
    )
    parser.add_argument(
        "--peer",
        metavar="FILE",
        help="insightface's image_iter.py, to measure its FaceImageIter too; the file is run as it is",
    )


def run(args: argparse.Namespace) -> None:
    """Measure all loaders in turn; print and write the figures."""
    if min(args.batch_size, args.repeats, *args.threads) < 1:
        raise LatseError("--batch-size, --repeats and --threads must be at least 1")
    with tempfile.TemporaryDirectory(prefix="latse-bench-") as folder:
        shard = Shard(args.data or make_shard(Path(folder) / "made", args.images))
        if len(shard) < args.batch_size:
            raise LatseError(f"{len(shard)} images do not fill a batch of {args.batch_size}")
        meters = {name: _Meter(epoch) for name, epoch in _loaders(args, shard, Path(folder)).items()}
        seconds = in_turn(meters, args.repeats)
        setting = _setting(args, shard)
    figures = {name: _figures(meter, seconds[name]) for name, meter in meters.items()}
    reference = f"ours, {args.threads[0]} thread{'s' * (args.threads[0] > 1)}"
    goals = _goals(meters, reference)
    if args.json:
        report = {"kind": "bench loader", "provenance": provenance(args, [mx.cpu()])}
        write_json(args.json, {**report, "setting": setting, "contenders": figures, "goals": goals})
    _show(args, figures, goals)


def make_shard(folder: Path, images: int) -> Path:
    """Write a shard of smooth random images, like faces in size and in detail, and return its folder.

    Raises LatseError if `images` is below 1 or the folder cannot be written.
    """
    if images < 1:
        raise LatseError(f"--images is {images}, must be at least 1")
    classes = -(-images // PER_PERSON)
    with staged(folder) as stage, ShardWriter(stage, classes, (SIZE, SIZE)) as writer:
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


class _Meter:
    """Runs a loader over some batches and keeps, for each time but the first, images per second of CPU."""

    def __init__(self, epoch: Callable[[], int]):
        self._epoch = epoch
        self._found: list[tuple[int, float]] = []

    def __call__(self) -> None:
        began = _cpu_seconds()
        images = self._epoch()
        self._found.append((images, _cpu_seconds() - began))

    @property
    def images(self) -> list[int]:
        return [images for images, _ in self._found[1:]]

    @property
    def per_cpu_second(self) -> list[float]:
        return [images / seconds for images, seconds in self._found[1:]]


def _cpu_seconds() -> float:
    """User and system time of this process with all its threads."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _loaders(args: argparse.Namespace, shard: Shard, folder: Path) -> dict[str, Callable[[], int]]:
    """Each loader's function that makes the batches of one turn and returns the number of images."""
    batch_size, shape = args.batch_size, (3, *shard.image_size)
    loaders: dict[str, Callable[[], int]] = {}
    for count in args.threads:
        name = f"ours, {count} thread{'s' * (count > 1)}"
        loaders[name] = _ours(shard, batch_size, count, as_input=False)
    loaders["ours, 1 thread, float32 NDArray"] = _ours(shard, batch_size, 1, as_input=True)
    plain = _write_plain(shard, folder / "plain")
    for name in ("ImageRecordIter", "ImageRecordUInt8Iter"):
        loaders[f"mx.io.{name}"] = _record_iter(name, plain, batch_size, shape)
    if args.peer:
        loaders[FACE_IMAGE_ITER] = _face_image_iter(Path(args.peer), plain, batch_size, shape)
    return loaders


def _ours(shard: Shard, batch_size: int, threads: int, as_input: bool) -> Callable[[], int]:
    stream = BatchStream(shard, batch_size)
    turns = iter(range(10**9))
    batches = len(shard) // batch_size
    hand_over = (lambda image: runner.as_input(image).wait_to_read()) if as_input else lambda image: None

    def epoch() -> int:
        start = next(turns) * batches
        for _, batch in stream.prefetch(start, start + batches, threads):
            hand_over(batch.image)
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


def _record_iter(name: str, stem: Path, batch_size: int, shape: tuple[int, ...]) -> Callable[[], int]:
    """MXNet's own reader, which decodes in one thread beside the caller's."""
    reader = getattr(mx.io, name)(
        path_imgrec=f"{stem}.rec",
        path_imgidx=f"{stem}.idx",
        data_shape=shape,
        batch_size=batch_size,
        shuffle=True,
        rand_mirror=True,
        preprocess_threads=1,
    )
    return lambda: _drain(reader, batch_size)


def _drain(reader: Any, batch_size: int) -> int:
    reader.reset()
    images = 0
    for batch in reader:
        batch.data[0].wait_to_read()
        images += batch_size
    return images


def _face_image_iter(file: Path, stem: Path, batch_size: int, shape: tuple[int, ...]) -> Callable[[], int]:
    """Insightface's own reader; what it prints is left out."""

    def epoch() -> int:
        with contextlib.redirect_stdout(io.StringIO()):
            return _drain(reader, batch_size)

    with contextlib.redirect_stdout(io.StringIO()):
        reader = _peer_class(file)(batch_size, shape, f"{stem}.rec", shuffle=True, rand_mirror=True)
    return epoch


def _peer_class(file: Path) -> type:
    specification = importlib.util.spec_from_file_location("latse_bench_peer", file)
    try:
        module = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(module)
        return getattr(module, FACE_IMAGE_ITER)
    except Exception as error:  # whatever a stranger's file may raise
        raise LatseError(f"cannot take {FACE_IMAGE_ITER} from {file}: {error}") from error


def _figures(meter: _Meter, seconds: list[float]) -> dict[str, dict]:
    per_second = [images / time for images, time in zip(meter.images, seconds)]
    return {PER_CPU: figure(meter.per_cpu_second, "images/s"), PER_SECOND: figure(per_second, "images/s")}


def _goals(meters: dict[str, _Meter], reference: str) -> list[dict]:
    bounds = {FACE_IMAGE_ITER: 2.0}
    return [
        goal(
            f"images per CPU second of {reference}, over {name}",
            ratios(meters[reference].per_cpu_second, meter.per_cpu_second),
            at_least=bounds.get(name),
        )
        for name, meter in meters.items()
        if not name.startswith("ours")
    ]


def _setting(args: argparse.Namespace, shard: Shard) -> dict[str, Any]:
    return {
        "images": len(shard),
        "bytes_per_image": float(np.mean([len(shard.content(row)) for row in range(0, len(shard), 100)])),
        "batch_size": args.batch_size,
        "repeats": args.repeats,
        "threads": threads(),
        "loader_threads": args.threads,
    }


def _show(args: argparse.Namespace, figures: dict[str, dict], goals: list[dict]) -> None:
    rows = [["images per", "second of CPU", "second"]]
    for name, found in figures.items():
        cells = ["{median:.0f} ({min:.0f} to {max:.0f})".format(**one) for one in found.values()]
        rows.append([name, *cells])
    if not args.peer:
        rows.append([FACE_IMAGE_ITER, "not run", "(--peer)"])
    print(aligned(rows))
    for one in goals:
        print(verdict(one))
