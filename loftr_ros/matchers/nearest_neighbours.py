"""The matchers `nearest_neighbours`, `sift`, `orb` and `akaze`: keypoints of a detector and Lowe's ratio test."""

from __future__ import annotations

import functools

import cv2
import numpy as np

from loftr_ros.config import MatcherConfig
from loftr_ros.datatypes import Matches
from loftr_ros.image import prepare
from loftr_ros.matchers.base import Matcher
from loftr_ros.matchers.detectors import create_detector
from loftr_ros.matchers.image_features import ImageFeatures, PreparedMatches

NUM_KEYPOINTS = 2048
"""Default of `keypoints.max_keypoints`."""


class RatioMatcher(Matcher):
    """Keypoints of any detector, brute-force matching, Lowe's ratio test (IJCV 2004, section 7.1).

    The confidence is 1 - d1 / d2, so the default `match_threshold` of 0.2 is the usual ratio 0.8. `point_id0` and
    `point_id1` are numbers of keypoints.

    Args:
        detector: its name; empty: `config.keypoints.detector`.
    """

    def __init__(self, config: MatcherConfig, detector: str = ''):
        self.config = config
        self.detector = create_detector(detector or config.keypoints.detector, config, NUM_KEYPOINTS)
        self.name = detector or f'nearest_neighbours:{self.detector.name}'
        self.rotation_invariant = self.detector.rotation_invariant
        self.matcher = cv2.BFMatcher(cv2.NORM_HAMMING if self.detector.is_binary else cv2.NORM_L2)

    def extract(self, image: np.ndarray) -> ImageFeatures:
        """Return the keypoints of `image`, uint8 (H, W) or (H, W, 3) blue first, any size."""
        prepared = prepare(image, resize_max=self.config.resize_max, multiple=self.detector.side_multiple)
        return ImageFeatures(prepared, self.detector.detect(prepared))

    def match(self, features0: ImageFeatures, features1: ImageFeatures) -> Matches:
        """Return the matches, most confident first."""
        keypoints0, keypoints1 = features0.features, features1.features
        if not len(keypoints0.points) or len(keypoints1.points) < 2:
            return Matches.empty()
        pairs = self.matcher.knnMatch(keypoints0.descriptors, keypoints1.descriptors, k=2)
        index0, index1 = (np.array([getattr(p[0], n) for p in pairs]) for n in ('queryIdx', 'trainIdx'))
        distance = np.array([[first.distance, second.distance] for first, second in pairs], dtype=np.float64)
        confidence = 1 - distance[:, 0] / np.maximum(distance[:, 1], 1e-9)
        confidence[distance[:, 1] == 0] = 0  # two equal candidates
        found = PreparedMatches(
            keypoints0.points[index0],
            keypoints1.points[index1],
            confidence,
            index0,
            self.detector.log10_dependence,
            point_id1=index1,
        )
        return found.to_original(features0, features1, self.config)


sift, orb, akaze = (functools.partial(RatioMatcher, detector=name) for name in ('sift', 'orb', 'akaze'))
