"""Elements of a scene: textured parallelograms and triangles with baked light, and boxes and height fields of them."""

from __future__ import annotations

import dataclasses
import functools

import cv2
import numpy as np

from loftr_ros.datatypes import check_image
from loftr_ros.errors import InputError


@dataclasses.dataclass(frozen=True, eq=False)
class Texture:
    """A uint8 (H, W, 3) image, blue first; outside, it is repeated (tileable) or has the colour of the border."""

    image: np.ndarray
    tileable: bool = False

    def __post_init__(self):
        check_image('texture', self.image)
        if self.image.ndim != 3:
            object.__setattr__(self, 'image', cv2.cvtColor(self.image, cv2.COLOR_GRAY2BGR))

    @functools.cached_property
    def levels(self) -> tuple[np.ndarray, ...]:
        """The image and its halvings down to a side of one texel (a mip pyramid)."""
        levels = [self.image]
        while max(levels[-1].shape[:2]) > 1:
            height, width = levels[-1].shape[:2]
            half = (max(width // 2, 1), max(height // 2, 1))
            levels.append(cv2.resize(levels[-1], half, interpolation=cv2.INTER_AREA))
        return tuple(levels)


@dataclasses.dataclass(frozen=True, eq=False)
class Face:
    """The parallelogram `origin + u * edge_u + v * edge_v`, u and v in [0, 1], visible from both sides.

    With `triangle` only its half with u + v <= 1.

    Args:
        origin: (3,) corner with the top-left corner of the texture [m, world].
        edge_u: (3,) along the texture's rows. edge_v: (3,) along its columns, downwards [m].
        tiles: number of repetitions of the texture along u and v.
        offset: position of the origin in the texture, in units of its size.
        light: (h, w) float32 brightness over the face, from corner to corner; multiplies the texture; None: 1.
    """

    origin: np.ndarray
    edge_u: np.ndarray
    edge_v: np.ndarray
    texture: Texture
    tiles: tuple[float, float] = (1.0, 1.0)
    offset: tuple[float, float] = (0.0, 0.0)
    light: np.ndarray | None = None
    triangle: bool = False

    def __post_init__(self):
        for name in ('origin', 'edge_u', 'edge_v'):
            vector = np.asarray(getattr(self, name), np.float64)
            if vector.shape != (3,) or not np.isfinite(vector).all():
                raise InputError(f'face {name} must be three finite numbers [m], got {getattr(self, name)}')
            object.__setattr__(self, name, vector)
        if not np.linalg.norm(np.cross(self.edge_u, self.edge_v)) > 0:
            raise InputError(f'face has no area: edges {self.edge_u} and {self.edge_v}; give two that are not parallel')


@dataclasses.dataclass(frozen=True, eq=False)
class Scene:
    """Faces and the colour (blue, green, red) of the background."""

    faces: tuple[Face, ...]
    background: tuple[int, int, int] = (0, 0, 0)

    @functools.cached_property
    def frames(self) -> np.ndarray:
        """Matrices (F, 3, 3) with the columns edge_u, edge_v and origin of every face [m, world]."""
        if not self.faces:
            return np.empty((0, 3, 3))
        return np.stack([np.stack([face.edge_u, face.edge_v, face.origin], axis=1) for face in self.faces])

    @functools.cached_property
    def reach(self) -> np.ndarray:
        """Largest u + v (F,) on every face: 1 for a triangle, 2 for a parallelogram."""
        return np.array([1.0 if face.triangle else 2.0 for face in self.faces])


def look_along(position, yaw: float, pitch: float = 0.0) -> np.ndarray:
    """Return world_from_cam (4, 4) of a level optical camera at `position` [m] that looks along `yaw` [rad, left of x].

    `pitch` is downwards as in REP-103, a rotation about y (left) [rad].
    """
    forward = np.array([np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), -np.sin(pitch)])
    right = np.array([np.sin(yaw), -np.cos(yaw), 0.0])
    world_from_cam = np.eye(4)
    world_from_cam[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=1)
    world_from_cam[:3, 3] = position
    return world_from_cam


def box(center, size, textures, yaw: float = 0.0, tile_m: float | None = None, underside: bool = False) -> list[Face]:
    """Return the faces of an upright box: five without the underside; with `underside` all six.

    Args:
        center: middle of the underside [m]. size: (length along its x, width along its y, height) [m].
        textures: one Texture for all faces, or three for (front and back, left and right, top and bottom).
        yaw: rotation about z [rad]. The front looks along the box's x axis.
        tile_m: edge length of one repetition of a tileable texture [m]; None stretches the texture over each face.
    """
    front, side, top = textures if isinstance(textures, (tuple, list)) else (textures,) * 3
    length, width, height = size
    x = np.array([np.cos(yaw), np.sin(yaw), 0.0]) * length
    y = np.array([-np.sin(yaw), np.cos(yaw), 0.0]) * width
    z = np.array([0.0, 0.0, height])
    corner = np.asarray(center, np.float64) - x / 2 - y / 2
    parts = [
        (corner + x + z, y, -z, front),
        (corner + y + z, -y, -z, front),
        (corner + x + y + z, -x, -z, side),
        (corner + z, x, -z, side),
        (corner + z + y, -y, x, top),
        (corner, y, x, top),
    ]
    faces = []
    for origin, edge_u, edge_v, texture in parts if underside else parts[:-1]:
        if tile_m is None:
            faces.append(Face(origin, edge_u, edge_v, texture))
        else:
            tiles = (np.linalg.norm(edge_u) / tile_m, np.linalg.norm(edge_v) / tile_m)
            # Different parts of a texture on different boxes and faces, but the same in every run.
            offset = (float(origin.sum() * 0.37 % 1), float((edge_u.sum() + origin[0]) * 0.71 % 1))
            faces.append(Face(origin, edge_u, edge_v, texture, tiles, offset))
    return faces


def height_field(origin, edge_u, edge_v, heights, texture: Texture, tiles=(1.0, 1.0)) -> list[Face]:
    """Return the triangles of a relief: exactly the surface that is linear between its heights.

    Args:
        origin, edge_u, edge_v, tiles: of the base, a parallelogram like a Face's.
        heights: (R, C) above the base along z [m], row by row along edge_u, from corner to corner; R and C at least 2.
    """
    heights = np.asarray(heights, np.float64)
    if heights.ndim != 2 or min(heights.shape) < 2:
        raise InputError(f'heights must be (R, C), both at least 2, got shape {heights.shape}')
    rows, columns = heights.shape[0] - 1, heights.shape[1] - 1
    u, v = np.linspace(0, 1, columns + 1)[None, :, None], np.linspace(0, 1, rows + 1)[:, None, None]
    points = np.asarray(origin, np.float64) + u * np.asarray(edge_u) + v * np.asarray(edge_v)
    points[..., 2] += heights
    step = np.array([tiles[0] / columns, tiles[1] / rows])
    faces = []
    for row in range(rows):
        for column in range(columns):
            # Two halves of a cell; the second starts at the opposite corner.
            for i, j, sign in ((row, column, 1), (row + 1, column + 1, -1)):
                corner = points[i, j]
                edges = points[i, j + sign] - corner, points[i + sign, j] - corner
                offset = (j * step[0], i * step[1])
                faces.append(Face(corner, *edges, texture, tuple(sign * step), offset, triangle=True))
    return faces


def bake_light(
    scene: Scene, lights, ambient: float = 0.45, cell_m: float = 0.2, reach_m: float = 3.0, shadows: bool = True
) -> Scene:
    """Return the scene with the light of small lamps and their shadows baked into its faces.

    Reflection is Lambertian, so the brightness of a point does not depend on the view.

    Args:
        lights: sequence of (position (3,) [m], intensity); the brightness falls to half at `reach_m` from a lamp.
        ambient: brightness that reaches every point.
        cell_m: distance of the points at which the light is computed (at most 32 along an edge).
    """
    grids = [_light_grid(face, cell_m) for face in scene.faces]
    shapes = [grid.shape[:2] for grid in grids]
    points = np.concatenate([grid.reshape(-1, 3) for grid in grids])
    normals = np.concatenate(
        [np.broadcast_to(_normal(face), (h * w, 3)) for face, (h, w) in zip(scene.faces, shapes, strict=True)]
    )
    brightness = np.full(len(points), ambient, np.float32)
    for position, intensity in lights:
        rays = points - np.asarray(position, np.float64)
        distance = np.linalg.norm(rays, axis=1)
        # Faces are visible from both sides; the dark side is found by its shadow, not by its normal.
        cosine = np.abs((rays * normals).sum(axis=1)) / np.maximum(distance, 1e-9)
        lit = intensity * cosine / (1.0 + (distance / reach_m) ** 2)
        if shadows:
            lit *= ~_in_shadow(scene, np.asarray(position, np.float64), rays)
        brightness += lit.astype(np.float32)
    ends = np.cumsum([h * w for h, w in shapes])[:-1]
    maps = [values.reshape(shape) for values, shape in zip(np.split(brightness, ends), shapes, strict=True)]
    if shadows:  # one cell wide penumbra: lamps have a size
        maps = [cv2.blur(light, (3, 3), borderType=cv2.BORDER_REPLICATE) for light in maps]
    faces = tuple(dataclasses.replace(f, light=light) for f, light in zip(scene.faces, maps, strict=True))
    return dataclasses.replace(scene, faces=faces)


def _light_grid(face: Face, cell_m: float) -> np.ndarray:
    """Return points (h, w, 3) of the face, from corner to corner."""
    counts = [int(np.clip(np.linalg.norm(edge) / cell_m + 1, 2, 32)) for edge in (face.edge_u, face.edge_v)]
    # Slightly inside, so that a neighbour with the same edge casts no shadow on it.
    u, v = (np.linspace(0.004, 0.996, count) for count in counts)
    return face.origin + u[None, :, None] * face.edge_u + v[:, None, None] * face.edge_v


def _normal(face: Face) -> np.ndarray:
    normal = np.cross(face.edge_u, face.edge_v)
    return normal / np.linalg.norm(normal)


def _in_shadow(scene: Scene, lamp: np.ndarray, rays: np.ndarray) -> np.ndarray:
    """Return (N,) bool, whether a face is between the lamp and lamp + ray.

    ray = c * (u * edge_u + v * edge_v + origin - lamp): if c > 1, the face is in front of the point.
    """
    shifted = scene.frames.copy()
    shifted[:, :, 2] -= lamp
    shadow = np.zeros(len(rays), bool)
    rays = rays.T
    for frame, reach in zip(shifted, scene.reach, strict=True):
        if abs(np.linalg.det(frame)) < 1e-12:  # the lamp is in the plane of the face
            continue
        a, b, c = np.linalg.inv(frame) @ rays
        # 1 % of the distance, so that a face does not shade itself, nor a picture its wall.
        shadow |= (c > 1.01) & (a >= 0) & (a <= c) & (b >= 0) & (b <= c) & (a + b <= reach * c)
    return shadow
