"""The node: camera topics in, matches and relative pose out.

Callbacks only leave the newest set of messages in a mailbox; one worker thread converts, matches and publishes.
"""

from __future__ import annotations

import queue
import sys
import threading
import traceback

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import JumpThreshold
from rclpy.duration import Duration
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from sensor_msgs.msg import Image

from loftr_ros.config import Config
from loftr_ros.datatypes import Frame, PoseFailure
from loftr_ros.errors import InputError, LoftrRosError
from loftr_ros.evaluation.plots import draw_matches
from loftr_ros.levels import Levels
from loftr_ros.matchers import create_matcher
from loftr_ros.msg import Matches, RelativePose
from loftr_ros.odometry.frontend import FrontEnd, PairResult
from loftr_ros.ros import compat, conversions, diagnostics, parameters
from loftr_ros.ros.inputs import CameraInputs
from loftr_ros.ros.mailbox import BACKLOG_LIMIT, Mailbox
from loftr_ros.runtime import prepare_process

LATE_NS = 500_000_000
"""A stamp that goes back by less is a late frame; by more, the source has begun again (a bag that loops)."""
THROTTLE_S = 5.0


class MatcherNode(Node):
    """Matches stereo pairs or keyframe and frame, and publishes what they give."""

    def __init__(self, **kwargs):
        super().__init__('matcher', **kwargs)
        self._mailbox = Mailbox()
        self._worker = threading.Thread(target=self._work, name='matcher', daemon=True)
        self.config = parameters.declare(self, Config())
        self.statistics = diagnostics.Statistics()
        self._bridge = compat.CvBridge()
        self._levels = (Levels(), Levels())  # of the left and the right camera, for images of 16 bits
        for line in (*prepare_process(self.config.matcher.keep_memory), *compat.describe()):
            self.get_logger().info(line)
        self._front_end = FrontEnd(create_matcher(self.config.matcher), self.config)
        self.get_logger().info(f'matcher {self._front_end.matcher.name}, pairing {self.config.input.pairing}')
        self._between_frames: queue.SimpleQueue = queue.SimpleQueue()
        self._last_stamp_ns: int | None = None

        depth = self.config.output.queue_size
        self._matches = self.create_publisher(Matches, '~/matches', depth)
        self._pose = self.create_publisher(RelativePose, '~/relative_pose', depth)
        self._picture = self.create_publisher(Image, '~/matches_image', 1)
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', depth)
        self.add_on_set_parameters_callback(parameters.on_change(lambda: self.config, self._apply))
        self.create_timer(self.config.output.diagnostics_period_s, self._publish_diagnostics)

        self._inputs = CameraInputs(self, self.config, self.statistics, self._on_set)
        threshold = JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=True)
        self._jump_handle = self.get_clock().create_jump_callback(threshold, post_callback=self._on_time_jump)
        self._worker.start()

    def destroy_node(self) -> None:
        """Let the worker finish its pair before the publishers go."""
        self._mailbox.close()
        if self._worker.is_alive():
            self._worker.join(timeout=30)
        super().destroy_node()

    # Callbacks, on the executor's thread.

    def _on_set(self, *messages) -> None:
        self.statistics.count('paired')
        capacity = BACKLOG_LIMIT if self.config.input.process_every_frame else 1
        self.statistics.count('superseded', self._mailbox.put(messages, capacity))

    def _on_time_jump(self, _jump) -> None:
        self.statistics.count('superseded', self._mailbox.clear())
        self._inputs.reset()
        self._between_frames.put(lambda: self._restart('the clock jumped'))

    def _apply(self, config: Config) -> None:
        """Take a changed configuration; a new matcher is built first, so that a bad one is refused with its reason."""
        matcher = create_matcher(config.matcher) if config.matcher != self.config.matcher else None
        self._between_frames.put(lambda: self._front_end.configure(config, matcher))
        self.config = config

    def _publish_diagnostics(self) -> None:
        waiting_for = self._inputs.waiting_for()
        if waiting_for:
            self.get_logger().warning(waiting_for, throttle_duration_sec=30.0)
        name = f'{self.get_fully_qualified_name()[1:]}: matching'
        status = self.statistics.status(name, self._inputs.received, waiting_for)
        self._diagnostics.publish(diagnostics.array(self.get_clock().now().to_msg(), status))

    # The worker's thread.

    def _work(self) -> None:
        while (messages := self._mailbox.get()) is not None:
            while not self._between_frames.empty():
                self._between_frames.get()()
            try:
                self._process(messages)
            except InputError as error:
                self._drop(str(error))
            except Exception:  # nothing that a frame does may end the node
                if not self.context.ok():
                    return  # interrupted while a pair was in work: nobody is left to publish to
                self._drop(f'please report this:\n{traceback.format_exc()}')

    def _drop(self, reason: str) -> None:
        self.statistics.count('dropped')
        self.statistics.note(last_drop=reason)
        self.get_logger().warning(f'frame dropped: {reason}', throttle_duration_sec=THROTTLE_S)

    def _restart(self, reason: str) -> None:
        self.get_logger().info(f'{reason}: starting with a new keyframe')
        self.statistics.count('time_jumps')
        self._last_stamp_ns = None
        self._front_end.reset()

    def _frame(self, image_msg, info_msg, levels: Levels) -> Frame:
        return Frame(
            conversions.image_from_msg(image_msg, self._bridge, levels),
            conversions.camera_from_info(info_msg, rectified=self.config.input.rectified),
            conversions.stamp_ns(image_msg.header),
            image_msg.header.frame_id,
        )

    def _process(self, messages) -> None:
        pairs = zip(messages[::2], messages[1::2], self._levels, strict=False)
        frames = [self._frame(*pair) for pair in pairs]
        stamp_ns = frames[0].stamp_ns
        if self._last_stamp_ns is not None and stamp_ns <= self._last_stamp_ns:
            if self._last_stamp_ns - stamp_ns < LATE_NS:
                raise InputError(
                    f'its stamp {stamp_ns} is not newer than {self._last_stamp_ns}, the last one processed'
                )
            self._restart(f'stamps went back by {(self._last_stamp_ns - stamp_ns) / 1e9:.3f} s')
        self._last_stamp_ns = stamp_ns
        if len(frames) == 2:
            baseline_m, reason = conversions.baseline_from_infos(messages[1], messages[3])
            if reason:
                self.get_logger().warning(f'translation without length: {reason}', throttle_duration_sec=30.0)
            self.statistics.note(baseline=f'unknown: {reason}' if reason else f'{baseline_m:.4f} m')
            result = self._front_end.process_stereo(*frames, baseline_m)
        else:
            result = self._front_end.process(frames[0])
        self.statistics.count('processed')
        if result is not None:
            self._publish(result)

    def _publish(self, result: PairResult) -> None:
        frame0, frame1 = result.frame0, result.frame1
        headers = [conversions.header(frame.stamp_ns, frame.frame_id) for frame in (frame1, frame0)]
        age_s = self.get_clock().now().nanoseconds / 1e9 - frame1.stamp_ns / 1e9
        self._matches.publish(
            conversions.matches_to_msg(result, *headers, matcher=self._front_end.matcher.name, age_s=age_s)
        )
        if result.pose is not None:
            pose = conversions.relative_pose_to_msg(result.pose, *headers, result.id0, result.id1, result.pose_s)
            self._pose.publish(pose)
        if self._picture.get_subscription_count():
            picture = draw_matches(
                frame0.image, frame1.image, result.matches, result.inliers, self.config.output.image_max_width
            )
            self._picture.publish(self._bridge.cv2_to_imgmsg(picture, 'bgr8', headers[0]))
        status = result.pose.status.name if result.pose is not None else 'NO_CAMERA'
        if isinstance(result.pose, PoseFailure):
            self.statistics.count('failed_poses')
        self.statistics.time(match_ms=1e3 * result.match_s, pose_ms=1e3 * result.pose_s, age_ms=1e3 * age_s)
        self.statistics.note_pair(
            matcher=self._front_end.matcher.name,
            status=status,
            matches=len(result.matches),
            inliers=int(result.inliers.sum()),
            **getattr(self._front_end.matcher, 'notes', {}),
        )


def main(arguments: list[str] | None = None) -> int:
    """Run the node until it is interrupted; 1 when it cannot start."""
    rclpy.init(args=arguments)
    try:
        node = MatcherNode()
    except LoftrRosError as error:
        print(f'matcher_node cannot start: {error}', file=sys.stderr)
        rclpy.try_shutdown()
        return 1
    try:
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
    return 0


if __name__ == '__main__':
    sys.exit(main())
