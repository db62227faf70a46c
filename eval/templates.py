"""Templates: several images of a person judged as one, 1:1 and 1:N (IJB-B and IJB-C).

The arithmetic is that of insightface's ijb_11.py and ijb_1n.py: features are weighted by the detector's
score, averaged over each media, summed over the media of a template, and normalised; a score is a cosine.
Beside insightface's rules for a rate at a rate stand the exact ones, named apart.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix
from sklearn.metrics import roc_curve

from latse.errors import LatseError
from latse.eval.roc import FAR_TARGETS, Highest, allowed
from latse.eval.template_lists import Faces, Subjects, TemplatePairs
from latse.models.features import unit

FPIR_TARGETS = (0.1, 0.01)
RANKS = (1, 5, 10)
PAIRS_AT_ONCE, PROBES_AT_ONCE = 8192, 1024
# Of a cosine. Features that are equal but for the rounding of how they were pooled tie.
DECIMALS = 12


@dataclass(frozen=True)
class Templates:
    """Templates: numbers, int64 (t,), ascending; features, float64 (t, d), of unit length."""

    numbers: np.ndarray
    features: np.ndarray

    def of(self, numbers: np.ndarray) -> np.ndarray:
        """Return the features of the templates `numbers`, which must be there."""
        return self.features[np.searchsorted(self.numbers, numbers)]


def pool(features: np.ndarray, faces: Faces, weights: np.ndarray | None = None, title: str = "") -> Templates:
    """Make one feature of each template's.

    Parameters
    ----------
    features : float (n, d)
        Of the faces in order, not normalised: a long feature counts more.
    faces : Faces
        Says which template and media each is of.
    weights : float (n,)
        Such as the detector's scores; default: 1.
    title : str
        Begins the sentence of an error.

    Raises
    ------
    LatseError
        If the feature of a template is zero or not finite.
    """
    weights = np.ones(len(features)) if weights is None else weights
    numbers, row = np.unique(faces.templates, return_inverse=True)
    _, media, count = np.unique(
        np.stack([faces.templates, faces.media]), axis=1, return_inverse=True, return_counts=True
    )
    shares = weights / count[media]
    averages = csr_matrix((shares, (row, np.arange(len(row)))), shape=(len(numbers), len(row)))
    return Templates(
        numbers, unit(averages @ features, lambda row: f"{title}the feature of template {numbers[row]}")
    )


def pair_scores(templates: Templates, pairs: TemplatePairs) -> np.ndarray:
    """Return the cosine of each pair of templates, float64 (p,), to `DECIMALS`."""
    scores = np.empty(len(pairs.first))
    for start in range(0, len(scores), PAIRS_AT_ONCE):
        part = slice(start, start + PAIRS_AT_ONCE)
        first, second = templates.of(pairs.first[part]), templates.of(pairs.second[part])
        scores[part] = np.einsum("ij,ij->i", first, second).round(DECIMALS)
    return scores


def verify_templates(templates: Templates, pairs: TemplatePairs) -> dict[str, Any]:
    """Judge pairs of templates, 1:1.

    Returns
    -------
    dict
        `tar_at_far`, by false accept rate, "0.1" to "1e-06": the largest true accept rate at which no more
        than that share of the different pairs is accepted. `unresolved_far`: its keys that allow less than
        one false accept; their rate is that before the first. `tar_at_nearest_far`, insightface's rule, for
        comparison with its figures: the point of scikit-learn's ROC curve whose false accept rate is nearest,
        be it larger or smaller.
    """
    scores = pair_scores(templates, pairs)
    different = np.sort(scores[~pairs.issame])[::-1]
    return {
        "tar_at_far": {str(far): _rate_at(scores[pairs.issame], different, far) for far in FAR_TARGETS},
        "unresolved_far": [str(far) for far in FAR_TARGETS if not allowed(len(different), far)],
        "tar_at_nearest_far": _nearest(scores, pairs.issame),
    }


def identify_templates(
    templates: Templates, galleries: dict[str, Subjects], probes: Subjects
) -> dict[str, Any]:
    """Search for probes in galleries, 1:N.

    Returns
    -------
    dict
        Fractions of the probes. `rank`: how many have their mate among the first "1", "5", "10" of all
        galleries together; a tie counts against it. `tpir_at_fpir`, insightface's rule over all galleries
        together, where every probe has a mate: the mate scores more than the k-th best of all scores with
        others, k being the rate times the number of probes, rounded up. `open_set`, by gallery:
        `tpir_at_fpir` as IJB-C defines it (Maze et al. 2018): a probe without a mate in this gallery is
        falsely positive if its best score passes the threshold, one with a mate is truly positive if that is
        first and passes it; a rate that the non-mated probes do not resolve is at no false positive. Also
        `rank` in this gallery, and the numbers of probes, `mated` and `non_mated`.

    Raises
    ------
    LatseError
        If a subject has two templates in the galleries, a probe's has none, or there are fewer than two.
    """
    searched = _search(templates, _joined(galleries), probes)
    strangers = probes.subjects[np.isnan(searched.mate)]
    if len(strangers):
        raise LatseError(f"subject {strangers[0]} is searched for but stands in no gallery")
    thresholds = {
        fpir: searched.top_others[math.ceil(len(searched.mate) * fpir) - 1] for fpir in FPIR_TARGETS
    }
    return {
        "rank": _ranks(searched.rank),
        "tpir_at_fpir": {
            str(fpir): float(np.mean(searched.mate > threshold)) for fpir, threshold in thresholds.items()
        },
        "open_set": {
            name: _open_set(_search(templates, gallery, probes)) for name, gallery in galleries.items()
        },
    }


class _Searched(NamedTuple):
    """What a search of p probes found.

    mate : float64 (p,), the score of each probe's mate, NaN if it has none; rank : int64 (p,), the mate's,
    1 + the number of others that score as high; best_other : float64 (p,), the highest score with another
    subject, -inf where the gallery holds none; top_others : float64 (k,), the highest of all scores with
    others, descending, as many as `FPIR_TARGETS` need.
    """

    mate: np.ndarray
    rank: np.ndarray
    best_other: np.ndarray
    top_others: np.ndarray


def _search(templates: Templates, gallery: Subjects, probes: Subjects) -> _Searched:
    features = templates.of(gallery.templates)
    place = pd.Index(gallery.subjects).get_indexer(probes.subjects)  # -1 for who is not there
    mate, rank, best = np.full(len(place), np.nan), np.zeros(len(place), np.int64), np.empty(len(place))
    top = Highest(math.ceil(max(FPIR_TARGETS) * len(place)))
    for start in range(0, len(place), PROBES_AT_ONCE):
        part = slice(start, start + PROBES_AT_ONCE)
        # Unlike a matrix product, einsum adds every cosine's terms in one order: equal features tie.
        scores = np.einsum("ij,kj->ik", templates.of(probes.templates[part]), features).round(DECIMALS)
        mated = np.flatnonzero(place[part] >= 0)
        mate[start + mated] = scores[mated, place[part][mated]]
        scores[mated, place[part][mated]] = -np.inf
        rank[start + mated] = 1 + (scores[mated] >= mate[start + mated, None]).sum(axis=1)
        best[part] = scores.max(axis=1)
        top.add(scores[np.isfinite(scores)])
    return _Searched(mate, rank, best, np.sort(top.scores)[::-1])


def _joined(galleries: dict[str, Subjects]) -> Subjects:
    rows = np.concatenate([np.stack([part.templates, part.subjects], 1) for part in galleries.values()])
    rows = np.unique(rows, axis=0)
    subjects, counts = np.unique(rows[:, 1], return_counts=True)
    if (counts > 1).any():
        raise LatseError(f"subject {subjects[counts > 1][0]} has more than one template in the galleries")
    if len(rows) < 2:
        raise LatseError("the galleries hold one template, among which there is nothing to search")
    return Subjects(rows[:, 0], rows[:, 1])


def _open_set(searched: _Searched) -> dict[str, Any]:
    mated = ~np.isnan(searched.mate)
    first = np.where(searched.rank == 1, searched.mate, -np.inf)[mated]
    others = np.sort(searched.best_other[~mated])[::-1]
    judged = len(first) and len(others)
    return {
        "tpir_at_fpir": {str(fpir): _rate_at(first, others, fpir) for fpir in FPIR_TARGETS} if judged else {},
        "rank": _ranks(searched.rank[mated]) if len(first) else {},
        "mated": len(first),
        "non_mated": len(others),
    }


def _ranks(rank: np.ndarray) -> dict[str, float]:
    return {str(most): float(np.mean(rank <= most)) for most in RANKS}


def _rate_at(wanted: np.ndarray, unwanted: np.ndarray, rate: float) -> float:
    """Share of `wanted` above the lowest threshold that at most `rate` < 1 of `unwanted`, falling, pass."""
    return float(np.mean(wanted > unwanted[allowed(len(unwanted), rate)]))


def _nearest(scores: np.ndarray, issame: np.ndarray) -> dict[str, float]:
    far, tar, _ = roc_curve(issame, scores)
    far, tar = far[::-1], tar[::-1]  # of the points that are equally near, the one with the larger rates
    return {str(target): float(tar[np.abs(far - target).argmin()]) for target in FAR_TARGETS}
