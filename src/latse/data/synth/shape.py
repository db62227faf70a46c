"""The geometry of one picture: the person's head with its expression, hair and beard, posed and projected."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from latse.data.photographs.align import TEMPLATE
from latse.data.synth.heads import EYE, MASKS, SKIN, Heads
from latse.data.synth.people import Person, View

HAIR, CLOTH, BEARD = 4, 5, 6  # parts beside those of Heads
AXIS = 0.5  # z of the vertical axis around which azimuths are taken
SIZE = (256, 256)  # height and width of a picture
ENLARGEMENT = 1.5  # pixels of a picture that make one of the aligned face, seen from the front
# Of the five points, likewise.
SPREAD = ENLARGEMENT * float(np.sqrt(((TEMPLATE - TEMPLATE.mean(0)) ** 2).sum(1).mean()))
# Hairline: height over azimuth (degrees from the front), in the base mesh.
HAIRLINE = np.array(
    [[0, 7.96], [15, 7.97], [32, 7.93], [46, 7.78], [56, 7.62], [66, 7.5], [73, 7.14], [80, 7.1], [84, 7.42]]
    + [[100, 7.45], [112, 7.25], [128, 6.92], [150, 6.78], [180, 6.75]]
)


class Mesh(NamedTuple):
    """What is rasterised; n vertices, t triangles."""

    rest: np.ndarray  # float32 (n, 3): place in the base mesh, by which skin and hair are painted
    vertices: np.ndarray  # float32 (n, 3): place in this picture, before the pose
    triangles: np.ndarray  # int32 (t, 3)
    part: np.ndarray  # uint8 (t,)
    cover: np.ndarray  # float32 (n,) in 0..1: density of hair; 1 elsewhere
    source: np.ndarray  # int (n,): vertex of Heads that lends masks and visibility


def age_of(person: Person, view: View) -> float:
    """Return the years in this picture."""
    return person.age if view.age is None else view.age


def target_weights(person: Person, view: View) -> dict[str, float]:
    """Return the weights of all targets: identity, sex, age, ancestry and expression."""
    years = age_of(person, view)
    ages = {"child": np.clip((25 - years) / 15, 0, 1), "old": np.clip((years - 25) / 55, 0, 1)}
    ages["young"] = 1 - ages["child"] - ages["old"]
    weights = {**person.shape}
    for sex, of_sex in (("female", person.female), ("male", 1 - person.female)):
        for age, of_age in ages.items():
            for ancestry, share in person.ancestry.items():
                weights[f"{ancestry}-{sex}-{age}"] = of_sex * of_age * share
            heavy = "max" if person.weight > 0 else "min"
            stem = f"universal-{sex}-{age}-averagemuscle"
            weights[f"{stem}-averageweight"] = of_sex * of_age * (1 - abs(person.weight))
            weights[f"{stem}-{heavy}weight"] = of_sex * of_age * abs(person.weight)
    weights.update(view.expression)
    return {name: float(weight) for name, weight in weights.items() if abs(weight) > 1e-3}


def azimuth(rest: np.ndarray) -> np.ndarray:
    """Return the angle around the head's axis in radians, 0 in front, positive to the person's left."""
    return np.arctan2(rest[:, 0], rest[:, 2] - AXIS)


def smoothstep(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return 0 below `low`, 1 above `high`, a smooth rise between."""
    share = np.clip((values - low) / (high - low), 0, 1)
    return share * share * (3 - 2 * share)


def hairline(rest: np.ndarray, person: Person, years: float) -> np.ndarray:
    """Return the height of the hairline at the azimuth of each place."""
    degrees = np.degrees(np.abs(azimuth(rest)))
    height = np.interp(degrees, HAIRLINE[:, 0], HAIRLINE[:, 1])
    front = smoothstep(-degrees, -75, -40)
    fallen = person.recession * np.clip((years - 22) / 40, 0, 1)
    temples = np.exp(-(((degrees - 38) / 16) ** 2))
    height = height + front * (0.09 * person.hairline + 0.22 * fallen) + 0.3 * fallen * temples
    if person.hair_style in ("fringe", "long fringe"):
        height = height - (0.34 + 0.08 * person.length) * smoothstep(-degrees, -62, -45)
    if person.female > 0.5:  # no sideburns
        height = np.maximum(height, np.where((degrees > 65) & (degrees < 84), 7.3, 0))
    return height


def hair_cover(above: np.ndarray) -> np.ndarray:
    """Return the density of hair, 0..1, this far (decimetres) above the hairline."""
    return smoothstep(above, -0.05, 0.16)


def build(heads: Heads, person: Person, view: View) -> tuple[Mesh, np.ndarray, np.ndarray]:
    """Return the mesh before the pose, its five points, float32 (5, 3), and where glasses rest, (2, 3)."""
    vertices = heads.shaped(target_weights(person, view))
    normals = vertex_normals(vertices, heads.triangles)
    part = heads.part[heads.triangles[:, 0]]
    bare = np.ones(len(vertices), np.float32), np.arange(len(vertices))
    parts = [Mesh(heads.vertices, vertices, heads.triangles, part, *bare)]
    parts += _hair(heads, person, view, vertices, normals)
    parts += _beard(heads, person, view, vertices, normals)
    parts += _scarf(heads, view, vertices, normals)
    offsets = np.cumsum([0] + [len(part.rest) for part in parts])
    joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in Mesh._fields}
    joined["triangles"] = np.concatenate([part.triangles + start for part, start in zip(parts, offsets)])
    return Mesh(**joined), five_points(heads, vertices), _ears(heads, vertices)


def five_points(heads: Heads, vertices: np.ndarray) -> np.ndarray:
    """Return eyes, nose and mouth's corners in the order of `align.POINTS` (left in the image first), (5, 3).

    They lie where MTCNN puts them on average: the nose above its tip, the corners below the lips' ends.
    """
    rest, points = heads.vertices, []
    eyes = heads.part == EYE
    for side in (-1, 1):
        eye = vertices[eyes & (side * rest[:, 0] > 0)]
        points.append(eye.mean(0) + [0, -0.015, 0.45 * np.ptp(eye[:, 2])])
    middle = np.flatnonzero((abs(rest[:, 0]) < 0.02) & (rest[:, 2] > 1.6) & (heads.part == SKIN))
    points.append(vertices[middle[abs(rest[middle, 1] - 6.95).argmin()]])
    lips = np.flatnonzero(heads.masks[:, MASKS.index("lips")] > 0.5)
    corners = vertices[lips[[rest[lips, 0].argmin(), rest[lips, 0].argmax()]]]
    return np.array([*points, *(corners - [0, 0.025, 0])], np.float32)


def _ears(heads: Heads, vertices: np.ndarray) -> np.ndarray:
    """Return where the temples of glasses end: the ears' roots, left one in the image first, (2, 3)."""
    rest = heads.vertices
    root = (heads.masks[:, MASKS.index("ears")] > 0.5) & (rest[:, 1] > 7.2) & (abs(rest[:, 0]) < 0.8)
    return np.stack([vertices[root & (side * rest[:, 0] > 0)].mean(0) for side in (-1, 1)])


def vertex_normals(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Return the normals of unit length, float32 (n, 3), each the mean of its triangles' weighted by area."""
    a, b, c = (vertices[corner] for corner in triangles.T)
    faces = np.cross(b - a, c - a)
    sums = [sum(np.bincount(corner, axis, len(vertices)) for corner in triangles.T) for axis in faces.T]
    normals = np.stack(sums, axis=1)
    return (normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)).astype(np.float32)


def shell(
    heads: Heads, vertices: np.ndarray, normals: np.ndarray, height: np.ndarray, cover: np.ndarray, part: int
) -> Mesh:
    """Return a second skin `height` above the first where `cover` is positive."""
    keep = (cover > 0) & (heads.part == SKIN)
    chosen = heads.triangles[keep[heads.triangles].any(1)]  # the rim joins the skin
    used, inverse = np.unique(chosen, return_inverse=True)
    lifted = (vertices[used] + normals[used] * height[used, None]).astype(np.float32)
    triangles = inverse.reshape(-1, 3).astype(np.int32)
    kind, cover = np.full(len(triangles), part, np.uint8), cover[used].astype(np.float32)
    return Mesh(heads.vertices[used], lifted, triangles, kind, cover, used)


def _hair(heads: Heads, person: Person, view: View, vertices: np.ndarray, normals: np.ndarray) -> list[Mesh]:
    rest = heads.vertices
    above = rest[:, 1] - hairline(rest, person, age_of(person, view))
    scalp = (heads.masks[:, MASKS.index("ears")] < 0.3) & (rest[:, 1] > 6.7)
    if view.occlusion == "beanie":
        cover = np.where(scalp & (rest[:, 1] > 7.55), 1.0, 0.0)
        return [shell(heads, vertices, normals, 0.13 * smoothstep(rest[:, 1], 7.4, 7.9) + 0.06, cover, CLOTH)]
    if person.hair_style == "bald":
        return []
    cover = np.where(scalp, hair_cover(above), 0)
    top, sides = _thickness(person, view)
    crown = smoothstep(rest[:, 1], 7.5, 8.3)
    height = (sides + (top - sides) * crown) * smoothstep(cover, 0.2, 1.0) + 0.006
    parts = [shell(heads, vertices, normals, height, cover, HAIR)]
    if person.hair_style in ("bob", "long", "long parted", "long fringe"):
        parts.append(_curtain(heads, person, vertices))
    return parts


def _thickness(person: Person, view: View) -> tuple[float, float]:
    """Return the lengths of the hair on the top and on the sides, in decimetres."""
    top, sides = {
        "cropped": (0.05, 0.03),
        "short": (0.16, 0.08),
        "quiff": (0.3, 0.07),
        "side parting": (0.22, 0.1),
        "fringe": (0.18, 0.11),
        "bob": (0.18, 0.16),
        "long": (0.15, 0.14),
        "long parted": (0.12, 0.13),
        "long fringe": (0.17, 0.14),
        "tied back": (0.09, 0.06),
    }[person.hair_style]
    factor = 0.7 + 0.7 * person.volume + 0.5 * person.waves * (person.ancestry["african"] > 0.5)
    factor *= np.exp(0.08 * view.messy)
    return top * factor, sides * factor


def _curtain(heads: Heads, person: Person, vertices: np.ndarray) -> Mesh:
    """Return long hair that hangs from the head's sides and back: a grid of columns, seen from both sides."""
    columns, rows = 44, 14
    start = 56 + 14 * person.parting**2
    azimuths = np.radians(np.linspace(start, 360 - start, columns))
    end = (6.45 - 0.3 * person.length) if person.hair_style == "bob" else (5.7 - 1.0 * person.length)
    share = np.linspace(0, 1, rows) ** 0.85
    heights = 7.95 + share * (end - 7.95)
    outward = np.stack([np.sin(azimuths), np.zeros(columns), np.cos(azimuths)], axis=1)
    # The columns hang from the head where it is widest: the radius of a smooth egg around it.
    radius = 0.92 + 0.14 * np.clip(-np.cos(azimuths), 0, 1) + 0.1 * person.volume
    waves = 0.03 * person.waves * np.sin(9 * share[:, None] * (1 + person.waves) + 3 * azimuths)
    swell = 0.1 * np.sin(np.pi * np.clip(1.2 * share, 0, 1)) - 0.22 * np.clip(share - 0.4, 0, 1)
    profile = 1 - 0.22 * (1 - smoothstep(-heights, -7.95, -7.45))
    reach = radius * profile[:, None] + swell[:, None] * 0.7 + waves
    rest = outward * reach[..., None] + [0, 0, AXIS - 0.1]
    rest[..., 1] = heights[:, None]
    rest = rest.reshape(-1, 3).astype(np.float32)
    scalp = np.flatnonzero((heads.part == SKIN) & (abs(heads.vertices[:, 1] - 7.7) < 0.25))
    angles = np.angle(np.exp(1j * (azimuth(heads.vertices[scalp])[None] - azimuths[:, None])))
    anchor = scalp[np.abs(angles).argmin(1)]
    vertices = (rest + np.tile(vertices[anchor] - heads.vertices[anchor], (rows, 1))).astype(np.float32)
    cell = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)).ravel()
    quads = np.stack([cell, cell + columns, cell + columns + 1, cell + 1], axis=1)
    outer = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    triangles = np.concatenate([outer, outer[:, ::-1]]).astype(np.int32)
    edge = np.minimum(np.arange(columns), np.arange(columns)[::-1]) / 3
    cover = np.clip(edge, 0.35, 1)[None] * (1 - smoothstep(share, 0.8, 1.0) * 0.75)[:, None]
    cover, part = cover.ravel().astype(np.float32), np.full(len(triangles), HAIR, np.uint8)
    return Mesh(rest, vertices, triangles, part, cover, np.tile(anchor, rows))


def beard_cover(rest: np.ndarray, lips: np.ndarray, beard: str) -> np.ndarray:
    """Return the density of a kind of beard at places of the base mesh, 0..1."""
    x, y = np.abs(rest[:, 0]), rest[:, 1]
    degrees = np.degrees(np.abs(azimuth(rest)))
    line = np.interp(degrees, [0, 14, 24, 40, 60, 72, 80], [6.5, 6.62, 6.72, 6.68, 6.85, 7.2, 7.2])
    jaw = smoothstep(line - y, 0, 0.1) * smoothstep(y, 5.98, 6.15) * smoothstep(-degrees, -88, -80)
    moustache = smoothstep(y, 6.66, 6.72) * smoothstep(-y, -6.86, -6.82) * smoothstep(-x, -0.34, -0.24)
    sides = smoothstep(x, 0.24, 0.29) * smoothstep(-x, -0.42, -0.34) * smoothstep(y, 6.3, 6.4)
    sides = sides * smoothstep(-y, -6.78, -6.7)
    chin = jaw * smoothstep(-x, -0.3, -0.2)
    zones = {
        "none": 0 * jaw,
        "moustache": moustache,
        "goatee": np.maximum.reduce([moustache, sides, chin]),
        "stubble": np.maximum.reduce([moustache, sides, jaw]),
        "full": np.maximum.reduce([moustache, sides, jaw]),
    }
    return zones[beard] * (1 - smoothstep(lips, 0.1, 0.4))


def _beard(heads: Heads, person: Person, view: View, vertices: np.ndarray, normals: np.ndarray) -> list[Mesh]:
    hidden = view.occlusion == "scarf" or age_of(person, view) < 18
    if hidden or person.beard in ("none", "stubble"):
        return []
    lips = heads.masks[:, MASKS.index("lips")] + heads.masks[:, MASKS.index("inside-mouth")]
    ears = heads.masks[:, MASKS.index("ears")] > 0.05
    cover = np.where(ears, 0, beard_cover(heads.vertices, lips, person.beard))
    height = (0.015 + (0.03 + 0.08 * person.length) * smoothstep(-heads.vertices[:, 1], -6.6, -6.2)) * cover
    return [shell(heads, vertices, normals, height, cover, BEARD)]


def _scarf(heads: Heads, view: View, vertices: np.ndarray, normals: np.ndarray) -> list[Mesh]:
    if view.occlusion != "scarf":
        return []
    y = heads.vertices[:, 1]
    upper = 6.75 + 0.12 * np.tanh(view.messy)
    cover = np.where((y < upper) & (heads.masks[:, MASKS.index("inside-mouth")] < 0.3), 1.0, 0.0)
    return [shell(heads, vertices, normals, 0.1 + 0.1 * smoothstep(-y, -6.3, -5.9), cover, CLOTH)]


def rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Return the matrix (3, 3) that turns a head: pitch first, then yaw, then roll; degrees, as in View."""
    yaw, pitch, roll = np.radians([yaw, -pitch, -roll])
    c, s = np.cos, np.sin
    about_x = np.array([[1, 0, 0], [0, c(pitch), -s(pitch)], [0, s(pitch), c(pitch)]])
    about_y = np.array([[c(yaw), 0, s(yaw)], [0, 1, 0], [-s(yaw), 0, c(yaw)]])
    about_z = np.array([[c(roll), -s(roll), 0], [s(roll), c(roll), 0], [0, 0, 1]])
    return (about_z @ about_y @ about_x).astype(np.float32)


class Camera(NamedTuple):
    """Perspective of one picture."""

    scale: float  # pixels per decimetre in the plane of the face's centre
    distance: float  # decimetres from that plane
    centre: np.ndarray  # (3,): of the face, in the camera's axes
    middle: tuple[float, float]  # column and row of that centre in the picture

    def project(self, places: np.ndarray) -> np.ndarray:
        """Return column, row and depth (decimetres, larger: nearer) of places (n, 3) in the camera's axes."""
        x, y, z = (places - self.centre).T
        factor = self.scale * self.distance / np.maximum(self.distance - z, 0.5)
        places = np.stack([self.middle[0] + x * factor, self.middle[1] - y * factor, z], axis=1)
        return places.astype(np.float32)


def pose(rest: np.ndarray, places: np.ndarray, pivot: np.ndarray, view: View) -> np.ndarray:
    """Turn the head about `pivot`, the shoulders less, the neck between; float32 (n, 3)."""
    head = rotation(view.yaw, view.pitch, view.roll)
    body = rotation(view.shoulders * view.yaw, 0, 0.3 * view.roll)
    share = smoothstep(rest[:, 1], 5.7, 6.35)[:, None].astype(np.float32)
    centred = places - pivot
    return share * (centred @ head.T) + (1 - share) * (centred @ body.T)


def camera_for(points: np.ndarray, posed: np.ndarray, view: View) -> Camera:
    """Frame the face: `points` before the pose (5, 3), which fix the scale, and `posed`."""
    spread = points - points.mean(0)
    scale = SPREAD / np.sqrt((spread[:, :2] ** 2).sum(1).mean())
    return Camera(float(scale), view.distance, posed.mean(0), (SIZE[1] / 2 - 0.5, SIZE[0] * 0.54))
