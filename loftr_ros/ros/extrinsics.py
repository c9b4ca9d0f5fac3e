"""Where the camera is on the robot: from a parameter, or from TF."""

from __future__ import annotations

import numpy as np

from loftr_ros import geometry
from loftr_ros.config import Config
from loftr_ros.errors import ConfigError
from loftr_ros.messages import transform_from_msg
from loftr_ros.odometry.base_frame import parse_pose

MAX_UP_DEG = 20.0
"""A camera whose optical axis is this close to the vertical is unusual: its frame may lack the optical rotation."""


class BaseFromCamera:
    """The pose of the camera in the base frame, which is constant; unknown until TF has it.

    Attributes:
        fault: why it is unknown; empty once it is known.

    Raises:
        ConfigError: the parameter is not a pose, or TF is needed and not installed.
    """

    def __init__(self, node, config: Config):
        settings = config.odometry
        self._node = node
        self._base_frame = settings.base_frame
        self.fault = ''
        self._matrix: np.ndarray | None = None
        if not settings.base_frame or not settings.odom_frame or settings.base_frame == settings.odom_frame:
            raise ConfigError(
                f'odometry.base_frame and odometry.odom_frame must be two frames, got {settings.base_frame!r} and '
                f'{settings.odom_frame!r}'
            )
        if settings.base_from_camera:
            self._matrix = self._checked(parse_pose(settings.base_from_camera))
        else:
            self._start_listening()

    def _start_listening(self) -> None:
        try:
            import tf2_ros
        except ImportError as error:
            raise ConfigError(
                'tf2_ros is not installed (it is part of ROS 2 distributions, not of the wheels from PyPI): set '
                'odometry.base_from_camera to the pose of the camera on the robot, or to "forward" if its place does '
                'not matter'
            ) from error
        self._buffer = tf2_ros.Buffer(node=self._node)
        self._listener = tf2_ros.TransformListener(self._buffer, self._node)

    def of(self, camera_frame: str) -> np.ndarray | None:
        """Return base_from_cam (4, 4) of the optical frame of the images, None while it is unknown."""
        if self._matrix is None:
            self._look_up(camera_frame)
        return self._matrix

    def _look_up(self, camera_frame: str) -> None:
        import tf2_ros
        from rclpy.time import Time

        if not camera_frame:
            self.fault = (
                'the images have no frame_id, so TF cannot tell where the camera is: set it in the driver, or set '
                'odometry.base_from_camera'
            )
            return
        try:
            found = self._buffer.lookup_transform(self._base_frame, camera_frame, Time()).transform
        except tf2_ros.TransformException as error:
            self.fault = (
                f'TF does not know {camera_frame} in {self._base_frame} ({error}): start robot_state_publisher or '
                'static_transform_publisher, or set odometry.base_frame or odometry.base_from_camera. No odometry is '
                'published before'
            )
            return
        self._matrix = self._checked(transform_from_msg(found))
        self.fault = ''

    def _checked(self, matrix: np.ndarray) -> np.ndarray:
        """Warn about a mounting that is probably wrong."""
        tilt_deg = np.degrees(geometry.angle_between(matrix[:3, 2], [0, 0, 1]))
        if tilt_deg < MAX_UP_DEG:
            self._node.get_logger().warning(
                f'the camera looks along z of {self._base_frame}, up to the sky: if it does not, the frame of the '
                'images is not an optical frame (z forward, x right, y down) or odometry.base_from_camera lacks its '
                'rotation, and the odometry will have wrong axes'
            )
        return matrix
