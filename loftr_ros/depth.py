"""Depth images that were taken by another camera than the image, for example by the infrared cameras of a RealSense."""

from __future__ import annotations

import numpy as np

from loftr_ros import geometry
from loftr_ros.camera import Camera
from loftr_ros.datatypes import FrameSet

MAX_FOOTPRINT = 8
"""Pixels of the image that one pixel of depth covers along each axis, at most."""


def depth_of_image(frames: FrameSet) -> np.ndarray:
    """Return the depth of each pixel of the image of a frame set (H, W) [m], NaN where unknown."""
    if frames.depth_camera is None:
        return frames.depth_m
    return register_depth(frames.depth_m, frames.depth_camera, frames.frame0.camera, frames.cam0_from_depth)


def register_depth(depth_m, depth_camera: Camera, camera: Camera, cam_from_depth) -> np.ndarray:
    """Return the depth of each pixel of another camera (H, W) float32 [m], NaN where it is not known.

    Each pixel of depth becomes a point and covers the pixels of the camera that lie within its size there; the nearest
    point hides the others, as in librealsense's align and depth_image_proc's register.

    Args:
        depth_m: (H', W') z [m] in the depth camera; 0, NaN or infinite where unknown.
        cam_from_depth: (4, 4) [m].
    """
    # float32 is exact to 1e-4 px, and takes half the time.
    depth_m = np.asarray(depth_m, np.float32)
    cam_from_depth = np.asarray(cam_from_depth, np.float32)
    row, column = np.nonzero(np.isfinite(depth_m) & (depth_m > 0))
    z_there = depth_m[row, column]
    turn = cam_from_depth[:3, :3]
    points = turn[:, :2] @ _rays(depth_camera, column, row) + turn[:, 2:]  # (3, N): the products are fast this way
    points = points * z_there + cam_from_depth[:3, 3:]
    pixels, z = _project(camera, points), points[2]
    with np.errstate(divide='ignore', invalid='ignore'):
        size = np.clip(camera.focal_px / depth_camera.focal_px * z_there / z, 1.0, MAX_FOOTPRINT)
        near = (z > 0) & (pixels > -size).all(axis=0)
        near &= (pixels[0] < camera.width + size) & (pixels[1] < camera.height + size)
    pixels, size, z = pixels[:, near], size[near], z[near]
    # The pixels whose centre is in [p - size / 2, p + size / 2): none is left out between neighbours on a plane.
    first, end = (np.ceil(pixels + side * size / 2).astype(np.int32) for side in (-1, 1))
    nearest = np.full((camera.height, camera.width), np.inf, np.float32)
    across, down = np.max(end - first, axis=1, initial=0)
    for dy, dx in np.ndindex(down, across):
        x, y = first[0] + dx, first[1] + dy
        covered = (x < end[0]) & (y < end[1]) & (x >= 0) & (y >= 0) & (x < camera.width) & (y < camera.height)
        np.minimum.at(nearest, (y[covered], x[covered]), z[covered])
    return np.where(np.isfinite(nearest), nearest, np.float32(np.nan))


def _rays(camera: Camera, column: np.ndarray, row: np.ndarray) -> np.ndarray:
    """Return the normalised points (2, N) of pixels; NaN where there is none."""
    if camera.is_distorted:
        return geometry.undistort_points(camera, np.column_stack([column, row])).T.astype(np.float32)
    inverse = np.linalg.inv(camera.matrix).astype(np.float32)[:2]
    return inverse[:, :2] @ np.stack([column, row]).astype(np.float32) + inverse[:, 2:]


def _project(camera: Camera, points: np.ndarray) -> np.ndarray:
    """Return the pixels (2, N) of points (3, N); for points behind the camera any value."""
    if camera.is_distorted:
        return geometry.project(camera, points.T).T.astype(np.float32)
    matrix = camera.matrix.astype(np.float32)[:2]
    with np.errstate(divide='ignore', invalid='ignore'):
        return matrix[:, :2] @ (points[:2] / points[2]) + matrix[:, 2:]
