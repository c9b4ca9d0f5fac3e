"""The front end: it chooses image 0 and computes matches and relative pose of sets of frames, without ROS."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable

import numpy as np

from loftr_ros.config import Config
from loftr_ros.datatypes import Frame, FrameSet, Matches, PoseFailure, RelativePose, Scale
from loftr_ros.matchers.base import Matcher
from loftr_ros.odometry.keyframes import FrameFeatures, Keyframe
from loftr_ros.odometry.landmarks import DepthImage
from loftr_ros.odometry.stamps import StampPolicy
from loftr_ros.pose import estimate_relative_pose
from loftr_ros.pose.with_depth import estimate_pose_with_depth

logger = logging.getLogger(__name__)

POINT_ID_BITS = 32
"""A track id is `id0 << POINT_ID_BITS | point_id0`: the same point of the same image 0."""


@dataclasses.dataclass(frozen=True, eq=False)
class PairResult:
    """Matches and motion of one pair of frames.

    Args:
        id0, id1: number of the set of frames that each image belongs to.
        pose: None when a camera has no calibration.
        match_s: time of extraction and matching [s].
        pose_s: time of the pose estimation [s].
    """

    frame0: Frame
    frame1: Frame
    id0: int
    id1: int
    matches: Matches
    pose: RelativePose | PoseFailure | None
    match_s: float
    pose_s: float

    @property
    def track_ids(self) -> np.ndarray:
        """(N,) int64, equal in two results for the same point of the same image 0; -1 where unknown."""
        return _track_ids(self.id0, self.matches.point_id0)

    @property
    def track_ids1(self) -> np.ndarray:
        """(N,) int64, the track id of the point of image 1 in results where that image is image 0; -1 where unknown.

        So a track goes on when image 1 becomes the keyframe. The right image of a stereo pair never does.
        """
        if self.id1 == self.id0:
            return np.full(len(self.matches), -1, np.int64)
        return _track_ids(self.id1, self.matches.point_id1)

    @property
    def inliers(self) -> np.ndarray:
        """(N,) bool, all False without a pose."""
        if isinstance(self.pose, RelativePose):
            return self.pose.inliers
        return np.zeros(len(self.matches), dtype=bool)


def _track_ids(image_id: int, point_ids: np.ndarray) -> np.ndarray:
    return np.where(point_ids >= 0, (image_id << POINT_ID_BITS) | point_ids, -1)


class FrontEnd:
    """Matches the frames of one camera with its keyframe, and the left with the right frame of a stereo pair.

    Sets of frames are numbered from 0 in the order of processing. The features of each image are extracted once.

    Args:
        on_restart: called with the reason when the front end starts again with a new keyframe because time jumped.
    """

    def __init__(self, matcher: Matcher, config: Config, on_restart: Callable[[str], None] | None = None):
        self.matcher = matcher
        self.config = config
        self._on_restart = on_restart or (lambda reason: logger.info('%s: starting with a new keyframe', reason))
        self._stamps = StampPolicy()
        self._keyframe: Keyframe | None = None
        self._keyframe_requested = False
        self._count = 0

    def configure(self, config: Config, matcher: Matcher | None = None) -> None:
        """Use other settings. Another matcher needs a new keyframe, because it cannot read the old features."""
        self.config = config
        if matcher is not None:
            self.matcher = matcher
            self._keyframe = None

    def restart(self, reason: str) -> None:
        """Drop keyframe and stamps, for example when the clock jumped. Numbers continue, so that ids stay unique."""
        self._stamps.reset()
        self._drop_keyframe(reason)

    def request_keyframe(self) -> None:
        """Make the next frame of one camera the keyframe, but none without a pose (a covered lens)."""
        self._keyframe_requested = True

    def process(self, frames: FrameSet) -> PairResult | None:
        """Match the images of a stereo pair, or the image of one camera with the keyframe.

        Return None for the first frame of one camera, which becomes the keyframe.

        Raises:
            InputError: the stamp is not newer than the last one; the frame is ignored.
        """
        jump = self._stamps.accept(frames.stamp_ns)
        if jump:
            self._drop_keyframe(jump)
        current = self._extract(frames)
        return self._match_stereo(current) if frames.is_stereo else self._match_with_keyframe(current)

    def _drop_keyframe(self, reason: str) -> None:
        self._keyframe = None
        self._on_restart(reason)

    def _extract(self, frames: FrameSet) -> FrameFeatures:
        started = time.perf_counter()
        features = tuple(self.matcher.extract(frame.image) for frame in frames.frames)
        self._count += 1
        return FrameFeatures(frames, features, self._count - 1, time.perf_counter() - started)

    def _match_with_keyframe(self, current: FrameFeatures) -> PairResult | None:
        keyframe = self._keyframe
        if keyframe is None:
            self._use(current)
            return None
        started = time.perf_counter()
        matches = self.matcher.match(keyframe.features0, current.features[0])
        keyframe.features0 = self.matcher.keep_points(keyframe.features0, matches)
        match_s = current.extract_s + time.perf_counter() - started
        result = self._result(keyframe.frame0, current.frames.frame0, keyframe.number, current.number, matches, match_s)
        keyframe.record(result.pose)
        requested = self._keyframe_requested and not isinstance(result.pose, PoseFailure)
        if requested or keyframe.should_be_replaced(self.config.keyframe):
            self._use(current)
        return result

    def _use(self, keyframe: FrameFeatures) -> None:
        self._keyframe = Keyframe(keyframe)
        self._keyframe_requested = False

    def _match_stereo(self, current: FrameFeatures) -> PairResult:
        """Match left with right; a known baseline gives the pose its length (Scale.BASELINE)."""
        frames = current.frames
        started = time.perf_counter()
        matches = self.matcher.match(*current.features)
        match_s = current.extract_s + time.perf_counter() - started
        result = self._result(frames.frame0, frames.frame1, current.number, current.number, matches, match_s)
        if frames.baseline_m is None or not isinstance(result.pose, RelativePose):
            return result
        return dataclasses.replace(result, pose=result.pose.with_length(frames.baseline_m, Scale.BASELINE))

    def _result(self, frame0: Frame, frame1: Frame, id0: int, id1: int, matches: Matches, match_s: float) -> PairResult:
        started = time.perf_counter()
        pose = None
        if frame0.camera is not None and frame1.camera is not None:
            pose = estimate_relative_pose(matches, frame0.camera, frame1.camera, self.config.pose)
        return PairResult(frame0, frame1, id0, id1, matches, pose, match_s, time.perf_counter() - started)


def match_pair(
    matcher: Matcher, config: Config, frame0: Frame, frame1: Frame, depth0_m: np.ndarray | None = None, ids=(0, 1)
) -> PairResult:
    """Return matches and motion of two frames of any time, for example to verify a loop closure.

    Args:
        depth0_m: (H, W) depth that is registered to frame 0 [m], which makes the pose metric.
        ids: numbers of the frames in the result.

    Raises:
        InputError: the depth is not of the size of frame 0.
    """
    FrameSet(frame0, depth_m=depth0_m)  # checks the depth
    started = time.perf_counter()
    matches = matcher.match(matcher.extract(frame0.image), matcher.extract(frame1.image))
    matched = time.perf_counter()
    pose, cameras = None, (frame0.camera, frame1.camera)
    if None not in cameras and depth0_m is not None:
        depth = DepthImage(depth0_m, config.odometry.depth_noise_per_m).at(matches.keypoints0)
        pose = estimate_pose_with_depth(matches, *cameras, depth, config.pose, Scale.DEPTH)
    elif None not in cameras:
        pose = estimate_relative_pose(matches, *cameras, config.pose)
    return PairResult(frame0, frame1, *ids, matches, pose, matched - started, time.perf_counter() - matched)
