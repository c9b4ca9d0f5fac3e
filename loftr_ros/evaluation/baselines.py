"""SIFT and ORB as matchers to compare with. They keep the Matcher protocol but are no choice of `matcher.name`."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np

from loftr_ros.config import MatcherConfig
from loftr_ros.datatypes import Matches
from loftr_ros.errors import ConfigError
from loftr_ros.image import prepare
from loftr_ros.matchers import Matcher, create_matcher
from loftr_ros.matchers.subpixel import SubpixelMatcher

NUM_KEYPOINTS = 2048
RATIO = 0.8
"""Lowe's, for comparisons."""

ORB_SCALE = 1.2
"""Of one level of ORB's pyramid over the next; OpenCV's default."""


class KeypointMatcher(Matcher):
    """Keypoints of OpenCV, brute force, Lowe's ratio test.

    The confidence is 1 - d1 / d2, so the default `match_threshold` of 0.2 is the usual ratio 0.8. The cell of a match
    is the number of its keypoint in image 0.
    """

    def __init__(self, name: str, detector, norm: int, positions, config: MatcherConfig):
        """`positions` is a function of the keypoints and the pixels that returns (N, 2)."""
        self.name = name
        self.detector = detector
        self.positions = positions
        self.matcher = cv2.BFMatcher(norm)
        self.config = config

    def extract(self, image: np.ndarray):
        """Return the prepared image, its keypoints (N, 2) and their descriptors (N, D)."""
        prepared = prepare(image, resize_max=self.config.resize_max)
        # OpenCV's pyramids refuse images of a few pixels.
        found = min(prepared.pixels.shape) >= 16
        keypoints, descriptors = self.detector.detectAndCompute(prepared.pixels, None) if found else ((), None)
        return prepared, self.positions(keypoints, prepared.pixels), descriptors

    def match(self, features0, features1) -> Matches:
        """Return the matches, most confident first."""
        (image0, points0, descriptors0), (image1, points1, descriptors1) = features0, features1
        if descriptors0 is None or descriptors1 is None or len(points1) < 2:
            return Matches.empty()
        pairs = self.matcher.knnMatch(descriptors0, descriptors1, k=2)
        index0, index1 = (np.array([getattr(p[0], n) for p in pairs]) for n in ('queryIdx', 'trainIdx'))
        distance = np.array([[first.distance, second.distance] for first, second in pairs], dtype=np.float64)
        confidence = 1 - distance[:, 0] / np.maximum(distance[:, 1], 1e-9)
        confidence[distance[:, 1] == 0] = 0  # two candidates without a difference
        order = np.argsort(-confidence, kind='stable')
        order = order[confidence[order] >= self.config.match_threshold][: self.config.max_matches or None]
        return Matches(
            image0.to_original(points0[index0[order]]),
            image1.to_original(points1[index1[order]]),
            confidence[order],
            np.full(len(order), np.nan),
            index0[order],
            log10_dependence=0.0,
            from_images=True,
        )


def _points(keypoints) -> np.ndarray:
    return np.array([keypoint.pt for keypoint in keypoints], dtype=np.float64).reshape(-1, 2)


def _sift_positions(keypoints, pixels: np.ndarray) -> np.ndarray:
    """Return the positions (N, 2) of keypoints of OpenCV's SIFT, which doubles the image and is a quarter pixel off."""
    return _points(keypoints) - 0.25


def _orb_positions(keypoints, pixels: np.ndarray) -> np.ndarray:
    """Return the positions (N, 2) of keypoints of OpenCV's ORB, of which each level has its own offset.

    OpenCV multiplies a position in a level by the scale of the level. But a level has a whole number of pixels, so its
    scale is another in width and height, and pixel centres lie at half a pixel. Levels would be 1 to 3 px apart, which
    looks like parallax where a camera only turns.
    """
    octaves = np.array([keypoint.octave for keypoint in keypoints], dtype=int)
    scales = (float(np.float32(ORB_SCALE)) ** octaves)[:, None]
    size = np.array(pixels.shape[::-1])
    return (_points(keypoints) / scales + 0.5) * size / np.rint(size / scales) - 0.5


def _sift(config: MatcherConfig) -> KeypointMatcher:
    return KeypointMatcher('sift', cv2.SIFT_create(NUM_KEYPOINTS), cv2.NORM_L2, _sift_positions, config)


def _orb(config: MatcherConfig) -> KeypointMatcher:
    detector = cv2.ORB_create(NUM_KEYPOINTS, scaleFactor=ORB_SCALE)
    return KeypointMatcher('orb', detector, cv2.NORM_HAMMING, _orb_positions, config)


BASELINES = {'sift': _sift, 'orb': _orb}
"""Name -> function of a MatcherConfig."""

LK = '+lk'
"""Behind the name of a baseline: its points refined by Lucas-Kanade, as those of our matchers are."""

COMPARED = [name + ending for name in BASELINES for ending in ('', LK)]
"""What our matchers are compared with."""


def matcher_or_baseline(name: str, config: MatcherConfig):
    """Return the matcher `name`, or the baseline with RATIO and all its matches, whatever `config` says of these.

    A name `loftr:WEIGHTS` says the weights as well, as `matcher.weights` would. COMPARED has the baselines; whether
    one is refined says its name alone, whether another matcher is says `config.subpixel`.
    """
    if name in COMPARED:
        own = dataclasses.replace(config, name=name.removesuffix(LK), match_threshold=1 - RATIO, max_matches=0)
        baseline = create_baseline(own)
        if not name.endswith(LK):
            return baseline
        matcher = SubpixelMatcher(baseline, config.resize_max)
        matcher.name = name
        return matcher
    name, _, weights = name.partition(':')
    config = dataclasses.replace(config, name=name, weights=weights or config.weights)
    return create_matcher(config)


def create_baseline(config: MatcherConfig) -> KeypointMatcher:
    """Return the baseline `config.name`; raise ConfigError for an unknown one."""
    if config.name not in BASELINES:
        raise ConfigError(f'baseline {config.name!r} is unknown; known are {", ".join(BASELINES)}')
    return BASELINES[config.name](config)
