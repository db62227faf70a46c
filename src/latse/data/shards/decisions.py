"""What becomes of each image of a set by the list of those that a teacher refuses, and how right that is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from latse.data.shards import verdict_file
from latse.data.shards.clean import LEFT_OUT, write_clean
from latse.data.shards.noise import OUTSIDE, read_truth
from latse.data.shards.records import Shard
from latse.data.shards.refusals import NOBODY, Refusals, read_list
from latse.errors import LatseError
from latse.files import digest, explained


def clean(
    folder: str | os.PathLike,
    out: str | os.PathLike,
    verdicts: str | os.PathLike,
    k: int | None = None,
    move: bool = False,
    merge: bool = False,
    shards: int = 1,
) -> dict[str, Any]:
    """Write a copy of a set without the images that are refused both as they are and mirrored.

    Parameters
    ----------
    folder, out : path
        As for `write_clean`.
    verdicts : path
        A file of verdicts, or a list of `latse filter`.
    k : int, optional
        Refused is what k refuses; default: the least k of the file.
    move : bool
        Whether a refused image that looks like another person gets that label; only by a list.
    merge : bool
        Whether labels of one person become one, see `same_people`; only by a list.
    shards : int
        As for `ShardWriter`.

    Returns
    -------
    dict
        What `clean.json` holds.

    Raises
    ------
    LatseError
        As `write_clean`, or if the verdicts are damaged, on another set, or not by this k.
    """
    shard = Shard(folder)
    refusals, k = _read(verdicts, shard, k, move or merge)
    people = same_people(shard.labels, refusals, shard.classes) if merge else np.arange(shard.classes)
    refusals = refusals.at(refusals.rank >= k)
    new = new_labels(shard.labels, refusals, people, move)
    made = {
        "verdicts": str(Path(verdicts).resolve()),
        "verdicts_digest": digest(verdicts),
        "k": k,
        "move": move,
        "merge": merge,
        "merged": [
            {"label": int(label), "into": int(people[label])}
            for label in np.flatnonzero(people != np.arange(shard.classes))
        ],
        "truth": against_truth(shard, new, people),
    }
    return write_clean(shard, out, new, made, shards, _reasons(shard, refusals, new, people))


def same_people(labels: np.ndarray, refusals: Refusals, classes: int) -> np.ndarray:
    """Return who is who: int64 (classes,), of each label the number that its person keeps.

    Two labels are one person if the refused images of either that look like the other are at least two, and
    more than half as many as the images of the smaller label. The label with the most images keeps its
    number, the lower one of two alike.
    """
    images = np.bincount(labels, minlength=classes)
    there = refusals.looks_like != NOBODY
    pairs = np.sort([labels[refusals.position[there]], refusals.looks_like[there]], axis=0)
    (one, other), times = np.unique(pairs, axis=1, return_counts=True)
    is_one = (times >= 2) & (2 * times > np.minimum(images[one], images[other]))
    edges = coo_matrix((is_one[is_one], (one[is_one], other[is_one])), (classes, classes))
    person = connected_components(edges, directed=False)[1]
    order = np.argsort(-images, kind="stable")
    _, first = np.unique(person[order], return_index=True)
    return order[first][person]


def new_labels(labels: np.ndarray, refusals: Refusals, people: np.ndarray, move: bool) -> np.ndarray:
    """Return the new label of each image, `LEFT_OUT` of those that are left out: int64 (n,).

    An image stays with its person, as `same_people` knows it, if it is not refused, or if the likeliest other
    label, or the one that it looks like, is of the same person. Another one goes, with `move`, to whom it
    looks like.
    """
    new = people[labels]
    own = new[refusals.position]
    stays = np.zeros(len(own), bool)
    for likely in (refusals.other, refusals.looks_like):
        stays |= (likely != NOBODY) & (people[likely] == own)
    goes = move & (refusals.looks_like != NOBODY)
    new[refusals.position] = np.where(stays, own, np.where(goes, people[refusals.looks_like], LEFT_OUT))
    return new


def against_truth(shard: Shard, new: np.ndarray, people: np.ndarray) -> dict[str, Any] | None:
    """Compare new labels with what `latse data noise` has written beside the set; None for any other set.

    Labels that are merged count as one person.

    Returns
    -------
    dict
        How many labels are wrong in the set, `wrong`, and in the copy, `still_wrong`; the share of wrong
        labels among the images that left their person, `precision`; the share of images that left theirs
        among those with a wrong one, `recall`; the share of right labels among the moved images,
        `moved_right`; null of none.
    """
    if not Path(shard.folder, "noise.npz").exists():
        return None
    true = read_truth(shard.folder).true_label
    true = np.where(true == OUTSIDE, OUTSIDE, people[true])
    old, is_there = people[shard.labels], new != LEFT_OUT
    wrong, leaves = old != true, new != old
    return {
        "wrong": int(wrong.sum()),
        "still_wrong": int((is_there & (new != true)).sum()),
        "precision": _share(wrong[leaves]),
        "recall": _share(leaves[wrong]),
        "moved_right": _share((new == true)[leaves & is_there]),
    }


def _read(path: str | os.PathLike, shard: Shard, k: int | None, needs_list: bool) -> tuple[Refusals, int]:
    """Return what is refused, of a list all that is in it, and the k that is asked for."""
    with explained(f"cannot read {path}"), Path(path).open("rb") as file:
        is_list = file.read(len(verdict_file.MAGIC)) not in (verdict_file.MAGIC, verdict_file.OLDER)
    if is_list:
        least, refusals = read_list(path, shard)
        if k is not None and k < least:
            raise LatseError(f"{path} lists what k = {least} refuses; k = {k} may refuse more")
        return refusals, k or least
    if needs_list:
        how = "`latse filter` with the same options and `--list FILE.tsv` makes one of it"
        raise LatseError(f"{path} does not say whom images look like; --move and --merge need a list: {how}")
    verdicts = verdict_file.read(path)
    if verdicts.binding["data"] != shard.digest() or len(verdicts.packed) != len(shard):
        raise LatseError(f"{path} holds verdicts on another set than {shard.folder}")
    k = k or verdicts.ks[0]
    refused = verdicts.refused(k)
    column = np.ones(len(refused))
    return Refusals.of((refused, k * column, NOBODY * column, *[-np.inf * column] * 2, NOBODY * column)), k


def _reasons(
    shard: Shard, refusals: Refusals, new: np.ndarray, people: np.ndarray
) -> dict[int, dict[str, Any]]:
    """Return what `clean.json` says of each image that does not stay as it was, besides the labels."""
    old = people[shard.labels]
    reasons: dict[int, dict[str, Any]] = {
        int(position): {"reason": "merged"} for position in np.flatnonzero(old != shard.labels)
    }
    for position, rank, other, own, best, looks_like in zip(*refusals):
        if new[position] == old[position]:
            continue
        reason: dict[str, Any] = {"reason": "refused" if new[position] == LEFT_OUT else "moved"}
        if max(other, looks_like) != NOBODY:
            cosines = {"own_cosine": _finite(own), "other_cosine": _finite(best)}
            reason.update(rank=int(rank), other=_known(other), **cosines, looks_like=_known(looks_like))
        reasons[int(position)] = reason
    return reasons


def _known(label: int) -> int | None:
    return int(label) if label != NOBODY else None


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _share(which: np.ndarray) -> float | None:
    return float(which.mean()) if len(which) else None
