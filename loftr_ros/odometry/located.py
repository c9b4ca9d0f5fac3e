"""Frames and keyframes whose pose is known."""

from __future__ import annotations

import dataclasses

import numpy as np

from loftr_ros import geometry
from loftr_ros.odometry.keyframes import FrameFeatures, Keyframe
from loftr_ros.odometry.landmarks import Landmarks
from loftr_ros.odometry.map_unit import MapUnit
from loftr_ros.odometry.motion import Velocity
from loftr_ros.odometry.tracks import Tracks, TrackTable
from loftr_ros.transforms import UncertainTransform


class LocatedKeyframe(Keyframe):
    """A keyframe with its pose, the depth of its points and the tracks through them.

    Args:
        origin_from_keyframe: its pose.
        landmarks: None for a single camera before its map starts.
        segment: see Motion.
        unit: of a single camera's map; None before it starts, and for rigs whose unit is the metre.

    Attributes:
        is_located: whether its pose comes from matches with an earlier keyframe.
    """

    def __init__(
        self,
        source: FrameFeatures,
        origin_from_keyframe: UncertainTransform,
        landmarks: Landmarks | None,
        tracks: TrackTable,
        segment: int,
        unit: MapUnit | None = None,
    ):
        super().__init__(source)
        self.origin_from_keyframe = origin_from_keyframe
        self.landmarks = landmarks
        self.tracks = tracks
        self.segment = segment
        self.unit = unit
        self.is_located = False

    @property
    def metres(self) -> float:
        """Metres of one unit of its map; 1 where they are unknown."""
        return 1.0 if self.unit is None else self.unit.metres or 1.0

    def in_metres(self, cam_from_keyframe: UncertainTransform) -> UncertainTransform:
        """Return a motion from the keyframe in metres, or unchanged where the unit of the map is unknown."""
        return cam_from_keyframe if self.unit is None else self.unit.in_metres(cam_from_keyframe)


@dataclasses.dataclass(frozen=True, eq=False)
class LocatedFrame:
    """A frame with its pose relative to a keyframe. The last one predicts the next and gives the velocity.

    All lengths but those of `origin_from_cam` are in the unit of the keyframe's map.
    """

    keyframe: LocatedKeyframe
    cam_from_keyframe: UncertainTransform
    stamp_ns: int
    number: int
    tracks: Tracks
    velocity: Velocity | None = None

    @property
    def origin_from_cam(self) -> UncertainTransform:
        return self.keyframe.origin_from_keyframe @ self.keyframe.in_metres(self.cam_from_keyframe).inverse()

    def predict(self, keyframe: LocatedKeyframe, stamp_ns: int) -> list[np.ndarray]:
        """Return the cam_from_keyframe (4, 4) expected at a stamp: of a constant velocity, and of no motion."""
        if self.keyframe is not keyframe:
            return []
        matrix = self.cam_from_keyframe.matrix
        if self.velocity is None:
            return [matrix]
        step = self.velocity.twist * self._elapsed_s(stamp_ns)
        cam_from_last = geometry.invert_transform(geometry.transform(geometry.rotation_from_vector(step[3:]), step[:3]))
        return [cam_from_last @ matrix, matrix]

    def velocity_to(
        self, current: FrameFeatures, keyframe: LocatedKeyframe, cam_from_keyframe: UncertainTransform
    ) -> Velocity | None:
        """Return the mean velocity up to the next frame, None if it has another keyframe or is not the next one."""
        if self.keyframe is not keyframe or self.number != current.number - 1:
            return None
        elapsed_s = self._elapsed_s(current.frames.stamp_ns)
        step = self.cam_from_keyframe @ cam_from_keyframe.inverse()  # last_from_cam
        back = np.zeros((6, 6))
        back[:3, :3] = back[3:, 3:] = step.rotation.T  # to the axes of the camera now
        twist = np.concatenate([step.translation, geometry.vector_from_rotation(step.rotation)])
        return Velocity(back @ twist / elapsed_s, back @ step.covariance @ back.T / elapsed_s**2)

    def ray_velocities(self, current: FrameFeatures, ids: np.ndarray, rays: np.ndarray) -> np.ndarray:
        """Return the velocities (N, 2) [1/s] of normalised points with track ids; NaN of points that it lacks."""
        velocity = np.full((len(ids), 2), np.nan)
        if self.number == current.number - 1:
            _, here, there = np.intersect1d(ids, self.tracks.ids, return_indices=True)
            velocity[here] = (rays[here] - self.tracks.rays[there]) / self._elapsed_s(current.frames.stamp_ns)
        return velocity

    def _elapsed_s(self, stamp_ns: int) -> float:
        return (stamp_ns - self.stamp_ns) / 1e9
