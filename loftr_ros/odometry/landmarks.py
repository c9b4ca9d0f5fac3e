"""Depth of the points of a keyframe, from a depth image or for single points. Points are found by their pixel.

Pixels identify points here, because not every matcher numbers its points, and because a point that was tracked into the
keyframe from an earlier one is at most a pixel off the point that the matcher uses there.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from loftr_ros.pose.inverse_depth import InverseDepth

MAX_EDGE = 0.05
"""Depths around a point that differ by more than this share are an edge: the point may be on either side."""

ENOUGH_DEPTH = 0.3
"""If at most this share of the points lacks depth, none is interpolated."""
NEIGHBOURHOOD_PX = 24.0
"""Points up to this distance from a pixel are used to interpolate its depth ..."""
CELL_PX = 8
MIN_NEIGHBOURS = 5
"""... if there are at least this number of them."""
INTERPOLATION_FACTOR = 2.0
"""The scatter of the neighbours underestimates the deviation by this factor, measured on rendered rooms."""

NEIGHBOURS = np.array([(dx, dy) for dy in (-1, 0, 1) for dx in (-1, 0, 1)])


class Landmarks(Protocol):
    """Depth of points of a keyframe."""

    def at(self, keypoints: np.ndarray) -> InverseDepth:
        """Return the InverseDepth of pixels (N, 2)."""
        ...

    def filled(self, keypoints: np.ndarray) -> InverseDepth:
        """Return the same; where it is unknown, interpolate it between the points around a pixel."""
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

    def filled(self, keypoints: np.ndarray) -> InverseDepth:
        """Return the same as `at`: unknown pixels of a depth camera are mostly on edges or out of its range."""
        return self.at(keypoints)


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

    def filled(self, keypoints: np.ndarray) -> InverseDepth:
        """Return the depth of the pixels, interpolated where no point is near enough.

        Without it, points without depth may be the majority; they hold a motion across their epipolar lines only.
        """
        depth = self.at(keypoints)
        missing = np.flatnonzero(~depth.reliable)
        if len(missing) <= ENOUGH_DEPTH * len(depth):
            return depth
        found = self._interpolate(np.asarray(keypoints)[missing])
        better = found.sigma < depth.sigma[missing]
        depth.value[missing[better]] = found.value[better]
        depth.sigma[missing[better]] = found.sigma[better]
        return depth

    def _interpolate(self, keypoints: np.ndarray) -> InverseDepth:
        """Return the depth of the plane through the points around each pixel (N, 2), unknown where they are on none.

        Inverse depth is linear in the pixel on a plane. Needed are MIN_NEIGHBOURS points within NEIGHBOURHOOD_PX whose
        misfit is small; otherwise there is a depth edge, where a point may be on either side.
        """
        rows, columns = self._best_of_cells()
        if len(rows) < MIN_NEIGHBOURS:
            return InverseDepth.unknown(len(keypoints))
        # In units of the neighbourhood, around the middle of the image so that the moments are exact enough.
        middle = np.array(self._value.shape[::-1]) / 2
        places = (np.column_stack([columns, rows]) - middle) / NEIGHBOURHOOD_PX
        asked = (np.asarray(keypoints, np.float64) + 1 - middle) / NEIGHBOURHOOD_PX  # + 1: the border
        squares = np.sum(asked**2, axis=1)[:, None] + np.sum(places**2, axis=1) - 2 * asked @ places.T
        near = np.maximum(0.0, 1.0 - squares)  # (N, M)
        value, sigma = self._value[rows, columns], self._sigma[rows, columns]
        weights = near / np.maximum(sigma, np.median(sigma)) ** 2
        x, y = places.T
        terms = (np.ones_like(x), x, y, x * x, x * y, y * y, value, x * value, y * value, value**2)
        moments = weights @ np.column_stack(terms)
        one, mx, my, mxx, mxy, myy, mv, mxv, myv, mvv = moments.T
        one = np.maximum(one, np.finfo(float).tiny)
        # Moved to the pixel itself, where the plane's constant is the depth.
        ax, ay = asked.T
        dx, dy = mx - ax * one, my - ay * one
        dxx, dyy = mxx - 2 * ax * mx + ax**2 * one, myy - 2 * ay * my + ay**2 * one
        dxy = mxy - ax * my - ay * mx + ax * ay * one
        normal = np.array([[one, dx, dy], [dx, dxx, dxy], [dy, dxy, dyy]]).transpose(2, 0, 1)
        normal += 1e-6 * one[:, None, None] * np.eye(3)
        right = np.column_stack([mv, mxv - ax * mv, myv - ay * mv])
        inverse = np.linalg.inv(normal)
        plane = np.einsum('nij,nj->ni', inverse, right)
        spread = np.sqrt(np.maximum(mvv - np.einsum('ni,ni->n', plane, right), 0) / one)
        count = np.count_nonzero(near, axis=1)
        known = (count >= MIN_NEIGHBOURS) & (plane[:, 0] > 0) & (spread <= MAX_EDGE * plane[:, 0])
        # The errors of neighbours are correlated, so the mean of many is not better than one.
        deviation = INTERPOLATION_FACTOR * np.hypot(spread, np.sqrt(np.abs(inverse[:, 0, 0])))
        return InverseDepth(np.where(known, plane[:, 0], np.nan), np.where(known, deviation, np.inf))

    def _best_of_cells(self) -> tuple[np.ndarray, np.ndarray]:
        """Return rows and columns of the best point of each cell of CELL_PX: more neighbours add no information."""
        rows, columns = np.nonzero(np.isfinite(self._value))
        cells = rows // CELL_PX * self._value.shape[1] + columns // CELL_PX
        order = np.lexsort((self._sigma[rows, columns], cells))
        first = order[np.unique(cells[order], return_index=True)[1]]
        return rows[first], columns[first]

    def _pixels(self, keypoints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        column, row = np.rint(np.asarray(keypoints, np.float64)).astype(int).T + 1
        return np.clip(row, 1, self._value.shape[0] - 2), np.clip(column, 1, self._value.shape[1] - 2)
