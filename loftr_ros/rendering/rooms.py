"""A furnished room with a free loop for a robot, and a smooth drive along this loop."""

from __future__ import annotations

import numpy as np

from loftr_ros.rendering import textures
from loftr_ros.rendering.scene import Face, Scene, Texture, bake_light, box, look_along

ROOM_SIZE_M = (10.0, 7.6, 2.8)
LOOP_M = (2.7, 1.75)
"""Half axes of the loop that the robot drives; `furnished_room` keeps 0.5 m free on both sides of it."""

CAMERA_HEIGHT_M = 0.75
STEP_M = 0.07
"""Distance between frames [m]: 0.7 m/s at 10 Hz, a robot in an office."""


def furnished_room(seed: int = 0, light: bool = True) -> Scene:
    """Return a room of 10 x 7.6 x 2.8 m around the origin: with shelves, tables, boxes and pictures that depend on the
    seed.

    `light` bakes the shadows of three lamps (about half of the time that building takes).
    """
    rng = np.random.default_rng(seed)
    kit = _Kit(rng)
    faces = [*_shell(rng), *_along_walls(kit), *_island(kit), *_clutter(kit)]
    scene = Scene(tuple(faces), background=(40, 40, 40))
    if not light:
        return scene
    length, width, height = ROOM_SIZE_M
    lamps = [
        (
            (side * length * rng.uniform(0.15, 0.35), width * rng.uniform(-0.3, 0.3), height - 0.25),
            rng.uniform(0.5, 0.75),
        )
        for side in (-1, 0, 1)
    ]
    return bake_light(scene, lamps)


def room_trajectory(num_frames: int = 40, seed: int = 0, step_m: float = STEP_M) -> np.ndarray:
    """Return world_from_cam (N, 4, 4), optical: a robot on its loop of about 14 m, turning all the time.

    Args:
        step_m: way between two frames; the default is 0.7 m/s at 10 Hz.
    """
    rng = np.random.default_rng(seed)
    sense = rng.choice([-1.0, 1.0])
    wobble, phase = rng.uniform(0.015, 0.035), rng.uniform(0, 2 * np.pi)
    # The loop is sampled finely and then divided into equal steps, as for a robot with a speed controller.
    angle = phase + sense * np.linspace(0, 2 * np.pi, 4001)
    radius = 1 + wobble * np.sin(3 * angle + phase)
    x, y = LOOP_M[0] * radius * np.cos(angle), LOOP_M[1] * radius * np.sin(angle)
    way = np.concatenate([[0.0], np.cumsum(np.hypot(np.diff(x), np.diff(y)))])
    distance = step_m * np.arange(num_frames)
    ahead, behind = ((distance + shift) % way[-1] for shift in (0.1, -0.1))
    heading = np.arctan2(
        np.interp(ahead, way, y) - np.interp(behind, way, y), np.interp(ahead, way, x) - np.interp(behind, way, x)
    )
    distance %= way[-1]
    # An uneven floor: millimetres up and down, half a degree of pitch.
    bump = np.sin(np.arange(num_frames) * 0.7 + phase)
    return np.stack(
        [
            look_along((px, py, CAMERA_HEIGHT_M + 0.004 * b), h, 0.05 + 0.008 * b)
            for px, py, h, b in zip(
                np.interp(distance, way, x), np.interp(distance, way, y), heading, bump, strict=True
            )
        ]
    )


def _surface(origin, edge_u, edge_v, image: np.ndarray, tile_m: float, offset=(0.0, 0.0)) -> Face:
    """Return a face with a tileable texture with a side of `tile_m` for one repetition."""
    tiles = (np.linalg.norm(edge_u) / tile_m, np.linalg.norm(edge_v) / tile_m)
    return Face(origin, edge_u, edge_v, Texture(image, tileable=True), tiles, offset)


def _shell(rng: np.random.Generator) -> list[Face]:
    """Floor, ceiling and four different walls."""
    length, width, height = ROOM_SIZE_M
    x, y, z = length / 2, width / 2, height
    floor = textures.planks(rng) if rng.random() < 0.6 else textures.tiles(rng)
    faces = [
        _surface((-x, y, 0), (length, 0, 0), (0, -width, 0), floor, 1.3),
        _surface((-x, -y, z), (length, 0, 0), (0, width, 0), textures.panels(rng), 1.2),
    ]
    walls = [
        ((x, y, z), (0, -width, 0)),
        ((x, -y, z), (-length, 0, 0)),
        ((-x, -y, z), (0, width, 0)),
        ((-x, y, z), (length, 0, 0)),
    ]
    covers = [(textures.bricks, 0.9), (textures.plaster, 2.2), (textures.plaster, 1.7), (textures.grain, 1.1)]
    for (origin, along), pick in zip(walls, rng.permutation(len(covers)), strict=True):
        make, tile_m = covers[pick]
        faces.append(_surface(origin, along, (0, 0, -z), make(rng), tile_m, tuple(rng.uniform(0, 1, 2))))
    return faces


class _Kit:
    """Textures that several pieces of furniture share, as they do in a real room, and the room's random generator."""

    def __init__(self, rng: np.random.Generator):
        self.rng = rng
        self._stock = {
            'wood': [Texture(textures.grain(rng), tileable=True) for _ in range(5)],
            'cloth': [Texture(textures.fabric(rng), tileable=True) for _ in range(4)],
            'page': [Texture(textures.plaster(rng, shade)) for shade in ((170, 200, 215), (200, 220, 225))],
            'case': [Texture(textures.plaster(rng, shade)) for shade in ((45, 42, 40), (70, 62, 60))],
            'carton': [Texture(textures.cardboard(rng)) for _ in range(12)],
            'cover': [Texture(textures.poster(rng, 240, 320)) for _ in range(10)],
            'screen': [Texture(textures.poster(rng, 480, 300)) for _ in range(4)],
            'books': [Texture(textures.spines(rng, 384, 192)) for _ in range(20)],
            'front': [Texture(textures.front(rng)) for _ in range(5)],
        }

    def pick(self, kind: str) -> Texture:
        """Return one of the room's textures of a kind."""
        stock = self._stock[kind]
        return stock[int(self.rng.integers(len(stock)))]


class _Wall:
    """Coordinates along one wall: `at(along, out, up)` is `along` from its left end and `out` into the room."""

    def __init__(self, number: int):
        length, width, _ = ROOM_SIZE_M
        self.yaw = (np.pi, np.pi / 2, 0.0, -np.pi / 2)[number]  # of faces that look into the room
        self.length = (width, length, width, length)[number]
        self.out = np.array([np.cos(self.yaw), np.sin(self.yaw), 0.0])
        self.right = np.array([-np.sin(self.yaw), np.cos(self.yaw), 0.0])  # as seen from the room
        self.left_end = -self.out * (length, width)[number % 2] / 2 - self.right * self.length / 2

    def at(self, along: float, out: float, up: float) -> np.ndarray:
        return self.left_end + self.right * along + self.out * out + np.array([0.0, 0.0, up])

    def picture(self, along: float, up: float, width: float, height: float, image: np.ndarray, out=0.02) -> Face:
        """Return a picture with its top-left corner at (along, up)."""
        return Face(self.at(along, out, up), self.right * width, np.array([0.0, 0.0, -height]), Texture(image))


def _along_walls(kit: _Kit) -> list[Face]:
    """Furniture side by side along the walls, with pictures, windows and a door above and between."""
    rng = kit.rng
    faces = []
    for number in range(4):
        wall = _Wall(number)
        along, end = 0.75, wall.length - 0.75  # the corners belong to the neighbour
        kinds = list(rng.permutation(['shelf', 'cabinet', 'desk', 'sofa', 'open', 'shelf', 'cabinet']))
        while along < end - 0.6:
            kind = kinds.pop() if kinds else 'open'
            width = min({'shelf': 1.0, 'cabinet': 0.9, 'desk': 1.4, 'sofa': 1.7, 'open': 1.0}[kind], end - along)
            width *= rng.uniform(0.85, 1.0)
            faces += {'shelf': _shelf, 'cabinet': _cabinet, 'desk': _desk, 'sofa': _sofa, 'open': _opening}[kind](
                kit, wall, along, width
            )
            along += width + rng.uniform(0.1, 0.45)
    return faces


def _shelf(kit: _Kit, wall: _Wall, along: float, width: float) -> list[Face]:
    """Book shelf: sides, boards and books of different depths."""
    rng = kit.rng
    depth, height, boards = 0.32, rng.uniform(1.5, 2.1), int(rng.integers(4, 6))
    wood = kit.pick('wood')
    middle = along + width / 2
    faces = box(wall.at(middle, 0.01, 0), (0.02, width, height), wood, wall.yaw, 1.0)
    for side in (along + 0.015, along + width - 0.015):
        faces += box(wall.at(side, depth / 2, 0), (depth, 0.03, height), wood, wall.yaw, 1.0)
    pitch = (height - 0.03) / boards
    for board in range(boards + 1):
        faces += box(
            wall.at(middle, depth / 2, board * pitch), (depth, width, 0.03), wood, wall.yaw, 1.0, underside=True
        )
    for board in range(boards):
        start = along + 0.04
        while start < along + width - 0.15:
            span = min(rng.uniform(0.25, 0.55), along + width - 0.04 - start)
            tall, deep = pitch * rng.uniform(0.6, 0.85), rng.uniform(0.16, 0.26)
            page = kit.pick('page')
            parts = (kit.pick('books'), page, page)
            if rng.random() < 0.85:
                place = wall.at(start + span / 2, 0.02 + deep / 2, board * pitch + 0.03)
                faces += box(place, (deep, span, tall), parts, wall.yaw)
            start += span + rng.uniform(0.01, 0.12)
    return faces


def _cabinet(kit: _Kit, wall: _Wall, along: float, width: float) -> list[Face]:
    """Cabinet with drawers, things on it and a picture above."""
    rng = kit.rng
    depth, height = rng.uniform(0.4, 0.6), rng.uniform(0.7, 1.1)
    wood = kit.pick('wood')
    middle = along + width / 2
    faces = box(wall.at(middle, depth / 2, 0), (depth, width, height), (kit.pick('front'), wood, wood), wall.yaw)
    for place in (0.25, 0.7):
        faces += _thing(kit, wall.at(along + place * width, depth * 0.5, height), wall.yaw)
    tall = rng.uniform(0.6, 0.9)
    faces.append(wall.picture(along + 0.1, 2.35, min(0.75 * tall, width - 0.1), tall, textures.poster(rng)))
    return faces


def _desk(kit: _Kit, wall: _Wall, along: float, width: float) -> list[Face]:
    """Desk on four legs with things on it, and a wide picture above."""
    rng = kit.rng
    faces = _table(kit, wall.at(along + width / 2, 0.4, 0), (0.7, width, 0.74), wall.yaw)
    for place in (0.2, 0.5, 0.8):
        faces += _thing(kit, wall.at(along + place * width, rng.uniform(0.25, 0.5), 0.74), wall.yaw)
    faces.append(wall.picture(along + 0.1, 2.2, width - 0.2, 0.8, textures.poster(rng, 640, 400)))
    return faces


def _sofa(kit: _Kit, wall: _Wall, along: float, width: float) -> list[Face]:
    """Sofa with arms, and a window behind it."""
    rng = kit.rng
    cloth = kit.pick('cloth')
    middle = along + width / 2
    faces = box(wall.at(middle, 0.45, 0), (0.8, width, 0.42), cloth, wall.yaw, 0.6)
    faces += box(wall.at(middle, 0.15, 0.42), (0.22, width, 0.42), cloth, wall.yaw, 0.6)
    for side in (along + 0.09, along + width - 0.09):
        faces += box(wall.at(side, 0.5, 0.42), (0.68, 0.18, 0.2), cloth, wall.yaw, 0.6)
    cushion = kit.pick('cloth')
    faces += box(wall.at(middle - 0.3, 0.35, 0.42), (0.14, 0.42, 0.38), cushion, wall.yaw + 0.2, 0.4)
    faces.append(wall.picture(along + 0.15, 2.3, width - 0.3, 1.1, textures.window(rng)))
    return faces


def _opening(kit: _Kit, wall: _Wall, along: float, width: float) -> list[Face]:
    """Door in the wall, or two pictures over each other."""
    rng = kit.rng
    if rng.random() < 0.5:
        return [wall.picture(along, 2.05, min(width, 0.95), 2.05, textures.door(rng))]
    return [
        wall.picture(along + 0.05, 2.4, width - 0.1, 0.9, textures.poster(rng, 420, 400)),
        wall.picture(along + 0.05, 1.3, width - 0.1, 0.8, textures.poster(rng, 420, 380)),
    ]


def _table(kit: _Kit, center, size, yaw: float) -> list[Face]:
    """Table top on four legs; `size` and `yaw` as in `box`."""
    length, width, height = size
    wood = kit.pick('wood')
    center = np.asarray(center, np.float64)
    x, y = np.array([np.cos(yaw), np.sin(yaw), 0.0]), np.array([-np.sin(yaw), np.cos(yaw), 0.0])
    faces = box(center + (0, 0, height - 0.04), (length, width, 0.04), wood, yaw, 1.0, underside=True)
    for i in (-1, 1):
        for j in (-1, 1):
            foot = center + x * i * (length / 2 - 0.06) + y * j * (width / 2 - 0.06)
            faces += box(foot, (0.06, 0.06, height - 0.04), wood, yaw, 1.0)
    return faces


def _thing(kit: _Kit, center, yaw: float) -> list[Face]:
    """A small object on furniture: a carton, a stack of books, a screen or a picture in a frame."""
    rng = kit.rng
    yaw = yaw + rng.uniform(-0.5, 0.5)
    kind = rng.integers(4)
    if kind == 0:
        size = rng.uniform(0.15, 0.3, 3)
        return box(center, size, tuple(kit.pick('carton') for _ in range(3)), yaw)
    if kind == 1:
        faces, up = [], 0.0
        for _ in range(int(rng.integers(2, 6))):
            thick = rng.uniform(0.025, 0.06)
            cover = kit.pick('cover')
            spine = kit.pick('books')
            turn = yaw + rng.uniform(-0.3, 0.3)
            faces += box(np.asarray(center) + (0, 0, up), (0.2, 0.27, thick), (spine, spine, cover), turn)
            up += thick
        return faces
    if kind == 2:
        case = kit.pick('case')
        screen = kit.pick('screen')
        return [
            *box(center, (0.18, 0.2, 0.08), case, yaw),
            *box(np.asarray(center) + (0, 0, 0.08), (0.05, 0.5, 0.32), (screen, case, case), yaw),
        ]
    picture, back = kit.pick('cover'), kit.pick('wood')
    return box(center, (0.03, 0.24, 0.32), (picture, back, back), yaw)


def _island(kit: _Kit) -> list[Face]:
    """In the middle of the loop: a table or a pile of crates on a rug."""
    rng = kit.rng
    yaw = rng.uniform(-0.4, 0.4)
    x, y = np.array([np.cos(yaw), np.sin(yaw), 0.0]), np.array([-np.sin(yaw), np.cos(yaw), 0.0])
    rug = Face(-1.1 * x + 0.8 * y + (0, 0, 0.006), 2.2 * x, -1.6 * y, Texture(textures.carpet(rng)))
    faces = [rug, *_table(kit, (0, 0, 0), (1.3, 0.8, 0.6), yaw)]
    for place in (-0.4, 0.0, 0.4):
        faces += _thing(kit, place * x + rng.uniform(-0.2, 0.2) * y + (0, 0, 0.6), yaw)
    faces += _crate(kit, 0.2 * x - 0.1 * y, 0.4)
    return faces


def _crate(kit: _Kit, center, side: float) -> list[Face]:
    """Carton of about `side` [m] with different prints."""
    rng = kit.rng
    size = side * rng.uniform(0.75, 1.1, 3)
    parts = tuple(kit.pick('carton') for _ in range(3))
    return box(center, size, parts, rng.uniform(-np.pi, np.pi))


def _clutter(kit: _Kit) -> list[Face]:
    """Cartons in piles and stools between the loop and the furniture."""
    rng = kit.rng
    faces = []
    for angle in np.arange(8) * np.pi / 4 + rng.uniform(-0.25, 0.25, 8):
        place = rng.uniform(1.5, 1.6) * np.array([LOOP_M[0] * np.cos(angle), LOOP_M[1] * np.sin(angle), 0.0])
        if rng.random() < 0.6:
            lower = _crate(kit, place, 0.42)
            faces += lower
            if rng.random() < 0.6:
                top = max(face.origin[2] for face in lower)
                faces += _crate(kit, place + (0, 0, top), 0.32)
        else:
            faces += _table(kit, place, (0.36, 0.36, 0.46), rng.uniform(0, np.pi))
            faces += _thing(kit, place + (0, 0, 0.46), rng.uniform(-np.pi, np.pi))
    return faces
