"""The sub-command `latse filter --centres means`: labels judged by the people's mean embeddings.

An image and its mirror image have one verdict, because the models of `latse eval` have one feature for both.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Iterator, Sequence

import mxnet as mx
import numpy as np
from tqdm import tqdm

from latse.data.shards.records import Shard
from latse.data.shards.refusals import Refusals
from latse.data.shards.verdict_file import VerdictWriter
from latse.eval.candidates import open_model
from latse.files import locked
from latse.paper.set_embeddings import binding, embeddings_of
from latse.train import means
from latse.train.filter_command import Answer, store
from latse.train.means import Rows, Settled


def run(args: argparse.Namespace) -> Refusals | None:
    """Judge by means, write and print; see `store` for what is returned and raised."""
    return store(args, ByMeans)


class ByMeans:
    """The judgement of the people's means, by any model; see `latse.train.filter_command.Judgement`.

    Raises LatseError if there is no such model, a file of features is for another number of images, or the
    set has too few people or images.

    Attributes
    ----------
    binding : dict of str to str
        What the verdicts belong to.
    """

    def __init__(self, args: argparse.Namespace, shard: Shard, devices: list[mx.Context]):
        means.check_people(shard.labels, str(shard.folder))
        self._shard, self._out = shard, Path(args.out)
        self._model = open_model(args.teacher, devices, args.batch_size, args.train_data)
        self._embeddings = embeddings_of(self._model, shard)
        self._rows: Rows | None = None
        self._settled: Settled | None = None
        self.binding = binding(self._model, shard, args.train_data)
        # Beside the verdicts, until nothing more is asked.
        self._part = Path(f"{args.out}.embeddings.part")

    def judge_all(self, writer: VerdictWriter) -> None:
        """Write the verdicts on all images that `writer` lacks."""
        self._settle()
        left = writer.open_images()
        with tqdm(total=len(self._shard), initial=len(self._shard) - len(left), desc="rank") as progress:
            for part in means.parts(len(left), self._shard.classes):
                positions = left[part]
                rank = self._settled.ranks(self._rows[positions], positions).rank
                writer.put(positions, np.stack([rank, rank], 1))
                progress.update(len(positions))

    def again(self, faces: np.ndarray, ks: Sequence[int]) -> Iterator[Answer]:
        """Answer for `faces`, embedded anew; see `Judgement`. Cosines may differ by `means.TIE`/2."""
        self._settle_anew()
        for part in means.parts(len(faces), self._shard.classes):
            positions, mirrored = np.divmod(faces[part], 2)
            ranks = self._settled.ranks(self._embeddings.of(positions, mirrored), positions)
            yield Answer(faces[part], ranks.least, ranks.most)

    def explain(self, refused: np.ndarray, kept: np.ndarray, ks: Sequence[int]) -> tuple[Refusals, float]:
        """Tell whom images look like, by the embeddings that the means are of; see `Judgement`."""
        self._settle_anew()
        found = [np.empty((len(Refusals._fields), 0))]
        for part in means.parts(len(refused), self._shard.classes):
            positions = refused[part]
            rows = self._rows[positions]
            rank = self._settled.ranks(rows, positions).rank
            found.append(self._settled.likeliest(rows, positions).refusals(positions, rank))
        return Refusals.of(np.concatenate(found, axis=1)), self._settled.threshold

    def details(self) -> dict[str, Any]:
        """Return what the means are of."""
        return {"centres": "means", "model": {"title": self._model.title, "origin": self._model.origin}}

    def finish(self) -> None:
        """Remove the embeddings."""
        if self._settled is not None:
            self._part.unlink(missing_ok=True)

    def _settle_anew(self) -> None:
        """Make the means where the verdicts were there and they are not."""
        if self._settled is None:
            with locked(self._out.parent):
                self._settle()

    def _settle(self) -> None:
        """Embed all images, and choose the members of the means."""
        self._rows = rows = self._embeddings.all(self._part, self.binding)
        self._settled = means.settle(rows, self._shard.labels, self._shard.classes)
        members = f"{self._settled.members.sum()} of {len(self._shard)} images are in them"
        print(f"the means stand still after round {self._settled.rounds}; {members}")
