"""The node: camera topics in, matches and relative pose out.

Callbacks only leave the newest set of messages in a mailbox; one worker thread converts, matches and publishes. The
services of the parameters have a thread of their own, since a new matcher may take seconds to load.
"""

from __future__ import annotations

import math
import os
import queue
import signal
import sys
import threading
import time
import traceback

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType, JumpThreshold
from rclpy.duration import Duration
from rclpy.executors import MultiThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import Image

from loftr_ros.config import NODE_NAME, Config, flatten
from loftr_ros.datatypes import Frame, PoseFailure
from loftr_ros.errors import InputError, LoftrRosError
from loftr_ros.evaluation.plots import draw_matches
from loftr_ros.levels import Levels
from loftr_ros.matchers import create_matcher
from loftr_ros.msg import Matches, RelativePose
from loftr_ros.odometry.frontend import FrontEnd, PairResult
from loftr_ros.ros import compat, conversions, diagnostics, parameters
from loftr_ros.ros.inputs import CameraInputs
from loftr_ros.ros.jumps import JUMP_NS, JumpWatch
from loftr_ros.ros.mailbox import BACKLOG_LIMIT, Mailbox
from loftr_ros.runtime import prepare_process

THROTTLE_S = 5.0
SIGNALS = (signal.SIGINT, signal.SIGTERM)

LONGEST_END_S = 4.0
"""A pair or a new matcher that takes longer is given up at the end: launch kills what outlives its signals by 5 s."""

LAST_WORDS_S = 2.0
"""Longest time that a node that cannot start waits for a listener on /rosout."""


class MatcherNode(Node):
    """Matches stereo pairs or keyframe and frame, and publishes what they give."""

    def __init__(self, **kwargs):
        super().__init__(NODE_NAME, **kwargs)
        try:
            self._start()
        except LoftrRosError as error:
            deadline_s = time.monotonic() + LAST_WORDS_S
            while not self.count_subscribers('/rosout') and time.monotonic() < deadline_s:
                time.sleep(0.05)
            self.get_logger().fatal(f'matcher_node cannot start: {error}')
            time.sleep(0.3)  # until the message is sent
            raise

    def _start(self) -> None:
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
        self._jumps = JumpWatch(1)

        depth = self.config.output.queue_size
        self._matches = self.create_publisher(Matches, '~/matches', depth)
        self._pose = self.create_publisher(RelativePose, '~/relative_pose', depth)
        self._picture = self.create_publisher(Image, '~/matches_image', 1)
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', depth)
        self.add_on_set_parameters_callback(parameters.on_change(lambda: self.config, self._apply))
        reception = MutuallyExclusiveCallbackGroup()
        self._inputs = CameraInputs(self, self.config, self.statistics, self._on_set, reception)
        # A watchdog must not depend on /clock.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        period_s = self.config.output.diagnostics_period_s
        self.create_timer(period_s, self._publish_diagnostics, callback_group=reception, clock=steady)
        threshold = JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-JUMP_NS), on_clock_change=True)
        for line in parameters.unused_qos_overrides(self):
            self.get_logger().warning(line)
        self._jump_handle = self.get_clock().create_jump_callback(threshold, post_callback=self._on_time_jump)
        self._worker.start()

    def destroy_node(self) -> None:
        """Let the worker finish its pair before the publishers go."""
        self._mailbox.close()
        if self._worker.is_alive():
            self._worker.join(timeout=30)
        super().destroy_node()

    # Callbacks, on the executor's threads.

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
        before = {item.name: item.value for item in flatten(self.config)}
        changed = [f'{item.name} = {item.value!r}' for item in flatten(config) if item.value != before[item.name]]
        if changed:
            self.get_logger().info(f'parameters changed: {", ".join(changed)}')
        self._between_frames.put(lambda: self._front_end.configure(config, matcher))
        self.config = config

    def _publish_diagnostics(self) -> None:
        waiting_for = self._inputs.waiting_for()
        if waiting_for:
            self.get_logger().warning(waiting_for, throttle_duration_sec=30.0)
        name = f'{self.get_fully_qualified_name()[1:]}: matching'
        status = self.statistics.status(name, self._inputs.received, waiting_for, self._inputs.clock_fault())
        self._diagnostics.publish(diagnostics.array(self.get_clock().now().to_msg(), status))

    # The worker's thread.

    def _work(self) -> None:
        while (messages := self._mailbox.get()) is not None:
            self.statistics.busy(True)
            try:
                while not self._between_frames.empty():
                    self._between_frames.get()()
                self._process(messages)
            except InputError as error:
                self._drop(str(error))
            except Exception:  # nothing that a frame does may end the node
                if not self.context.ok():
                    return  # interrupted while a pair was in work: nobody is left to publish to
                self._drop(f'please report this:\n{traceback.format_exc()}')
            finally:
                self.statistics.busy(False)

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
            conversions.camera_from_info(info_msg, rectified=self._front_end.config.input.rectified),
            conversions.stamp_ns(image_msg.header),
            image_msg.header.frame_id,
        )

    def _process(self, messages) -> None:
        pairs = zip(messages[::2], messages[1::2], self._levels, strict=False)
        frames = [self._frame(*pair) for pair in pairs]
        stamp_ns = frames[0].stamp_ns
        if self._jumps.went_back(0, stamp_ns):
            self._restart(f'stamps went back by {(self._last_stamp_ns - stamp_ns) / 1e9:.3f} s')
        elif self._last_stamp_ns is not None and stamp_ns <= self._last_stamp_ns:
            raise InputError(f'its stamp {stamp_ns} is not newer than {self._last_stamp_ns}, the last one processed')
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
        now_ns = self.get_clock().now().nanoseconds
        age_s = (now_ns - frame1.stamp_ns) / 1e9 if now_ns else math.nan  # 0: nothing on /clock yet
        self._matches.publish(
            conversions.matches_to_msg(result, *headers, matcher=self._front_end.matcher.name, age_s=age_s)
        )
        if result.pose is not None:
            pose = conversions.relative_pose_to_msg(result.pose, *headers, result.id0, result.id1, result.pose_s)
            self._pose.publish(pose)
        if self._picture.get_subscription_count():
            picture = draw_matches(
                frame0.image,
                frame1.image,
                result.matches,
                result.inliers,
                self._front_end.config.output.image_max_width,
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
    """Run the node until SIGINT or SIGTERM; 1 when it cannot start. Further signals change nothing."""
    leave_on_signal()
    try:
        # Our own handlers: rclpy's end the context at once, under the feet of a pair in work.
        rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
        node = MatcherNode()
    except LoftrRosError:
        rclpy.try_shutdown()
        return 1  # the node has said why
    except Exception as error:
        # rclpy has no public class for arguments and parameter files that it cannot read.
        print(f'matcher_node cannot start: {_in_one_line(error)}', file=sys.stderr)
        rclpy.try_shutdown()
        return 1
    stopped = threading.Event()
    for number in SIGNALS:
        signal.signal(number, lambda *_: stopped.set())
    executor = _Executor(num_threads=2)
    executor.add_node(node)
    while not stopped.is_set() and rclpy.ok():
        executor.spin_once(timeout_sec=0.2)
    for number in SIGNALS:
        # Python puts the default action back in place of a function while it ends: a late signal would kill it.
        signal.signal(number, signal.SIG_IGN)
    impatience = threading.Timer(LONGEST_END_S, os._exit, (0,))
    impatience.daemon = True
    impatience.start()
    executor.shutdown()
    node.destroy_node()
    rclpy.try_shutdown()
    impatience.cancel()
    return 0


class _Executor(MultiThreadedExecutor):
    def shutdown(self, *arguments, **keywords) -> bool:
        """End the callbacks in work first: rclpy's destroys at once what they use at their end, and says so."""
        self._executor.shutdown(wait=True)
        return super().shutdown(*arguments, **keywords)


def leave_on_signal() -> None:
    """End the process quietly on SIGINT and SIGTERM, as long as it has nothing to finish."""
    for number in SIGNALS:
        signal.signal(number, lambda *_: os._exit(0))


def _in_one_line(error: Exception) -> str:
    return ' '.join(str(error).split())


if __name__ == '__main__':
    sys.exit(main())
