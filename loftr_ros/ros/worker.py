"""The worker of a node: one thread that takes sets of messages from a mailbox, processes them and counts each of them.

It gets functions to call instead of a node, so that an ordinary node and a lifecycle node can use it.
"""

from __future__ import annotations

import concurrent.futures
import threading
import traceback
from collections.abc import Callable

import numpy as np

from loftr_ros.config import Config, MatcherConfig
from loftr_ros.datatypes import Frame, PoseFailure
from loftr_ros.errors import InputError, LoftrRosError
from loftr_ros.matchers import create_matcher
from loftr_ros.matchers.base import Matcher
from loftr_ros.messages import FrameReader
from loftr_ros.odometry.frontend import FrontEnd, PairResult, match_pair
from loftr_ros.odometry.motion import Motion
from loftr_ros.odometry.odometer import Odometer
from loftr_ros.ros.diagnostics import Statistics
from loftr_ros.ros.mailbox import BACKLOG_LIMIT, Mailbox

THROTTLE_S = 5.0
JOIN_S = 30.0
"""Longest time that `close` waits for the pair in work."""


class Worker:
    """Processes sets of messages on a separate thread, from `start` to `close`.

    Every set that is `put` ends in exactly one of the counters `processed`, `superseded` and `dropped`.

    Args:
        publish: takes a result and the name of its matcher, returns the age of image 1 at publication [s]. The result
            is a Motion with pairing odometry, otherwise a PairResult.
        logger: of the node.
        is_running: whether the ROS context is valid; results cannot be published without it.
        cam_from_depth: see FrameReader.
    """

    def __init__(
        self,
        config: Config,
        statistics: Statistics,
        publish: Callable[[PairResult | Motion, str], float],
        logger,
        is_running: Callable[[], bool],
        cam_from_depth: Callable[[str, str], np.ndarray] | None = None,
    ):
        self._config = config
        self._statistics = statistics
        self._publish = publish
        self._logger = logger
        self._is_running = is_running
        self.unit_fault = ''  # of the odometry, computed on the worker's thread, which owns what it reads
        self._closed: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._mailbox = Mailbox()
        self._reader = FrameReader(cam_from_depth)
        create = Odometer if config.input.pairing == 'odometry' else FrontEnd
        self._front_end = create(create_matcher(config.matcher), config, self._note_restart)
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
        self._mailbox.call(lambda: self._front_end.restart(reason))

    def request_keyframe(self) -> None:
        """Make the next set that allows it the keyframe."""
        self._mailbox.call(lambda: self._front_end.request_keyframe())

    def add_speed(self, stamp_ns: int, speed: float) -> None:
        """Give the odometry a measured speed of the camera [m/s]."""
        self._mailbox.call(lambda: self._front_end.add_speed(stamp_ns, speed))

    def match_pair(self, frame0: Frame, frame1: Frame, depth0_m: np.ndarray | None, ids: tuple) -> PairResult:
        """Match two frames on the worker's thread, before the next set, and wait for the result.

        Raises:
            LoftrRosError: the worker was closed before.
        """
        front_end = self._front_end

        def work() -> PairResult:
            return match_pair(front_end.matcher, front_end.config, frame0, frame1, depth0_m, ids)

        return self._run(work, self._mailbox.call, 'the pair was matched')

    def configure(self, config: Config) -> None:
        """Use other settings from the next set on. A new matcher is created first, while the present one is in use.

        Raises:
            LoftrRosError: the matcher cannot be created; the old settings remain.
        """
        matcher = self._create_matcher(config.matcher) if config.matcher != self._config.matcher else None
        self._mailbox.call(lambda: self._front_end.configure(config, matcher))
        self._config = config

    def _create_matcher(self, config: MatcherConfig) -> Matcher:
        """Create a matcher on a separate thread; wait for it until `close` at the longest."""

        def start(function: Callable[[], None]) -> None:
            threading.Thread(target=function, name='create matcher', daemon=True).start()

        return self._run(lambda: create_matcher(config), start, 'its new matcher was ready')

    def _run(self, function: Callable, start: Callable[[Callable[[], None]], None], event: str):
        """Run a function elsewhere and return its result; LoftrRosError if the worker is closed before.

        Args:
            start: takes what is to be run elsewhere.
            event: what the caller waits for.
        """
        future = concurrent.futures.Future()

        def work() -> None:
            try:
                future.set_result(function())
            except BaseException as error:
                future.set_exception(error)

        start(work)
        concurrent.futures.wait((future, self._closed), return_when=concurrent.futures.FIRST_COMPLETED)
        if not future.done():
            raise LoftrRosError(f'the node was stopped before {event}')
        return future.result()

    # The worker's thread.

    def _work(self) -> None:
        while (item := self._mailbox.get()) is not None:
            if callable(item):
                self._call(item)
                continue
            self._statistics.busy(True)
            try:
                self._process(item)
            except InputError as error:
                self._drop(str(error))
            except Exception:  # no error that a set of messages causes may end the node
                if not self._is_running():
                    return  # shut down during a pair: it cannot be published
                self._drop(f'please report this:\n{traceback.format_exc()}')
            finally:
                self._statistics.busy(False)

    def _call(self, function: Callable[[], None]) -> None:
        try:
            function()
        except Exception:
            self._logger.error(f'please report this:\n{traceback.format_exc()}')

    def _process(self, messages: tuple) -> None:
        frames = self._reader.read(messages, self._front_end.config.input.rectified)
        if frames.is_stereo:
            self._note_baseline(frames.baseline_m)
        if self._reader.depth_fault:
            self._logger.warning(self._reader.depth_fault, throttle_duration_sec=30.0)
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

    def _note_result(self, result: PairResult | Motion, age_s: float) -> None:
        self._statistics.time(age_ms=1e3 * age_s)
        pair, about = result, {}
        if isinstance(result, Motion):
            pair = result.pair
            about = {'segment': result.segment, 'tracks': len(result.tracks)}
            self.unit_fault = self._front_end.unit_fault
            self._statistics.time(odometry_ms=1e3 * result.compute_s)
        if pair is None:  # the first set of an odometry
            self._statistics.note_pair(matcher=self.matcher_name, status=result.status.name, **about)
            return
        if isinstance(pair.pose, PoseFailure):
            self._statistics.count('failed_poses')
        self._statistics.time(match_ms=1e3 * pair.match_s, pose_ms=1e3 * pair.pose_s)
        status = result.status if isinstance(result, Motion) else getattr(pair.pose, 'status', None)
        self._statistics.note_pair(
            matcher=self.matcher_name,
            status='NO_CAMERA' if status is None else status.name,
            matches=len(pair.matches),
            inliers=int(pair.inliers.sum()),
            **about,
            **self._front_end.matcher.notes,
        )
