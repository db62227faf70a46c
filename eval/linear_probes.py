"""What embeddings hold besides the person: how well it can be read from them by a linear map."""

from __future__ import annotations

from typing import Any, Mapping

import numpy as np
from sklearn.linear_model import RidgeCV
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

    The penalty of each fact is the one of `PENALTIES` that predicts the images to learn from best, each left
    out in turn.

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
        the same after the images' facts were dealt out anew. None where the fact is the same of all images.
    """
    names, random = [*facts], np.random.default_rng(0)
    targets = np.stack([facts[name].astype(np.float64) for name in names], axis=1)
    both = np.concatenate([targets, targets[random.permutation(len(targets))]], axis=1)
    predicted = np.empty_like(both)
    for train, test in GroupKFold(FOLDS).split(embeddings, groups=people):
        model = make_pipeline(StandardScaler(), RidgeCV(PENALTIES * len(train), alpha_per_target=True))
        predicted[test] = model.fit(embeddings[train], both[train]).predict(embeddings[test])
    found = {}
    for column, name in enumerate(names):
        measure, score = ("AUC", _auc) if facts[name].dtype == bool else ("R2", _r2)
        own, dealt = (score(both[:, at], predicted[:, at]) for at in (column, column + len(names)))
        found[name] = {"measure": measure, "score": own, "chance": dealt}
    return found


def _r2(truth: np.ndarray, predicted: np.ndarray) -> float | None:
    spread = np.square(truth - truth.mean()).sum()
    return float(1 - np.square(truth - predicted).sum() / spread) if spread else None


def _auc(truth: np.ndarray, predicted: np.ndarray) -> float | None:
    return float(roc_auc_score(truth, predicted)) if 0 < truth.mean() < 1 else None
