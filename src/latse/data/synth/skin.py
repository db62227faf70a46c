"""The skin of one person, drawn around the head: pores, freckles, moles, brows, beard shadow, wrinkles."""

from __future__ import annotations

from typing import Sequence

import cv2
import numpy as np

from latse.data.synth.heads import FRONT, Heads
from latse.data.synth.people import Person
from latse.data.synth.shape import AXIS, azimuth, beard_cover, smoothstep

HEIGHT, WIDTH = 448, 512  # of the picture in pixels
TOP, BOTTOM = 8.55, 5.75  # heights in the base mesh of its edges
HALF = np.radians(125)  # azimuth of its left and right edges


def linear(colour: Sequence[float]) -> np.ndarray:
    """Return the linear light of an sRGB colour in 0..1 (gamma 2.2)."""
    return np.asarray(colour, np.float32) ** 2.2


def columns_rows(angle: np.ndarray, height: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the columns and rows, in pixels of the skin's picture, of azimuths and heights."""
    return (angle / HALF + 1) * (WIDTH - 1) / 2, (TOP - height) / (TOP - BOTTOM) * (HEIGHT - 1)


def smooth_noise(random: np.random.Generator, size: tuple[int, int], cells: tuple[int, int]) -> np.ndarray:
    """Return the noise of about unit variance with about `cells` (rows, columns) bumps, float32 of `size`."""
    coarse = random.standard_normal(cells, dtype=np.float32)
    return cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)


def sample(picture: np.ndarray, column: np.ndarray, row: np.ndarray) -> np.ndarray:
    """Return `picture` (height, width[, k]) at m places, between its pixels linearly: (m[, k])."""
    folded = np.zeros((2, -(-len(column) // 256), 256), np.float32)  # cv2.remap takes no side above 32,767
    folded[0].flat[: len(column)], folded[1].flat[: len(row)] = column, row
    sampled = cv2.remap(picture, *folded, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return sampled.reshape(-1, *picture.shape[2:])[: len(column)]


def pixels(heads: Heads, points: np.ndarray) -> np.ndarray:
    """Return column and row, float64 (m, 2), of points (m, 2) seen from the front: x to the left, y up."""
    left, right, top, bottom, lines = FRONT
    x, y = np.asarray(points, float).T
    column, row = (x - left) / (right - left) * (lines - 1), (y - top) / (bottom - top) * (lines - 1)
    depth = sample(heads.front, column, row)
    return np.stack(columns_rows(np.arctan2(x, depth - AXIS), y), axis=1)


def colour_at(heads: Heads, person: Person, years: float, rest: np.ndarray) -> np.ndarray:
    """Colour of the skin, linear light, float32 (p, 3), at places `rest` (p, 3) of the base mesh."""
    random = np.random.default_rng([person.texture_seed, 1])
    lines = _wrinkles(random, heads, person, years) + 0.65 * _spots(random, heads, person)
    grains, mottling = _mottling(random, person)
    layers = cv2.merge([mottling - lines, grains, _brows(random, heads, person)])
    column, row = columns_rows(azimuth(rest), rest[:, 1])
    darker, grain, brow = sample(layers, column, row).T[..., None]
    colour = sample(_complexion(heads, person), (column - 1.5) / 4, (row - 1.5) / 4)
    colour *= np.maximum(1 + darker * np.array([0.75, 1.1, 1.2], np.float32), 0.1)
    colour += _stubble(person, years, rest)[:, None] * grain * (0.5 * linear(person.hair) + 0.01 - colour)
    grey = 0.7 * smoothstep(np.array(years), person.greying, person.greying + 25)
    return colour + brow * (0.75 * linear(person.hair) * (1 - grey) + 0.3 * grey - colour)


def _mottling(random: np.random.Generator, person: Person) -> tuple[np.ndarray, np.ndarray]:
    """Return the noise of fine grains, about 0.3 to 1.7, and unevenness around 0, both (HEIGHT, WIDTH)."""
    size, amount = (HEIGHT, WIDTH), 0.4 + 0.6 * person.blemish
    fine = smooth_noise(random, size, (HEIGHT // 2, WIDTH // 2))
    coarse = smooth_noise(random, (HEIGHT // 4, WIDTH // 4), (14, 16))
    coarse += 0.9 * smooth_noise(random, (HEIGHT // 4, WIDTH // 4), (56, 64))
    coarse = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)
    return 1 + 0.4 * fine, (0.03 * amount) * (coarse + fine)


def _complexion(heads: Heads, person: Person) -> np.ndarray:
    """Return the person's colour, cheeks and nose red, eyelids dark, a quarter of the size: (., ., 3)."""
    rows, columns = np.mgrid[1.5:HEIGHT:4, 1.5:WIDTH:4].astype(np.float32)
    red, dark = np.zeros((2, *rows.shape), np.float32)
    spots = [(0.42, 6.98, 34, 0.9, red), (0.0, 6.93, 15, 0.8, red), (0.0, 6.3, 16, 0.3, red)]
    spots += [(0.31, 7.33, 15, 0.55, dark), (0.29, 7.15, 13, 0.5, dark), (0.2, 7.3, 8, 0.5, dark)]
    for x, y, radius, amount, layer in spots:
        for column, row in pixels(heads, [(-x, y), (x, y)])[: 2 if x else 1]:
            bump = np.exp(-((columns - column) ** 2 + (rows - row) ** 2) / (2 * radius**2))
            np.add(layer, amount * bump, out=layer)
    red *= 0.1 + 0.25 * person.blush
    reddened = linear(person.skin) * np.stack([1 + 0.15 * red, 1 - 0.55 * red, 1 - 0.5 * red], axis=2)
    return reddened * (1 - 0.28 * dark[..., None] * np.array([0.8, 1.0, 0.9], np.float32))


def _spots(random: np.random.Generator, heads: Heads, person: Person) -> np.ndarray:
    """Draw freckles and moles: 0..1, float32 (HEIGHT, WIDTH)."""
    spots = np.zeros((HEIGHT, WIDTH), np.float32)
    freckles, moles = int(420 * person.freckles), person.moles
    places = np.stack([random.normal(0, 0.4, freckles), random.normal(7.03, 0.2, freckles)], axis=1)
    moles_at = np.stack([random.uniform(-0.6, 0.6, moles), random.uniform(6.2, 8.0, moles)], axis=1)
    sizes = np.concatenate([random.uniform(0.5, 1.3, freckles), random.uniform(1.0, 2.4, moles)])
    centres = pixels(heads, np.concatenate([places, moles_at])) if len(sizes) else np.zeros((0, 2))
    circles = (np.column_stack([centres, sizes]) * 8).astype(int).tolist()
    for (*centre, size), shade in zip(circles, [0.3] * freckles + [0.8] * moles):
        cv2.circle(spots, centre, size, shade, -1, cv2.LINE_AA, 3)
    return cv2.GaussianBlur(spots, (0, 0), 0.7)


def _wrinkles(random: np.random.Generator, heads: Heads, person: Person, years: float) -> np.ndarray:
    """Return the depth of folds and lines, growing with age, float32 (HEIGHT, WIDTH)."""
    age = np.clip((years - 28) / 45, 0, 1.1) * (0.25 + 0.6 * person.wrinkles)
    folds = [(0.12 + 0.6 * age, [(0.2, 6.98), (0.28, 6.86), (0.34, 6.72), (0.36, 6.58)])]
    folds.append((0.08 + 0.5 * age, [(0.14, 7.2), (0.24, 7.1), (0.38, 7.1), (0.46, 7.16)]))
    folds.append((0.6 * age, [(0.27, 6.58), (0.31, 6.46), (0.3, 6.32)]))
    for number in range(3):  # crow's feet
        tilt = 0.05 * (number - 1) + random.normal(0, 0.02)
        points = [(0.5, 7.28 + 0.3 * tilt), (0.58, 7.28 + tilt), (0.66, 7.27 + 1.7 * tilt)]
        folds.append((random.uniform(0.1, 0.7) * age, points))
    lines: list[tuple[float, list]] = []
    for height in 7.66 + 0.1 * np.arange(4) + random.normal(0, 0.015, 4):  # of the forehead
        wave = random.normal(0, 0.012, 7)
        lines.append((random.uniform(0.3, 0.8) * age, list(zip(np.linspace(-0.42, 0.42, 7), height + wave))))
    for x in (-0.05, 0.05):  # frown
        lines.append((random.uniform(0.2, 0.8) * age, [(x, 7.42), (0.8 * x, 7.56)]))
    lines += [(depth, [(side * x, y) for x, y in points]) for depth, points in folds for side in (-1, 1)]
    depth = np.zeros((HEIGHT, WIDTH), np.float32)
    for amount, points in sorted(lines):
        path = (pixels(heads, _curve(points)) * 8).astype(np.int32)
        cv2.polylines(depth, [path], False, float(amount), 2, cv2.LINE_AA, 3)
    soft = cv2.GaussianBlur(depth, (0, 0), 1.3)
    below = np.roll(soft, 3, axis=0)  # the ridge beside a fold catches light
    return 0.75 * soft + 0.5 * cv2.GaussianBlur(depth, (0, 0), 4) - 0.25 * below


def _curve(points: Sequence[tuple[float, float]], steps: int = 5) -> np.ndarray:
    """Points (m, 2) along the broken line through `points`, rounded off."""
    place = np.linspace(0, len(points) - 1, steps * (len(points) - 1) + 1)
    line = np.stack([np.interp(place, np.arange(len(points)), axis) for axis in zip(*points)], axis=1)
    padded = np.concatenate([line[:1], line, line[-1:]])
    return (padded[:-2] + 2 * line + padded[2:]) / 4


def _stubble(person: Person, years: float, rest: np.ndarray) -> np.ndarray:
    """Return the shadow of a shaven or short beard: 0..1 at places (p, 3)."""
    if person.female > 0.5 or years < 17:
        return np.zeros(len(rest), np.float32)
    amount = {"none": 0.12, "moustache": 0.14, "goatee": 0.16, "stubble": 0.42, "full": 0.5}[person.beard]
    zone = beard_cover(rest, np.zeros(len(rest), np.float32), "full")
    return np.clip(zone * amount * (1.2 - np.mean(person.hair)), 0, 0.7).astype(np.float32)


def _brows(random: np.random.Generator, heads: Heads, person: Person) -> np.ndarray:
    """Return the density of the eyebrows, 0..1, drawn hair by hair: float32 (HEIGHT, WIDTH)."""
    thickness, length, arch, height, density = person.brows
    layer = np.zeros((HEIGHT, WIDTH), np.float32)
    share = np.linspace(0, 1, 9)
    x = (0.115 - 0.02 * thickness) * (1 - share) + (0.5 + 0.04 * length) * share
    y = 7.49 + 0.02 * height + (0.042 + 0.03 * arch) * np.sin(np.pi * share**1.25 * 0.86)
    width = (0.05 + 0.016 * thickness) * np.interp(share, [0, 0.12, 0.5, 1], [0.7, 1.0, 0.85, 0.25])
    hairs = int(150 + 50 * density)
    for side in (-1, 1):
        place, across = random.random(hairs), random.uniform(-0.5, 0.5, hairs)
        along, above, wide = (np.interp(place, share, values) for values in (x, y, width))
        root = np.stack([along, above + across * wide])
        lean = np.interp(place, [0, 0.2, 1], [75, 35, -18]) + random.normal(0, 10, hairs) - 25 * across
        reach = 0.045 + 0.015 * random.random(hairs)
        tip = root + reach * np.stack([np.cos(np.radians(lean)), np.sin(np.radians(lean))])
        both = np.stack([root, tip]).transpose(2, 0, 1) * [side, 1]  # (hairs, ends, 2)
        ends = (pixels(heads, both.reshape(-1, 2)) * 8).astype(np.int32).reshape(hairs, 2, 2)
        cv2.polylines(layer, list(ends), False, 1.0, 1, cv2.LINE_AA, 3)
    rows = slice(HEIGHT // 5, HEIGHT // 2)  # where they are
    soft = cv2.GaussianBlur(layer[rows], (0, 0), 2.2)
    layer[rows] = np.clip(0.55 * layer[rows] + 0.75 * soft, 0, 0.92 + 0.05 * density) * (0.8 + 0.12 * density)
    return layer
