"""Rendered rooms with hardly any texture: painted walls with faint stains, a door, boards and boxes, soft shadows.

Each has two neighbouring views with exact pose. A person finds many corresponding places in them.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from loftr_ros.camera import Camera
from loftr_ros.config import MatcherConfig
from loftr_ros.evaluation.compared import create_compared
from loftr_ros.geometry import invert_transform, rotation_from_vector, transform
from loftr_ros.matchers import match_images
from loftr_ros.rendering import Face, Scene, Texture, bake_light, box, look_along, render, textures

CAMERA = Camera([[480, 0, 319.5], [0, 480, 239.5], [0, 0, 1]], 640, 480)
NOISE_SIGMA = 1.0
STAIN_STRENGTH = 0.025
"""Deviation of the brightness of a painted surface: above the noise, but below the contrast threshold of SIFT."""

BASELINE_SHARE = (0.05, 0.1)
"""Baseline as a share of the median depth."""

ROTATION_DEG = (2.0, 6.0)
MAX_SIFT_MATCHES = 30
HEIGHT_M = 2.6


def plain_room_pairs(count: int) -> Iterator[tuple[str, np.ndarray, np.ndarray, np.ndarray, Camera]]:
    """Yield (name, image 0, image 1, cam1_from_cam0, camera) of the first `count` seeds that give SIFT few matches."""
    sift = create_compared('sift', MatcherConfig())
    seed = 0
    while count:
        image0, image1, truth = plain_room_pair(seed)
        if len(match_images(sift, image0, image1)) < MAX_SIFT_MATCHES:
            yield f'room {seed}', image0, image1, truth, CAMERA
            count -= 1
        seed += 1


def plain_room_pair(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return two images and cam1_from_cam0."""
    rng = np.random.default_rng(seed)
    scene = plain_room(rng)
    place = (-1.2, rng.uniform(-0.5, 0.5), rng.uniform(0.9, 1.5))
    world_from_cam0 = look_along(place, rng.uniform(-0.5, 0.5), rng.uniform(0.0, 0.4))
    image0, depth0 = render(scene, CAMERA, world_from_cam0, noise_sigma=NOISE_SIGMA, seed=(seed, 0))
    baseline_m = rng.uniform(*BASELINE_SHARE) * float(np.median(depth0))
    angle = np.radians(rng.uniform(*ROTATION_DEG))
    cam0_from_cam1 = transform(rotation_from_vector(angle * _direction(rng)), baseline_m * _direction(rng))
    image1, _ = render(scene, CAMERA, world_from_cam0 @ cam0_from_cam1, noise_sigma=NOISE_SIGMA, seed=(seed, 1))
    return image0, image1, invert_transform(cam0_from_cam1)


def plain_room(rng: np.random.Generator) -> Scene:
    """Return a room of 4 to 6 m around the origin; the wall with the door and the boards is ahead, along x."""
    x, y = rng.uniform(2.0, 3.0, 2)
    z = HEIGHT_M
    shade = rng.uniform(0.6, 0.8)
    wall = (shade, shade + 0.15)
    faces = [
        Face((-x, y, 0), (2 * x, 0, 0), (0, -2 * y, 0), _paint(rng, (0.35, 0.6)), (2, 2)),
        Face((-x, -y, z), (2 * x, 0, 0), (0, 2 * y, 0), _paint(rng, (0.85, 0.95))),
        Face((x, y, z), (0, -2 * y, 0), (0, 0, -z), _paint(rng, wall), (2, 1)),
        Face((x, -y, z), (-2 * x, 0, 0), (0, 0, -z), _paint(rng, wall), (2, 1)),
        Face((-x, -y, z), (0, 2 * y, 0), (0, 0, -z), _paint(rng, wall), (2, 1)),
        Face((-x, y, z), (2 * x, 0, 0), (0, 0, -z), _paint(rng, wall), (2, 1)),
    ]
    door_left = y - rng.uniform(0.2, 0.8)
    faces += box((x - 0.02, door_left - 0.45, 0), (0.04, 0.9, 2.05), _paint(rng, (0.5, 0.9)))
    for _ in range(2):
        place = (x - 0.02, rng.uniform(-y + 0.5, door_left - 1.5), rng.uniform(0.8, 1.5))
        size = (0.03, *rng.uniform(0.3, 1.0, 2))
        faces += box(place, size, _paint(rng, (0.5, 0.95)), underside=True)
    for _ in range(int(rng.integers(3, 6))):
        place = (rng.uniform(0.3, x - 0.5), rng.uniform(-y + 0.5, y - 0.5), 0)
        faces += box(place, rng.uniform(0.3, 0.9, 3), _paint(rng, (0.4, 0.9)), rng.uniform(0, np.pi))
    lamps = [((*rng.uniform(-0.5, 0.5, 2) * (x, y), z - 0.2), rng.uniform(0.5, 0.8)) for _ in range(2)]
    return bake_light(Scene(tuple(faces)), lamps)


def _paint(rng: np.random.Generator, value: tuple[float, float]) -> Texture:
    """Return a texture of one pale colour of the given brightness with faint stains."""
    stains = textures.noise(rng, (256, 256), coarsest=4, octaves=5)
    image = textures.colour(rng, (0.02, 0.15), value) * (1 + STAIN_STRENGTH * stains[..., None])
    return Texture(np.clip(np.rint(image), 0, 255).astype(np.uint8), tileable=True)


def _direction(rng: np.random.Generator) -> np.ndarray:
    vector = rng.normal(size=3)
    return vector / np.linalg.norm(vector)
