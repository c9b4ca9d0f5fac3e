"""Generalized Correspondence Matching (arXiv 2403.05388): dense features and flexible hierarchical refinement.

Level l has one feature for each block of 2^l x 2^l pixels; a place of a level is its number y * width_l + x. F_0 comes
from a patch descriptor at full resolution, F_1..F_k from a backbone; here the one of the last row of Table II, which
averages F_0 and so needs no weights. Both are plug-in points: see `DESCRIPTORS` and `BACKBONES`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from loftr_ros.networks.gradient_descriptor import GradientDescriptor

NUM_LEVELS = 3
"""k: the coarsest level, where matches begin, has cells of 2^k pixels."""

_CHUNK_BYTES = 8 << 20
"""Size of the largest temporary array; keeps a VGA pair far under 1 GiB."""


class Pyramid(NamedTuple):
    """Features of one image of height x width, both multiples of 2^k."""

    levels: tuple[Tensor, ...]
    """F_0 (H * W, C) float16 and F_1..F_k ((H / 2^l) * (W / 2^l), C_l) float32, rows of length 1 or less."""
    height: int
    width: int

    def size(self, level: int) -> tuple[int, int]:
        """Return (height, width) of a level."""
        return self.height >> level, self.width >> level


class Cells(NamedTuple):
    """Matched places of one level, row by row."""

    index0: Tensor  # (N,) int64
    index1: Tensor  # (N,) int64
    uniqueness: Tensor  # (N,) float32, 1 - d1 / d2 of the coarse match that the place descends from


class Correspondences(NamedTuple):
    """Places of two images that belong together."""

    index0: Tensor  # (N,) int64 pixel number in image 0
    points1: Tensor  # (N, 2) float32 x, y in image 1
    confidence: Tensor  # (N,) float32 in [0, 1]


class AveragePooling(nn.Module):
    """Backbone without weights: F_l is the mean of F_0 over blocks of 2^l x 2^l pixels (Table II, last row)."""

    def forward(self, image: Tensor, finest: Tensor) -> list[Tensor]:
        """Return F_1..F_k, each (H / 2^l, W / 2^l, C), of F_0 (H, W, C); the image itself is not needed."""
        height, width, channels = finest.shape
        rows = 2 * max(1, _CHUNK_BYTES // (8 * channels * width))
        levels = [torch.cat([_halve(finest[top : top + rows].float()) for top in range(0, height, rows)])]
        while len(levels) < NUM_LEVELS:
            levels.append(_halve(levels[-1]))
        return levels


def _halve(maps: Tensor) -> Tensor:
    """Return the means of blocks of 2 x 2 of (H, W, C)."""
    pairs = maps[0::2] + maps[1::2]
    return (pairs[:, 0::2] + pairs[:, 1::2]).mul_(0.25)


DESCRIPTORS = {'gradient': GradientDescriptor}
"""Name -> module of `(1, 1, H, W) -> (H, W, C)`."""

BACKBONES = {'pool': AveragePooling}
"""Name -> module of `(image, F_0) -> [F_1, ..., F_k]`."""


@torch.inference_mode()
def extract_pyramid(image: Tensor, descriptor: nn.Module, backbone: nn.Module) -> Pyramid:
    """Return the features of `image` (1, 1, H, W) in [0, 1], H and W multiples of 2^k."""
    height, width = image.shape[-2:]
    finest = descriptor(image)
    levels = [F.normalize(level, dim=-1, eps=1e-6).flatten(0, 1) for level in backbone(image, finest)]
    return Pyramid((finest.flatten(0, 1), *levels), height, width)


@torch.inference_mode()
def match_coarsest(pyramid0: Pyramid, pyramid1: Pyramid) -> Cells:
    """Return the mutual nearest neighbours on F_k by cosine (section III-B, eq. 1 and 2), without any threshold.

    Their uniqueness is Lowe's test: d2 is the best cell of image 1 that does not border on the match's neighbours.
    """
    level = NUM_LEVELS
    features0, features1 = pyramid0.levels[level], pyramid1.levels[level]
    height1, width1 = pyramid1.size(level)
    count0, count1 = len(features0), len(features1)
    best1 = features0.new_empty(count0, dtype=torch.int64)
    uniqueness = features0.new_empty(count0)
    score0 = features0.new_full((count1,), -torch.inf)
    best0 = torch.zeros(count1, dtype=torch.int64, device=features0.device)
    rows = max(1, _CHUNK_BYTES // (4 * count1))
    for start in range(0, count0, rows):
        similarity = features0[start : start + rows] @ features1.T
        score, index = similarity.max(0)
        best0 = torch.where(score > score0, index + start, best0)
        score0 = torch.maximum(score, score0)
        first, index = similarity.max(1)
        best1[start : start + rows] = index
        around, _ = _window(index, width1, height1, width1, range(-2, 3))
        second = similarity.scatter_(1, around, -1).amax(1)
        uniqueness[start : start + rows] = _contrast(first, second)
    index0 = torch.arange(count0, device=features0.device)
    mutual = best0[best1] == index0
    return Cells(index0[mutual], best1[mutual], uniqueness[mutual])


@torch.inference_mode()
def refine(pyramid0: Pyramid, pyramid1: Pyramid, cells: Cells) -> Correspondences:
    """Take matches of F_k down to F_0, the flexible hierarchical refinement of section III-D.

    The paper opens 2 x 2 against 2 x 2 places and keeps mutual nearest neighbours, level by level. Ours beyond it:

    * A match opens 2 x 2 against 4 x 4 places. Displacements of half a coarse cell, which parallax leaves after the
      alignment, otherwise lose two thirds of their matches.
    * F_0 searches for one pixel of each 4 x 4 block of image 0, the top left one of the block's most distinctive F_1
      place. It depends on image 0 alone, so the same pixel is matched in every later frame.
    * Neighbours of the best pixel resemble it, so the second best of the final ratio test is taken on a ring around
      it. The confidence is the geometric mean of that 1 - d1 / d2 and the one of the coarse match, which knows
      about repetition elsewhere.
    """
    for level in range(NUM_LEVELS - 1, 0, -1):
        cells = _open(pyramid0, pyramid1, level, cells, margin=1)
    distinctive = _most_distinctive(pyramid0)[cells.index0]
    cells = Cells(*(field[distinctive] for field in cells))
    index0, index1 = (_first_pixel(i, p.size(1)[1]) for i, p in ((cells.index0, pyramid0), (cells.index1, pyramid1)))
    index1, contrast, shift = _search_pixels(pyramid0, pyramid1, index0, index1)
    confidence = (contrast * cells.uniqueness).sqrt_()
    # Two places of image 0 on one pixel of image 1: only the better one can be right.
    strongest = torch.zeros(len(pyramid1.levels[0]), device=index1.device)
    strongest.scatter_reduce_(0, index1, confidence, reduce='amax')
    keep = (confidence > 0) & (confidence == strongest[index1])
    points1 = torch.stack((index1 % pyramid1.width, index1 // pyramid1.width), dim=1) + shift
    return Correspondences(index0[keep], points1[keep], confidence[keep])


def _contrast(first: Tensor, second: Tensor) -> Tensor:
    """Return 1 - d1 / d2, at least 0, of the best and the second best cosine."""
    return ((first - second) / (1 - second).clamp(min=1e-6)).clamp_(0, 1)


def _window(centre: Tensor, centre_width: int, height: int, width: int, reach: range, step: int = 1):
    """Return the places (N, len(reach)^2) around `step` times each `centre` (N,), and which of them lie inside.

    Places outside are moved to the border.
    """
    offset = torch.tensor(list(reach), device=centre.device)
    x = step * (centre % centre_width)[:, None, None] + offset
    y = step * torch.div(centre, centre_width, rounding_mode='floor')[:, None, None] + offset[:, None]
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    return (y.clamp(0, height - 1) * width + x.clamp(0, width - 1)).flatten(1), inside.flatten(1)


def _open(pyramid0: Pyramid, pyramid1: Pyramid, level: int, parents: Cells, margin: int) -> Cells:
    """Return the mutual nearest children of matched cells: 2 x 2 against 2 x 2 widened by `margin` on each side."""
    features0, features1 = pyramid0.levels[level], pyramid1.levels[level]
    (height0, width0), (height1, width1) = pyramid0.size(level), pyramid1.size(level)
    window = range(-margin, 2 + margin)
    rows = max(1, _CHUNK_BYTES // (4 * features0.shape[1] * (4 + len(window) ** 2)))
    parts = []
    for index0, index1, uniqueness in zip(*(field.split(rows) for field in parents), strict=True):
        child0, _ = _window(index0, width0 // 2, height0, width0, range(2), step=2)  # (M, 4)
        child1, inside = _window(index1, width1 // 2, height1, width1, window, step=2)  # (M, w^2)
        similarity = torch.bmm(features0[child0], features1[child1].transpose(1, 2))  # (M, 4, w^2)
        similarity.masked_fill_(~inside[:, None], -torch.inf)
        best1, best0 = similarity.argmax(2), similarity.argmax(1)  # (M, 4), (M, w^2)
        mutual = best0.gather(1, best1) == torch.arange(4, device=best0.device)
        parts.append((child0[mutual], child1.gather(1, best1)[mutual], uniqueness[:, None].expand(-1, 4)[mutual]))
    return Cells(*(torch.cat(field) for field in zip(*parts, strict=True)))


def _most_distinctive(pyramid: Pyramid) -> Tensor:
    """Say of each F_1 place (N,) whether it is the one of its 2 x 2 block that resembles its neighbours least.

    Moravec's measure with descriptors: the distance to the most similar of the 8 neighbours.
    """
    height, width = pyramid.size(1)
    features = pyramid.levels[1].view(height, width, -1)
    distance = torch.full((height, width), torch.inf, device=features.device)
    for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
        here, there = slice(max(0, -dx), width - max(0, dx)), slice(max(0, dx), width - max(0, -dx))
        apart = 1 - (features[: height - dy, here] * features[dy:, there]).sum(-1)
        torch.minimum(distance[: height - dy, here], apart, out=distance[: height - dy, here])
        torch.minimum(distance[dy:, there], apart, out=distance[dy:, there])
    blocks = distance.view(height // 2, 2, width // 2, 2).transpose(1, 2).flatten(2)
    first = F.one_hot(blocks.argmax(2), 4).bool()
    return first.view(height // 2, width // 2, 2, 2).transpose(1, 2).flatten()


def _first_pixel(index: Tensor, width: int) -> Tensor:
    """Return the pixel number of the top left pixel of F_1 places; `width` is that of F_1."""
    return 4 * width * torch.div(index, width, rounding_mode='floor') + 2 * (index % width)


_CROSS = ((-1, 0), (1, 0), (0, -1), (0, 1))

_RING = tuple((round(5 * math.cos(a * math.pi / 8)), round(5 * math.sin(a * math.pi / 8))) for a in range(16))
"""Sixteen (x, y) at 5 px: outside the window that is searched, within the descriptor's patch."""


def _search_pixels(pyramid0: Pyramid, pyramid1: Pyramid, index0: Tensor, index1: Tensor):
    """Find each pixel of image 0 on F_0 within 5 x 5 pixels around its place in image 1.

    Returns:
        Pixel numbers (N,) of image 1, 1 - d1 / d2 (N,) against a ring around them, and the sub-pixel rest x, y (N, 2).
    """
    square = tuple((dx, dy) for dy in range(-2, 3) for dx in range(-2, 3))
    rows = max(1, _CHUNK_BYTES // (4 * pyramid0.levels[0].shape[1] * len(square)))
    parts = []
    for pixel0, pixel1 in zip(index0.split(rows), index1.split(rows), strict=True):
        similarity, places = _compare(pyramid0, pixel0, pyramid1, pixel1, square)
        first, best = similarity.max(1)
        found = places.gather(1, best[:, None])[:, 0]
        around, _ = _compare(pyramid0, pixel0, pyramid1, found, _CROSS + _RING)
        # A step to the left in image 1 is one to the right in image 0. The mean of both is free of the bias that an
        # uneven texture gives each.
        opposite, _ = _compare(pyramid1, found, pyramid0, pixel0, _CROSS)
        left, right, up, down = ((around[:, :4] + opposite[:, [1, 0, 3, 2]]) / 2).unbind(1)
        shift = torch.stack((_parabola(left, first, right), _parabola(up, first, down)), dim=1)
        parts.append((found, _contrast(first, around[:, 4:].amax(1)), shift))
    return tuple(torch.cat(field) for field in zip(*parts, strict=True))


def _compare(queries: Pyramid, query: Tensor, pyramid: Pyramid, centre: Tensor, offsets: tuple):
    """Return similarities (N, K) of pixels with those at `offsets` x, y from others, -inf outside, and the places."""
    height, width = pyramid.height, pyramid.width
    offset = torch.tensor(offsets, device=centre.device)
    x = (centre % width)[:, None] + offset[:, 0]
    y = torch.div(centre, width, rounding_mode='floor')[:, None] + offset[:, 1]
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    places = y.clamp(0, height - 1) * width + x.clamp(0, width - 1)
    similarity = torch.bmm(pyramid.levels[0][places].float(), queries.levels[0][query].float()[..., None])[..., 0]
    return similarity.masked_fill_(~inside, -torch.inf), places


def _parabola(before: Tensor, peak: Tensor, after: Tensor) -> Tensor:
    """Return where the parabola through three neighbouring values has its maximum, in [-0.5, 0.5]; 0 off a peak."""
    curvature = 2 * peak - before - after
    is_peak = (peak >= before) & (peak >= after) & (curvature > 1e-6) & curvature.isfinite()
    return torch.where(is_peak, (after - before) / (2 * curvature), 0).clamp_(-0.5, 0.5)
