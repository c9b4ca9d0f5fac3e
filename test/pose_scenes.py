"""Synthetic scenes with known motion, as matches, and the errors of a pose."""

from __future__ import annotations

import numpy as np

from loftr_ros import geometry
from loftr_ros.camera import Camera
from loftr_ros.config import PoseConfig
from loftr_ros.datatypes import Matches
from loftr_ros.pose import estimate_relative_pose

ESTIMATORS = ('poselib', 'opencv')
SIZE = (640, 480)
TURN = geometry.rotation_from_vector([0.02, 0.08, -0.03])
SIDEWAYS = np.array([0.4, 0.1, 0.05])
NOWHERE = np.zeros(3)


def camera(focal: float = 525.0, **distortion) -> Camera:
    return Camera([[focal, 0, 320], [0, focal, 240], [0, 0, 1]], *SIZE, **distortion)


CAMERA = camera()


def matches_of(keypoints0, keypoints1, sigma_px=None) -> Matches:
    count = len(keypoints0)
    sigma_px = np.full(count, np.nan) if sigma_px is None else sigma_px
    return Matches(keypoints0, keypoints1, np.ones(count), sigma_px, np.full(count, -1))


def see(random, count, rotation, translation, cameras=(CAMERA, CAMERA), depth=(1.5, 6.0)):
    """Return pixels (count, 2) of random points that both cameras see, the depth uniform in `depth`."""
    pixels0 = random.uniform((0, 0), SIZE, size=(20 * count, 2))
    points = geometry.homogeneous(geometry.undistort_points(cameras[0], pixels0))
    points *= random.uniform(*depth, size=(20 * count, 1))
    pixels1 = geometry.project(cameras[1], points @ rotation.T + translation)
    seen = np.flatnonzero(np.all((pixels1 > 0) & (pixels1 < SIZE), axis=1))[:count]
    assert len(seen) == count
    return pixels0[seen], pixels1[seen]


def scene(
    seed, rotation=TURN, translation=SIDEWAYS, count=300, noise_px=0.5, wrong=0.0, cameras=(CAMERA, CAMERA), **options
):
    """Return matches with normal noise in both images; of the wrong ones half are anywhere, half within 15 px."""
    random = np.random.default_rng(seed)
    pixels0, pixels1 = see(random, count, rotation, translation, cameras, **options)
    pixels0 = pixels0 + random.normal(size=pixels0.shape) * noise_px
    pixels1 = pixels1 + random.normal(size=pixels1.shape) * noise_px
    lost = int(wrong * count / 2)
    pixels1[:lost] = random.uniform((0, 0), SIZE, size=(lost, 2))
    pixels1[lost : 2 * lost] += random.uniform(-15, 15, size=(lost, 2))
    return matches_of(pixels0, pixels1)


def estimate(matches, cameras=(CAMERA, CAMERA), **settings):
    return estimate_relative_pose(matches, *cameras, PoseConfig(**settings))


def errors_deg(pose, rotation, translation) -> tuple[float, float]:
    return (
        np.rad2deg(geometry.rotation_angle(rotation @ pose.rotation.T)),
        float(np.rad2deg(geometry.angle_between(pose.translation, translation))),
    )


def squared_error_in_sigmas(pose, rotation, translation) -> float:
    """Return the normalised squared error over the five observable degrees of freedom."""
    basis = np.linalg.svd(pose.translation[None])[2][1:]
    to_five = np.zeros((5, 6))
    to_five[:2, :3], to_five[2:, 3:] = basis, np.eye(3)
    direction = translation / np.linalg.norm(translation)
    error = np.concatenate([basis @ direction, geometry.vector_from_rotation(rotation @ pose.rotation.T)])
    return error @ np.linalg.solve(to_five @ pose.covariance @ to_five.T, error)


def random_motion(random):
    translation = random.normal(size=3)
    return geometry.rotation_from_vector(random.normal(size=3) * 0.06), 0.4 * translation / np.linalg.norm(translation)
