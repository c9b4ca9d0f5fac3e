"""Tracks: points that keep their number over many frames, also when the keyframe is replaced."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator

import numpy as np

from loftr_ros.matchers.subpixel import local_warps


@dataclasses.dataclass(frozen=True, eq=False)
class Tracks:
    """The tracked points of one frame.

    Args:
        ids: (N,) int64, the same for the same point in every frame; unique.
        keypoints: (N, 2) x, y [px].
        rays: (N, 2) normalised points without distortion.
        velocity: (N, 2) of the rays since the frame before [1/s]; NaN for points that were not tracked there.
        depth_m: (N,) z in this camera, in the unit of the motion; NaN where unknown.
        sigma_px: (N,) standard deviation of the keypoints along each axis, relative to the keyframe; NaN where unknown.
    """

    ids: np.ndarray
    keypoints: np.ndarray
    rays: np.ndarray
    velocity: np.ndarray
    depth_m: np.ndarray
    sigma_px: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def empty(cls) -> Tracks:
        pairs = np.empty((0, 2))
        return cls(np.empty(0, np.int64), pairs, pairs, pairs, np.empty(0), np.empty(0))


class TrackTable:
    """The numbers of the tracks through the points of one keyframe.

    A point that a track reached from an earlier keyframe is up to a pixel off the point with the same `point_id0`,
    because a matcher without keypoints has its own raster. This offset is kept and added to the place in later images.

    Args:
        numbers: gives new tracks their numbers; shared by all keyframes.
    """

    def __init__(self, numbers: Iterator[int] | None = None):
        self._numbers = numbers if numbers is not None else itertools.count()
        self._track_of: dict[int, int] = {}
        self._place_of: dict[int, np.ndarray] = {}

    def follow(
        self, point_id0: np.ndarray, keypoints0: np.ndarray, keypoints1: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the tracks (N,) of matches of this keyframe, -1 where unknown, and their pixels (N, 2) in image 1."""
        ids = np.full(len(point_id0), -1, np.int64)
        offset = np.zeros((len(point_id0), 2))
        for row, point in enumerate(point_id0.tolist()):
            if point < 0:
                continue
            track = self._track_of.get(point)
            if track is None:
                track = self._track_of[point] = next(self._numbers)
            ids[row] = track
            if point in self._place_of:
                offset[row] = self._place_of[point] - keypoints0[row]
        places = np.asarray(keypoints1, np.float64).copy()
        is_moved = offset.any(axis=1)
        if is_moved.any():
            warps = local_warps(np.asarray(keypoints0, np.float64), places)
            places[is_moved] += np.einsum('nij,nj->ni', warps[is_moved], offset[is_moved])
        return ids, places

    def hand_over(self, point_ids: np.ndarray, tracks: np.ndarray, places: np.ndarray) -> TrackTable:
        """Return the table of a new keyframe, in which the points `point_ids` (N,) go on as `tracks` (N,).

        The first of several tracks with the same point goes on.

        Args:
            places: (N, 2) pixels of the tracks in the new keyframe.
        """
        table = TrackTable(self._numbers)
        for point, track, place in zip(point_ids.tolist(), tracks.tolist(), places, strict=True):
            if point >= 0 and track >= 0 and point not in table._track_of:
                table._track_of[point] = track
                table._place_of[point] = place
        return table
