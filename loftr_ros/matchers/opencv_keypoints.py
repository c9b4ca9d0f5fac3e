"""The matchers `sift`, `orb` and `akaze`: keypoints of OpenCV with Lowe's ratio test."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from loftr_ros.config import MatcherConfig
from loftr_ros.datatypes import Matches
from loftr_ros.errors import MissingDependencyError
from loftr_ros.image import PreparedImage, prepare
from loftr_ros.matchers.base import Matcher
from loftr_ros.matchers.image_features import ImageFeatures, PreparedMatches

NUM_KEYPOINTS = 2048
SMALLEST_SIDE = 16
"""OpenCV's pyramids fail for images of a few pixels."""

ORB_SCALE = 1.2
"""Ratio of the scales of two levels of ORB's pyramid; OpenCV's default."""


class DetectedKeypoints(NamedTuple):
    """N keypoints of a prepared image."""

    points: np.ndarray  # (N, 2) float64 x, y [px]
    scores: np.ndarray  # (N,) response of the detector
    descriptors: np.ndarray  # (N, D) float32, or uint8 of bits


class OpenCvMatcher(Matcher):
    """Keypoints of an OpenCV detector, brute-force matching, Lowe's ratio test.

    The confidence is 1 - d1 / d2, so the default `match_threshold` of 0.2 is the usual ratio 0.8. `point_id0` and
    `point_id1` are numbers of keypoints. There is no network, so `weights`, `device`, `precision` and `engine` have no
    effect.
    """

    name: str
    rotation_invariant = True
    norm: int = cv2.NORM_HAMMING

    def __init__(self, config: MatcherConfig):
        self.config = config
        self.detector = self._create_detector()
        self.matcher = cv2.BFMatcher(self.norm)

    def extract(self, image: np.ndarray) -> ImageFeatures:
        """Return the keypoints of `image`, uint8 (H, W) or (H, W, 3) blue first, any size."""
        prepared = prepare(image, resize_max=self.config.resize_max)
        return ImageFeatures(prepared, self.detect(prepared))

    def detect(self, image: PreparedImage) -> DetectedKeypoints:
        """Return the keypoints of a prepared image, NUM_KEYPOINTS at most."""
        keypoints, descriptors = (), None
        if min(image.pixels.shape) >= SMALLEST_SIDE:
            keypoints, descriptors = self.detector.detectAndCompute(image.pixels, None)
        if descriptors is None:
            return DetectedKeypoints(np.zeros((0, 2)), np.zeros(0), np.zeros((0, 1), np.uint8))
        scores = np.array([keypoint.response for keypoint in keypoints])
        found = DetectedKeypoints(self._positions(keypoints, image), scores, descriptors)
        if len(scores) <= NUM_KEYPOINTS:
            return found
        best = np.sort(np.argsort(-scores, kind='stable')[:NUM_KEYPOINTS])
        return DetectedKeypoints(*(array[best] for array in found))

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
            keypoints0.points[index0], keypoints1.points[index1], confidence, index0, 0.0, point_id1=index1
        )
        return found.to_original(features0, features1, self.config)

    def _create_detector(self):
        raise NotImplementedError

    def _positions(self, keypoints, image: PreparedImage) -> np.ndarray:
        """Return the positions (N, 2) of OpenCV's keypoints; the centre of the top-left pixel is (0, 0)."""
        return np.array([keypoint.pt for keypoint in keypoints], dtype=np.float64)


class SiftMatcher(OpenCvMatcher):
    """SIFT (Lowe, IJCV 2004)."""

    name = 'sift'
    norm = cv2.NORM_L2

    def _create_detector(self):
        return cv2.SIFT_create(NUM_KEYPOINTS)

    def _positions(self, keypoints, image):
        # OpenCV doubles the image first; its positions are too large by a quarter of a pixel.
        return super()._positions(keypoints, image) - 0.25


class OrbMatcher(OpenCvMatcher):
    """ORB (Rublee et al., ICCV 2011)."""

    name = 'orb'

    def _create_detector(self):
        return cv2.ORB_create(NUM_KEYPOINTS, scaleFactor=ORB_SCALE)

    def _positions(self, keypoints, image):
        """Return positions without the offset of each level.

        OpenCV multiplies a position in a level by the scale of the level. But a level has a whole number of pixels, so
        its scale differs in width and height, and pixel centres are at half a pixel. Levels would be 1 to 3 px apart,
        which looks like parallax where a camera only rotates.
        """
        octaves = np.array([keypoint.octave for keypoint in keypoints], dtype=int)
        scales = (float(np.float32(ORB_SCALE)) ** octaves)[:, None]
        size = np.array(image.pixels.shape[::-1])
        return (super()._positions(keypoints, image) / scales + 0.5) * size / np.rint(size / scales) - 0.5


class AkazeMatcher(OpenCvMatcher):
    """AKAZE (Alcantarilla et al., BMVC 2013)."""

    name = 'akaze'

    def _create_detector(self):
        if not hasattr(cv2, 'AKAZE_create'):
            raise MissingDependencyError(
                f'OpenCV {cv2.__version__} has no AKAZE; install opencv-python<5, or use matcher.name sift or orb'
            )
        return cv2.AKAZE_create()
