"""SuperPoint as a detector, and the matcher `superpoint_nn`: matching of its keypoints by mutual nearest neighbours."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from loftr_ros.config import KeypointConfig, MatcherConfig
from loftr_ros.image import PreparedImage
from loftr_ros.matchers.image_features import ImageFeatures, PreparedMatches
from loftr_ros.matchers.inference import ExtractingMatcher, ImageExtractor, Inference, overlapping_pair
from loftr_ros.networks import part_classes
from loftr_ros.networks.base import dtype_of
from loftr_ros.networks.keypoints import Keypoints
from loftr_ros.networks.superpoint import SuperPoint
from loftr_ros.weights.convert import load_network

TEMPERATURE = 0.05
"""Temperature of the dual soft-max over cosines that gives the confidence; 0.07 in training (training/superpoint.py).
With 0.05 the default `match_threshold` keeps 1.4 times as many correct matches on KITTI and TartanAir, with equally
good poses."""


class KeypointPairs(NamedTuple):
    """N pairs of keypoints."""

    index0: Tensor  # (N,) int64, numbers of keypoints of image 0
    index1: Tensor  # (N,) int64
    confidence: Tensor  # (N,) float32 in [0, 1]


class SuperPointDetector:
    """Keypoints, scores and descriptors of prepared images (networks/superpoint.py).

    Args:
        weights: as matcher.weights, of a SuperPoint.
        inference: device, number format and engine.
        max_keypoints: of an image, if the configuration does not give it.
    """

    def __init__(self, weights: str, config: MatcherConfig, inference: Inference, max_keypoints: int):
        self.settings, self.inference = config.keypoints, inference
        self.max_keypoints = config.keypoints.max_keypoints or max_keypoints
        network, checkpoint = load_network('superpoint', weights, config.accept_license)
        self.weights = checkpoint.name
        self.side_multiple = network.side_multiple
        self.descriptor_length = network.descriptor_channels
        self.network = inference.prepare(network, self._features_of_pair)
        self._extract = inference.extractor(self.network, part_classes('superpoint')['extract'])

    @torch.inference_mode()
    def detect(self, image: PreparedImage) -> Keypoints:
        """Return the keypoints of one image, without padding."""
        features = self._extract(*self.inference.inputs(image, dtype_of(self.network)))
        found = self.network.detect(
            features,
            threshold=self.settings.threshold,
            budget=self.max_keypoints,
            nms_radius=self.settings.nms_radius_px,
            border=self.settings.border_px,
            subpixel=self.settings.subpixel,
            size=(image.height, image.width),
        )
        count = int(found.valid.sum())
        return Keypoints(found.points[:, :count], found.scores[:, :count], found.descriptors[:, :count])

    @torch.inference_mode()
    def _features_of_pair(self, network: SuperPoint) -> Iterable[Tensor]:
        """Return the descriptor maps of a fixed pair of images, for the test of half precision."""
        pair = overlapping_pair(network.side_multiple)
        features = [network.extract(*self.inference.inputs(image, dtype_of(network))) for image in pair]
        return [features.descriptors for features in features]


class LearnedKeypointMatcher(ExtractingMatcher):
    """Base class of matchers with SuperPoint's keypoints. `point_id0` and `point_id1` are numbers of keypoints."""

    max_keypoints: int
    """Default of `keypoints.max_keypoints`."""

    # Learned descriptors make wrong matches agree with each other. Measured: with 0, seven (superpoint_nn) and six
    # (superglue) of 300 pairs of different places get a pose; with 18 one each, and no correct pose is lost.
    log10_dependence = 18.0

    def __init__(self, config: MatcherConfig, name: str, detector_weights: str):
        self.config = config
        self.notes = {}
        self.inference = Inference(name, config, self.notes)
        self.detector = SuperPointDetector(detector_weights, config, self.inference, self.max_keypoints)
        self.name = f'{name}:{self.detector.weights}'
        self.images = ImageExtractor(self.name, config, self.notes, self.detector.side_multiple, self.detector.detect)

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


class NearestNeighbourMatcher(LearnedKeypointMatcher):
    """Matches keypoints whose descriptors are mutual nearest neighbours."""

    max_keypoints = 2048

    def __init__(self, config: MatcherConfig):
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
