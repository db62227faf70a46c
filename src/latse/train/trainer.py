"""The training loop of Algorithm 1, resumable to the same bits."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Callable, Iterator, Mapping

import mxnet as mx
import numpy as np
from yacs.config import CfgNode

from latse.cluster.alone import ALONE, Alone
from latse.cluster.pace import pace
from latse.cluster.workers import Workers
from latse.data.shards.loader import BatchStream
from latse.data.shards.records import Batch, Shard
from latse.errors import LatseError
from latse.files import make_folder, write_json
from latse.models import checkpoint, run_folder
from latse.recipe_keys import ALL, STOP
from latse.train import bank, learners, metrics, owned_bank, precision, state, verdict_truth
from latse.train.metrics import Averages, Journal, Watch
from latse.train.owned_bank import Bank
from latse.train.precision import DivergenceError
from latse.train.served_tables import ServedTables
from latse.train.state import AFRESH, RunState
from latse.train.tables import MOMENTUM, LocalTables, SampledHead, Table
from latse.train.training import Training
from latse.train.verdicts import Teacher

PATIENCE = 32  # iterations that may be left out in a row
LAST = 0  # number of the checkpoint that is the last one


class Trainer:
    """One run of one recipe into one folder.

    Parameters
    ----------
    training : Training
        Recipe, graph, devices and seed.
    shard : Shard
        The training images.
    folder : Path
        Receives `model-symbol.json`, `model-NNNN.params` (NNNN iterations, those of `train.keep`; 0000 is the
        last), `untrained-…`, `state.params`, `metrics.jsonl`, `train.log` and the mean faces. If it holds a
        state, the run goes on.
    teacher : Teacher
        Says which samples reach the encoder.
    begin : RunState, default nothing
        What the first iteration begins with; all that is not there begins at random.
    workers : Alone
        Those of the run. Only worker 0 reads and writes the folder, and needs `begin`.

    Attributes
    ----------
    reached : int
        Iteration of the last checkpoint, 0 while the run has none.

    Raises
    ------
    LatseError
        For a damaged state or noise.npz, or a folder that cannot be written; `DivergenceError` for a loss or
        parameter that is not finite.
    """

    def __init__(
        self,
        training: Training,
        shard: Shard,
        folder: Path,
        teacher: Teacher,
        begin: RunState = AFRESH,
        workers: Alone = ALONE,
    ) -> None:
        self._training, self._folder, self._teacher, self._begin = training, folder, teacher, begin
        self._recipe, self._workers, train = training.recipe, workers, training.recipe.train
        self._records, self._right = shard.records, verdict_truth.rightly_labelled(shard)
        self._models = state.ModelWriter(training.kept)
        self._pace = pace(workers, train.kvstore)
        self._skipped = 0  # iterations up to now, in a row
        self.reached = 0
        part = workers.rank, workers.count
        self._stream = BatchStream(shard, training.batch_size, training.seed, train.images_per_person, part)

    def run(
        self,
        note: str = "",
        asked_to_stop: Callable[[], bool] = lambda: False,
        watch: Watch = lambda line: None,
    ) -> int:
        """Train to the recipe's last iteration from the last state, or from the start; log a `note`.

        `watch` gets each line of the metrics. Where it is `asked_to_stop`, the running iteration is the last,
        with a checkpoint. Returns how many iterations are done.
        """
        train = self._recipe.train
        begin = self._agreed()
        done = start = self.reached = begin.iteration
        self._learner = learners.create(self._training, begin, self._workers)
        self._bank, self._head = self._opened_bank(start), self._opened_head(start)
        self._begin_models(begin)
        with contextlib.closing(self._journal(start, watch)) as journal:
            if note:
                journal.note(note)
            for iteration, batch in self._stream.prefetch(start, train.iterations):
                values = self._step(iteration, batch)
                done, epoch = iteration + 1, self._stream.epoch(iteration)
                stops = self._pace.stops(done, asked_to_stop())
                saves = stops or done % train.checkpoint_every == 0 or done == train.iterations
                journal.add(done, values, due=saves, epoch=epoch, lr=self._learner.learning_rate)
                if values.get("skipped"):
                    why = "the loss is not finite"
                    if "loss_scale" in values:
                        why = f"a gradient is not finite at loss scale {values['loss_scale'].item():g}"
                    journal.note(f"iteration {done} skipped: {why}")
                if saves:
                    self._checkpoint(done)
                    journal.note(f"checkpoint {done}")
                if stops:
                    break
        if self._bank is not None:
            self._bank.close()
        if done == train.iterations and self._is_first:
            state.forget_before(self._folder)
            bank.remove_traces(self._folder)
        return done

    def _agreed(self) -> RunState:
        """Return what the run goes on from; to other workers than 0 the learner tells the rest."""
        begin = (state.load(self._folder) or self._begin) if self._is_first else AFRESH
        scaling = {name: array.asnumpy().tolist() for name, array in begin.scaling.items()}
        (iteration, scaling), *_ = self._workers.gather("the start", (begin.iteration, scaling))
        if self._is_first:
            return begin
        return RunState(iteration, scaling={name: mx.nd.array(array) for name, array in scaling.items()})

    @property
    def _is_first(self) -> bool:
        """Whether this worker reads and writes the folder."""
        return self._workers.rank == 0

    def _journal(self, start: int, watch: Watch) -> Averages:
        train = self._recipe.train
        if not self._is_first:
            return Averages(train.batch_size, train.log_every, self._workers)
        last, size, every = train.iterations, train.batch_size, train.log_every
        return Journal(self._folder, start, last, size, every, watch, self._workers)

    def _begin_models(self, begin: RunState) -> None:
        """Write the model before the first iteration; of a run that goes on, leave those up to its state."""
        if begin.iteration == 0:
            self._save_model("untrained", self._learner.capture(0))
            return
        if not self._is_first:
            return
        for number in run_folder.stored(self._folder / "model"):
            if number > begin.iteration or number == LAST:
                checkpoint.parameters_path(self._folder / "model", number).unlink()
        self._write_models(begin)  # which a run that was finished may have had as its last alone

    def _step(self, iteration: int, batch: Batch) -> dict[str, np.ndarray]:
        """Do one iteration and return its losses and verdicts, each (B,), and how right these are."""
        keep = self._teacher.keep(batch)
        inputs = {
            "data": batch.image,
            "softmax_label": batch.label,
            "keep": keep,
            "iteration": np.full(len(batch.label), iteration),
        }
        if self._bank is not None:
            teaches = keep.astype(bool) | self._recipe.filter.refused_in_mean
            faces = batch.image if self._recipe.decoder.mirrored_in_mean else batch.unmirrored()
            inputs["mean_face"] = self._bank.update(faces, batch.label, teaches)
        if self._head is not None:
            inputs.update(self._head.inputs(batch.label, iteration))
        place = iteration * self._workers.count + self._workers.rank  # the dropout of each worker is its own
        seed = (self._training.seed * 1_000_003 + place) % 2**31
        if self._recipe.train.not_finite == STOP:
            values = self._learner.step(inputs, seed)
            if not np.isfinite(values["loss"]).all():
                images = self._note_not_finite(iteration, batch, values["loss"])
                raise DivergenceError(
                    f"the loss is not finite at iteration {iteration + 1}, whose images are in {images}"
                )
        else:
            values = self._learner.step(inputs, seed, lambda found: self._all_finite(iteration, batch, found))
            if self._skipped:
                if self._head is not None:
                    self._head.tables.skip()
                return {"kept": keep, "skipped": np.ones(1)}
            values = {"skipped": np.zeros(1), **values}
        if self._head is not None:
            self._head.learn(self._learner.table_gradients())
        values = {"kept": keep, **values}
        return {**values, **self._compared(batch, values["kept"])}

    def _all_finite(self, iteration: int, batch: Batch, found: Mapping[str, np.ndarray]) -> bool:
        """Tell whether the loss of every worker is finite; raise DivergenceError if too many were not."""
        own = bool(np.isfinite(found["loss"]).all())
        if not own:
            self._note_not_finite(iteration, batch, found["loss"])
        finite = all(self._workers.gather(f"the loss of iteration {iteration + 1}", own))
        self._skipped = 0 if finite else self._skipped + 1
        if self._skipped > PATIENCE:
            last = iteration + 1
            raise DivergenceError(
                f"the loss of {self._skipped} iterations in a row is not finite, the last {last}"
            )
        return finite

    def _note_not_finite(self, iteration: int, batch: Batch, loss: np.ndarray) -> Path:
        """Write down which images a batch had, as the set numbers them, and their losses; return where."""
        rows = zip(batch.record.tolist(), batch.label.astype(int).tolist(), loss.tolist())
        worker = f"-{self._workers.rank}" if self._workers.rank else ""
        path = make_folder(self._folder) / f"not_finite-{iteration + 1:07d}{worker}.json"
        images = [{"record": record, "label": label, "loss": str(each)} for record, label, each in rows]
        write_json(path, {"kind": "batch", "iteration": iteration + 1, "images": images})
        return path

    def _compared(self, batch: Batch, kept: np.ndarray) -> dict[str, np.ndarray]:
        """Return, of a set with known noise, which kept samples are right and which right ones are kept."""
        if self._right is None:
            return {}
        right = self._right[np.searchsorted(self._records, batch.record)].astype(np.float32)
        return {"precision": right[kept > 0], "recall": kept[right > 0]}

    def _opened_bank(self, start: int) -> Bank | None:
        shape = self._training.graph.shapes.get("mean_face")
        if shape is None:
            return None
        momentum, classes = self._recipe.decoder.momentum, self._training.classes
        return owned_bank.opened(self._workers, self._folder, classes, shape[1:], momentum, start)

    def _opened_head(self, start: int) -> SampledHead | None:
        """Return the sampled head with what its tables hold after `start` iterations."""
        training, workers = self._training, self._workers
        if not training.tables:
            return None
        about = self._recipe, training.tables, start
        tables = ServedTables(workers, *about) if isinstance(workers, Workers) else LocalTables(*about)
        tables.begin()
        mx.random.seed(training.seed)
        for table in training.tables:
            for kind in tables.kinds(table):
                tables.put(kind, table, self._begun(kind, table, start))
        sizes = training.classes, training.sample
        return SampledHead(tables, *sizes, training.seed, workers.rank, workers.count)

    def _begun(self, kind: str, table: Table, start: int) -> Iterator[np.ndarray]:
        """Return the blocks of a table or its momentum: of the state, of what the run begins with, or new."""
        if start:
            return state.table_blocks(self._folder, kind, table)
        if kind == MOMENTUM:
            return (np.zeros((count, table.width), np.float32) for _, count in table.blocks())
        given = self._begin.arg_params.get(table.name)
        if given is None:
            return (table.drawn(count) for _, count in table.blocks())
        rows = given.asnumpy().reshape(table.rows, table.width)
        return (rows[first : first + count] for first, count in table.blocks())

    def _checkpoint(self, done: int) -> None:
        """Write the models that others read, then the state: a run whose state is its last is complete."""
        captured = self._learner.capture(done)
        if not precision.all_finite([*captured.arg_params.values(), *captured.aux_params.values()]):
            raise DivergenceError(f"a parameter is not finite after iteration {done}")
        if self._is_first:
            self._refuse_another_folder()
            self._write_models(captured)
        if self._bank is not None:
            self._bank.flush()
        self._workers.gather(f"checkpoint {done}", None)
        if self._is_first:
            self._refuse_another_folder()
            state.save(self._folder, captured, self._head.blocks() if self._head else {})
        self._workers.gather(f"the state at iteration {done}", None)
        self.reached = done
        if self._bank is not None:
            self._bank.checkpoint(done)

    def _refuse_another_folder(self) -> None:
        """Raise LatseError if the folder is not that of the beginning: to write a file would make it anew."""
        if not (self._folder / metrics.FILE).is_file():
            raise LatseError(
                f"{self._folder} is gone: it was removed, moved or emptied while the run went on"
            )

    def _write_models(self, captured: RunState) -> None:
        self._save_model("model", captured, captured.iteration)
        if captured.iteration == self._recipe.train.iterations:
            self._save_model("model", captured)
        stored = run_folder.stored(self._folder / "model")
        numbers = [number for number in stored if LAST < number <= captured.iteration]
        for number in superseded(self._recipe, numbers):
            checkpoint.parameters_path(self._folder / "model", number).unlink()

    def _save_model(self, name: str, captured: RunState, number: int = LAST) -> None:
        if self._is_first:
            centres = self._head.centres() if self._head else {}
            self._models.save(self._folder / name, number, captured, centres)


def superseded(recipe: CfgNode, numbers: list[int]) -> list[int]:
    """Return which of the checkpoints up to the newest, whose `numbers` ascend, `train.keep` gives up.

    The newest itself stays until the next: at the end the last checkpoint has its content.
    """
    train, newest = recipe.train, numbers[-1]
    if train.keep == ALL:
        return []
    if isinstance(train.keep, int):
        return numbers[: -train.keep]
    stays = {*train.keep} if newest == train.iterations else {*train.keep, newest}
    return [number for number in numbers if number not in stays]
