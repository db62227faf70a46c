"""`latse filter --centres dominant`: the dropping step of sub-centre ArcFace (Deng et al. 2020).

The dominant centre of a person is the one that most of its images, and their mirror images, are nearest to.
Refused is what lies farther from it than an angle.
"""

from __future__ import annotations

import argparse
import functools
import math
from typing import Any, Iterator, Sequence

import mxnet as mx
import numpy as np
from tqdm import tqdm

from latse.data.shards.records import Shard
from latse.data.shards.refusals import Refusals
from latse.data.shards.verdict_file import VerdictWriter
from latse.errors import MOST
from latse.files import digest_of
from latse.train.filter_command import Answer, Learned, batches, judge_by
from latse.train.verdicts import DOUBT

ANGLE = 75.0  # degrees, of the paper


def run(args: argparse.Namespace) -> Refusals | None:
    """Judge by dominant centres, write and print; see `store` for what is returned and raised."""
    return judge_by(Dominant, args)


class Dominant(Learned):
    """The judgement of a teacher's dominant centres; see `latse.train.filter_command.Judgement`.

    It refuses an image for every k or for none.
    """

    def __init__(self, args: argparse.Namespace, shard: Shard, devices: list[mx.Context]):
        super().__init__(args, shard, devices)
        self._angle = ANGLE if args.angle is None else args.angle
        self._least = math.cos(math.radians(self._angle))
        self.binding["graph"] = digest_of(["dominant", self._angle, self.binding["graph"]])

    def judge_all(self, writer: VerdictWriter) -> None:
        """Write the verdicts on all images."""
        faces = np.arange(2 * len(self._shard))
        others = (self._cosines.argmax(axis=1) != self._of_faces(faces)).mean()
        print(f"{100 * others:.2f} % of the images are nearest to another centre of the person")
        near = self._near(faces, self._cosines) > self._least
        writer.put(faces[::2] // 2, np.where(near, 0, MOST).reshape(-1, 2))

    def again(self, faces: np.ndarray, ks: Sequence[int]) -> Iterator[Answer]:
        """Answer for `faces`, see `Judgement`; a cosine may differ by `DOUBT`."""
        for part, batch in batches(self._shard, faces, self._batch_size):
            cosine = self._near(part, self.judge.own_cosines(batch))
            least, most = (np.where(cosine + doubt > self._least, 0, MOST) for doubt in (DOUBT, -DOUBT))
            yield Answer(part, least, most)

    def details(self) -> dict[str, Any]:
        """Return by what was judged."""
        return {"centres": "dominant", "angle": self._angle}

    @functools.cached_property
    def _cosines(self) -> np.ndarray:
        """The cosines of all images and mirror images with their own persons' centres, (2·n, centres)."""
        found, faces = [], np.arange(2 * len(self._shard))
        with tqdm(total=len(self._shard), desc="embed", unit="image") as progress:
            for part, batch in batches(self._shard, faces, self._batch_size):
                found.append(self.judge.own_cosines(batch).astype(np.float32))
                progress.update(len(part) // 2)
        return np.concatenate(found)

    @functools.cached_property
    def _dominant(self) -> np.ndarray:
        """The dominant centre of each person, the first of several with as many images: int (K,)."""
        centres = self._cosines.shape[1]
        votes = np.repeat(self._shard.labels, 2) * centres + self._cosines.argmax(axis=1)
        return np.bincount(votes, minlength=self._shard.classes * centres).reshape(-1, centres).argmax(axis=1)

    def _of_faces(self, faces: np.ndarray) -> np.ndarray:
        """Return the dominant centre of the person of each face."""
        return self._dominant[self._shard.labels[faces // 2]]

    def _near(self, faces: np.ndarray, cosines: np.ndarray) -> np.ndarray:
        """Return of the cosines (m, centres) of faces those with the dominant centre: (m,)."""
        return np.take_along_axis(cosines, self._of_faces(faces)[:, None], axis=1)[:, 0]
