"""A refinement of `gcm` beyond the paper: wider search, one pixel for each block of image 0, sub-pixel positions."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from loftr_ros.networks.gcm import (
    CHUNK_BYTES,
    Cells,
    Correspondences,
    Level,
    Pyramid,
    centres,
    compare_children,
    contrast,
)

_BLOCK_PX = 4
"""Side of the blocks of image 0 that have one match each [px]; a place of F_1 where that is larger."""


@torch.inference_mode()
def refine_widened(pyramid0: Pyramid, pyramid1: Pyramid, cells: Cells) -> Correspondences:
    """Take matches of F_k down to the finest level; see `gcm.refine` for the paper's way. The differences:

    * The region in image 1 is half a cell wider on each side, 2 x 2 against 4 x 4 places where the stride halves.
      Displacements of half a coarse cell, which parallax leaves after the alignment, otherwise lose most matches.
    * The finest level searches for one pixel of each 4 x 4 block of image 0, the top left one of the block's most
      distinctive F_1 place. It depends on image 0 alone, so the same pixel is matched in every later frame.
    * Neighbours of the best pixel resemble it, so the second best of the final ratio test is taken on a ring around
      it. The confidence is the geometric mean of that 1 - d1 / d2 and the one of the coarse match, which knows
      about repetition elsewhere.
    """
    for level in range(len(pyramid0.levels) - 2, 0, -1):
        cells = _open(pyramid0, pyramid1, level, cells)
    distinctive = _most_distinctive(pyramid0.levels[1])[cells.index0]
    cells = Cells(*(field[distinctive] for field in cells))
    finest0, finest1 = pyramid0.levels[0], pyramid1.levels[0]
    reach = pyramid0.levels[1].stride // finest0.stride
    index0, index1 = (
        _first_place(index, pyramid.levels[1], pyramid.levels[0])
        for index, pyramid in ((cells.index0, pyramid0), (cells.index1, pyramid1))
    )
    index1, distinct, shift = _search(finest0, finest1, index0, index1, reach)
    confidence = (distinct * cells.uniqueness).sqrt_()
    # Two places of image 0 on one pixel of image 1: only the better one can be right.
    strongest = torch.zeros(len(finest1.features), device=index1.device)
    strongest.scatter_reduce_(0, index1, confidence, reduce='amax')
    keep = (confidence > 0) & (confidence == strongest[index1])
    points1 = centres(index1, finest1) + shift * finest1.stride
    return Correspondences(index0[keep], centres(index0, finest0)[keep], points1[keep], confidence[keep])


def _open(pyramid0: Pyramid, pyramid1: Pyramid, level: int, parents: Cells) -> Cells:
    """Return the mutual nearest children of matched cells, in image 1 also those next to the cell."""
    margin = pyramid0.levels[level + 1].stride // pyramid0.levels[level].stride // 2
    parts = []
    for child0, child1, similarity, uniqueness in compare_children(pyramid0, pyramid1, level, parents, margin):
        best1, best0 = similarity.argmax(2), similarity.argmax(1)  # (M, n), (M, m)
        children = child0.shape[1]
        mutual = best0.gather(1, best1) == torch.arange(children, device=best0.device)
        found = child1.gather(1, best1)
        parts.append((child0[mutual], found[mutual], uniqueness.expand(-1, children)[mutual]))
    return Cells(*(torch.cat(field) for field in zip(*parts, strict=True)))


def _most_distinctive(level: Level) -> Tensor:
    """Say of each F_1 place (N,) whether it is the one of its block that resembles its neighbours least.

    Moravec's measure with descriptors: the distance to the most similar of the 8 neighbours.
    """
    height, width = level.height, level.width
    side = max(1, _BLOCK_PX // level.stride)
    features = level.features.view(height, width, -1).float()
    distance = torch.full((height, width), torch.inf, device=features.device)
    for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
        here, there = slice(max(0, -dx), width - max(0, dx)), slice(max(0, dx), width - max(0, -dx))
        apart = 1 - (features[: height - dy, here] * features[dy:, there]).sum(-1)
        torch.minimum(distance[: height - dy, here], apart, out=distance[: height - dy, here])
        torch.minimum(distance[dy:, there], apart, out=distance[dy:, there])
    rows, columns = -(-height // side), -(-width // side)
    # Blocks at the border may be incomplete: what is missing is never the most distinctive.
    distance = F.pad(distance, (0, columns * side - width, 0, rows * side - height), value=-torch.inf)
    blocks = distance.view(rows, side, columns, side).transpose(1, 2).flatten(2)
    first = F.one_hot(blocks.argmax(2), side * side).bool().view(rows, columns, side, side)
    return first.transpose(1, 2).reshape(rows * side, columns * side)[:height, :width].flatten()


def _first_place(index: Tensor, level: Level, finer: Level) -> Tensor:
    """Return the top left one of the places of `finer` that places of `level` cover."""
    factor = level.stride // finer.stride
    return factor * (finer.width * torch.div(index, level.width, rounding_mode='floor') + index % level.width)


_CROSS = ((-1, 0), (1, 0), (0, -1), (0, 1))

_RING = tuple((round(5 * math.cos(a * math.pi / 8)), round(5 * math.sin(a * math.pi / 8))) for a in range(16))
"""Sixteen (x, y) at 5 px: outside the window that is searched, within the descriptor's patch."""


def _search(level0: Level, level1: Level, index0: Tensor, index1: Tensor, reach: int):
    """Find each place of image 0 among those of image 1 up to `reach` away from its partner.

    Returns:
        Places (N,) of image 1, 1 - d1 / d2 (N,) against a ring around them, and the rest x, y (N, 2)
        [places].
    """
    square = tuple((dx, dy) for dy in range(-reach, reach + 1) for dx in range(-reach, reach + 1))
    rows = max(1, CHUNK_BYTES // (4 * level0.features.shape[1] * len(square)))
    parts = []
    for place0, place1 in zip(index0.split(rows), index1.split(rows), strict=True):
        similarity, places = _compare(level0, place0, level1, place1, square)
        first, best = similarity.max(1)
        found = places.gather(1, best[:, None])[:, 0]
        around, _ = _compare(level0, place0, level1, found, _CROSS + _RING)
        # A step to the left in image 1 is one to the right in image 0. The mean of both is free of the bias that an
        # uneven texture gives each.
        opposite, _ = _compare(level1, found, level0, place0, _CROSS)
        left, right, up, down = ((around[:, :4] + opposite[:, [1, 0, 3, 2]]) / 2).unbind(1)
        shift = torch.stack((_parabola(left, first, right), _parabola(up, first, down)), dim=1)
        parts.append((found, contrast(first, around[:, 4:].amax(1)), shift))
    return tuple(torch.cat(field) for field in zip(*parts, strict=True))


def _compare(queries: Level, query: Tensor, level: Level, centre: Tensor, offsets: tuple):
    """Return similarities (N, K) of places with those at `offsets` x, y from others, -inf outside, and the latter."""
    offset = torch.tensor(offsets, device=centre.device)
    x = (centre % level.width)[:, None] + offset[:, 0]
    y = torch.div(centre, level.width, rounding_mode='floor')[:, None] + offset[:, 1]
    inside = (x >= 0) & (x < level.width) & (y >= 0) & (y < level.height)
    places = y.clamp(0, level.height - 1) * level.width + x.clamp(0, level.width - 1)
    similarity = torch.bmm(level.features[places].float(), queries.features[query].float()[..., None])[..., 0]
    return similarity.masked_fill_(~inside, -torch.inf), places


def _parabola(before: Tensor, peak: Tensor, after: Tensor) -> Tensor:
    """Return where the parabola through three neighbouring values has its maximum, in [-0.5, 0.5]; 0 off a peak."""
    curvature = 2 * peak - before - after
    is_peak = (peak >= before) & (peak >= after) & (curvature > 1e-6) & curvature.isfinite()
    return torch.where(is_peak, (after - before) / (2 * curvature), 0).clamp_(-0.5, 0.5)
