"""A contender whose step is one update of a mean-face bank that several processes share."""

from __future__ import annotations

from typing import Any, Iterator

import numpy as np

from latse.bench.protocol import Step
from latse.train.bank import MeanFaceBank

SHAPE = (3, 112, 112)
MOMENTUM = 0.9


def made_up(batch_size: int, seed: int) -> np.ndarray:
    """Return a batch of random images, uint8 (B, 3, 112, 112)."""
    return np.random.default_rng(seed).integers(0, 256, (batch_size, *SHAPE), np.uint8)


def random_people(people: int, batch_size: int, seed: int) -> Iterator[np.ndarray]:
    """Yield batches of labels without end, nobody twice before everybody was there once."""
    order = np.random.default_rng(seed).permutation(people)
    while True:
        yield order[:batch_size]
        order = np.roll(order, -batch_size)


def contender(
    folder: str, people: int, batch_size: int, iteration: int, worker: int
) -> tuple[dict[str, Any], Step]:
    """Return the updates of one worker, as `latse.bench.protocol.serve` takes them."""
    bank = MeanFaceBank(folder, people, SHAPE, MOMENTUM, iteration, worker)
    images, teaches = made_up(batch_size, worker), np.ones(batch_size, bool)
    labels = random_people(people, batch_size, worker)

    def step() -> None:
        bank.update(images, next(labels), teaches)

    return {"planned_megabytes": None, "parameters": 0}, step
