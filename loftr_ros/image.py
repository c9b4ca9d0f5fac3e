"""Pixel coordinates under resizing, and images prepared for a matcher: resized, padded, grey.

The only module that converts pixel coordinates. The centre of the top-left pixel is (0, 0), so an image that is
enlarged by s has the old pixel x at `(x + 0.5) * s - 0.5`. Padding goes to the right and the bottom: it moves no pixel.
"""

from __future__ import annotations

import dataclasses
import sys
from typing import TYPE_CHECKING

import cv2
import numpy as np

from loftr_ros.datatypes import check_image
from loftr_ros.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

CORNER_OFFSET_PX = 0.5
"""Our pixel coordinates plus this are those of COLMAP, glue-factory and Foxglove: (0, 0) is the corner of the image."""


def scale_points(points: np.ndarray, scale: float | tuple[float, float]) -> np.ndarray:
    """Return pixels (..., 2) of an image in the same image enlarged by `scale`, one factor or (x, y), as float64."""
    return (np.asarray(points, dtype=np.float64) + 0.5) * np.asarray(scale, dtype=np.float64) - 0.5


def scale_matrix(scale: float | tuple[float, float]) -> np.ndarray:
    """Return the homography (3, 3) of `scale_points`; times a camera matrix it is that of the resized image."""
    scale_x, scale_y = np.broadcast_to(np.asarray(scale, np.float64), 2)
    return np.array([[scale_x, 0, scale_x / 2 - 0.5], [0, scale_y, scale_y / 2 - 0.5], [0, 0, 1]])


def pixel_from_fraction(fraction, size):
    """Return the pixel at a fraction of the image's side: 0 is its left or upper edge, 1 its right or lower edge."""
    return fraction * size - 0.5


def fraction_from_pixel(pixel, size):
    """Return the fraction of the image's side at a pixel; the inverse of `pixel_from_fraction`."""
    return (pixel + 0.5) / size


@dataclasses.dataclass(frozen=True, eq=False)
class PreparedImage:
    """An image as a matcher takes it, and the way back.

    Args:
        pixels: uint8 (H, W) or (H, W, 3), padded.
        width: columns of `pixels` that show the image; those to the right are padding.
        height: rows of `pixels` that show the image; those below are padding.
        original_width: of the image that was given [px].
        original_height: of the image that was given [px].
    """

    pixels: np.ndarray
    width: int
    height: int
    original_width: int
    original_height: int

    @property
    def scale(self) -> tuple[float, float]:
        """Original size over prepared size (x, y); 1 where the image was not reduced."""
        return self.original_width / self.width, self.original_height / self.height

    def to_original(self, points: np.ndarray) -> np.ndarray:
        """Return pixels (N, 2) of `pixels` in the original image."""
        return scale_points(points, self.scale)

    def from_original(self, points: np.ndarray) -> np.ndarray:
        """Return pixels (N, 2) of the original image in `pixels`."""
        return scale_points(points, (1 / self.scale[0], 1 / self.scale[1]))


def prepare(image: np.ndarray, *, resize_max: int = 0, multiple: int = 1, grey: bool = True) -> PreparedImage:
    """Reduce the longer side to `resize_max` [px] (0: as it is), turn grey, pad both sides to a multiple.

    Args:
        image: uint8 (H, W) or (H, W, 3) blue first.
        grey: give (H, W); otherwise (H, W, 3), a grey image three times.

    Raises:
        InputError: `image` is not of that form.
    """
    check_image('image', image)
    height, width = image.shape[:2]
    shrink = min(1.0, resize_max / max(height, width)) if resize_max else 1.0
    new_width, new_height = max(1, round(width * shrink)), max(1, round(height * shrink))
    pixels = to_grey(image) if grey else to_colour(image)
    if (new_width, new_height) != (width, height):
        # Area averaging keeps the half-pixel rule and does not alias.
        pixels = cv2.resize(pixels, (new_width, new_height), interpolation=cv2.INTER_AREA)
    pixels = pad_to_multiple(pixels, multiple)
    return PreparedImage(pixels, new_width, new_height, width, height)


def as_image(image: np.ndarray | Tensor, rgb: bool | None = None) -> np.ndarray:
    """Return uint8 (H, W) or (H, W, 3) blue first, the form in which this package handles images.

    Args:
        image: a numpy array uint8 (H, W) or (H, W, 3), by default blue first, as OpenCV reads it; or a torch tensor
            (H, W), (C, H, W) or (1, C, H, W) with C of 1 or 3, by default red first, as torchvision reads it: uint8, or
            floating point in [0, 1].
        rgb: whether red is first; None: the default of arrays and of tensors.

    Raises:
        InputError: `image` has another type, shape or range of values.
    """
    torch = sys.modules.get('torch')  # without an import: while torch is not loaded there are no tensors
    is_tensor = torch is not None and isinstance(image, torch.Tensor)
    array = _array_of_tensor(image) if is_tensor else image
    check_image('image', array)
    if array.ndim == 2 or not (is_tensor if rgb is None else rgb):
        return array
    return cv2.cvtColor(np.ascontiguousarray(array), cv2.COLOR_RGB2BGR)


def _array_of_tensor(tensor: Tensor) -> np.ndarray:
    """Return the uint8 array (H, W) or (H, W, 3) of a tensor, channels in the same order."""
    shape = tuple(tensor.shape)
    if len(shape) == 4 and shape[0] == 1:
        tensor = tensor[0]
    if tensor.ndim == 3 and tensor.shape[0] == 1:
        tensor = tensor[0]
    if 0 in shape or not (tensor.ndim == 2 or (tensor.ndim == 3 and tensor.shape[0] == 3)):
        remedy = 'give one image, channels first'
        if len(shape) == 3 and shape[2] in (1, 3):
            remedy = 'put the channels first: image.permute(2, 0, 1)'
        raise InputError(f'a tensor image must be (H, W), (C, H, W) or (1, C, H, W), C 1 or 3, got {shape}; {remedy}')
    if tensor.ndim == 3:
        tensor = tensor.permute(1, 2, 0).contiguous()
    if not tensor.is_floating_point():
        return tensor.detach().cpu().numpy()
    values = tensor.detach().cpu().float().numpy()
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= 1):  # also NaN
        raise InputError(
            f'a floating-point tensor image must have values in [0, 1], got {low:g} to {high:g}; divide values of '
            '0 to 255 by 255, undo a normalisation by mean and deviation'
        )
    return np.round(values * 255).astype(np.uint8)


def to_grey(image: np.ndarray) -> np.ndarray:
    """Return uint8 (H, W) of (H, W) or of (H, W, 3) blue first."""
    return image if image.ndim == 2 else cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_BGR2GRAY)


def to_colour(image: np.ndarray) -> np.ndarray:
    """Return uint8 (H, W, 3) blue first of (H, W) or (H, W, 3)."""
    return image if image.ndim == 3 else cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_GRAY2BGR)


def pad_to_multiple(image: np.ndarray, multiple: int) -> np.ndarray:
    """Repeat the last column and row until both sides are multiples of `multiple`."""
    height, width = image.shape[:2]
    bottom, right = -height % multiple, -width % multiple
    if not (bottom or right):
        return image
    return cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_REPLICATE)


def transform_points(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return pixels (N, 2) under an affine map (2, 3) or (3, 3), as float64."""
    return np.asarray(points, np.float64) @ matrix[:2, :2].T + matrix[:2, 2]


def turn_matrix(width: int, height: int, angle_deg: float) -> tuple[np.ndarray, tuple[int, int]]:
    """Return the map (3, 3) from pixels of an image to those of its turned copy, and the copy's (width, height).

    The copy shows the whole image, turned about its centre; a positive angle turns x towards y, clockwise as seen.
    """
    angle = np.deg2rad(angle_deg)
    # Rounded so that multiples of 90 degrees move whole pixels.
    cosine, sine = np.round((np.cos(angle), np.sin(angle)), 12)
    turn = np.array([[cosine, -sine], [sine, cosine]])
    new_width, new_height = (max(1, round(float(side))) for side in np.abs(turn) @ (width, height))
    # The centre of an image of w pixels is at (w - 1) / 2.
    centre, new_centre = (np.array([w - 1, h - 1]) / 2 for w, h in ((width, height), (new_width, new_height)))
    matrix = np.eye(3)
    matrix[:2, :2], matrix[:2, 2] = turn, new_centre - turn @ centre
    return matrix, (new_width, new_height)


def warp_image(image: np.ndarray, matrix: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the copy of an image under an affine map, uint8 (height, width) or (height, width, 3).

    Args:
        image: uint8 (H, W) or (H, W, 3).
        matrix: (3, 3) from pixels of the image to those of the copy.
        size: (width, height) of the copy [px]; outside of the image it has the mean grey value or colour.
    """
    mean = cv2.mean(image)
    height, width = image.shape[:2]
    scale = float(np.sqrt(abs(np.linalg.det(matrix[:2, :2]))))
    if scale < 1:  # averaged first, because interpolation alone would alias
        reduced = max(1, round(width * scale)), max(1, round(height * scale))
        image = cv2.resize(image, reduced, interpolation=cv2.INTER_AREA)
        matrix = matrix @ np.linalg.inv(scale_matrix((reduced[0] / width, reduced[1] / height)))
    return cv2.warpAffine(image, matrix[:2], size, flags=cv2.INTER_LINEAR, borderValue=mean)
