"""The paper's Figure 5: a person's images restored from the embeddings of several stages of one training."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Mapping, Sequence

import mxnet as mx
import numpy as np

from latse.errors import LatseError
from latse.eval.canvas import draw_rows
from latse.eval.figures import to_pixels
from latse.models import checkpoint, run_folder
from latse.models.embedding import Network
from latse.symbols.names import OTHER_PARTS

STAGES = ("early", "middle", "last")


def stored_stages(prefix: str | os.PathLike) -> list[int]:
    """Return the checkpoints of a run, as iterations done, ascending; without 0, which is the last again."""
    return [number for number in run_folder.stored(prefix) if number]


def early_middle_last(prefix: str | os.PathLike) -> list[int]:
    """Return the first, the middle and the last stored checkpoint of a run.

    Raises LatseError if fewer than three are there.
    """
    stages = stored_stages(prefix)
    if len(stages) < len(STAGES):
        raise LatseError(
            f"{prefix}: {len(stages)} checkpoints are stored, three stages are needed: "
            "train with a smaller train.checkpoint_every, or with train.keep all"
        )
    return [stages[0], stages[(len(stages) - 1) // 2], stages[-1]]


def restored(
    prefix: str | os.PathLike,
    stage: int,
    last: int,
    images: np.ndarray,
    contexts: Sequence[mx.Context] = (),
    batch_size: int = 32,
) -> np.ndarray:
    """Restore images by the encoder of one `stage` and the decoder of the `last`, as the paper does.

    `prefix` is that of the run's checkpoints. The images are uint8 (n, 3, 112, 112) RGB, what is returned
    float32 of the same shape in -1..1; devices and batch size are as for `Network`. Raises LatseError if a
    checkpoint is missing or damaged, or has no decoder.
    """
    symbol, *early = checkpoint.load(prefix, stage)
    late = checkpoint.load(prefix, last)[1:]
    beside = ({key: array for key, array in part.items() if key.startswith(OTHER_PARTS)} for part in late)
    args, aux = ({**old, **new} for old, new in zip(early, beside))
    with tempfile.TemporaryDirectory() as folder:
        mixed = Path(folder) / f"{Path(prefix).name}-{stage}-decoded-by"
        checkpoint.save(mixed, last, symbol, args, aux)
        return Network(mixed, last, "generated_output", contexts, batch_size)(images)


def draw(path: str | os.PathLike, images: np.ndarray, rows: Mapping[str, np.ndarray]) -> None:
    """Draw a PNG of a person's images, and below them, a row for each stage, what is restored of them.

    The images are uint8 (n, 3, H, W) RGB. `rows` are title of a stage -> its faces, float of the same shape
    in -1..1.
    """
    faces = {title: to_pixels(generated) for title, generated in rows.items()}
    draw_rows(path, {"input": images, **faces}, 1.15, 1.8)
