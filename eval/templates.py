"""Templates: several images of a person judged as one, 1:1 and 1:N (IJB-B and IJB-C).

The arithmetic is that of insightface's ijb_11.py and ijb_1n.py: features are weighted by the detector's
score, averaged over each media, summed over the media of a template, and normalised; a score is a cosine.
Beside insightface's rules for a rate at a rate stand the exact ones, named apart.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.metrics import roc_curve
from sklearn.preprocessing import normalize

from latse.errors import LatseError
from latse.eval.roc import FAR_TARGETS, allowed
from latse.eval.template_lists import Faces, Subjects, TemplatePairs

FPIR_TARGETS = (0.1, 0.01)
RANKS = (1, 5, 10)
PAIRS_AT_ONCE, PROBES_AT_ONCE = 8192, 1024
# Of a cosine. Features that are equal but for the rounding of how they were pooled tie.
DECIMALS = 12


@dataclass(frozen=True)
class Templates:
    """Templates as judged.

    Attributes
    ----------
    numbers : int64 (t,)
        Ascending.
    features : float64 (t, d)
        Of unit length; a template of zeros stays one.
    """

    numbers: np.ndarray
    features: np.ndarray

    def of(self, numbers: np.ndarray) -> np.ndarray:
        """Return the features of the templates `numbers`, which must be there."""
        return self.features[np.searchsorted(self.numbers, numbers)]


@dataclass(frozen=True)
class TemplateVerification:
    """1:1.

    Attributes
    ----------
    tar_at_far : dict of str to float
        By false accept rate, "0.1" to "1e-06": the largest true accept rate at which no more than that share
        of the different pairs is accepted.
    unresolved_far : list of str
        Keys that allow less than one false accept: their rate is that before the first.
    tar_at_nearest_far : dict of str to float
        insightface's rule, for comparison with its figures: the point of scikit-learn's ROC curve whose false
        accept rate is nearest, be it larger or smaller.
    """

    tar_at_far: dict[str, float]
    unresolved_far: list[str]
    tar_at_nearest_far: dict[str, float]


@dataclass(frozen=True)
class TemplateIdentification:
    """1:N, as fractions of the probes.

    Attributes
    ----------
    rank : dict of str to float
        How many have their mate among the first 1, 5, 10 of all galleries together; a tie counts against it.
    tpir_at_fpir : dict of str to float
        insightface's rule over all galleries together, where every probe has a mate: the mate scores more
        than the k-th best of all scores with others, k being the rate times the number of probes, rounded up.
    open_set : dict of str to dict of str to object
        By gallery: `tpir_at_fpir` as IJB-C defines it (Maze et al. 2018): a probe without a mate in this
        gallery is falsely positive if its best score passes the threshold, one with a mate is truly positive
        if that is first and passes it; a rate that the non-mated probes do not resolve is at no false
        positive. Also `rank` in this gallery, and the numbers of probes, `mated` and `non_mated`.
    """

    rank: dict[str, float]
    tpir_at_fpir: dict[str, float]
    open_set: dict[str, dict[str, Any]]


def templates_json(
    verification: TemplateVerification | None, identification: TemplateIdentification | None
) -> dict[str, Any]:
    """Return both as one object; what was not judged has empty objects."""
    absent = {"tar_at_far": {}, "tpir_at_fpir": {}, "rank": {}}
    judged = [asdict(result) for result in (verification, identification) if result]
    return {key: value for part in (absent, *judged) for key, value in part.items()}


def pool(features: np.ndarray, faces: Faces, weights: np.ndarray | None = None) -> Templates:
    """Make one feature of each template's.

    Parameters
    ----------
    features : float (n, d)
        Of the faces in order, not normalised: a long feature counts more.
    faces : Faces
        Says which template and media each is of.
    weights : float (n,)
        Such as the detector's scores; default: 1.
    """
    weights = np.ones(len(features)) if weights is None else weights
    numbers, row = np.unique(faces.templates, return_inverse=True)
    _, media, count = np.unique(
        np.stack([faces.templates, faces.media]), axis=1, return_inverse=True, return_counts=True
    )
    shares = weights / count[media]
    averages = csr_matrix((shares, (row, np.arange(len(row)))), shape=(len(numbers), len(row)))
    return Templates(numbers, normalize(averages @ features))


def pair_scores(templates: Templates, pairs: TemplatePairs) -> np.ndarray:
    """Return the cosine of each pair of templates, float64 (p,), to `DECIMALS`."""
    scores = np.empty(len(pairs.first))
    for start in range(0, len(scores), PAIRS_AT_ONCE):
        part = slice(start, start + PAIRS_AT_ONCE)
        first, second = templates.of(pairs.first[part]), templates.of(pairs.second[part])
        scores[part] = np.einsum("ij,ij->i", first, second).round(DECIMALS)
    return scores


def verify_templates(templates: Templates, pairs: TemplatePairs) -> TemplateVerification:
    """Judge pairs of templates, 1:1."""
    scores = pair_scores(templates, pairs)
    different = np.sort(scores[~pairs.issame])[::-1]
    return TemplateVerification(
        tar_at_far={str(far): _rate_at(scores[pairs.issame], different, far) for far in FAR_TARGETS},
        unresolved_far=[str(far) for far in FAR_TARGETS if not allowed(len(different), far)],
        tar_at_nearest_far=_nearest(scores, pairs.issame),
    )


def identify_templates(
    templates: Templates, galleries: dict[str, Subjects], probes: Subjects
) -> TemplateIdentification:
    """Search for probes in galleries, 1:N.

    Raises
    ------
    LatseError
        If a subject has two templates in the galleries, a probe's has none, or there are fewer than two.
    """
    whole = _joined(galleries)
    searched = _search(templates, whole, probes)
    if np.isnan(searched.mate).any():
        subject = probes.subjects[np.isnan(searched.mate).argmax()]
        raise LatseError(f"subject {subject} is searched for but stands in no gallery")
    return TemplateIdentification(
        rank=_ranks(searched.rank),
        tpir_at_fpir=_tpir_by_scores(searched),
        open_set={
            name: _open_set(_search(templates, gallery, probes)) for name, gallery in galleries.items()
        },
    )


@dataclass(frozen=True)
class _Searched:
    """What a search of p probes found.

    Attributes
    ----------
    mate : float64 (p,)
        The score of each probe's mate, NaN if it has none.
    rank : int64 (p,)
        The mate's: 1 + the number of others that score as high; 0 if there is none.
    best_other : float64 (p,)
        The highest score with another subject; -inf where the gallery holds none.
    top_others : float64 (k,)
        The highest of all scores with others, descending; as many as `FPIR_TARGETS` need.
    """

    mate: np.ndarray
    rank: np.ndarray
    best_other: np.ndarray
    top_others: np.ndarray


def _search(templates: Templates, gallery: Subjects, probes: Subjects) -> _Searched:
    features = templates.of(gallery.templates)
    place = _places(gallery.subjects, probes.subjects)
    most = math.ceil(max(FPIR_TARGETS) * len(place))
    mate, rank, best = np.full(len(place), np.nan), np.zeros(len(place), np.int64), np.empty(len(place))
    top = np.empty(0)
    for start in range(0, len(place), PROBES_AT_ONCE):
        part = slice(start, start + PROBES_AT_ONCE)
        # Unlike a matrix product, einsum adds every cosine's terms in one order: equal features tie.
        scores = np.einsum("ij,kj->ik", templates.of(probes.templates[part]), features).round(DECIMALS)
        mated = np.flatnonzero(place[part] >= 0)
        mate[start + mated] = scores[mated, place[part][mated]]
        scores[mated, place[part][mated]] = -np.inf
        rank[start + mated] = 1 + (scores[mated] >= mate[start + mated, None]).sum(axis=1)
        best[part] = scores.max(axis=1)
        top = _largest(np.concatenate([top, scores[np.isfinite(scores)]]), most)
    return _Searched(mate, rank, best, np.sort(top)[::-1])


def _places(gallery: np.ndarray, subjects: np.ndarray) -> np.ndarray:
    """Return where in the gallery each subject stands, -1 if it does not."""
    order = np.argsort(gallery)
    place = order[np.searchsorted(gallery, subjects, sorter=order).clip(max=len(gallery) - 1)]
    return np.where(gallery[place] == subjects, place, -1)


def _largest(values: np.ndarray, count: int) -> np.ndarray:
    return values if len(values) <= count else np.partition(values, -count)[-count:]


def _joined(galleries: dict[str, Subjects]) -> Subjects:
    rows = np.concatenate([np.stack([part.templates, part.subjects], 1) for part in galleries.values()])
    rows = np.unique(rows, axis=0)
    subjects, counts = np.unique(rows[:, 1], return_counts=True)
    if (counts > 1).any():
        raise LatseError(f"subject {subjects[counts > 1][0]} has more than one template in the galleries")
    if len(rows) < 2:
        raise LatseError("the galleries hold one template, among which there is nothing to search")
    return Subjects(rows[:, 0], rows[:, 1])


def _tpir_by_scores(searched: _Searched) -> dict[str, float]:
    counts = {fpir: math.ceil(len(searched.mate) * fpir) for fpir in FPIR_TARGETS}
    return {
        str(fpir): float(np.mean(searched.mate > searched.top_others[count - 1]))
        for fpir, count in counts.items()
    }


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
    """Share of `wanted` above the lowest threshold that at most `rate` of `unwanted`, sorted down, pass."""
    count = allowed(len(unwanted), rate)
    threshold = unwanted[count] if count < len(unwanted) else -np.inf
    return float(np.mean(wanted > threshold))


def _nearest(scores: np.ndarray, issame: np.ndarray) -> dict[str, float]:
    far, tar, _ = roc_curve(issame, scores)
    far, tar = far[::-1], tar[::-1]  # of the points that are equally near, the one with the larger rates
    return {str(target): float(tar[np.abs(far - target).argmin()]) for target in FAR_TARGETS}
