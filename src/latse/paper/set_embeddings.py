"""The embeddings of all images of a training set by a model, and what they belong to."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from latse.data.shards.records import Shard
from latse.eval.candidates import FaceModel, FeatureFile
from latse.eval.identification import UnitRows
from latse.files import digest, digest_of
from latse.models.embedding import Network
from latse.models.features import unit
from latse.models.run_folder import parse, symbol_path
from latse.paper.embedding_file import Reopened, embedded
from latse.train import means
from latse.train.means import Rows
from latse.train.verdicts import preprocessing

FACES_AT_ONCE = 512  # images that are in memory at once: 19 MB


def embeddings_of(model: FaceModel, shard: Shard) -> Stored | Seen:
    """Return the embeddings of a set: those in a file, or those that the model makes.

    Raises LatseError if a file of features is for another number of images.
    """
    return (Stored if isinstance(model, FeatureFile) else Seen)(model, shard)


class Stored:
    """Embeddings that another program computed."""

    def __init__(self, model: FeatureFile, shard: Shard):
        name = name_of(shard)
        rows = Reopened.of(model.rows(len(shard), name))
        self._rows = UnitRows(rows, model.naming(name, shard.name))

    def all(self, part: Path, belongs: dict[str, str]) -> Rows:
        """Return those of all images, read as they are needed."""
        return self._rows

    def of(self, positions: np.ndarray, mirrored: np.ndarray) -> np.ndarray:
        """Return those of some images, float32 (m, d), of length 1."""
        return self._rows[positions]


class Seen:
    """Embeddings of a model that sees the images."""

    def __init__(self, model: FaceModel, shard: Shard):
        self._model, self._shard, self._name = model, shard, name_of(shard)

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


def name_of(shard: Shard) -> str:
    """Return the name of a set of images: its folder's."""
    return shard.folder.resolve().name


def binding(model: FaceModel, shard: Shard, train_data: str | None) -> dict[str, str]:
    """Return digests of the model, of its graph and the rule, of the set and of its decoded images."""
    source = model.origin["source"]
    made = model.origin.get("digest")
    if isinstance(made, dict):  # of features in a file for each set
        made = made[name_of(shard)]
    fitted = None if train_data is None else Shard(train_data).digest()
    is_checkpoint = isinstance(getattr(model, "feature", None), Network)
    graph = digest(symbol_path(parse(source)[0])) if is_checkpoint else None
    return {
        "teacher": made or digest_of([source, fitted]),
        "graph": digest_of(["means", means.RULE, graph, model.origin.get("feeding")]),
        "data": shard.digest(),
        "preprocessing": preprocessing(shard),
    }
