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
from latse.data.shards.verdict_file import VerdictWriter
from latse.eval.candidates import open_model
from latse.files import locked
from latse.paper.set_embeddings import binding, embeddings_of
from latse.train import means
from latse.train.filter_command import Answer, store
from latse.train.means import Rows, Settled


def run(args: argparse.Namespace) -> None:
    """Judge by means, write and print; see `store` for what is raised."""
    store(args, ByMeans)


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
        self._settled: Settled | None = None
        self.binding = binding(self._model, shard, args.train_data)
        # Beside the verdicts, until they are all there.
        self._part = Path(f"{args.out}.embeddings.part")

    def judge_all(self, writer: VerdictWriter) -> None:
        """Write the verdicts on all images that `writer` lacks."""
        rows, left = self._settle(), writer.open_images()
        with tqdm(total=len(self._shard), initial=len(self._shard) - len(left), desc="rank") as progress:
            for part in means.parts(len(left), self._shard.classes):
                positions = left[part]
                rank = self._settled.ranks(rows[positions], positions).rank
                writer.put(positions, np.stack([rank, rank], 1))
                progress.update(len(positions))
        self._part.unlink(missing_ok=True)

    def again(self, faces: np.ndarray, ks: Sequence[int]) -> Iterator[Answer]:
        """Answer for `faces`, embedded anew; see `Judgement`. Cosines may differ by `means.TIE`/2."""
        if self._settled is None:  # the verdicts were there; their means are not
            with locked(self._out.parent):
                self._settle()
                self._part.unlink(missing_ok=True)
        for part in means.parts(len(faces), self._shard.classes):
            positions, mirrored = np.divmod(faces[part], 2)
            ranks = self._settled.ranks(self._embeddings.of(positions, mirrored), positions)
            yield Answer(faces[part], ranks.least, ranks.most)

    def details(self) -> dict[str, Any]:
        """Return what the means are of."""
        return {"centres": "means", "model": {"title": self._model.title, "origin": self._model.origin}}

    def _settle(self) -> Rows:
        """Choose the members of the means, and return the embeddings of all images."""
        rows = self._embeddings.all(self._part, self.binding)
        self._settled = means.settle(rows, self._shard.labels, self._shard.classes)
        members = f"{self._settled.members.sum()} of {len(self._shard)} images are in them"
        print(f"the means stand still after round {self._settled.rounds}; {members}")
        return rows
