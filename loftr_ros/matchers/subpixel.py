"""Sub-pixel refinement by least squares on grey values (Lucas and Kanade, IJCAI 1981), for every matcher.

A network finds its points in maps of half the resolution or less. Between neighbouring frames of a video, the grey
values of a patch locate a point ten times as accurately. Where they do not (no texture, large change of scale or angle,
occlusion), the point of the matcher is kept.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import cv2
import numpy as np

from loftr_ros.datatypes import Matches
from loftr_ros.image import to_grey
from loftr_ros.matchers.base import Features, Matcher

RADIUS = 5
"""A patch has 11 x 11 pixels: 7 to 15 are equally good on KITTI; a small one is less sensitive to scale."""

MAX_MOVE_PX = 1.5
"""Largest correction [px of the matcher's image]: a larger one means a wrong place."""

MIN_CORRELATION = 0.6
"""Least normalised correlation of the patches. 0.8 loses half of the low-contrast, noisy points of TartanAir."""

MAX_SIGMA_PX = 0.3
"""Largest deviation [px]: above it the patch is not more accurate than a network."""

MODEL_SIGMA_PX = 0.1
"""Errors that the residual does not show: interpolation, and the change of shape within a patch."""

TILE_PX = 40
"""Side of the tiles in which matches determine the local warp; three by three of them are fitted together."""

FITS, MISFIT_PX = 4, 2.0
"""Rounds of reweighting, and the scale of their Cauchy weights."""

MIN_NEIGHBOURS = 12
"""Least sum of the weights of the matches of a fit: four matches for each two unknowns."""

STEPS, SMALL_STEP_PX = 8, 0.02

CHUNK_SIZE = 1024
"""Number of patches at once: arrays of 0.5 MB fit into the cache."""


class Refined(NamedTuple):
    """N points of image 1 after the refinement."""

    points1: np.ndarray  # (N, 2) float64 [px], as given if not `is_refined`
    sigma_px: np.ndarray  # (N,) float64 standard deviation along each axis [px], NaN if not `is_refined`
    is_refined: np.ndarray  # (N,) bool


@dataclasses.dataclass(frozen=True, eq=False)
class SubpixelFeatures:
    """An image and the features of the refined matcher."""

    grey: np.ndarray  # uint8 (H, W)
    features: Features


class SubpixelMatcher(Matcher):
    """A matcher whose points in image 1 are refined in the original images.

    `sigma_px` of a refined match is that of the least squares; the other matches keep that of the matcher.
    """

    def __init__(self, matcher: Matcher, resize_max: int):
        self.matcher, self.name = matcher, matcher.name
        self._resize_max = resize_max

    @property
    def notes(self) -> Mapping[str, str]:
        return self.matcher.notes

    def extract(self, image: np.ndarray) -> SubpixelFeatures:
        features = self.matcher.extract(image)  # first, because it checks that this is an image
        return SubpixelFeatures(to_grey(image), features)

    def match(self, features0: SubpixelFeatures, features1: SubpixelFeatures) -> Matches:
        matches = self.matcher.match(features0.features, features1.features)
        longest = max(features1.grey.shape)
        scale = max(longest / self._resize_max, 1.0) if self._resize_max else 1.0
        refined = lucas_kanade(
            features0.grey, features1.grey, matches.keypoints0, matches.keypoints1, MAX_MOVE_PX * scale
        )
        sigma = np.where(refined.is_refined, refined.sigma_px, matches.sigma_px)
        return dataclasses.replace(matches, keypoints1=refined.points1, sigma_px=sigma)

    def keep_points(self, features0: SubpixelFeatures, matches: Matches) -> SubpixelFeatures:
        return dataclasses.replace(features0, features=self.matcher.keep_points(features0.features, matches))

    def point_ids_at(self, features: SubpixelFeatures, keypoints: np.ndarray) -> np.ndarray:
        return self.matcher.point_ids_at(features.features, keypoints)


def lucas_kanade(
    image0: np.ndarray, image1: np.ndarray, points0: np.ndarray, points1: np.ndarray, max_move_px: float = MAX_MOVE_PX
) -> Refined:
    """Return the positions in image 1, near `points1`, of the patches around `points0`.

    Gauss-Newton on the shift of a patch, with unknown brightness and contrast (Baker and Matthews, IJCV 2004, the
    inverse compositional form). Rotation, scale and shear come from the matches around it.

    Args:
        image0, image1: uint8 (H, W), sizes may differ. points0, points1: (N, 2) x, y [px].
    """
    # float32, because OpenCV rounds the interpolation of uint8 images to whole grey values.
    image0, image1 = (image.astype(np.float32) for image in (image0, image1))
    points0, points1 = (np.asarray(points, np.float64) for points in (points0, points1))
    refined = Refined(points1.copy(), np.full(len(points1), np.nan), np.zeros(len(points1), bool))
    usable = np.flatnonzero(_has_patch(points0, image0, RADIUS + 1) & _has_patch(points1, image1, RADIUS))
    warps = local_warps(points0[usable], points1[usable])
    for start in range(0, len(usable), CHUNK_SIZE):
        rows = usable[start : start + CHUNK_SIZE]
        warp = warps[start : start + CHUNK_SIZE]
        shift, sigma, is_refined = _shifts(image0, image1, points0[rows], points1[rows], warp, max_move_px)
        moved = points1[rows] + shift
        is_refined &= _has_patch(moved, image1, 0)
        rows = rows[is_refined]
        refined.points1[rows], refined.sigma_px[rows], refined.is_refined[rows] = (
            moved[is_refined],
            sigma[is_refined],
            True,
        )
    return refined


def local_warps(points0: np.ndarray, points1: np.ndarray) -> np.ndarray:
    """Return (N, 2, 2), the linear map from image 0 to image 1 at each match, by affine fits to the matches around it.

    The identity if too few matches agree, and if the map would mirror a patch or change its area by more than 4.
    """
    warps = np.tile(np.eye(2), (len(points0), 1, 1))
    if not len(points0):
        return warps
    tile = (points0 / TILE_PX).astype(int)
    columns, rows = tile.max(axis=0) + 1
    number = tile[:, 1] * columns + tile[:, 0]
    place = np.column_stack([points0 / TILE_PX, np.ones(len(points0))])
    products = np.einsum('ni,nj->ijn', place, np.column_stack([place, points1])).reshape(15, -1)
    counts = _in_neighbourhood(np.bincount(number, minlength=rows * columns), rows, columns)
    weight = np.ones(len(points0))
    for _ in range(FITS):
        sums = [_in_neighbourhood(np.bincount(number, weight * p, rows * columns), rows, columns) for p in products]
        sums = np.stack(sums, axis=-1).reshape(-1, 3, 5)
        affine = np.linalg.solve(sums[:, :, :3] + 1e-6 * np.eye(3), sums[:, :, 3:])  # (tiles, 3, 2)
        misfit = np.einsum('ni,nic->nc', place, affine[number]) - points1
        weight = 1 / (1 + np.sum(misfit**2, axis=1) / MISFIT_PX**2)
    agreeing = _in_neighbourhood(np.bincount(number, weight, rows * columns), rows, columns)
    fitted = affine[:, :2].transpose(0, 2, 1) / TILE_PX
    area = np.linalg.det(fitted)
    believed = (agreeing >= MIN_NEIGHBOURS) & (agreeing >= counts / 2) & (area > 1 / 4) & (area < 4)
    own = believed[number]
    warps[own] = fitted[number[own]]
    return warps


def _in_neighbourhood(values: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Return (rows * columns,), the sum over each tile and the eight around it."""
    grid = values.reshape(rows, columns).astype(np.float64)
    return cv2.boxFilter(grid, -1, (3, 3), normalize=False, borderType=cv2.BORDER_CONSTANT).ravel()


def _shifts(image0, image1, points0, points1, warps, max_move_px: float) -> tuple[np.ndarray, ...]:
    """Return shift (N, 2), sigma (N,) and whether both are reliable (N,).

    `warps` (N, 2, 2) as `local_warps` returns them.
    """
    side = 2 * RADIUS + 1
    around = _sample(image0, points0, *_steps(RADIUS + 1, np.eye(2)[None])).reshape(-1, side + 2, side + 2)
    slope_x = _centred(around[:, 1:-1, 2:] - around[:, 1:-1, :-2]) / 2
    slope_y = _centred(around[:, 2:, 1:-1] - around[:, :-2, 1:-1]) / 2
    patch0 = _centred(around[:, 1:-1, 1:-1])
    xx, xy, yy = _dot(slope_x, slope_x), _dot(slope_x, slope_y), _dot(slope_y, slope_y)
    # A floor far below that of any texture, 1e-3 grey values a pixel, to avoid division by zero for a plain patch.
    determinant = np.maximum(xx * yy - xy * xy, (1e-3 * side) ** 4)
    energy0 = np.maximum(_dot(patch0, patch0), 1e-3)

    shift = np.zeros((len(points0), 2))
    correlation = np.zeros(len(points0))
    residual = np.full(len(points0), np.inf)
    moving = np.arange(len(points0))
    # Of the points that still move; copied only when some of them stop.
    own = [patch0, energy0, slope_x, slope_y, xx, xy, yy, determinant, points1, warps, *_steps(RADIUS, warps)]
    for _ in range(STEPS):
        patch, energy, by_x, by_y, a, b, c, area, points, warp, *steps = own
        patch1 = _centred(_sample(image1, points + shift[moving], *steps))
        energy1 = np.maximum(_dot(patch1, patch1), 1e-3)
        correlation[moving] = _dot(patch, patch1) / np.sqrt(energy * energy1)
        patch1 *= np.sqrt(energy / energy1)[:, None].astype(np.float32)
        difference = np.subtract(patch, patch1, out=patch1)
        residual[moving] = _dot(difference, difference)
        x, y = _dot(by_x, difference), _dot(by_y, difference)
        step = np.einsum('nij,nj->ni', warp, np.stack([c * x - b * y, a * y - b * x], axis=1) / area[:, None])
        length = np.linalg.norm(step, axis=1)
        shift[moving] += step / np.maximum(length, 1)[:, None]  # at most a pixel, the range of the slopes
        go_on = (length > SMALL_STEP_PX) & (np.linalg.norm(shift[moving], axis=1) <= 2 * max_move_px)
        moving = moving[go_on]
        if not len(moving):
            break
        if not go_on.all():
            own = [values[go_on] for values in own]
    converged = np.ones(len(points0), bool)
    converged[moving] = False
    freedom = side * side - 4  # shift, brightness and contrast are fitted
    area = np.abs(np.linalg.det(warps))
    sigma = np.sqrt(residual / freedom * (xx + yy) / determinant / 2 * area + MODEL_SIGMA_PX**2)
    near = np.linalg.norm(shift, axis=1) <= max_move_px
    is_refined = converged & near & (correlation >= MIN_CORRELATION) & (sigma <= MAX_SIGMA_PX)
    return shift, sigma, is_refined


def _steps(radius: int, warps: np.ndarray) -> np.ndarray:
    """Return float32 (2, N, (2 radius + 1)^2), x and y from a patch's centre to its pixels under `warps` (N, 2, 2)."""
    step = np.arange(-radius, radius + 1, dtype=np.float32)
    flat = np.stack(np.meshgrid(step, step)).reshape(2, -1)
    return np.einsum('nij,jp->inp', warps.astype(np.float32), flat)


def _sample(image: np.ndarray, points: np.ndarray, steps_x: np.ndarray, steps_y: np.ndarray) -> np.ndarray:
    """Return float32 (N, P), the image at points (N, 2) plus steps (N or 1, P), bilinear."""
    x, y = points.astype(np.float32).T[..., None]
    return cv2.remap(image, x + steps_x, y + steps_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _centred(patches: np.ndarray) -> np.ndarray:
    """Return (N, P), the patches (N, ...) without their mean, to be independent of the brightness."""
    flat = patches.reshape(len(patches), -1)
    return flat - flat.mean(axis=1, keepdims=True)


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.einsum('np,np->n', a, b)


def _has_patch(points: np.ndarray, image: np.ndarray, radius: int) -> np.ndarray:
    """Return (N,) bool, whether the patch around a point is in the image; False for points that are not finite."""
    limit = np.array(image.shape[::-1]) - 1 - radius
    return ((points >= radius) & (points <= limit)).all(axis=1)
