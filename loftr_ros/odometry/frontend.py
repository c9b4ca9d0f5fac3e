"""Frames in, matches and relative pose out, with the choice of image 0. Knows nothing of ROS."""

from __future__ import annotations

import dataclasses
import time

import numpy as np

from loftr_ros.config import Config
from loftr_ros.datatypes import Frame, Matches, PoseFailure, PoseStatus, RelativePose, Scale
from loftr_ros.matchers.base import Features, Matcher, keep_points
from loftr_ros.pose import estimate_relative_pose

CELL_BITS = 32
"""A track id is `id0 << CELL_BITS | point_id0`: the same place of the same image 0."""


@dataclasses.dataclass(frozen=True)
class PairResult:
    """What one pair of frames gave.

    Args:
        pose: None when a camera is unknown.
        match_s: time of extraction and matching [s].
        pose_s: time of the pose [s].
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
        """(N,) int64, equal in two results for the same place of the same image 0; -1 where unknown."""
        cells = self.matches.point_id0
        return np.where(cells >= 0, (self.id0 << CELL_BITS) | cells, -1)

    @property
    def inliers(self) -> np.ndarray:
        """(N,) bool, all False without a pose."""
        if isinstance(self.pose, RelativePose):
            return self.pose.inliers
        return np.zeros(len(self.matches), dtype=bool)


@dataclasses.dataclass
class _Keyframe:
    frame: Frame
    features: Features
    number: int
    moving_frames: int = 0
    failures: int = 0
    first_inliers: int = 0


class FrontEnd:
    """Matches the frames of a camera with its keyframe, or the left with the right frames of a stereo pair.

    Frames are numbered from 0 in the order in which they come; each frame is extracted once.
    """

    def __init__(self, matcher: Matcher, config: Config):
        self.matcher = matcher
        self.config = config
        self._count = 0
        self._keyframe: _Keyframe | None = None

    def configure(self, config: Config, matcher: Matcher | None = None) -> None:
        """Go on with other settings; another matcher needs a new keyframe, since it cannot read the old features."""
        self.config = config
        if matcher is not None:
            self.matcher = matcher
            self.reset()

    def reset(self) -> None:
        """Forget the keyframe, for example after a jump of time. Numbers go on, so that ids stay unique."""
        self._keyframe = None

    def process(self, frame: Frame) -> PairResult | None:
        """Match `frame` with the keyframe. The first frame becomes the keyframe and gives None."""
        started = time.perf_counter()
        features = self.matcher.extract(frame.image)
        number = self._next_number()
        if self._keyframe is None:
            self._keyframe = _Keyframe(frame, features, number)
            return None
        keyframe = self._keyframe
        matches = self.matcher.match(keyframe.features, features)
        keyframe.features = keep_points(self.matcher, keyframe.features, matches)
        result = self._result(keyframe.frame, frame, keyframe.number, number, matches, time.perf_counter() - started)
        if self._should_replace_keyframe(keyframe, result.pose):
            self._keyframe = _Keyframe(frame, features, number)
        return result

    def process_stereo(self, left: Frame, right: Frame, baseline_m: float = 0.0) -> PairResult:
        """Match the two frames of a stereo pair; with a baseline the pose gets its length (Scale.BASELINE)."""
        started = time.perf_counter()
        matches = self.matcher.match(self.matcher.extract(left.image), self.matcher.extract(right.image))
        number = self._next_number()
        result = self._result(left, right, number, number, matches, time.perf_counter() - started)
        if baseline_m > 0 and isinstance(result.pose, RelativePose):
            result = dataclasses.replace(result, pose=result.pose.with_length(baseline_m, Scale.BASELINE))
        return result

    def _next_number(self) -> int:
        self._count += 1
        return self._count - 1

    def _result(self, frame0, frame1, id0, id1, matches, match_s) -> PairResult:
        started = time.perf_counter()
        pose = None
        if frame0.camera is not None and frame1.camera is not None:
            pose = estimate_relative_pose(matches, frame0.camera, frame1.camera, self.config.pose)
        return PairResult(frame0, frame1, id0, id1, matches, pose, match_s, time.perf_counter() - started)

    def _should_replace_keyframe(self, keyframe: _Keyframe, pose: RelativePose | PoseFailure | None) -> bool:
        """Note what the last pair says of the keyframe and return whether to replace it."""
        settings = self.config.keyframe
        if isinstance(pose, PoseFailure):
            # A keyframe that matched before outlives a few bad frames, so that one covered lens costs one pair; a
            # keyframe that never matched may be the bad one itself.
            keyframe.failures += 1
            return keyframe.first_inliers == 0 or keyframe.failures > settings.max_failures
        keyframe.failures = 0
        if pose is None or pose.status is not PoseStatus.STATIC:
            keyframe.moving_frames += 1
        if pose is None:
            return keyframe.moving_frames >= settings.max_frames
        if keyframe.first_inliers == 0:
            keyframe.first_inliers = pose.num_inliers
        return (
            keyframe.moving_frames >= settings.max_frames
            or pose.num_inliers < settings.min_inlier_ratio * keyframe.first_inliers
        )
