"""What `latse data overlap` has found, as a table, a list, JSON and a contact sheet."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any, NamedTuple, Sequence

import numpy as np

from latse.data.shards.names import Names
from latse.data.shards.records import Shard
from latse.eval import canvas
from latse.paper.overlap_people import Threshold
from latse.paper.overlap_pictures import BYTES, NEAR, PIXELS
from latse.paper.overlap_sets import PairSet
from latse.text_table import NOTHING, aligned

PERSON = "person"
PICTURES = (BYTES, PIXELS, NEAR)
KINDS = (*PICTURES, PERSON)
SHOWN = 10  # rows of the sheet for each kind
BESIDE = 4  # training images in a row
COLUMNS = ("kind", "pairs", "images", "person", "record", "label", "name", "likeness", "mirrored", "matching")


class Finding(NamedTuple):
    """A picture or a person in both.

    Attributes
    ----------
    kind : str
        Of `KINDS`.
    pairs : int
        Number of the file of pairs.
    image : int
        Number of its picture; of a person, of the one that is most like.
    person : int
        Who is on it.
    positions : list of int
        Of training images: the picture's; of a person up to `BESIDE` of the label, the likest first.
    likeness : float
        Of pictures, or the cosine of the picture and the training person's mean.
    mirrored : bool
        Whether the training image shows the mirror image; False for a person.
    matching : int
        How many pictures of the person are above the threshold; 1 for a picture.
    """

    kind: str
    pairs: int
    image: int
    person: int
    positions: list[int]
    likeness: float
    mirrored: bool
    matching: int


class Report(NamedTuple):
    """All that was found in a set; `people` is the number of its people with a mean, None without a model."""

    shard: Shard
    names: Names
    sets: Sequence[PairSet]
    findings: Sequence[Finding]
    threshold: Threshold | None
    people: int | None

    def of(self, number: int, *kinds: str) -> list[Finding]:
        """Return what was found of some kinds in a file of pairs."""
        return [found for found in self.findings if found.pairs == number and found.kind in kinds]

    def counts(self, number: int) -> dict[str, Any]:
        """Return the figures of a file of pairs, as the JSON has them."""
        pairs, ours = self.sets[number], self.of(number, PERSON)
        kind = {found.image: found.kind for found in reversed(self.of(number, *PICTURES))}
        touched = {found.person for found in self.of(number, *KINDS)}
        expected = self.threshold and self.threshold.far * len(pairs.images) * (self.people or 0)
        return {
            "path": pairs.path,
            "pairs": len(pairs.number) // 2,
            "images": len(pairs.images),
            "people": len(np.unique(pairs.people)),
            "people_told": pairs.is_told,
            **{name.replace(" ", "_"): sum(its == name for its in kind.values()) for name in PICTURES},
            "people_pictured": len({found.person for found in self.of(number, *PICTURES)}),
            "people_found": self.threshold and len({found.person for found in ours}),
            "matches": self.threshold and sum(found.matching for found in ours),
            "matches_by_chance": expected,
            "pairs_touched": pairs.touched(touched),
        }

    def as_json(self) -> dict[str, Any]:
        """Return the figures and all findings."""
        return {
            "train": {
                "folder": str(self.shard.folder),
                "digest": self.shard.digest(),
                "images": len(self.shard),
                "people": len(np.unique(self.shard.labels)),
                "people_with_mean": self.people,
            },
            "threshold": self.threshold and self.threshold._asdict(),
            "sets": [self.counts(number) for number in range(len(self.sets))],
            "findings": [dict(zip(COLUMNS, self._cells(found))) for found in self.findings],
        }

    def _cells(self, found: Finding) -> list[Any]:
        pairs, position = self.sets[found.pairs], found.positions[0]
        label = int(self.shard.labels[position])
        places, record = pairs.places(found.image), int(self.shard.records[position])
        ours = [found.kind, pairs.path, places, found.person, record, label, self.names[label]]
        return [*ours, found.likeness, found.mirrored, found.matching]

    def listed(self) -> str:
        """Return the findings as a text of lines, fields parted by tabs, with a head."""
        text = io.StringIO()
        writer = csv.writer(text, delimiter="\t", lineterminator="\n")
        writer.writerow(COLUMNS)
        for found in self.findings:
            row = dict(zip(COLUMNS, self._cells(found)))
            row["images"] = ",".join(map(str, row["images"]))
            row["name"] = " ".join((row["name"] or "").split())
            row["likeness"] = f"{found.likeness:.4f}"
            row["mirrored"] = "yes" if found.mirrored else "no"
            writer.writerow(row.values())
        return text.getvalue()

    def table(self) -> str:
        """Return the figures as a table, and what they mean."""
        head = ["", "pictures", *PICTURES, "people", "pictured", "found", "matches", "by chance", "pairs"]
        rows = [head, *(self._row(number) for number in range(len(self.sets)))]
        train = f"{self.shard.folder}: {len(self.shard)} images"
        if self.threshold is None:
            notes = [f"{train}; people are looked for with --model only"]
        else:
            far, cosine, comparisons = self.threshold
            notes = [
                f"{train}; {self.people} people have a mean embedding. Found: a picture's cosine with one is "
                f"above {cosine:.4f},",
                f"which {far:.2g} of {comparisons} comparisons of other people with these means are too; "
                "so many matches come by chance",
            ]
        notes += [
            f"{pairs.path}: who is who is taken from same pairs and equal pictures, as no "
            ".people.npy stands beside it"
            for pairs in self.sets
            if not pairs.is_told
        ]
        return "\n".join([aligned(rows), *notes])

    def _row(self, number: int) -> list[str]:
        counts = self.counts(number)
        chance = counts["matches_by_chance"]
        return [
            counts["path"],
            str(counts["images"]),
            *(str(counts[name.replace(" ", "_")]) for name in PICTURES),
            str(counts["people"]),
            str(counts["people_pictured"]),
            NOTHING if self.threshold is None else str(counts["people_found"]),
            NOTHING if self.threshold is None else str(counts["matches"]),
            NOTHING if chance is None else f"{chance:.2g}" if chance < 10 else f"{chance:.0f}",
            f"{counts['pairs_touched']} of {counts['pairs']}",
        ]

    def draw(self, path: str) -> None:
        """Draw up to `SHOWN` findings of each kind, from the clearest to the most doubtful.

        Each is a picture of the pairs on the left, and training images beside it. Where nothing is found it
        says so, and draws nothing.
        """
        rows = [found for kind in KINDS for found in self._spread(kind)]
        if not rows:
            print(f"nothing is found: {path} would show nothing and is not drawn")
            return
        figure, axes = canvas.grid(len(rows), 1 + BESIDE, (9, 1.2 * len(rows)))
        for cell in axes.flat:
            cell.set_axis_off()
        for cells, found in zip(axes, rows):
            images = self.shard.batch(np.array(found.positions)).image
            picture = self.sets[found.pairs].images[found.image]
            for cell, image in zip(cells, [picture, *images]):
                cell.set_axis_on()
                canvas.show(cell, image)
            cells[0].set_ylabel(self._title(found), rotation=0, ha="right", va="center", fontsize=8)
        canvas.save(figure, path)

    def _spread(self, kind: str) -> list[Finding]:
        ours = sorted((found for found in self.findings if found.kind == kind), key=lambda its: -its.likeness)
        places = np.linspace(0, len(ours) - 1, min(SHOWN, len(ours))).astype(int)
        return [ours[place] for place in places]

    def _title(self, found: Finding) -> str:
        _, path, places, _, record, label, name, likeness, mirrored, _ = self._cells(found)
        whose = f"label {label}" if name is None else f"label {label}, {name}"
        which = f"record {record}" + (", mirrored" if mirrored else "")
        return canvas.plain(
            f"{found.kind} {likeness:.3f}\nimage {places[0]} of {Path(path).name}\n{which}\n{whose}  "
        )
