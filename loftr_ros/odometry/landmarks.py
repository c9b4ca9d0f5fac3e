"""Depth of the points of a keyframe, from a depth image or for single points. Points are found by their pixel.

Pixels identify points here, because not every matcher numbers its points, and because a point that was tracked into the
keyframe from an earlier one is at most a pixel off the point that the matcher uses there.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from loftr_ros.pose.with_depth import InverseDepth

MAX_EDGE = 0.05
"""Depths around a point that differ by more than this share are an edge: the point may be on either side."""

NEIGHBOURS = np.array([(dx, dy) for dy in (-1, 0, 1) for dx in (-1, 0, 1)])


class Landmarks(Protocol):
    """Depth of points of a keyframe."""

    def at(self, keypoints: np.ndarray) -> InverseDepth:
        """Return the InverseDepth of pixels (N, 2)."""
        ...


class DepthImage:
    """Landmarks of a depth camera.

    Args:
        depth_m: (H, W) z [m] of each pixel; 0, NaN or infinite where unknown.
        noise_per_m: standard deviation of the inverse depth [1/m]: that of z grows with its square, as for structured
            light and stereo cameras.
    """

    def __init__(self, depth_m: np.ndarray, noise_per_m: float):
        with np.errstate(divide='ignore', invalid='ignore'):
            inverse = 1 / np.asarray(depth_m, np.float64)
        self._inverse = np.where(np.isfinite(inverse) & (inverse > 0), inverse, np.nan)
        self._noise_per_m = noise_per_m

    def at(self, keypoints: np.ndarray) -> InverseDepth:
        """Interpolate bilinearly, which is exact on planes; unknown beside unknown pixels and depth edges."""
        height, width = self._inverse.shape
        x, y = np.asarray(keypoints, np.float64).T
        column = np.clip(np.floor(x).astype(int), 0, width - 2)
        row = np.clip(np.floor(y).astype(int), 0, height - 2)
        corners = np.stack([self._inverse[row + dy, column + dx] for dy in (0, 1) for dx in (0, 1)])
        right, down = x - column, y - row
        weights = np.stack([(1 - right) * (1 - down), right * (1 - down), (1 - right) * down, right * down])
        value = np.sum(weights * corners, axis=0)
        with np.errstate(invalid='ignore'):
            smooth = corners.max(axis=0) - corners.min(axis=0) <= MAX_EDGE * value
        inside = (x >= 0) & (y >= 0) & (x <= width - 1) & (y <= height - 1)
        known = smooth & inside
        return InverseDepth(np.where(known, value, np.nan), np.where(known, self._noise_per_m, np.inf))


class PointDepths:
    """Landmarks that were triangulated one by one; a pixel keeps the depth with the smallest deviation.

    Depths of several pairs of frames are not averaged: they share the errors of the keyframe's points and motions, so
    an average would look better than it is.

    Args:
        size: width and height of the image [px].
    """

    def __init__(self, size: tuple[int, int]):
        # One pixel of border for the neighbours of pixels at the edge.
        shape = (size[1] + 2, size[0] + 2)
        self._value = np.full(shape, np.nan)
        self._sigma = np.full(shape, np.inf)

    def add(self, keypoints: np.ndarray, depth: InverseDepth) -> None:
        """Use `depth` for pixels (N, 2) where it is better than what is known there."""
        row, column = self._pixels(keypoints)
        # Worse ones first, so that the best of several points in one pixel remains.
        order = np.argsort(-depth.sigma, kind='stable')
        order = order[depth.sigma[order] < self._sigma[row[order], column[order]]]
        self._value[row[order], column[order]] = depth.value[order]
        self._sigma[row[order], column[order]] = depth.sigma[order]

    def at(self, keypoints: np.ndarray) -> InverseDepth:
        """Return the best depth in the pixel of each point and the eight around it."""
        row, column = self._pixels(keypoints)
        rows, columns = row[:, None] + NEIGHBOURS[:, 1], column[:, None] + NEIGHBOURS[:, 0]  # (N, 9)
        sigma = self._sigma[rows, columns]
        best = np.argmin(sigma, axis=1)
        every = np.arange(len(best))
        return InverseDepth(self._value[rows, columns][every, best], sigma[every, best])

    def _pixels(self, keypoints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        column, row = np.rint(np.asarray(keypoints, np.float64)).astype(int).T + 1
        return np.clip(row, 1, self._value.shape[0] - 2), np.clip(column, 1, self._value.shape[1] - 2)
