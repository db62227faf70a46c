"""`latse bench search`: ranks among distractors, against faiss's exact search by inner product.

Both get the same arrays, and faiss the easier task, the nearest distractor of each probe, where ours finds
the rank of every mate and the highest scores for TAR at FAR. Made-up features: people are random centres with
random deviations, so that the mates of most probes are nearer than any distractor, as in MegaFace. Where most
are farther than many (`--likeness 0` with few people), ours takes longer: each is compared with all scores.
"""

from __future__ import annotations

import argparse
import functools
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from latse.bench.benchmark import Outcome
from latse.bench.timing import in_turn, ratios
from latse.errors import LatseError
from latse.eval.identification import Identification, identify, mate_pairs
from latse.goals import Figure, Goal
from latse.models.features import unit

AT_ONCE = 10_000


def measure(args: argparse.Namespace) -> Outcome:
    """Search the same features with both, in turn, and compare the ranks."""
    try:
        import faiss
    except ImportError as error:
        raise LatseError("faiss is not installed: pip install 'latse[test]' brings it") from error
    sizes = args.probes, args.people, args.distractors, args.dimensions
    probes, pairs, gallery = made_up(*sizes, args.likeness)
    index = faiss.IndexFlatIP(args.dimensions)
    index.add(gallery)
    faiss.omp_set_num_threads(1)

    def theirs() -> None:
        # Its wheel multiplies on one core whatever it is told, so each thread gets a share of the probes.
        with ThreadPoolExecutor(args.threads) as pool:
            list(pool.map(lambda part: index.search(part, 1), np.array_split(probes, args.threads)))

    ours = functools.partial(identify, probes, pairs, gallery, threads=args.threads)
    times = in_turn({"latse": ours, "faiss": theirs}, args.repeats)
    seconds = {name: each.seconds for name, each in times.items()}
    identified = times["latse"].answers[-1]["value"]
    _, nearest = index.search(probes, min(args.neighbours, args.distractors))
    compared, different = disagreements(identified, probes, pairs, gallery, nearest)
    rank_1 = identified.cmc(args.distractors, 1)
    figures = {name: {"search": Figure.of(each, "s")} for name, each in seconds.items()}
    figures["latse"]["rank 1"] = Figure.of([rank_1])
    goals = [
        Goal.of("time of latse over faiss", ratios(seconds["latse"], seconds["faiss"]), at_most=0.6),
        Goal.of("share of the ranks that differ from faiss's", [different / compared], at_most=0),
    ]
    setting = {"likeness": args.likeness, "pairs": len(pairs), "faiss": faiss.__version__}
    remark = f"rank 1: {100 * rank_1:.2f} % of {len(pairs)} pairs; {different} of {compared} ranks differ"
    return Outcome(figures, goals, setting, [remark])


def made_up(
    probes: int, people: int, distractors: int, dimensions: int, likeness: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Make unit features: probes float32 (p, d), pairs int64 (n, 2), distractors float32 (m, d)."""
    rng = np.random.default_rng(0)
    person = np.arange(probes) % people
    centres = rng.standard_normal((people, dimensions), np.float32)
    features = np.float32(likeness) * centres[person]
    features += rng.standard_normal(features.shape, np.float32)
    gallery = rng.standard_normal((distractors, dimensions), np.float32)
    for start in range(0, distractors, AT_ONCE):
        rows = gallery[start : start + AT_ONCE]
        rows[:] = unit(rows, "distractor {}".format)
    return unit(features, "probe {}".format), mate_pairs(person), gallery


def disagreements(
    result: Identification, probes: np.ndarray, pairs: np.ndarray, gallery: np.ndarray, nearest: np.ndarray
) -> tuple[int, int]:
    """Compare ranks in the largest gallery with those that follow from the nearest distractors of each probe.

    `result` is what `identify` found for the arrays. `nearest`, int64 (p, k), holds the positions of the k
    distractors that another search found nearest. Returns how many pairs there are, and of how many the
    ranks differ; a rank above k is the same as another above k.
    """
    limit, wrong = nearest.shape[1] + 1, 0
    ranks = np.minimum(result.ranks[-1], limit)
    for probe in np.unique(pairs[:, 0]):
        rows = np.flatnonzero(pairs[:, 0] == probe)
        rows_of_probes = probes[probe].astype(np.float64)
        mates = (rows_of_probes * probes[pairs[rows, 1]]).sum(axis=1)
        scores = (rows_of_probes * gallery[nearest[probe]]).sum(axis=1)
        wrong += int((1 + (scores >= mates[:, None]).sum(axis=1) != ranks[rows]).sum())
    return len(pairs), wrong
