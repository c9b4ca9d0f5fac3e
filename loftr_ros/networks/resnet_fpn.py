"""The local feature CNN of LoFTR (arXiv 2104.00680, section 3.1): a residual network with a feature pyramid."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from loftr_ros.networks.winograd import replace_convolutions


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, channels_in: int, channels: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = None
        if stride != 1:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        y += x if self.downsample is None else self.downsample(x)
        return F.relu(y, inplace=True)


class ResNetFpn(nn.Module):
    """Residual network down to 1/8 and a feature pyramid back up to 1/2."""

    def __init__(self, initial_dim: int, block_dims: Sequence[int]):
        super().__init__()
        d1, d2, d3 = block_dims
        self.conv1 = nn.Conv2d(1, initial_dim, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(initial_dim)
        self.layer1 = nn.Sequential(ResidualBlock(initial_dim, d1, 1), ResidualBlock(d1, d1, 1))
        self.layer2 = nn.Sequential(ResidualBlock(d1, d2, 2), ResidualBlock(d2, d2, 1))
        self.layer3 = nn.Sequential(ResidualBlock(d2, d3, 2), ResidualBlock(d3, d3, 1))
        self.layer3_outconv = nn.Conv2d(d3, d3, 1, bias=False)
        self.layer2_outconv = nn.Conv2d(d2, d3, 1, bias=False)
        self.layer2_outconv2 = self._smooth(d3, d2)
        self.layer1_outconv = nn.Conv2d(d1, d2, 1, bias=False)
        self.layer1_outconv2 = self._smooth(d2, d1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode='fan_out', nonlinearity='relu')

    @staticmethod
    def _smooth(channels_in: int, channels: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(channels_in, channels_in, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels_in),
            nn.LeakyReLU(inplace=True),
            nn.Conv2d(channels_in, channels, 3, padding=1, bias=False),
        )

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return the maps at 1/8 (B, d3, H / 8, W / 8) and 1/2 (B, d1, H / 2, W / 2) of an image (B, 1, H, W)."""
        x1 = self.layer1(F.relu(self.bn1(self.conv1(image)), inplace=True))  # 1/2
        x2 = self.layer2(x1)  # 1/4
        coarse = self.layer3_outconv(self.layer3(x2))  # 1/8
        y2 = self.layer2_outconv2(self._double(coarse).add_(self.layer2_outconv(x2)))
        fine = self.layer1_outconv2(self._double(y2).add_(self.layer1_outconv(x1)))
        return coarse, fine

    @staticmethod
    def _double(x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2.0, mode='bilinear', align_corners=True)

    def fuse(self, winograd: bool = False) -> None:
        """Fold every batch norm into its convolution and keep weights channels last, in place, for inference only.

        This changes the keys of the state dict: load weights before.

        Args:
            winograd: also replace the 3x3 convolutions by winograd.py, for float32 on a CPU.
        """
        for module in self.modules():
            for conv, norm in (('conv1', 'bn1'), ('conv2', 'bn2'), ('0', '1')):
                if isinstance(getattr(module, norm, None), nn.BatchNorm2d):
                    fused = nn.utils.fusion.fuse_conv_bn_eval(getattr(module, conv), getattr(module, norm))
                    setattr(module, conv, fused)
                    setattr(module, norm, nn.Identity())
        self.to(memory_format=torch.channels_last)
        if winograd:
            replace_convolutions(self)
