"""The matcher `superglue`: keypoints of SuperPoint or another detector, matched by SuperGlue (arXiv 1911.11763)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from loftr_ros.config import MatcherConfig
from loftr_ros.errors import ConfigError
from loftr_ros.matchers.image_features import ImageFeatures
from loftr_ros.matchers.inference import overlapping_pair
from loftr_ros.matchers.superpoint import KeypointPairs, LearnedKeypointMatcher
from loftr_ros.networks.superglue import SuperGlue
from loftr_ros.weights.convert import load_network


class SuperGlueMatcher(LearnedKeypointMatcher):
    """The detector for each image; the graph network and the optimal transport of SuperGlue for each pair."""

    max_keypoints = 1024

    def __init__(self, config: MatcherConfig):
        network, entry = load_network('superglue', config.weights, config.accept_license)
        detector = config.superglue.detector or entry.detector
        if not detector and config.keypoints.detector == 'superpoint':
            raise ConfigError(
                f'{entry.name} does not say which SuperPoint it belongs to; set matcher.superglue.detector to its '
                'weights'
            )
        super().__init__(config, 'superglue', detector)
        if self.detector.is_binary or network.descriptor_channels != self.detector.descriptor_length:
            kind = 'binary ones' if self.detector.is_binary else f'length {self.detector.descriptor_length}'
            remedy = f'set matcher.superglue.detector to the SuperPoint of its training ({entry.detector or "unknown"})'
            if config.keypoints.detector != 'superpoint':
                remedy = 'set matcher.keypoints.detector to superpoint, or matcher.name to nearest_neighbours'
            raise ConfigError(
                f'{entry.name} needs descriptors of length {network.descriptor_channels}, those of '
                f'{self.detector.name} have {kind}; {remedy}'
            )
        network.sinkhorn_iterations = config.superglue.sinkhorn_iterations or network.sinkhorn_iterations
        self.network = self.inference.prepare(network, self._assignment_of_pair)
        self.name = self.inference.name = self.images.name = f'superglue:{entry.name}'
        self.inference.warm_up(self)

    def pairs(self, features0: ImageFeatures, features1: ImageFeatures) -> KeypointPairs:
        """Return the mutually best pairs of any confidence."""
        sizes = ((features.image.height, features.image.width) for features in (features0, features1))
        found = self.network.match(features0.features, features1.features, *sizes, threshold=0.0)
        index0 = (found.partner0[0] >= 0).nonzero()[:, 0]
        return KeypointPairs(index0, found.partner0[0, index0], found.confidence0[0, index0])

    @torch.inference_mode()
    def _assignment_of_pair(self, network: SuperGlue) -> Iterable[Tensor]:
        """Return the probabilities of all pairs of keypoints of a fixed pair, for the test of half precision."""
        images = overlapping_pair(self.detector.side_multiple)
        sizes = ((image.height, image.width) for image in images)
        keypoints = [self.detect(image) for image in images]
        if not all(found.points.shape[1] for found in keypoints):
            return [next(network.parameters()).flatten()]
        return [network.log_assignment(*keypoints, *sizes).exp()]
