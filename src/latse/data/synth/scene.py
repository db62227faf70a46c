"""What a picture has besides the head: background, glasses and other occlusions, the camera's own faults."""

from __future__ import annotations

from typing import Callable, NamedTuple

import cv2
import numpy as np

from latse.data.synth.people import Person, View

Project = Callable[[np.ndarray], np.ndarray]  # places (n, 3) in the unposed head -> column, row, depth (n, 3)


def background(random: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Draw something out of focus behind the head, sRGB float32 (height, width, 3) in 0..1."""
    height, width = size
    dullness = random.uniform(0.35, 1)
    base = random.uniform(0.08, 0.9) + (1 - dullness) * random.uniform(-0.35, 0.35, 3)
    ramp = np.linspace(-1, 1, height)[:, None, None] * random.normal(0, 0.12)
    ramp = ramp + np.linspace(-1, 1, width)[None, :, None] * random.normal(0, 0.12)
    picture = np.clip(base + ramp, 0, 1).astype(np.float32)
    for _ in range(random.integers(0, 14)):
        shade = random.normal(0, 0.2) + (1 - dullness) * random.normal(0, 0.2, 3)
        colour = np.clip(base + shade, 0, 1).tolist()
        corner = (random.random(2) * [width, height]).astype(int)
        extent = (random.gamma(2, 22, 2) + 4).astype(int)
        if random.random() < 0.6:
            cv2.rectangle(picture, corner.tolist(), (corner + extent).tolist(), colour, -1)
        else:
            cv2.circle(picture, corner.tolist(), int(extent[0]) // 2, colour, -1)
    cloud = random.standard_normal((7, 7, 3), dtype=np.float32) * np.float32(random.uniform(0, 0.07))
    picture += cv2.resize(cloud, (width, height), interpolation=cv2.INTER_CUBIC)
    picture = cv2.GaussianBlur(picture, (0, 0), random.uniform(0.8, 7))
    return np.clip(picture, 0, 1)


class Landmarks(NamedTuple):
    """What tells where things on a face go."""

    points: np.ndarray  # (5, 3): eyes, nose and mouth's corners before the pose
    ears: np.ndarray  # (2, 3): where glasses rest, before the pose
    depth: np.ndarray  # float32 (height, width): z of the head in the picture, -inf where there is none


def occlude(
    image: np.ndarray,
    random: np.random.Generator,
    person: Person,
    view: View,
    project: Project,
    marks: Landmarks,
) -> None:
    """Draw glasses, a hand or a box over `image`, float32 sRGB, in place; `project` poses places."""
    kind, points = occlusion_of(random, person, view), project(marks.points)[:, :2]
    if kind == "hand":
        _hand(image, random, person, points)
    elif kind == "box":
        _box(image, random, points)
    elif kind in ("glasses", "sunglasses"):
        _glasses(image, person, marks, project, dark=kind == "sunglasses")


def occlusion_of(random: np.random.Generator, person: Person, view: View) -> str:
    """Return what is over the face, one of `people.OCCLUSIONS`: the view's, or the person's own glasses."""
    wears = view.occlusion == "none" and person.glasses and random.random() < 0.8
    return "glasses" if wears else view.occlusion


def _glasses(image: np.ndarray, person: Person, marks: Landmarks, project: Project, dark: bool) -> None:
    random = np.random.default_rng([person.texture_seed, 2])  # everyone has their own glasses
    colour = tuple(np.clip(random.uniform(0.02, 0.45) * random.uniform(0.5, 1.5, 3), 0, 0.8).tolist())
    eyes = marks.points[:2]
    half = 0.5 * np.linalg.norm(eyes[1] - eyes[0])
    wide, tall = half * random.uniform(0.66, 0.84), half * random.uniform(0.45, 0.68)
    power, line = random.uniform(2, 4.5), 1 if random.random() < 0.4 else 2
    angle = np.linspace(0, 2 * np.pi, 41)
    cosine, sine = np.cos(angle), np.sin(angle)
    front = max(eyes[:, 2]) + 0.14
    rims = []
    for side, eye in zip((-1, 1), eyes):
        x = eye[0] + side * 0.03 + wide * np.sign(cosine) * np.abs(cosine) ** (2 / power)
        y = eye[1] - 0.03 + tall * np.sign(sine) * np.abs(sine) ** (2 / power)
        rims.append(np.stack([x, y, front - 0.18 * (x / 0.6) ** 2], axis=1))
    tint = np.array([0.04, 0.04, 0.05]) if dark else np.array([0.9, 0.95, 1.0])
    for rim in rims:
        pixels = _fixed(project(rim)[:, :2])
        lens = np.zeros(image.shape[:2], np.float32)
        cv2.fillPoly(lens, [pixels], 0.9 if dark else 0.07, cv2.LINE_AA, 3)
        image += lens[..., None] * (tint.astype(np.float32) - image)
        cv2.polylines(image, [pixels], True, colour, line, cv2.LINE_AA, 3)
    left, right = (rim[np.argmax(side * rim[:, 0])] for rim, side in zip(rims, (1, -1)))
    bridge = np.stack([left, np.mean([left, right], axis=0) + [0, 0.06, 0.06], right])
    cv2.polylines(image, [_fixed(project(bridge)[:, :2])], False, colour, line, cv2.LINE_AA, 3)
    for rim, side, ear in zip(rims, (-1, 1), marks.ears):
        hinge = rim[np.argmax(side * rim[:, 0])]
        temple = hinge + np.linspace(0, 1, 24)[:, None] * (ear - hinge)
        temple[:, 0] += side * 0.06 * np.sin(np.linspace(0, np.pi, 24))  # bent around the head
        _hidden_line(image, project(temple), marks.depth, colour, line)


def _hidden_line(image: np.ndarray, places: np.ndarray, depth: np.ndarray, colour: tuple, line: int) -> None:
    """Draw a broken line where nothing is in front of it."""
    column, row = places[:, :2].round().astype(int).T
    column, row = column.clip(0, depth.shape[1] - 1), row.clip(0, depth.shape[0] - 1)
    seen = places[:, 2] > depth[row, column] - 0.04
    pixels = _fixed(places[:, :2])
    for first in np.flatnonzero(seen[:-1] & seen[1:]):
        cv2.line(image, pixels[first].tolist(), pixels[first + 1].tolist(), colour, line, cv2.LINE_AA, 3)


def _hand(image: np.ndarray, random: np.random.Generator, person: Person, points: np.ndarray) -> None:
    """Draw fingers of the person's own colour from below over a cheek, the mouth or the chin."""
    centre = points[3:].mean(0) + random.normal(0, 1, 2) * [26, 10]
    colour = np.clip(np.array(person.skin) * random.uniform(0.75, 1.0), 0, 1)
    lean = random.normal(0, 0.35) + np.pi / 2
    along, across = np.array([np.cos(lean), -np.sin(lean)]), np.array([np.sin(lean), np.cos(lean)])
    for finger in range(4):
        tip = centre + across * (finger - 1.5) * 12 + along * (28 - 5 * abs(finger - 1.4))
        foot = tip - along * 90
        for shift, shade, width in ((2.5, 0.62, 13), (0, 0.95, 12), (-1.5, 1.06, 6)):
            ends = [_fixed(end + across * shift).tolist() for end in (tip, foot)]
            cv2.line(image, *ends, tuple(np.clip(colour * shade, 0, 1).tolist()), width, cv2.LINE_AA, 3)
    palm = centre - along * 62
    cv2.circle(image, _fixed(palm).tolist(), 27 * 8, tuple((colour * 0.93).tolist()), -1, cv2.LINE_AA, 3)


def _box(image: np.ndarray, random: np.random.Generator, points: np.ndarray) -> None:
    centre = points[random.integers(5)] + random.normal(0, 10, 2)
    size = random.uniform(18, 60, 2)
    corners = cv2.boxPoints((tuple(centre.tolist()), tuple(size.tolist()), random.uniform(0, 90)))
    cv2.fillPoly(image, [_fixed(corners)], tuple(random.random(3).tolist()), cv2.LINE_AA, 3)


def _fixed(pixels: np.ndarray) -> np.ndarray:
    return (pixels * 8).round().astype(np.int32)


def develop(image: np.ndarray, random: np.random.Generator, view: View, enlargement: float) -> np.ndarray:
    """Blur, noise and compression of a camera: sRGB float32 in 0..1 to uint8.

    `enlargement` is how many pixels of the picture make one of the aligned face.
    """
    grey = image @ np.array([0.299, 0.587, 0.114], np.float32)
    image = grey[..., None] + view.saturation * (image - grey[..., None])
    image = 0.5 + view.contrast * (image - 0.5)
    image = cv2.GaussianBlur(image, (0, 0), enlargement * (0.42 + view.blur))
    if view.motion:
        image = cv2.filter2D(image, -1, _streak(random.uniform(0, np.pi), view.motion * enlargement))
    image = image * 255 + view.noise * enlargement * random.standard_normal(image.shape, dtype=np.float32)
    image = np.clip(image + 0.5, 0, 255).astype(np.uint8)
    encoded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, view.quality])[1]
    return np.ascontiguousarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR)[..., ::-1])


def _streak(angle: float, length: float) -> np.ndarray:
    half = int(np.ceil(length / 2))
    kernel = np.zeros((2 * half + 1,) * 2, np.float32)
    end = 0.5 * length * np.array([np.cos(angle), np.sin(angle)])
    cv2.line(kernel, _fixed(half - end).tolist(), _fixed(half + end).tolist(), 1.0, 1, cv2.LINE_AA, 3)
    return kernel / kernel.sum()
