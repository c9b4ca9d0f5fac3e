"""The matcher `gcm`: Generalized Correspondence Matching (arXiv 2403.05388)."""

from __future__ import annotations

import cv2
import numpy as np
import torch

from loftr_ros.config import GcmConfig, MatcherConfig
from loftr_ros.errors import ConfigError
from loftr_ros.image import PreparedImage
from loftr_ros.matchers.gcm_backbone import create_backbone
from loftr_ros.matchers.gcm_descriptor import create_descriptor
from loftr_ros.matchers.image_features import ImageFeatures, PreparedMatches
from loftr_ros.matchers.inference import ExtractingMatcher, ImageExtractor
from loftr_ros.networks import gcm
from loftr_ros.networks.device import choose_device
from loftr_ros.networks.widened_refinement import refine_widened

DEPENDENCE = 36.0
"""`Matches.log10_dependence`, measured: with 24, two of 301 pairs of different places get a pose."""

MIN_HOMOGRAPHY_INLIERS = 30
MIN_HOMOGRAPHY_SHARE = 0.15
"""Of the coarse matches. Chance agreement of wrong ones stays under 0.05; a plane that fills a quarter passes."""


class GcmMatcher(ExtractingMatcher):
    """Dense features of a backbone and of a patch descriptor, matched from coarse to fine.

    Points of image 0 are places of the finest level, pixels of the prepared image where there is a patch descriptor;
    their number is `point_id0`. The confidence is 1 - d1 / d2 of ratio tests, so a `match_threshold` of 0.05 is the
    paper's ratio 0.95 (many) and 0.4 its 0.60 (precise). sigma_px is unknown (NaN). `weights` has no effect: backbone
    and descriptor have their own in `gcm.backbone` and `gcm.descriptor`.
    """

    name = 'gcm'

    def __init__(self, config: MatcherConfig):
        self.config = config
        self.notes = {}
        self.device = choose_device(config.device)
        self.descriptor = create_descriptor(config, self.notes)
        self.backbone = create_backbone(config, self.device)
        self._ratios = _parse_ratios(config.gcm, len(self.backbone.strides) + (self.descriptor is not None))
        self.images = ImageExtractor(
            self.name,
            config,
            self.notes,
            self.backbone.strides[-1],
            lambda image: self._pyramid(image.pixels),
            grey=not self.backbone.colour,
        )

    def _match(self, features0: ImageFeatures, features1: ImageFeatures) -> PreparedMatches:
        image0, image1 = features0.image, features1.image
        pyramid0, pyramid1 = features0.features, features1.features
        cells = gcm.match_coarsest(pyramid0, pyramid1)
        homography = find_homography(cells, pyramid0, pyramid1) if self.config.gcm.align else None
        if homography is not None:
            pyramid1 = self._pyramid(_warp(image1, homography, image0))
            cells = gcm.match_coarsest(pyramid0, pyramid1)
        if self.config.gcm.refinement == 'paper':
            found = gcm.refine(pyramid0, pyramid1, cells, self._ratios)
        else:
            found = refine_widened(pyramid0, pyramid1, cells)
        index0, points0, points1, confidence = (field.cpu().numpy() for field in found)
        points0, points1 = points0.astype(np.float64), points1.astype(np.float64)
        if homography is not None:
            points1 = cv2.perspectiveTransform(points1[None], homography)[0] if len(points1) else points1
        return PreparedMatches(points0, points1, confidence, index0, DEPENDENCE)

    def _pyramid(self, pixels: np.ndarray) -> gcm.Pyramid:
        image = torch.tensor(np.ascontiguousarray(pixels), device=self.device).float() / 255
        image = image.flip(-1).permute(2, 0, 1)[None] if image.ndim == 3 else image[None, None]  # red first
        return gcm.Pyramid(image, self.descriptor, self.backbone)


def _parse_ratios(config: GcmConfig, levels: int) -> list[float]:
    """Return the ratios of `gcm.ratios`, none or one for each level."""
    try:
        ratios = [float(part) for part in config.ratios.split(',') if part.strip()]
    except ValueError:
        ratios = [-1.0]
    if any(not 0 < ratio <= 1 for ratio in ratios) or len(ratios) not in (0, levels):
        raise ConfigError(
            f'matcher.gcm.ratios is {config.ratios!r}, needed are {levels} numbers above 0 and up to 1, one for each '
            'level, the coarsest first, or an empty string'
        )
    if ratios and config.refinement != 'paper':
        raise ConfigError('matcher.gcm.ratios needs matcher.gcm.refinement: paper')
    return ratios


def find_homography(cells: gcm.Cells, pyramid0: gcm.Pyramid, pyramid1: gcm.Pyramid) -> np.ndarray | None:
    """Return image1_from_image0 (3, 3) of prepared pixels by RANSAC on coarse matches, None where none holds."""
    if len(cells.index0) < MIN_HOMOGRAPHY_INLIERS:
        return None
    points0, points1 = (
        gcm.centres(index, pyramid.coarsest).cpu().numpy().astype(np.float64)
        for index, pyramid in ((cells.index0, pyramid0), (cells.index1, pyramid1))
    )
    # A cell's diagonal is what rounding to cells can cost. OpenCV seeds this RANSAC with a constant.
    homography, inliers = cv2.findHomography(points0, points1, cv2.RANSAC, pyramid0.coarsest.stride * 2**0.5 + 1)
    if homography is None or inliers.sum() < max(MIN_HOMOGRAPHY_INLIERS, MIN_HOMOGRAPHY_SHARE * len(inliers)):
        return None
    return homography if _is_moderate(homography, pyramid0) else None


def _is_moderate(homography: np.ndarray, pyramid0: gcm.Pyramid) -> bool:
    """Say whether no corner of image 0 passes the horizon and no area there grows or shrinks more than 16 times."""
    right, bottom = pyramid0.width, pyramid0.height
    corners = np.array([[0, 0, 1], [right, 0, 1], [right, bottom, 1], [0, bottom, 1]], dtype=np.float64)
    depth = corners @ homography[2]
    area_scale = np.linalg.det(homography) / depth**3  # determinant of the map's Jacobian
    return bool(np.all(depth > 0) and np.all(area_scale > 1 / 16) and np.all(area_scale < 16))


def _warp(image1: PreparedImage, homography: np.ndarray, image0: PreparedImage) -> np.ndarray:
    """Return image 1 as it would look from image 0, on the grid of image 0."""
    height, width = image0.pixels.shape[:2]
    return cv2.warpPerspective(
        image1.pixels,
        homography,
        (width, height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
