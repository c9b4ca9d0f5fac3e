"""LoFTR: Detector-Free Local Feature Matching with Transformers (Sun et al., CVPR 2021, arXiv 2104.00680).

Section numbers are those of the paper; its local feature CNN (3.1) is resnet_fpn.py, its coarse-level matching (3.3)
coarse_matching.py. Modules have the names of the authors' checkpoints, which load strictly. Coordinates are (x, y) in
pixels of the input image, the centre of its top-left pixel at (0, 0): the position of the coarse cell in column c and
row r is (8 c, 8 r), as in the authors' code.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from loftr_ros.errors import InputError
from loftr_ros.networks.base import MatchingNetwork, NetworkMatches
from loftr_ros.networks.coarse_cells import away_from_border, choose_evenly, parts_of_rows
from loftr_ros.networks.coarse_matching import CoarseMatching
from loftr_ros.networks.resnet_fpn import ResNetFpn

COARSE_STRIDE, FINE_STRIDE = 8, 2
"""Pixels between the cells of the coarse and of the fine map."""

MATCHES_AT_ONCE = {'cpu': 128, 'cuda': 16384}
"""Matches refined together: 128 windows of 5x5x256 floats are 3 MB and fit into the cache of a CPU."""


class LoftrFeatures(NamedTuple):
    """Features that depend on one image only; channels last."""

    coarse: Tensor  # (B, H / 8, W / 8, C) with position, after the self-attention before the first cross-attention
    fine: Tensor  # (B, H / 2, W / 2, C)
    mask: Tensor | None  # (B, H / 8, W / 8) bool, False for padding


class LoftrRefinement(NamedTuple):
    """Fine level: position in the window of image 1 that corresponds to the centre of the window of image 0."""

    expectation: Tensor  # (M, 2) float32 offset (x, y) from the coarse cell in units of half a window, in [-1, 1]
    deviation: Tensor  # (M,) float32 standard deviation along x plus that along y, same unit


class LoftrTraining(NamedTuple):
    """Input of the losses of section 3.5."""

    log_confidence: Tensor  # dual-softmax (B, L, S); optimal transport (B, L + 1, S + 1), the dustbins last
    refinement: LoftrRefinement  # of the matches that the caller chose


# --- 3.2 Local feature transformer ----------------------------------------------------------------------------------


class PositionEncoding:
    """2-D sinusoidal position of section 3.2 (eq. of the supplement), computed again only for a larger map than before.

    Args:
        variant: 'fixed', the formula of the paper; 'original', that of the authors' first code, where a floor division
            changes the frequencies to exp(-2 k). The outdoor and the old indoor checkpoints need it.
    """

    def __init__(self, channels: int, variant: str):
        exponent = -math.log(10000.0) / (channels // 2) if variant == 'fixed' else -1.0
        self.frequency = torch.exp(exponent * torch.arange(0, channels // 2, 2, dtype=torch.float32))  # (C / 4,)
        self.table = torch.empty(0, 0, channels)

    def __call__(self, like: Tensor) -> Tensor:
        """Return (H, W, C) for a map `like` (B, H, W, C)."""
        height, width = like.shape[1:3]
        if torch.jit.is_tracing():  # a table would become a constant of the ONNX file, for one image size
            return self._make(height, width).to(like)
        same = self.table.device == like.device and self.table.dtype == like.dtype
        if not same or self.table.shape[0] < height or self.table.shape[1] < width:
            height_max, width_max = (max(a, b) for a, b in zip(self.table.shape, (height, width), strict=False))
            self.table = self._make(height_max, width_max).to(like)
        return self.table[:height, :width]

    def _make(self, height: int, width: int) -> Tensor:
        # The authors count cells from 1.
        x = (torch.arange(1, width + 1)[:, None] * self.frequency).expand(height, width, -1)
        y = (torch.arange(1, height + 1)[:, None, None] * self.frequency).expand(height, width, -1)
        return torch.stack([x.sin(), x.cos(), y.sin(), y.cos()], dim=-1).flatten(2)  # (H, W, C / 4, 4) -> (H, W, C)


class EncoderLayer(nn.Module):
    """Attention of x to a source, merged into x by an MLP (Fig. 3 of the paper)."""

    def __init__(self, channels: int, heads: int, attention: str):
        super().__init__()
        self.heads, self.attention = heads, attention
        self.q_proj = nn.Linear(channels, channels, bias=False)
        self.k_proj = nn.Linear(channels, channels, bias=False)
        self.v_proj = nn.Linear(channels, channels, bias=False)
        self.merge = nn.Linear(channels, channels, bias=False)
        self.mlp = nn.Sequential(
            nn.Linear(2 * channels, 2 * channels, bias=False),
            nn.ReLU(inplace=True),
            nn.Linear(2 * channels, channels, bias=False),
        )
        self.norm1 = nn.LayerNorm(channels)
        self.norm2 = nn.LayerNorm(channels)

    def forward(self, x: Tensor, source: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return x (B, L, C) after it attended to `source` (B, S, C), `mask` (B, S) bool False for padding."""
        attend = self._linear_attention if self.attention == 'linear' else self._full_attention
        message = self.norm1(attend(x, source, mask))
        return x + self.norm2(self.mlp(torch.cat([x, message], dim=-1)))

    def _linear_attention(self, x: Tensor, source: Tensor, mask: Tensor | None) -> Tensor:
        """phi(Q) (phi(K)^T V) with phi = elu + 1 and its normaliser, merged: O(L) (section 3.2).

        Sums over the source are means here, for fp16. With a source longer than C, phi(K)^T V is computed as
        (phi(K)^T source) Wv^T and multiplied by the merge weights before the queries: this needs one product with the
        source and one with x, two fewer than with projections of the values and of the message.
        """
        length, channels = source.shape[1:]
        query, key = F.elu(self.q_proj(x)) + 1, F.elu(self.k_proj(source)) + 1
        if mask is not None:
            key = key * mask[..., None]
        key = key / length
        if length > channels:
            context = self._split(key.transpose(1, 2) @ source)  # (B, C, C) -> (B, heads, D, C)
            context = context @ self._split(self.v_proj.weight).transpose(1, 2)  # (B, heads, D, D)
        else:
            value = self.v_proj(source).unflatten(-1, (self.heads, -1))  # (B, S, heads, D)
            context = torch.einsum('bshd,bshv->bhdv', key.unflatten(-1, (self.heads, -1)), value)
        query = query.unflatten(-1, (self.heads, -1))  # (B, L, heads, D)
        total = key.sum(1).unflatten(-1, (self.heads, -1))  # (B, heads, D)
        query = query / (torch.einsum('blhd,bhd->blh', query, total) + 1e-6 / length)[..., None]
        if length > channels:
            context = context @ self._split(self.merge.weight.t())  # (B, heads, D, C)
            return query.flatten(2) @ context.flatten(1, 2)
        return self.merge(torch.einsum('blhd,bhdv->blhv', query, context).flatten(2))

    def _full_attention(self, x: Tensor, source: Tensor, mask: Tensor | None) -> Tensor:
        query, key, value = (
            t.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, heads, L, D)
            for t in (self.q_proj(x), self.k_proj(source), self.v_proj(source))
        )
        mask = None if mask is None else mask[:, None, None, :]
        message = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.merge(message.transpose(1, 2).flatten(2))

    def _split(self, rows: Tensor) -> Tensor:
        """Split the second last dimension, the channels, into heads and channels of a head."""
        return rows.unflatten(-2, (self.heads, -1))


class Transformer(nn.Module):
    """Alternating self- and cross-attention. In a cross layer image 1 attends to the updated image 0."""

    def __init__(self, channels: int, heads: int, layers: Sequence[str], attention: str):
        super().__init__()
        self.names = tuple(layers)
        self.layers = nn.ModuleList(EncoderLayer(channels, heads, attention) for _ in layers)
        self.leading_self = next((i for i, name in enumerate(layers) if name != 'self'), len(layers))
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def self_layers(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Run the layers before the first cross-attention, which depend on one image only."""
        for layer in self.layers[: self.leading_self]:
            x = layer(x, x, mask)
        return x

    def cross_layers(self, x0: Tensor, x1: Tensor, mask0=None, mask1=None) -> tuple[Tensor, Tensor]:
        """Run the other layers."""
        for name, layer in zip(self.names[self.leading_self :], self.layers[self.leading_self :], strict=True):
            if name == 'self':
                x0, x1 = layer(x0, x0, mask0), layer(x1, x1, mask1)
            else:
                x0 = layer(x0, x1, mask1)
                x1 = layer(x1, x0, mask0)
        return x0, x1


# --- 3.4 Coarse-to-fine module --------------------------------------------------------------------------------------


class FineWindows(nn.Module):
    """Windows of the fine map around coarse cells, each combined with the coarse feature of its cell."""

    def __init__(self, coarse: int, fine: int, window: int):
        super().__init__()
        self.window = window
        self.down_proj = nn.Linear(coarse, fine)
        self.merge_feat = nn.Linear(2 * fine, fine)

    def forward(self, fine: Tensor, tokens: Tensor, batch_index: Tensor, cell: Tensor, columns: int) -> Tensor:
        """Return (M, window^2, C). `fine`: (B, H, W, C); `tokens`: (B, L, C coarse); `columns` of the coarse map."""
        height, width, channels = fine.shape[1:]
        reach = torch.arange(self.window, device=cell.device) - self.window // 2
        step = COARSE_STRIDE // FINE_STRIDE
        y = ((cell // columns) * step)[:, None, None] + reach[:, None]  # (M, window, 1)
        x = ((cell % columns) * step)[:, None, None] + reach  # (M, 1, window)
        inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
        index = (batch_index[:, None, None] * height + y.clamp(0, height - 1)) * width + x.clamp(0, width - 1)
        windows = fine.reshape(-1, channels)[index.flatten(1)] * inside.flatten(1)[..., None]  # zeros around the map
        context = self.down_proj(tokens[batch_index, cell])  # (M, C)
        # The linear layer on [window, context], with the part of the context computed once per window.
        weight_window, weight_context = self.merge_feat.weight.split(channels, dim=1)
        context = F.linear(context, weight_context, self.merge_feat.bias)
        return F.linear(windows, weight_window) + context[:, None]


def spatial_expectation(heatmap: Tensor) -> LoftrRefinement:
    """Return mean and deviation of the position for `heatmap` (M, w, w); positions are from -1 to 1."""
    window = heatmap.shape[-1]
    position = torch.linspace(-1, 1, window, device=heatmap.device, dtype=heatmap.dtype)
    marginals = torch.stack([heatmap.sum(1), heatmap.sum(2)], dim=1)  # (M, 2, w): along x, along y
    mean = marginals @ position
    variance = marginals @ position**2 - mean**2
    # 1e-10 as in the authors' code; the square root has no finite gradient at 0.
    return LoftrRefinement(mean, variance.clamp(min=1e-10).sqrt().sum(1))


# --- The network ----------------------------------------------------------------------------------------------------


class LoFTR(MatchingNetwork):
    """LoFTR; its places are coarse cells. The defaults are those of the authors' checkpoints.

    Args:
        initial_dim, block_dims: channels of the stem and at 1/2, 1/4, 1/8; the last is the width of the coarse
            transformer, the first that of the fine one.
        coarse_layers, fine_layers: 'self' or 'cross', one for each layer.
        heads: of both transformers.
        attention: 'linear' or 'full'.
        positional_encoding: 'original' or 'fixed', see PositionEncoding.
        match_type: 'dual_softmax', with `temperature`, or 'optimal_transport', with `sinkhorn_iterations` and
            `dustbin_prefilter` (see match_optimal_transport).
        window: side of a fine window [cells of the fine map], odd.
    """

    side_multiple = COARSE_STRIDE
    supervision = 'window'

    def __init__(
        self,
        initial_dim: int = 128,
        block_dims: Sequence[int] = (128, 196, 256),
        coarse_layers: Sequence[str] = ('self', 'cross') * 4,
        fine_layers: Sequence[str] = ('self', 'cross'),
        heads: int = 8,
        attention: str = 'linear',
        positional_encoding: str = 'original',
        match_type: str = 'dual_softmax',
        temperature: float = 0.1,
        sinkhorn_iterations: int = 3,
        dustbin_prefilter: bool = False,
        window: int = 5,
    ):
        super().__init__()
        _check('attention', attention, ('linear', 'full'))
        _check('positional_encoding', positional_encoding, ('original', 'fixed'))
        _check('match_type', match_type, ('dual_softmax', 'optimal_transport'))
        for name in (*coarse_layers, *fine_layers):
            _check('layer', name, ('self', 'cross'))
        coarse, fine = block_dims[-1], block_dims[0]
        self.backbone = ResNetFpn(initial_dim, block_dims)
        self.position = PositionEncoding(coarse, positional_encoding)
        self.loftr_coarse = Transformer(coarse, heads, coarse_layers, attention)
        self.coarse_matching = CoarseMatching(match_type, temperature, sinkhorn_iterations, dustbin_prefilter)
        self.fine_preprocess = FineWindows(coarse, fine, window)
        self.loftr_fine = Transformer(fine, heads, fine_layers, attention)

    def extract(self, image: Tensor, mask: Tensor | None = None) -> LoftrFeatures:
        """Return the features that depend on this image only.

        Args:
            image: (B, 1, H, W) grey in [0, 1]; H and W multiples of 8.
            mask: (B, H, W) bool, False for padding below and right of the image; None without padding.
        """
        if image.dim() != 4 or image.shape[1] != 1 or image.shape[2] % COARSE_STRIDE or image.shape[3] % COARSE_STRIDE:
            raise InputError(f'image must be (B, 1, H, W) with sides that are multiples of 8, got {tuple(image.shape)}')
        coarse, fine = (m.permute(0, 2, 3, 1) for m in self.backbone(image))  # channels last
        coarse = coarse + self.position(coarse)
        if mask is not None:
            mask = mask[:, ::COARSE_STRIDE, ::COARSE_STRIDE].bool()
        tokens = self.loftr_coarse.self_layers(coarse.flatten(1, 2), _flat(mask))
        return LoftrFeatures(tokens.unflatten(1, coarse.shape[1:3]), fine.contiguous(), mask)

    def match(
        self,
        features0: LoftrFeatures,
        features1: LoftrFeatures,
        threshold: float = 0.2,
        border: int = 2,
        max_matches: int = 0,
    ) -> NetworkMatches:
        """Return the matches of image pairs; see MatchingNetwork. keypoints0 are the places of coarse cells."""
        batch, height0, width0 = features0.coarse.shape[:3]
        height1, width1 = features1.coarse.shape[1:3]
        tokens0, tokens1 = self.transform(features0, features1)
        device = tokens0.device
        eligible0 = away_from_border(batch, height0, width0, border, features0.mask, device)
        eligible1 = away_from_border(batch, height1, width1, border, features1.mask, device)
        coarse = self.coarse_matching(
            tokens0, tokens1, _flat(features0.mask), _flat(features1.mask), threshold, eligible0, eligible1,
            parts_of_rows(height0, width0, max_matches, device), max_matches,
        )  # fmt: skip
        batch_index, cell0, cell1, confidence = choose_evenly(coarse, max_matches, width0, batch)
        at_once = MATCHES_AT_ONCE.get(device.type, MATCHES_AT_ONCE['cpu'])
        chunks = zip(batch_index.split(at_once), cell0.split(at_once), cell1.split(at_once), strict=True)
        parts = [self.refine(features0, features1, tokens0, tokens1, *chunk) for chunk in chunks]
        expectation, deviation = (torch.cat(part) for part in zip(*parts, strict=True))
        # An offset of 1 is half a window. `deviation` is a sum over two axes: half of it is the standard deviation
        # along one axis.
        half_window = self.fine_preprocess.window // 2 * FINE_STRIDE  # [px]
        keypoints0, keypoints1 = _cell_centre(cell0, width0), _cell_centre(cell1, width1)
        return NetworkMatches(
            batch_index, cell0, cell1, keypoints0, keypoints1 + expectation * half_window, confidence,
            deviation / 2 * half_window,
        )  # fmt: skip

    def transform(self, features0: LoftrFeatures, features1: LoftrFeatures) -> tuple[Tensor, Tensor]:
        """Return the coarse features (B, L, C) and (B, S, C) after the coarse transformer."""
        return self.loftr_coarse.cross_layers(
            features0.coarse.flatten(1, 2), features1.coarse.flatten(1, 2), _flat(features0.mask), _flat(features1.mask)
        )

    def refine(self, features0, features1, tokens0, tokens1, batch_index, cell0, cell1) -> LoftrRefinement:
        """Refine coarse matches (M,) within their windows; `tokens0`, `tokens1` come from `transform`."""
        windows0 = self.fine_preprocess(features0.fine, tokens0, batch_index, cell0, features0.coarse.shape[2])
        windows1 = self.fine_preprocess(features1.fine, tokens1, batch_index, cell1, features1.coarse.shape[2])
        windows0, windows1 = (self.loftr_fine.self_layers(windows, None) for windows in (windows0, windows1))
        windows0, windows1 = self.loftr_fine.cross_layers(windows0, windows1)
        count, cells, channels = windows0.shape
        centre = windows0[:, cells // 2].float()  # (M, C)
        correlation = (windows1.float() @ centre[..., None])[..., 0] / math.sqrt(channels)  # (M, window^2)
        side = self.fine_preprocess.window
        return spatial_expectation(correlation.softmax(1).reshape(count, side, side))

    def training_output(
        self, image0: Tensor, image1: Tensor, batch_index: Tensor, index0: Tensor, index1: Tensor
    ) -> LoftrTraining:
        """Return what the losses compare with the ground truth, the fine level at the given coarse cells."""
        features0, features1 = self.extract(image0), self.extract(image1)
        tokens0, tokens1 = self.transform(features0, features1)
        log_confidence = self.coarse_matching.log_confidence(tokens0, tokens1)
        refinement = self.refine(features0, features1, tokens0, tokens1, batch_index, index0, index1)
        return LoftrTraining(log_confidence, refinement)

    def prepare_for_inference(
        self, device: torch.device | str = 'cpu', dtype: torch.dtype = torch.float32, plain: bool = False
    ) -> LoFTR:
        """Fold batch norms; see MatchingNetwork. On a CPU in float32 use Winograd convolutions, unless `plain`."""
        self.eval().requires_grad_(False)
        self.backbone.fuse(winograd=not plain and torch.device(device).type == 'cpu' and dtype is torch.float32)
        return self.to(device, dtype)


def _flat(mask: Tensor | None) -> Tensor | None:
    return None if mask is None else mask.flatten(1)


def _cell_centre(cell: Tensor, columns: int) -> Tensor:
    """Return the position (M, 2) float32 of coarse cells [px]."""
    return COARSE_STRIDE * torch.stack([cell % columns, cell // columns], dim=1).float()


def _check(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise InputError(f'{name} must be one of {", ".join(choices)}, got {value!r}')
