"""Augmentation that does not move pixels (light, blur, noise), and pasted occluders."""

from __future__ import annotations

import cv2
import numpy as np

from loftr_ros.training.batch import UNKNOWN, Pair


def change_light(image: np.ndarray, rng: np.random.Generator, strength: float = 1.0) -> np.ndarray:
    """Return uint8 (H, W) with changes of light and lens: gamma, gain, shading, blur, motion blur, noise.

    `strength` scales every change; 0 returns the image itself.
    """
    if strength <= 0:
        return image
    values = image.astype(np.float32) / 255
    values **= np.float32(2 ** (strength * rng.normal(0, 0.35)))
    values = values * 2 ** (strength * rng.normal(0, 0.3)) + strength * rng.normal(0, 0.04)
    if rng.random() < 0.5 * strength:
        values *= _shading(image.shape, rng, 0.35 * strength)
    blur = rng.random()
    if blur < 0.3 * strength:
        values = cv2.GaussianBlur(values, (0, 0), rng.uniform(0.3, 1.2))
    elif blur < 0.45 * strength:
        values = cv2.filter2D(values, -1, _motion_kernel(rng.uniform(2, 6), rng.uniform(0, np.pi)))
    values += strength * abs(rng.normal(0, 0.02)) * rng.standard_normal(image.shape, np.float32)
    return np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)


def _shading(shape: tuple[int, int], rng: np.random.Generator, depth: float) -> np.ndarray:
    """Return a smooth brightness factor (H, W) around 1, as from a lamp, a shadow or a lens."""
    grid = 1 + depth * rng.uniform(-1, 1, (3, 3)).astype(np.float32)
    return cv2.resize(grid, shape[::-1], interpolation=cv2.INTER_CUBIC)


def _motion_kernel(length_px: float, angle: float) -> np.ndarray:
    """Return the kernel of a straight motion blur, centred so that it does not shift the image by half a pixel."""
    side = 2 * int(np.ceil(length_px / 2)) + 3
    steps = np.linspace(-length_px / 2, length_px / 2, 4 * side)
    x, y = side // 2 + steps * np.cos(angle), side // 2 + steps * np.sin(angle)
    kernel = np.zeros((side, side), np.float32)
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    for dx in (0, 1):
        for dy in (0, 1):
            weight = (1 - np.abs(x - left - dx)) * (1 - np.abs(y - top - dy))
            np.add.at(kernel, (top + dy, left + dx), weight.astype(np.float32))
    return kernel / kernel.sum()


def paste_occluders(pair: Pair, rng: np.random.Generator, most: int = 3) -> Pair:
    """Return the pair with up to `most` occluders pasted into each image; hidden places are NaN in both maps.

    Labels become UNKNOWN on the occluders, so that their corners are not keypoints.
    """
    image0, mask0 = _occlude(pair.image0, rng, int(rng.integers(most + 1)))
    image1, mask1 = _occlude(pair.image1, rng, int(rng.integers(most + 1)))
    points01, points10 = pair.points01.copy(), pair.points10.copy()
    points01[mask0 | _lands_on(points01, mask1)] = np.nan
    points10[mask1 | _lands_on(points10, mask0)] = np.nan
    keypoints0, keypoints1 = _without(pair.keypoints0, mask0), _without(pair.keypoints1, mask1)
    return Pair(image0, image1, points01, points10, keypoints0, keypoints1)


def _without(keypoints: np.ndarray | None, mask: np.ndarray) -> np.ndarray | None:
    if keypoints is None:
        return None
    reach = cv2.dilate(mask.astype(np.uint8), np.ones((9, 9), np.uint8))
    return np.where(reach > 0, np.int8(UNKNOWN), keypoints)


def _occlude(image: np.ndarray, rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a copy of the image with `count` polygons of mirrored or plain texture, and their mask."""
    height, width = image.shape
    covered = np.zeros(image.shape, np.uint8)
    result = image.copy()
    for _ in range(count):
        centre = rng.uniform((0, 0), (width, height))
        radius = rng.uniform(0.05, 0.2) * min(width, height)
        angles = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(3, 9))))
        reach = radius * rng.uniform(0.6, 1.3, len(angles))
        corners = centre + np.stack([reach * np.cos(angles), reach * np.sin(angles)], axis=1)
        mask = cv2.fillPoly(np.zeros_like(covered), [np.rint(corners).astype(np.int32)], 1).astype(bool)
        if rng.random() < 0.6:
            shift = tuple(rng.integers(1, (height, width)))
            cover = np.roll(image[::-1, ::-1], shift, axis=(0, 1))
        else:
            cover = np.clip(rng.uniform(20, 235) + rng.normal(0, rng.uniform(0, 20), image.shape), 0, 255)
        result[mask] = cover[mask].astype(np.uint8)
        covered |= mask
    return result, covered.astype(bool)


def _lands_on(points: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return (H, W) bool: whether one of the four pixels around a place belongs to the mask."""
    seen = np.isfinite(points[..., 0])  # NaN in both or in none
    x, y = np.where(seen[..., None], points, 0).transpose(2, 0, 1)
    touched = cv2.remap(mask.astype(np.float32), x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return seen & (touched > 0)
