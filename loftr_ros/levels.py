"""Conversion of images of 10 to 16 bits to 8 bits, with a range of grey values that stays the same over time."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import cv2
import numpy as np

from loftr_ros.errors import InputError

logger = logging.getLogger(__name__)

SENSOR_BITS = (8, 10, 12, 14, 16)
LEAST_USE = 0.25
"""Least share of a range that an image must use; with less, fewer than 64 of 256 grey values would be left."""
MARGIN = 0.1
"""Margin on each side of a range that is taken from an image, as a share of its width."""
LEAST_WIDTH = 64
"""Least width of a range [counts]: an image with less contrast is noise."""

TAILS = (0.1, 99.9)
"""Percentiles that define the darkest and the brightest value: hot pixels and reflections are ignored."""
SAMPLE_PIXELS = 200_000

OUTSIDE = 0.02
"""The range changes if more than this share of the pixels is outside it ..."""
PATIENCE = 10
"""... in this number of images in a row, so that a flash or a hand in front of the lens changes nothing ..."""
BLIND = 0.5
"""... or if this share of the pixels of a single image is outside."""

LEAST_DEPTH = 100
"""Least known depth, in steps of the image (10 cm in mm); other images also have the values from 1 to this."""
LEAST_DEPTH_RATIO = 1.5
"""Least ratio of far to near in a depth image; thermal images with a black border have less (300 K to 280 K)."""


class Levels:
    """Converts the images of one camera to 8 bits with one range of grey values, which changes only if it must.

    The range is that of the sensor's bits (0 .. 1023, 0 .. 4095, ...) if the image uses a quarter of it, and otherwise
    the range of the image. So the grey values of consecutive images can be compared.

    Args:
        fixed: never change the first range.
    """

    def __init__(self, fixed: bool = False):
        self.range: tuple[int, int] | None = None
        self._fixed = fixed
        self._misfits = 0

    def begin(self, images: Iterable[np.ndarray]) -> None:
        """Choose the range that fits all of the images (uint16)."""
        samples = [_sample(image) for image in images]
        self._take(_range_of([np.percentile(sample, TAILS) for sample in samples if len(sample)]))

    def to_8_bits(self, image: np.ndarray) -> np.ndarray:
        """Return an image (H, W) or (H, W, 3) as uint8; one of uint8 is returned unchanged.

        Raises:
            InputError: the pixels are neither uint8 nor uint16.
        """
        if image.dtype == np.uint8:
            return image
        if image.dtype != np.uint16:
            raise InputError(f'image has pixels of {image.dtype}; needs uint8 or uint16')
        if self.range is None or (not self._fixed and self._must_change(image)):
            self.begin([image])
        low, high = self.range
        return cv2.convertScaleAbs(np.clip(image, low, high) - np.uint16(low), alpha=255 / (high - low))

    def _must_change(self, image: np.ndarray) -> bool:
        sample = _sample(image)
        if not len(sample):
            return False
        low, high = self.range
        outside = np.mean((sample < low) | (sample > high))
        used = np.subtract(*np.percentile(sample, TAILS)[::-1]) / (high - low)
        misfit = outside > OUTSIDE or (used < LEAST_USE / 2 and high - low > LEAST_WIDTH)
        self._misfits = self._misfits + 1 if misfit else 0
        return bool(outside > BLIND or self._misfits >= PATIENCE)

    def _take(self, chosen: tuple[int, int]) -> None:
        if chosen != self.range:
            logger.info('16-bit images: grey values %d to %d are converted to 0 to 255', *chosen)
        self.range, self._misfits = chosen, 0


def _sample(image: np.ndarray) -> np.ndarray:
    """Return the values of some pixels, without zeros: they are the border of a rectified image, or not measured."""
    step = max(1, int(np.sqrt(image.shape[0] * image.shape[1] / SAMPLE_PIXELS)))
    values = image[::step, ::step].ravel()
    return values[values > 0]


def _range_of(tails: list[np.ndarray]) -> tuple[int, int]:
    """Return the lowest and the highest grey value of the range for images with these percentiles (low, high)."""
    if not tails:
        return 0, 65535
    low, high = min(t[0] for t in tails), max(t[1] for t in tails)
    top = next(2**bits - 1 for bits in SENSOR_BITS if high <= 2**bits - 1)
    if high - low >= LEAST_USE * top:
        return 0, top
    margin = max(MARGIN * (high - low), (LEAST_WIDTH - (high - low)) / 2)
    return max(0, int(low - margin)), min(65535, int(np.ceil(high + margin)))


def check_no_depth(image: np.ndarray, name: str) -> None:
    """Raise InputError if uint16 (H, W) looks like depth [mm]: some zeros, no small values, and a wide range."""
    if image.dtype != np.uint16 or image.ndim != 2:
        return
    values = _sample(image)
    if len(values) == 0 or np.count_nonzero(image) > 0.995 * image.size:
        return
    low, high = np.percentile(values, TAILS)
    step = np.gcd.reduce(values)  # 256 or 257 in an image that was converted from 8 bits, 1 in depth
    if low >= LEAST_DEPTH * int(step) and high >= LEAST_DEPTH_RATIO * low:
        raise InputError(
            f'{name} looks like depth, not like a grey image: of its 16-bit values '
            f'{1 - np.count_nonzero(image) / image.size:.1%} are 0 and the others {low:.0f} to {high:.0f}; '
            'needs the grey image that belongs to it (a topic of grey images has the encoding mono16, not 16UC1)'
        )
