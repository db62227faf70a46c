"""One picture of one person: geometry, z-buffer, and light computed for each pixel."""

from __future__ import annotations

from typing import NamedTuple, Tuple

import cv2
import numpy as np

from latse.data.synth import scene, shape, skin
from latse.data.synth.heads import EYE, SKIN, TEETH, TONGUE, Heads
from latse.data.synth.people import Person, View
from latse.data.synth.raster import Fragments, fragments, interpolate, nearest
from latse.data.synth.shape import BEARD, CLOTH, HAIR, SIZE, Mesh, smoothstep
from latse.data.synth.skin import linear

NECKLINE = 5.75  # height in the base mesh where clothes begin


# Linear colour (p, 3), strength of broad and of narrow highlights (p, 2), normals (p, 3).
Painted = Tuple[np.ndarray, np.ndarray, np.ndarray]


class Photo(NamedTuple):
    """A picture and where the face is in it."""

    image: np.ndarray  # uint8 (256, 256, 3) RGB
    points: np.ndarray  # float64 (5, 2): (x, y) in pixels, in the order of align.POINTS


class Surface(NamedTuple):
    """Values at the p pixels that show the head."""

    rest: np.ndarray  # float32 (p, 3): place in the base mesh
    normal: np.ndarray  # float32 (p, 3), of unit length, in the camera's axes
    part: np.ndarray  # uint8 (p,)
    masks: np.ndarray  # float32 (p, 5), in the order of heads.MASKS
    open: np.ndarray  # float32 (p,) in 0..1: how much of the surroundings the place sees
    lit: np.ndarray  # float32 (p,) in 0..1: how much of the main light reaches it


def render(heads: Heads, person: Person, view: View) -> Photo:
    """Draw `person` as `view` says; the same arguments give the same bytes."""
    mesh, points, ears = shape.build(heads, person, view)
    pivot = points.mean(0) - np.array([0, 0.75, 1.1], np.float32)
    posed = shape.pose(mesh.rest, mesh.vertices, pivot, view)
    on_head = np.full((1, 3), 8, np.float32)  # above the neck: turns with the head
    posed_points = shape.pose(on_head, points, pivot, view)
    camera = shape.camera_for(points, posed_points, view)
    projected = camera.project(posed)

    random = np.random.default_rng([view.seed, 3])
    image = scene.background(random, SIZE)
    drawn = fragments(projected, mesh.triangles, SIZE)
    drawn = drawn.take(_strands_kept(mesh, drawn, person, view))
    winner = nearest(drawn, SIZE)
    pixels = np.flatnonzero(winner >= 0)
    drawn = drawn.take(winner[pixels])
    surface = _surface(heads, mesh, posed, drawn, view)
    colour = _shade(heads, person, view, surface)
    image.reshape(-1, 3)[pixels] = colour

    depth = np.full(SIZE[0] * SIZE[1], -np.inf, np.float32)
    depth[pixels] = drawn.depth

    def project(places: np.ndarray) -> np.ndarray:
        return camera.project(shape.pose(on_head, places, pivot, view))

    marks = scene.Landmarks(points, ears, depth.reshape(SIZE))
    scene.occlude(image, random, person, view, project, marks)
    image = scene.develop(image, random, view, shape.ENLARGEMENT)
    return Photo(image, camera.project(posed_points)[:, :2].astype(np.float64))


def drawn_occlusion(person: Person, view: View) -> str:
    """Return what `render` draws over the face."""
    random = np.random.default_rng([view.seed, 3])
    if person.glasses:  # whether they are worn is drawn after the background
        scene.background(random, SIZE)
    return scene.occlusion_of(random, person, view)


def _strands_kept(mesh: Mesh, drawn: Fragments, person: Person, view: View) -> np.ndarray:
    """Return which fragments stay: hair is full of gaps where it is thin."""
    kept = np.ones(len(drawn.pixel), bool)
    part = mesh.part[drawn.triangle]
    hairy = np.flatnonzero((part == HAIR) | (part == BEARD))
    if len(hairy):
        some = drawn.take(hairy)
        values = interpolate(np.concatenate([mesh.rest, mesh.cover[:, None]], axis=1), mesh.triangles, some)
        noise = _strand_noise(values[:, :3], part[hairy], person, 7)
        kept[hairy] = values[:, 3] > 0.2 + 0.17 * noise
    return kept


def _strand_noise(rest: np.ndarray, part: np.ndarray, person: Person, salt: int) -> np.ndarray:
    """Return the noise in -1..1 that varies across strands of hair much more than along them, (p,)."""
    random = np.random.default_rng([person.texture_seed, salt])
    curly = person.waves > 0.55 and person.ancestry["african"] > 0.4
    tile = random.standard_normal((96 if curly else 20, 256), dtype=np.float32)
    tile = cv2.GaussianBlur(np.clip(tile, -2, 2), (0, 0), 0.8)
    tile /= np.abs(tile).max()
    across, along = _strand_coordinates(rest, person)
    across = across * 80 + 6 * person.waves * np.sin(5 * along)
    short = part == BEARD
    across = np.where(short, rest[:, 0] * 150, across)
    along = np.where(short, rest[:, 1] * 5 + rest[:, 0], along) * (tile.shape[0] / 6)
    return skin.sample(tile, _mirrored(across, tile.shape[1] - 1), _mirrored(along, tile.shape[0] - 1))


def _mirrored(place: np.ndarray, length: int) -> np.ndarray:
    """Return the places on an endless row of tiles that alternate with their mirror images."""
    return np.abs(np.mod(place, 2 * length) - length)


def _strand_coordinates(rest: np.ndarray, person: Person) -> tuple[np.ndarray, np.ndarray]:
    """Return the coordinates across and along the strands, in radians and decimetres."""
    x, y, z = rest.T
    around = np.arctan2(x - 0.25 * person.parting * smoothstep(y, 7.7, 8.2), z - shape.AXIS + 0.3)
    if person.hair_style in ("quiff", "tied back"):  # combed backwards
        return np.arctan2(x, np.maximum(y - 7.2, 0.05)) * 1.3, z * 1.2
    if person.hair_style == "side parting":  # combed sideways on the top
        top = smoothstep(y, 7.8, 8.15)
        return np.where(top > 0.5, z * 1.6, around), np.where(top > 0.5, x, y)
    return around, y


def _surface(heads: Heads, mesh: Mesh, posed: np.ndarray, drawn: Fragments, view: View) -> Surface:
    normals = shape.vertex_normals(posed, mesh.triangles)
    light = np.array(view.light, np.float32) @ shape.rotation(view.yaw, view.pitch, view.roll)
    lit = _towards(heads, light, 14.0)
    openness = _towards(heads, np.array([0, 0.35, 0.25], np.float32), 1.2)
    per_vertex = np.stack([openness, lit], axis=1)[mesh.source]
    values = np.concatenate([mesh.rest, normals, heads.masks[mesh.source], per_vertex], axis=1)
    values = interpolate(values.astype(np.float32), mesh.triangles, drawn)
    normal = values[:, 3:6]
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-6)
    part = mesh.part[drawn.triangle]
    return Surface(values[:, :3], normal, part, values[:, 6:11], values[:, 11], values[:, 12])


def _towards(heads: Heads, direction: np.ndarray, sharpness: float) -> np.ndarray:
    """Share of the baked directions near `direction` that each vertex of the heads sees, (n,)."""
    weights = np.exp(sharpness * (heads.directions @ direction - 1))
    return heads.visible @ (weights / weights.sum())


def _shade(heads: Heads, person: Person, view: View, surface: Surface) -> np.ndarray:
    """Return the colour of every pixel of the head, sRGB float32 (p, 3)."""
    albedo = np.zeros((len(surface.part), 3), np.float32)
    gloss = np.zeros((len(surface.part), 2), np.float32)  # broad and narrow highlights
    normal = surface.normal
    for parts, paint in _PAINTERS:
        chosen = np.flatnonzero(np.isin(surface.part, parts))
        if len(chosen):
            some = Surface(*(values[chosen] for values in surface))
            albedo[chosen], gloss[chosen], normal[chosen] = paint(heads, person, view, some)
    warmth = np.array([1 + 0.22 * view.light_warmth, 1, 1 - 0.3 * view.light_warmth], np.float32)
    light = np.array(view.light, np.float32)
    facing = normal @ light
    bleeding = np.where((surface.part == SKIN)[:, None], np.array([0.3, 0.16, 0.1], np.float32), 0.1)
    diffuse = np.clip((facing[:, None] + bleeding) / (1 + bleeding), 0, None)
    diffuse *= _bled(surface.lit, bleeding)
    sky = 0.62 + 0.3 * normal[:, 1:2] + 0.12 * normal[:, 2:3]
    open_ = _bled(np.clip(surface.open * 1.25, 0, 1) ** 1.3, bleeding)
    energy = view.light_strength * diffuse * warmth + view.ambient * sky * open_ * (2 - warmth)
    half = light + np.array([0, 0, 1], np.float32)
    shine = np.clip(normal @ (half / np.linalg.norm(half)), 0, 1)
    rim = (1 - np.clip(normal[:, 2], 0, 1)) ** 4
    specular = view.light_strength * surface.lit * (gloss[:, 0] * shine**18 + gloss[:, 1] * shine**90)
    specular += gloss[:, 0] * 0.5 * rim * view.ambient * surface.open
    colour = albedo * energy + specular[:, None] * warmth
    exposure = 0.95 * view.exposure * (0.35 / (0.1 + linear(person.skin).mean())) ** 0.22
    return _tone(colour * exposure)


def _bled(light: np.ndarray, bleeding: np.ndarray) -> np.ndarray:
    """Light (p,) that skin spreads into its shadows, more of the red: (p, 3)."""
    light = light[:, None]
    return light + bleeding * light * (1 - light)


def _tone(colour: np.ndarray) -> np.ndarray:
    """Convert linear light to sRGB, with highlights that roll off instead of clipping."""
    colour = np.where(colour > 0.7, 0.7 + 0.3 * (1 - np.exp(-(colour - 0.7) / 0.3)), colour)
    return np.clip(colour, 0, 1) ** np.float32(1 / 2.2)


def _paint_skin(heads: Heads, person: Person, view: View, at: Surface) -> Painted:
    lips, lids, ears, inside, edge = at.masks.T
    years = shape.age_of(person, view)
    colour = skin.colour_at(heads, person, years, at.rest)
    make_up = person.make_up * float(smoothstep(np.float32(years), 13, 19))
    lips = smoothstep(lips, 0.25, 0.75)[:, None]
    lip_colour = linear(np.array(person.lips) * (1 - make_up * np.array([0.02, 0.2, 0.14])))
    colour = colour * (1 - lips + lips * lip_colour)
    ears = (0.35 * person.blush + 0.15) * smoothstep(ears, 0.3, 1)[:, None]
    colour = colour * (1 - ears * np.array([0, 0.5, 0.45], np.float32))
    colour = colour * (1 - 0.15 * make_up * smoothstep(lids, 0.3, 0.9)[:, None])
    lashes = (0.45 + 0.4 * make_up) * smoothstep(edge, 0.2, 0.8) * smoothstep(at.rest[:, 1], 7.22, 7.3)
    colour = colour * (1 - np.maximum(lashes, 0.3 * edge)[:, None])
    colour = colour * (1 - smoothstep(inside, 0.4, 0.9)[:, None] * np.array([0.75, 0.9, 0.9], np.float32))
    if person.hair_style != "bald" and view.occlusion != "beanie":
        roots = shape.hair_cover(at.rest[:, 1] - shape.hairline(at.rest, person, years))[:, None]
        colour = colour + 0.85 * roots * (0.7 * linear(person.hair) - colour) * (at.masks[:, 2:3] < 0.3)
    dressed = smoothstep(-at.rest[:, 1], -NECKLINE - 0.02, -NECKLINE + 0.02)[:, None]
    colour = colour + dressed * (linear(view.clothes) - colour)
    oily = np.exp(-(at.rest[:, 0] ** 2) / 0.1) * smoothstep(at.rest[:, 1], 6.8, 7.9)
    broad = (0.03 + 0.03 * oily + 0.06 * lips[:, 0] * (0.4 + make_up)) * (1 - dressed[:, 0])
    return colour, np.stack([broad, 1.4 * broad], axis=1), at.normal


def _paint_eye(heads: Heads, person: Person, view: View, at: Surface) -> Painted:
    """Colour white, iris and pupil by the angle from the gaze; the eyeball is a sphere in the base mesh."""
    eyes = heads.part == EYE
    side = np.sign(at.rest[:, :1])
    centre = heads.vertices[eyes & (heads.vertices[:, 0] > 0)].mean(0)
    outward = at.rest - centre * np.concatenate([side, np.ones((len(side), 2))], axis=1)
    outward /= np.linalg.norm(outward, axis=1, keepdims=True)
    gaze = shape.rotation(view.gaze[0], view.gaze[1], 0)[:, 2]
    angle = np.degrees(np.arccos(np.clip(outward @ gaze, -1, 1)))
    iris = smoothstep(-angle, -26.5, -24)[:, None]
    pupil = smoothstep(-angle, -10.5, -8.5)[:, None]
    rays = np.arctan2(outward[:, 1] - gaze[1], outward[:, 0] - gaze[0])
    grain = 1 + 0.22 * np.sin(11 * rays + 3 * np.sin(5 * rays)) + 0.25 * (angle - 16) / 8 * (angle < 21)
    ring = 1 - 0.6 * smoothstep(angle, 21, 26)
    white = np.array([0.56, 0.5, 0.47], np.float32) * (1 - 0.004 * np.clip(angle - 40, 0, 40))[:, None]
    colour = white + iris * (linear(person.iris) * (grain * ring)[:, None] * 1.3 - white)
    colour = colour * (1 - 0.97 * pupil)
    normal = outward @ shape.rotation(view.yaw, view.pitch, view.roll).T
    under_lid = 0.55 + 0.45 * smoothstep(-at.rest[:, 1], -7.345, -7.30)
    gloss = np.stack([np.full(len(at.part), 0.02), 0.9 * np.ones(len(at.part))], axis=1)
    return (colour * under_lid[:, None]).astype(np.float32), gloss, normal


def _paint_hair(heads: Heads, person: Person, view: View, at: Surface) -> Painted:
    years = shape.age_of(person, view)
    noise = _strand_noise(at.rest, at.part, person, 8)
    fine = _strand_noise(at.rest * 1.7, at.part, person, 9)
    grey = smoothstep(np.float32(years) + 16 * fine, person.greying - 8, person.greying + 22)[:, None]
    colour = linear(person.hair) * (1 - grey) + np.array([0.42, 0.41, 0.4], np.float32) * grey
    colour = colour * (1 + 0.32 * noise + 0.25 * fine)[:, None]
    gloss = (0.04 * (1 + noise) * (at.part == HAIR))[:, None] * np.array([1.0, 0.5], np.float32)
    normal = at.normal + 0.25 * noise[:, None] * np.array([1, 0, 0], np.float32)
    return colour, gloss, normal / np.linalg.norm(normal, axis=1, keepdims=True)


def _paint_mouth(heads: Heads, person: Person, view: View, at: Surface) -> Painted:
    teeth = (at.part == TEETH)[:, None]
    colour = np.where(teeth, np.array([0.66, 0.6, 0.5], np.float32), np.array([0.4, 0.12, 0.11], np.float32))
    back = smoothstep(at.rest[:, 2], 1.15, 1.45)[:, None] * 0.8 + 0.2
    return colour * back, np.full((len(at.part), 2), 0.1, np.float32), at.normal


def _paint_cloth(heads: Heads, person: Person, view: View, at: Surface) -> Painted:
    knit = 0.85 + 0.15 * np.sin(at.rest[:, 1] * 70) * np.sin(shape.azimuth(at.rest) * 60)
    return linear(view.clothes) * knit[:, None], np.zeros((len(at.part), 2), np.float32), at.normal


_PAINTERS = (
    ((SKIN,), _paint_skin),
    ((EYE,), _paint_eye),
    ((HAIR, BEARD), _paint_hair),
    ((TEETH, TONGUE), _paint_mouth),
    ((CLOTH,), _paint_cloth),
)
