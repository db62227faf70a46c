"""A contender whose step is one update of a mean-face bank that several processes share."""

from __future__ import annotations

import argparse
from typing import Any, Dict, Iterator, Tuple

import numpy as np

from latse.bench.protocol import Step, serve
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


def main() -> None:
    """Serve the updates of one worker."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    for name in ("people", "batch-size", "iteration", "worker"):
        parser.add_argument(f"--{name}", type=int, required=True)
    args = parser.parse_args()

    def built() -> Tuple[Dict[str, Any], Step]:
        bank = MeanFaceBank(args.folder, args.people, SHAPE, MOMENTUM, args.iteration, args.worker)
        images, teaches = made_up(args.batch_size, args.worker), np.ones(args.batch_size, bool)
        labels = random_people(args.people, args.batch_size, args.worker)

        def step() -> None:
            bank.update(images, next(labels), teaches)

        return {"planned_megabytes": None, "parameters": 0}, step

    serve(built)


if __name__ == "__main__":
    main()
