"""The speed of the camera from messages with the velocity of the robot, for example of its wheels; without ROS."""

from __future__ import annotations

import numpy as np

from loftr_ros.errors import InputError
from loftr_ros.messages import stamp_ns

SPEED_TYPES = ('Odometry', 'TwistStamped', 'TwistWithCovarianceStamped')
"""Messages with a velocity in the axes of the robot: of nav_msgs, and of geometry_msgs."""


def speed_from_msg(message, base_from_cam: np.ndarray | None = None) -> tuple[int, float]:
    """Return the stamp [ns] and the speed of the camera [m/s].

    Args:
        message: of one of SPEED_TYPES; its velocity is that of the origin of the robot's base.
        base_from_cam: (4, 4); None: the camera is taken to be at this origin, as far as the robot does not turn.

    Raises:
        InputError: the velocity is not finite.
    """
    twist = message.twist
    twist = getattr(twist, 'twist', twist)
    linear, angular = (np.array([v.x, v.y, v.z], np.float64) for v in (twist.linear, twist.angular))
    offset = np.zeros(3) if base_from_cam is None else base_from_cam[:3, 3]
    velocity = linear + np.cross(angular, offset)
    if not np.isfinite(velocity).all():
        raise InputError(f'the velocity of {message.header.frame_id!r} must be finite, got {velocity.tolist()}')
    return stamp_ns(message.header), float(np.linalg.norm(velocity))
