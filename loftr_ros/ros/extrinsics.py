"""Constant transforms of the rig: the camera on the robot, the depth camera beside it; from parameters or TF."""

from __future__ import annotations

import numpy as np

from loftr_ros import geometry
from loftr_ros.config import Config
from loftr_ros.errors import ConfigError, InputError
from loftr_ros.messages import transform_from_msg
from loftr_ros.odometry.base_frame import parse_mounting
from loftr_ros.transforms import FROM_TF, parse_pose

MAX_UP_DEG = 20.0
"""A camera whose optical axis is this close to the vertical is unusual: its frame may lack the optical rotation."""


class ConstantTransform:
    """A transform between two frames that never changes; unknown until TF has it.

    Args:
        matrix: (4, 4) from the parameter; None: from TF.
        setting: the name of the parameter.

    Attributes:
        fault: why it is unknown; empty once it is known.

    Raises:
        ConfigError: TF is needed and not installed.
    """

    def __init__(self, node, matrix: np.ndarray | None, setting: str):
        self.fault = ''
        self._setting = setting
        self._matrix = matrix
        if self._matrix is None:
            self._start_listening(node)

    def _start_listening(self, node) -> None:
        try:
            import tf2_ros
        except ImportError as error:
            raise ConfigError(
                'tf2_ros is not installed (it is part of ROS 2 distributions, not of the wheels from PyPI): set '
                f'{self._setting} to the pose of the camera'
            ) from error
        self._buffer = tf2_ros.Buffer(node=node)
        self._listener = tf2_ros.TransformListener(self._buffer, node)

    def look_up(self, parent: str, child: str) -> np.ndarray | None:
        """Return parent_from_child (4, 4), None while it is unknown."""
        if self._matrix is None:
            self._matrix = self._from_tf(parent, child)
        return self._matrix

    def _from_tf(self, parent: str, child: str) -> np.ndarray | None:
        import tf2_ros
        from rclpy.time import Time

        if not parent or not child:
            self.fault = (
                'the images have no frame_id, so TF cannot tell where the camera is: set it in the driver, or set '
                f'{self._setting}'
            )
            return None
        try:
            found = self._buffer.lookup_transform(parent, child, Time()).transform
        except tf2_ros.TransformException as error:
            self.fault = (
                f'TF does not know {child} in {parent} ({error}): start robot_state_publisher or '
                f'static_transform_publisher, or set {self._setting} to the pose. No odometry is published before'
            )
            return None
        self.fault = ''
        return transform_from_msg(found)


class BaseFromCamera:
    """The pose of the camera in the base frame, which is constant; unknown until TF has it.

    Attributes:
        matrix: base_from_cam (4, 4), None while it is unknown.

    Raises:
        ConfigError: the parameter is not a pose, or TF is needed and not installed.
    """

    def __init__(self, node, config: Config):
        settings = config.odometry
        self._node = node
        self._base_frame = settings.base_frame
        self.matrix: np.ndarray | None = None
        if not settings.base_frame or not settings.odom_frame or settings.base_frame == settings.odom_frame:
            raise ConfigError(
                f'odometry.base_frame and odometry.odom_frame must be two frames, got {settings.base_frame!r} and '
                f'{settings.odom_frame!r}'
            )
        try:
            mounting = parse_mounting(settings.base_from_camera) if settings.base_from_camera else None
        except ConfigError as error:
            raise ConfigError(f'odometry.base_from_camera: {error}') from error
        self._transform = ConstantTransform(node, mounting, 'odometry.base_from_camera')
        if mounting is not None:
            self.of('')

    @property
    def fault(self) -> str:
        """Why it is unknown; empty once it is known."""
        return self._transform.fault

    def of(self, camera_frame: str) -> np.ndarray | None:
        """Return base_from_cam (4, 4) of the optical frame of the images, None while it is unknown."""
        if self.matrix is None:
            self.matrix = self._transform.look_up(self._base_frame, camera_frame)
            if self.matrix is not None:
                self._warn_if_up(self.matrix)
        return self.matrix

    def _warn_if_up(self, matrix: np.ndarray) -> None:
        """Warn about a mounting that is probably wrong."""
        tilt_deg = np.degrees(geometry.angle_between(matrix[:3, 2], [0, 0, 1]))
        if tilt_deg < MAX_UP_DEG:
            self._node.get_logger().warning(
                f'the camera looks along z of {self._base_frame}, up to the sky: if it does not, the frame of the '
                'images is not an optical frame (z forward, x right, y down) or odometry.base_from_camera lacks its '
                'rotation, and the odometry will have wrong axes'
            )


class CameraFromDepth:
    """The pose of a depth camera in the optical frame of the image; call it with their frames.

    Raises:
        ConfigError: the parameter is not a pose, or TF is needed and not installed.
    """

    def __init__(self, node, config: Config):
        pose = config.odometry.camera_from_depth
        try:
            matrix = None if pose == FROM_TF else parse_pose(pose, alternatives=(FROM_TF,))
        except ConfigError as error:
            raise ConfigError(f'odometry.camera_from_depth: {error}') from error
        self._transform = ConstantTransform(node, matrix, 'odometry.camera_from_depth')

    def __call__(self, camera_frame: str, depth_frame: str) -> np.ndarray:
        matrix = self._transform.look_up(camera_frame, depth_frame)
        if matrix is None:
            raise InputError(f'the pose of the depth camera is unknown: {self._transform.fault}')
        return matrix
