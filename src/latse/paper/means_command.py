"""The sub-command `latse filter --centres means`: labels judged by the people's mean embeddings.

An image and its mirror image have one verdict, because the models of `latse eval` have one feature for both.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any, Iterator, Sequence

import mxnet as mx
import numpy as np
from tqdm import tqdm

from latse.data.shards.records import Shard
from latse.data.shards.verdict_file import VerdictWriter
from latse.eval.candidates import FaceModel, FeatureFile, open_model
from latse.eval.identification import UnitRows
from latse.files import digest, locked
from latse.models.embedding import Network
from latse.models.features import unit
from latse.models.run_folder import parse, symbol_path
from latse.paper.embedding_file import Reopened, embedded
from latse.train import means
from latse.train.filter_command import Answer, store
from latse.train.means import Rows, Settled
from latse.train.verdicts import preprocessing

FACES_AT_ONCE = 512  # images that are in memory at once: 19 MB


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
        name = shard.folder.resolve().name
        kind = _Stored if isinstance(self._model, FeatureFile) else _Seen
        self._embeddings = kind(self._model, shard, name)
        self._settled: Settled | None = None
        self.binding = _binding(self._model, shard, name, args.train_data)
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


class _Stored:
    """Embeddings that another program computed."""

    def __init__(self, model: FeatureFile, shard: Shard, name: str):
        rows = Reopened.of(model.rows(len(shard), name))
        self._rows = UnitRows(rows, model.naming(name, shard.name))

    def all(self, part: Path, belongs: dict[str, str]) -> Rows:
        """Return those of all images, read as they are needed."""
        return self._rows

    def of(self, positions: np.ndarray, mirrored: np.ndarray) -> np.ndarray:
        """Return those of some images, float32 (m, d), of length 1."""
        return self._rows[positions]


class _Seen:
    """Embeddings of a model that sees the images."""

    def __init__(self, model: FaceModel, shard: Shard, name: str):
        self._model, self._shard, self._name = model, shard, name

    def all(self, part: Path, belongs: dict[str, str]) -> Rows:
        """Return those of all images, which are made and lie in the file `part`."""
        return embedded(part, belongs, len(self._shard), self.of)

    def of(self, positions: np.ndarray, mirrored: np.ndarray | None = None) -> np.ndarray:
        """Return those of some images, float32 (m, d), of length 1."""
        starts = range(0, len(positions), FACES_AT_ONCE)
        parts = [slice(start, start + FACES_AT_ONCE) for start in starts]
        return np.concatenate(
            [self._batch(positions[part], None if mirrored is None else mirrored[part]) for part in parts]
        )

    def _batch(self, positions: np.ndarray, mirrored: np.ndarray | None) -> np.ndarray:
        def called(row: int) -> str:
            return self._shard.name(positions[row])

        images = self._shard.batch(positions, mirrored).image
        return unit(self._model.embed(images, self._name, called), called).astype(np.float32)


def _binding(model: FaceModel, shard: Shard, name: str, train_data: str | None) -> dict[str, str]:
    """Return digests of the model, of its graph and the rule, of the set and of its decoded images."""
    source = model.origin["source"]
    made = model.origin.get("digest")
    if isinstance(made, dict):  # of features in a file for each set
        made = made[name]
    fitted = None if train_data is None else Shard(train_data).digest()
    is_checkpoint = isinstance(getattr(model, "feature", None), Network)
    graph = digest(symbol_path(parse(source)[0])) if is_checkpoint else None
    return {
        "teacher": made or _digest([source, fitted]),
        "graph": _digest(["means", means.RULE, graph, model.origin.get("feeding")]),
        "data": shard.digest(),
        "preprocessing": preprocessing(shard),
    }


def _digest(content: list) -> str:
    return hashlib.blake2b(json.dumps(content).encode(), digest_size=16).hexdigest()
