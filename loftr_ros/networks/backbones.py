"""Sources of the coarser feature maps F_1..F_k of `gcm`: one interface for all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from loftr_ros.networks.imagenet import DEVIATION, MEAN, ImageNetNetwork
from loftr_ros.networks.repvgg import RepVGG
from loftr_ros.networks.resnet_fpn import ResNetFpn

_CHUNK_BYTES = 8 << 20


class Backbone(nn.Module):
    """A network or a rule that gives one map of features for each of its strides."""

    strides: tuple[int, ...]
    """Sides of the places of F_1..F_k [px], increasing; each divides the next."""

    colour: bool = False
    """Whether the image has three channels, red first; otherwise it is grey. Any normalisation is done in `forward`."""

    def forward(self, image: Tensor, finest: Callable[[], Tensor]) -> list[Tensor]:
        """Return F_1..F_k, each (H / stride, W / stride, C) float32.

        Args:
            image: (1, 1, H, W) or (1, 3, H, W) in [0, 1], H and W multiples of the largest stride.
            finest: returns F_0 (H, W, C) of the patch descriptor.
        """
        raise NotImplementedError


class AveragePooling(Backbone):
    """No weights: F_l is the mean of F_0 over blocks of stride x stride pixels (Table II, last row)."""

    choices = (2, 4, 8)

    def __init__(self, strides: Sequence[int] = choices):
        super().__init__()
        self.strides = tuple(strides)

    def forward(self, image: Tensor, finest: Callable[[], Tensor]) -> list[Tensor]:
        finest = finest()
        height, width, channels = finest.shape
        first, factor = self.strides[0], 1
        rows = first * max(1, _CHUNK_BYTES // (4 * first * channels * width))
        levels = [torch.cat([_mean(finest[top : top + rows].float(), first) for top in range(0, height, rows)])]
        for stride, previous in zip(self.strides[1:], self.strides, strict=False):
            factor = stride // previous
            levels.append(_mean(levels[-1], factor))
        return levels


def _mean(maps: Tensor, factor: int) -> Tensor:
    """Return the means of blocks of `factor` x `factor` of (H, W, C)."""
    rows = sum(maps[i::factor] for i in range(factor))
    return sum(rows[:, i::factor] for i in range(factor)).div_(factor * factor)


class ImageNetBackbone(Backbone):
    """A network of imagenet.py, with its normalisation of colours."""

    colour = True

    def __init__(self, network: ImageNetNetwork, strides: Sequence[int]):
        super().__init__()
        self.network, self.strides = network, tuple(strides)

    def forward(self, image: Tensor, finest: Callable[[], Tensor]) -> list[Tensor]:
        maps = self.network(normalise(image).contiguous(memory_format=torch.channels_last), self.strides)
        return [fit(m, image, stride) for m, stride in zip(maps, self.strides, strict=True)]


class MatchingBackbone(Backbone):
    """The backbone of a network that matches images: RepVGG of Efficient LoFTR or the ResNet with FPN of LoFTR."""

    choices: ClassVar = {RepVGG: (2, 4, 8), ResNetFpn: (2, 8)}

    def __init__(self, network: RepVGG | ResNetFpn, strides: Sequence[int]):
        super().__init__()
        self.network, self.strides = network, tuple(strides)

    def forward(self, image: Tensor, finest: Callable[[], Tensor]) -> list[Tensor]:
        maps = self.network(image.contiguous(memory_format=torch.channels_last))
        by_height = {image.shape[-2] // m.shape[-2]: m for m in maps}
        return [fit(by_height[stride], image, stride) for stride in self.strides]


def normalise(image: Tensor) -> Tensor:
    """Return a colour image (B, 3, H, W) in [0, 1] with the mean and the deviation of ImageNet taken out."""
    mean, deviation = (image.new_tensor(values).view(1, 3, 1, 1) for values in (MEAN, DEVIATION))
    return (image - mean) / deviation


def fit(maps: Tensor, image: Tensor, stride: int) -> Tensor:
    """Return a map (1, C, h, w) as (H / stride, W / stride, C) float32.

    Networks without padding have one or two rows and columns too few: the last ones are repeated.

    Raises:
        ValueError: the size is not that of the stride.
    """
    height, width = (side // stride for side in image.shape[-2:])
    bottom, right = height - maps.shape[-2], width - maps.shape[-1]
    if not (-2 <= bottom <= 2 and -2 <= right <= 2):
        raise ValueError(
            f'a map of stride {stride} of an image of {tuple(image.shape[-2:])} must be {(height, width)}, '
            f'got {tuple(maps.shape[-2:])}'
        )
    maps = F.pad(maps[:, :, :height, :width].float(), (0, max(right, 0), 0, max(bottom, 0)), mode='replicate')
    return maps[0].permute(1, 2, 0).contiguous()
