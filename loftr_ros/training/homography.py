"""Pairs related by a homography: two views of a photograph, or two directions of a panorama."""

from __future__ import annotations

import cv2
import numpy as np

from loftr_ros.geometry import rotation_from_vector
from loftr_ros.image import pixel_from_fraction, scale_points
from loftr_ros.training.batch import UNKNOWN, Pair
from loftr_ros.training.settings import HomographyConfig, PanoramaConfig

# --- Photographs ----------------------------------------------------------------------------------------------------


def photograph_pair(
    photograph: np.ndarray,
    size: tuple[int, int],
    rng: np.random.Generator,
    config: HomographyConfig,
    keypoints: np.ndarray | None = None,
) -> Pair:
    """Return two views of `size` (height, width) of a uint8 (H, W) photograph, each sampled from it once.

    With `keypoints` (N, 2) of the photograph [px] both views get labels.
    Outside the border of the other view there is photograph, not black; outside the photograph, positions are NaN.
    """
    photo_from_0 = _random_crop(photograph.shape, size, rng)
    image1_from_0 = random_homography(size, rng, config)
    photo_from_1 = photo_from_0 @ np.linalg.inv(image1_from_0)
    image0, image1 = (sample_view(photograph, matrix, size) for matrix in (photo_from_0, photo_from_1))
    inside0, inside1 = (_inside_photograph(matrix, size, photograph.shape) for matrix in (photo_from_0, photo_from_1))
    points01 = homography_points(image1_from_0, size, size)
    points10 = homography_points(np.linalg.inv(image1_from_0), size, size)
    points01[~inside0] = np.nan
    points10[~inside1] = np.nan
    if keypoints is None:
        return Pair(image0, image1, points01, points10)
    labels = (
        keypoint_labels(keypoints, matrix, inside)
        for matrix, inside in ((photo_from_0, inside0), (photo_from_1, inside1))
    )
    return Pair(image0, image1, points01, points10, *labels)


def keypoint_labels(keypoints: np.ndarray, photo_from_view: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Return int8 (H, W): 1 at the pixels of a view nearest to `keypoints` (N, 2) of the photograph, elsewhere 0.

    Args:
        inside: (H, W) bool, where the view shows the photograph; the label is UNKNOWN elsewhere.
    """
    labels = np.where(inside, np.int8(0), np.int8(UNKNOWN))
    warped = np.column_stack([keypoints, np.ones(len(keypoints))]) @ np.linalg.inv(photo_from_view).T
    warped = warped[warped[:, 2] > 0]
    x, y = np.rint(warped[:, :2] / warped[:, 2:]).astype(int).T
    height, width = labels.shape
    seen = (x >= 0) & (y >= 0) & (x < width) & (y < height)
    x, y = x[seen], y[seen]
    labels[y, x] = np.where(labels[y, x] == UNKNOWN, np.int8(UNKNOWN), np.int8(1))
    return labels


def random_homography(size: tuple[int, int], rng: np.random.Generator, config: HomographyConfig) -> np.ndarray:
    """Return image1_from_0 (3, 3): perspective, rotation and scale about the centre, then a shift.

    A share of `config.strong` of the pairs has the full strength, the others a third of it, as in neighbouring frames
    of a video.
    """
    height, width = size
    strength = 1.0 if rng.random() < config.strong else 1 / 3
    angle = np.deg2rad(strength * rng.normal(0, config.rotation_deg))
    scale = 2 ** (strength * rng.normal(0, config.scale_octaves))
    cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
    # The depth of a tilted plane changes by this share from the centre to the border; below 1 nothing is at infinity.
    tilt = np.clip(strength * rng.normal(0, config.perspective, 2), -0.45, 0.45)
    shift = np.clip(strength * rng.normal(0, config.shift, 2), -0.7, 0.7) * (width, height)
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    to_centre = np.array([[1, 0, -centre[0]], [0, 1, -centre[1]], [0, 0, 1.0]])
    perspective = np.array([[1, 0, 0], [0, 1, 0], [2 * tilt[0] / width, 2 * tilt[1] / height, 1.0]])
    similarity = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1.0]])
    back = np.array([[1, 0, centre[0] + shift[0]], [0, 1, centre[1] + shift[1]], [0, 0, 1.0]])
    return back @ similarity @ perspective @ to_centre


def homography_points(target_from_source: np.ndarray, source: tuple[int, int], target: tuple[int, int]) -> np.ndarray:
    """Return float32 (H, W, 2): the place of every pixel of an image of size `source` in one of size `target`.

    Sizes are (height, width); NaN outside the centres of the border pixels of the target and behind the camera.
    """
    warped = _warp(target_from_source, source)
    with np.errstate(divide='ignore', invalid='ignore'):
        points = warped[..., :2] / warped[..., 2:]
        # Not `all(-1)`, which takes longer than the rest of this function.
        x, y = points[..., 0], points[..., 1]
        inside = (x >= 0) & (y >= 0) & (x <= target[1] - 1) & (y <= target[0] - 1) & (warped[..., 2] > 0)
    return np.where(inside[..., None], points, np.nan).astype(np.float32)


def sample_view(photograph: np.ndarray, photo_from_view: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the uint8 view of `size`: pixel x shows the photograph at photo_from_view x, black outside.

    Where the view is smaller than the photograph, a reduced photograph is sampled, to avoid aliasing.
    """
    warped = _warp(photo_from_view, size)
    with np.errstate(divide='ignore', invalid='ignore'):
        places = np.where(warped[..., 2:] > 0, warped[..., :2] / warped[..., 2:], -1e4)
    return _sample(photograph, places, cv2.BORDER_CONSTANT)


def _random_crop(photo: tuple[int, int], size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Return photo_from_view (3, 3), upright: from all of the photograph down to its own pixels, anywhere in it."""
    height, width = size
    largest = min(photo[0] / height, photo[1] / width)
    # Never enlarged by more than 1.25: an enlarged photograph has no detail to match.
    scale = np.exp(rng.uniform(*np.log(sorted((max(0.8, 0.4 * largest), max(0.8, largest))))))
    room = np.maximum(np.array([photo[1] - 1, photo[0] - 1]) - scale * np.array([width - 1, height - 1]), 0)
    left, top = rng.uniform(0, 1, 2) * room
    return np.array([[scale, 0, left], [0, scale, top], [0, 0, 1.0]])


def _inside_photograph(photo_from_view: np.ndarray, size: tuple[int, int], photo: tuple[int, int]) -> np.ndarray:
    return np.isfinite(homography_points(photo_from_view, size, photo)).all(axis=-1)


# --- Panoramas ------------------------------------------------------------------------------------------------------


def panorama_pair(
    panorama: np.ndarray, size: tuple[int, int], rng: np.random.Generator, config: PanoramaConfig
) -> Pair:
    """Return two perspective views of an equirectangular uint8 (H, 2 H) panorama that differ by a pure rotation."""
    matrix0 = random_camera(size, rng, config.view_min_deg, config.view_max_deg)
    matrix1 = random_camera(size, rng, config.view_min_deg, config.view_max_deg)
    turn_deg = abs(rng.normal(0, config.rotation_deg))
    yaw, pitch = rng.uniform(-np.pi, np.pi), np.deg2rad(rng.uniform(-35, 35))
    pano_from_0 = (
        rotation_from_vector((0, yaw, 0))
        @ rotation_from_vector((pitch, 0, 0))
        @ rotation_from_vector((0, 0, np.deg2rad(rng.normal(0, 5))))
    )
    axis = rng.normal(0, 1, 3)
    cam0_from_1 = rotation_from_vector(np.deg2rad(turn_deg) * axis / np.linalg.norm(axis))
    image0 = panorama_view(panorama, matrix0, pano_from_0, size)
    image1 = panorama_view(panorama, matrix1, pano_from_0 @ cam0_from_1, size)
    image1_from_0 = matrix1 @ cam0_from_1.T @ np.linalg.inv(matrix0)
    points10 = homography_points(np.linalg.inv(image1_from_0), size, size)
    return Pair(image0, image1, homography_points(image1_from_0, size, size), points10)


def panorama_view(panorama: np.ndarray, matrix: np.ndarray, pano_from_cam: np.ndarray, size) -> np.ndarray:
    """Return the uint8 view of `size` (height, width) of a pinhole camera with `matrix` (3, 3).

    In the frame of the panorama z points to its middle column, x to the right and y down.
    """
    rays = _warp(pano_from_cam @ np.linalg.inv(matrix), size)
    longitude = np.arctan2(rays[..., 0], rays[..., 2])
    latitude = np.arcsin(rays[..., 1] / np.linalg.norm(rays, axis=-1))
    height, width = panorama.shape
    # The left and right border are the same place: half of the panorama again on both sides.
    half = width // 2
    wrapped = np.concatenate([panorama[:, -half:], panorama, panorama[:, :half]], axis=1)
    x = pixel_from_fraction(longitude / (2 * np.pi) + 0.5, width) + half
    y = pixel_from_fraction(latitude / np.pi + 0.5, height)
    # Rays left of the middle of the first column may jump to the other end; let them continue over the border.
    x += width * np.round((np.median(x) - x) / width)
    return _sample(wrapped, np.stack([np.clip(x, 0, wrapped.shape[1] - 1), y], axis=-1), cv2.BORDER_REPLICATE)


def random_camera(size: tuple[int, int], rng: np.random.Generator, low_deg: float, high_deg: float) -> np.ndarray:
    """Return the matrix (3, 3) of a camera of `size` whose longer side sees between `low_deg` and `high_deg`."""
    height, width = size
    focal = max(size) / 2 / np.tan(np.deg2rad(rng.uniform(low_deg, high_deg)) / 2)
    return np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1.0]])


# --- Shared functions-----------------------------------------------------------------------------------------------


def _warp(matrix: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return (H, W, 3): the matrix times (x, y, 1) of every pixel."""
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float64)
    return np.stack([x, y, np.ones_like(x)], axis=-1) @ np.asarray(matrix).T


def _sample(image: np.ndarray, places: np.ndarray, border: int) -> np.ndarray:
    """Return uint8 (H, W), `image` at `places` (H, W, 2), from a reduced image if places are far apart."""
    step = np.linalg.norm(np.diff(places[::4, ::4], axis=1), axis=-1) / 4
    reduction = 1 / max(float(np.median(step)), 1.0)
    if reduction < 0.8:
        size = tuple(max(1, round(side * reduction)) for side in image.shape[::-1])
        ratio = np.array(size) / image.shape[::-1]
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        places = scale_points(places, ratio)
    x, y = places.astype(np.float32).transpose(2, 0, 1)
    return cv2.remap(image, np.ascontiguousarray(x), np.ascontiguousarray(y), cv2.INTER_LINEAR, borderMode=border)
