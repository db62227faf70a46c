"""The standard verification protocol: ten folds, the threshold of each from the other nine.

It gives the accuracy that insightface's `verification.py` gives for the same embeddings: flip-summed,
L2-normalised, squared Euclidean distance, folds of scikit-learn's unshuffled `KFold`, thresholds
0 to 4 by 0.01.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import Any, Callable, Dict, List, Tuple

import numpy as np
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import KFold
from sklearn.preprocessing import normalize

from latse.errors import LatseError

FOLDS = 10
THRESHOLDS = np.arange(0, 4, 0.01)
FAR_TARGETS = (0.01, 0.001)

# Maps images, uint8 (n, 3, 112, 112) RGB, to one embedding each, float (n, d).
Feature = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Verification:
    """What the protocol says about one embedding of one set of pairs.

    Attributes
    ----------
    accuracy, std
        Mean and population standard deviation over the folds of the fraction of pairs judged rightly, 0 to 1.
    threshold
        Mean over the folds of the chosen threshold (squared Euclidean distance, 0 to 4).
    tar_at_far
        True accept rate by false accept rate, keys "0.01" and "0.001"; see `tar_at_far`.
    unresolved_far
        Keys of `tar_at_far` that allow less than one false accept: their TAR is at zero false accepts.
    auc
        Area under the ROC curve, 0 to 1.
    pairs, different_pairs
        How many pairs there are, and how many of them show different people.
    fold_accuracies
        The accuracies of the folds, in order.
    """

    accuracy: float
    std: float
    threshold: float
    tar_at_far: Dict[str, float]
    unresolved_far: List[str]
    auc: float
    pairs: int
    different_pairs: int
    fold_accuracies: List[float]

    def as_json(self) -> Dict[str, Any]:
        """All fields as what JSON knows."""
        return asdict(self)


def verify(feature: Feature, images: np.ndarray, issame: np.ndarray, name: str) -> Verification:
    """Judge `feature` on pairs of images by the whole protocol.

    Parameters
    ----------
    feature
        Maps uint8 (m, 3, 112, 112) to float (m, d); called with the distinct images, then their mirrors.
    images
        uint8 (2n, 3, 112, 112); images 2i and 2i + 1 are pair i.
    issame
        bool (n,), whether a pair shows one person.
    name
        Of the feature, for the sentence of an error.

    Raises
    ------
    LatseError
        If an embedding is not finite, or the pairs cannot be judged (see `judge`).
    """
    embedding = flip_sum(feature, images)
    broken = np.flatnonzero(~np.isfinite(embedding).all(axis=1))
    if len(broken):
        raise LatseError(f"{name}: the embedding of image {broken[0]} is not finite")
    return judge(pair_distance(embedding), issame)


def flip_sum(feature: Feature, images: np.ndarray) -> np.ndarray:
    """Embedding of each image plus that of its mirror image, float64 (n, d).

    A set of pairs repeats its images (1,800 images of `orl.bin` are 100): each distinct one is embedded once.
    """
    first, inverse = distinct_images(images)
    images = images[first]
    plain, mirrored = feature(images), feature(images[..., ::-1])
    return (plain.astype(np.float64) + mirrored)[inverse]


def distinct_images(images: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """Find byte-identical images.

    Returns
    -------
    first
        int64 (m,), where each distinct image stands first, ascending.
    inverse
        int64 (n,), for each image its position in `first`.
    """
    first: List[int] = []
    seen: Dict[bytes, int] = {}
    inverse = np.empty(len(images), np.int64)
    for position, image in enumerate(images):
        key = hashlib.blake2b(np.ascontiguousarray(image).tobytes()).digest()
        if key not in seen:
            seen[key] = len(first)
            first.append(position)
        inverse[position] = seen[key]
    return np.asarray(first, np.int64), inverse


def pair_distance(embedding: np.ndarray) -> np.ndarray:
    """Squared Euclidean distance of each pair's L2-normalised embeddings, float (n,) from (2n, d), 0 to 4."""
    unit = normalize(embedding)
    return np.square(unit[0::2] - unit[1::2]).sum(axis=1)


def judge(distance: np.ndarray, issame: np.ndarray) -> Verification:
    """Apply the protocol to the distances of pairs: a pair is accepted where its distance < threshold.

    Parameters
    ----------
    distance
        float (n,), squared Euclidean, in the order of the file (the folds are runs of it).
    issame
        bool (n,).

    Raises
    ------
    LatseError
        If there are fewer pairs than folds, or no same or no different pair.
    """
    issame = np.asarray(issame, bool)
    if len(issame) < FOLDS:
        raise LatseError(f"{len(issame)} pairs are too few for {FOLDS} folds")
    if issame.all() or not issame.any():
        raise LatseError(f"all {len(issame)} pairs are of one kind: same and different ones are both needed")
    accuracies, thresholds = fold_accuracies(distance, issame)
    different = int((~issame).sum())
    return Verification(
        accuracy=float(np.mean(accuracies)),
        std=float(np.std(accuracies)),
        threshold=float(np.mean(thresholds)),
        tar_at_far={str(far): tar_at_far(distance, issame, far) for far in FAR_TARGETS},
        unresolved_far=[str(far) for far in FAR_TARGETS if _false_accepts(different, far) == 0],
        auc=float(roc_auc_score(issame, -distance)),
        pairs=len(issame),
        different_pairs=different,
        fold_accuracies=[float(accuracy) for accuracy in accuracies],
    )


def fold_accuracies(distance: np.ndarray, issame: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """Accuracy of each fold under the threshold that is best on the other nine, and that threshold.

    Among `THRESHOLDS` the first best one is taken. Both results are float (10,).
    """
    folds = [test for _, test in KFold(FOLDS).split(distance)]
    right = np.stack([_rightly_judged(distance[fold], issame[fold]) for fold in folds])
    best = np.argmax(right.sum(axis=0) - right, axis=1)
    sizes = np.array([len(fold) for fold in folds])
    return right[np.arange(FOLDS), best] / sizes, THRESHOLDS[best]


def tar_at_far(distance: np.ndarray, issame: np.ndarray, far: float) -> float:
    """Fraction of same pairs accepted at the largest threshold whose false accept rate is at most `far`.

    Exact, from the empirical distances of all pairs at once: no folds, no grid, no interpolation. With D
    different pairs and k the largest count with k / D <= far, that threshold is the (k+1)-th smallest
    distance of a different pair. A `far` below 1 / D cannot be resolved: k is 0 then, and the result is the
    rate before the first false accept.
    """
    different = np.sort(distance[~issame])
    allowed = _false_accepts(len(different), far)
    threshold = different[allowed] if allowed < len(different) else np.inf
    return float(np.mean(distance[issame] < threshold))


def _false_accepts(different_pairs: int, far: float) -> int:
    rates = np.arange(different_pairs + 1) / different_pairs
    return int(np.searchsorted(rates, far, side="right")) - 1


def _rightly_judged(distance: np.ndarray, issame: np.ndarray) -> np.ndarray:
    """How many of the pairs are judged rightly at each of `THRESHOLDS`, int (400,)."""
    same, different = np.sort(distance[issame]), np.sort(distance[~issame])
    accepted = np.searchsorted(same, THRESHOLDS, side="left")
    falsely = np.searchsorted(different, THRESHOLDS, side="left")
    return accepted + len(different) - falsely
