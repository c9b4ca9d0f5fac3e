"""Search for a turn, zoom or slant between two images, for matchers that find few matches under one by themselves.

Keypoints of ORB (Rublee et al., ICCV 2011), which turn and grow with the image, are matched between both images in a
reduced size. If enough of them agree on an affine map, image 1 is warped with it to look like image 0 and matched once
more. Image 0 is never changed, so its points keep their numbers.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import NamedTuple

import cv2
import numpy as np

from loftr_ros.config import MatcherConfig
from loftr_ros.datatypes import Matches
from loftr_ros.image import prepare, transform_points, warp_image
from loftr_ros.matchers.base import DetectedKeypoints, Features, Matcher
from loftr_ros.matchers.opencv_detectors import ORB_SCALE, OrbDetector

GUIDE_SIZE_PX = 480
"""Longer side of the images in which ORB looks: 5 ms for an image, and as good as in larger ones."""

GUIDE_KEYPOINTS = 500
GUIDE_FAST_THRESHOLD = 7
"""Least contrast of a corner [grey values]. Of 135 turned views 133 are found, with OpenCV's default of 20 only 127."""

GUIDE_RATIO = 0.85

MIN_GUIDING = 15
"""Keypoints that must agree on a map. Of different places 6 agree, in one pair of fifty more than this."""

TOLERANCE = 0.02
"""Distance from a common affine map up to which matches agree [longer side of image 0]. It allows for depth and
perspective."""

AGREEING_SHARE = 0.6
"""Nothing is searched if that share of the matches agrees: 0.67 and more where the images look alike, 0.05 to
0.3 between different places, 0.3 to 0.5 where some matches are found in spite of a turn."""

CLEAR = 100
"""With that many agreeing matches the map is known, even where parallax lets the others disagree."""

MIN_AGREEING = 40
"""Least agreeing matches with the warped image: of wrong matches alone up to 30 agree."""

UPRIGHT_DEG, UPRIGHT_ZOOM, UPRIGHT_STRETCH = 25.0, 1.6, 1.6
"""Turn, change of scale and ratio of the scales of two directions up to which the matcher itself finds most matches."""

GAIN = 1.5
"""The warped image must have this many times the agreeing matches of the original image 1."""

HYPOTHESES = 2
"""The better of two sets of matches is kept, the first and that with the warped image."""

MAX_STRETCH = 4.0
"""Largest ratio of the two singular values of an affine map, and largest root of its change of area."""


class Agreement(NamedTuple):
    """The affine map with which most matches agree, and their number."""

    image0_from_image1: np.ndarray  # (3, 3)
    count: int


@dataclasses.dataclass(frozen=True, eq=False)
class SearchableFeatures:
    """An image and its features, and its keypoints of ORB, which are found when they are needed first."""

    image: np.ndarray  # uint8 (H, W) or (H, W, 3)
    features: Features
    detector: GuideDetector

    @functools.cached_property
    def guide(self) -> DetectedKeypoints:
        """Keypoints of ORB, in pixels of the image."""
        prepared = prepare(self.image, resize_max=GUIDE_SIZE_PX)
        found = self.detector.detect(prepared)
        return found._replace(points=prepared.to_original(found.points))


class GuideDetector(OrbDetector):
    """ORB that also finds faint corners, as in ORB-SLAM (Mur-Artal et al., IEEE Transactions on Robotics 2015)."""

    def __init__(self):
        super().__init__(MatcherConfig(), GUIDE_KEYPOINTS)

    def _create_detector(self):
        return cv2.ORB_create(self.max_keypoints, scaleFactor=ORB_SCALE, fastThreshold=GUIDE_FAST_THRESHOLD)


class RotationSearchMatcher(Matcher):
    """A matcher that also finds matches if image 1 is turned, enlarged, reduced or seen from the side.

    Args:
        always: search also where the matches of the images as they are agree.
    """

    def __init__(self, matcher: Matcher, always: bool = False):
        self.matcher, self.name = matcher, matcher.name
        self._always = always
        self._detector = GuideDetector()

    @property
    def notes(self) -> Mapping[str, str]:
        return self.matcher.notes

    def extract(self, image: np.ndarray) -> SearchableFeatures:
        return SearchableFeatures(image, self.matcher.extract(image), self._detector)

    def match(self, features0: SearchableFeatures, features1: SearchableFeatures) -> Matches:
        matches = self.matcher.match(features0.features, features1.features)
        size0 = max(features0.image.shape[:2])
        upright = agreement(matches, size0)
        enough = upright.count >= min(CLEAR, max(MIN_AGREEING, AGREEING_SHARE * len(matches)))
        if enough and _is_upright(upright.image0_from_image1[:2, :2]) and not self._always:
            return matches
        # The matches themselves tell a slant better than the keypoints, if some were found.
        guess = agreement(guiding_matches(features0.guide, features1.guide), size0)
        best = max(upright, guess, key=lambda found: found.count)
        is_found = upright.count >= MIN_AGREEING or guess.count >= MIN_GUIDING
        if not is_found or (_is_upright(best.image0_from_image1[:2, :2]) and not self._always):
            return matches
        warped = self._match_warped(features0, features1, best.image0_from_image1)
        return warped if agreement(warped, size0).count >= max(MIN_AGREEING, GAIN * upright.count) else matches

    def keep_points(self, features0: SearchableFeatures, matches: Matches) -> SearchableFeatures:
        return dataclasses.replace(features0, features=self.matcher.keep_points(features0.features, matches))

    def point_ids_at(self, features: SearchableFeatures, keypoints: np.ndarray) -> np.ndarray:
        return self.matcher.point_ids_at(features.features, keypoints)

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
            log10_dependence=matches.log10_dependence + math.log10(HYPOTHESES),
        ).select(inside)


def guiding_matches(guide0: DetectedKeypoints, guide1: DetectedKeypoints) -> Matches:
    """Return the matches of two `SearchableFeatures.guide` that pass the ratio test."""
    if not len(guide0.points) or len(guide1.points) < 2:
        return Matches.empty()
    pairs = cv2.BFMatcher(cv2.NORM_HAMMING).knnMatch(guide0.descriptors, guide1.descriptors, k=2)
    kept = [first for first, second in pairs if first.distance < GUIDE_RATIO * second.distance]
    index0, index1 = (np.array([getattr(match, name) for match in kept], int) for name in ('queryIdx', 'trainIdx'))
    return Matches(guide0.points[index0], guide1.points[index1])


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
    """Return whether a linear map (2, 2) does not turn, scale or stretch much."""
    turn_deg = np.degrees(np.arctan2(linear[1, 0] - linear[0, 1], linear[0, 0] + linear[1, 1]))
    large, small = np.linalg.svd(linear, compute_uv=False)
    return (
        abs(turn_deg) <= UPRIGHT_DEG
        and 1 / UPRIGHT_ZOOM <= np.sqrt(large * small) <= UPRIGHT_ZOOM
        and large <= UPRIGHT_STRETCH * small
    )
