"""Images per second of training."""

from __future__ import annotations

from typing import Iterator, Sequence

import mxnet as mx
import numpy as np
from tqdm import tqdm

from latse.bench.gpu_check.setting import Setting
from latse.bench.gpu_check.steps import SEED, inputs, learner, training
from latse.bench.protocol import timed
from latse.errors import LatseError, is_short_of_memory
from latse.goals import Figure, Goal
from latse.recipe_keys import EMULATED, HALF, SINGLE

FIRST, REPEATS = 3, 10  # steps before time counts, in which cuDNN chooses its kernels; and then


def rows(setting: Setting) -> Iterator[Goal | str]:
    """Time the training steps of networks on one device and on all, in each precision."""
    sizes = setting.sizes
    groups = [setting.devices[:1]] + ([setting.devices] if len(setting.devices) > 1 else [])
    kinds = SINGLE, HALF if setting.is_gpu else EMULATED
    ways = [(name, kind, group) for name in sizes.timed for kind in kinds for group in groups]
    for name, kind, devices in tqdm(ways, "images per second", unit="training"):
        title = f"{name}, {kind}, {len(devices)} × {sizes.timed_images} images"
        try:
            figure = speed(setting, name, kind, devices)
        except (mx.MXNetError, RuntimeError) as error:
            if not is_short_of_memory(error):
                raise
            yield f"{title}: they do not fit into {devices[0]}"
        else:
            yield Goal(f"{title}: training", figure)


def speed(setting: Setting, name: str, kind: str, devices: Sequence[mx.Context]) -> Figure:
    """Return the images per second; raise LatseError for a loss that is not finite."""
    changes = f"train.precision={kind}", f"train.kvstore={'device' if len(devices) > 1 else 'local'}"
    run = training(devices, setting.sizes, name, *changes, images=setting.sizes.timed_images)
    made, fed = learner(run), inputs(run)

    def step() -> dict[str, float]:
        loss = float(made.step(fed, SEED)["loss"].mean())
        mx.nd.waitall()
        return {"loss": loss}

    answers = [timed(step) for _ in range(FIRST + REPEATS)]
    if not np.isfinite([answer["loss"] for answer in answers]).all():
        raise LatseError(f"{name}, {kind}: a loss is not finite")
    return Figure.of([run.batch_size / answer["seconds"] for answer in answers[FIRST:]], "images/s")
