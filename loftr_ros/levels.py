"""Pictures of 10, 12, 14 or 16 bits as 8 bits, with a range of grey values that stays the same over time."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import cv2
import numpy as np

from loftr_ros.errors import InputError

logger = logging.getLogger(__name__)

SENSOR_BITS = (8, 10, 12, 14, 16)
LEAST_USE = 0.25
"""A range of which a picture uses less is too coarse: fewer than 64 of 256 grey levels would be left."""
MARGIN = 0.1
"""How much wider than the picture a range is that is no sensor's own, as a share of it, on each side."""
LEAST_WIDTH = 64
"""No range is narrower [counts]: what is left then is noise."""

TAILS = (0.1, 99.9)
"""Percentiles between which the values of a picture count: a hot pixel or a reflection does not."""
SAMPLE_PIXELS = 200_000

OUTSIDE = 0.02
"""Share of the pixels outside the range from which it does not fit any more ..."""
PATIENCE = 10
"""... if so many pictures in a row say so: a flash or a hand before the lens changes nothing ..."""
BLIND = 0.5
"""... or this share of the pixels of one picture is outside: nothing is lost by another range then."""

LEAST_DEPTH = 100
"""Depth is 0 or beyond so many steps (10 cm and more in mm), a picture has all values from 1 on."""
LEAST_DEPTH_RATIO = 1.5
"""Of far to near in an image of depth; a thermal picture with a black border has less (300 K to 280 K)."""


class Levels:
    """Turns the pictures of one camera into 8 bits by one range, which changes only when it must.

    The range is that of the sensor's bits (0 .. 1023, 0 .. 4095, ...) where the picture fills a quarter of it, and
    otherwise the part that the picture fills. So neighbouring pictures stay comparable, grey value by grey value.

    Args:
        fixed: keep the first range for good.
    """

    def __init__(self, fixed: bool = False):
        self.range: tuple[int, int] | None = None
        self._fixed = fixed
        self._misfits = 0

    def begin(self, pictures: Iterable[np.ndarray]) -> None:
        """Take the range that fits all of the pictures (uint16)."""
        samples = [_sample(picture) for picture in pictures]
        self._take(_range_of([np.percentile(sample, TAILS) for sample in samples if len(sample)]))

    def to_8_bits(self, picture: np.ndarray) -> np.ndarray:
        """Return uint8 of a picture (H, W) or (H, W, 3) of uint8, which stays as it is, or uint16.

        Raises:
            InputError: the pixels are of another type.
        """
        if picture.dtype == np.uint8:
            return picture
        if picture.dtype != np.uint16:
            raise InputError(f'picture has pixels of {picture.dtype}; needs 8 or 16 bits without sign')
        if self.range is None or (not self._fixed and self._must_change(picture)):
            self.begin([picture])
        low, high = self.range
        return cv2.convertScaleAbs(np.clip(picture, low, high) - np.uint16(low), alpha=255 / (high - low))

    def _must_change(self, picture: np.ndarray) -> bool:
        sample = _sample(picture)
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
            logger.info('pictures of 16 bits: grey values %d to %d become 0 to 255', *chosen)
        self.range, self._misfits = chosen, 0


def _sample(picture: np.ndarray) -> np.ndarray:
    """Return the values of some pixels. Zeros are left out: the border of a rectified picture, or no measurement."""
    step = max(1, int(np.sqrt(picture.shape[0] * picture.shape[1] / SAMPLE_PIXELS)))
    values = picture[::step, ::step].ravel()
    return values[values > 0]


def _range_of(tails: list[np.ndarray]) -> tuple[int, int]:
    """Return the lowest and the highest grey value of the range for pictures with these percentiles (low, high)."""
    if not tails:
        return 0, 65535
    low, high = min(t[0] for t in tails), max(t[1] for t in tails)
    top = next(2**bits - 1 for bits in SENSOR_BITS if high <= 2**bits - 1)
    if high - low >= LEAST_USE * top:
        return 0, top
    margin = max(MARGIN * (high - low), (LEAST_WIDTH - (high - low)) / 2)
    return max(0, int(low - margin)), min(65535, int(np.ceil(high + margin)))


def check_no_depth(picture: np.ndarray, name: str) -> None:
    """Raise InputError where uint16 (H, W) looks like depth [mm]: zeros where unknown, nothing near, then far apart."""
    if picture.dtype != np.uint16 or picture.ndim != 2:
        return
    values = _sample(picture)
    if len(values) == 0 or np.count_nonzero(picture) > 0.995 * picture.size:
        return
    low, high = np.percentile(values, TAILS)
    step = np.gcd.reduce(values)  # 257 or 256 where 8 bits were enlarged; depth has steps of 1
    if low >= LEAST_DEPTH * int(step) and high >= LEAST_DEPTH_RATIO * low:
        raise InputError(
            f'{name} looks like depth, not like a picture: of its 16-bit values '
            f'{1 - np.count_nonzero(picture) / picture.size:.1%} are 0 and the others {low:.0f} to {high:.0f}; '
            'give the picture that belongs to it (of a topic: mono16 instead of 16UC1 says that it is one)'
        )
