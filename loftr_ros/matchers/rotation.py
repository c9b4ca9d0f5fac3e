"""Search for a turn, zoom or slant between two images, for matchers that find few matches under one by themselves.

Reduced copies of image 1, turned by steps of 45 degrees, are matched with the reduced image 0. The matches of the best
copy give an affine map. With it, image 1 is warped to look like image 0 and matched once more at full size. Image 0 is
never changed, so its points keep their numbers.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import cv2
import numpy as np

from loftr_ros.datatypes import Matches
from loftr_ros.image import scale_matrix, transform_points, turn_matrix, warp_image
from loftr_ros.matchers.base import Features, Matcher

SEARCH_SIZE_PX = 320
"""Longer side of the reduced images: a match takes a fifth of the time of 640 px and finds turns as reliably."""

ANGLES_DEG = (0, 90, 270, 180, 45, 315, 135, 225)
"""Quarter turns first, because their copies are smaller. The small Efficient LoFTR finds most matches up to a turn of
25 degrees and many up to 35."""

PLENTIFUL = 500
"""With that many matches nothing is searched: different places give 20 to 350 at 640x480."""

TOLERANCE = 0.02
"""Distance from a common affine map up to which matches agree [longer side of image 0]. It allows for depth and
perspective."""

AGREEING_SHARE = 0.6
"""Nothing is searched either if that share of the matches agrees: 0.67 and more where the images look alike, 0.05 to
0.3 between different places, 0.3 to 0.5 where some matches are found in spite of a turn."""

MIN_AGREEING = 40
"""Least agreeing matches of a copy: of wrong matches alone up to 30 agree."""

UPRIGHT_DEG, UPRIGHT_ZOOM = 25.0, 1.6
"""Turn and change of scale up to which the matcher itself finds most matches."""

GAIN = 1.5
"""The warped image must have this many times the agreeing matches of the original image 1."""

CLEAR = 120
"""A copy with this many agreeing matches is used, and the remaining copies are not tried."""

MAX_STRETCH = 4.0
"""Largest ratio of the two singular values of an affine map, and largest root of its change of area."""


class Agreement(NamedTuple):
    """The affine map with which most matches agree, and their number."""

    image0_from_image1: np.ndarray  # (3, 3)
    count: int


@dataclasses.dataclass(frozen=True, eq=False)
class SearchableFeatures:
    """An image, its features, and those of its reduced copies, which are extracted when they are needed first.

    Only copies that are not turned are kept: a keyframe is searched many times, image 1 once.
    """

    image: np.ndarray  # uint8 (H, W) or (H, W, 3)
    features: Features
    reduced: dict[int, tuple[np.ndarray, Features]] = dataclasses.field(default_factory=dict)


class RotationSearchMatcher(Matcher):
    """A matcher that also finds matches if image 1 is turned, and with `zooms` if it is enlarged or reduced.

    Args:
        always: search also where the matches of the images as they are are plentiful.
        zooms: also search for a change of scale by 2.
    """

    def __init__(self, matcher: Matcher, always: bool = False, zooms: bool = False):
        self.matcher, self.name = matcher, matcher.name
        self._always, self._zooms = always, zooms

    @property
    def notes(self) -> Mapping[str, str]:
        return self.matcher.notes

    def extract(self, image: np.ndarray) -> SearchableFeatures:
        return SearchableFeatures(image, self.matcher.extract(image))

    def match(self, features0: SearchableFeatures, features1: SearchableFeatures) -> Matches:
        matches = self.matcher.match(features0.features, features1.features)
        if len(matches) >= PLENTIFUL and not self._always:
            return matches
        size0 = max(features0.image.shape[:2])
        upright = agreement(matches, size0)
        enough = upright.count >= max(MIN_AGREEING, AGREEING_SHARE * len(matches))
        if enough and _is_upright(upright.image0_from_image1[:2, :2]) and not self._always:
            return matches
        best = upright
        for found in self._search(features0, features1):
            best = max(best, found, key=lambda agreement: agreement.count)
            if found.count >= max(CLEAR, GAIN * upright.count):
                break
        if best.count < MIN_AGREEING:
            return matches
        warped = self._match_warped(features0, features1, best.image0_from_image1)
        return warped if agreement(warped, size0).count >= max(MIN_AGREEING, GAIN * upright.count) else matches

    def keep_points(self, features0: SearchableFeatures, matches: Matches) -> SearchableFeatures:
        return dataclasses.replace(features0, features=self.matcher.keep_points(features0.features, matches))

    def point_ids_at(self, features: SearchableFeatures, keypoints: np.ndarray) -> np.ndarray:
        return self.matcher.point_ids_at(features.features, keypoints)

    def _copies(self) -> list[tuple[int, int, int]]:
        """Return for each copy the longer sides of the reduced images 0 and 1 [px] and the turn of image 1 [deg]."""
        sizes = [(SEARCH_SIZE_PX, SEARCH_SIZE_PX)]
        if self._zooms:
            sizes += [(SEARCH_SIZE_PX // 2, SEARCH_SIZE_PX), (SEARCH_SIZE_PX, SEARCH_SIZE_PX // 2)]
        return [(size0, size1, angle) for size0, size1 in sizes for angle in ANGLES_DEG]

    def _search(self, features0: SearchableFeatures, features1: SearchableFeatures) -> Iterator[Agreement]:
        """Yield the agreement of the matches with each reduced copy."""
        for size0, size1, angle in self._copies():
            copy0_from_0, copy0 = self._copy(features0, size0, 0)
            copy1_from_1, copy1 = self._copy(features1, size1, angle)
            found = agreement(self.matcher.match(copy0, copy1), min(size0, max(features0.image.shape[:2])))
            yield found._replace(
                image0_from_image1=np.linalg.inv(copy0_from_0) @ found.image0_from_image1 @ copy1_from_1
            )

    def _copy(self, features: SearchableFeatures, size: int, angle_deg: int) -> tuple[np.ndarray, Features]:
        """Return the map (3, 3) from the image to its reduced, turned copy, and the features of the copy."""
        if angle_deg == 0 and size in features.reduced:
            return features.reduced[size]
        height, width = features.image.shape[:2]
        scale = min(1.0, size / max(width, height))
        reduced = max(1, round(scale * width)), max(1, round(scale * height))
        turn, turned_size = turn_matrix(*reduced, angle_deg)
        matrix = turn @ scale_matrix((reduced[0] / width, reduced[1] / height))
        copy = matrix, self.matcher.extract(warp_image(features.image, matrix, turned_size))
        if angle_deg == 0:
            features.reduced[size] = copy
        return copy

    def _match_warped(
        self, features0: SearchableFeatures, features1: SearchableFeatures, image0_from_image1: np.ndarray
    ) -> Matches:
        """Return the matches of image 0 with image 1 warped to look like it."""
        height, width = features0.image.shape[:2]
        warped = self.matcher.extract(warp_image(features1.image, image0_from_image1, (width, height)))
        matches = self.matcher.match(features0.features, warped)
        image1_from_image0 = np.linalg.inv(image0_from_image1)
        points1 = transform_points(image1_from_image0, matches.keypoints1)
        height1, width1 = features1.image.shape[:2]
        inside = ((points1 >= 0) & (points1 <= [width1 - 1, height1 - 1])).all(axis=1)
        scale = np.sqrt(np.linalg.det(image1_from_image0[:2, :2]))
        return dataclasses.replace(
            matches,
            keypoints1=points1,
            sigma_px=matches.sigma_px * scale,
            point_id1=None,  # numbers of the warped image
            log10_dependence=matches.log10_dependence + math.log10(len(self._copies())),
        ).select(inside)


def agreement(matches: Matches, size0_px: float) -> Agreement:
    """Return the affine map with which most matches agree, and their number; 0 if it would mirror or crush the image.

    Args:
        size0_px: longer side of image 0 [px].
    """
    matrix = None
    if len(matches) >= 4:
        matrix, agree = cv2.estimateAffine2D(
            matches.keypoints1, matches.keypoints0, method=cv2.RANSAC, ransacReprojThreshold=TOLERANCE * size0_px
        )
    if matrix is None or not _is_view(matrix[:, :2]):
        return Agreement(np.eye(3), 0)
    return Agreement(np.vstack([matrix, [0, 0, 1]]), int(np.count_nonzero(agree)))


def _is_view(linear: np.ndarray) -> bool:
    """Return whether an affine map (2, 2) could be that of a surface in two photographs."""
    large, small = np.linalg.svd(linear, compute_uv=False)
    return (
        np.linalg.det(linear) > 0
        and large <= MAX_STRETCH * small
        and 1 / MAX_STRETCH <= np.sqrt(large * small) <= MAX_STRETCH
    )


def _is_upright(linear: np.ndarray) -> bool:
    """Return whether a linear map (2, 2) neither turns nor scales much."""
    turn_deg = np.degrees(np.arctan2(linear[1, 0] - linear[0, 1], linear[0, 0] + linear[1, 1]))
    zoom = np.sqrt(np.linalg.det(linear))
    return abs(turn_deg) <= UPRIGHT_DEG and 1 / UPRIGHT_ZOOM <= zoom <= UPRIGHT_ZOOM
