"""Procedural textures: functions from a random generator to a uint8 (H, W, 3) image, blue first, without image files.

Textures of whole surfaces are tileable; posters, spines and signs are single pictures.
"""

from __future__ import annotations

import colorsys
import itertools

import cv2
import numpy as np

LETTERS = 'ABCDEFGHJKLMNPQRSTUVWXYZ'


def noise(
    rng: np.random.Generator, shape=(512, 512), coarsest: int = 4, octaves: int = 7, persistence: float = 0.6
) -> np.ndarray:
    """Return multi-octave noise, float32 `shape`, zero mean and unit deviation.

    A square with a power of two as its side (and as `coarsest`, the cells of the first octave) is tileable.
    """
    side = 1 << (max(shape) - 1).bit_length()
    total, weight = rng.standard_normal((coarsest, coarsest)).astype(np.float32), 1.0
    while len(total) < side:
        total = _double(total)
        weight *= persistence
        if len(total) < coarsest * 2**octaves:
            total += weight * rng.standard_normal(total.shape, np.float32)
    total = total[: shape[0], : shape[1]]
    return (total - total.mean()) / max(float(total.std()), 1e-6)


def _double(grid: np.ndarray) -> np.ndarray:
    """Enlarge a square grid to twice its side so that opposite edges still fit."""
    padded = cv2.copyMakeBorder(grid, 2, 2, 2, 2, cv2.BORDER_WRAP)
    return cv2.resize(padded, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)[4:-4, 4:-4]


def colour(rng: np.random.Generator, saturation=(0.2, 0.7), value=(0.35, 0.9), hue=(0.0, 1.0)) -> np.ndarray:
    """Return a random colour (blue, green, red), float32 0 to 255."""
    red, green, blue = colorsys.hsv_to_rgb(rng.uniform(*hue) % 1.0, rng.uniform(*saturation), rng.uniform(*value))
    return np.array([blue, green, red], np.float32) * 255


def plaster(rng: np.random.Generator, base=None, strength: float = 0.07) -> np.ndarray:
    """Painted wall: stains over a fine grain."""
    base = colour(rng, (0.05, 0.3), (0.65, 0.9)) if base is None else base
    stains = noise(rng, coarsest=2, octaves=4)
    grain = noise(rng, coarsest=64, octaves=3, persistence=0.9)
    return _finish(base * (1 + strength * (0.8 * stains + 0.7 * grain))[..., None])


def bricks(rng: np.random.Generator) -> np.ndarray:
    """Wall of bricks in running bond, eight courses a tile."""
    size, courses, per_course, joint = 512, 8, 4, 5
    base, mortar = colour(rng, (0.4, 0.65), (0.45, 0.7), (0.0, 0.07)), colour(rng, (0.0, 0.1), (0.6, 0.75))
    height, width = size // courses, size // per_course
    image = np.empty((size, size, 3), np.float32)
    image[:] = mortar
    for row in range(courses):
        for column in range(per_course):
            brick = base * rng.uniform(0.65, 1.25) * rng.uniform(0.92, 1.08, 3)
            left = column * width + (width // 2 if row % 2 else 0)
            columns = np.arange(left + joint, left + width) % size
            image[row * height + joint : (row + 1) * height, columns] = brick
    shade = 1 + 0.09 * noise(rng, coarsest=16, octaves=5, persistence=0.8)
    return _finish(image * shade[..., None])


def grain(rng: np.random.Generator, base=None) -> np.ndarray:
    """Wood with its grain along the rows: distorted rings, pores and a few knots."""
    base = colour(rng, (0.4, 0.65), (0.4, 0.75), (0.05, 0.1)) if base is None else base
    size = 512
    rows = np.linspace(0, 1, size, endpoint=False, dtype=np.float32)[:, None]
    bend = cv2.resize(noise(rng, coarsest=2, octaves=4)[:, ::4], (size, size), interpolation=cv2.INTER_CUBIC)
    bend = (bend + bend[:, ::-1]) / 2  # periodic along the row
    rings = np.sin(2 * np.pi * (7 * rows + 0.35 * bend))
    pores = cv2.blur(noise(rng, coarsest=128, octaves=3, persistence=1.0), (41, 1), borderType=cv2.BORDER_REFLECT)
    pores /= max(float(pores.std()), 1e-6)
    return _finish(base * (1 + 0.10 * rings + 0.07 * pores + 0.05 * bend)[..., None])


def planks(rng: np.random.Generator, base=None) -> np.ndarray:
    """Parquet: six rows of planks, each cut from a different part of the wood."""
    wood = grain(rng, base).astype(np.float32)
    size, rows = 512, 6
    edges = np.linspace(0, size, rows + 1).astype(int)
    image = np.empty_like(wood)
    for top, bottom in itertools.pairwise(edges):
        cuts = int(rng.integers(0, size)) + np.array([0, rng.integers(150, 260), size])
        for start, stop in itertools.pairwise(cuts):
            columns = np.arange(start, stop) % size
            piece = np.roll(wood, tuple(rng.integers(0, size, 2)), axis=(0, 1))[: bottom - top, : stop - start]
            image[top:bottom, columns] = piece * rng.uniform(0.72, 1.2)
            image[top:bottom, columns[:2]] *= 0.35
        image[top : top + 2] *= 0.35
    return _finish(image)


def tiles(rng: np.random.Generator, count: int = 4) -> np.ndarray:
    """Glazed tiles, some with an ornament, with joints."""
    size = 512
    pair = (colour(rng, (0.02, 0.15), (0.7, 0.9)), colour(rng, (0.1, 0.35), (0.35, 0.6), (0.0, 0.65)))
    image = np.empty((size, size, 3), np.float32)
    image[:] = colour(rng, (0, 0.1), (0.4, 0.6))
    side = size // count
    for row in range(count):
        for column in range(count):
            tile = np.empty((side - 6, side - 6, 3), np.float32)
            tile[:] = pair[(row + column) % 2] * rng.uniform(0.85, 1.12)
            if rng.random() < 0.35:
                _ornament(rng, tile, pair[(row + column + 1) % 2])
            image[row * side + 3 : (row + 1) * side - 3, column * side + 3 : (column + 1) * side - 3] = tile
    veins = np.exp(-((noise(rng, coarsest=4, octaves=6) * 4) ** 2))
    dirt = noise(rng, coarsest=8, octaves=6, persistence=0.8)
    return _finish(image * (1 - 0.15 * veins + 0.05 * dirt)[..., None])


class _Pen:
    """Draw with smooth edges into a float image: give a uint8 mask to draw on, then blend the ink with this mask."""

    def __init__(self, image: np.ndarray, ink):
        self._image, self._ink = image, np.asarray(ink, np.float32)
        self._mask = np.zeros(image.shape[:2], np.uint8)  # cv2 draws smooth edges and letters only on uint8

    def __enter__(self) -> np.ndarray:
        return self._mask

    def __exit__(self, *_) -> None:
        left, top, width, height = cv2.boundingRect(self._mask)
        window = (slice(top, top + height), slice(left, left + width))
        self._image[window] += (self._mask[window] / np.float32(255))[..., None] * (self._ink - self._image[window])


def _ornament(rng: np.random.Generator, tile: np.ndarray, ink: np.ndarray) -> None:
    """Draw a simple figure, turned at random, into a square tile."""
    side = len(tile)
    middle = np.array([side / 2, side / 2])
    corners = int(rng.integers(3, 7))
    angles = rng.uniform(0, 2 * np.pi) + 2 * np.pi * np.arange(corners) / corners
    points = middle + side * rng.uniform(0.25, 0.42) * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    radius = int(side * rng.uniform(0.06, 0.16))
    with _Pen(tile, ink) as pen:
        cv2.polylines(pen, [points.astype(np.int32)], True, 255, max(side // 16, 1), cv2.LINE_AA)
        cv2.circle(pen, (side // 2, side // 2), radius, 255, -1, cv2.LINE_AA)


def fabric(rng: np.random.Generator) -> np.ndarray:
    """Woven cloth with stripes and checks."""
    size = 512
    base, stripe = colour(rng, (0.3, 0.8), (0.3, 0.7)), colour(rng, (0.2, 0.8), (0.4, 0.95))
    image = np.empty((size, size, 3), np.float32)
    image[:] = base
    start = 0
    while start < size:
        width = int(rng.integers(8, 60))
        if rng.random() < 0.5:
            image[:, start : start + width] = 0.5 * image[:, start : start + width] + 0.5 * stripe
        if rng.random() < 0.5:
            image[start : start + width] = 0.6 * image[start : start + width] + 0.4 * stripe[::-1]
        start += width
    threads = np.arange(size)
    weave = np.where((threads[:, None] // 4 + threads[None] // 4) % 2, 1.08, 0.92)
    return _finish(image * (weave + 0.07 * noise(rng, coarsest=16, octaves=5))[..., None])


def carpet(rng: np.random.Generator) -> np.ndarray:
    """Rug with a border and figures, a single picture."""
    image = np.empty((384, 512, 3), np.float32)
    image[:] = colour(rng, (0.4, 0.8), (0.3, 0.6))
    inks = [colour(rng, (0.3, 0.8), (0.4, 0.95)) for _ in range(4)]
    for inset, ink in zip((12, 26, 46), inks, strict=False):
        cv2.rectangle(image, (inset, inset), (511 - inset, 383 - inset), ink.tolist(), int(rng.integers(3, 9)))
    for top in range(64, 320 - 32, 64):
        for left in range(64, 448 - 32, 64):
            _ornament(rng, image[top : top + 64, left : left + 64], inks[int(rng.integers(4))])
    pile = noise(rng, (384, 512), coarsest=32, octaves=3, persistence=0.9)
    return _finish(image * (1 + 0.08 * pile)[..., None])


def poster(rng: np.random.Generator, width: int = 360, height: int = 480) -> np.ndarray:
    """Framed picture: a landscape, a chart of shapes, or a page of large letters."""
    image = np.empty((height, width, 3), np.float32)
    kind = rng.integers(3)
    if kind == 0:
        _landscape(rng, image)
    else:
        image[:] = colour(rng, (0.05, 0.6), (0.7, 1.0))
        for _ in range(int(rng.integers(7, 14))):
            _shape(rng, image)
    for _ in range(int(rng.integers(1, 3)) if kind == 0 else int(rng.integers(3, 7))):
        _word(rng, image, 1.2 if kind == 0 else 2.6)
    image *= (1 + 0.03 * noise(rng, (height, width), coarsest=8))[..., None]
    frame = max(min(width, height) // 24, 3)
    cv2.rectangle(image, (0, 0), (width - 1, height - 1), (colour(rng, (0, 0.5), (0.1, 0.4))).tolist(), 2 * frame)
    return _finish(image)


def _landscape(rng: np.random.Generator, image: np.ndarray) -> None:
    """Sky, clouds and four ranges of hills, each nearer and darker."""
    height, width = image.shape[:2]
    sky, haze = colour(rng, (0.3, 0.6), (0.7, 0.95), (0.5, 0.65)), colour(rng, (0.05, 0.3), (0.85, 1.0))
    fade = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    image[:] = sky * (1 - fade) + haze * fade
    clouds = noise(rng, (height, width), coarsest=4)
    image += 30 * np.clip(clouds, 0, 2)[..., None] * (1 - fade)
    ground = colour(rng, (0.3, 0.7), (0.5, 0.7), (0.2, 0.45))
    rows = np.arange(height)[:, None]
    bumps = 1 + 0.12 * noise(rng, (height, width), coarsest=16)[..., None]
    for layer in range(4):
        profile = noise(rng, (64, 64), coarsest=2 ** min(layer + 1, 3))[:1]
        profile = cv2.resize(profile, (width, 1), interpolation=cv2.INTER_CUBIC)[0]
        ridge = height * (0.42 + 0.14 * layer + 0.06 * profile)
        shade = ground * (1 - 0.2 * layer) * bumps * (0.35 + 0.2 * layer) + haze * (0.65 - 0.2 * layer)
        np.copyto(image, shade.astype(np.float32), where=(rows > ridge)[..., None])


def _shape(rng: np.random.Generator, image: np.ndarray) -> None:
    """Draw a random disc, ring, polygon or bar."""
    height, width = image.shape[:2]
    centre = rng.uniform(0.08, 0.92, 2) * (width, height)
    radius = rng.uniform(0.05, 0.22) * min(width, height)
    thickness = -1 if rng.random() < 0.6 else max(int(radius / 4), 1)
    with _Pen(image, colour(rng, (0.2, 0.9), (0.15, 0.95))) as pen:
        if rng.random() < 0.4:
            cv2.circle(pen, tuple(int(c) for c in centre), int(radius), 255, thickness, cv2.LINE_AA)
            return
        angles = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(3, 7))))
        points = [(centre + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)).astype(np.int32)]
        if thickness < 0:
            cv2.fillPoly(pen, points, 255, cv2.LINE_AA)
        else:
            cv2.polylines(pen, points, True, 255, thickness, cv2.LINE_AA)


def _word(rng: np.random.Generator, image: np.ndarray, scale: float) -> None:
    """Write a few random letters and digits somewhere into the image."""
    height, width = image.shape[:2]
    text = ''.join(rng.choice(list(LETTERS + '23456789'), int(rng.integers(2, 6))))
    size = scale * rng.uniform(0.6, 1.3) * min(width, height) / 360
    place = (int(rng.uniform(0.04, 0.5) * width), int(rng.uniform(0.2, 0.95) * height))
    ink = colour(rng, (0.1, 0.9), (0.05, 0.5)) if image.mean() > 110 else colour(rng, (0.0, 0.5), (0.75, 1.0))
    thickness = max(int(size * 2.5), 1)
    with _Pen(image, ink) as pen:
        cv2.putText(pen, text, place, int(rng.integers(0, 5)), size, 255, thickness, cv2.LINE_AA)


def spines(rng: np.random.Generator, width: int = 512, height: int = 192) -> np.ndarray:
    """Row of books on a board, seen from their spines, with bands and titles; dark where a book is missing."""
    image = np.full((height, width, 3), 18.0, np.float32)
    left = 0
    while left < width - 10:
        thick = int(min(rng.integers(14, 40), width - left))
        top = int(rng.uniform(0.02, 0.3) * height)
        if rng.random() < 0.93:
            base = colour(rng, (0.2, 0.8), (0.25, 0.9))
            book = image[top:, left : left + thick - 1]
            across = np.linspace(-1, 1, max(thick - 1, 1), dtype=np.float32)
            book[:] = base * (1 - 0.35 * across**2)[None, :, None]  # spines are round
            ink = colour(rng, (0, 0.5), (0.8, 1.0)) if base.mean() < 130 else colour(rng, (0, 0.8), (0.05, 0.3))
            for row in rng.uniform(0.08, 0.92, int(rng.integers(1, 4))) * len(book):
                book[int(row) : int(row) + int(rng.integers(2, 6))] = ink
            _title(rng, book, ink)
        left += thick
    image *= (1 + 0.05 * noise(rng, (height, width), coarsest=32))[..., None]
    return _finish(image)


def _title(rng: np.random.Generator, book: np.ndarray, ink: np.ndarray) -> None:
    """Write letters along a spine, from top to bottom."""
    height, width = book.shape[:2]
    text = ''.join(rng.choice(list(LETTERS), int(rng.integers(4, 9))))
    with _Pen(np.rot90(book), ink) as pen:
        cv2.putText(pen, text, (height // 6, int(width * 0.7)), 0, width / 45, 255, max(width // 16, 1), cv2.LINE_AA)


def cardboard(rng: np.random.Generator) -> np.ndarray:
    """Side of a shipping box: tape, a label with bars and printed signs."""
    image = np.empty((320, 400, 3), np.float32)
    image[:] = colour(rng, (0.35, 0.5), (0.55, 0.8), (0.07, 0.1))
    image[:, ::6] *= 0.95
    image[140:178] = image[140:178] * 0.75 + 45
    left, top = int(rng.integers(20, 200)), int(rng.integers(15, 60))
    image[top : top + 100, left : left + 150] = 235
    column = left + 12
    while column < left + 120:
        bar = int(rng.integers(1, 6))
        image[top + 45 : top + 90, column : column + bar] = 25
        column += bar + int(rng.integers(2, 7))
    with _Pen(image, (20, 20, 20)) as pen:
        cv2.putText(pen, f'{rng.integers(10**6, 10**7)}', (left + 10, top + 32), 0, 0.8, 255, 2, cv2.LINE_AA)
    _word(rng, image[190:], 3.0)
    for _ in range(2):
        _shape(rng, image[190:, 200:])
    return _finish(image * (1 + 0.06 * noise(rng, (320, 400), coarsest=8))[..., None])


def door(rng: np.random.Generator) -> np.ndarray:
    """Wooden door with panels, a handle and a sign."""
    image = cv2.rotate(grain(rng), cv2.ROTATE_90_CLOCKWISE).astype(np.float32)[:, :256]
    for top, bottom in ((40, 220), (280, 480)):
        for left in (28, 142):
            cv2.rectangle(image, (left, top), (left + 86, bottom), (image[0, 0] * 0.5).tolist(), 5)
            image[top + 8 : bottom - 8, left + 8 : left + 78] *= rng.uniform(0.85, 1.1)
    with _Pen(image, (70, 190, 215)) as pen:
        cv2.circle(pen, (232, 262), 9, 255, -1, cv2.LINE_AA)
    image[232:270, 60:200] = 225
    text = f'{rng.choice(list(LETTERS))}{rng.integers(100, 999)}'
    with _Pen(image, (30, 30, 30)) as pen:
        cv2.putText(pen, text, (84, 261), 0, 0.9, 255, 2, cv2.LINE_AA)
    cv2.rectangle(image, (0, 0), (255, 511), (image[5, 5] * 0.4).tolist(), 10)
    return _finish(image)


def window(rng: np.random.Generator) -> np.ndarray:
    """Window with a view and a cross of bars."""
    image = np.empty((420, 512, 3), np.float32)
    _landscape(rng, image)
    image = image * 0.8 + 60
    for _ in range(6):
        left, top = int(rng.integers(20, 450)), int(rng.integers(150, 260))
        width, wall = int(rng.integers(30, 80)), colour(rng, (0.1, 0.5), (0.5, 0.9))
        image[top:330, left : left + width] = wall
        image[top + 8 : 320 : 18, left + 4 : left + width - 4 : 3] = wall * 0.45
    frame = (235, 238, 240)
    for line in (((256, 0), (256, 419)), ((0, 140), (511, 140))):
        cv2.line(image, *line, frame, 14)
    cv2.rectangle(image, (0, 0), (511, 419), frame, 26)
    return _finish(image)


def panels(rng: np.random.Generator) -> np.ndarray:
    """Office ceiling: perforated panels in a metal grid."""
    size, count = 512, 2
    side = size // count
    image = np.full((size, size, 3), 205.0, np.float32)
    holes = rng.uniform(0, size, (1400, 2)).astype(int)
    for x, y in holes:
        cv2.circle(image, (int(x), int(y)), int(rng.integers(1, 4)), (150, 150, 150), -1)
    for row in range(count):
        for column in range(count):
            image[row * side : (row + 1) * side, column * side : (column + 1) * side] *= rng.uniform(0.92, 1.06)
    image[::side] = image[1::side] = image[2::side] = 120
    image[:, ::side] = image[:, 1::side] = image[:, 2::side] = 120
    return _finish(image * (1 + 0.03 * noise(rng, coarsest=4))[..., None])


def front(rng: np.random.Generator) -> np.ndarray:
    """Front of a cabinet: drawers with handles and labels over wood or lacquer."""
    lacquer = rng.random() < 0.5
    image = (plaster(rng, colour(rng, (0.2, 0.6), (0.4, 0.85))) if lacquer else grain(rng)).astype(np.float32)
    rows, columns = int(rng.integers(2, 5)), int(rng.integers(1, 3))
    height, width = 512 // rows, 512 // columns
    for row in range(rows):
        for column in range(columns):
            left, top = column * width, row * height
            image[top : top + height, left : left + width] *= rng.uniform(0.88, 1.1)
            cv2.rectangle(image, (left + 5, top + 5), (left + width - 6, top + height - 6), (25, 30, 35), 3)
            centre = (left + width // 2, top + height // 4)
            with _Pen(image, (190, 195, 200)) as pen:
                cv2.ellipse(pen, centre, (width // 9, 7), 0, 0, 360, 255, -1, cv2.LINE_AA)
            if rng.random() < 0.5:
                label = image[top + height // 2 : top + height // 2 + 36, left + 30 : left + 130]
                label[:] = 230
                _word(rng, label, 6.0)
    return _finish(image)


def _finish(image: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)
