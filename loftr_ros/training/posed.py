"""Training pairs of images with depth and poses: two views that overlap, cropped around a point that both see."""

from __future__ import annotations

import glob
from pathlib import Path

import numpy as np

from loftr_ros import datasets
from loftr_ros.camera import Camera
from loftr_ros.datasets.posed import PosedSet, View
from loftr_ros.errors import InputError
from loftr_ros.image import fraction_from_pixel, scale_matrix
from loftr_ros.training.batch import Pair
from loftr_ros.training.homography import sample_view
from loftr_ros.training.settings import PosedConfig
from loftr_ros.training.supervision import bilinear, inverse_depth, points_from_depth

ATTEMPTS = 8
"""Largest number of pairs that are tried until one overlaps enough."""

OVERVIEW_PX = 128
"""Longer side at which the overlap of whole images is measured."""


def open_posed(patterns: str) -> list[PosedSet]:
    """Return the sets of views in folders or glob patterns separated by ':'.

    Raises:
        InputError: a pattern names no folder, or a folder has no depth or no poses.
    """
    sets = []
    for pattern in filter(None, patterns.split(':')):
        folders = sorted(Path(place) for place in glob.glob(str(Path(pattern).expanduser())))
        folders = [folder for folder in folders if folder.is_dir()]
        if not folders:
            raise InputError(f'data.posed names {pattern}, which is not a folder; needs folders with depth and poses')
        sets += [views for folder in folders for views in datasets.open_posed(folder)]
    return sets


def posed_pair(views: PosedSet, size: tuple[int, int], rng: np.random.Generator, config: PosedConfig) -> Pair:
    """Return crops of `size` (height, width) of two views around a point that both see."""
    best = (None, None, -1.0)
    for _ in range(ATTEMPTS):
        view0, view1 = (views.view(int(index)) for index in _draw(views, rng, config.max_step))
        points01 = _overview(view0, view1, config.tolerance)
        overlap = float(np.isfinite(points01[..., 0]).mean())
        if overlap > best[2]:
            best = ((view0, view1), points01, overlap)
        if overlap >= (config.min_overlap if views.pairs is None else 1e-3):
            break
    chosen, points01, _ = best
    crops = [
        _crop_matrix(view.image.shape, size, share, rng)
        for view, share in zip(chosen, _common_point(points01, chosen, rng), strict=True)
    ]
    return crop_pair(*chosen, *crops, size, config.tolerance)


def crop_pair(
    view0: View, view1: View, crop0: np.ndarray, crop1: np.ndarray, size: tuple[int, int], tolerance: float
) -> Pair:
    """Return the pair whose image i shows at pixel x what view i shows at inv(crop_i) x; crops are (3, 3)."""
    sides = []
    for view, crop in ((view0, crop0), (view1, crop1)):
        camera = Camera(crop @ view.matrix, size[1], size[0])
        image = sample_view(view.image, np.linalg.inv(crop), size)
        sides.append((image, _sample_depth(view, camera, tolerance), camera))
    (image0, depth0, camera0), (image1, depth1, camera1) = sides
    cam1_from_cam0 = np.linalg.inv(view1.world_from_cam) @ view0.world_from_cam
    points01 = points_from_depth(depth0, depth1, camera0, camera1, cam1_from_cam0, tolerance)
    points10 = points_from_depth(depth1, depth0, camera1, camera0, np.linalg.inv(cam1_from_cam0), tolerance)
    return Pair(image0, image1, points01, points10)


def _draw(views: PosedSet, rng: np.random.Generator, max_step: int) -> tuple[int, int]:
    if views.pairs is not None:
        return tuple(views.pairs[rng.integers(len(views.pairs))])
    step = int(rng.integers(1, min(max_step, views.count - 1) + 1))
    first = int(rng.integers(views.count - step))
    return first, first + step


def _overview(view0: View, view1: View, tolerance: float) -> np.ndarray:
    """Return `points01` of the two whole images, resized to OVERVIEW_PX."""
    depths, cameras = [], []
    for view in (view0, view1):
        height, width = view.image.shape
        scale = OVERVIEW_PX / max(height, width)
        matrix = scale_matrix(scale) @ view.matrix
        cameras.append(Camera(matrix, max(1, round(width * scale)), max(1, round(height * scale))))
        depths.append(_sample_depth(view, cameras[-1], tolerance))
    cam1_from_cam0 = np.linalg.inv(view1.world_from_cam) @ view0.world_from_cam
    return points_from_depth(*depths, *cameras, cam1_from_cam0, tolerance)


def _common_point(points01: np.ndarray, views, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return a random point that both images show, as a fraction (x, y) of each size; the centres if there is none."""
    seen = np.argwhere(np.isfinite(points01[..., 0]))
    if not len(seen):
        return np.full(2, 0.5), np.full(2, 0.5)
    row, column = seen[rng.integers(len(seen))]
    places = (np.array([column, row]), points01[row, column])
    return tuple(
        fraction_from_pixel(place, OVERVIEW_PX / max(view.image.shape) * np.array(view.image.shape[::-1]))
        for place, view in zip(places, views, strict=True)
    )


def _crop_matrix(image: tuple[int, int], size: tuple[int, int], share: np.ndarray, rng: np.random.Generator):
    """Return crop_from_image (3, 3), with a scale at which `size` covers at least half of one side of the image.

    The crop is centred on the fraction `share` (x, y) of the image as far as the border allows.
    """
    height, width = size
    cover = max(height / image[0], width / image[1])
    # At most 1.25, as for photographs: an enlarged image has no fine detail.
    scale = max(cover, min(cover * 2 ** rng.uniform(0, 1), 1.25))
    resized = scale * np.array(image[::-1])
    left_top = np.clip(share * resized - (width / 2, height / 2), 0, np.maximum(resized - (width, height), 0))
    crop = scale_matrix(scale)
    crop[:2, 2] -= left_top
    return crop


def _sample_depth(view: View, camera: Camera, tolerance: float) -> np.ndarray:
    """Return float32 (H, W), the depth at the pixels of `camera`; 0 where unknown and at depth discontinuities."""
    x, y = np.meshgrid(np.arange(camera.width), np.arange(camera.height))
    rays = np.stack([x.ravel(), y.ravel(), np.ones(x.size)], axis=1)
    places = (rays @ (view.depth_matrix @ np.linalg.inv(camera.matrix)).T)[:, :2]
    inverse = inverse_depth(view.depth)
    value = bilinear(inverse, places)
    column, row = np.clip(np.rint(places).astype(int), 0, np.array(view.depth.shape[::-1]) - 1).T
    with np.errstate(invalid='ignore'):
        same = np.abs(value - inverse[row, column]) <= tolerance * value  # False for NaN
    depth = np.divide(1.0, value, out=np.zeros_like(value), where=same)
    return depth.astype(np.float32).reshape(camera.height, camera.width)
