"""The keyframe: the set of frames that later ones are matched with, and when it must be replaced.

A keyframe has the features of all its images, so that a stereo rig can match the left image of a later set with the
left image of the keyframe.
"""

from __future__ import annotations

import dataclasses

from loftr_ros.config import KeyframeConfig
from loftr_ros.datatypes import Frame, FrameSet, PoseFailure, PoseStatus, RelativePose
from loftr_ros.matchers.base import Features


@dataclasses.dataclass(frozen=True, eq=False)
class FrameFeatures:
    """A set of frames with the features of its images.

    Args:
        frames: the images.
        features: of each image of `frames`.
        number: number of sets before this one.
        extract_s: time of the extraction [s].
    """

    frames: FrameSet
    features: tuple[Features, ...]
    number: int
    extract_s: float = 0.0


class Keyframe:
    """A set of frames whose first image is image 0 of later pairs, with a record of the results of these pairs.

    `features0` are the features of its first image. The matcher may replace them after each pair
    (`Matcher.keep_points`).
    """

    def __init__(self, source: FrameFeatures):
        self.source = source
        self.features0 = source.features[0]
        self._moving_frames = 0
        self._failures = 0
        self._first_inliers = 0
        self._last_inliers = 0

    @property
    def frame0(self) -> Frame:
        return self.source.frames.frame0

    @property
    def number(self) -> int:
        return self.source.number

    @property
    def has_matched(self) -> bool:
        """Whether a later frame had a pose relative to this keyframe."""
        return self._first_inliers > 0

    @property
    def failures(self) -> int:
        """Number of last pairs in a row without a pose."""
        return self._failures

    def record(self, pose: RelativePose | PoseFailure | None) -> None:
        """Record the pose of the last pair with this keyframe; None without calibration."""
        if isinstance(pose, PoseFailure):
            self._failures += 1
            return
        self._failures = 0
        if pose is None or pose.status is not PoseStatus.STATIC:
            self._moving_frames += 1
        if pose is not None:
            self._last_inliers = pose.num_inliers
            self._first_inliers = self._first_inliers or pose.num_inliers

    def should_be_replaced(self, config: KeyframeConfig) -> bool:
        """Return whether the last recorded frame should become the keyframe."""
        if self._failures:
            # A keyframe that has matched before survives a few bad frames, so that a covered lens costs one pair only.
            # A keyframe that has never matched may itself be the bad frame.
            return not self.has_matched or self._failures > config.max_failures
        too_few = self._last_inliers < config.min_inlier_ratio * self._first_inliers
        return too_few or self._moving_frames >= config.max_frames
