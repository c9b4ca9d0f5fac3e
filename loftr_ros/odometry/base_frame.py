"""From the motion of a camera to that of the robot that carries it, in the axes of ROS (REP-103, REP-105)."""

from __future__ import annotations

import numpy as np

from loftr_ros import geometry
from loftr_ros.datatypes import UNKNOWN_VARIANCE, Scale
from loftr_ros.errors import ConfigError
from loftr_ros.odometry.motion import Motion, Velocity
from loftr_ros.transforms import UncertainTransform

FORWARD = 'forward'
BASE_FROM_FORWARD_CAMERA = geometry.transform([[0, 0, 1], [-1, 0, 0], [0, -1, 0]], np.zeros(3))
"""A camera at the origin of the base that looks along its x axis: base is x forward, y left, z up; an optical frame z
forward, x right, y down."""


def parse_pose(text: str) -> np.ndarray:
    """Return the transform (4, 4) of `forward`, 'x y z roll pitch yaw' [m, rad] or 'x y z qx qy qz qw'.

    Numbers are as the arguments of tf2_ros static_transform_publisher: R = Rz(yaw) Ry(pitch) Rx(roll).

    Raises:
        ConfigError: the text is something else.
    """
    if text == FORWARD:
        return BASE_FROM_FORWARD_CAMERA
    try:
        values = [float(word) for word in text.replace(',', ' ').split()]
    except ValueError:
        values = []
    if len(values) not in (6, 7) or not np.all(np.isfinite(values)):
        raise ConfigError(f'a pose is "x y z roll pitch yaw", "x y z qx qy qz qw" or "{FORWARD}", got {text!r}')
    if len(values) == 6:
        roll, pitch, yaw = np.diag(values[3:])
        turns = [geometry.rotation_from_vector(vector) for vector in (yaw, pitch, roll)]
        return geometry.transform(turns[0] @ turns[1] @ turns[2], values[:3])
    length = np.linalg.norm(values[3:])
    if abs(length - 1) > 0.01:
        raise ConfigError(f'the quaternion qx qy qz qw of a pose needs the length 1, got {length:g} in {text!r}')
    return geometry.transform(geometry.matrix_from_quaternion(values[3:]), values[:3])


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
