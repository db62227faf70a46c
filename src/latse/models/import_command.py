"""`latse import`: an insightface checkpoint under our names, to start a training with."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np

from latse import devices
from latse.errors import LatseError
from latse.files import write_json
from latse.models import checkpoint, warm_start
from latse.models.embedding import Network
from latse.models.features import lengths
from latse.models.run_folder import parse
from latse.provenance import provenance
from latse.symbols import encoders
from latse.symbols.networks import IMAGE_SHAPE, trace

IMAGES = 4  # that both networks embed
EQUAL = 1e-4  # largest difference of two equal networks, of the embedding's norm: the rounding of float32


def run(args: argparse.Namespace) -> None:
    """Import; raise LatseError if the checkpoint is unreadable or does not hold a whole encoder."""
    prefix, number = parse(args.checkpoint)
    source = checkpoint.parameters_path(prefix, number)
    if checkpoint.symbol_path(args.out).resolve() == checkpoint.symbol_path(prefix).resolve():
        raise LatseError(f"--out {args.out} would replace the checkpoint that is imported")
    contexts = devices.contexts(args)
    parameters = warm_start.read(args.checkpoint)
    shapes = parameters.shapes()
    fit = warm_start.fit(args.encoder, shapes) if args.encoder else warm_start.recognised(source, shapes)
    fit.check(source)
    kept = set(fit.needed) | ({warm_start.CENTRES} & set(shapes))
    symbol = trace(encoders.create(fit.network))
    theirs = _embed(prefix, number, contexts[:1])  # before anything is written: something may be wrong
    checkpoint.save(args.out, 0, symbol, *parameters.only(kept))
    report = {
        "encoder": fit.network,
        "mapped": {name: list(shapes[name]) for name in shapes if name in kept},
        "not_mapped": {name: list(shapes[name]) for name in shapes if name not in kept},
        "embedding": _compared(theirs, _embed(args.out, 0, contexts[:1])),
    }
    _print(report, source, args.out)
    if args.json:
        origin = provenance(args, contexts[:1])
        write_json(args.json, {"kind": "import", "source": args.checkpoint, "provenance": origin, **report})


def _embed(prefix: str, number: int, contexts: list[mx.Context]) -> np.ndarray:
    """Embed the same random images."""
    images = np.random.default_rng(0).integers(0, 256, (IMAGES, *IMAGE_SHAPE), np.uint8)
    embedding = Network(prefix, number, contexts=contexts, batch_size=IMAGES)(images).astype(np.float64)
    path = checkpoint.parameters_path(prefix, number)
    lengths(embedding, lambda row: f"{path}: the embedding of random image {row}")
    return embedding


def _compared(theirs: np.ndarray, ours: np.ndarray) -> dict[str, float]:
    """Compare embeddings (n, d); differences as fractions of the norm."""
    norm = np.linalg.norm(theirs, axis=1)
    cosine = (theirs * ours).sum(axis=1) / (norm * np.linalg.norm(ours, axis=1))
    difference = np.abs(theirs - ours).max(axis=1) / norm
    return {"largest_difference": float(difference.max()), "smallest_cosine": float(cosine.min())}


def _print(report: dict[str, Any], source: Path, out: str) -> None:
    mapped = report["mapped"]
    people = mapped.get(warm_start.CENTRES, [0])[0]
    print(f"{source}: {report['encoder']}, all {len(mapped) - bool(people)} parameters mapped")
    print("fc1_gamma: 1, as the graph takes it whatever the file says")
    print(f"class centres: {f'of {people} people, kept' if people else 'none'}")
    for name, shape in report["not_mapped"].items():
        print(f"not mapped: {name} {tuple(shape)}")
    difference, cosine = report["embedding"].values()
    print(f"embeddings of {IMAGES} random images: largest difference {difference:.1e} of the norm", end=", ")
    print(f"smallest cosine {cosine:.6f}")
    if difference > EQUAL:
        print("so this is another network than the original: a start for training, not a copy of it")
    print(f"written: {checkpoint.parameters_path(out, 0)}")
