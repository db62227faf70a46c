"""The training loop of Algorithm 1, resumable to the same bits."""

from __future__ import annotations

from pathlib import Path

import mxnet as mx
import numpy as np
from yacs.config import CfgNode

from latse.data.shards.loader import Batch, BatchStream
from latse.data.shards.records import Shard
from latse.devices import share
from latse.errors import LatseError
from latse.models.parameters import Parameters
from latse.train import graph, mixed_learner, state
from latse.train.bank import MeanFaceBank
from latse.train.learner import Learner
from latse.train.metrics import Journal
from latse.train.verdicts import KeepAll, Stored, TopK

LAST = 0  # number of the checkpoint that is the last one


class Trainer:
    """One run of one recipe into one folder.

    Parameters
    ----------
    recipe : CfgNode
        As `latse.recipe.load` returns it.
    shard : Shard
        The training images.
    folder : Path
        Receives `model-symbol.json`, `model-NNNN.params` (NNNN iterations; 0000 is the last), `untrained-…`,
        `state.params`, `metrics.jsonl`, `train.log` and the mean faces. If it holds a state, the run goes on.
    seed : int
        Decides the initial parameters, the order of the images, flips and dropout; at least 0.
    contexts : list of mx.Context
        Devices; the batch is split over them evenly.
    teacher : TopK, Stored or KeepAll
        Says which samples reach the encoder.
    symbol : mx.sym.Symbol, optional
        The training graph with a memory plan; by default the recipe's graph as it is.
    start : Parameters, optional
        What the first iteration begins with; all that is not among it begins at random.

    Raises
    ------
    LatseError
        For a batch that the devices cannot share, a damaged state, or a folder that cannot be written.
    """

    def __init__(
        self,
        recipe: CfgNode,
        shard: Shard,
        folder: Path,
        seed: int,
        contexts: list[mx.Context],
        teacher: TopK | Stored | KeepAll,
        symbol: mx.sym.Symbol | None = None,
        start: Parameters | None = None,
    ) -> None:
        self._recipe, self._folder, self._seed, self._contexts = recipe, folder, seed, contexts
        self._teacher, self._start = teacher, start
        self._classes = shard.classes
        self._stream = BatchStream(shard, recipe.train.batch_size, seed, recipe.train.images_per_person)
        plain, self._shapes = graph.build(recipe, shard.classes, recipe.train.batch_size)
        self._symbol = plain if symbol is None else symbol
        self._inference = graph.inference(recipe)
        share(recipe.train.batch_size, contexts)

    def run(self) -> None:
        """Train from the last state, or from the start, to the recipe's last iteration."""
        train = self._recipe.train
        resumed = state.load(self._folder)
        start = resumed.iteration if resumed else 0
        self._learner = self._new_learner(resumed)
        if resumed is None:
            self._save_model("untrained", self._learner.capture(0))
        self._bank = self._opened_bank(start)
        journal = Journal(self._folder, start, train.iterations, train.batch_size, train.log_every)
        try:
            for iteration, batch in self._stream.prefetch(start, train.iterations):
                values = self._step(iteration, batch)
                done = iteration + 1
                saves = done % train.checkpoint_every == 0 or done == train.iterations
                journal.add(
                    done,
                    values,
                    due=saves,
                    epoch=self._stream.epoch(iteration),
                    lr=self._learner.learning_rate,
                )
                if values.get("skipped"):
                    scale = values["loss_scale"].item()
                    journal.note(
                        f"iteration {done} skipped: a gradient is not finite at loss scale {scale:g}"
                    )
                if saves:
                    self._checkpoint(done)
                    journal.note(f"checkpoint {done}")
        finally:
            journal.close()
        if self._bank is not None:
            self._bank.close()

    def _step(self, iteration: int, batch: Batch) -> dict[str, np.ndarray]:
        """Do one iteration and return its losses and verdicts, each (B,)."""
        keep = self._teacher.keep(batch)
        inputs = {
            "data": batch.image,
            "softmax_label": batch.label,
            "keep": keep,
            "iteration": np.full(len(batch.label), iteration),
        }
        if self._bank is not None:
            teaches = keep.astype(bool) | self._recipe.filter.refused_in_mean
            inputs["mean_face"] = self._bank.update(batch.image, batch.label, teaches)
        values = self._learner.step(inputs, (self._seed * 1_000_003 + iteration) % 2**31)
        if not np.isfinite(values["loss"]).all():
            raise LatseError(
                f"the loss is not finite at iteration {iteration + 1}: lower schedule.learning_rate; "
                f"the last checkpoint is in {self._folder}"
            )
        if "similarity" in values:
            values["ssim"] = 1 - 2 * values.pop("similarity")
        return {**values, "kept": keep}

    def _new_learner(self, resumed: state.State | None) -> Learner:
        return mixed_learner.create(
            self._recipe, self._symbol, self._shapes, self._contexts, self._seed, resumed, self._start
        )

    def _opened_bank(self, start: int) -> MeanFaceBank | None:
        if "mean_face" not in self._shapes:
            return None
        shape = self._shapes["mean_face"][1:]
        return MeanFaceBank(self._folder, self._classes, shape, self._recipe.decoder.momentum, start)

    def _checkpoint(self, done: int) -> None:
        """Write the models that others read, then the state: a run whose state is its last is complete."""
        captured = self._learner.capture(done)
        self._save_model("model", captured, done)
        if done == self._recipe.train.iterations:
            self._save_model("model", captured)
        if self._bank is not None:
            self._bank.flush()
        state.save(self._folder, captured)
        if self._bank is not None:
            self._bank.checkpoint(done)

    def _save_model(self, name: str, captured: state.State, number: int = LAST) -> None:
        state.save_model(self._folder / name, number, self._inference, captured)
