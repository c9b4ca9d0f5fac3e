"""Synthetic shapes with known corners, the first training data of SuperPoint (arXiv 1712.07629, section 4).

Polygons, stars, line segments, cubes, checkerboards and stripes have keypoints at their corners, ends and junctions.
Ellipses and noise have none. Shapes do not overlap, so that no junction is without a label.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np

FRACTION_BITS = 4
"""Number of fractional bits of coordinates in the drawing functions of OpenCV."""

LEAST_CONTRAST = 45
"""Difference of neighbouring surfaces [grey values]; less would disappear in noise."""

LEAST_RADIUS = 12
"""Range of radii of a single shape [px]."""

TRIALS = 20
"""Attempts to draw a shape whose corners are all visible."""

SHARPEST, BLUNTEST = np.cos(np.deg2rad(22)), np.cos(np.deg2rad(150))
"""Cosines of the angles of corners. A sharper corner has no visible position, a blunter angle is not a corner."""


class ShapeImage(NamedTuple):
    """A drawing and the places of its keypoints."""

    image: np.ndarray  # uint8 (H, W)
    keypoints: np.ndarray  # (N, 2) float64, x, y [px]


def shape_image(size: tuple[int, int], rng: np.random.Generator) -> ShapeImage:
    """Return a random drawing of `size` (height, width): single shapes, one large pattern, or noise."""
    kind = rng.random()
    if kind < 0.05:
        return ShapeImage(_noise(size, rng), np.empty((0, 2)))
    canvas = Canvas(size, rng)
    if kind < 0.3:
        canvas.add_pattern(_checkerboard)
    elif kind < 0.4:
        canvas.add_pattern(_stripes)
    else:
        for _ in range(int(rng.integers(10, 60))):
            canvas.add(SHAPES[rng.choice(len(SHAPES), p=SHARES)])
    return ShapeImage(canvas.image, canvas.keypoints)


class Surface(NamedTuple):
    """A polygon, or a polyline of some thickness, of one grey value."""

    points: np.ndarray  # (K, 2)
    grey: float
    thickness: int = 0  # [px], 0 = filled


class Shape(NamedTuple):
    """Parts that are drawn together."""

    surfaces: list[Surface]
    keypoints: np.ndarray  # (N, 2)


class Canvas:
    """A drawing to which shapes are added."""

    def __init__(self, size: tuple[int, int], rng: np.random.Generator):
        self.size, self.rng = size, rng
        self.grey = float(rng.uniform(20, 235))
        self.image = _background(size, self.grey, rng)
        self.occupied = np.zeros(size, np.uint8)
        self.keypoints = np.empty((0, 2))

    def add(self, make: Callable[[np.ndarray, float, float, np.random.Generator], Shape | None]) -> None:
        """Draw a shape at a random place; leave it out if it would touch another or is degenerate."""
        height, width = self.size
        radius = max(LEAST_RADIUS, min(self.size) * self.rng.uniform(0.04, 0.2))
        centre = self.rng.uniform((0.05 * width, 0.05 * height), (0.95 * width, 0.95 * height))
        shape = make(centre, radius, self.grey, self.rng)
        if shape is None:
            return
        mask = np.zeros(self.size, np.uint8)
        for surface in shape.surfaces:
            _draw(mask, surface._replace(grey=255))
        mask = cv2.dilate(mask, np.ones((9, 9), np.uint8))
        if not (mask & self.occupied).any():
            self.occupied |= mask
            self._draw(shape)

    def add_pattern(self, make: Callable[[tuple[int, int], float, np.random.Generator], Shape]) -> None:
        """Draw a pattern that may fill the image."""
        self._draw(make(self.size, self.grey, self.rng))

    def _draw(self, shape: Shape) -> None:
        for surface in shape.surfaces:
            _draw(self.image, surface)
        inside = ((shape.keypoints >= 0) & (shape.keypoints <= np.array(self.size[::-1]) - 1)).all(axis=1)
        self.keypoints = np.concatenate([self.keypoints, shape.keypoints[inside]])


# --- Single shapes: of a centre (2,) and a radius [px], on a ground of some grey value -------------------------------


def _polygon(centre, radius, ground, rng) -> Shape | None:
    """A triangle, a quadrilateral, or up to six corners."""
    count = int(rng.choice([3, 4, 4, 5, 6]))
    angles = rng.uniform(0, 2 * np.pi) + 2 * np.pi * (np.arange(count) + rng.uniform(-0.3, 0.3, count)) / count
    corners = centre + radius * _directions(angles) * rng.uniform(0.55, 1, (count, 1))
    if not _are_corners(corners):
        return None
    if rng.random() < 0.25:  # its outline
        closed = np.concatenate([corners, corners[:1]])
        return Shape([Surface(closed, _contrast(ground, rng), _thickness(radius, rng))], corners)
    return Shape([Surface(corners, _contrast(ground, rng))], corners)


def _star(centre, radius, ground, rng) -> Shape:
    """Line segments from one junction."""
    count = int(rng.integers(3, 7))
    angles = rng.uniform(0, 2 * np.pi) + 2 * np.pi * (np.arange(count) + rng.uniform(-0.2, 0.2, count)) / count
    ends = centre + radius * _directions(angles) * rng.uniform(0.5, 1, (count, 1))
    grey, thickness = _contrast(ground, rng), _thickness(radius, rng)
    lines = [Surface(np.stack([centre, end]), grey, thickness) for end in ends]
    return Shape(lines, np.concatenate([centre[None], ends]))


def _segment(centre, radius, ground, rng) -> Shape:
    """A line segment."""
    reach = radius * _directions(np.array([rng.uniform(0, np.pi)]))[0]
    ends = np.stack([centre - reach, centre + reach])
    return Shape([Surface(ends, _contrast(ground, rng), _thickness(radius, rng))], ends)


def _cube(centre, radius, ground, rng) -> Shape | None:
    """A box in parallel projection: three faces, seven visible corners."""
    for _ in range(TRIALS):
        turn = cv2.Rodrigues(rng.uniform(-np.pi, np.pi, 3))[0]
        edges = (turn * rng.uniform(0.5, 1, 3))[:2].T * radius  # (3, 2), the images of the three edges at one corner
        following = np.roll(edges, -1, axis=0)
        faces = [np.array([np.zeros(2), a, a + b, b]) for a, b in zip(edges, following, strict=True)]
        cross = edges[:, 0] * following[:, 1] - edges[:, 1] * following[:, 0]
        # The faces have the same orientation around the corner, so they do not hide each other.
        if ((cross > 0).all() or (cross < 0).all()) and all(_are_corners(face) for face in faces):
            break
    else:
        return None
    greys = _distinct(3, ground, rng)
    surfaces = [Surface(centre + face, grey) for face, grey in zip(faces, greys, strict=True)]
    return Shape(surfaces, centre + np.concatenate([np.zeros((1, 2)), edges, edges + following]))


def _ellipse(centre, radius, ground, rng) -> Shape:
    """An ellipse, which has no corner."""
    angles = np.linspace(0, 2 * np.pi, 90, endpoint=False)
    round_points = _directions(angles) * radius * [1, rng.uniform(0.35, 1)]
    turn = rng.uniform(0, np.pi)
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return Shape([Surface(centre + round_points @ matrix.T, _contrast(ground, rng))], np.empty((0, 2)))


SHAPES = (_polygon, _star, _segment, _cube, _ellipse)
SHARES = (0.45, 0.12, 0.13, 0.15, 0.15)


# --- Patterns that may fill the image -------------------------------------------------------------------------------


def _checkerboard(size, ground, rng) -> Shape:
    """Squares of two grey values that vary a little, under a random perspective."""
    return _grid(size, ground, rng, rows=int(rng.integers(3, 9)), columns=int(rng.integers(3, 9)))


def _stripes(size, ground, rng) -> Shape:
    """One row of bars of different widths."""
    return _grid(size, ground, rng, rows=1, columns=int(rng.integers(4, 12)))


def _grid(size, ground, rng, rows: int, columns: int) -> Shape:
    places = [np.cumsum(np.concatenate([[0], rng.uniform(0.7, 1.3, count)])) for count in (columns, rows)]
    x, y = (place / place[-1] for place in places)
    nodes = np.stack(np.meshgrid(x, y), axis=-1).reshape(1, -1, 2)
    height, width = size
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * [width, height]
    moved = corners + rng.uniform(-0.22, 0.22, (4, 2)) * [width, height]
    matrix = cv2.getPerspectiveTransform(np.float32([[0, 0], [1, 0], [1, 1], [0, 1]]), moved.astype(np.float32))
    nodes = cv2.perspectiveTransform(nodes, matrix.astype(np.float64)).reshape(rows + 1, columns + 1, 2)
    levels = _distinct(2, ground, rng)
    surfaces = []
    for row in range(rows):
        for column in range(columns):
            quad = nodes[[row, row, row + 1, row + 1], [column, column + 1, column + 1, column]]
            surfaces.append(Surface(quad, levels[(row + column) % 2] + rng.uniform(-12, 12)))
    return Shape(surfaces, nodes.reshape(-1, 2))


# --- Shared functions-----------------------------------------------------------------------------------------------


def _draw(image: np.ndarray, surface: Surface) -> None:
    points = np.rint(surface.points * 2**FRACTION_BITS).astype(np.int32)
    grey = float(np.clip(surface.grey, 0, 255))
    if surface.thickness:
        cv2.polylines(image, [points], False, grey, surface.thickness, cv2.LINE_AA, FRACTION_BITS)
    else:
        cv2.fillPoly(image, [points], grey, cv2.LINE_AA, FRACTION_BITS)


def _background(size: tuple[int, int], grey: float, rng: np.random.Generator) -> np.ndarray:
    """Return uint8 (H, W) around `grey`: plain, or with smooth blotches and grain."""
    values = np.full(size, grey, np.float32)
    if rng.random() < 0.7:
        coarse = rng.normal(0, rng.uniform(0, 9), rng.integers(2, 8, 2)).astype(np.float32)
        values += cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)
    if rng.random() < 0.4:
        grain = rng.normal(0, rng.uniform(2, 14), size).astype(np.float32)
        values += cv2.GaussianBlur(grain, (0, 0), rng.uniform(0.5, 3))
    return np.clip(values, 0, 255).astype(np.uint8)


def _noise(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    values = rng.normal(128, rng.uniform(10, 60), size).astype(np.float32)
    return np.clip(cv2.GaussianBlur(values, (0, 0), rng.uniform(0.4, 2)), 0, 255).astype(np.uint8)


def _thickness(radius: float, rng: np.random.Generator) -> int:
    """Return the thickness of a line [px], thin against the size of its shape."""
    return int(rng.integers(2, max(3, round(radius / 5)) + 1))


def _directions(angles: np.ndarray) -> np.ndarray:
    return np.stack([np.cos(angles), np.sin(angles)], axis=-1)


def _are_corners(corners: np.ndarray) -> bool:
    """Return whether the angle at every corner of a polygon (K, 2) is a visible one."""
    before, after = np.roll(corners, 1, axis=0) - corners, np.roll(corners, -1, axis=0) - corners
    lengths = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
    cosine = (before * after).sum(axis=1) / np.maximum(lengths, 1e-9)
    return bool((cosine < SHARPEST).all() and (cosine > BLUNTEST).all() and np.linalg.norm(after, axis=1).min() > 10)


def _contrast(ground: float, rng: np.random.Generator) -> float:
    """Return a grey value that differs from `ground` by LEAST_CONTRAST or more."""
    while abs((grey := rng.uniform(0, 255)) - ground) < LEAST_CONTRAST:
        pass
    return float(grey)


def _distinct(count: int, ground: float, rng: np.random.Generator) -> np.ndarray:
    """Return up to 3 grey values that differ from each other and from `ground` by LEAST_CONTRAST where possible."""
    greys = rng.uniform(0, 255, count)
    for _ in range(50):
        gaps = np.diff(np.sort(np.append(greys, ground)))
        if gaps.min() >= LEAST_CONTRAST:
            break
        greys = rng.uniform(0, 255, count)
    return greys
