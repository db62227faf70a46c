"""The people's mean embeddings as class centres: a teacher without centres of its own judges labels by them.

All embeddings f are of length 1. Some images are members of the person that their label names. An image i
with the label y has

    own(i) = the cosine of f(i) and the sum of f over the members of y without i itself (over all images of y
             if it has no member), -inf if nobody is left,
    best(i) = the largest cosine of f(i) and the sum of f over the members of another person.

An image is *trusted* if it is a member and own > best. The threshold t lies halfway between the medians of
own and best over the trusted images: how images are like their own person, and like the likeliest other.

1. An image *looks like another* if best > max(own, t).
2. A label is *in doubt* for an image if at most one other image of the label does not look like another.
3. The rank of a label is how many other people have a larger cosine than own, but 0 if the label is in doubt
   and the image does not look like another.

Members are the images of rank 0; that is repeated until it stands still. The 0 of rule 3 is the benefit of
the doubt: nobody can say which of two images that disagree is the right one, or whether a single one is. But
of three images of which no two agree one is right at most, so there own counts as it is.

Two images that are leaving the members are *opposites* if the label of each is the likeliest other person of
the other image. Of opposites the one with the smaller best stays for this time: it may look like the other's
person only because the other image is a member there. So of a wrong image and the one right image of its
person the wrong one goes.

The first members of a person are the images that its other images agree with best, and those that are more
like these than like the first members of others: the plain mean of three images, one of them wrong, may be
nobody. An image that has left the members twice stays out, so that the repetition ends.

Cosines that differ by `TIE` or less are equal: the order of the sums does not decide.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Iterator, NamedTuple, Protocol

import numpy as np
from tqdm import tqdm

from latse.data.shards.refusals import NOBODY, Refusals
from latse.errors import LatseError

RULE = 2  # the number of the rules above; verdicts by others are others
TIE = 1e-5
NUMBERS_AT_ONCE = 1 << 23  # of cosines: 32 MB
ROWS_AT_ONCE = 2048


class Rows(Protocol):
    """Embeddings of length 1, float32 (n, d), read in parts: they need not be in memory."""

    def __len__(self) -> int:
        """Return n."""
        ...

    def __getitem__(self, part: slice | np.ndarray, /) -> np.ndarray:
        """Return the rows of a part."""
        ...


class Ranks(NamedTuple):
    """How many people are likelier than the label of each image, int64 (m,).

    `rank`, and between what it lies if each cosine is wrong by `TIE`/2 at most: `least`, `most`.
    """

    rank: np.ndarray
    least: np.ndarray
    most: np.ndarray


class Likeliest(NamedTuple):
    """Whom images look like; all arrays (m,).

    own, best : float, the cosines with the own person, and with the likeliest other; -inf for nobody
    other : int or float, the likeliest other
    looks_like_another : bool, whether best > max(own, threshold)
    """

    own: np.ndarray
    best: np.ndarray
    other: np.ndarray
    looks_like_another: np.ndarray

    @classmethod
    def of(cls, own: np.ndarray, best: np.ndarray, other: np.ndarray, threshold: float) -> Likeliest:
        """Judge cosines by a threshold."""
        return cls(own, best, other, best > np.maximum(own, threshold) + TIE)

    def refusals(self, positions: np.ndarray, rank: np.ndarray) -> Refusals:
        """Return what a list says of images at `positions` and with these ranks, (m,) each."""
        other = np.where(np.isfinite(self.best), self.other, NOBODY)
        looks_like = np.where(self.looks_like_another, other, NOBODY)
        return Refusals.of((positions, rank, other, self.own, self.best, looks_like))


@dataclass(frozen=True)
class Means:
    """The sums of the members' embeddings, and of all images of a person without members.

    Attributes
    ----------
    labels : int64 array (n,)
        The person of each image.
    inside : bool array (n,)
        Which of them are in the sums.
    sums : float64 array (people, d)
    counts : int64 array (people,)
        How many images are in each sum.
    compete : bool array (people,)
        Who has members: another person is nobody whom an image could look like.
    """

    labels: np.ndarray
    inside: np.ndarray
    sums: np.ndarray
    counts: np.ndarray
    compete: np.ndarray

    @classmethod
    def of(cls, rows: Rows, labels: np.ndarray, members: np.ndarray, people: int) -> Means:
        """Add up the embeddings of `members`, bool (n,)."""
        compete = np.bincount(labels[members], minlength=people) > 0
        inside = members | ~compete[labels]
        sums = np.zeros((people, rows[:1].shape[1]))
        for part in parts(len(rows), people):
            chosen = np.flatnonzero(inside[part])
            chosen = chosen[np.argsort(labels[part][chosen], kind="stable")]
            if len(chosen):
                owners, starts = np.unique(labels[part][chosen], return_index=True)
                sums[owners] += np.add.reduceat(rows[part][chosen].astype(np.float64), starts)
        return cls(labels, inside, sums, np.bincount(labels[inside], minlength=people), compete)

    def own(self, embeddings: np.ndarray, positions: np.ndarray | slice) -> np.ndarray:
        """Return the cosines with the own person's sum, the image left out: float64 (m,), -inf for nobody.

        `embeddings`, float (m, d), are those of the images at `positions`.
        """
        label, is_inside = self.labels[positions], self.inside[positions]
        embeddings = embeddings.astype(np.float64)
        others = self.sums[label] - is_inside[:, None] * embeddings
        norm = np.sqrt(np.einsum("ij,ij->i", others, others))
        there = (self.counts[label] > is_inside) & (norm > TIE)  # embeddings that cancel out have no mean
        cosines = np.einsum("ij,ij->i", others, embeddings) / np.where(there, norm, 1)
        return np.where(there, cosines, -np.inf)

    def cosines(self, embeddings: np.ndarray) -> np.ndarray:
        """Return the cosines with the sums of all people, float32 (m, people), -inf for one without members.

        `embeddings` are float32 (m, d).
        """
        cosines = embeddings @ self._directions.T
        cosines[:, self.nobody] = -np.inf
        return cosines

    def others(self, embeddings: np.ndarray, positions: np.ndarray | slice) -> np.ndarray:
        """Return the same of the images at `positions`, -inf for the own person too."""
        cosines = self.cosines(embeddings)
        cosines[np.arange(len(cosines)), self.labels[positions]] = -np.inf
        return cosines

    @functools.cached_property
    def _norms(self) -> np.ndarray:
        return np.sqrt(np.einsum("ij,ij->i", self.sums, self.sums))

    @functools.cached_property
    def nobody(self) -> np.ndarray:
        """Who has no mean, bool (people,)."""
        return ~self.compete | (self._norms <= TIE)

    @functools.cached_property
    def _directions(self) -> np.ndarray:
        return (self.sums / np.where(self.nobody, 1, self._norms)[:, None]).astype(np.float32)


@dataclass(frozen=True)
class Settled:
    """Means that stand still, and what labels are measured by.

    Attributes
    ----------
    means : Means
    members : bool array (n,)
        The images that they are of.
    threshold : float
        t, see above.
    in_doubt : bool array (n,)
        Whether the label is, for each image.
    barred : bool array (n,)
        Which images may not be members, for they have left twice.
    rounds : int
        How often members were chosen.
    """

    means: Means
    members: np.ndarray
    threshold: float
    in_doubt: np.ndarray
    barred: np.ndarray
    rounds: int

    def ranks(self, embeddings: np.ndarray, positions: np.ndarray | slice) -> Ranks:
        """Rank the labels of the images at `positions`, given their embeddings, float32 (m, d)."""
        own = self.means.own(embeddings, positions)
        cosines = self.means.others(embeddings, positions)
        most = np.maximum(own, self.threshold)

        def rank(tie: float) -> np.ndarray:
            excused = self.in_doubt[positions] & (cosines.max(axis=1) <= most + tie)
            return np.where(excused, 0, (cosines > own[:, None] + tie).sum(axis=1))

        return Ranks(rank(TIE), rank(2 * TIE), rank(0))

    def likeliest(self, embeddings: np.ndarray, positions: np.ndarray | slice) -> Likeliest:
        """Tell whom the images at `positions` look like, given their embeddings, float32 (m, d)."""
        own = self.means.own(embeddings, positions)
        cosines = self.means.others(embeddings, positions)
        other = cosines.argmax(axis=1)
        return Likeliest.of(own, cosines[np.arange(len(own)), other], other, self.threshold)


def check_people(labels: np.ndarray, name: str) -> None:
    """Raise LatseError, which calls the set by its `name`, if means cannot judge such labels, int (n,)."""
    if not 2 <= len(np.unique(labels)) < len(labels):
        raise LatseError(f"{name}: means need two people or more, and two images of one of them")


def settle(rows: Rows, labels: np.ndarray, people: int) -> Settled:
    """Choose members until they stand still.

    Parameters
    ----------
    rows : Rows
        Embeddings of length 1, float32 (n, d).
    labels : int64 array (n,)
        The person of each, 0 <= label < people.
    people : int
        Their number.
    """
    members, threshold = _first_members(rows, labels, people)
    left, barred = np.zeros((2, len(labels)), bool)
    rounds = 0
    while True:
        rounds += 1
        means = Means.of(rows, labels, members, people)
        own, best, other = _measured(rows, means)
        threshold = _threshold(own, best, members, threshold)
        first, in_doubt = _judged(own, best, labels, threshold)
        chosen = first & ~barred
        chosen |= _outdone(members & ~chosen, best, labels, other, people)
        if (chosen == members).all():
            return Settled(means, members, threshold, in_doubt, barred, rounds)
        leaving = members & ~chosen
        barred |= leaving & left
        left |= leaving
        members = chosen


def parts(count: int, people: int) -> Iterator[slice]:
    """Iterate the parts of so many rows whose cosines with all people are in memory at once."""
    size = max(1, min(ROWS_AT_ONCE, NUMBERS_AT_ONCE // people))
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def halfway(own: np.ndarray, best: np.ndarray) -> float:
    """Return what lies halfway between the medians of cosines, float (m,) each, m at least 1."""
    return float(np.median(own) + np.median(best)) / 2


def _first_members(rows: Rows, labels: np.ndarray, people: int) -> tuple[np.ndarray, float]:
    """Return the first members, bool (n,), and the threshold by the means of all images."""
    everybody = np.ones(len(labels), bool)
    own, best, _ = _measured(rows, Means.of(rows, labels, everybody, people))
    threshold = _threshold(own, best, everybody, 1.0)  # 1: nobody looks like another
    most = np.full(people, -np.inf)
    np.maximum.at(most, labels, own)
    central = own >= most[labels] - TIE
    own, best, _ = _measured(rows, Means.of(rows, labels, central, people))
    return central | (own > best + TIE), threshold


def _measured(rows: Rows, means: Means) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return own and best of every image, float64 (n,) each, and the likeliest other, int64 (n,)."""
    (own, best), other = np.empty((2, len(rows))), np.empty(len(rows), np.int64)
    for part in tqdm([*parts(len(rows), len(means.sums))], "compare", leave=False, disable=None):
        embeddings = rows[part]
        own[part] = means.own(embeddings, part)
        cosines = means.others(embeddings, part)
        other[part] = cosines.argmax(axis=1)
        best[part] = cosines[np.arange(len(cosines)), other[part]]
    return own, best, other


def _threshold(own: np.ndarray, best: np.ndarray, members: np.ndarray, before: float) -> float:
    """Return the threshold by the trusted images, else by all that have both cosines, else `before`."""
    measured = np.isfinite(own) & np.isfinite(best)
    trusted = measured & members & (own > best + TIE)
    taken = trusted if trusted.any() else measured
    return halfway(own[taken], best[taken]) if taken.any() else before


def _outdone(
    leaving: np.ndarray, best: np.ndarray, labels: np.ndarray, other: np.ndarray, people: int
) -> np.ndarray:
    """Return which of the `leaving` have an opposite with a larger best: bool (n,), from arrays (n,)."""
    at = np.flatnonzero(leaving)
    pairs = labels[at] * people + other[at]
    kinds, kind = np.unique(pairs, return_inverse=True)
    most = np.full(len(kinds) + 1, -np.inf)  # the last is of those without opposites
    np.maximum.at(most, kind, best[at])
    opposite = other[at] * people + labels[at]
    place = np.searchsorted(kinds, opposite)
    place[~np.isin(opposite, kinds)] = len(kinds)
    outdone = np.zeros(len(leaving), bool)
    outdone[at] = most[place] > best[at] + TIE
    return outdone


def _judged(
    own: np.ndarray, best: np.ndarray, labels: np.ndarray, threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return which images have rank 0, and for which the label is in doubt: bool (n,) each."""
    looks_like_another = best > np.maximum(own, threshold) + TIE
    unexplained = np.bincount(labels[~looks_like_another], minlength=labels.max() + 1)
    in_doubt = unexplained[labels] - ~looks_like_another <= 1
    return in_doubt & ~looks_like_another | (best <= own + TIE), in_doubt
