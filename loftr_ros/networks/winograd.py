"""3x3 convolutions by Winograd's minimal filtering F(4x4, 3x3), for inference in float32 on a CPU.

A tile of 4x4 outputs takes 36 products for a pair of channels, and 144 by the definition (Lavin and Gray, "Fast
Algorithms for Convolutional Neural Networks", arXiv 1509.09308, section 4.3). oneDNN does not have it for AVX2 CPUs.
The rounding error is 1e-5 of the largest value instead of 1e-6.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TILE = 4
"""Outputs along a side of a tile, which takes 6 inputs along a side."""

WORKSPACE = 2**21
"""Number of floats of transformed input at once: 8 MiB stay in the last-level cache between the three steps."""

FILTER = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
"""G of the paper, (6, 3): values at the points 0, 1, -1, 2, -2, infinity of a filter of 3 taps."""


def replace_convolutions(module: nn.Module) -> None:
    """Replace every convolution in `module` that `WinogradConv3x3` can compute."""
    for name, child in module.named_children():
        if WinogradConv3x3.fits(child):
            setattr(module, name, WinogradConv3x3(child))
        else:
            replace_convolutions(child)


class WinogradConv3x3(nn.Module):
    """A convolution of 3x3 with padding 1 and stride 1, made from such an nn.Conv2d."""

    def __init__(self, conv: nn.Conv2d):
        super().__init__()
        weight = conv.weight.detach()
        transform = weight.new_tensor(FILTER, dtype=torch.float64)
        weight = torch.einsum('ar,ocrs,bs->baco', transform, weight.double(), transform).to(weight.dtype)
        self.register_buffer('weight', weight.flatten(0, 1).contiguous())  # (36 column first, C in, C out)
        self.register_buffer('bias', None if conv.bias is None else conv.bias.detach().clone())

    @staticmethod
    def fits(conv: nn.Module) -> bool:
        return (
            isinstance(conv, nn.Conv2d)
            and (conv.kernel_size, conv.stride, conv.padding) == ((3, 3), (1, 1), (1, 1))
            and (conv.groups, conv.dilation) == (1, (1, 1))
            and conv.in_channels >= 64  # below, the transforms cost more than the products they save
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C in, H, W) -> (B, C out, H, W), channels last in memory."""
        height, width = x.shape[2:]
        down, right = -height % TILE, -width % TILE  # fill the last tiles
        out = x.new_empty(x.shape[0], height + down, width + right, self.weight.shape[2])
        tiles = (width + right) // TILE
        step = TILE * max(1, WORKSPACE // (36 * tiles * x.shape[1]))
        for image, result in zip(x.permute(0, 2, 3, 1), out, strict=True):  # (H, W, C)
            for start in range(0, height + down, step):
                stop = min(start + step, height + down)
                # Padded piece by piece, to avoid a copy of the whole map.
                padding = (0, 0, 1, 1 + right, max(1 - start, 0), max(stop + 1 - height, 0))
                piece = F.pad(image[max(start - 1, 0) : stop + 1], padding)  # (stop - start + 2, W + 2, C)
                self._tile_rows(piece, result[start:stop])
        return out[:, :height, :width].permute(0, 3, 1, 2)

    def _tile_rows(self, image: Tensor, result: Tensor) -> None:
        """Convolve rows of tiles (4 R + 2, W + 2, C in) into `result` (4 R, W, C out)."""
        tile = _transform_input(_transform_input(image, 0), 2)  # (6 in x, 6 in y, R, W / 4, C in)
        sides, (rows, tiles) = tile.shape[:2], tile.shape[2:4]
        product = torch.bmm(tile.flatten(2, 3).flatten(0, 1), self.weight).view(*sides, rows, tiles, -1)
        if self.bias is not None:
            product[1, 1] += self.bias  # the value at the point (1, 1) is added to all outputs equally
        half = product.new_empty(TILE, TILE + 2, *product.shape[2:])
        _transform_output(product, half)
        result = result.view(rows, TILE, tiles, TILE, -1).permute(1, 3, 0, 2, 4)  # (4 in y, 4 in x, R, W / 4, C out)
        _transform_output(half.transpose(0, 1), result)


def _transform_input(image: Tensor, side: int) -> Tensor:
    """Return B^T d, (6, ...), for the overlapping groups d of 6 along `side`, each of which gives 4 outputs.

    Few and large operations: each ends with all threads waiting for each other.
    """
    d = image.unfold(side, TILE + 2, TILE).movedim(-1, 0)  # (6, ...) view
    out = image.new_empty(d.shape)
    far = torch.sub(d[3:5], d[1:3], alpha=4)
    torch.add(far[1], far[0], out=out[1])
    torch.sub(far[1], far[0], out=out[2])
    near = torch.sub(d[3:5], d[1:3], out=far)
    torch.add(near[1], near[0], alpha=2, out=out[3])
    torch.sub(near[1], near[0], alpha=2, out=out[4])
    torch.sub(d[4:6], d[2:4], alpha=5, out=out[0::5]).add_(d[0:2], alpha=4)
    return out


def _transform_output(m: Tensor, out: Tensor) -> None:
    """Write A^T m (4, ...) of m (6, ...) into `out`."""
    total, difference = m[1:4:2] + m[2:5:2], m[1:4:2] - m[2:5:2]
    torch.add(total[0], total[1], out=out[0])
    torch.add(difference[0], difference[1], alpha=2, out=out[1])
    torch.add(total[0], total[1], alpha=4, out=out[2])
    torch.add(difference[0], difference[1], alpha=8, out=out[3])
    out[0::3].add_(m[0::5])
