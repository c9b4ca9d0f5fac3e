"""Inverse depths of matched points: their type, triangulation with a known motion, transfer to another camera."""

from __future__ import annotations

import dataclasses

import numpy as np

from loftr_ros import geometry
from loftr_ros.camera import Camera
from loftr_ros.datatypes import Matches
from loftr_ros.pose import models
from loftr_ros.pose.models import Points
from loftr_ros.transforms import UncertainTransform

RELIABLE_DEPTH = 0.3
"""The search uses depths with a relative standard deviation up to this; least squares use all."""

MIN_INVERSE_DEPTH = 1e-9
"""Of points at infinity, or behind a camera by noise."""


@dataclasses.dataclass(frozen=True, eq=False)
class InverseDepth:
    """Inverse depths 1 / z of points in camera 0, in the unit of the translation.

    Args:
        value: (N,), NaN where unknown.
        sigma: (N,) standard deviation, infinite where unknown.
    """

    value: np.ndarray
    sigma: np.ndarray

    def __len__(self) -> int:
        return len(self.value)

    @property
    def reliable(self) -> np.ndarray:
        """(N,) bool, known with a relative standard deviation up to RELIABLE_DEPTH."""
        with np.errstate(invalid='ignore'):
            return self.sigma <= RELIABLE_DEPTH * self.value

    def select(self, index) -> InverseDepth:
        return InverseDepth(self.value[index], self.sigma[index])

    @classmethod
    def unknown(cls, count: int) -> InverseDepth:
        return cls(np.full(count, np.nan), np.full(count, np.inf))


def triangulate(matches: Matches, camera0: Camera, camera1: Camera, cam1_from_cam0: UncertainTransform, gate_px: float):
    """Return the InverseDepth of keypoints0 from their places in image 1.

    Unknown where the match is more than `gate_px` off its epipolar line, or behind a camera by more than its noise.

    Args:
        cam1_from_cam0: its covariance is that of the length of the translation, which all depths share.
    """
    depth = InverseDepth.unknown(len(matches))
    points = models.usable_points(matches, camera0, camera1)
    if not len(points):
        return depth
    value, along, across = depth_along_line(points, cam1_from_cam0.matrix)
    translation = cam1_from_cam0.translation
    z = (cam1_from_cam0.rotation @ points.rays0)[2] + value * translation[2]
    noise = matches.sigma_px[points.rows].astype(np.float64)
    known = np.isfinite(noise) & (noise > 0)
    noise[~known] = np.median(noise[known]) if known.any() else 1.0
    with np.errstate(divide='ignore', invalid='ignore'):
        error_px = across / z
        sigma = noise * np.abs(z) / along
        length = np.linalg.norm(translation)
        direction = translation / length
        relative = np.sqrt(max(direction @ cam1_from_cam0.covariance[:3, :3] @ direction, 0.0)) / length
        sigma = np.hypot(sigma, relative * value)
        valid = (z > 0) & (error_px <= gate_px) & (value > -2 * sigma) & np.isfinite(sigma)
    value = np.maximum(value, MIN_INVERSE_DEPTH)
    depth.value[points.rows[valid]] = value[valid]
    depth.sigma[points.rows[valid]] = sigma[valid]
    return depth


def depth_along_line(points: Points, cam1_from_cam0: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the inverse depth (n,) at which each match is nearest, and the derivative and the error there (n,).

    x1 ~ R x0 + rho t are two equations, linear in rho. Derivative and error are in pixels of image 1, times z in
    camera 1 over z in camera 0.
    """
    rotation, translation = cam1_from_cam0[:3, :3], cam1_from_cam0[:3, 3]
    rotated = rotation @ points.rays0
    along = np.einsum('ijn,jn->in', points.to_px1, translation[:2, None] - points.rays1[:2] * translation[2])
    offset = np.einsum('ijn,jn->in', points.to_px1, points.rays1[:2] * rotated[2] - rotated[:2])
    length = np.maximum(np.sqrt(np.sum(along**2, axis=0)), np.finfo(float).tiny)
    direction = along / length
    value = np.sum(direction * offset, axis=0) / length
    return value, length, np.abs(direction[0] * offset[1] - direction[1] * offset[0])


def carry_depth(depth: InverseDepth, camera0: Camera, keypoints0: np.ndarray, cam1_from_cam0: np.ndarray):
    """Return the InverseDepth in camera 1 of points that have `depth` in camera 0."""
    rays0 = geometry.homogeneous(geometry.undistort_points(camera0, keypoints0)).T
    rotated = (cam1_from_cam0[:3, :3] @ rays0)[2]
    with np.errstate(divide='ignore', invalid='ignore'):
        z = rotated + depth.value * cam1_from_cam0[2, 3]  # z in camera 1 over z in camera 0
        value, sigma = depth.value / z, depth.sigma * np.abs(rotated) / z**2
        valid = (z > 0) & np.isfinite(value) & np.isfinite(sigma)
    return InverseDepth(np.where(valid, value, np.nan), np.where(valid, sigma, np.inf))
