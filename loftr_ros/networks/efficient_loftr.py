"""Efficient LoFTR (arXiv 2403.04765): semi-dense matching by aggregated attention and two-stage refinement.

Coordinates: pixels (x, y) with the centre of the top-left pixel at (0, 0). The position of cell (i, j) of the coarse
map is (8 i, 8 j), the centre of its receptive field. Its window contains the 8 x 8 pixels from -4 to +3 around this
position. The official code adds 0.5 to these coordinates, so that its origin is the corner of the top-left pixel.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from loftr_ros.errors import InputError
from loftr_ros.networks.base import MatchingNetwork, NetworkMatches
from loftr_ros.networks.block_refinement import BlockRefinement
from loftr_ros.networks.coarse_cells import CoarseMatches, away_from_border, choose_evenly, parts_of_rows
from loftr_ros.networks.coarse_matching import log_dual_softmax, match_dual_softmax, match_raw_similarity
from loftr_ros.networks.repvgg import RepVGG, StageMaps
from loftr_ros.networks.similarity import Similarity
from loftr_ros.networks.two_stage_refinement import FineFusion, Refinement, TwoStageRefinement

CELL = 8
"""Side of a coarse cell and of its window [px]."""

ROTARY_TRAINED_PX = 832
"""Longest side of the official training images; positions in longer images are scaled to it."""

MATCHES_AT_ONCE = {'cpu': 256, 'cuda': 4096}
"""Matches refined together, so that memory does not grow with their number. A GPU is faster with few launches."""


class EfficientLoftrFeatures(NamedTuple):
    """Features that depend on one image only; also of a batch of images of one size."""

    coarse: Tensor  # (B, H / 8, W / 8, C3), after the first self-attention
    maps: StageMaps  # of the backbone
    mask: Tensor | None = None  # (B, H / 8, W / 8) bool, False for padding; None without padding
    # (B, H W / 64) int64 pixel of each cell's window that a match as image 0 must take, -1 where free; None: all free
    fixed: Tensor | None = None

    def fix(self, x: Tensor, y: Tensor) -> EfficientLoftrFeatures:
        """Return features in which also the pixels x, y (N,) int64 of one image are fixed."""
        batch, rows, columns = self.coarse.shape[:3]
        device = self.coarse.device
        free = torch.full((batch, rows * columns), -1, device=device)
        fixed = free if self.fixed is None else self.fixed.clone()
        x, y = x.to(device) + CELL // 2, y.to(device) + CELL // 2  # a window begins half a cell before its cell
        fixed[:, y // CELL * columns + x // CELL] = y % CELL * CELL + x % CELL
        return self._replace(fixed=fixed)


class EfficientLoftrTraining(NamedTuple):
    """Input of the losses of section 3.4; M is the number of coarse matches that the caller chose."""

    coarse_log_confidence: Tensor  # (B, L0, L1) log of the dual soft-max
    pixel_log_confidence: Tensor  # (M, 64, 64) log of the dual soft-max of stage 1
    subpixel_similarity: Tensor  # (M, 64, 100) correlation of stage 2, for `refinement.expected_offset`


class EfficientLoFTR(MatchingNetwork):
    """Detector-free matcher; its places are coarse cells. See MatchingNetwork.

    Args:
        widths: channels of the stem and of the backbone at 1/2, 1/4 and 1/8.
        blocks: RepVGG blocks at 1/2, 1/4 and 1/8.
        layers: pairs of a self- and a cross-attention layer.
        heads: attention heads; the channels at 1/8 must be a multiple of it and of 4.
        aggregation: side of the squares of coarse cells that attention combines into one token.
        temperature: of the coarse dual soft-max.
        mode: 'full', or 'optimized' without soft-max at inference. The similarity s is then unbounded and the
            confidence is s / (s + 100): the official threshold of 25 becomes 0.2.
        subpixel_channels: number of channels of the fine features for stage 2, the last ones.
        subpixel_temperature: of the 3x3 heat map.
        subpixel_offset: see TwoStageRefinement; -1 for the official weights.
        refinement: 'two_stage', the paper's; 'block', faster and with the same features: see BlockRefinement. Training
            always uses the paper's.
        rotary_trained_px: longest side of the training images.
    """

    supervision = 'two_stage'

    def __init__(
        self,
        widths: tuple[int, int, int, int] = (64, 64, 128, 256),
        blocks: tuple[int, int, int] = (2, 4, 14),
        layers: int = 4,
        heads: int = 8,
        aggregation: int = 4,
        temperature: float = 0.1,
        mode: str = 'full',
        subpixel_channels: int = 8,
        subpixel_temperature: float = 10.0,
        subpixel_offset: int = -1,
        refinement: str = 'two_stage',
        rotary_trained_px: int = ROTARY_TRAINED_PX,
    ):
        super().__init__()
        if mode not in ('full', 'optimized'):
            raise InputError(f"mode must be 'full' or 'optimized', got {mode!r}")
        if refinement not in ('two_stage', 'block'):
            raise InputError(f"refinement must be 'two_stage' or 'block', got {refinement!r}")
        self.mode = mode
        self.temperature = temperature
        self.side_multiple = CELL * aggregation
        self.backbone = RepVGG(widths, blocks)
        self.loftr_coarse = CoarseTransformer(widths[3], heads, layers, aggregation, rotary_trained_px / CELL)
        self.fine_preprocess = FineFusion(widths[1:])
        self.refinement = TwoStageRefinement(CELL, subpixel_channels, subpixel_temperature, subpixel_offset)
        self.block_refinement = BlockRefinement(CELL, subpixel_channels) if refinement == 'block' else None

    def extract(self, image: Tensor, mask: Tensor | None = None) -> EfficientLoftrFeatures:
        """Return the features of `image` (B, 1, H, W) in [0, 1], H and W multiples of `side_multiple` (32).

        Where `mask` (B, H, W) bool is False, cells are not matched and the border begins there. Attention treats them
        as a dark part of the image.
        """
        if image.dim() != 4 or image.shape[1] != 1 or any(side % self.side_multiple for side in image.shape[2:]):
            raise InputError(
                f'image must be (B, 1, H, W) with H and W multiples of {self.side_multiple}, got {tuple(image.shape)}; '
                'pad or resize it'
            )
        maps = self.backbone(image.contiguous(memory_format=torch.channels_last))
        mask = None if mask is None else mask[:, ::CELL, ::CELL].bool()
        return EfficientLoftrFeatures(self.loftr_coarse.attend_itself(maps.eighth), maps, mask)

    def match(
        self,
        features0: EfficientLoftrFeatures,
        features1: EfficientLoftrFeatures,
        threshold: float = 0.2,
        border: int = 2,
        max_matches: int = 0,
    ) -> NetworkMatches:
        """Return the matches of image pairs; see MatchingNetwork. keypoints0 are whole pixels."""
        coarse0, coarse1 = self.transform(features0, features1)
        similarity = self._similarity(coarse0, coarse1, features0.mask, features1.mask)
        eligible0, eligible1 = (_eligible(features, border) for features in (features0, features1))
        if self.mode == 'full':
            parts = parts_of_rows(*coarse0.shape[1:3], max_matches, coarse0.device)
            coarse = match_dual_softmax(similarity, threshold, eligible0, eligible1, parts, max_matches)
        else:
            coarse = _match_optimized(similarity, threshold, eligible0, eligible1)
        coarse = choose_evenly(coarse, max_matches, coarse0.shape[2], len(coarse0))
        fixed0 = None if features0.fixed is None else features0.fixed[coarse.batch_index, coarse.cell0]
        fine = self._refine(coarse0, coarse1, features0.maps, features1.maps, coarse, fixed0)
        corner0 = _place(coarse.cell0, coarse0.shape[2])
        corner1 = _place(coarse.cell1, coarse1.shape[2])
        return NetworkMatches(*coarse[:3], corner0 + fine.pixel0, corner1 + fine.pixel1, coarse.confidence, fine.sigma)

    def transform(self, features0: EfficientLoftrFeatures, features1: EfficientLoftrFeatures) -> tuple[Tensor, Tensor]:
        """Return the coarse features (B, H / 8, W / 8, C) of both images after the coarse transformer."""
        return self.loftr_coarse(features0.coarse, features1.coarse)

    def point_ids(self, features0: EfficientLoftrFeatures, matches: NetworkMatches) -> Tensor:
        """Return the number of each point's pixel, because the matched pixel of a cell depends on image 1."""
        x, y = matches.keypoints0.long().unbind(1)
        return y * (CELL * features0.coarse.shape[2]) + x

    def keep_points(self, features0: EfficientLoftrFeatures, point_ids: Tensor) -> EfficientLoftrFeatures:
        """Return features whose cells use one of these pixels if they contain it; the other cells are free."""
        columns = CELL * features0.coarse.shape[2]
        return features0.fix(point_ids % columns, point_ids // columns)

    def point_ids_at(self, features: EfficientLoftrFeatures, points: Tensor) -> Tensor:
        """Return the number of the pixel, or of the first pixel of the block of 2 x 2, that contains each point."""
        height, width = (CELL * side for side in features.coarse.shape[1:3])
        side = 1 if self.block_refinement is None else 2
        x, y = ((points + 0.5) / side).floor().long().mul(side).unbind(1)
        # A window ends half a cell after its cell begins: the last half cell belongs to no window.
        inside = (x >= 0) & (y >= 0) & (x < width - CELL // 2) & (y < height - CELL // 2)
        return torch.where(inside, y * width + x, -1)

    def training_output(
        self, image0: Tensor, image1: Tensor, batch_index: Tensor, index0: Tensor, index1: Tensor
    ) -> EfficientLoftrTraining:
        """Return what the losses compare with the ground truth; the fine stage is computed at the given coarse cells.

        Both images have the same size: the backbone processes them together, so that batch norm uses the statistics of
        both.
        """
        features = self.extract(torch.cat([image0, image1]))
        features0, features1 = (_pick(features, half) for half in torch.arange(2 * len(image0)).chunk(2))
        coarse0, coarse1 = self.transform(features0, features1)
        similarity = self._similarity(coarse0, coarse1, features0.mask, features1.mask)
        # The fusion is more than half of the work: it is computed only for pairs with a match (for one pair if there is
        # no match).
        used, row = torch.unique(batch_index, return_inverse=True)
        used = used if len(used) else used.new_zeros(1)
        fused0, fused1 = (
            self.fine_preprocess(_fine_input(coarse[used]), _pick(features, used).maps)
            for coarse, features in ((coarse0, features0), (coarse1, features1))
        )
        windows = self.refinement.windows(fused0, fused1, row, index0, index1)
        return EfficientLoftrTraining(
            log_dual_softmax(similarity),
            self.refinement.pixel_log_confidence(windows),
            self.refinement.subpixel_similarity(windows),
        )

    def prepare_for_inference(
        self, device: torch.device | str = 'cpu', dtype: torch.dtype = torch.float32, plain: bool = False
    ) -> EfficientLoFTR:
        """Fuse branches and batch norms into plain convolutions; see MatchingNetwork."""
        self.eval().requires_grad_(False)
        self.backbone.reparameterize()
        self.fine_preprocess.reparameterize()
        return self.to(memory_format=torch.channels_last).to(device, dtype)

    def _similarity(self, coarse0: Tensor, coarse1: Tensor, mask0: Tensor | None, mask1: Tensor | None) -> Similarity:
        mask0, mask1 = (None if mask is None else mask.flatten(1) for mask in (mask0, mask1))
        return Similarity(coarse0.flatten(1, 2), coarse1.flatten(1, 2), self.temperature, mask0, mask1)

    def _refine(
        self,
        coarse0: Tensor,
        coarse1: Tensor,
        maps0: StageMaps,
        maps1: StageMaps,
        matches: CoarseMatches,
        fixed0: Tensor | None,
    ) -> Refinement:
        """Return the Refinement of the coarse matches from the fused maps around them."""
        batch, cell0, cell1 = matches[:3]
        fused0 = self.fine_preprocess.around_cells(_fine_input(coarse0), maps0, batch, cell0)
        fused1 = self.fine_preprocess.around_cells(_fine_input(coarse1), maps1, batch, cell1)
        refinement = self.refinement if self.block_refinement is None else self.block_refinement
        parts = []
        at_once = MATCHES_AT_ONCE.get(batch.device.type, MATCHES_AT_ONCE['cpu'])
        for some in torch.arange(len(batch), device=batch.device).split(at_once):
            windows = refinement.windows(fused0, fused1, batch[some], cell0[some], cell1[some])
            parts.append(refinement(windows, None if fixed0 is None else fixed0[some]))
        return Refinement(*(torch.cat(field) for field in zip(*parts, strict=True)))


class CoarseTransformer(nn.Module):
    """Self- and cross-attention in turn (section 3.2); maps are (B, H, W, C)."""

    def __init__(self, channels: int, heads: int, layers: int, aggregation: int, trained_cells: float):
        super().__init__()
        self.aggregation = aggregation
        self.trained_cells = trained_cells
        self.layers = nn.ModuleList(AggregatedAttention(channels, heads, aggregation) for _ in range(2 * layers))

    def attend_itself(self, eighth: Tensor) -> Tensor:
        """Return the backbone's map (B, C, H, W) after the first layer, which depends on one image only."""
        x = eighth.permute(0, 2, 3, 1)
        return self.layers[0](x, x, self._rotary(x))

    def forward(self, x0: Tensor, x1: Tensor) -> tuple[Tensor, Tensor]:
        """Return both maps after the other layers. Cross-attention of image 1 uses the updated image 0."""
        rotary0, rotary1 = self._rotary(x0), self._rotary(x1)
        for index, layer in enumerate(self.layers[1:], start=1):
            if index % 2:
                x0 = layer(x0, x1)
                x1 = layer(x1, x0)
            else:
                x0 = layer(x0, x0, rotary0)
                x1 = layer(x1, x1, rotary1)
        return x0, x1

    def _rotary(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return cosine and sine (L, C / 2) of every token's angles, rows and columns in turn (equation 2).

        Positions count from 1, in tokens; those of an image longer than the training images are scaled to their range.
        """
        _, cells_y, cells_x, channels = x.shape
        height, width = cells_y // self.aggregation, cells_x // self.aggregation
        kwargs = {'device': x.device, 'dtype': torch.float32}
        frequency = torch.exp(torch.arange(channels // 4, **kwargs) * (-math.log(10000.0) / (channels // 4)))
        position_y, position_x = (torch.arange(1, length + 1, **kwargs) for length in (height, width))
        # A tensor instead of a number, so that an exported network takes images of any size.
        longest = self.aggregation * torch.maximum(position_y[-1], position_x[-1])
        squeeze = (self.trained_cells / longest).clamp(max=1.0)
        angle_y = (position_y * squeeze)[:, None] * frequency  # (h, C / 4)
        angle_x = (position_x * squeeze)[:, None] * frequency
        grid = (height, width, channels // 4)
        angle = torch.stack([angle_y[:, None].expand(grid), angle_x[None].expand(grid)], dim=-1).view(
            height * width, -1
        )
        return angle.cos().to(x.dtype), angle.sin().to(x.dtype)


class AggregatedAttention(nn.Module):
    """One layer: attention between tokens of `aggregation`^2 cells each; its message is upsampled to the cells."""

    def __init__(self, channels: int, heads: int, aggregation: int):
        super().__init__()
        self.heads = heads
        self.aggregation = aggregation
        self.aggregate = nn.Conv2d(channels, channels, aggregation, aggregation, groups=channels, bias=False)
        self.q_proj = nn.Linear(channels, channels, bias=False)
        self.k_proj = nn.Linear(channels, channels, bias=False)
        self.v_proj = nn.Linear(channels, channels, bias=False)
        self.merge = nn.Linear(channels, channels, bias=False)
        self.mlp = nn.Sequential(
            nn.Linear(2 * channels, 2 * channels, bias=False),
            nn.LeakyReLU(),
            nn.Linear(2 * channels, channels, bias=False),
        )
        self.norm1 = nn.LayerNorm(channels)
        self.norm2 = nn.LayerNorm(channels)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, x: Tensor, source: Tensor, rotary: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Return x (B, H, W, C) updated by attention to source (B, H', W', C)."""
        query = self.norm1(self.aggregate(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))  # (B, h, w, C)
        token = self.norm1(_max_pool(source, self.aggregation)).flatten(1, 2)  # (B, L', C)
        queries, keys, values = self.q_proj(query.flatten(1, 2)), self.k_proj(token), self.v_proj(token)
        if rotary is not None:
            queries, keys = _rotate(queries, *rotary), _rotate(keys, *rotary)
        queries, keys, values = (t.unflatten(2, (self.heads, -1)).transpose(1, 2) for t in (queries, keys, values))
        message = F.scaled_dot_product_attention(queries, keys, values)  # (B, heads, L, C / heads)
        message = self.merge(message.transpose(1, 2).flatten(2)).view_as(query)
        return x + self.norm2(self._feed_forward(x, message))

    def _feed_forward(self, x: Tensor, message: Tensor) -> Tensor:
        """Return `mlp(cat(x, up(message)))`.

        The first linear map and the upsampling commute, so the half for the message is computed on the few tokens.
        """
        channels = x.shape[-1]
        expand, activation, contract = self.mlp
        spread = F.linear(message, expand.weight[:, channels:]).permute(0, 3, 1, 2)
        spread = F.interpolate(spread, scale_factor=float(self.aggregation), mode='bilinear', align_corners=False)
        spread = spread.permute(0, 2, 3, 1)
        hidden = torch.addmm(spread.flatten(0, 2), x.flatten(0, 2), expand.weight[:, :channels].t())
        return contract(activation(hidden)).view_as(x)


def _rotate(tokens: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Return tokens (B, L, C) with each pair of channels rotated by its angle (L, C / 2)."""
    first, second = tokens[..., 0::2], tokens[..., 1::2]
    return torch.stack([first * cosine - second * sine, second * cosine + first * sine], dim=-1).flatten(2)


def _max_pool(x: Tensor, side: int) -> Tensor:
    """Return the largest value of each square of (B, H, W, C)."""
    return F.max_pool2d(x.permute(0, 3, 1, 2), side).permute(0, 2, 3, 1)


def _match_optimized(similarity: Similarity, threshold: float, eligible0: Tensor, eligible1: Tensor) -> CoarseMatches:
    least = 100 * threshold / (1 - threshold) if threshold < 1 else math.inf
    coarse = match_raw_similarity(similarity, max(least, 0.0), eligible0, eligible1)
    score = coarse.confidence.double()
    return coarse._replace(confidence=(score / (score + 100)).float())


def _fine_input(coarse: Tensor) -> Tensor:
    """Return (B, H, W, C) as (B, C, H, W) in the scale that the fine stage was trained with."""
    return (coarse / coarse.shape[-1] ** 0.5).permute(0, 3, 1, 2)


def _place(cell: Tensor, cells_x: int) -> Tensor:
    """Return (M, 2) x, y [px] of the top-left pixel of each cell's window."""
    return torch.stack([cell % cells_x, cell.div(cells_x, rounding_mode='floor')], dim=1) * float(CELL) - CELL // 2


def _pick(features: EfficientLoftrFeatures, rows: Tensor) -> EfficientLoftrFeatures:
    return EfficientLoftrFeatures(features.coarse[rows], StageMaps(*(level[rows] for level in features.maps)))


def _eligible(features: EfficientLoftrFeatures, border: int) -> Tensor:
    """Return (B, L) bool, False for the cells along the border."""
    batch, height, width, _ = features.coarse.shape
    return away_from_border(batch, height, width, border, features.mask, features.coarse.device)
