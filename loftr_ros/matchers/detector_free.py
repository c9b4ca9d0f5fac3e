"""The matchers `loftr` and `efficient_loftr`: networks without a keypoint detector."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from loftr_ros.config import MatcherConfig
from loftr_ros.datatypes import DENSE_DEPENDENCE, Matches
from loftr_ros.matchers.image_features import ImageFeatures, PreparedMatches
from loftr_ros.matchers.inference import ExtractingMatcher, ImageExtractor, Inference, overlapping_pair
from loftr_ros.networks import part_classes
from loftr_ros.networks.base import MatchingNetwork, dtype_of
from loftr_ros.weights.convert import load_network


class DetectorFreeMatcher(ExtractingMatcher):
    """Matcher with a MatchingNetwork without keypoints. `point_id0` is the network's `point_ids`."""

    network_name: str
    log10_dependence = DENSE_DEPENDENCE

    def __init__(self, config: MatcherConfig):
        self.config = config
        self.notes = {}
        self.inference = Inference(self.network_name, config, self.notes)
        network, checkpoint = load_network(self.network_name, config.weights, config.accept_license)
        self.name = self.inference.name = f'{self.network_name}:{checkpoint.name}'
        self.network = self.inference.prepare(network, self._transformed_pair)
        self._extract = self.inference.extractor(self.network, part_classes(self.network_name)['extract'])
        self.images = ImageExtractor(self.name, config, self.notes, network.side_multiple, self._features)
        self.inference.warm_up(self)

    def keep_points(self, features0: ImageFeatures, matches: Matches) -> ImageFeatures:
        """Return features of image 0 in which matched places keep their points; the other places are free."""
        point_ids = torch.as_tensor(matches.point_id0[matches.point_id0 >= 0])
        if not features0.ids_valid or not len(point_ids):
            return features0
        return ImageFeatures(features0.image, self.network.keep_points(features0.features, point_ids))

    def point_ids_at(self, features: ImageFeatures, keypoints: np.ndarray) -> np.ndarray:
        if not features.ids_valid:
            return np.full(len(keypoints), -1, np.int64)
        points = torch.as_tensor(features.image.from_original(keypoints), dtype=torch.float32)
        return self.network.point_ids_at(features.features, points).numpy()

    @torch.inference_mode()
    def _features(self, image):
        return self._extract(*self.inference.inputs(image, dtype_of(self.network)))

    @torch.inference_mode()
    def _match(self, features0: ImageFeatures, features1: ImageFeatures) -> PreparedMatches:
        # The networks keep scores above a threshold, this package also scores equal to it.
        threshold = float(np.nextafter(np.float32(self.config.match_threshold), np.float32(-1)))
        found = self.network.match(
            features0.features, features1.features, threshold=threshold, max_matches=self.config.max_matches
        )
        ids = self.network.point_ids(features0.features, found)
        scalars = torch.stack([found.confidence.double(), found.sigma.double(), ids.double()], dim=1)
        rows = torch.cat([found.keypoints0.double(), found.keypoints1.double(), scalars], dim=1)
        rows = rows.cpu().numpy()  # the one copy to the host
        confidence, sigma_px, ids = rows[:, 4:].T
        confidence = confidence.clip(max=1).astype(np.float32)  # rounding may exceed 1
        ids = ids.astype(np.int64)
        return PreparedMatches(rows[:, :2], rows[:, 2:4], confidence, ids, self.log10_dependence, sigma_px)

    @torch.inference_mode()
    def _transformed_pair(self, network: MatchingNetwork) -> Iterable[Tensor]:
        """Return the transformed features of a fixed pair of images."""
        pair = overlapping_pair(network.side_multiple)
        return network.transform(*(network.extract(*self.inference.inputs(i, dtype_of(network))) for i in pair))


class LoftrMatcher(DetectorFreeMatcher):
    """LoFTR (networks/loftr.py). `point_id0` is the coarse cell, whose point never moves."""

    network_name = 'loftr'
    log10_dependence = 36.0  # measured: with 24, two of 900 pairs of different places get a pose


class EfficientLoftrMatcher(DetectorFreeMatcher):
    """Efficient LoFTR (networks/efficient_loftr.py). `point_id0` is the pixel, see its `point_ids`."""

    network_name = 'efficient_loftr'
