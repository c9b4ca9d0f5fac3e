"""Which part of a motion the matches determine: standing still, pure rotation, a planar scene."""

from __future__ import annotations

import dataclasses

import numpy as np

from loftr_ros import geometry
from loftr_ros.datatypes import UNKNOWN_VARIANCE, Matches, PoseStatus, RelativePose, Scale
from loftr_ros.odometry.landmarks import Landmarks
from loftr_ros.odometry.map_unit import MapUnit
from loftr_ros.odometry.motion import MotionStatus
from loftr_ros.transforms import UncertainTransform

CHI2_999 = {3: 16.27, 6: 22.46}
"""99.9 % point of the chi-square distribution, by its degrees of freedom."""

STATIC_PX = 1.0
"""Largest median motion of the points of a camera that has not moved [px]."""

PLANE_SHARE, PLANE_DEVIATION = 0.9, 0.02
"""Share of the points on a plane that makes a scene planar; points are on it within this share of their depth."""


def motion_status(pose: RelativePose, matches: Matches, landmarks: Landmarks | None) -> MotionStatus:
    """Return what was observed.

    Args:
        matches: those that gave the pose.
        landmarks: of the keyframe; None for a single camera without a map.
    """
    if pose.status is PoseStatus.STATIC:
        return MotionStatus.STATIC
    if pose.status is PoseStatus.PURE_ROTATION:
        return MotionStatus.PURE_ROTATION
    if landmarks is None:
        return MotionStatus.PLANAR if pose.status is PoseStatus.AMBIGUOUS else MotionStatus.LOW_PARALLAX
    if pose.scale is not Scale.UP_TO_SCALE and not is_significant(pose.translation, pose.covariance[:3, :3]):
        return MotionStatus.PURE_ROTATION
    return MotionStatus.PLANAR if is_planar(matches.keypoints0[pose.inliers], landmarks) else MotionStatus.OK


def is_significant(vector: np.ndarray, covariance: np.ndarray) -> bool:
    """Return whether a vector (3,) or (6,) differs from zero by more than its noise."""
    return vector @ np.linalg.solve(covariance, vector) > CHI2_999[len(vector)]


def is_static(pose: RelativePose, matches: Matches) -> bool:
    """Return whether the camera is where the keyframe was: points and pose differ by no more than the noise."""
    motion_px = np.linalg.norm(matches.keypoints1 - matches.keypoints0, axis=1)[pose.inliers]
    if np.median(motion_px) > STATIC_PX:
        return False
    step = np.concatenate([pose.translation, geometry.vector_from_rotation(pose.rotation)])
    return not is_significant(step, pose.covariance)


def is_planar(keypoints: np.ndarray, landmarks: Landmarks) -> bool:
    """Return whether the points are on one plane, where inverse depth is linear in the pixel."""
    depth = landmarks.at(keypoints)
    known = depth.reliable
    if np.count_nonzero(known) < 3:
        return False
    rows = geometry.homogeneous(keypoints[known] / 1000)
    value, sigma = depth.value[known], np.hypot(depth.sigma[known], PLANE_DEVIATION * depth.value[known])
    weights = 1 / sigma
    for _ in range(5):
        plane = np.linalg.lstsq(rows * weights[:, None], value * weights, rcond=None)[0]
        misfit = np.abs(rows @ plane - value) / sigma
        weights = 1 / sigma / np.sqrt(1 + misfit**2)
    return bool(np.mean(misfit <= 2) >= PLANE_SHARE)


def in_metres(pose: RelativePose, unit: MapUnit) -> RelativePose | None:
    """Return the pose with a translation in metres, None while the unit of the map is unknown."""
    if unit.metres is None:
        return None
    found = UncertainTransform(pose.cam1_from_cam0, pose.covariance).scaled(unit.metres)
    found = found.with_relative_error(unit.relative_sigma)
    return dataclasses.replace(pose, cam1_from_cam0=found.matrix, covariance=found.covariance, scale=Scale.EXTERNAL)


def up_to_scale(pose: RelativePose) -> RelativePose:
    """Return the pose with a translation of length 1, as that of two views, or of length 0 if it is not significant."""
    length = np.linalg.norm(pose.translation)
    covariance = pose.covariance.copy()
    if pose.status is PoseStatus.STATIC or not is_significant(pose.translation, covariance[:3, :3]):
        covariance[:3] = covariance[:, :3] = 0
        covariance[:3, :3] = UNKNOWN_VARIANCE * np.eye(3)
        status = pose.status if pose.status is PoseStatus.STATIC else PoseStatus.PURE_ROTATION
        return dataclasses.replace(
            pose, cam1_from_cam0=geometry.transform(pose.rotation, np.zeros(3)), covariance=covariance, status=status
        )
    direction = pose.translation / length
    across = np.eye(6)
    across[:3, :3] = (np.eye(3) - np.outer(direction, direction)) / length
    covariance = across @ covariance @ across.T
    covariance[:3, :3] += UNKNOWN_VARIANCE * np.outer(direction, direction)
    return dataclasses.replace(pose, cam1_from_cam0=geometry.transform(pose.rotation, direction), covariance=covariance)
