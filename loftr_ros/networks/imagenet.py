"""Networks for image classification as sources of feature maps, with the names of torchvision's state dicts.

Written from the papers, without the classifier at the end (`head` in the state dict). Each network has `taps`: which
layer gives the map of which stride [px]. The input is (B, 3, H, W), red first, normalised by `MEAN` and `DEVIATION`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of red, green and blue in ImageNet's images in [0, 1]; the training of all these networks used them."""


class ImageNetNetwork(nn.Module):
    """A chain of layers, some of which are tapped."""

    head: ClassVar[str]
    """Prefix of the tensors of the classifier in the state dict of the whole network."""

    taps: ClassVar[dict[int, int]]
    """Stride -> number of the layer whose output is the map of that stride."""

    def chain(self) -> Sequence[nn.Module]:
        """Return the layers in the order in which the image passes them."""
        return self.features

    def forward(self, image: Tensor, strides: Sequence[int]) -> list[Tensor]:
        """Return one map (B, C, H / stride, W / stride) for each of `strides`; sides are rounded as in torchvision."""
        wanted, maps = {self.taps[stride]: stride for stride in strides}, {}
        for number, layer in enumerate(self.chain()):
            image = layer(image)
            if number in wanted:
                maps[wanted[number]] = image
            if len(maps) == len(wanted):
                break
        return [maps[stride] for stride in strides]


class ResNet(ImageNetNetwork):
    """ResNet (arXiv 1512.03385): a 7x7 stem, then four stages of residual blocks."""

    head = 'fc.'
    taps: ClassVar = {2: 2, 4: 4, 8: 5, 16: 6, 32: 7}

    def __init__(self, block: type[BasicBlock] | type[Bottleneck], blocks: tuple[int, int, int, int]):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        inputs = 64
        for stage, count in enumerate(blocks):
            width, stride = 64 << stage, 2 if stage else 1
            layers = [block(inputs, width, stride)]
            inputs = width * block.expansion
            layers += [block(inputs, width, 1) for _ in range(count - 1)]
            setattr(self, f'layer{stage + 1}', nn.Sequential(*layers))

    def chain(self) -> Sequence[nn.Module]:
        return (
            self.conv1, self.bn1, self.relu, self.maxpool, self.layer1, self.layer2, self.layer3, self.layer4,
        )  # fmt: skip


class _Residual(nn.Module):
    """`relu(branch(x) + shortcut(x))`."""

    expansion: ClassVar[int]

    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__()
        outputs = width * self.expansion
        self.relu = nn.ReLU()
        self.downsample = None
        if stride != 1 or inputs != outputs:
            point = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(point, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.relu(self.branch(x) + shortcut)


class BasicBlock(_Residual):
    """Two 3x3 convolutions."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__(inputs, width, stride)
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)

    def branch(self, x: Tensor) -> Tensor:
        return self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))


class Bottleneck(_Residual):
    """1x1, 3x3 and 1x1 convolutions. The 3x3 one has the stride, as in all published weights."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__(inputs, width, stride)
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width)

    def branch(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        return self.bn3(self.conv3(x))


class Vgg19(ImageNetNetwork):
    """VGG-19 without batch norms (arXiv 1409.1556, column E). The maps are those that DFM uses.

    DFM's published program taps the convolutions conv1_2, conv2_2, conv3_2, conv4_2 and conv5_2, before their ReLU.
    """

    head = 'classifier.'
    taps: ClassVar = {1: 2, 2: 7, 4: 12, 8: 21, 16: 30}

    def __init__(self):
        super().__init__()
        layers, inputs = [], 3
        for width, count in ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4)):
            for _ in range(count):
                layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU()]
                inputs = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)


class SqueezeNet(ImageNetNetwork):
    """SqueezeNet 1.1 (arXiv 1602.07360; version 1.1 is of the authors' repository)."""

    head = 'classifier.'
    taps: ClassVar = {2: 1, 4: 4, 8: 7, 16: 12}

    def __init__(self):
        super().__init__()
        pool = partial(nn.MaxPool2d, 3, stride=2, ceil_mode=True)
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 3, stride=2), nn.ReLU(), pool(),
            _Fire(64, 16, 64), _Fire(128, 16, 64), pool(),
            _Fire(128, 32, 128), _Fire(256, 32, 128), pool(),
            _Fire(256, 48, 192), _Fire(384, 48, 192), _Fire(384, 64, 256), _Fire(512, 64, 256),
        )  # fmt: skip


class _Fire(nn.Module):
    """A 1x1 convolution to few channels, then 1x1 and 3x3 convolutions side by side (section 3.2)."""

    def __init__(self, inputs: int, squeezed: int, expanded: int):
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.squeeze(x).relu()
        return torch.cat((self.expand1x1(x), self.expand3x3(x)), dim=1).relu()


class MobileNetV3(ImageNetNetwork):
    """MobileNetV3 (arXiv 1905.02244, tables 1 and 2).

    Args:
        rows: of the table: kernel, expanded channels, output channels, squeeze-and-excite, hard swish, stride.
    """

    head = 'classifier.'

    def __init__(self, rows: Sequence[tuple[int, int, int, bool, bool, int]]):
        super().__init__()
        layers, inputs = [_conv_norm(3, 16, 3, stride=2, activation=nn.Hardswish)], 16
        for row in rows:
            layers.append(_InvertedResidual(inputs, *row))
            inputs = row[2]
        layers.append(_conv_norm(inputs, 6 * inputs, 1, activation=nn.Hardswish))
        self.features = nn.Sequential(*layers)


class MobileNetV3Large(MobileNetV3):
    """The large variant (table 1)."""

    taps: ClassVar = {2: 1, 4: 3, 8: 6, 16: 12, 32: 15}

    def __init__(self):
        super().__init__([
            (3, 16, 16, False, False, 1),
            (3, 64, 24, False, False, 2), (3, 72, 24, False, False, 1),
            (5, 72, 40, True, False, 2), (5, 120, 40, True, False, 1), (5, 120, 40, True, False, 1),
            (3, 240, 80, False, True, 2), (3, 200, 80, False, True, 1), (3, 184, 80, False, True, 1),
            (3, 184, 80, False, True, 1), (3, 480, 112, True, True, 1), (3, 672, 112, True, True, 1),
            (5, 672, 160, True, True, 2), (5, 960, 160, True, True, 1), (5, 960, 160, True, True, 1),
        ])  # fmt: skip


class MobileNetV3Small(MobileNetV3):
    """The small variant (table 2)."""

    taps: ClassVar = {2: 0, 4: 1, 8: 3, 16: 8, 32: 11}

    def __init__(self):
        super().__init__([
            (3, 16, 16, True, False, 2),
            (3, 72, 24, False, False, 2), (3, 88, 24, False, False, 1),
            (5, 96, 40, True, True, 2), (5, 240, 40, True, True, 1), (5, 240, 40, True, True, 1),
            (5, 120, 48, True, True, 1), (5, 144, 48, True, True, 1),
            (5, 288, 96, True, True, 2), (5, 576, 96, True, True, 1), (5, 576, 96, True, True, 1),
        ])  # fmt: skip


class _InvertedResidual(nn.Module):
    """1x1 to more channels, depth-wise convolution, squeeze-and-excite, 1x1 to fewer channels."""

    def __init__(self, inputs: int, kernel: int, expanded: int, outputs: int, excite: bool, swish: bool, stride: int):
        super().__init__()
        activation = nn.Hardswish if swish else nn.ReLU
        layers = [_conv_norm(inputs, expanded, 1, activation=activation)] if expanded != inputs else []
        layers.append(_conv_norm(expanded, expanded, kernel, stride, groups=expanded, activation=activation))
        if excite:
            layers.append(_SqueezeExcite(expanded))
        layers.append(_conv_norm(expanded, outputs, 1))
        self.block = nn.Sequential(*layers)
        self.is_residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x) + x if self.is_residual else self.block(x)


class _SqueezeExcite(nn.Module):
    """Scale each channel by what two 1x1 convolutions make of all channels' means (section 5.3)."""

    def __init__(self, channels: int):
        super().__init__()
        squeezed = _round_to_eight(channels // 4)
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((2, 3), keepdim=True)
        return x * nn.functional.hardsigmoid(self.fc2(self.fc1(mean).relu()))


def _round_to_eight(channels: int) -> int:
    """Return the nearest multiple of 8, but not less than 0.9 of `channels`."""
    rounded = max(8, (channels + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * channels else rounded + 8


def _conv_norm(inputs, outputs, kernel, stride=1, groups=1, activation=None) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    norm = nn.BatchNorm2d(outputs, eps=1e-3)
    return nn.Sequential(conv, norm, *([activation()] if activation else []))


ARCHITECTURES = {
    'resnet18': partial(ResNet, BasicBlock, (2, 2, 2, 2)),
    'resnet50': partial(ResNet, Bottleneck, (3, 4, 6, 3)),
    'vgg19': Vgg19,
    'squeezenet1_1': SqueezeNet,
    'mobilenet_v3_large': MobileNetV3Large,
    'mobilenet_v3_small': MobileNetV3Small,
}
"""torchvision's name -> network with random weights."""
