"""A faster fine stage for Efficient LoFTR, for inference with features that the two-stage refinement has trained."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from loftr_ros.networks.two_stage_refinement import Refinement, Windows, doubling_matrix, half_windows

SIGMA_PX = 0.8
"""Of all matches: the standard deviation per axis of those within 3 px, measured (benchmarks/results/accuracy.md)."""


class BlockRefinement(nn.Module):
    """Chooses a block of 2x2 pixels of image 0 and gives its centre a sub-pixel place in image 1.

    Upsampling by 2 is linear, so the correlation of a block with the full-resolution window is the upsampled
    correlation with the window at 1/2. The mutual nearest neighbours of stage 1 are therefore searched at 1/2, with a
    sixteenth of the products; the place in image 1 is the maximum of the upsampled correlation and of a parabola around
    it. It replaces both stages of section 3.3 and uses the features of the first.
    """

    def __init__(self, window: int, subpixel_channels: int):
        super().__init__()
        self.window = window
        self.subpixel_channels = subpixel_channels

    def windows(self, fused0: Tensor, fused1: Tensor, batch: Tensor, cell0: Tensor, cell1: Tensor) -> Windows:
        """Return the pixels at 1/2 of M matches: (M, (w / 2)^2, C) and (M, (w / 2 + 2)^2, C)."""
        return Windows(
            half_windows(fused0, self.window, batch, cell0, margin=0),
            half_windows(fused1, self.window, batch, cell1, margin=1),
        )

    def forward(self, windows: Windows, fixed0: Tensor | None = None) -> Refinement:
        """Return the refined places of M matches, in float32; pixel0 are centres of blocks, 0.5 to w - 1.5.

        Args:
            fixed0: (M,) int64 given pixels of image 0, -1 where the block is chosen.
        """
        features0, features1 = (window.float()[..., : -self.subpixel_channels] for window in windows)
        side, match = self.window // 2, torch.arange(len(features0), device=features0.device)
        similarity = torch.bmm(features0 / windows.window0.shape[2], features1.transpose(1, 2))
        log_p = 2 * similarity - similarity.logsumexp(2, keepdim=True) - similarity.logsumexp(1, keepdim=True)
        log_p = log_p.unflatten(2, (side + 2, side + 2))[:, :, 1:-1, 1:-1].flatten(2)
        block = log_p.amax(2).argmax(1)  # (M,)
        if fixed0 is not None:
            given = fixed0.div(2 * self.window, rounding_mode='floor') * side + fixed0 % self.window // 2
            block = torch.where(fixed0 < 0, block, given)
        weight = doubling_matrix(self.window, 1, similarity)  # (w + 2, w / 2 + 2)
        correlation = weight @ similarity[match, block].unflatten(1, (side + 2, side + 2)) @ weight.T
        place = correlation[:, 1:-1, 1:-1].flatten(1).argmax(1)
        y, x = place.div(self.window, rounding_mode='floor') + 1, place % self.window + 1
        best = correlation[match, y, x]
        offset_x = _peak(correlation[match, y, x - 1], best, correlation[match, y, x + 1])
        offset_y = _peak(correlation[match, y - 1, x], best, correlation[match, y + 1, x])
        pixel0 = torch.stack([block % side, block.div(side, rounding_mode='floor')], dim=1) * 2 + 0.5
        pixel1 = torch.stack([x - 1 + offset_x, y - 1 + offset_y], dim=1)
        return Refinement(pixel0, pixel1, torch.full_like(best, SIGMA_PX))


def _peak(before: Tensor, best: Tensor, after: Tensor) -> Tensor:
    """Return where the parabola through three neighbours is largest, 0 where the middle one is not the largest."""
    curvature = 2 * best - before - after
    is_peak = (best >= before) & (best >= after) & (curvature > 1e-9)
    return torch.where(is_peak, (after - before) / (2 * curvature), 0.0)
