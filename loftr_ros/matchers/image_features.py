"""Features of one image, and matches between two of them in the pixels of the original images."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from loftr_ros.config import MatcherConfig
from loftr_ros.datatypes import Matches
from loftr_ros.image import PreparedImage

TILES = 10
"""Along the width of image 0; matches in excess of `max_matches` are left out evenly."""

MIN_SIGMA_PX = 0.01
"""A heat map with all its weight in one pixel has deviation 0, and filters divide by the deviation."""


@dataclasses.dataclass(eq=False)
class ImageFeatures:
    """A prepared image and the features that a matcher computes from it.

    Args:
        features: of the network or the detector.
        ids_valid: False if the image was reduced because memory was short: then its points have other numbers.
    """

    image: PreparedImage
    features: Any
    ids_valid: bool = True


@dataclasses.dataclass(frozen=True, eq=False)
class PreparedMatches:
    """N matches in pixels of two prepared images, in any order.

    Args:
        points0, points1: (N, 2) x, y [px].
        confidence: (N,) in [0, 1], float32 or float64.
        point_id0: (N,) int64 number of the point in image 0, -1 where unknown.
        point_id1: the same for image 1; None: unknown.
        log10_dependence: see Matches.
        sigma_px: (N,) standard deviation of points1 along each axis [px]; None: unknown.
    """

    points0: np.ndarray
    points1: np.ndarray
    confidence: np.ndarray
    point_id0: np.ndarray
    log10_dependence: float
    sigma_px: np.ndarray | None = None
    point_id1: np.ndarray | None = None

    def to_original(self, features0: ImageFeatures, features1: ImageFeatures, config: MatcherConfig) -> Matches:
        """Return the matches in original pixels, most confident first.

        Matches outside the images, not finite or below `match_threshold` are left out. `max_matches` are kept: the
        most confident, but at first no more of a tile of image 0 than twice its share.
        """
        image0, image1 = features0.image, features1.image
        keep = _is_inside(self.points0, image0) & _is_inside(self.points1, image1)
        confidence = self.confidence.astype(np.float32)  # as in Matches, so that what is compared is what is seen
        keep &= confidence >= np.float32(config.match_threshold)
        keep = np.flatnonzero(keep)
        keep = keep[np.argsort(-confidence[keep], kind='stable')]
        if config.max_matches:
            keep = keep[_evenly(self.points0[keep], image0.width, config.max_matches)]
        if self.sigma_px is None:
            sigma_px = np.full(len(keep), np.nan)
        else:
            sigma_px = np.maximum(self.sigma_px[keep], MIN_SIGMA_PX) * np.mean(image1.scale)
        return Matches(
            image0.to_original(self.points0[keep]),
            image1.to_original(self.points1[keep]),
            confidence[keep],
            sigma_px,
            self.point_id0[keep] if features0.ids_valid else None,
            None if self.point_id1 is None or not features1.ids_valid else self.point_id1[keep],
            self.log10_dependence,
            from_images=True,
        )


def _evenly(points: np.ndarray, width: int, count: int) -> np.ndarray:
    """Return the indices, in order, of `count` points (N, 2), which are in order of confidence.

    As networks/coarse_cells.choose_evenly.
    """
    _, tile = np.unique(points // (width / TILES), axis=0, return_inverse=True)
    order = np.argsort(tile, kind='stable')
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order)) - np.searchsorted(tile[order], tile[order])
    turn = rank // -(-2 * count // TILES**2)
    return np.sort(np.argsort(turn, kind='stable')[:count])


def _is_inside(points: np.ndarray, image: PreparedImage) -> np.ndarray:
    """Return (N,) bool, whether a point is in the image; False for points that are not finite."""
    return ((points >= 0) & (points <= [image.width - 1, image.height - 1])).all(axis=1)
