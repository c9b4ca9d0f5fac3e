"""The node's publishers: matches, relative pose and a picture of both."""

from __future__ import annotations

import math

from sensor_msgs.msg import Image

from loftr_ros.config import Config
from loftr_ros.evaluation.plots import draw_matches
from loftr_ros.msg import Matches, RelativePose
from loftr_ros.odometry.frontend import PairResult
from loftr_ros.ros import compat, conversions


class PairOutputs:
    """Publishes results on ~/matches, ~/relative_pose and, if it has a subscriber, ~/matches_image."""

    def __init__(self, node, config: Config):
        self._clock = node.get_clock()
        self._bridge = compat.CvBridge()
        depth = config.output.queue_size
        self._matches = node.create_publisher(Matches, '~/matches', depth)
        self._pose = node.create_publisher(RelativePose, '~/relative_pose', depth)
        self._picture = node.create_publisher(Image, '~/matches_image', 1)
        self._image_max_width = config.output.image_max_width

    @property
    def fault(self) -> str:
        """Why results are not published; pairs always are."""
        return ''

    def configure(self, config: Config) -> None:
        """Use other settings."""
        self._image_max_width = config.output.image_max_width

    def age_s(self, stamp_ns: int) -> float:
        """Return the age of an image [s], NaN before the first /clock."""
        now_ns = self._clock.now().nanoseconds
        return (now_ns - stamp_ns) / 1e9 if now_ns else math.nan

    def publish(self, result: PairResult, matcher: str) -> float:
        """Publish a result of the matcher of this name; return the age of image 1 [s], NaN before the first /clock."""
        frame0, frame1 = result.frame0, result.frame1
        headers = [conversions.header(frame.stamp_ns, frame.frame_id) for frame in (frame1, frame0)]
        age_s = self.age_s(frame1.stamp_ns)
        self._matches.publish(conversions.matches_to_msg(result, *headers, matcher=matcher, age_s=age_s))
        if result.pose is not None:
            pose = conversions.relative_pose_to_msg(result.pose, *headers, result.id0, result.id1, result.pose_s)
            self._pose.publish(pose)
        if self._picture.get_subscription_count():
            picture = draw_matches(frame0.image, frame1.image, result.matches, result.inliers, self._image_max_width)
            self._picture.publish(self._bridge.cv2_to_imgmsg(picture, 'bgr8', headers[0]))
        return age_s
