"""The detectors `sift`, `orb` and `akaze` of OpenCV."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np

from loftr_ros.config import KeypointConfig, MatcherConfig
from loftr_ros.errors import ConfigError, MissingDependencyError
from loftr_ros.image import PreparedImage
from loftr_ros.matchers.base import DetectedKeypoints, Detector

SMALLEST_SIDE = 16
"""OpenCV's pyramids fail for images of a few pixels."""

ORB_SCALE = 1.2
"""Ratio of the scales of two levels of ORB's pyramid; OpenCV's default."""

HONOURED = ('detector', 'max_keypoints')
"""The settings of KeypointConfig that these detectors have."""


class OpenCvDetector(Detector):
    """A detector of OpenCV with its own thresholds and borders.

    Raises:
        ConfigError: a setting of `keypoints` that it does not have is not at its default.
    """

    rotation_invariant = True
    is_binary = True

    def __init__(self, config: MatcherConfig, max_keypoints: int):
        refused = [
            f'keypoints.{field.name}'
            for field in dataclasses.fields(KeypointConfig)
            if field.name not in HONOURED and getattr(config.keypoints, field.name) != field.default
        ]
        if refused:
            raise ConfigError(
                f'matcher.{", matcher.".join(refused)}: {self.name} of OpenCV has no such setting; leave it at its '
                'default, or use keypoints of superpoint (matcher.name superpoint_nn)'
            )
        self.max_keypoints = config.keypoints.max_keypoints or max_keypoints
        self.detector = self._create_detector()
        self.descriptor_length = self.detector.descriptorSize()

    def detect(self, image: PreparedImage) -> DetectedKeypoints:
        """Return the keypoints of a prepared image, the best `max_keypoints` in the order of OpenCV."""
        keypoints, descriptors = (), None
        if min(image.pixels.shape) >= SMALLEST_SIDE:
            keypoints, descriptors = self.detector.detectAndCompute(image.pixels, None)
        if descriptors is None:
            none = np.zeros((0, self.descriptor_length), np.uint8 if self.is_binary else np.float32)
            return DetectedKeypoints(np.zeros((0, 2)), np.zeros(0), none)
        scores = np.array([keypoint.response for keypoint in keypoints])
        found = DetectedKeypoints(self._positions(keypoints, image), scores, descriptors)
        if len(scores) <= self.max_keypoints:
            return found
        best = np.sort(np.argsort(-scores, kind='stable')[: self.max_keypoints])
        return DetectedKeypoints(*(array[best] for array in found))

    def _create_detector(self):
        raise NotImplementedError

    def _positions(self, keypoints, image: PreparedImage) -> np.ndarray:
        """Return the positions (N, 2) of OpenCV's keypoints; the centre of the top-left pixel is (0, 0)."""
        return np.array([keypoint.pt for keypoint in keypoints], dtype=np.float64)


class SiftDetector(OpenCvDetector):
    """SIFT (Lowe, IJCV 2004)."""

    name = 'sift'
    is_binary = False

    def _create_detector(self):
        return cv2.SIFT_create(self.max_keypoints)

    def _positions(self, keypoints, image):
        # OpenCV doubles the image first; its positions are too large by a quarter of a pixel.
        return super()._positions(keypoints, image) - 0.25


class OrbDetector(OpenCvDetector):
    """ORB (Rublee et al., ICCV 2011)."""

    name = 'orb'

    def _create_detector(self):
        return cv2.ORB_create(self.max_keypoints, scaleFactor=ORB_SCALE)

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


class AkazeDetector(OpenCvDetector):
    """AKAZE (Alcantarilla et al., BMVC 2013)."""

    name = 'akaze'

    def _create_detector(self):
        if not hasattr(cv2, 'AKAZE_create'):
            raise MissingDependencyError(
                f'OpenCV {cv2.__version__} has no AKAZE; install opencv-python<5, or use matcher.name sift or orb'
            )
        return cv2.AKAZE_create()
