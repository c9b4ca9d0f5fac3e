"""The node's subscription to the speed of the robot, which gives the lengths of a single camera their unit."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from rclpy.qos import QoSProfile, ReliabilityPolicy

from loftr_ros.config import Config
from loftr_ros.errors import InputError
from loftr_ros.ros.silence import SILENCE_S, explain_graph
from loftr_ros.speeds import speed_from_msg

TOPIC = 'speed'


class SpeedInput:
    """Subscribes to the messages of `odometry.speed` and calls `on_speed(stamp_ns, speed)` for each.

    Args:
        base_from_cam: returns the pose of the camera on the robot (4, 4), None while it is unknown.

    Attributes:
        topic: its full name.
        received: number of messages.
    """

    def __init__(
        self,
        node,
        config: Config,
        base_from_cam: Callable[[], np.ndarray | None],
        on_speed: Callable[[int, float], None],
        callback_group=None,
    ):
        self._node = node
        self._base_from_cam = base_from_cam
        self._on_speed = on_speed
        self._last_s = time.monotonic()
        self.topic = node.resolve_topic_name(TOPIC)
        self.received = 0
        # It also receives from reliable publishers.
        self._profile = QoSProfile(depth=100, reliability=ReliabilityPolicy.BEST_EFFORT)
        package, kind = _message_type(config.odometry.speed)
        self._type = f'{package}/msg/{kind.__name__}'
        node.create_subscription(kind, TOPIC, self._receive, self._profile, callback_group=callback_group)

    def _receive(self, message) -> None:
        try:
            self._on_speed(*speed_from_msg(message, self._base_from_cam()))
        except InputError as error:
            self._node.get_logger().warning(str(error), throttle_duration_sec=10.0)
            return
        self._last_s = time.monotonic()
        self.received += 1

    @property
    def fault(self) -> str:
        """Why the unit of length is unknown or grows old; empty while speeds arrive."""
        silent_s = time.monotonic() - self._last_s
        if silent_s < SILENCE_S:
            return ''
        cause = explain_graph(self._node, self.topic, self._type, self._profile)
        return f'no speed for {silent_s:.0f} s, which odometry.speed promises: {cause}'


def _message_type(name: str) -> tuple[str, type]:
    """Return the package and the class of one of SPEED_TYPES."""
    if name == 'Odometry':
        from nav_msgs.msg import Odometry

        return 'nav_msgs', Odometry
    from geometry_msgs import msg

    return 'geometry_msgs', getattr(msg, name)
