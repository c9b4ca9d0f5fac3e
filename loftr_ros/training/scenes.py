"""Pairs from rendered scenes, with parallax and occlusion: furnished rooms; boxes and relief under photographs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np

from loftr_ros.camera import Camera
from loftr_ros.geometry import rotation_from_vector
from loftr_ros.rendering import (
    Face,
    Scene,
    Texture,
    bake_light,
    box,
    furnished_room,
    height_field,
    look_along,
    render,
    textures,
)
from loftr_ros.rendering.rooms import CAMERA_HEIGHT_M, LOOP_M
from loftr_ros.training.batch import Pair
from loftr_ros.training.homography import random_camera
from loftr_ros.training.settings import SceneConfig
from loftr_ros.training.supervision import points_from_depth

DEPTH_TOLERANCE = 0.01
"""Largest relative difference of exact depths of one surface."""

HALF_M, WALL_M, HILL_M = 4.0, 3.5, 1.2
"""Half of the side of the ground, height of the walls around it, height of the highest hills."""

ATTEMPTS = 8
"""Number of second cameras that are tried until one sees enough of the first image."""


def scene_pair(scene: Scene, size: tuple[int, int], rng: np.random.Generator, config: SceneConfig, where) -> Pair:
    """Return two views of `size` (height, width), uint8 grey.

    Args:
        where: function of the random generator that returns the pose world_from_cam (4, 4) of the first camera.
    """
    height, width = size
    best, best_overlap = None, -1.0
    for _ in range(ATTEMPTS):
        camera0, camera1 = (Camera(random_camera(size, rng, 50, 85), width, height) for _ in range(2))
        world_from_cam0 = where(rng)
        image0, depth0 = render(scene, camera0, world_from_cam0, supersample=1)
        distance = float(np.median(depth0))
        world_from_cam1 = second_pose(world_from_cam0, distance, rng, wide=rng.random() < config.wide)
        image1, depth1 = render(scene, camera1, world_from_cam1, supersample=1)
        cam1_from_cam0 = np.linalg.inv(world_from_cam1) @ world_from_cam0
        points01 = points_from_depth(depth0, depth1, camera0, camera1, cam1_from_cam0, DEPTH_TOLERANCE)
        overlap = float(np.isfinite(points01[..., 0]).mean())
        if overlap > best_overlap:
            cam0_from_cam1 = np.linalg.inv(cam1_from_cam0)
            points10 = points_from_depth(depth1, depth0, camera1, camera0, cam0_from_cam1, DEPTH_TOLERANCE)
            grey0, grey1 = (cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) for image in (image0, image1))
            best, best_overlap = Pair(grey0, grey1, points01, points10), overlap
        if overlap >= config.min_overlap:
            break
    return best


def second_pose(world_from_cam0: np.ndarray, distance: float, rng: np.random.Generator, wide: bool) -> np.ndarray:
    """Return world_from_cam1 (4, 4): moved by a share of the median distance [m], turned towards the same objects."""
    reach = rng.uniform(0.1, 0.6) if wide else rng.uniform(0.0, 0.1)
    direction = rng.normal(0, (1.0, 0.4, 0.7))
    move = reach * max(distance, 0.1) * direction / np.linalg.norm(direction)
    # Towards the point on the axis at that distance, with a small random rotation.
    towards = np.array([0, 0, max(distance, 0.1)]) - move
    yaw = np.arctan2(towards[0], towards[2])
    pitch = -np.arctan2(towards[1], np.hypot(towards[0], towards[2]))
    sigma_deg = 8.0 if wide else 3.0
    aside = np.deg2rad(rng.normal(0, sigma_deg, 3))
    cam0_from_cam1 = np.eye(4)
    cam0_from_cam1[:3, :3] = (
        rotation_from_vector((0, yaw, 0)) @ rotation_from_vector((pitch, 0, 0)) @ rotation_from_vector(aside)
    )
    cam0_from_cam1[:3, 3] = move
    return world_from_cam0 @ cam0_from_cam1


def room(seed: int) -> tuple[Scene, object]:
    """Return a furnished room and a function that draws camera poses in it."""
    return furnished_room(seed), _in_room


def boxes(seed: int, photographs: Sequence[np.ndarray]) -> tuple[Scene, object]:
    """Return boxes on a floor before walls, and a function that draws camera poses.

    photographs: uint8 (H, W[, 3]), they cover all faces.
    """
    rng = np.random.default_rng((seed, 1))
    cover = _covers(rng, photographs)
    faces = [Face((-HALF_M, HALF_M, 0), (2 * HALF_M, 0, 0), (0, -2 * HALF_M, 0), cover()), *_walls(cover)]
    for _ in range(int(rng.integers(15, 35))):
        reach, bearing = rng.uniform(1.6, 3.4), rng.uniform(-np.pi, np.pi)
        place = (reach * np.cos(bearing), reach * np.sin(bearing), rng.choice([0.0, rng.uniform(0, 2)]))
        size = np.exp(rng.uniform(np.log(0.15), np.log(1.3), 3))
        faces += box(place, size, (cover(), cover(), cover()), rng.uniform(-np.pi, np.pi), underside=True)
    return _lit(faces, rng), _between_boxes


def relief(seed: int, photographs: Sequence[np.ndarray]) -> tuple[Scene, object]:
    """Return hilly ground with boxes before walls, covered like `boxes`, and a function that draws camera poses."""
    rng = np.random.default_rng((seed, 2))
    cover = _covers(rng, photographs)
    cells = int(rng.integers(8, 13))
    heights = cv2.GaussianBlur(rng.standard_normal((cells + 1, cells + 1)), (0, 0), rng.uniform(0.6, 2.0))
    heights *= rng.uniform(0.3, HILL_M) / np.ptp(heights)
    heights -= heights.min()
    ground = height_field((-HALF_M, HALF_M, 0), (2 * HALF_M, 0, 0), (0, -2 * HALF_M, 0), heights, cover())
    faces = [*ground, *_walls(cover)]
    for _ in range(int(rng.integers(0, 8))):
        size = np.exp(rng.uniform(np.log(0.3), np.log(1.5), 3))
        faces += box((*rng.uniform(-3, 3, 2), 0), size, (cover(), cover(), cover()), rng.uniform(-np.pi, np.pi))
    return _lit(faces, rng), _above_hills


def _covers(rng: np.random.Generator, photographs: Sequence[np.ndarray]) -> Callable[[], Texture]:
    """Return a function that draws one of the photographs, or a texture of the furnished room if there are none."""
    covers = [Texture(image) for image in photographs] or [
        Texture(make(rng)) for make in (textures.plaster, textures.bricks, textures.poster, textures.carpet) * 2
    ]
    return lambda: covers[int(rng.integers(len(covers)))]


def _walls(cover: Callable[[], Texture]) -> list[Face]:
    faces = []
    for angle in np.arange(4) * np.pi / 2:
        turn = rotation_from_vector((0, 0, angle))
        for part in (0.0, 0.5):  # two different pictures side by side
            corner = turn @ (HALF_M, HALF_M * (1 - 2 * part), WALL_M)
            faces.append(Face(corner, turn @ (0, -HALF_M, 0), (0, 0, -WALL_M), cover()))
    return faces


def _lit(faces: list[Face], rng: np.random.Generator) -> Scene:
    lamps = [((*rng.uniform(-2, 2, 2), rng.uniform(2, 3.4)), rng.uniform(0.4, 0.9)) for _ in range(2)]
    background = tuple(int(value) for value in rng.integers(0, 256, 3))
    return bake_light(Scene(tuple(faces), background), lamps)


def _in_room(rng: np.random.Generator) -> np.ndarray:
    """On the loop that the room keeps free, in any direction."""
    angle = rng.uniform(-np.pi, np.pi)
    radius = rng.uniform(0.92, 1.08)
    position = (LOOP_M[0] * radius * np.cos(angle), LOOP_M[1] * radius * np.sin(angle), CAMERA_HEIGHT_M)
    position = np.add(position, (0, 0, rng.uniform(-0.3, 0.9)))
    return _rolled(look_along(position, rng.uniform(-np.pi, np.pi), rng.normal(0.05, 0.2)), rng)


def _between_boxes(rng: np.random.Generator) -> np.ndarray:
    position = (*rng.uniform(-1, 1, 2), rng.uniform(0.4, 2.2))
    return _rolled(look_along(position, rng.uniform(-np.pi, np.pi), rng.normal(0.1, 0.25)), rng)


def _above_hills(rng: np.random.Generator) -> np.ndarray:
    position = (*rng.uniform(-2, 2, 2), HILL_M + rng.uniform(0.5, 2.0))
    return _rolled(look_along(position, rng.uniform(-np.pi, np.pi), rng.normal(0.5, 0.25)), rng)


def _rolled(world_from_cam: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    world_from_cam[:3, :3] = world_from_cam[:3, :3] @ rotation_from_vector((0, 0, np.deg2rad(rng.normal(0, 6))))
    return world_from_cam
