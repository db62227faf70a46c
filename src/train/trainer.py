"""The training loop of Algorithm 1: Module over a KVStore, resumable to the same bits."""

from __future__ import annotations

from pathlib import Path

import mxnet as mx
import numpy as np
from yacs.config import CfgNode

from latse.data.loader import Batch, BatchStream
from latse.data.records import Shard
from latse.devices import share
from latse.errors import LatseError
from latse.symbols.networks import trace
from latse.train import graph, schedule, state
from latse.train.bank import MeanFaceBank
from latse.train.metrics import Journal
from latse.train.optimiser import SGDWithRunning
from latse.train.verdicts import KeepAll, Stored, TopK
from latse.warm_start import Parameters

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
        self._teacher, self._start = teacher, start or Parameters({}, {})
        self._classes = shard.classes
        self._stream = BatchStream(shard, recipe.train.batch_size, seed, recipe.train.images_per_person)
        self._network = graph.training(recipe, shard.classes)
        self._symbol = trace(self._network) if symbol is None else symbol
        self._inference = graph.inference(recipe)
        self._shapes = graph.shapes(self._network, recipe.train.batch_size)
        share(recipe.train.batch_size, contexts)

    def run(self) -> None:
        """Train from the last state, or from the start, to the recipe's last iteration."""
        train = self._recipe.train
        resumed = state.load(self._folder)
        start = resumed.iteration if resumed else 0
        self._module = self._initialised(resumed)
        if resumed is None:
            self._save_model("untrained", state.capture(self._module, 0))
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
                    lr=self._module._optimizer.learning_rate,
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
        mx.random.seed((self._seed * 1_000_003 + iteration) % 2**31)  # dropout, the same after a resume
        arrays = {name: graph.as_input(inputs[name]) for name in self._shapes}
        label = arrays.pop("softmax_label")
        self._module.forward_backward(mx.io.DataBatch(list(arrays.values()), [label]))
        self._module.update()
        names = [name[: -len("_output")] for name in self._module.output_names]
        values = {name: array.asnumpy() for name, array in zip(names, self._module.get_outputs())}
        if not np.isfinite(values["loss"]).all():
            raise LatseError(
                f"the loss is not finite at iteration {iteration + 1}: lower schedule.learning_rate; "
                f"the last checkpoint is in {self._folder}"
            )
        if "similarity" in values:
            values["ssim"] = 1 - 2 * values.pop("similarity")
        return {**values, "kept": keep}

    def _initialised(self, resumed: state.State | None) -> mx.mod.Module:
        """Return the module, bound, with parameters and optimiser of the state or of the start."""
        module = mx.mod.Module(
            self._symbol,
            data_names=[name for name in self._shapes if name != "softmax_label"],
            label_names=["softmax_label"],
            context=self._contexts,
        )
        module.bind(
            data_shapes=[(name, shape) for name, shape in self._shapes.items() if name != "softmax_label"],
            label_shapes=[("softmax_label", self._shapes["softmax_label"])],
        )
        mx.random.seed(self._seed)
        np.random.seed(self._seed)  # some of MXNet's initialisers draw from numpy
        if resumed:
            module.init_params(arg_params=resumed.arg_params, aux_params=resumed.aux_params)
        else:
            # insightface's, fit for residual units with PReLU.
            module.init_params(
                mx.init.Xavier(rnd_type="gaussian", factor_type="out", magnitude=2),
                arg_params=self._start.args,
                aux_params=self._start.aux,
                allow_missing=True,
            )
        self._set_optimiser(module, resumed)
        return module

    def _set_optimiser(self, module: mx.mod.Module, resumed: state.State | None) -> None:
        train = self._recipe.train
        module.init_optimizer(
            kvstore=train.kvstore,
            optimizer=SGDWithRunning.__name__,
            optimizer_params={
                "lr_scheduler": schedule.create(self._recipe),
                "momentum": train.momentum,
                "wd": train.weight_decay,
                "rescale_grad": 1 / train.batch_size,  # each sample's loss counts equally on any device
                "begin_num_update": resumed.iteration if resumed else 0,
            },
        )
        if resumed:
            state.restore(module, resumed)

    def _opened_bank(self, start: int) -> MeanFaceBank | None:
        if "mean_face" not in self._shapes:
            return None
        shape = self._shapes["mean_face"][1:]
        return MeanFaceBank(self._folder, self._classes, shape, self._recipe.decoder.momentum, start)

    def _checkpoint(self, done: int) -> None:
        """Write the models that others read, then the state: a run whose state is its last is complete."""
        captured = state.capture(self._module, done)
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
