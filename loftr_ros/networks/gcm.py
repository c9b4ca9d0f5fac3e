"""Generalized Correspondence Matching (arXiv 2403.05388): pyramids of dense features and their hierarchical refinement.

A level has one feature for each block of stride x stride pixels; a place of a level is its number y * width + x. F_0
comes from a patch descriptor at full resolution, F_1..F_k from a backbone (backbones.py). `refine` is the paper's
refinement, widened_refinement.py is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from loftr_ros.networks.backbones import Backbone
from loftr_ros.networks.gradient_descriptor import GradientDescriptor

CHUNK_BYTES = 8 << 20
"""Size of the largest temporary array; keeps a VGA pair far under 1 GiB."""

DESCRIPTORS = {'gradient': GradientDescriptor}
"""Name -> module of `(1, 1, H, W) -> (H, W, C)`."""


class Level(NamedTuple):
    """Features of one resolution."""

    features: Tensor  # (height * width, C) float16, rows of length 1 or less
    stride: int  # side of a place [px]
    height: int
    width: int


class Pyramid:
    """Features of one image.

    Args:
        image: (1, 1, H, W) or (1, 3, H, W) red first, in [0, 1]; H and W multiples of the largest stride.
        descriptor: module of `(1, 1, H, W) -> (H, W, C)` for F_0; None: the finest level is that of the backbone.
        backbone: its strides are larger than 1 if there is a descriptor.
    """

    def __init__(self, image: Tensor, descriptor: nn.Module | None, backbone: Backbone):
        self.height, self.width = image.shape[-2:]
        self._image, self._descriptor = image, descriptor
        with torch.inference_mode():
            maps = backbone(image, lambda: self.finest)
            self._coarser = tuple(_level(m, s, normalise=True) for m, s in zip(maps, backbone.strides, strict=True))

    @cached_property
    def finest(self) -> Tensor:
        """F_0 (H, W, C), computed at the first use: an image that is only warped afterwards does not need it."""
        grey = self._image
        if grey.shape[1] == 3:
            weights = grey.new_tensor((0.299, 0.587, 0.114))  # of red, green and blue in luminance, as OpenCV has it
            grey = (grey * weights.view(1, 3, 1, 1)).sum(1, keepdim=True)
        with torch.inference_mode():
            return self._descriptor(grey)

    @property
    def coarsest(self) -> Level:
        """F_k, where matches begin."""
        return self._coarser[-1]

    @property
    def levels(self) -> tuple[Level, ...]:
        """All levels, the finest first."""
        if self._descriptor is None:
            return self._coarser
        return (_level(self.finest, 1, normalise=False), *self._coarser)


def _level(features: Tensor, stride: int, normalise: bool) -> Level:
    height, width = features.shape[:2]
    if normalise:
        features = F.normalize(features, dim=-1, eps=1e-6).half()
    return Level(features.flatten(0, 1), stride, height, width)


class Cells(NamedTuple):
    """N matched places of one level, in any order."""

    index0: Tensor  # (N,) int64
    index1: Tensor  # (N,) int64
    uniqueness: Tensor  # (N,) float32, 1 - d1 / d2 of the match of F_k that the place descends from


class Correspondences(NamedTuple):
    """Points of two images that belong together."""

    index0: Tensor  # (N,) int64, number of the place in the finest level of image 0
    points0: Tensor  # (N, 2) float32 x, y in image 0
    points1: Tensor  # (N, 2) float32 x, y in image 1
    confidence: Tensor  # (N,) float32 in [0, 1]


@torch.inference_mode()
def match_coarsest(pyramid0: Pyramid, pyramid1: Pyramid) -> Cells:
    """Return the mutual nearest neighbours on F_k by cosine (section III-B, eq. 1 and 2), without any threshold.

    Their uniqueness is Lowe's test: d2 is the best cell of image 1 that does not border on the match's neighbours.
    """
    features0, features1 = pyramid0.coarsest.features.float(), pyramid1.coarsest.features.float()
    count0, count1 = len(features0), len(features1)
    best1 = features0.new_empty(count0, dtype=torch.int64)
    uniqueness = features0.new_empty(count0)
    score0 = features0.new_full((count1,), -torch.inf)
    best0 = torch.zeros(count1, dtype=torch.int64, device=features0.device)
    rows = max(1, CHUNK_BYTES // (4 * count1))
    for start in range(0, count0, rows):
        similarity = features0[start : start + rows] @ features1.T
        score, index = similarity.max(0)
        best0 = torch.where(score > score0, index + start, best0)
        score0 = torch.maximum(score, score0)
        first, index = similarity.max(1)
        best1[start : start + rows] = index
        around, _ = window(index, pyramid1.coarsest, pyramid1.coarsest, range(-2, 3))
        second = similarity.scatter_(1, around, -1).amax(1)
        uniqueness[start : start + rows] = contrast(first, second)
    index0 = torch.arange(count0, device=features0.device)
    mutual = best0[best1] == index0
    return Cells(index0[mutual], best1[mutual], uniqueness[mutual])


@torch.inference_mode()
def refine(pyramid0: Pyramid, pyramid1: Pyramid, cells: Cells, ratios: Sequence[float] = ()) -> Correspondences:
    """Take matches of F_k down to the finest level: the flexible hierarchical refinement of section III-D.

    Each match opens the places of the next level that both its cells cover (2 x 2 against 2 x 2 where the stride
    halves) and is replaced by the mutual nearest neighbours among them. No match is dropped by a threshold on the way.
    The confidence is 1 - d1 / d2, the smaller one of both directions, at the finest level: a confidence of at least
    1 - r is the ratio test r at the end of the paper. d is the squared distance of unit vectors, as in the programs of
    DFM and of GCM.

    Args:
        ratios: largest d1 / d2 at each level, F_k first, as in DFM (arXiv 2106.07791); empty: none.
    """
    number = len(pyramid0.levels)
    ratios = [*ratios] or [1.0] * number
    if ratios[0] < 1:
        distinct = _coarsest_contrast(pyramid0.coarsest, pyramid1.coarsest, cells)
        cells, distinct = _above(cells, distinct, ratios[0])
    for level, ratio in zip(range(number - 2, -1, -1), ratios[1:], strict=True):
        cells, distinct = _open(pyramid0, pyramid1, level, cells)
        cells, distinct = _above(cells, distinct, ratio)
    finest0, finest1 = pyramid0.levels[0], pyramid1.levels[0]
    return Correspondences(cells.index0, centres(cells.index0, finest0), centres(cells.index1, finest1), distinct)


def _above(cells: Cells, distinct: Tensor, ratio: float) -> tuple[Cells, Tensor]:
    """Return the matches whose d1 / d2 is at most `ratio`, and their contrasts."""
    keep = distinct >= 1 - ratio
    return Cells(*(field[keep] for field in cells)), distinct[keep]


def _coarsest_contrast(level0: Level, level1: Level, cells: Cells) -> Tensor:
    """Return 1 - d1 / d2 (N,) of matches of F_k, the smaller one of both directions; d2 is the second best cell."""
    smaller = torch.full_like(cells.uniqueness, torch.inf)
    for queries, query, targets in ((level0, cells.index0, level1), (level1, cells.index1, level0)):
        rows = max(1, CHUNK_BYTES // (4 * len(targets.features)))
        parts = [
            (queries.features[part].float() @ targets.features.float().T).topk(2, dim=1).values
            for part in query.split(rows)
        ]
        best = torch.cat(parts) if parts else smaller.new_empty(0, 2)
        smaller = torch.minimum(smaller, contrast(best[:, 0], best[:, 1]))
    return smaller


def _open(pyramid0: Pyramid, pyramid1: Pyramid, level: int, parents: Cells) -> tuple[Cells, Tensor]:
    """Return the mutual nearest children of matched cells, and 1 - d1 / d2 of each within the children."""
    parts = []
    for child0, child1, similarity, uniqueness in compare_children(pyramid0, pyramid1, level, parents, margin=0):
        # Rows of F_0 are shorter than 1, for the ratio test of the widened refinement.
        length0, length1 = (
            torch.linalg.vector_norm(pyramid.levels[level].features[child].float(), dim=2).clamp(min=1e-3)
            for pyramid, child in ((pyramid0, child0), (pyramid1, child1))
        )
        similarity = similarity / (length0[:, :, None] * length1[:, None])
        two1, best1 = similarity.topk(2, dim=2)  # (M, n, 2)
        two0, best0 = similarity.topk(2, dim=1)  # (M, 2, n)
        best1, best0 = best1[:, :, 0], best0[:, 0]  # (M, n)
        mutual = best0.gather(1, best1) == torch.arange(child0.shape[1], device=best0.device)
        there = contrast(two1[:, :, 0], two1[:, :, 1])
        back = contrast(two0[:, 0], two0[:, 1]).gather(1, best1)
        parts.append((
            child0[mutual], child1.gather(1, best1)[mutual], uniqueness.expand(-1, child0.shape[1])[mutual],
            torch.minimum(there, back)[mutual],
        ))  # fmt: skip
    *cells, distinct = (torch.cat(field) for field in zip(*parts, strict=True))
    return Cells(*cells), distinct


def compare_children(pyramid0: Pyramid, pyramid1: Pyramid, level: int, parents: Cells, margin: int):
    """Compare the places of a level that matched cells of the next coarser level cover.

    Args:
        margin: number of places by which the region in image 1 is widened on each side.

    Yields:
        For a part of the M parents: children (M, n) of image 0, children (M, m) of image 1, their cosines (M, n, m),
        -inf outside of image 1, and the parents' uniqueness (M, 1).
    """
    level0, level1 = pyramid0.levels[level], pyramid1.levels[level]
    parent0, parent1 = pyramid0.levels[level + 1], pyramid1.levels[level + 1]
    factor = parent0.stride // level0.stride
    inner, outer = range(factor), range(-margin, factor + margin)
    rows = max(1, CHUNK_BYTES // (4 * level0.features.shape[1] * (len(inner) ** 2 + len(outer) ** 2)))
    for index0, index1, uniqueness in zip(*(field.split(rows) for field in parents), strict=True):
        child0, _ = window(index0, parent0, level0, inner)
        child1, inside = window(index1, parent1, level1, outer)
        similarity = torch.bmm(
            level0.features[child0].float(), level1.features[child1].float().transpose(1, 2)
        ).masked_fill_(~inside[:, None], -torch.inf)
        yield child0, child1, similarity, uniqueness[:, None]


def contrast(first: Tensor, second: Tensor) -> Tensor:
    """Return 1 - d1 / d2, at least 0, of the best and the second best cosine."""
    return ((first - second) / (1 - second).clamp(min=1e-6)).clamp_(0, 1)


def window(centre: Tensor, of: Level, level: Level, reach: range) -> tuple[Tensor, Tensor]:
    """Return the places (N, len(reach)^2) of `level` around the first one in each place `centre` (N,) of `of`.

    Places outside are moved to the border; the second tensor says which are inside.
    """
    factor = of.stride // level.stride
    offset = torch.tensor(list(reach), device=centre.device)
    x = factor * (centre % of.width)[:, None, None] + offset
    y = factor * torch.div(centre, of.width, rounding_mode='floor')[:, None, None] + offset[:, None]
    inside = (x >= 0) & (x < level.width) & (y >= 0) & (y < level.height)
    return (y.clamp(0, level.height - 1) * level.width + x.clamp(0, level.width - 1)).flatten(1), inside.flatten(1)


def centres(index: Tensor, level: Level) -> Tensor:
    """Return the pixels (N, 2) float32 x, y at the centres of places."""
    places = torch.stack((index % level.width, torch.div(index, level.width, rounding_mode='floor')), dim=1)
    return (places + 0.5) * level.stride - 0.5
