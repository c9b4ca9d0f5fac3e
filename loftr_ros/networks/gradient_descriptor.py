"""The patch descriptor of `gcm` that needs no weights: gradient directions around every pixel."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

_CHUNK_BYTES = 8 << 20
"""Size of the largest temporary array; keeps a VGA pair far under 1 GiB."""


class GradientDescriptor(nn.Module):
    """Patch descriptor by rules: histograms of gradient directions on a 4 x 4 grid around every pixel, 128 numbers.

    As SIFT without its rotation, computed for all pixels at once: gradient magnitudes are spread over 8 maps by
    direction, each map is blurred, and a pixel's descriptor is the maps' values at 16 places around it. Square roots of
    the sum-normalised histogram (RootSIFT) make the dot product of two descriptors a histogram similarity.
    """

    num_orientations = 8
    spacing = 4  # even, so that the places +-spacing/2, +-3/2 spacing are whole pixels
    smoothing_px = 0.8  # before the gradient: removes the sensor's noise
    pooling_px = 2.0  # half the spacing: neighbouring cells overlap as in SIFT's linear interpolation
    noise_floor = 0.008  # mean gradient [full range / px], two grey levels: weaker patches count as flat
    size = 16 * num_orientations

    def forward(self, image: Tensor) -> Tensor:
        """Return F_0 (H, W, 128) float16 of `image` (1, 1, H, W) in [0, 1]; rows have length 1, less where flat."""
        maps = self._orientation_maps(image)
        height, width = image.shape[-2:]
        reach = 3 * self.spacing // 2
        places = [
            (dy, dx) for dy in range(0, 2 * reach + 1, self.spacing) for dx in range(0, 2 * reach + 1, self.spacing)
        ]
        total = maps.sum(-1)
        norm = sum(total[dy : dy + height, dx : dx + width] for dy, dx in places)
        gain = (norm + self.noise_floor * len(places)).rsqrt_()[..., None]  # (H, W, 1)
        roots = maps.sqrt_()
        features = torch.empty(height, width, self.size, dtype=torch.float16, device=image.device)
        rows = max(1, _CHUNK_BYTES // (4 * self.size * width))
        for top in range(0, height, rows):
            bottom = min(top + rows, height)
            parts = [roots[top + dy : bottom + dy, dx : dx + width] for dy, dx in places]
            features[top:bottom] = torch.cat(parts, dim=-1).mul_(gain[top:bottom])
        return features

    def _orientation_maps(self, image: Tensor) -> Tensor:
        """Return the blurred magnitude of each direction (H + 2 reach, W + 2 reach, 8)."""
        reach = 3 * self.spacing // 2
        image = _extend(_blur(image[0, 0, :, :, None], self.smoothing_px), 1)
        gx = (image[1:-1, 2:] - image[1:-1, :-2]) / 2  # (H, W, 1)
        gy = (image[2:, 1:-1] - image[:-2, 1:-1]) / 2
        magnitude = (gx * gx + gy * gy).sqrt_()
        position = torch.atan2(gy, gx) * (self.num_orientations / (2 * math.pi))
        bins = torch.arange(self.num_orientations, device=image.device)
        distance = torch.remainder(position - bins + self.num_orientations / 2, self.num_orientations)
        weight = (1 - (distance - self.num_orientations / 2).abs_()).clamp_(min=0)
        return _extend(_blur(weight.mul_(magnitude), self.pooling_px), reach)


def _extend(maps: Tensor, margin: int) -> Tensor:
    """Return (H, W, C) with its border repeated `margin` times on every side."""
    height, width = maps.shape[:2]
    rows = torch.arange(-margin, height + margin, device=maps.device).clamp_(0, height - 1)
    columns = torch.arange(-margin, width + margin, device=maps.device).clamp_(0, width - 1)
    return maps[rows][:, columns]


def _blur(maps: Tensor, sigma: float) -> Tensor:
    """Return (H, W, C) convolved with a Gaussian of `sigma` [px], borders repeated.

    Sums of shifted copies: on a CPU three times as fast as a convolution with so few channels.
    """
    height, width = maps.shape[:2]
    radius = math.ceil(2.5 * sigma)
    weights = [math.exp(-0.5 * (x / sigma) ** 2) for x in range(-radius, radius + 1)]
    maps = _extend(maps, radius)
    across = torch.zeros_like(maps[:, :width])
    for shift, weight in enumerate(weights):
        across.add_(maps[:, shift : shift + width], alpha=weight / sum(weights))
    down = torch.zeros_like(across[:height])
    for shift, weight in enumerate(weights):
        down.add_(across[shift : shift + height], alpha=weight / sum(weights))
    return down
