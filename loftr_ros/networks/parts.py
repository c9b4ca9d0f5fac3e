"""Parts of the networks as modules with plain tensors in and out, for other engines than torch and for ONNX files.

`extract` depends on one image only. `transform` is the transformer between two images and the confidence of
all pairs of their coarse cells. Masks are bool, False for padding, and required.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from loftr_ros.networks.base import MatchingNetwork
from loftr_ros.networks.efficient_loftr import CELL, EfficientLoftrFeatures
from loftr_ros.networks.loftr import COARSE_STRIDE, LoftrFeatures
from loftr_ros.networks.repvgg import StageMaps
from loftr_ros.networks.similarity import MASKED
from loftr_ros.networks.sinkhorn import log_optimal_transport
from loftr_ros.networks.superpoint import SuperPointFeatures

EXAMPLE_SIZES = ((128, 192), (160, 224))
"""Sizes (H, W) of example images. Those of the two images differ, so that the exporter does not treat them as equal."""


class Part(nn.Module):
    """A part of a network. `dynamic`: dimensions of a tensor that depend on the image size, where not (1, 2)."""

    input_names: ClassVar[tuple[str, ...]]
    output_names: ClassVar[tuple[str, ...]]
    dynamic: ClassVar[dict[str, tuple[int, ...]]] = {}

    def __init__(self, network: MatchingNetwork):
        super().__init__()
        self.network = network

    def examples(self) -> tuple[Tensor, ...]:
        """Return example inputs for tracing the part."""
        raise NotImplementedError


class ExtractPart(Part):
    """`extract` of a network."""

    def examples(self) -> tuple[Tensor, ...]:
        size = EXAMPLE_SIZES[0]
        return self.inputs(torch.rand(1, 1, *size), torch.ones(1, *size, dtype=torch.bool))

    def inputs(self, image: Tensor, mask: Tensor | None) -> tuple[Tensor, ...]:
        """Return the tensors that the part takes instead of the arguments of `network.extract`."""
        return image, torch.ones_like(image[:, 0], dtype=torch.bool) if mask is None else mask

    def features(self, outputs: tuple[Tensor, ...], mask: Tensor | None) -> Any:
        """Return the result of `network.extract`, built from the tensors that the part returns."""
        raise NotImplementedError


class TransformPart(Part):
    """`transform` of a network, from coarse features (1, H / 8, W / 8, C) and masks (1, H / 8, W / 8)."""

    input_names = ('coarse0', 'coarse1', 'mask0', 'mask1')

    def examples(self) -> tuple[Tensor, ...]:
        sizes = [(1, height // 8, width // 8) for height, width in EXAMPLE_SIZES]
        channels = self.network.loftr_coarse.layers[0].norm1.normalized_shape[0]
        coarse = (torch.randn(*size, channels) for size in sizes)
        return *coarse, *(torch.ones(size, dtype=torch.bool) for size in sizes)


class LoftrExtract(ExtractPart):
    """image (1, 1, H, W), mask (1, H, W) -> coarse (1, H / 8, W / 8, C), fine (1, H / 2, W / 2, C')."""

    input_names = ('image', 'mask')
    output_names = ('coarse', 'fine')
    dynamic: ClassVar = {'image': (2, 3)}

    def forward(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        return self.network.extract(image, mask)[:2]

    def features(self, outputs: tuple[Tensor, ...], mask: Tensor | None) -> LoftrFeatures:
        return LoftrFeatures(*outputs, None if mask is None else mask[:, ::COARSE_STRIDE, ::COARSE_STRIDE])


class EfficientLoftrExtract(ExtractPart):
    """image (1, 1, H, W) -> coarse (1, H / 8, W / 8, C), and the maps of StageMaps at 1/2, 1/4 and 1/8."""

    input_names = ('image',)
    output_names = ('coarse', 'half', 'quarter', 'eighth')
    dynamic: ClassVar = dict.fromkeys(('image', 'half', 'quarter', 'eighth'), (2, 3))

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        features = self.network.extract(image)
        return features.coarse, *features.maps

    def inputs(self, image: Tensor, mask: Tensor | None) -> tuple[Tensor, ...]:
        return (image,)

    def features(self, outputs: tuple[Tensor, ...], mask: Tensor | None) -> EfficientLoftrFeatures:
        mask = None if mask is None else mask[:, ::CELL, ::CELL]
        return EfficientLoftrFeatures(outputs[0], StageMaps(*outputs[1:]), mask)


class SuperPointExtract(ExtractPart):
    """image (1, 1, H, W), mask (1, H, W) -> heatmap (1, H, W), descriptors (1, D, H / 8, W / 8)."""

    input_names = ('image', 'mask')
    output_names = ('heatmap', 'descriptors')
    dynamic: ClassVar = dict.fromkeys(('image', 'descriptors'), (2, 3))

    def forward(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        return tuple(self.network.extract(image, mask))

    def features(self, outputs: tuple[Tensor, ...], mask: Tensor | None) -> SuperPointFeatures:
        return SuperPointFeatures(*outputs)


class LoftrTransform(TransformPart):
    """coarse and mask (1, H / 8, W / 8) of two images -> tokens (1, L, C), (1, S, C), confidence (1, L, S)."""

    output_names = ('tokens0', 'tokens1', 'confidence')
    dynamic: ClassVar = {'tokens0': (1,), 'tokens1': (1,)}

    def forward(self, coarse0: Tensor, coarse1: Tensor, mask0: Tensor, mask1: Tensor) -> tuple[Tensor, ...]:
        features = (LoftrFeatures(coarse, coarse, mask) for coarse, mask in ((coarse0, mask0), (coarse1, mask1)))
        tokens0, tokens1 = self.network.transform(*features)
        matching = self.network.coarse_matching
        if matching.match_type == 'dual_softmax':
            similarity = _similarity(tokens0, tokens1, mask0, mask1, matching.temperature)
            return tokens0, tokens1, similarity.softmax(1) * similarity.softmax(2)
        scores = _similarity(tokens0, tokens1, mask0, mask1, 1.0)
        plan = log_optimal_transport(scores, matching.bin_score, matching.sinkhorn_iterations)
        return tokens0, tokens1, plan[:, :-1, :-1].exp()


class EfficientLoftrTransform(TransformPart):
    """coarse and mask (1, H / 8, W / 8) of two images -> both after the transformer, confidence (1, L, S).

    In mode `optimized` the confidence is the similarity itself.
    """

    output_names = ('fused0', 'fused1', 'confidence')

    def forward(self, coarse0: Tensor, coarse1: Tensor, mask0: Tensor, mask1: Tensor) -> tuple[Tensor, ...]:
        coarse0, coarse1 = self.network.loftr_coarse(coarse0, coarse1)
        tokens = (coarse.flatten(1, 2) for coarse in (coarse0, coarse1))
        similarity = _similarity(*tokens, mask0, mask1, self.network.temperature)
        if self.network.mode == 'optimized':
            return coarse0, coarse1, similarity
        return coarse0, coarse1, similarity.softmax(1) * similarity.softmax(2)


def _similarity(tokens0: Tensor, tokens1: Tensor, mask0: Tensor, mask1: Tensor, temperature: float) -> Tensor:
    similarity = tokens0.float() @ tokens1.float().transpose(1, 2) / (tokens0.shape[2] * temperature)
    both = mask0.flatten(1)[:, :, None] & mask1.flatten(1)[:, None, :]
    return similarity.masked_fill(~both, MASKED)
