"""RepVGG (arXiv 2101.03697), the backbone of Efficient LoFTR: three branches in training, one convolution in
inference."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class RepVGGBlock(nn.Module):
    """`relu(3x3 conv-bn + 1x1 conv-bn + bn)`, the last only if input and output have the same shape (section 3.1)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1):
        super().__init__()
        has_identity = in_channels == out_channels and stride == 1
        self.rbr_identity = nn.BatchNorm2d(in_channels) if has_identity else None
        self.rbr_dense = _conv_bn(in_channels, out_channels, 3, stride)
        self.rbr_1x1 = _conv_bn(in_channels, out_channels, 1, stride)
        self.rbr_reparam = None

    def forward(self, x: Tensor) -> Tensor:
        if self.rbr_reparam is not None:
            return F.relu(self.rbr_reparam(x), inplace=True)
        total = self.rbr_dense(x) + self._point(x)
        if self.rbr_identity is not None:
            total = total + self.rbr_identity(x)
        return F.relu(total)

    def _point(self, x: Tensor) -> Tensor:
        # A matrix product: the convolution returns another memory format for one input channel, and adding is slow.
        conv = self.rbr_1x1.conv
        rows = x.permute(0, 2, 3, 1)[:, :: conv.stride[0], :: conv.stride[1]]
        return self.rbr_1x1.bn(F.linear(rows, conv.weight.flatten(1)).permute(0, 3, 1, 2))

    @torch.no_grad()
    def reparameterize(self) -> None:
        """Replace the branches by one equal convolution, with running statistics (section 3.3)."""
        if self.rbr_reparam is not None:
            return
        dense = self.rbr_dense.conv
        kernel, bias = fold_batch_norm(dense.weight, self.rbr_dense.bn)
        point, point_bias = fold_batch_norm(self.rbr_1x1.conv.weight, self.rbr_1x1.bn)
        kernel[:, :, 1:2, 1:2] += point
        bias += point_bias
        if self.rbr_identity is not None:
            channels = len(bias)
            identity = torch.eye(channels, dtype=kernel.dtype, device=kernel.device).view(channels, channels, 1, 1)
            point, point_bias = fold_batch_norm(identity, self.rbr_identity)
            kernel[:, :, 1:2, 1:2] += point
            bias += point_bias
        self.rbr_reparam = conv_with(kernel, bias, stride=dense.stride)
        self.rbr_identity = self.rbr_dense = self.rbr_1x1 = None


class StageMaps(NamedTuple):
    """Maps of one image of H x W, of `widths[1:]` channels."""

    half: Tensor  # (B, C1, H / 2, W / 2)
    quarter: Tensor  # (B, C2, H / 4, W / 4)
    eighth: Tensor  # (B, C3, H / 8, W / 8)


class RepVGG(nn.Module):
    """A stem of stride 2, then `blocks[i]` blocks of `widths[i + 1]` channels at 1/2, 1/4 and 1/8."""

    def __init__(self, widths: tuple[int, int, int, int], blocks: tuple[int, int, int]):
        super().__init__()
        self.layer0 = RepVGGBlock(1, widths[0], stride=2)
        self.layer1 = _stage(widths[0], widths[1], blocks[0], stride=1)
        self.layer2 = _stage(widths[1], widths[2], blocks[1], stride=2)
        self.layer3 = _stage(widths[2], widths[3], blocks[2], stride=2)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode='fan_out', nonlinearity='relu')

    def forward(self, image: Tensor) -> StageMaps:
        """Return the maps of `image` (B, 1, H, W)."""
        half = self.layer1(self.layer0(image))
        quarter = self.layer2(half)
        return StageMaps(half, quarter, self.layer3(quarter))

    def reparameterize(self) -> None:
        for module in self.modules():
            if isinstance(module, RepVGGBlock):
                module.reparameterize()


def fold_batch_norm(weight: Tensor, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Return weight (O, I, kh, kw) and bias (O,) of the convolution that equals `norm` after one without a bias."""
    gain = norm.weight / (norm.running_var + norm.eps).sqrt()
    return weight * gain.view(-1, 1, 1, 1), norm.bias - norm.running_mean * gain


def conv_with(weight: Tensor, bias: Tensor, stride: tuple[int, int] = (1, 1)) -> nn.Conv2d:
    """Return a convolution with this odd kernel, padded so that stride 1 keeps the size."""
    out_channels, in_channels, *size = weight.shape
    conv = nn.Conv2d(in_channels, out_channels, tuple(size), stride, tuple(side // 2 for side in size))
    conv.weight, conv.bias = (nn.Parameter(t, requires_grad=False) for t in (weight, bias))
    return conv


def _conv_bn(in_channels: int, out_channels: int, kernel_size: int, stride: int) -> nn.Sequential:
    block = nn.Sequential()
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, bias=False)
    block.add_module('conv', conv)
    block.add_module('bn', nn.BatchNorm2d(out_channels))
    return block


def _stage(in_channels: int, out_channels: int, blocks: int, stride: int) -> nn.Sequential:
    first = RepVGGBlock(in_channels, out_channels, stride)
    return nn.Sequential(first, *(RepVGGBlock(out_channels, out_channels) for _ in range(blocks - 1)))
