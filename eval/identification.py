"""Identification in the manner of MegaFace: the rank of a person's other picture among distractors.

For each pair (probe, mate) of two images of one person the gallery is the mate and the distractors, ordered
by their inner product with the probe. Scores are exact: a product in float32 finds all that cannot be
mistaken, and what lies too near to call is computed again in float64. So the ranks depend neither on the
library that multiplies nor on how the work is cut.

Protocol: Kemelmacher-Shlizerman et al., The MegaFace Benchmark, CVPR 2016.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Iterator, Protocol, Sequence

import numpy as np
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from latse import runtime
from latse.data.workers import in_threads
from latse.errors import LatseError
from latse.eval.roc import Highest, allowed
from latse.models.features import Called, finite, unit

SIZES = (10, 100, 1_000, 10_000, 100_000, 1_000_000)
RANKS = (1, 2, 5, 10, 20, 50, 100, 1_000, 10_000, 100_000, 1_000_000)
FARS = (1e-4, 1e-5, 1e-6)

# Tile of scores that a thread works on: 8 MB. Both fit uint16, in which its rows are counted.
PROBES_AT_ONCE, DISTRACTORS_AT_ONCE = 512, 4096
COMPARED_AT_ONCE = 32
# A mate that fewer of the first distractors outscore is counted by collecting them, others by comparing all.
SPARSE = 0.005
PRODUCTS_AT_ONCE = 4096
# Share of a tile from which on its exact scores are kept, once some mate needs that many.
MANY = 1 / 64


class Gallery(Protocol):
    """Features of distractors, read as they are needed: an array, a memory map, files, `UnitRows`."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def __getitem__(self, positions: np.ndarray | slice, /) -> np.ndarray:
        """Return the features at int64 (n,) positions or a slice of them, float (n, d)."""
        ...


class UnitRows:
    """A gallery of rows, float (stored, d), that are divided by their norms as they are read.

    `picked`, int64 (n,), says which of them (default: all), `called` what the sentence of an error calls the
    stored row of a number.
    """

    def __init__(self, rows: Gallery, called: Called, picked: np.ndarray | None = None):
        self.rows, self.called, self.picked = rows, called, picked

    def __len__(self) -> int:
        return len(self.rows if self.picked is None else self.picked)

    def __getitem__(self, positions: np.ndarray | slice) -> np.ndarray:
        """Return float32 (n, d); raise LatseError if a row is not finite or zero."""
        numbers = positions if self.picked is None else self.picked[positions]

        def called(row: int) -> str:
            return self.called(int(np.arange(len(self.rows))[numbers][row]))

        return unit(np.asarray(self.rows[numbers]), called).astype(np.float32, copy=False)


@dataclass(frozen=True)
class Identification:
    """Ranks of mates among distractors.

    Attributes
    ----------
    sizes : list of int
        Numbers of distractors, ascending.
    ranks : int64 (sizes, pairs)
        1 + the number of distractors whose score is not below the mate's. A tie counts against the model, so
        equal features for everybody earn nothing.
    genuine : float64 (pairs,)
        The scores of the pairs.
    impostors : float64 (m,)
        The highest scores between probes and distractors, descending.
    comparisons : int
        Number of probes times the largest number of distractors.
    """

    sizes: list[int]
    ranks: np.ndarray
    genuine: np.ndarray
    impostors: np.ndarray
    comparisons: int

    def curve(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the CMC: ranks, int64 ascending, at which it rises, 1 and the last one, and its values."""
        ranks = self.ranks[self.sizes.index(size)]
        at = np.unique([1, *ranks, size + 1])
        return at, np.searchsorted(np.sort(ranks), at, side="right") / len(ranks)

    def cmc(self, size: int, rank: int) -> float:
        """Return the fraction of pairs whose mate has at most this rank among `size` distractors."""
        return float(np.mean(self.ranks[self.sizes.index(size)] <= rank))

    def tar_at_far(self, far: float) -> float:
        """Return the fraction of pairs above the impostor with which the false accept rate passes `far`.

        With n comparisons and k the largest count with k / n <= far, that is the (k+1)-th highest of all
        scores between a probe and a distractor. Below 1 / n, k is 0: see `resolves`.
        """
        return float(np.mean(self.genuine > self.impostors[allowed(self.comparisons, far)]))

    def resolves(self, far: float) -> bool:
        """Tell whether `far` allows one false accept or more."""
        return allowed(self.comparisons, far) > 0

    def as_json(self) -> dict[str, Any]:
        """Return rank-1 and CMC of each size, TAR at each of `FARS`, and the FARs that are not resolved."""
        return {
            "sizes": {
                str(size): {
                    "rank_1": self.cmc(size, 1),
                    "cmc": {
                        str(rank): self.cmc(size, rank)
                        for rank in sorted({*RANKS, size + 1})
                        if rank <= size + 1
                    },
                }
                for size in self.sizes
            },
            "tar_at_far": {str(far): self.tar_at_far(far) for far in FARS},
            "unresolved_far": [str(far) for far in FARS if not self.resolves(far)],
        }


def mate_pairs(people: np.ndarray) -> np.ndarray:
    """Pair each image with each other one of its person, both ways round.

    `people`, int (n,), is the person of each image. Returns int64 (pairs, 2): probe, mate; by probe, then by
    mate.
    """
    known, person = np.unique(people, return_inverse=True)
    count = len(person)
    shows = csr_matrix((np.ones(count, bool), (np.arange(count), person)), (count, len(known)))
    probe, mate = (shows @ shows.T).nonzero()
    pairs = np.stack([probe, mate], axis=1)[probe != mate].astype(np.int64)
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def gallery_sizes(distractors: int) -> list[int]:
    """Return the `SIZES` below a number of distractors, and that number."""
    return [size for size in SIZES if size < distractors] + [distractors]


def identify(
    probes: np.ndarray,
    pairs: np.ndarray,
    gallery: Gallery,
    sizes: Sequence[int] | None = None,
    order: np.ndarray | None = None,
    threads: int | None = None,
    keep: int | None = None,
) -> Identification:
    """Rank the mate of each pair among the first distractors of a gallery, for several sizes of it at once.

    Parameters
    ----------
    probes : float32 (p, d)
        Taken as they are: divide by the norms for cosine similarity (`UnitRows`).
    pairs : int64 (n, 2)
        Probe and mate, both rows of `probes`; see `mate_pairs`.
    gallery : Gallery
        The distractors; each is read once, the first `DISTRACTORS_AT_ONCE` twice: what to look for is learnt
        from them. Memory: beside the probes and what the gallery holds, some 80 MB for each thread.
    sizes : sequence of int or None
        Numbers of distractors (default: `gallery_sizes`); a smaller gallery is the start of a larger one.
    order : int64 (m,)
        Positions in the gallery, in the order in which they are taken (default: as they stand).
    threads : int or None
        Of the CPU (default: `latse.runtime.threads`).
    keep : int or None
        How many of the highest impostors' scores to keep (default: what the largest of `FARS` needs).

    Raises
    ------
    LatseError
        If there is no pair or no distractor, a size is larger than the gallery, the dimensions differ, or a
        feature is not finite.
    """
    order = np.arange(len(gallery)) if order is None else np.asarray(order)
    sizes = gallery_sizes(len(order)) if sizes is None else sorted(set(sizes))
    probes = finite(np.ascontiguousarray(probes, np.float32), "the feature of probe {}".format)
    if not len(pairs):
        raise LatseError("no person has two images among the probes: there is nobody to find")
    if not len(order):
        raise LatseError("there is no distractor")
    if not 0 < sizes[0] <= sizes[-1] <= len(order):
        raise LatseError(f"galleries of {sizes[0]} to {sizes[-1]} cannot be made of {len(order)} distractors")
    comparisons = len(probes) * sizes[-1]
    best = Highest(keep or allowed(comparisons, max(FARS)) + 1)
    sample = _read(gallery, order[: min(sizes[-1], DISTRACTORS_AT_ONCE)], probes)
    search = _MateSearch(probes, pairs, sample, best)

    def count(number: int, start: int, stop: int) -> tuple[int, int, np.ndarray, np.ndarray]:
        return number, stop - start, *search.count(_read(gallery, order[start:stop], probes), best.floor)

    counts = np.zeros((len(sizes), len(pairs)), np.int64)
    bar = tqdm(total=sizes[-1], desc="identify", unit=" distractors", leave=False, delay=1)
    # A thread multiplies on its own, and while one waits for memory another computes: quicker than a product
    # that all share.
    with bar, threadpool_limits(1):
        for number, block, above, scores in in_threads(count, _blocks(sizes), threads or runtime.threads()):
            counts[number] += above
            best.add(scores)
            bar.update(block)
    ranks = np.empty_like(counts)
    ranks[:, search.order] = 1 + np.cumsum(counts, axis=0)
    genuine = np.empty(len(pairs))
    genuine[search.order] = search.genuine
    return Identification(sizes, ranks, genuine, np.sort(best.scores)[::-1], comparisons)


def identify_among(
    features: np.ndarray,
    people: np.ndarray,
    sizes: Sequence[int] | None = None,
    order: np.ndarray | None = None,
) -> Identification:
    """Rank each image's mates where the images of all other people are the distractors.

    The pairs of one person stand together, the people in ascending order. Raises LatseError as `identify`.

    Parameters
    ----------
    features : float32 (n, d)
        Taken as they are.
    people : int (n,)
        The person of each.
    sizes, order : sequence of int or None, ndarray or None
        As of `identify`; what an order says of a probe's own person is passed over. The largest default size
        is the number of images of others that everybody with two images has.
    """
    order = np.arange(len(people)) if order is None else np.asarray(order)
    known, number, images = np.unique(people, return_inverse=True, return_counts=True)
    probed = np.flatnonzero(images > 1)
    if not len(probed) or len(known) < 2:
        raise LatseError("identification needs two people, one of them with two images")
    others = len(people) - int(images[probed].max())
    sizes = gallery_sizes(others) if sizes is None else sorted(set(sizes))
    comparisons = int(images[probed].sum()) * sizes[-1]
    keep = allowed(comparisons, max(FARS)) + 1
    results = []
    for person in tqdm(probed, desc="identify", unit=" people", leave=False, delay=1):
        own = features[number == person]
        strangers = order[number[order] != person]
        pairs = mate_pairs(np.zeros(len(own)))
        results.append(identify(own, pairs, features, sizes, strangers, keep=keep))
    return Identification(
        sizes,
        np.concatenate([result.ranks for result in results], axis=1),
        np.concatenate([result.genuine for result in results]),
        np.sort(np.concatenate([result.impostors for result in results]))[::-1][:keep],
        comparisons,
    )


def _read(gallery: Gallery, positions: np.ndarray, probes: np.ndarray) -> np.ndarray:
    rows = np.asarray(gallery[positions], np.float32)
    if rows.shape[1:] != probes.shape[1:]:
        raise LatseError(f"probes have {probes.shape[1]} dimensions, distractors {rows.shape[1]}")
    return finite(rows, lambda row: f"the feature of distractor {positions[row]}")


def _blocks(sizes: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Cut the gallery into runs that no size divides: number of the size, start, stop."""
    for number, (low, high) in enumerate(zip([0, *sizes], sizes)):
        for start in range(low, high, DISTRACTORS_AT_ONCE):
            yield number, start, min(start + DISTRACTORS_AT_ONCE, high)


class _MateSearch:
    """Counts the distractors that score as high as a mate.

    Probes stand by `dense`, the number of their lowest mates that are counted by comparing all scores,
    falling, so that those which have a j-th one come first. The pairs stand by probe, then by rising score.
    """

    def __init__(self, probes: np.ndarray, pairs: np.ndarray, sample: np.ndarray, best: Highest):
        genuine = _exact(probes, probes, pairs[:, 0], pairs[:, 1])
        is_dense = genuine < _look_ahead(probes, sample, best)[pairs[:, 0]]
        dense = np.bincount(pairs[:, 0], weights=is_dense, minlength=len(probes)).astype(np.int64)
        by_dense = np.argsort(-dense, kind="stable")
        row = np.argsort(by_dense)[pairs[:, 0]]
        self.order = np.lexsort((genuine, row))  # of the given pairs
        self.row, self.genuine, self.is_dense = (of[self.order] for of in (row, genuine, is_dense))
        self.probes, self.dense = probes[by_dense], dense[by_dense]
        self.first = np.searchsorted(self.row, np.arange(len(probes) + 1))  # where each probe's pairs begin

    def count(self, block: np.ndarray, floor: float) -> tuple[np.ndarray, np.ndarray]:
        """Count the distractors of a block, float32 (n, d), whose score is not below a mate's.

        Returns the counts, int64 (pairs,), and the exact scores that are at least `floor`, float64, maybe
        with a few below.
        """
        bound = _bound(self.probes, block)
        counts, best = np.zeros(len(self.genuine), np.int64), []
        for start in range(0, len(self.probes), PROBES_AT_ONCE):
            tile = _Tile(self, start, block, bound, counts)
            tile.count_dense()
            best.append(tile.count_sparse(floor))
        return counts, np.concatenate(best)


class _Tile:
    """The scores of some probes, at most `PROBES_AT_ONCE`, with a block of distractors.

    The product in float32 is at most `tolerance` from the exact one: a score below `low` is surely less than
    the pair's, one above `high` surely more. Rows and pairs are numbered from the tile's first ones.
    """

    def __init__(self, search: _MateSearch, start: int, block: np.ndarray, bound: float, counts: np.ndarray):
        stop = start + PROBES_AT_ONCE
        self.probes, self.dense = search.probes[start:stop], search.dense[start:stop]
        first = search.first[start : stop + 1]
        pairs = slice(first[0], first[-1])
        self.first, self.row = first - first[0], search.row[pairs] - start
        self.genuine, self.is_dense = search.genuine[pairs], search.is_dense[pairs]
        self.counts = counts[pairs]
        self.block, self.bound = block, bound
        self.scores = self.probes @ block.T
        self.exact: np.ndarray | None = None  # 0 where nobody asked
        self.tolerance = _tolerance(bound, block)
        self.low = _rounded(self.genuine - self.tolerance, -np.inf)
        self.high = _rounded(self.genuine + self.tolerance, np.inf)

    def count_dense(self) -> None:
        """Compare all scores of each probe with its dense mates; few probes at once, for the cache."""
        for start in range(0, np.count_nonzero(self.dense), COMPARED_AT_ONCE):
            dense = self.dense[start : start + COMPARED_AT_ONCE]
            for number in range(dense[0]):
                rows = np.arange(start, start + np.searchsorted(-dense, -number))  # that have so many
                self._compare(rows, self.first[rows] + number)

    def _compare(self, rows: np.ndarray, pairs: np.ndarray) -> None:
        """Compare the scores of consecutive rows with a mate of each."""
        scores = self.scores[rows[0] : rows[-1] + 1]
        surely, maybe = scores > self.high[pairs, None], scores >= self.low[pairs, None]
        above = surely.view(np.uint8).sum(axis=1, dtype=np.uint16)
        self.counts[pairs] += above
        unsure = np.flatnonzero(maybe.view(np.uint8).sum(axis=1, dtype=np.uint16) != above)
        row, column = np.nonzero(surely[unsure] ^ maybe[unsure])
        self._count_exactly(rows[unsure[row]], column, pairs[unsure[row]])

    def count_sparse(self, floor: float) -> np.ndarray:
        """Sort each probe's few highest scores among its other mates; return those from `floor`, exact."""
        row, column, scores = self._highest(floor)
        reach = max(self.bound, np.abs(self.genuine).max(initial=0))  # a mate may outdo the whole block
        span = 4 * reach + 1  # so that the ranges of two probes do not touch
        key = row * span + scores
        surely = np.searchsorted(self.row * span + self.high, key, side="left")
        maybe = np.searchsorted(self.row * span + self.low, key, side="right")
        highest = surely[surely > self.first[row]] - 1  # the best mate that is outscored, if there is one
        until = np.concatenate([[0], np.cumsum(np.bincount(highest, minlength=len(self.genuine)))])
        above = until[self.first[self.row + 1]] - until[:-1]
        self.counts += np.where(self.is_dense, 0, above)
        unsure = np.flatnonzero(maybe > surely)
        while len(unsure):
            sparse = unsure[~self.is_dense[surely[unsure]]]
            self._count_exactly(row[sparse], column[sparse], surely[sparse])
            surely[unsure] += 1
            unsure = unsure[maybe[unsure] > surely[unsure]]
        top = scores >= floor - self.tolerance
        return _exact(self.probes, self.block, row[top], column[top])

    def _highest(self, floor: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Find the scores that matter to a sparse mate or reach the floor: row, column, score float64."""
        threshold = np.full(len(self.probes), _rounded(floor - self.tolerance, -np.inf))
        sparse = self.dense < np.diff(self.first)
        lowest = (self.first[:-1] + self.dense)[sparse]
        threshold[sparse] = np.minimum(threshold[sparse], self.low[lowest])
        places = np.flatnonzero(self.scores >= threshold[:, None])
        row, column = np.divmod(places, self.scores.shape[1])
        return row, column, self.scores.ravel()[places].astype(np.float64)

    def _count_exactly(self, row: np.ndarray, column: np.ndarray, pair: np.ndarray) -> None:
        above = self._exactly(row, column) >= self.genuine[pair]
        self.counts += np.bincount(pair[above], minlength=len(self.genuine))

    def _exactly(self, row: np.ndarray, column: np.ndarray) -> np.ndarray:
        """Return exact scores; of a model that hardly tells people apart, all mates ask for the same ones."""
        if len(row) < MANY * self.scores.size:
            return _exact(self.probes, self.block, row, column)
        self.exact = np.zeros(self.scores.shape) if self.exact is None else self.exact
        unknown = self.exact[row, column] == 0
        places = row[unknown], column[unknown]
        self.exact[places] = _exact(self.probes, self.block, *places)
        return self.exact[row, column]


def _look_ahead(probes: np.ndarray, sample: np.ndarray, best: Highest) -> np.ndarray:
    """Raise the floor of `best` to what the sample reaches; say from which score on a probe's mate is sparse.

    Returns float32 (p,), the score of each probe that `SPARSE` of the sample pass.
    """
    rank, cutoffs, highest = int(SPARSE * len(sample)), [], Highest(best.keep)
    for start in range(0, len(probes), PROBES_AT_ONCE):
        scores = probes[start : start + PROBES_AT_ONCE] @ sample.T
        cutoffs.append(
            np.partition(scores, -rank, axis=1)[:, -rank] if rank else np.full(len(scores), -np.inf)
        )
        highest.add(scores.ravel())
    best.floor = highest.floor - _tolerance(_bound(probes, sample), sample)
    return np.concatenate(cutoffs)


def _tolerance(bound: float, rows: np.ndarray) -> float:
    """Return how far a float32 product of rows may be from the exact one, if `_bound` gives `bound`.

    The error of a sum of d products is at most du / (1 - du) times the product of the norms, u = 2⁻²⁴, in
    whatever order they are added (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1). The
    bound is such a sum itself, hence the 2; the 2 more terms cover what underflows and the exact one's error.
    """
    error = (rows.shape[1] + 2) * 2.0**-24
    return error / (1 - 2 * error) * bound + rows.shape[1] * float(np.finfo(np.float32).tiny)


def _rounded(values: np.ndarray, towards: float) -> np.ndarray:
    """Return float64 values as float32, none on the other side of what it was."""
    return np.nextafter(np.float32(values), np.float32(towards))


def _bound(one: np.ndarray, other: np.ndarray) -> float:
    """Return what no product of rows exceeds, but for rounding: that of the largest norms."""
    norms = (math.sqrt(np.einsum("ij,ij->i", rows, rows).max()) for rows in (one, other))
    return math.prod(norms)


def _exact(one: np.ndarray, other: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return the inner products of rows `left` of one with rows `right` of the other, float64.

    Products of float32 are exact in float64, and numpy adds a row's in an order that only its length decides:
    equal features give equal scores.
    """
    products = np.empty(len(left))
    for start in range(0, len(left), PRODUCTS_AT_ONCE):
        part = slice(start, start + PRODUCTS_AT_ONCE)
        products[part] = (one[left[part]].astype(np.float64) * other[right[part]]).sum(axis=1)
    return products
