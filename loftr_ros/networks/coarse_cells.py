"""Cells of the coarse maps: their matches, which cells may be matched, and which matches are kept."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

TILES = 10
"""Matches are chosen evenly from this number of tiles along the width of the image."""


DITHER = (
    (0, 0), (2, 2), (0, 2), (2, 0), (1, 1), (3, 3), (1, 3), (3, 1),
    (0, 1), (2, 3), (0, 3), (2, 1), (1, 0), (3, 2), (1, 2), (3, 0),
)  # fmt: skip
"""Row and column of the cells of each 4 x 4, in the order of Bayer's dither: the first ones are spread evenly."""

FIRST_PART = 1.75
"""Cells of the first part for each match that is needed. Of two images with much in common 0.8 of the cells match."""


class CoarseMatches(NamedTuple):
    """Row i of every tensor is one match; sorted by batch_index, then by cell0."""

    batch_index: Tensor  # (M,) int64, which pair of the batch
    cell0: Tensor  # (M,) int64, row-major cell of image 0
    cell1: Tensor  # (M,) int64, row-major cell of image 1
    confidence: Tensor  # (M,) float32

    def where(self, keep: Tensor) -> CoarseMatches:
        """Return the matches where `keep` (M,) bool is True.

        A GPU waits once for their number; to index each tensor by the mask would be a wait for each.
        """
        index = keep.nonzero()[:, 0]
        return CoarseMatches(*(field[index] for field in self))


def away_from_border(batch: int, height: int, width: int, border: int, mask: Tensor | None, device=None) -> Tensor:
    """Return (B, H * W) bool, False for cells within `border` cells of the image's edge.

    Args:
        mask: (B, H, W) bool, False for padding below and right of the image; the edge is then that of the True
            rectangle; None without padding.
    """
    y = torch.arange(height, device=device)[:, None]
    x = torch.arange(width, device=device)[None, :]
    if mask is None:
        bottom, right = torch.tensor(height, device=device), torch.tensor(width, device=device)
    else:
        bottom, right = mask.any(2).sum(1)[:, None, None], mask.any(1).sum(1)[:, None, None]
    inside = (y >= border) & (x >= border) & (y < bottom - border) & (x < right - border)
    if mask is not None:
        inside = inside & mask
    return inside.expand(batch, height, width).reshape(batch, -1)


def parts_of_rows(height: int, width: int, enough: int, device: torch.device) -> list[Tensor]:
    """Return the parts of the cells of image 0 that `match_dual_softmax` searches until there are enough matches.

    Each is spread over the image: the first has a few more cells than the matches that are needed, the others half of
    the rest each. No parts if all cells are needed, and on a GPU, which would have to wait for the number of matches
    after each part.
    """
    if device.type != 'cpu' or not 0 < 3 * enough <= height * width:
        return []
    cells = torch.arange(height * width, device=device).view(height, width)
    lattices = [cells[y::4, x::4].flatten() for y, x in DITHER]
    first = min(math.ceil(FIRST_PART * enough * len(DITHER) / cells.numel()), len(DITHER) - 2)
    middle = (first + len(DITHER)) // 2
    return [torch.cat(some) for some in (lattices[:first], lattices[first:middle], lattices[middle:])]


def share_of_tile(count: int) -> int:
    """Return how many of `count` matches come from one tile before others have had their turn: twice its share."""
    return -(-2 * count // TILES**2)


def choose_evenly(matches: CoarseMatches, count: int, width: int, pairs: int) -> CoarseMatches:
    """Return at most `count` matches of every pair, spread over image 0, in the same order; 0 = all.

    The most confident ones, but at first no more of a tile than twice its share of `count`.

    Args:
        width: of the map of image 0 [cells]; a tile is a square of a tenth of it.
        pairs: number of pairs of the batch.
    """
    if not count:
        return matches
    side = -(-width // TILES)
    y, x = matches.cell0.div(width, rounding_mode='floor'), matches.cell0 % width
    tile_y, tile_x = (place.div(side, rounding_mode='floor') for place in (y, x))
    tile = (matches.batch_index << 32) + tile_y * TILES + tile_x
    order = torch.argsort(matches.confidence, descending=True, stable=True)
    turn = torch.empty_like(tile)
    turn[order] = _rank(tile[order]).div(share_of_tile(count), rounding_mode='floor')
    order = order[torch.argsort(turn[order], stable=True)]
    # The number of matches of each of several pairs is not known here: a GPU would wait for it.
    order = order[:count] if pairs == 1 else order[_rank(matches.batch_index[order]) < count]
    keep = order.sort().values
    return CoarseMatches(*(field[keep] for field in matches))


def _rank(group: Tensor) -> Tensor:
    """Return (M,) the number of earlier entries with the same group (M,)."""
    order = torch.argsort(group, stable=True)
    ordered = group[order]
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(group), device=group.device) - torch.searchsorted(ordered, ordered)
    return rank
