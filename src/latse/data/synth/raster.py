"""A z-buffer over many small triangles, in numpy: all candidate pixels at once, no loop over triangles."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

LEVELS = 65535  # depth is sorted as 16 bits, for which numpy has a radix sort


class Fragments(NamedTuple):
    """Pixels of triangles before the nearest of each pixel is chosen; all arrays have the same length m."""

    pixel: np.ndarray  # int (m,): row · width + column
    triangle: np.ndarray  # int (m,)
    weights: np.ndarray  # float32 (m, 3): barycentric, one for each corner of the triangle
    depth: np.ndarray  # float32 (m,): larger is nearer

    def take(self, keep: np.ndarray) -> Fragments:
        """Return the fragments chosen by a mask or by positions."""
        return Fragments(*(array[keep] for array in self))


def fragments(points: np.ndarray, triangles: np.ndarray, size: tuple[int, int]) -> Fragments:
    """Find every pixel whose centre lies in a triangle that faces the camera.

    Parameters
    ----------
    points : float32 (n, 3)
        Column, row in pixels (centres at whole numbers) and depth, larger is nearer.
    triangles : int (t, 3)
        Corners counter-clockwise as seen by the camera (with rows growing downwards).
    size : tuple of int
        Height and width of the picture in pixels.
    """
    height, width = size
    x, y = points[:, 0][triangles], points[:, 1][triangles]
    area = (x[:, 1] - x[:, 0]) * (y[:, 2] - y[:, 0]) - (x[:, 2] - x[:, 0]) * (y[:, 1] - y[:, 0])
    front = np.flatnonzero(area < -1e-6)
    x, y, area = x[front], y[front], area[front]
    left, right = np.ceil(x.min(1)).clip(0, None), np.floor(x.max(1)).clip(None, width - 1)
    top, bottom = np.ceil(y.min(1)).clip(0, None), np.floor(y.max(1)).clip(None, height - 1)
    seen = np.flatnonzero((right >= left) & (bottom >= top))
    left, top = left[seen], top[seen]
    columns = right[seen] - left + 1
    count = (columns * (bottom[seen] - top + 1)).astype(np.int32)
    which = np.repeat(np.arange(len(seen), dtype=np.int32), count)
    first = np.cumsum(count, dtype=np.int32) - count
    within = (np.arange(len(which), dtype=np.int32) - first[which]).astype(np.float32)
    row = np.floor((within + 0.5) / columns[which])
    column = within - row * columns[which] + left[which]
    row += top[which]
    # Weights are linear in column and row: a·column + b·row + c for the second and the third corner.
    x, y, inverse = x[seen], y[seen], 1 / area[seen]
    weights = []
    for after, before in ((2, 0), (0, 1)):
        a = (y[:, after] - y[:, before]) * inverse
        b = (x[:, before] - x[:, after]) * inverse
        c = -a * x[:, before] - b * y[:, before]
        weights.append(a[which] * column + b[which] * row + c[which])
    second, third = weights
    inside = np.flatnonzero((second >= -1e-4) & (third >= -1e-4) & (second + third <= 1.0001))
    second, third, triangle = second[inside], third[inside], front[seen[which[inside]]]
    weights = np.stack([1 - second - third, second, third], axis=1)
    depth = (points[:, 2][triangles[triangle]] * weights).sum(1)
    pixel = (row[inside] * width + column[inside]).astype(np.int32)
    return Fragments(pixel, triangle, weights, depth)


def nearest(drawn: Fragments, size: tuple[int, int]) -> np.ndarray:
    """Return the position of the nearest fragment of each pixel, int32 (height · width,), -1 for none."""
    winner = np.full(size[0] * size[1], -1, np.int32)
    if len(drawn.depth):
        low, high = drawn.depth.min(), drawn.depth.max()
        levels = ((drawn.depth - low) * (LEVELS / max(high - low, 1e-6))).astype(np.uint16)
        order = np.argsort(levels, kind="stable").astype(np.int32)
        winner[drawn.pixel[order]] = order  # of equal indices the last, hence the nearest, is kept
    return winner


def interpolate(values: np.ndarray, triangles: np.ndarray, drawn: Fragments) -> np.ndarray:
    """Return the values (n, k) of the corners, weighted at each fragment: float32 (m, k)."""
    corners = triangles[drawn.triangle]
    result = values[corners[:, 0]] * drawn.weights[:, :1]
    result += values[corners[:, 1]] * drawn.weights[:, 1:2]
    result += values[corners[:, 2]] * drawn.weights[:, 2:]
    return result
