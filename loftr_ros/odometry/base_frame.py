"""From the motion of a camera to that of the robot that carries it, in the axes of ROS (REP-103, REP-105)."""

from __future__ import annotations

import numpy as np

from loftr_ros import geometry
from loftr_ros.datatypes import UNKNOWN_VARIANCE, Scale
from loftr_ros.odometry.motion import Motion, Velocity
from loftr_ros.transforms import UncertainTransform, parse_pose

FORWARD = 'forward'
BASE_FROM_FORWARD_CAMERA = geometry.transform([[0, 0, 1], [-1, 0, 0], [0, -1, 0]], np.zeros(3))
"""A camera at the origin of the base that looks along its x axis: base is x forward, y left, z up; an optical frame z
forward, x right, y down."""


def parse_mounting(text: str) -> np.ndarray:
    """Return the pose of the camera in the base frame (4, 4) of `forward` or of a pose (see parse_pose)."""
    return BASE_FROM_FORWARD_CAMERA if text == FORWARD else parse_pose(text, alternatives=(FORWARD,))


def odom_from_base(motion: Motion, base_from_cam: np.ndarray) -> UncertainTransform:
    """Return the pose of the base in odom, the frame of the base at the first image.

    A single camera does not know the unit of length: its variances of the translation are UNKNOWN_VARIANCE.
    """
    mounting = UncertainTransform.exact(base_from_cam)
    pose = mounting @ motion.origin_from_cam @ mounting.inverse()
    return UncertainTransform(pose.matrix, _with_unit(pose.covariance, motion.scale))


def velocity_of_base(motion: Motion, base_from_cam: np.ndarray) -> Velocity | None:
    """Return linear and angular velocity of the base in its own axes; None where that of the camera is unknown."""
    if motion.velocity is None:
        return None
    # The base's origin is at -t from the camera, in the axes of the base: v_base = R v_cam - (R w) x t.
    rotation, offset = base_from_cam[:3, :3], base_from_cam[:3, 3]
    turn = np.zeros((6, 6))
    turn[:3, :3] = turn[3:, 3:] = rotation
    turn[:3, 3:] = geometry.skew(offset) @ rotation
    covariance = turn @ motion.velocity.covariance @ turn.T
    return Velocity(turn @ motion.velocity.twist, _with_unit(covariance, motion.scale))


def _with_unit(covariance: np.ndarray, scale: Scale) -> np.ndarray:
    if scale is not Scale.UP_TO_SCALE:
        return covariance
    covariance = covariance.copy()
    covariance[:3] = covariance[:, :3] = 0
    covariance[:3, :3] = UNKNOWN_VARIANCE * np.eye(3)
    return covariance
