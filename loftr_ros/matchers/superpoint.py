"""The base class of networks that match keypoints, and `superpoint_nn`: mutual nearest neighbours of SuperPoint."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from loftr_ros.config import KeypointConfig, MatcherConfig
from loftr_ros.errors import ConfigError
from loftr_ros.matchers.base import DetectedKeypoints
from loftr_ros.matchers.detectors import create_detector
from loftr_ros.matchers.image_features import ImageFeatures, PreparedMatches
from loftr_ros.matchers.inference import ExtractingMatcher, ImageExtractor, Inference
from loftr_ros.matchers.superpoint_detector import LOG10_DEPENDENCE, SuperPointDetector
from loftr_ros.networks.keypoints import Keypoints

TEMPERATURE = 0.05
"""Temperature of the dual soft-max over cosines that gives the confidence; 0.07 in training (training/superpoint.py).
With 0.05 the default `match_threshold` keeps 1.4 times as many correct matches on KITTI and TartanAir, with equally
good poses."""


class KeypointPairs(NamedTuple):
    """N pairs of keypoints."""

    index0: Tensor  # (N,) int64, numbers of keypoints of image 0
    index1: Tensor  # (N,) int64
    confidence: Tensor  # (N,) float32 in [0, 1]


class LearnedKeypointMatcher(ExtractingMatcher):
    """Base class of networks that match keypoints. `point_id0` and `point_id1` are numbers of keypoints.

    Args:
        detector_weights: of SuperPoint.
    """

    max_keypoints: int
    """Default of `keypoints.max_keypoints`."""

    log10_dependence = LOG10_DEPENDENCE

    def __init__(self, config: MatcherConfig, name: str, detector_weights: str):
        self.config = config
        self.notes = {}
        self.inference = Inference(name, config, self.notes)
        detector = config.keypoints.detector
        if detector == 'superpoint':
            self.detector = SuperPointDetector(detector_weights, config, self.inference, self.max_keypoints)
            detector = self.detector.weights
            self.detect = self.detector.detect_tensors
        else:
            self.detector = create_detector(detector, config, self.max_keypoints)
            self.detect = lambda image: as_tensors(self.detector.detect(image), self.inference.device)
        self.name = f'{name}:{detector}'
        self.images = ImageExtractor(self.name, config, self.notes, self.detector.side_multiple, self.detect)

    @torch.inference_mode()
    def _match(self, features0: ImageFeatures, features1: ImageFeatures) -> PreparedMatches:
        pairs = self.pairs(features0, features1)
        points0, points1 = features0.features.points[0, pairs.index0], features1.features.points[0, pairs.index1]
        # The one copy to the host; float64 represents the numbers of keypoints exactly.
        numbers = torch.stack([pairs.confidence.double(), pairs.index0.double(), pairs.index1.double()], dim=1)
        rows = torch.cat([points0.double(), points1.double(), numbers], dim=1).cpu().numpy()
        confidence = rows[:, 4].clip(max=1).astype(np.float32)  # rounding may exceed 1
        index0, index1 = rows[:, 5:].astype(np.int64).T
        return PreparedMatches(rows[:, :2], rows[:, 2:4], confidence, index0, self.log10_dependence, point_id1=index1)

    def pairs(self, features0: ImageFeatures, features1: ImageFeatures) -> KeypointPairs:
        """Return the matched keypoints of two images."""
        raise NotImplementedError


def as_tensors(found: DetectedKeypoints, device: torch.device) -> Keypoints:
    """Return the keypoints of a detector as tensors, with descriptors of length 1, as SuperPoint has them."""
    points, scores, descriptors = (torch.as_tensor(array, dtype=torch.float32, device=device)[None] for array in found)
    return Keypoints(points, scores, torch.nn.functional.normalize(descriptors, dim=2))


class NearestNeighbourMatcher(LearnedKeypointMatcher):
    """Matches keypoints whose descriptors are mutual nearest neighbours."""

    max_keypoints = 2048

    def __init__(self, config: MatcherConfig):
        if config.keypoints.detector != 'superpoint':
            raise ConfigError(
                f'matcher.keypoints.detector is {config.keypoints.detector!r} but matcher.name is superpoint_nn; set '
                'matcher.name to nearest_neighbours'
            )
        super().__init__(config, 'superpoint_nn', config.weights)
        self.inference.warm_up(self)

    def pairs(self, features0, features1):
        descriptors0, descriptors1 = features0.features.descriptors[0], features1.features.descriptors[0]
        return nearest_neighbours(descriptors0, descriptors1, self.config.keypoints)


def nearest_neighbours(descriptors0: Tensor, descriptors1: Tensor, settings: KeypointConfig) -> KeypointPairs:
    """Return the mutually nearest descriptors of (N, D) and (M, D), all of length 1, that pass the tests of `settings`.

    The confidence is the dual soft-max of the cosines over TEMPERATURE.
    """
    if not len(descriptors0) or not len(descriptors1):
        none = torch.zeros(0, dtype=torch.int64, device=descriptors0.device)
        return KeypointPairs(none, none, none.float())
    cosine = descriptors0 @ descriptors1.T  # (N, M)
    best, index1 = cosine.max(1)
    index0 = torch.arange(len(best), device=best.device)
    keep = (cosine.argmax(0)[index1] == index0) & (best >= settings.min_cosine)
    if settings.max_ratio < 1 and cosine.shape[1] > 1:
        nearest, second = (2 - 2 * cosine.topk(2, dim=1).values).clamp(min=0).sqrt().unbind(1)
        keep &= nearest <= settings.max_ratio * second
    log_confidence = cosine / TEMPERATURE
    log_confidence = 2 * log_confidence - log_confidence.logsumexp(1, keepdim=True) - log_confidence.logsumexp(0)
    index0, index1 = index0[keep], index1[keep]
    return KeypointPairs(index0, index1, log_confidence[index0, index1].exp())
