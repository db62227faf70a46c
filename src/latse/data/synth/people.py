"""Who someone is, and how a picture of them is taken: drawn from (seed, person, image), nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Tuple

import numpy as np

from latse.errors import LatseError

KINDS = ("plain", "frontal", "profile", "any-pose")
ANCESTRIES = ("african", "asian", "caucasian")
YOUNGEST, OLDEST = 12, 85  # years that a View may ask for
Colour = Tuple[float, float, float]  # sRGB in 0..1

# Pairs of opposite targets, "folder: negative/positive: stems"; {side} stands for both sides of the face.
OPPOSITES = """
head: in/out: head-angle
head: decr/incr: head-back-scale-depth head-fat head-scale-depth head-scale-horiz head-scale-vert
nose: decr/incr: nose-flaring nose-greek nose-hump nose-nostrils-width nose-point-width nose-scale-depth
nose: decr/incr: nose-scale-horiz nose-scale-vert nose-septumangle nose-volume
nose: decr/incr: nose-width1 nose-width2 nose-width3
nose: down/up: nose-base nose-nostrils-angle nose-point nose-trans
nose: concave/convex: nose-curve
nose: compress/uncompress: nose-compression
mouth: down/up: mouth-angles mouth-lowerlip-ext mouth-lowerlip-middle mouth-trans mouth-upperlip-ext
mouth: down/up: mouth-upperlip-middle
mouth: decr/incr: mouth-cupidsbow mouth-cupidsbow-width mouth-lowerlip-height mouth-lowerlip-volume
mouth: decr/incr: mouth-lowerlip-width mouth-philtrum-volume mouth-scale-depth mouth-scale-horiz
mouth: decr/incr: mouth-scale-vert mouth-upperlip-height mouth-upperlip-volume mouth-upperlip-width
mouth: in/out: mouth-dimples mouth-laugh-lines
eyes: decr/incr: {side}-eye-bag {side}-eye-bag-height {side}-eye-height1 {side}-eye-height2 {side}-eye-height3
eyes: decr/incr: {side}-eye-scale
eyes: in/out: {side}-eye-bag {side}-eye-epicanthus {side}-eye-push1 {side}-eye-push2 {side}-eye-trans
eyes: down/up: {side}-eye-corner1 {side}-eye-corner2 {side}-eye-eyefold {side}-eye-eyefold-angle
eyes: down/up: {side}-eye-trans
eyes: concave/convex: {side}-eye-eyefold
ears: decr/incr: {side}-ear-flap {side}-ear-lobe {side}-ear-scale {side}-ear-scale-depth {side}-ear-scale-vert
ears: decr/incr: {side}-ear-wing
ears: backward/forward: {side}-ear-rot {side}-ear-trans
ears: down/up: {side}-ear-trans
chin: decr/incr: chin-bones chin-cleft chin-height chin-jaw-drop chin-prognathism chin-prominent chin-width
cheek: decr/incr: {side}-cheek-bones {side}-cheek-inner {side}-cheek-volume
cheek: down/up: {side}-cheek-trans
forehead: decr/incr: forehead-nubian forehead-scale-vert forehead-temple
forehead: backward/forward: forehead-trans
eyebrows: down/up: eyebrows-angle eyebrows-trans
eyebrows: backward/forward: eyebrows-trans
neck: decr/incr: neck-double neck-scale-depth neck-scale-horiz
"""
OUTLINES = ("diamond", "invertedtriangular", "oval", "rectangular", "round", "square", "triangular")
ASYMMETRIES = (
    "brown-1 brown-2 cheek-1 cheek-2 eye-1 eye-3 eye-4 eye-6 jaw-1 jaw-2 mouth-1 mouth-2 nose-1 nose-2"
)
# Standard deviation of a pair's weight by its folder, and of the others; MakeHuman's sliders end at 1.
STRENGTH = {"mouth": 0.4, "cheek": 0.45, "forehead": 0.4, "head": 0.3}
STRENGTH.update(dict.fromkeys(("nose", "eyes", "chin"), 0.42))
USUAL_STRENGTH = 0.35
FEMALE_SHIFT = {  # mean weight of a pair for women; for men it is the opposite
    "chin-width": -0.2,
    "chin-height": -0.15,
    "chin-bones": -0.2,
    "nose-scale-vert": -0.12,
    "nose-volume": -0.2,
    "nose-width2": -0.12,
    "{side}-eye-scale": 0.15,
    "mouth-upperlip-volume": 0.12,
    "eyebrows-angle": 0.15,
    "neck-scale-horiz": -0.3,
    "neck-scale-depth": -0.2,
}
MEAN = {"{side}-eye-scale": 0.25, "head-scale-horiz": -0.3}  # of everyone: MakeHuman's eyes are small

SKIN_TONES = np.array(  # sRGB, from the fairest to the darkest
    [
        [244, 211, 194],
        [231, 188, 165],
        [213, 165, 138],
        [187, 136, 105],
        [150, 102, 76],
        [113, 74, 55],
        [80, 52, 41],
    ]
)
HAIR_COLOURS = np.array(  # sRGB: black, dark brown, brown, light brown, blond, red
    [[24, 20, 19], [48, 33, 25], [82, 55, 37], [122, 88, 60], [186, 150, 104], [128, 62, 34]]
)
HAIR_ODDS = {"african": (9, 2, 0, 0, 0, 0), "asian": (8, 3, 1, 0, 0, 0), "caucasian": (2, 4, 5, 4, 3, 1)}
IRIS_COLOURS = np.array(  # sRGB: dark brown, brown, hazel, green, blue, grey
    [[52, 32, 20], [88, 55, 30], [112, 88, 48], [96, 112, 74], [92, 126, 156], [124, 136, 142]]
)
IRIS_ODDS = {"african": (8, 3, 0, 0, 0, 0), "asian": (7, 4, 0, 0, 0, 0), "caucasian": (2, 4, 3, 2, 5, 2)}
SHORT_STYLES = ("bald", "cropped", "short", "quiff", "side parting", "fringe")
LONG_STYLES = ("bob", "long", "long parted", "long fringe", "tied back", "short")
SHORT_ODDS, LONG_ODDS = (0.09, 0.25, 0.25, 0.13, 0.14, 0.14), (0.2, 0.24, 0.22, 0.14, 0.06, 0.14)
BEARDS = ("none", "stubble", "moustache", "goatee", "full")
OCCLUSIONS = ("none", "glasses", "sunglasses", "scarf", "hand", "box", "beanie")


@dataclass(frozen=True)
class Person:
    """What stays the same in all pictures of someone."""

    seed: int
    number: int
    female: float  # 0 male to 1 female
    age: float  # years, unless a View has another
    ancestry: dict[str, float]  # shares, of sum 1
    weight: float  # -1 thin to 1 heavy
    shape: dict[str, float]  # shape target of Heads -> weight
    skin: Colour
    blush: float  # 0..1, how red cheeks, nose and ears are
    freckles: float  # 0..1
    moles: int
    blemish: float  # 0..1, unevenness of the skin
    lips: Colour  # factors on the skin's colour
    iris: Colour
    hair: Colour
    hair_style: str
    hairline: float  # -1 low to 1 high
    recession: float  # 0..1, how early the hairline recedes
    volume: float  # 0..1, of the hair
    parting: float  # -1 the person's right to 1 left
    length: float  # 0..1, of long hair
    waves: float  # 0..1
    greying: float  # years at which half the hair is grey
    beard: str
    brows: tuple[float, float, float, float, float]  # thickness, length, arch, height, density; each -1..1
    make_up: float  # 0..1: eyelashes, eye line, lips
    wrinkles: float  # 0..1, how deep they get
    glasses: bool  # wears them in most pictures
    texture_seed: int


@dataclass(frozen=True)
class View:
    """How one picture is taken. Angles in degrees; yaw and roll are positive towards the image's right."""

    seed: int  # of what needs more random numbers: background, noise, shape of an occlusion
    yaw: float
    pitch: float  # positive: chin up
    roll: float
    shoulders: float  # share of the yaw with which the shoulders turn
    expression: dict[str, float]  # expression target of Heads -> weight
    gaze: tuple[float, float]  # of the eyes in the head: to the image's right, up
    light: tuple[float, float, float]  # where the main light comes from, in the camera's axes, of length 1
    light_strength: float
    light_warmth: float  # -1 blue to 1 orange
    ambient: float
    distance: float  # of the camera in decimetres; a short one makes noses large
    exposure: float
    contrast: float
    saturation: float
    clothes: Colour
    occlusion: str  # one of OCCLUSIONS
    blur: float  # standard deviation in pixels of the aligned face
    motion: float  # pixels
    noise: float  # standard deviation, in 0..255
    quality: int  # JPEG's
    messy: float  # how this day's hair differs
    age: float | None  # years, instead of the person's


def draw_person(seed: int, number: int) -> Person:
    """Draw person `number` (0, 1, ...) of the population `seed` (both at least 0)."""
    random = np.random.default_rng([_natural(seed), _natural(number), 0])
    female = float(random.random() < 0.5)
    ancestry = dict(zip(ANCESTRIES, random.dirichlet([0.35, 0.35, 0.45]).tolist()))
    main = max(ancestry, key=lambda name: ancestry[name])
    tone = _skin_tone(random, ancestry)
    style = random.choice(LONG_STYLES, p=LONG_ODDS) if female else random.choice(SHORT_STYLES, p=SHORT_ODDS)
    beard = "none" if female else random.choice(BEARDS, p=(0.5, 0.2, 0.08, 0.09, 0.13))
    return Person(
        seed=seed,
        number=number,
        female=float(abs(female - 0.45 * random.beta(1, 3))),
        age=float(np.clip(random.gamma(6, 4) + 14, 17, 78)),
        ancestry=ancestry,
        weight=float(np.clip(random.normal(0, 0.45), -1, 1)),
        shape=_draw_shape(random, female),
        skin=tone,
        blush=float(random.beta(2, 2)),
        freckles=float(max(0, random.normal(-0.3, 0.5))) * (tone[0] > 0.7),
        moles=int(random.poisson(3)),
        blemish=float(random.beta(2, 3)),
        lips=tuple((np.array([0.93, 0.74, 0.75]) * random.normal(1, [0.05, 0.06, 0.06])).tolist()),
        iris=_pick_colour(random, IRIS_COLOURS, IRIS_ODDS[main], 0.12),
        hair=_pick_colour(random, HAIR_COLOURS, HAIR_ODDS[main], 0.15),
        hair_style=str(style),
        hairline=float(np.clip(random.normal(0, 0.5), -1, 1)),
        recession=float(random.beta(1.5, 2)) * (1 - 0.85 * female),
        volume=float(random.beta(2, 2)),
        parting=float(random.uniform(-1, 1)),
        length=float(random.random()),
        waves=float(random.beta(1, 2)) if main != "african" else float(random.beta(4, 2)),
        greying=float(random.normal(53, 8)),
        beard=str(beard),
        brows=tuple(np.clip(random.normal(0, 0.5, 5) - 0.35 * female * np.eye(5)[0], -1, 1).tolist()),
        make_up=float(random.beta(1.2, 1.2) * female),
        wrinkles=float(random.beta(3, 2)),
        glasses=bool(random.random() < 0.12),
        texture_seed=int(random.integers(2**31)),
    )


def draw_view(seed: int, person: int, image: int, kind: str = "plain", age: float | None = None) -> View:
    """Draw how picture `image` (0, 1, ...) of a person is taken.

    Parameters
    ----------
    seed, person, image : int
        At least 0; together with `kind` they fix the view.
    kind : str, default 'plain'
        'plain': yaw mostly within 40 degrees; 'frontal': within 12; 'profile': 50 to 70 to either side;
        'any-pose': evenly up to 70.
    age : float or None, optional
        Age of the person in this picture, 12 to 85 years; None: the person's own.

    Raises
    ------
    LatseError
        If `kind` or `age` is none of these.
    """
    if kind not in KINDS:
        raise LatseError(f"unknown kind of view {kind!r}: choose one of {', '.join(KINDS)}")
    if age is not None and not YOUNGEST <= age <= OLDEST:
        raise LatseError(f"age {age:g} is out of range: {YOUNGEST} to {OLDEST} years")
    key = [_natural(seed), _natural(person), 1 + _natural(image), KINDS.index(kind)]
    random = np.random.default_rng(key)
    yaw, pitch, roll = _draw_pose(random, kind)
    angle, height = np.radians(random.normal(0, 42)), np.radians(random.normal(28, 20))
    light = np.array([np.sin(angle) * np.cos(height), np.sin(height), np.cos(angle) * np.cos(height)])
    wears = random.random()
    return View(
        seed=int(random.integers(2**31)),
        yaw=yaw,
        pitch=pitch,
        roll=roll,
        shoulders=float(random.uniform(0, 1)),
        expression=_draw_expression(random),
        gaze=(float(np.clip(-0.35 * yaw, -14, 14) + random.normal(0, 3)), float(random.normal(0, 2.5))),
        light=tuple(light.tolist()),
        light_strength=float(random.uniform(0.45, 1.05)),
        light_warmth=float(random.normal(0.1, 0.35)),
        ambient=float(random.uniform(0.3, 0.75)),
        distance=float(np.exp(random.uniform(np.log(6), np.log(25)))),
        exposure=float(np.exp(random.normal(0, 0.16))),
        contrast=float(random.normal(1, 0.1)),
        saturation=float(np.clip(random.normal(1, 0.18), 0.3, 1.4)) if random.random() > 0.04 else 0.0,
        clothes=tuple(np.clip(random.random(3) * random.uniform(0.3, 1), 0.03, 0.95).tolist()),
        occlusion="none" if wears > 0.17 else str(random.choice(OCCLUSIONS[1:], p=_OCCLUSION_ODDS)),
        blur=float(random.gamma(1.3, 0.2)),
        motion=float(random.uniform(2, 4.5)) if random.random() < 0.06 else 0.0,
        noise=float(random.gamma(1.3, 0.9)),
        quality=int(random.integers(45, 98)),
        messy=float(random.normal(0, 1)),
        age=None if age is None else float(age),
    )


_OCCLUSION_ODDS = (0.28, 0.22, 0.12, 0.13, 0.12, 0.13)  # of OCCLUSIONS[1:]


def _natural(number: int) -> int:
    if number < 0:
        raise LatseError(f"seeds, people and images are numbered from 0, not {number}")
    return int(number)


def _draw_shape(random: np.random.Generator, female: float) -> dict[str, float]:
    shape = {}
    for line in OPPOSITES.strip().splitlines():
        folder, ends, stems = line.split(": ")
        for stem in stems.split():
            mean = MEAN.get(stem, 0) + FEMALE_SHIFT.get(stem, 0) * (2 * female - 1)
            value = np.clip(random.normal(mean, STRENGTH.get(folder, USUAL_STRENGTH)), -0.95, 0.95)
            end = ends.split("/")[int(value > 0)]
            for side in "lr" if "{side}" in stem else " ":
                shape[f"{folder}/{stem.format(side=side)}-{end}"] = abs(float(value))
    shape[f"head/head-{random.choice(OUTLINES)}"] = float(random.uniform(0.1, 0.7))
    for stem in ASYMMETRIES.split():
        shape[f"asym/asym-{stem}-{random.choice(['l', 'r'])}"] = float(abs(random.normal(0, 0.22)))
    return shape


def _skin_tone(random: np.random.Generator, ancestry: dict[str, float]) -> Colour:
    centre = 0.8 * ancestry["african"] + 0.33 * ancestry["asian"] + 0.17 * ancestry["caucasian"]
    tone = np.clip(centre + random.normal(0, 0.09), 0, 1) * (len(SKIN_TONES) - 1)
    below = min(int(tone), len(SKIN_TONES) - 2)
    colour = SKIN_TONES[below] + (tone - below) * (SKIN_TONES[below + 1] - SKIN_TONES[below])
    tint = random.normal(0, [0.015, 0.012, 0.02])  # redder or more yellow than others of that tone
    return tuple(np.clip(colour / 255 * (1 + tint), 0.03, 0.98).tolist())


def _pick_colour(random: np.random.Generator, colours: np.ndarray, odds: tuple, spread: float) -> Colour:
    """Return a colour between the one drawn and a neighbour, lighter or darker by about `spread`."""
    number = random.choice(len(colours), p=np.array(odds) / sum(odds))
    other = colours[max(0, number - 1)]
    colour = colours[number] + random.uniform(0, 0.5) * (other - colours[number])
    return tuple(np.clip(colour / 255 * np.exp(random.normal(0, spread)), 0.02, 0.95).tolist())


def _draw_pose(random: np.random.Generator, kind: str) -> tuple[float, float, float]:
    side = random.choice([-1, 1])
    yaw = {
        "plain": np.clip(random.normal(0, 18), -45, 45),
        "frontal": np.clip(random.normal(0, 5), -12, 12),
        "profile": side * random.uniform(50, 70),
        "any-pose": random.uniform(-70, 70),
    }[kind]
    tilt = {"plain": 7, "frontal": 4, "profile": 5, "any-pose": 10}[kind]
    return float(yaw), float(np.clip(random.normal(0, tilt), -25, 25)), float(random.normal(0, 0.8 * tilt))


def _draw_expression(random: np.random.Generator) -> dict[str, float]:
    """Draw expression targets of one of several moods, with a little of everything else."""
    amount = float(random.beta(2, 1.5))
    lively = {name: float(abs(random.normal(0, 0.12))) for name in _SMALL_MOVES.split()}
    mood = random.choice(list(_MOODS), p=[0.34, 0.26, 0.12, 0.08, 0.06, 0.05, 0.05, 0.04])
    for move, weight in _MOODS[mood].items():
        sides = ("Left", "Right") if move.endswith("*") else ("",)
        for name in (move.rstrip("*") + side for side in sides):
            lively[name] = lively.get(name, 0) + amount * weight
    blink = float(random.beta(1, 9) * 0.5 if random.random() > 0.02 else random.uniform(0.5, 1))
    lively["eyeBlinkLeft"] = lively["eyeBlinkRight"] = blink
    return lively


_SMALL_MOVES = "browInnerUp browDownLeft browDownRight mouthPressLeft mouthPressRight jawLeft"
_MOODS = {  # * stands for both sides of the face
    "calm": {},
    "smile": {"mouthSmile*": 0.8, "cheekSquint*": 0.4},
    "laugh": {
        "mouthSmile*": 0.9,
        "jawOpen": 0.28,
        "cheekSquint*": 0.7,
        "eyeSquint*": 0.3,
        "mouthUpperUp*": 0.4,
    },
    "talk": {"jawOpen": 0.35, "mouthFunnel": 0.3, "mouthLowerDown*": 0.2},
    "sad": {"mouthFrown*": 0.7, "browInnerUp": 0.8},
    "angry": {"browDown*": 0.9, "noseSneer*": 0.4, "mouthPress*": 0.5, "eyeSquint*": 0.4},
    "surprise": {"browInnerUp": 0.9, "browOuterUp*": 0.8, "jawOpen": 0.4, "eyeWide*": 0.7},
    "doubt": {"browOuterUpLeft": 0.8, "browDownRight": 0.5, "mouthLeft": 0.4, "mouthPucker": 0.2},
}
