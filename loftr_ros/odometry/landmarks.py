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
REACH = int(NEIGHBOURHOOD_PX) // CELL_PX
WINDOW = tuple(side.ravel() for side in np.mgrid[-REACH : REACH + 1, -REACH : REACH + 1])
"""Rows and columns of the cells of a neighbourhood, from its middle."""

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
        # The best point of each cell: more neighbours add no information. The border is as wide as a neighbourhood.
        cells = tuple(side // CELL_PX + 1 + 2 * REACH for side in shape)
        self._cell_value, self._cell_sigma = np.zeros(cells), np.full(cells, np.inf)
        self._cell_place = np.zeros((2, *cells))  # row and column of the point

    def add(self, keypoints: np.ndarray, depth: InverseDepth) -> None:
        """Use `depth` for pixels (N, 2) where it is better than what is known there."""
        row, column = self._pixels(keypoints)
        # Worse ones first, so that the best of several points in one pixel remains.
        order = np.argsort(-depth.sigma, kind='stable')
        order = order[depth.sigma[order] < self._sigma[row[order], column[order]]]
        self._value[row[order], column[order]] = depth.value[order]
        self._sigma[row[order], column[order]] = depth.sigma[order]
        cell = _cells(row, column)
        order = order[depth.sigma[order] < self._cell_sigma[cell][order]]
        cell = _cells(row[order], column[order])
        self._cell_value[cell], self._cell_sigma[cell] = depth.value[order], depth.sigma[order]
        self._cell_place[0][cell], self._cell_place[1][cell] = row[order], column[order]

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
        known = np.isfinite(self._cell_sigma)
        if np.count_nonzero(known) < MIN_NEIGHBOURS:
            return InverseDepth.unknown(len(keypoints))
        column, row = np.asarray(keypoints, np.float64).T + 1  # + 1: the border
        around = tuple(own[:, None] + step for own, step in zip(_cells(*self._pixels(keypoints)), WINDOW, strict=True))
        value, sigma = self._cell_value[around], self._cell_sigma[around]  # (N, cells)
        y, x = (
            (self._cell_place[axis][around] - own[:, None]) / NEIGHBOURHOOD_PX for axis, own in ((0, row), (1, column))
        )
        near = np.where(np.isfinite(sigma), np.maximum(0.0, 1.0 - x * x - y * y), 0.0)
        weights = near / np.maximum(sigma, np.median(self._cell_sigma[known])) ** 2
        wx, wy, wv = weights * x, weights * y, weights * value
        one = np.maximum(weights.sum(axis=1), np.finfo(float).tiny)
        mx, my, mv = wx.sum(axis=1), wy.sum(axis=1), wv.sum(axis=1)
        mxx, mxy, myy, mxv, myv, mvv = (
            np.einsum('nc,nc->n', *pair) for pair in ((wx, x), (wx, y), (wy, y), (wx, value), (wy, value), (wv, value))
        )
        normal = np.array([[one, mx, my], [mx, mxx, mxy], [my, mxy, myy]]).transpose(2, 0, 1)
        normal += 1e-6 * one[:, None, None] * np.eye(3)
        right = np.column_stack([mv, mxv, myv])
        inverse = np.linalg.inv(normal)
        plane = np.einsum('nij,nj->ni', inverse, right)
        spread = np.sqrt(np.maximum(mvv - np.einsum('ni,ni->n', plane, right), 0) / one)
        count = np.count_nonzero(near, axis=1)
        known = (count >= MIN_NEIGHBOURS) & (plane[:, 0] > 0) & (spread <= MAX_EDGE * plane[:, 0])
        # The errors of neighbours are correlated, so the mean of many is not better than one.
        deviation = INTERPOLATION_FACTOR * np.hypot(spread, np.sqrt(np.abs(inverse[:, 0, 0])))
        return InverseDepth(np.where(known, plane[:, 0], np.nan), np.where(known, deviation, np.inf))

    def _pixels(self, keypoints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        column, row = np.rint(np.asarray(keypoints, np.float64)).astype(int).T + 1
        return np.clip(row, 1, self._value.shape[0] - 2), np.clip(column, 1, self._value.shape[1] - 2)


def _cells(row: np.ndarray, column: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows and columns of the cells of pixels in the arrays of PointDepths."""
    return row // CELL_PX + REACH, column // CELL_PX + REACH
