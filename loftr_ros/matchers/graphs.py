"""The parts of both networks as modules with plain tensors in and out, for other engines, and as ONNX files.

`extract` is what depends on one image alone. `transform` is the transformer between two images and the confidence of
all pairs of their coarse cells. Masks are bool, False for padding, and always given.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from loftr_ros.errors import MissingDependencyError
from loftr_ros.networks.coarse_matching import MASKED
from loftr_ros.networks.efficient_loftr import EfficientLoFTR, Features
from loftr_ros.networks.loftr import COARSE_STRIDE, LoFTR, LoftrFeatures
from loftr_ros.networks.repvgg import Pyramid
from loftr_ros.networks.sinkhorn import log_optimal_transport
from loftr_ros.output_files import writing

OPSET = 17
"""Version of the ONNX operators; ONNX Runtime 1.14, OpenVINO 2023 and TensorRT 8.6 have it."""


class LoftrExtract(nn.Module):
    """image (1, 1, H, W), mask (1, H, W) -> coarse (1, H / 8, W / 8, C), fine (1, H / 2, W / 2, C')."""

    input_names = ('image', 'mask')
    output_names = ('coarse', 'fine')

    def __init__(self, network: LoFTR):
        super().__init__()
        self.network = network

    def forward(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        return self.network.extract(image, mask)[:2]

    @staticmethod
    def inputs(image: Tensor, mask: Tensor | None) -> tuple[Tensor, ...]:
        return image, torch.ones_like(image[:, 0], dtype=torch.bool) if mask is None else mask

    @staticmethod
    def features(outputs: tuple[Tensor, ...], mask: Tensor | None) -> LoftrFeatures:
        return LoftrFeatures(*outputs, None if mask is None else mask[:, ::COARSE_STRIDE, ::COARSE_STRIDE])


class EfficientLoftrExtract(nn.Module):
    """image (1, 1, H, W) -> coarse (1, H / 8, W / 8, C), and the maps of Pyramid at 1/2, 1/4 and 1/8."""

    input_names = ('image',)
    output_names = ('coarse', 'half', 'quarter', 'eighth')

    def __init__(self, network: EfficientLoFTR):
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        features = self.network.extract(image)
        return features.coarse, *features.pyramid

    @staticmethod
    def inputs(image: Tensor, mask: Tensor | None) -> tuple[Tensor, ...]:
        return (image,)

    @staticmethod
    def features(outputs: tuple[Tensor, ...], mask: Tensor | None) -> Features:
        return Features(outputs[0], Pyramid(*outputs[1:]), mask)


class LoftrTransform(nn.Module):
    """coarse and mask (1, H / 8, W / 8) of two images -> tokens (1, L, C), (1, S, C), confidence (1, L, S)."""

    input_names = ('coarse0', 'coarse1', 'mask0', 'mask1')
    output_names = ('tokens0', 'tokens1', 'confidence')

    def __init__(self, network: LoFTR):
        super().__init__()
        self.network = network

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


class EfficientLoftrTransform(nn.Module):
    """coarse and mask (1, H / 8, W / 8) of two images -> both after the transformer, confidence (1, L, S).

    In mode `optimized` the last is the similarity itself.
    """

    input_names = ('coarse0', 'coarse1', 'mask0', 'mask1')
    output_names = ('fused0', 'fused1', 'confidence')

    def __init__(self, network: EfficientLoFTR):
        super().__init__()
        self.network = network

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


PARTS = {
    'loftr': {'extract': LoftrExtract, 'transform': LoftrTransform},
    'efficient_loftr': {'extract': EfficientLoftrExtract, 'transform': EfficientLoftrTransform},
}
"""Classes by network and part; each is made from a network."""

SIDES = {'image': (2, 3), 'half': (2, 3), 'quarter': (2, 3), 'eighth': (2, 3), 'tokens0': (1,), 'tokens1': (1,)}
"""Dimensions that depend on the size of the images, where they are not (1, 2)."""


def write_onnx(part: nn.Module, path: str | Path) -> Path:
    """Write a part, of batch size 1 and with images of any size that its network takes, as an ONNX file.

    Raises:
        MissingDependencyError: the package onnx is not installed.
        OutputError: the file cannot be written.
    """
    try:
        import onnx  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError('writing ONNX needs the package onnx: pip install onnx') from error
    part = copy.deepcopy(part).float().cpu().eval()
    if isinstance(part.network, LoFTR):
        part.network.position = _position_of_any_size(part.network.position)
    examples = _examples(part)
    sides = {
        name: {d: f'{name}_{d}' for d in SIDES.get(name, (1, 2))} for name in (*part.input_names, *part.output_names)
    }
    options = {'dynamo': False} if 'dynamo' in inspect.signature(torch.onnx.export).parameters else {}
    with torch.no_grad(), _quiet(), writing(path) as file:
        torch.onnx.export(
            part, tuple(examples.values()), str(file), input_names=list(examples), dynamic_axes=sides,
            output_names=list(part.output_names), opset_version=OPSET, **options,
        )  # fmt: skip
    return Path(path)


def _examples(part: nn.Module) -> dict[str, Tensor]:
    """Return inputs by name. Sizes of the two images differ, so that none is taken for the other's."""
    sizes = ((128, 192), (160, 224))
    coarse = [(1, height // 8, width // 8) for height, width in sizes]
    if 'image' in part.input_names:
        values = torch.rand(1, 1, *sizes[0]), torch.ones(1, *sizes[0], dtype=torch.bool)
    else:
        channels = part.network.loftr_coarse.layers[0].norm1.normalized_shape[0]
        values = *(torch.randn(*size, channels) for size in coarse), *(torch.ones(s, dtype=torch.bool) for s in coarse)
    return dict(zip(part.input_names, values, strict=False))


def _position_of_any_size(position):
    """Return `position` computed anew in every call: a table would be a constant of the file, of one size."""
    return lambda like: position._make(*like.shape[1:3]).to(like)


@contextlib.contextmanager
def _quiet():
    """Hold back what the exporter says of checks that hold for every size, and of its own age."""
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', category=torch.jit.TracerWarning)
        warnings.filterwarnings('ignore', category=DeprecationWarning)
        yield
