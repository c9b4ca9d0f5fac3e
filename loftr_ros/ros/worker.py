"""The worker of a node: one thread that takes sets of messages from a mailbox, processes them and counts each of them.

It gets functions to call instead of a node, so that an ordinary node and a lifecycle node can use it.
"""

from __future__ import annotations

import concurrent.futures
import queue
import threading
import traceback
from collections.abc import Callable

from loftr_ros.config import Config, MatcherConfig
from loftr_ros.datatypes import PoseFailure
from loftr_ros.errors import InputError, LoftrRosError
from loftr_ros.matchers import create_matcher
from loftr_ros.matchers.base import Matcher
from loftr_ros.messages import FrameReader
from loftr_ros.odometry.frontend import FrontEnd, PairResult
from loftr_ros.ros.diagnostics import Statistics
from loftr_ros.ros.mailbox import BACKLOG_LIMIT, Mailbox

THROTTLE_S = 5.0
JOIN_S = 30.0
"""Longest time that `close` waits for the pair in work."""


class Worker:
    """Processes sets of messages on a separate thread, from `start` to `close`.

    Every set that is `put` ends in exactly one of the counters `processed`, `superseded` and `dropped`.

    Args:
        publish: takes a result and the name of its matcher, returns the age of image 1 at publication [s].
        logger: of the node.
        is_running: whether the ROS context is valid; results cannot be published without it.
    """

    def __init__(
        self,
        config: Config,
        statistics: Statistics,
        publish: Callable[[PairResult, str], float],
        logger,
        is_running: Callable[[], bool],
    ):
        self._config = config
        self._statistics = statistics
        self._publish = publish
        self._logger = logger
        self._is_running = is_running
        self._closed: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._mailbox = Mailbox()
        self._between_sets: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._reader = FrameReader()
        self._front_end = FrontEnd(create_matcher(config.matcher), config, self._note_restart)
        self._thread = threading.Thread(target=self._work, name='matcher', daemon=True)

    @property
    def matcher_name(self) -> str:
        return self._front_end.matcher.name

    # Called from any thread.

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Drop the waiting sets and return when the pair in work is finished."""
        if not self._closed.done():
            self._closed.set_result(None)
        self._mailbox.close()
        if self._thread.is_alive():
            self._thread.join(JOIN_S)

    def put(self, messages: tuple) -> None:
        """Add a set of messages. It replaces a set that is waiting, except with `process_every_frame`."""
        self._statistics.count('paired')
        capacity = BACKLOG_LIMIT if self._config.input.process_every_frame else 1
        self._statistics.count('superseded', self._mailbox.put(messages, capacity))

    def restart(self, reason: str) -> None:
        """Drop the waiting sets and start again with a new keyframe."""
        self._statistics.count('superseded', self._mailbox.clear())
        self._between_sets.put(lambda: self._front_end.restart(reason))

    def configure(self, config: Config) -> None:
        """Use other settings from the next set on. A new matcher is created first, while the present one is in use.

        Raises:
            LoftrRosError: the matcher cannot be created; the old settings remain.
        """
        matcher = self._create_matcher(config.matcher) if config.matcher != self._config.matcher else None
        self._between_sets.put(lambda: self._front_end.configure(config, matcher))
        self._config = config

    def _create_matcher(self, config: MatcherConfig) -> Matcher:
        """Create a matcher on a separate thread; wait for it until `close` at the longest."""
        future = concurrent.futures.Future()

        def create():
            try:
                future.set_result(create_matcher(config))
            except BaseException as error:
                future.set_exception(error)

        threading.Thread(target=create, name='create matcher', daemon=True).start()
        concurrent.futures.wait((future, self._closed), return_when=concurrent.futures.FIRST_COMPLETED)
        if not future.done():
            raise LoftrRosError('the node was stopped before its new matcher was ready')
        return future.result()

    # The worker's thread.

    def _work(self) -> None:
        while (messages := self._mailbox.get()) is not None:
            self._statistics.busy(True)
            try:
                while not self._between_sets.empty():
                    self._between_sets.get()()
                self._process(messages)
            except InputError as error:
                self._drop(str(error))
            except Exception:  # no error that a set of messages causes may end the node
                if not self._is_running():
                    return  # shut down during a pair: it cannot be published
                self._drop(f'please report this:\n{traceback.format_exc()}')
            finally:
                self._statistics.busy(False)

    def _process(self, messages: tuple) -> None:
        frames = self._reader.read(messages, self._front_end.config.input.rectified)
        if frames.is_stereo:
            self._note_baseline(frames.baseline_m)
        result = self._front_end.process(frames)
        self._statistics.count('processed')
        if result is not None:
            self._note_result(result, self._publish(result, self.matcher_name))

    def _drop(self, reason: str) -> None:
        self._statistics.count('dropped')
        self._statistics.note(last_drop=reason)
        self._logger.warning(f'frame dropped: {reason}', throttle_duration_sec=THROTTLE_S)

    def _note_restart(self, reason: str) -> None:
        self._logger.info(f'{reason}: starting with a new keyframe')
        self._statistics.count('time_jumps')

    def _note_baseline(self, baseline_m: float | None) -> None:
        fault = self._reader.baseline_fault
        if fault:
            self._logger.warning(f'translation without length: {fault}', throttle_duration_sec=30.0)
        self._statistics.note(baseline=f'unknown: {fault}' if fault else f'{baseline_m:.4f} m')

    def _note_result(self, result: PairResult, age_s: float) -> None:
        if isinstance(result.pose, PoseFailure):
            self._statistics.count('failed_poses')
        self._statistics.time(match_ms=1e3 * result.match_s, pose_ms=1e3 * result.pose_s, age_ms=1e3 * age_s)
        self._statistics.note_pair(
            matcher=self.matcher_name,
            status='NO_CAMERA' if result.pose is None else result.pose.status.name,
            matches=len(result.matches),
            inliers=int(result.inliers.sum()),
            **self._front_end.matcher.notes,
        )
