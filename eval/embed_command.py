"""`latse embed`: the embeddings of photographs, as an array of numpy."""

from __future__ import annotations

import argparse
import functools
import itertools
from pathlib import Path
from typing import Iterator, Sequence

import numpy as np
from tqdm import tqdm

from latse import arrays, devices
from latse.data.photographs import photographs
from latse.data.photographs.faces import open_faces
from latse.errors import LatseError, check_range
from latse.eval.candidates import FlipSummed, open_embedder
from latse.eval.verification import flip_sum
from latse.files import explained, make_parents, refuse_existing, replacing, write_json
from latse.models.features import lengths
from latse.provenance import provenance

AT_ONCE = 2048  # faces that are in memory at once: 77 MB


def run(args: argparse.Namespace) -> None:
    """Embed, write, and say how; raise LatseError for bad input."""
    out, names = Path(args.out), Path(args.out).with_suffix(".json")
    if out.suffix != ".npy":
        raise LatseError(f"{out} does not end in .npy")
    refuse_existing(out, names)
    check_range("--processes", args.processes, 1, 4096)
    make_parents(out)
    contexts = devices.contexts(args)
    model = open_embedder(args.model, contexts, args.batch_size, args.train_data)
    taken: list[str] = []
    left_out: list[str] = []
    faces = _faces(_listed(args.photographs), args, taken, left_out)
    embeddings = _embedded(model, faces, args, taken)
    record = {
        "kind": "embed",
        "provenance": provenance(args, contexts),
        "model": {"title": model.title, "origin": model.origin},
        "images": len(embeddings),
        "dimensions": embeddings.shape[1],
        "aligned": args.align,
        "mirror_added": not args.no_mirror,
        "normalised": not args.no_normalise,
        "photographs": taken,
        "left_out": left_out,
    }
    with replacing(out) as temporary:
        with temporary.open("wb") as file:
            arrays.save(file, embeddings)
        write_json(names, record)
    whole = "the image's alone" if args.no_mirror else "the image's plus its mirror image's"
    length = "not normalised" if args.no_normalise else "divided by its length"
    print(f"{out}: {len(embeddings)} embeddings of {embeddings.shape[1]} numbers, each {whole}, {length}")
    if left_out:
        print(f"left out: {len(left_out)} of {len(taken + left_out)} photographs, first {left_out[0]}")


def _listed(given: Sequence[str]) -> list[Path]:
    """Return the files that files and folders stand for, in order."""
    files: list[Path] = []
    for path in map(Path, given):
        with explained(f"cannot read {path}"):
            if not path.exists():
                raise LatseError(f"there is no file or folder {path}")
            is_folder = path.is_dir()
        images = [path / image.path for image in photographs.images_in(path)] if is_folder else [path]
        if not images:
            raise LatseError(f"the folder {path} holds no image")
        files += images
    return files


def _faces(
    files: Sequence[Path], args: argparse.Namespace, taken: list[str], left_out: list[str]
) -> Iterator[np.ndarray]:
    """Iterate faces, uint8 (3, 112, 112) RGB; note paths in `taken`, and in `left_out` what gives none."""
    faces = open_faces(files, args.align, args.processes)
    bar = tqdm(files, desc="align" if args.align else "read", unit="photo", delay=1)
    for file, face in zip(bar, faces):
        if isinstance(face, np.ndarray):
            taken.append(str(file))
            yield face.transpose(2, 0, 1)
        elif args.skip:
            left_out.append(str(face))
        else:
            raise LatseError(f"{face} (--skip leaves it out)") from face
    if not taken:
        raise LatseError(f"no photograph gives a face, first {left_out[0]}")


def _embedded(
    model: FlipSummed, faces: Iterator[np.ndarray], args: argparse.Namespace, taken: Sequence[str]
) -> np.ndarray:
    """Return the embeddings of faces, float32 (n, d); an error calls them by their paths in `taken`."""
    feature = model.feature if args.no_mirror else functools.partial(flip_sum, model.feature)
    parts: list[np.ndarray] = []

    def called(row: int) -> str:
        return f"{model.title}: the embedding of {taken[AT_ONCE * len(parts) + row]}"

    while images := list(itertools.islice(faces, AT_ONCE)):
        rows = feature(np.stack(images)).astype(np.float64)
        norms = lengths(rows, called)
        parts.append((rows if args.no_normalise else rows / norms[:, None]).astype(np.float32))
    return np.concatenate(parts)
