"""The fine stage of Efficient LoFTR (arXiv 2403.04765, section 3.3): fuse features up to full resolution, refine twice.

The fused full-resolution map is a third of the network's work and is read only around the coarse matches. Therefore
each layer of the fusion is computed either everywhere or only at the pixels that these windows depend on, whichever is
faster. The results are the same, also at the borders of the image.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from loftr_ros.networks.log_sum_exp import ColumnSums, are_small, exponentiate_rows_
from loftr_ros.networks.repvgg import StageMaps, conv_with, fold_batch_norm

DENSE_ABOVE = 0.7
"""Share of needed pixels above which convolving the whole map is faster than cutting out blocks (measured on CPU)."""

NARROW = 64
"""Number of channels below which convolving the whole map is always faster (measured on CPU)."""

_CHUNK_BYTES = 32 << 20
"""Size of the largest temporary array."""


class Windows(NamedTuple):
    """Full-resolution features around M matches, row by row."""

    window0: Tensor  # (M, w^2, C): the cell of image 0
    window1: Tensor  # (M, (w + 2)^2, C): the cell of image 1 and one pixel around it, 0 outside the image


class Refinement(NamedTuple):
    """Pixels of M matches inside their cells."""

    pixel0: Tensor  # (M, 2) x, y in 0..w - 1, whole
    pixel1: Tensor  # (M, 2) x, y, sub-pixel
    sigma: Tensor  # (M,) [px]


class FineFusion(nn.Module):
    """Fuses coarse features with the backbone's maps at 1/4 and 1/2 into one map of full resolution.

    Twice `up(3x3(leaky(bn(3x3(1x1(backbone) + up(coarser))))))`, up being bilinear by 2 on pixel areas
    (align_corners False).
    """

    def __init__(self, widths: tuple[int, int, int]):
        super().__init__()
        half, quarter, eighth = widths
        self.layer3_outconv = nn.Conv2d(eighth, eighth, 1, bias=False)
        self.layer2_outconv = nn.Conv2d(quarter, eighth, 1, bias=False)
        self.layer2_outconv2 = _refining_convs(eighth, quarter)
        self.layer1_outconv = nn.Conv2d(half, quarter, 1, bias=False)
        self.layer1_outconv2 = _refining_convs(quarter, half)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode='fan_out', nonlinearity='relu')

    def forward(self, coarse: Tensor, maps: StageMaps) -> Tensor:
        """Return the fused map at 1/2, (B, C1, H / 2, W / 2), everywhere; refinements upsample it.

        Args:
            coarse: (B, C3, H / 8, W / 8) transformed features, already divided by sqrt(C3).
        """
        x = self.layer2_outconv2(self.layer2_outconv(maps.quarter) + _double(self.layer3_outconv(coarse)))
        return self.layer1_outconv2(self.layer1_outconv(maps.half) + _double(x))

    def around_cells(self, coarse: Tensor, maps: StageMaps, batch: Tensor, cell: Tensor) -> Tensor:
        """Return the map of `forward`, correct at every pixel that the windows of the cells depend on.

        Args:
            batch, cell: (M,) image of the batch and number of the cell in it.
        """
        reached = coarse.new_zeros(coarse.shape[0], 1, *coarse.shape[2:])
        reached.flatten(1)[batch, cell] = 1
        # At 1/2, windows need 1 pixel around their cells and the convolutions 2 more: at most 2 pixels at 1/4.
        x = self.layer3_outconv(coarse)
        x = _fuse_level(x, maps.quarter, self.layer2_outconv, self.layer2_outconv2, _repeat(reached, 2), reach=2)
        return _fuse_level(x, maps.half, self.layer1_outconv, self.layer1_outconv2, _repeat(reached, 4), reach=1)

    @torch.no_grad()
    def reparameterize(self) -> None:
        """Fold each batch norm, with its running statistics, into the convolution before it."""
        for convs in (self.layer2_outconv2, self.layer1_outconv2):
            if isinstance(convs[1], nn.BatchNorm2d):
                convs[0] = conv_with(*fold_batch_norm(convs[0].weight, convs[1]))
                convs[1] = nn.Identity()


class TwoStageRefinement(nn.Module):
    """Pixel by mutual nearest neighbours in the windows, sub-pixel by expectation over 3x3 pixels around it.

    The last `subpixel_channels` of the features are for the second stage, the others for the first. `subpixel_offset`
    is the offset in x and y of the 3x3 pixels from the pixel of stage 1: 0 as in the paper; -1 in the official code,
    both in training and in inference, so the official weights need it. Outside the window it wraps around, as in the
    official code.
    """

    def __init__(self, window: int, subpixel_channels: int, temperature: float, subpixel_offset: int):
        super().__init__()
        self.window = window
        self.subpixel_channels = subpixel_channels
        self.temperature = temperature
        self.subpixel_offset = subpixel_offset

    def windows(self, fused0: Tensor, fused1: Tensor, batch: Tensor, cell0: Tensor, cell1: Tensor) -> Windows:
        """Return the windows of M matches in fused maps (B, C, H / 2, W / 2)."""
        return Windows(
            full_windows(fused0, self.window, batch, cell0, margin=0),
            full_windows(fused1, self.window, batch, cell1, margin=1),
        )

    def forward(self, windows: Windows, fixed0: Tensor | None = None) -> Refinement:
        """Return the refined places of M matches, in float32: in half precision, neighbouring pixels tie.

        Args:
            fixed0: (M,) int64 given pixels of image 0, -1 where stage 1 chooses.
        """
        windows = Windows(*(window.float() for window in windows))
        score = self._pixel_scores(windows)
        # amax first, then argmax: over a large tensor argmax is slow and amax fast.
        pixel0 = score.amax(2).argmax(1)
        if fixed0 is not None:
            pixel0 = torch.where(fixed0 < 0, pixel0, fixed0)
        match = torch.arange(len(pixel0), device=pixel0.device)
        widened = score[match, pixel0].argmax(1)
        side = self.window + 2
        pixel1 = (widened.div(side, rounding_mode='floor') - 1) * self.window + widened % side - 1
        features0, features1 = (w[..., -self.subpixel_channels :] for w in windows)
        around = self._around(pixel1)  # (M, 9)
        similarity = torch.einsum('mc,mkc->mk', features0[match, pixel0], features1[match[:, None], around])
        offset, sigma = self._expectation(similarity)
        return Refinement(self._xy(pixel0), self._xy(pixel1) + offset, sigma)

    def pixel_log_confidence(self, windows: Windows) -> Tensor:
        """Return the log of the dual soft-max (M, w^2, w^2) of stage 1, normalised over the widened window."""
        features0, features1 = self._pixel_features(windows)
        similarity = torch.matmul(features0, features1.transpose(1, 2))
        total0 = similarity.logsumexp(2, keepdim=True)
        total1 = similarity.logsumexp(1, keepdim=True)
        side = self.window + 2
        log_confidence = (2 * similarity - total0 - total1).unflatten(2, (side, side))
        return log_confidence[..., 1:-1, 1:-1].flatten(2)

    def _pixel_scores(self, windows: Windows) -> Tensor:
        """Return (M, w^2, (w + 2)^2), increasing with `pixel_log_confidence`; smallest in the margin.

        Needs half of the exponentials: P = E^2 exp(2 reference) / (total0 total1), where E is relative to the
        reference.
        """
        features0, features1 = self._pixel_features(windows)
        similarity = torch.matmul(features0, features1.transpose(1, 2))
        reference, total0 = exponentiate_rows_(similarity, are_small(features0, features1))
        sums = ColumnSums()
        sums.add(reference, similarity)
        side = self.window + 2
        if not sums.is_exact():
            score = F.pad(
                self.pixel_log_confidence(windows).unflatten(2, (self.window, -1)), (1, 1, 1, 1), value=-math.inf
            )
            return score.flatten(2)
        row = ((reference - sums.scale) / 2).exp() / total0.sqrt()
        column = ((sums.scale - sums.value()) / 2).exp().unflatten(1, (side, side))
        column = F.pad(column[:, 1:-1, 1:-1], (1, 1, 1, 1), value=-1.0).flatten(1)
        return similarity.mul_(row[..., None]).mul_(column[:, None])

    def _pixel_features(self, windows: Windows) -> tuple[Tensor, Tensor]:
        """Return the features of stage 1, (M, w^2, C') and (M, (w + 2)^2, C'), whose product is the similarity."""
        channels = windows.window0.shape[2]
        features0, features1 = (w[..., : -self.subpixel_channels] for w in windows)
        return features0 / channels, features1  # equal to both divided by sqrt(C)

    def subpixel_similarity(self, windows: Windows) -> Tensor:
        """Return the correlation of stage 2 (M, w^2, (w + 2)^2), for `expected_offset`."""
        features0, features1 = (w[..., -self.subpixel_channels :] for w in windows)
        return torch.matmul(features0, features1.transpose(1, 2))

    def expected_offset(self, similarity: Tensor, match: Tensor, pixel0: Tensor, pixel1: Tensor) -> Tensor:
        """Return the offset (K, 2) x, y from pixel1 [px] that stage 2 expects at pairs of pixels that a loss chooses.

        Args:
            similarity: (M, w^2, (w + 2)^2) of `subpixel_similarity`.
            match, pixel0, pixel1: (K,) number of the match, and of the pixels in its two cells.
        """
        return self._expectation(similarity[match[:, None], pixel0[:, None], self._around(pixel1)])[0]

    def _around(self, pixel1: Tensor) -> Tensor:
        """Return the numbers (M, 9), in the widened window, of the 3x3 pixels that belong to pixel1 (M,)."""
        side = self.window + 2
        steps = torch.arange(3, device=pixel1.device) + self.subpixel_offset
        y = (pixel1.div(self.window, rounding_mode='floor')[:, None] + steps) % side
        x = ((pixel1 % self.window)[:, None] + steps) % side
        return (y[:, :, None] * side + x[:, None, :]).flatten(1)

    def _expectation(self, similarity: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean offset (M, 2) and sigma (M,) [px] of similarities (M, 9).

        sigma = sqrt((var_x + var_y) / 2): one standard deviation along each axis of the soft-max heat map about its
        mean, at most 1, and sqrt(2 / 3) if all similarities are equal.
        """
        heat = torch.softmax(similarity / (self.subpixel_channels**0.5 * self.temperature), dim=-1).view(-1, 3, 3)
        step = torch.arange(-1, 2, device=heat.device, dtype=heat.dtype)
        along = torch.stack([heat.sum(1), heat.sum(2)], dim=1)  # (M, 2, 3): marginals of x and y
        mean = along @ step
        variance = along @ step**2 - mean**2
        return mean, (variance.clamp(min=0).mean(1)).sqrt()

    def _xy(self, pixel: Tensor) -> Tensor:
        return torch.stack([pixel % self.window, pixel.div(self.window, rounding_mode='floor')], dim=1).float()


def half_windows(fused: Tensor, window: int, batch: Tensor, cell: Tensor, margin: int) -> Tensor:
    """Return the pixels (M, (w / 2 + 2 margin)^2, C) of the fused map at 1/2 around cells; the border is repeated.

    Args:
        fused: (B, C, H / 2, W / 2).
        margin: pixels at 1/2 added on each side.
    """
    height, width = fused.shape[2:]
    steps = torch.arange(-margin, window // 2 + margin, device=cell.device)
    cells_x = 2 * width // window
    y = cell.div(cells_x, rounding_mode='floor')[:, None] * (window // 2) + steps
    x = (cell % cells_x)[:, None] * (window // 2) + steps
    row = (batch[:, None] * height + y.clamp(0, height - 1)) * width
    index = row[:, :, None] + x.clamp(0, width - 1)[:, None, :]
    return _rows(fused)[index.flatten()].view(len(cell), len(steps) ** 2, fused.shape[1])


def full_windows(fused: Tensor, window: int, batch: Tensor, cell: Tensor, margin: int) -> Tensor:
    """Return the full-resolution features (M, (w + 2 margin)^2, C) of cells, 0 outside the image.

    Args:
        fused: (B, C, H / 2, W / 2).
        margin: pixels added on each side, 0 or 1.
    """
    # Bilinear upsampling repeats the map's border, as `half_windows` does.
    patch = half_windows(fused, window, batch, cell, margin=1)
    weight = doubling_matrix(window, margin, fused)
    full = torch.matmul(torch.kron(weight, weight), patch)
    if margin:
        full *= _inside(window, cell, *(2 * side for side in fused.shape[2:])).to(full.dtype)
    return full


def _inside(window: int, cell: Tensor, height: int, width: int) -> Tensor:
    """Return (M, (w + 2)^2, 1) bool, whether a pixel of the widened window is in an image of height x width."""
    steps = torch.arange(-1, window + 1, device=cell.device)
    cells_x = width // window
    y = cell.div(cells_x, rounding_mode='floor')[:, None] * window + steps
    x = (cell % cells_x)[:, None] * window + steps
    inside_y, inside_x = (y >= 0) & (y < height), (x >= 0) & (x < width)
    return (inside_y[:, :, None] & inside_x[:, None, :]).flatten(1)[..., None]


def _refining_convs(channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.LeakyReLU(),
        nn.Conv2d(channels, out_channels, 3, padding=1, bias=False),
    )


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode='bilinear', align_corners=False)


def _repeat(mask: Tensor, times: int) -> Tensor:
    return F.interpolate(mask, scale_factor=float(times), mode='nearest')


def _grow(mask: Tensor, reach: int) -> Tensor:
    """Return (B, 1, H, W) with every set pixel grown to a square of 2 reach + 1."""
    rows = F.max_pool2d(mask, (1, 2 * reach + 1), 1, (0, reach))
    return F.max_pool2d(rows, (2 * reach + 1, 1), 1, (reach, 0))


def _rows(x: Tensor) -> Tensor:
    """Return (B, C, H, W) as (B H W, C), without a copy when it is channels-last."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def _fuse_level(coarser: Tensor, lateral: Tensor, point: nn.Conv2d, convs: nn.Sequential, cells: Tensor, reach: int):
    """Return one level of the fusion, at least within `reach` pixels of the cells.

    Args:
        coarser: (B, C, H / 2, W / 2); lateral: (B, C', H, W) of the backbone.
        cells: (B, 1, H, W), 1 in the pixels of the cells that are needed; a cell is a square of even side.
    """
    x = point(lateral) + _double(coarser)
    if x.shape[1] < NARROW:
        return convs(x)
    needed = [_grow(cells, reach + 1), _grow(cells, reach)]
    shares = torch.stack([mask.mean() for mask in needed]).tolist()
    for step, mask, share, far in zip((convs[:3], convs[3:]), needed, shares, (reach + 1, reach), strict=True):
        x = step(x) if share > DENSE_ABOVE else _at_blocks(x, step, mask, offset=far % 2)
    return x


def _at_blocks(x: Tensor, convs: nn.Sequential, mask: Tensor, offset: int) -> Tensor:
    """Return `convs` (a 3x3 convolution, then pointwise modules) of x at the set pixels, 0 elsewhere.

    The mask consists of blocks of 2x2 pixels on a grid that begins at -offset. Every block is cut out of x with one
    pixel around it and convolved as a separate image of 4x4.
    """
    conv, *pointwise = convs
    batch, channels, height, width = x.shape
    before, after = 1 + offset, 1 + offset  # the zeros that the convolution sees, and those that complete blocks
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, before, after, before, after))
    blocks = padded.unfold(1, 4, 2).unfold(2, 4, 2)  # (B, H / 2 + offset, W / 2 + offset, C, 4, 4), a view
    image, row, column = F.max_pool2d(mask, 2, 2, offset)[:, 0].nonzero().unbind(1)
    out_channels = len(conv.weight)
    out = x.new_zeros(batch, 2 * blocks.shape[1], 2 * blocks.shape[2], out_channels)
    out_blocks = out.view(batch, blocks.shape[1], 2, blocks.shape[2], 2, out_channels).transpose(2, 3)
    at_once = max(1, _CHUNK_BYTES // (16 * channels * x.element_size()))
    for index in zip(*(t.split(at_once) for t in (image, row, column)), strict=True):
        block = blocks.permute(0, 1, 2, 4, 5, 3)[index].permute(0, 3, 1, 2)  # (N, C, 4, 4), channels last
        block = F.conv2d(block, conv.weight, conv.bias)  # (N, C', 2, 2)
        for module in pointwise:
            block = module(block)
        out_blocks[index] = block.permute(0, 2, 3, 1)
    return out[:, offset : offset + height, offset : offset + width].permute(0, 3, 1, 2)


def doubling_matrix(window: int, margin: int, like: Tensor) -> Tensor:
    """Return (w + 2 margin, w / 2 + 2): full-resolution pixels of a window from its pixels at 1/2 and one around."""
    weight = like.new_zeros(window + 2 * margin, window // 2 + 2)
    for row, pixel in enumerate(range(-margin, window + margin)):
        nearest = pixel // 2 + 1  # column 0 is the pixel before the window
        other = nearest + (1 if pixel % 2 else -1)
        weight[row, nearest], weight[row, other] = 0.75, 0.25
    return weight
