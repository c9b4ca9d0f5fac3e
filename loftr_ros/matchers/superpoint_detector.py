"""The detector `superpoint`."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from loftr_ros.config import MatcherConfig
from loftr_ros.image import PreparedImage
from loftr_ros.matchers.base import DetectedKeypoints, Detector
from loftr_ros.matchers.inference import Inference, overlapping_pair
from loftr_ros.networks import part_classes
from loftr_ros.networks.base import dtype_of
from loftr_ros.networks.keypoints import Keypoints
from loftr_ros.networks.superpoint import SuperPoint
from loftr_ros.weights.convert import load_network

LOG10_DEPENDENCE = 18.0
"""Learned descriptors make wrong matches agree with each other. Measured: with 0, seven (superpoint_nn) and six
(superglue) of 300 pairs of different places get a pose; with 18 one each, and no correct pose is lost."""


class SuperPointDetector(Detector):
    """Keypoints, scores and descriptors of prepared images (networks/superpoint.py).

    Args:
        weights: as matcher.weights, of a SuperPoint.
        inference: device, number format and engine.
        max_keypoints: of an image, if the configuration does not give it.
    """

    name = 'superpoint'
    log10_dependence = LOG10_DEPENDENCE

    def __init__(self, weights: str, config: MatcherConfig, inference: Inference, max_keypoints: int):
        self.settings, self.inference = config.keypoints, inference
        self.max_keypoints = config.keypoints.max_keypoints or max_keypoints
        network, checkpoint = load_network('superpoint', weights, config.accept_license)
        self.weights = checkpoint.name
        self.side_multiple = network.side_multiple
        self.descriptor_length = network.descriptor_channels
        self.network = inference.prepare(network, self._features_of_pair)
        self._extract = inference.extractor(self.network, part_classes('superpoint')['extract'])

    def detect(self, image: PreparedImage) -> DetectedKeypoints:
        """Return the keypoints of one image as NumPy arrays."""
        found = self.detect_tensors(image)
        return DetectedKeypoints(*(tensor[0].float().cpu().numpy() for tensor in found[:3]))

    @torch.inference_mode()
    def detect_tensors(self, image: PreparedImage) -> Keypoints:
        """Return the keypoints of one image as tensors on the device, without padding."""
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


def superpoint_detector(config: MatcherConfig, max_keypoints: int) -> SuperPointDetector:
    """Return SuperPoint with the weights of `config`, as an entry of DETECTORS."""
    return SuperPointDetector(config.weights, config, Inference('superpoint', config, {}), max_keypoints)
