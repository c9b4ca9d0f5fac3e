"""The two models of a pair of images: epipolar geometry (5 degrees of freedom) and rotation alone (3).

Arrays have one column for each match, so that every operation runs along contiguous memory.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from loftr_ros import geometry
from loftr_ros.camera import Camera
from loftr_ros.datatypes import Matches

ROTATION_THRESHOLD_RATIO = 1.249
"""Ratio of a two-dimensional to a one-dimensional error of equal probability: sqrt(5.99 / 3.84), chi-square at 95 %."""

SIGMA_SPREAD = 4.0
"""Weights from `sigma_px` are limited to this factor around their median: a few overconfident ones must not decide."""

NEAREST_PX = 1e-3
"""Nearer to both epipoles than this, where the error is not defined, it is computed as if it was this far away."""

TILES = 4
"""Number of tiles along the longer side of an image (160 px of 640). Errors within one tile may depend on each other.
Smaller tiles (90 px) miss a quarter of the variance on rendered drives."""

PATCHES = 14
"""Number of patches along the square root of an image's area (40 px in 640x480). Matches from one patch to one patch
count as one."""


@dataclasses.dataclass(frozen=True)
class Points:
    """Usable matches without distortion.

    Args:
        rays0, rays1: (3, n), normalised points, third coordinate 1.
        jacobian0, jacobian1: (2, 2, n), derivative of the normalised point with respect to the pixel [1/px].
        to_px1: (2, 2, n), the inverse of jacobian1.
        weights: (n,), inverse standard deviation relative to its median.
        tiles: (n,) int, number of the tile of image 0 that contains the point.
        patches: (n,) int, equal for matches from one patch of image 0 to one patch of image 1.
        rows: (n,), their rows in Matches.
        log10_dependence: as in Matches.
        on_surfaces: whether the points come from images, so that they are on visible surfaces.
    """

    rays0: np.ndarray
    rays1: np.ndarray
    jacobian0: np.ndarray
    jacobian1: np.ndarray
    to_px1: np.ndarray
    weights: np.ndarray
    tiles: np.ndarray
    patches: np.ndarray
    rows: np.ndarray
    log10_dependence: float
    on_surfaces: bool

    def __len__(self) -> int:
        return len(self.rows)

    def select(self, index: np.ndarray) -> Points:
        """Return the points `index` (integers)."""
        return self.paired(index, index)

    def paired(self, first: np.ndarray, second: np.ndarray) -> Points:
        """Return the points `first` of image 0 paired with the points `second` of image 1 (indices)."""
        of_image1 = {name: getattr(self, name)[..., second] for name in ('rays1', 'jacobian1', 'to_px1')}
        of_image0 = {
            name: getattr(self, name)[..., first]
            for name in ('rays0', 'jacobian0', 'weights', 'tiles', 'patches', 'rows')
        }
        return dataclasses.replace(self, **of_image0, **of_image1)

    def spread(self, count: int) -> Points:
        """Return `count` points at most, as many from each tile as there are; earlier matches first."""
        if len(self) <= count:
            return self
        by_tile = np.argsort(self.tiles, kind='stable')
        starts = np.searchsorted(self.tiles[by_tile], self.tiles[by_tile])
        rank = np.empty(len(self), int)
        rank[by_tile] = np.arange(len(self)) - starts
        return self.select(np.sort(np.argsort(rank, kind='stable')[:count]))

    def pixels(self, focal: float) -> list[np.ndarray]:
        """Return the points of both images, each (n, 2) [px], in a camera of this focal length without offset."""
        return [np.ascontiguousarray(rays[:2].T) * focal for rays in (self.rays0, self.rays1)]

    @functools.cached_property
    def focal_px(self) -> float:
        """Focal length [px] of a single ideal camera in which errors have the same size in pixels as here.

        Averages the inverse squares of both cameras, as the Sampson error does if its two gradients are equal.
        """
        areas = [np.median(np.abs(_determinant(jacobian))) for jacobian in (self.jacobian0, self.jacobian1)]
        return float(np.mean(areas) ** -0.5)


def usable_points(matches: Matches, camera0: Camera, camera1: Camera) -> Points:
    """Return the matches without distortion, without those that are not finite or have no ray."""
    points0, jacobian0 = geometry.undistort_with_jacobian(camera0, matches.keypoints0)
    points1, jacobian1 = geometry.undistort_with_jacobian(camera1, matches.keypoints1)
    rows = np.flatnonzero(np.isfinite(points0).all(axis=1) & np.isfinite(points1).all(axis=1))
    jacobian0, jacobian1 = (
        np.ascontiguousarray(np.moveaxis(jacobian[rows], 0, -1)) for jacobian in (jacobian0, jacobian1)
    )
    return Points(
        *(np.ascontiguousarray(geometry.homogeneous(points[rows]).T) for points in (points0, points1)),
        jacobian0,
        jacobian1,
        _inverse(jacobian1),
        _weights(matches.sigma_px[rows]),
        _tiles(matches.keypoints0[rows], camera0),
        _patches(matches.keypoints0[rows], matches.keypoints1[rows], camera0, camera1),
        rows,
        matches.log10_dependence,
        matches.from_images,
    )


def _tiles(keypoints: np.ndarray, camera: Camera) -> np.ndarray:
    side = max(camera.width, camera.height) / TILES
    column, row = (keypoints // side).astype(int).T
    return row * TILES + column


def _patches(keypoints0: np.ndarray, keypoints1: np.ndarray, camera0: Camera, camera1: Camera) -> np.ndarray:
    sides = [np.sqrt(camera.width * camera.height) / PATCHES for camera in (camera0, camera1)]
    places = np.column_stack([keypoints0 // sides[0], keypoints1 // sides[1]]).astype(np.int64)
    number = places @ [1 << 48, 1 << 32, 1 << 16, 1]  # one integer: faster than np.unique of rows
    return np.unique(number, return_inverse=True)[1]


def _weights(sigma_px: np.ndarray) -> np.ndarray:
    """Return the precision of each match relative to the median, from its standard deviation; 1 where it is unknown."""
    weights = np.ones(len(sigma_px))
    known = np.isfinite(sigma_px) & (sigma_px > 0)
    if known.any():
        ratio = np.median(sigma_px[known]) / sigma_px[known].astype(np.float64)
        weights[known] = np.clip(ratio, 1 / SIGMA_SPREAD, SIGMA_SPREAD)
    return weights


# --- matrices (2, 2, n) ------------------------------------------------------------------------------------------


def _determinant(matrix: np.ndarray) -> np.ndarray:
    return matrix[0, 0] * matrix[1, 1] - matrix[0, 1] * matrix[1, 0]


def _inverse(matrix: np.ndarray) -> np.ndarray:
    return np.array([[matrix[1, 1], -matrix[0, 1]], [-matrix[1, 0], matrix[0, 0]]]) / _determinant(matrix)


def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.einsum('ijn,jkn->ikn', a, b)


# --- epipolar model ----------------------------------------------------------------------------------------------


def tangent(direction: np.ndarray) -> np.ndarray:
    """Return (3, 2), an orthonormal basis of the plane perpendicular to a unit vector (Duff et al., 2017)."""
    x, y, z = direction
    sign = np.copysign(1.0, z)
    a = -1 / (sign + z)
    b = x * y * a
    return np.array([[1 + sign * x * x * a, b], [sign * b, sign + y * y * a], [-sign * x, -y]])


def retract_pose(state, step):
    """Apply a step (5,) to (rotation, unit translation): rotation vector (left), direction in its tangent plane."""
    rotation, translation = state
    translation = translation + tangent(translation) @ step[3:]
    return retract_rotation(rotation, step[:3]), translation / np.linalg.norm(translation)


def epipolar_errors(rotation, translation, points: Points) -> np.ndarray:
    """Return the signed Sampson errors (n,) [px]."""
    essential = geometry.skew(translation) @ rotation
    return geometry.sampson_error(essential, points.rays0, points.rays1, points.jacobian0, points.jacobian1)


def epipolar_model(state, points: Points) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return Sampson errors (1, n) [px], derivatives (5, 1, n) by the steps of `retract_pose`, expected derivatives.

    The expected derivatives omit the part that is proportional to the error. Near the epipole that part is large and
    would look like information.
    """
    rotation, translation = state
    cross = geometry.skew(translation)
    turns = cross @ TURNS @ rotation
    shifts = geometry.skew(tangent(translation).T) @ rotation
    bases = np.concatenate([(cross @ rotation)[None], turns, shifts])  # (6, 3, 3): E and its five derivatives
    line1 = (bases.reshape(18, 3) @ points.rays0).reshape(6, 3, -1)  # E x0
    line0 = (bases.transpose(0, 2, 1).reshape(18, 3) @ points.rays1).reshape(6, 3, -1)  # E^T x1
    constraint = line1[:, 0] * points.rays1[0] + line1[:, 1] * points.rays1[1] + line1[:, 2]
    gradient = [*_by_pixel(line0, points.jacobian0), *_by_pixel(line1, points.jacobian1)]  # 4 of (6, n)
    length = np.maximum(np.sqrt(sum(part[0] ** 2 for part in gradient)), NEAREST_PX / points.focal_px**2)
    constraint /= length
    error, expected = constraint[:1], constraint[1:]
    stretch = sum(part[1:] * part[0] for part in gradient) / length**2
    return error, (expected - error * stretch)[:, None], expected[:, None]


TURNS = geometry.skew(np.eye(3))
"""(3, 3, 3): derivatives of a rotation by a rotation vector at 0."""


def _by_pixel(lines: np.ndarray, jacobian: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the first two rows of lines (k, 3, n), transposed times the derivative by the pixel: twice (k, n)."""
    x, y = lines[:, 0], lines[:, 1]
    return x * jacobian[0, 0] + y * jacobian[1, 0], x * jacobian[0, 1] + y * jacobian[1, 1]


def direction_of_translation(rotation, points: Points, threshold_px: float) -> np.ndarray:
    """Return the unit translation (3,) that best explains the matches for a given rotation (reweighted, linear).

    Each match constrains the translation to the plane of its two rays.
    """
    normals = np.cross(rotation @ points.rays0, points.rays1, axis=0) * (points.focal_px / threshold_px)
    weights = np.ones(len(points))
    for _ in range(10):
        direction = np.linalg.eigh((normals * weights) @ normals.T)[1][:, 0]
        weights = 1 / (1 + (direction @ normals) ** 2)
    return resolve_sign(rotation, direction, points, threshold_px)


def parallax_px(rotation, translation, points: Points) -> tuple[np.ndarray, np.ndarray]:
    """Return the parallax of each point (n,) [px] along the direction (2, n), also returned, in which near points move.

    `translation` gives this direction. With `whitening`, so that noise of 1 px in both images gives noise of 1 px.
    Negative if the rays meet behind the cameras: the translation is reversed or the match is wrong.
    """
    white = whitening(rotation, points)
    image, _ = _rotate_and_project(rotation, points)
    along = np.einsum('ijn,jn->in', white, translation[:2, None] - image * translation[2])
    along /= np.maximum(np.sqrt(np.sum(along**2, axis=0)), np.finfo(float).tiny)
    return np.einsum('in,in->n', along, rotation_errors(rotation, points, white)), along


def resolve_sign(rotation, translation, points: Points, threshold_px: float) -> np.ndarray:
    """Return the translation or its opposite, whichever agrees with more of the parallax.

    Matches with an epipolar error within the threshold vote; all parallaxes above the threshold have the same vote.
    """
    near = np.abs(epipolar_errors(rotation, translation, points)) <= threshold_px
    parallax = parallax_px(rotation, translation, points)[0][near]
    votes = np.clip(parallax[np.isfinite(parallax)] / threshold_px, -1, 1)
    return -translation if votes.sum() < 0 else translation


def is_in_front(rotation, translation, points: Points, threshold_px: float) -> np.ndarray:
    """Return (n,) bool, positive depth; a point at infinity may be behind by noise, within the threshold."""
    in_front = geometry.in_front(rotation, translation, points.rays0, points.rays1)
    rest = np.flatnonzero(~in_front)
    if len(rest):
        points = points.select(rest)
        errors = rotation_errors(rotation, points, whitening(rotation, points))
        in_front[rest] = np.hypot(*errors) <= ROTATION_THRESHOLD_RATIO * threshold_px
    return in_front


def cost(rotation, translation, points: Points, threshold_px: float) -> float:
    """Return the truncated sum of squared Sampson errors, in thresholds (MSAC)."""
    errors = np.abs(epipolar_errors(rotation, translation, points)) / threshold_px
    return float(
        np.sum(np.where(is_in_front(rotation, translation, points, threshold_px), np.minimum(errors, 1) ** 2, 1))
    )


# --- model without translation -----------------------------------------------------------------------------------


def retract_rotation(rotation: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Apply a step, a rotation vector (3,), to a rotation from the left."""
    return geometry.rotation_from_vector(step) @ rotation


def whitening(rotation, points: Points) -> np.ndarray:
    """Return (2, 2, n), which transform a difference of normalised points in image 1 into an error with unit noise.

    For noise of 1 px in both images; the rotation carries that of image 0 to image 1. The result is the inverse of the
    Cholesky factor of the covariance in pixels of image 1, times the derivative of these pixels.
    """
    image, depth = _rotate_and_project(rotation, points)
    slope = rotation[:2, :2, None] - image[:, None] * rotation[2, :2, None]  # (2, 2, n): image by x0, times depth
    along = _product(_product(points.to_px1, slope), points.jacobian0) / depth  # pixel 1 by pixel 0
    xx, yy = 1 + along[0, 0] ** 2 + along[0, 1] ** 2, 1 + along[1, 0] ** 2 + along[1, 1] ** 2
    xy = along[0, 0] * along[1, 0] + along[0, 1] * along[1, 1]
    first = 1 / np.sqrt(xx)
    second = 1 / np.sqrt(np.maximum(yy - xy**2 / xx, 1))  # rounding may take it below 1, the noise of image 1 alone
    white = np.empty_like(along)
    white[0] = points.to_px1[0] * first
    white[1] = (points.to_px1[1] - points.to_px1[0] * (xy / xx)) * second
    return white


def rotation_errors(rotation, points: Points, white: np.ndarray) -> np.ndarray:
    """Return errors (2, n) [px] of x1 = R x0 with `whitening`; infinite where the rotated ray is behind the camera."""
    return projection_errors(*_rotate_and_project(rotation, points), points, white)


def rotation_model(rotation, points: Points, white: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return errors (2, n) [px], derivatives (3, 2, n) by the steps of `retract_rotation`, and the same as expected."""
    image, depth = _rotate_and_project(rotation, points)
    x, y = image
    slope = np.array([[x * y, 1 + y * y], [-1 - x * x, -x * y], [y, -x]])
    jacobian = np.einsum('ijn,pjn->pin', white, slope)
    return projection_errors(image, depth, points, white), jacobian, jacobian


def projection_errors(image, depth, points: Points, white: np.ndarray) -> np.ndarray:
    """Return whitened errors (2, n) [px] of projected points (2, n), infinite where their depth (n,) is."""
    errors = np.einsum('ijn,jn->in', white, points.rays1[:2] - image)
    return np.where(np.isfinite(depth), errors, np.inf)


def _rotate_and_project(rotation, points: Points) -> tuple[np.ndarray, np.ndarray]:
    """Return the normalised points (2, n) of the rotated rays in image 1, and their depth (n,), infinite behind it."""
    rays = rotation @ points.rays0
    depth = np.where(rays[2] > 0, rays[2], np.inf)
    return rays[:2] / depth, depth
