"""What a synthetic data set consists of: who is photographed how, for what, and who is paired with whom."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from latse.data.pairs.pair_lists import in_folds
from latse.errors import LatseError, check_range

FOLDS = 10
SPACING = 10**8  # between the first numbers of two groups of people
SIDES = (3, 2)  # pictures of a person on either side of the verification pairs


class Shot(NamedTuple):
    """How a picture is taken: a kind of view, and the ages it is drawn from (None: the person's own)."""

    kind: str
    ages: tuple[float, float] | None = None


class Group(NamedTuple):
    """People for one purpose, numbered from `first`; each is photographed once for each of `shots`."""

    name: str
    first: int
    people: int
    shots: tuple[Shot, ...]

    @property
    def images(self) -> int:
        """How many pictures there are of all of them."""
        return self.people * len(self.shots)


class SynthSettings(NamedTuple):
    """What decides the bytes of a set; `check` says what is allowed."""

    people: int
    images: int
    seed: int = 0
    shards: int = 1
    detect: bool = False
    quality: int = 95
    verification_people: int = 100
    distractors: int = 1000


# Picture i of a person to train on is taken as i modulo 4 says: what the verification sets show occurs in it.
TRAINING = (Shot("plain"), Shot("any-pose"), Shot("plain", (16, 70)), Shot("any-pose"))
# The two sides of the pairs. Ages differ by 16 to 44 years, 30 on average; they are drawn for each picture by
# itself, so that those of different people differ by no other law.
VERIFICATION = {
    "plain": (Shot("plain"), Shot("plain")),
    "frontal-profile": (Shot("frontal"), Shot("profile")),
    "cross-age": (Shot("plain", (18, 32)), Shot("plain", (48, 62))),
    "cross-pose": (Shot("any-pose"), Shot("any-pose")),
}
IDENTIFICATION = {"probes": 5 * (Shot("plain"),), "distractors": (Shot("plain"),)}


def check(settings: SynthSettings) -> None:
    """Raise LatseError if a setting is out of its range."""
    ranges = {
        "people": (1, 2**24),
        "images": (1, 10_000),
        "seed": (0, 2**32 - 1),
        "shards": (1, 99999),
        "quality": (1, 100),
        "verification_people": (0, 10**7),
        "distractors": (0, 2**24),
    }
    for name, (least, most) in ranges.items():
        check_range(name.replace("_", "-"), getattr(settings, name), least, most)
    people = settings.verification_people
    if people % FOLDS or people == FOLDS:
        raise LatseError(f"verification-people: {people} is neither 0 nor a multiple of 10 from 20 on")
    if settings.distractors and not people:
        raise LatseError("distractors: without verification-people there is nobody to tell from them")


def groups(settings: SynthSettings) -> dict[str, Group]:
    """Return all groups of people, by name; those of no people are left out. No person is in two of them.

    The numbers of a group's people depend on nothing, so that a larger set holds the pictures of a smaller
    one, and nobody to train on in one set is in the verification sets of another.
    """
    tested = settings.verification_people
    everybody = [("train", settings.people, (settings.images * TRAINING)[: settings.images])]
    for name, (left, right) in VERIFICATION.items():
        everybody.append((name, tested, SIDES[0] * (left,) + SIDES[1] * (right,)))
    for name, people in (("probes", tested), ("distractors", settings.distractors)):
        everybody.append((name, people, IDENTIFICATION[name]))
    made = [Group(name, number * SPACING, *rest) for number, (name, *rest) in enumerate(everybody)]
    return {group.name: group for group in made if group.people}


def ring_pairs(people: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw the pairs of people who have 5 pictures each (`SIDES`), numbered 5 * person + picture.

    Each of a person's first three pictures is paired with each of their last two, and as many times with
    somebody else's of the same kind: a picture is in as many same pairs as different ones, on the same side,
    so that one picture alone tells nothing. The ten folds are of equal size and of separate people; a fold
    holds its same pairs, then as many different ones. No pair stands twice.

    Parameters
    ----------
    people : int
        A multiple of 10, at least 20.
    random : Generator
        Who is paired with whom.

    Returns
    -------
    pairs : int array (12 * people, 2)
    issame : bool array (12 * people,)
    """
    same, different = [], []
    for fold in np.split(np.arange(people), FOLDS):
        for pictures in np.argwhere(np.ones(SIDES)) + [0, SIDES[0]]:
            ring = random.permutation(fold)  # everybody is paired with the next one
            same.append(np.stack([fold, fold], axis=1) * sum(SIDES) + pictures)
            different.append(np.stack([ring, np.roll(ring, 1)], axis=1) * sum(SIDES) + pictures)
    return in_folds(np.concatenate(same), np.concatenate(different), FOLDS)
