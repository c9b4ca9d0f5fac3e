"""The node's publishers with pairing odometry: odometry, transform, tracks, points and path, beside those of a pair."""

from __future__ import annotations

import collections

import numpy as np
from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Odometry, Path
from sensor_msgs.msg import PointCloud, PointCloud2

from loftr_ros.config import Config
from loftr_ros.datatypes import Scale
from loftr_ros.errors import ConfigError
from loftr_ros.msg import OdometryInfo, Tracks
from loftr_ros.odometry.base_frame import odom_from_base, velocity_of_base
from loftr_ros.odometry.motion import Motion, MotionStatus
from loftr_ros.ros import conversions, odometry_messages
from loftr_ros.ros.extrinsics import BaseFromCamera
from loftr_ros.ros.outputs import PairOutputs
from loftr_ros.transforms import UncertainTransform

PATH_LENGTH = 10_000
"""Poses that ~/path contains at most, so that the memory of the node stays bounded; the oldest go first."""


class OdometryOutputs:
    """Publishes motions on ~/odometry, ~/odometry_info, ~/tracks and, if they have subscribers, further topics.

    These are ~/features, ~/points and ~/path. Matches and relative pose of keyframe and current frame are published
    too, as with the other pairings.
    """

    def __init__(self, node, config: Config):
        self._settings = config.odometry
        self._pairs = PairOutputs(node, config)
        self._mounting = BaseFromCamera(node, config)
        self._logger = node.get_logger()
        depth = config.output.queue_size
        self._odometry = node.create_publisher(Odometry, '~/odometry', depth)
        self._info = node.create_publisher(OdometryInfo, '~/odometry_info', depth)
        self._tracks = node.create_publisher(Tracks, '~/tracks', depth)
        self._features = node.create_publisher(PointCloud, '~/features', depth)
        self._points = node.create_publisher(PointCloud2, '~/points', 1)
        self._path = node.create_publisher(Path, '~/path', 1)
        self._poses: collections.deque[PoseStamped] = collections.deque(maxlen=PATH_LENGTH)
        self._scale: Scale | None = None
        self._tf = _tf_publisher(node) if self._settings.publish_odom_tf else None

    @property
    def fault(self) -> str:
        """Why no odometry is published; empty while it is."""
        return self._mounting.fault

    def base_from_cam(self) -> np.ndarray | None:
        """Return the pose of the camera on the robot (4, 4), None while it is unknown."""
        return self._mounting.matrix

    def configure(self, config: Config) -> None:
        """Use other settings."""
        self._pairs.configure(config)

    def publish(self, motion: Motion, matcher: str) -> float:
        """Publish a motion with the matcher of this name; return the age of its image [s], NaN before /clock."""
        frame = motion.frame
        header = conversions.header(frame.stamp_ns, frame.frame_id)
        if motion.pair is not None:
            self._pairs.publish(motion.pair, matcher)
        age_s = self._pairs.age_s(frame.stamp_ns)
        self._info.publish(odometry_messages.info_to_msg(motion, header, age_s))
        self._tracks.publish(odometry_messages.tracks_to_msg(motion, header))
        if self._features.get_subscription_count():
            self._features.publish(odometry_messages.features_to_msg(motion, header))
        self._publish_in_odom(motion)
        return age_s

    def _publish_in_odom(self, motion: Motion) -> None:
        settings = self._settings
        base_from_cam = self._mounting.of(motion.frame.frame_id)
        if base_from_cam is None:
            self._logger.warning(self._mounting.fault, throttle_duration_sec=10.0)
            return
        header = conversions.header(motion.stamp_ns, settings.odom_frame)
        if motion.origin_from_cam is None:
            if settings.publish_null_when_lost:
                self._odometry.publish(odometry_messages.lost_msg(header, settings.base_frame))
            return
        pose = odom_from_base(motion, base_from_cam)
        velocity = velocity_of_base(motion, base_from_cam)
        message = odometry_messages.odometry_to_msg(pose, velocity, header, settings.base_frame)
        self._odometry.publish(message)
        # A transform has no covariance: it would jump when speeds give the unit.
        waits_for_unit = settings.speed != 'none' and motion.scale is Scale.UP_TO_SCALE
        if self._tf is not None and not waits_for_unit:
            self._publish_tf(pose, motion.stamp_ns)
        if motion.status is MotionStatus.STARTING or motion.scale is not self._scale:
            self._poses.clear()  # the motion starts again at the origin, or its unit is another one
        if self._scale is Scale.UP_TO_SCALE and motion.scale is Scale.EXTERNAL:
            self._logger.info('the unit of length is known: lengths are metres from now on')
        self._scale = motion.scale
        self._poses.append(PoseStamped(header=header, pose=message.pose.pose))
        if self._path.get_subscription_count():
            self._path.publish(Path(header=header, poses=list(self._poses)))
        if self._points.get_subscription_count():
            odom_from_cam = pose.matrix @ base_from_cam
            self._points.publish(odometry_messages.points_to_msg(motion, odom_from_cam, header))

    def _publish_tf(self, odom_from_base: UncertainTransform, stamp_ns: int) -> None:
        parent, child, transform = self._settings.odom_frame, self._settings.base_frame, odom_from_base
        if self._settings.invert_odom_tf:
            parent, child, transform = child, parent, transform.inverse()
        message = odometry_messages.transform_to_msg(transform.matrix, conversions.header(stamp_ns, parent), child)
        self._tf.publish(self._tf.msg_type(transforms=[message]))


def _tf_publisher(node):
    try:
        from tf2_msgs.msg import TFMessage
    except ImportError as error:
        raise ConfigError(
            'odometry.publish_odom_tf needs tf2_msgs, which is part of ROS 2 distributions and not of the wheels from '
            'PyPI: install it, or set odometry.publish_odom_tf to false and use ~/odometry'
        ) from error
    return node.create_publisher(TFMessage, '/tf', 100)
