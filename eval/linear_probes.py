"""What embeddings hold besides the person: how well it can be read from them by a linear map."""

from __future__ import annotations

from typing import Any, Mapping

import numpy as np
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

FOLDS = 5
PENALTIES = 10.0 ** np.arange(-3, 4)  # of the ridge, times the number of images, on numbers of unit variance


def probe(
    embeddings: np.ndarray, facts: Mapping[str, np.ndarray], people: np.ndarray
) -> dict[str, dict[str, Any]]:
    """Tell what ridge regression predicts of people whom it has not seen.

    The penalty of each fact is the one of `PENALTIES` that predicts best where some of the people to learn
    from are left out in turn.

    Parameters
    ----------
    embeddings : float (n, d)
        Of images.
    facts : mapping of str to ndarray
        What is to be predicted by name: float (n,), or bool (n,).
    people : int (n,)
        On each image, at least `FOLDS` different ones: a person is in one fold.

    Returns
    -------
    dict
        By name: `measure`, "R2" of numbers, "AUC" of truth values; `score` over all folds together; `chance`,
        the same after the people changed places, each with the facts of its images in order. None where the
        fact is the same of all images.
    """
    names, random = [*facts], np.random.default_rng(0)
    targets = np.stack([facts[name].astype(np.float64) for name in names], axis=1)
    both = np.concatenate([targets, _dealt(targets, people, random)], axis=1)
    predicted = _predicted(embeddings, both, people, PENALTIES)
    found = {}
    for column, name in enumerate(names):
        measure, score = ("AUC", _auc) if facts[name].dtype == bool else ("R2", _r2)
        own, dealt = (score(both[:, at], predicted[:, at]) for at in (column, column + len(names)))
        found[name] = {"measure": measure, "score": own, "chance": dealt}
    return found


def _dealt(targets: np.ndarray, people: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return the targets (n, t) after the people changed places."""
    number = np.unique(people, return_inverse=True)[1]
    place = random.permutation(number.max() + 1)[number]
    dealt = np.empty_like(targets)
    dealt[np.argsort(number, kind="stable")] = targets[np.argsort(place, kind="stable")]
    return dealt


def _predicted(
    embeddings: np.ndarray, targets: np.ndarray, people: np.ndarray, penalties: np.ndarray
) -> np.ndarray:
    """Return what is predicted of each fold from the others, (n, t), each target with the best penalty."""
    predicted = np.empty_like(targets)
    folds = GroupKFold(min(FOLDS, len(np.unique(people))))
    for train, test in folds.split(embeddings, groups=people):
        best = np.full(targets.shape[1], penalties[0])
        if len(penalties) > 1:
            inside = embeddings[train], targets[train], people[train]
            errors = [
                np.square(_predicted(*inside, penalties[at : at + 1]) - inside[1]).sum(axis=0)
                for at in range(len(penalties))
            ]
            best = penalties[np.argmin(errors, axis=0)]
        ridge = make_pipeline(StandardScaler(), Ridge(best * len(train), solver="cholesky"))
        predicted[test] = ridge.fit(embeddings[train], targets[train]).predict(embeddings[test])
    return predicted


def _r2(truth: np.ndarray, predicted: np.ndarray) -> float | None:
    spread = np.square(truth - truth.mean()).sum()
    return float(1 - np.square(truth - predicted).sum() / spread) if spread else None


def _auc(truth: np.ndarray, predicted: np.ndarray) -> float | None:
    return float(roc_auc_score(truth, predicted)) if 0 < truth.mean() < 1 else None
