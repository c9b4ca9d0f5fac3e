"""The result of odometry for one set of frames."""

from __future__ import annotations

import dataclasses
import enum

import numpy as np

from loftr_ros.datatypes import Frame, Scale
from loftr_ros.odometry.frontend import PairResult
from loftr_ros.odometry.tracks import Tracks
from loftr_ros.transforms import UncertainTransform


class MotionStatus(enum.IntEnum):
    """What was observed. From TOO_FEW on there is no pose."""

    OK = 0
    STATIC = 1  # the camera has not moved since the keyframe by more than the noise: the pose is that of the keyframe
    PURE_ROTATION = 2  # it has turned, and has not moved by more than the noise
    PLANAR = 3  # all points are on one plane; before a single camera has a map, two motions explain them
    LOW_PARALLAX = 4  # a single camera has no map yet and moved too little for one: the translation is unknown
    STARTING = 5  # the first frame, where the motion starts
    TOO_FEW = 10  # too few matches, or none that agree: no pose, the last keyframe is kept
    LOST = 11  # TOO_FEW for several frames: earlier keyframes are tried


@dataclasses.dataclass(frozen=True, eq=False)
class Velocity:
    """Linear [m/s] and angular [rad/s] velocity (6,) in the axes of the camera, with covariance (6, 6)."""

    twist: np.ndarray
    covariance: np.ndarray

    def scaled(self, factor: float, relative_sigma: float) -> Velocity:
        """Return the velocity in another unit of length, which has an error."""
        unit = np.diag([factor] * 3 + [1.0] * 3)
        twist, covariance = unit @ self.twist, unit @ self.covariance @ unit
        covariance[:3, :3] += relative_sigma**2 * np.outer(twist[:3], twist[:3])
        return Velocity(twist, covariance)


@dataclasses.dataclass(frozen=True, eq=False)
class Motion:
    """Where the camera is, and how it moves.

    Args:
        frame: the image of the (left) camera.
        number: of the set of frames, counted from 0.
        segment: number of times that the motion was lost for good and started again: poses of two segments have no
            known relation.
        origin_from_cam: pose of the (left) camera in the optical frame of the first image; None where it is unknown.
        velocity: since the set before; None where one of both poses is unknown.
        scale: unit of all lengths: metric, or UP_TO_SCALE of a single camera, until its speed is known (EXTERNAL). The
            lengths of earlier motions are then in another unit.
        pair: matches with the keyframe and the motion from it; None for the first frame.
        is_keyframe: whether this frame has become the keyframe.
        relocalised: whether the pose is known again after frames without one.
        compute_s: time beside the matcher [s].
    """

    frame: Frame
    number: int
    segment: int
    status: MotionStatus
    origin_from_cam: UncertainTransform | None
    velocity: Velocity | None
    scale: Scale
    pair: PairResult | None
    tracks: Tracks
    is_keyframe: bool
    relocalised: bool
    compute_s: float

    @property
    def stamp_ns(self) -> int:
        return self.frame.stamp_ns
