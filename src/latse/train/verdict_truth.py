"""Verdicts against the truth: what share of wrong and of right labels is refused, by images of the person."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from latse.data.shards.noise import CLEAN, read_truth
from latse.data.shards.records import Shard
from latse.data.shards.verdict_file import Verdicts
from latse.text_table import aligned, percent

GROUPS = {"1": (1, 1), "2": (2, 2), "3": (3, 3), "4 and more": (4, np.inf), "all": (1, np.inf)}


def rightly_labelled(shard: Shard) -> np.ndarray | None:
    """Return which labels of a set are right, as `latse data noise` has written beside it.

    bool (n,) in the order of `Shard.records`; None for any other set. Raises LatseError as `read_truth`.
    """
    if not Path(shard.folder, "noise.npz").exists():
        return None
    return read_truth(shard.folder).kind == CLEAN


def against_truth(verdicts: Verdicts, shard: Shard) -> dict[str, Any] | None:
    """Compare verdicts on a set with what `latse data noise` has written beside it.

    Returns
    -------
    dict or None
        None for any other set. By k, and by how many images carry the label, the keys of `GROUPS`: how many
        labels are `wrong` and `right`, and the shares of them that are refused, `wrong_refused` and
        `right_refused`, means over images and mirror images; null of none.
    """
    right = rightly_labelled(shard)
    if right is None:
        return None
    images = np.bincount(shard.labels)[shard.labels]
    every = np.arange(len(shard))
    found: dict[str, Any] = {}
    for k in verdicts.ks:
        refused = 1 - np.mean([verdicts.keeps(k, every, mirror) for mirror in (False, True)], axis=0)
        groups = {name: (images >= least) & (images <= most) for name, (least, most) in GROUPS.items()}
        found[str(k)] = {name: _shares(refused, ~right, group) for name, group in groups.items()}
    return found


def table(found: dict[str, Any]) -> str:
    """Lay out what `against_truth` has found."""
    rows = [("k, images of the person", "wrong", "refused, %", "right", "refused, %")]
    for k, groups in found.items():
        for name, shares in groups.items():
            cells = [(str(shares[kind]), percent(shares[f"{kind}_refused"])) for kind in ("wrong", "right")]
            rows.append((f"{k}, {name}", *cells[0], *cells[1]))
    return aligned(rows)


def _shares(refused: np.ndarray, wrong: np.ndarray, group: np.ndarray) -> dict[str, Any]:
    shares: dict[str, Any] = {}
    for kind, labels in (("wrong", wrong & group), ("right", ~wrong & group)):
        count = int(labels.sum())
        shares[kind] = count
        shares[f"{kind}_refused"] = float(refused[labels].mean()) if count else None
    return shares
