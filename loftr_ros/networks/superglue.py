"""SuperGlue (arXiv 1911.11763): a graph network and optimal transport match the keypoints of two images."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from loftr_ros.networks.keypoints import Keypoints
from loftr_ros.networks.repvgg import fold_batch_norm
from loftr_ros.networks.sinkhorn import masked_log_optimal_transport

POSITION_SCALE = 0.7
"""The keypoint encoder gets positions in units of this share of the longer side."""


Validity = tuple[Tensor | None, Tensor | None]
"""For each image (B, N) bool, False for padding; None without padding."""


class KeypointMatches(NamedTuple):
    """The partner of every keypoint; -1 and confidence 0 where it has none."""

    partner0: Tensor  # (B, N0) int64, number of a keypoint of image 1
    confidence0: Tensor  # (B, N0)
    partner1: Tensor  # (B, N1) int64, number of a keypoint of image 0
    confidence1: Tensor  # (B, N1)


class SuperGlue(nn.Module):
    """Keypoint encoder, layers of attention, assignment by Sinkhorn's algorithm (section 3).

    Args:
        descriptor: length D of the descriptors and of the state of every keypoint.
        encoder: hidden widths of the keypoint encoder.
        layers: 'self' or 'cross' for each layer.
        heads: of the attention.
        sinkhorn_iterations: of the optimal transport.
    """

    supervision = 'superglue'

    def __init__(
        self,
        descriptor: int = 256,
        encoder: tuple[int, ...] = (32, 64, 128, 256),
        layers: tuple[str, ...] = ('self', 'cross') * 9,
        heads: int = 4,
        sinkhorn_iterations: int = 100,
    ):
        super().__init__()
        self.descriptor_channels = descriptor
        self.layers, self.sinkhorn_iterations = tuple(layers), sinkhorn_iterations
        self.kenc = KeypointEncoder((3, *encoder, descriptor))
        self.gnn = nn.Module()
        self.gnn.layers = nn.ModuleList(AttentionalPropagation(descriptor, heads) for _ in layers)
        self.final_proj = PointLinear(descriptor, descriptor)
        self.bin_score = nn.Parameter(torch.tensor(1.0))

    def log_assignment(
        self, keypoints0: Keypoints, keypoints1: Keypoints, size0: tuple[int, int], size1: tuple[int, int]
    ) -> Tensor:
        """Return the log of the soft assignment (B, N0 + 1, N1 + 1), the dustbins last. Both images have keypoints.

        Args:
            size0, size1: (height, width) of the images [px].
        """
        valid0, valid1 = keypoints0.valid, keypoints1.valid
        pair = ((keypoints0, size0), (keypoints1, size1))
        # The points of both images side by side (B, N0 + N1, D): every linear map runs once for both.
        x = torch.cat([self.kenc(k, size) + k.descriptors.to(self.final_proj.weight) for k, size in pair], dim=1)
        counts = [k.points.shape[1] for k, _ in pair]
        for kind, layer in zip(self.layers, self.gnn.layers, strict=True):
            x = x + layer(x, counts, (valid0, valid1), kind == 'cross')
        x0, x1 = self.final_proj(x).split(counts, dim=1)
        # float32 from here on, because hundreds of sums over all keypoints follow.
        scores = x0.float() @ x1.float().transpose(1, 2) / x0.shape[2] ** 0.5
        return masked_log_optimal_transport(scores, self.bin_score, self.sinkhorn_iterations, valid0, valid1)

    def match(
        self,
        keypoints0: Keypoints,
        keypoints1: Keypoints,
        size0: tuple[int, int],
        size1: tuple[int, int],
        threshold: float = 0.2,
    ) -> KeypointMatches:
        """Return the mutually best pairs (without the dustbins) with a confidence above `threshold`."""
        count0, count1 = keypoints0.points.shape[1], keypoints1.points.shape[1]
        if not count0 or not count1:
            return _no_matches(keypoints0.scores, keypoints1.scores)
        assignment = self.log_assignment(keypoints0, keypoints1, size0, size1)[:, :-1, :-1]
        best0, partner0 = assignment.max(2)
        partner1 = assignment.argmax(1)
        number0 = torch.arange(count0, device=partner0.device)
        found = (partner1.gather(1, partner0) == number0) & (best0.exp() > threshold)
        if keypoints0.valid is not None:
            found &= keypoints0.valid
        if keypoints1.valid is not None:
            found &= keypoints1.valid.gather(1, partner0)
        matches = _no_matches(keypoints0.scores, keypoints1.scores)
        batch, index0 = found.nonzero(as_tuple=True)
        index1, confidence = partner0[batch, index0], best0[batch, index0].exp()
        matches.partner0[batch, index0], matches.partner1[batch, index1] = index1, index0
        matches.confidence0[batch, index0] = confidence
        matches.confidence1[batch, index1] = confidence
        return matches

    @torch.no_grad()
    def prepare_for_inference(
        self, device: torch.device | str = 'cpu', dtype: torch.dtype = torch.float32, plain: bool = False
    ) -> SuperGlue:
        """Fold batch norms and the last map of each attention, convert to a device and a number format, in place."""
        for mlp in [self.kenc.encoder, *(layer.mlp for layer in self.gnn.layers)]:
            for place, norm in enumerate(mlp):
                if isinstance(norm, PointNorm):
                    linear = mlp[place - 1]
                    weight, bias = fold_batch_norm(linear.weight[..., None], norm)
                    gain = norm.weight / (norm.running_var + norm.eps).sqrt()
                    linear.weight.copy_(weight[..., 0])
                    linear.bias.copy_(bias + gain * linear.bias)
                    mlp[place] = nn.Identity()
        for layer in self.gnn.layers:
            layer.fold_merge()
        return self.to(device, dtype)


class PointLinear(nn.Conv1d):
    """A linear map of every point (..., I) -> (..., O), with the weight (O, I, 1) of the published files."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight[..., 0], self.bias)


class PointNorm(nn.BatchNorm1d):
    """Batch normalisation over the points (B, N, C) of all images."""

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        if not self.training or valid is None:
            return super().forward(x.flatten(0, 1)).view_as(x)
        # Padding does not contribute to the statistics.
        result = torch.zeros_like(x)
        result[valid] = super().forward(x[valid]).to(x)
        return result


class PointMlp(nn.Sequential):
    """Linear maps with batch norm and ReLU between them."""

    def __init__(self, widths: tuple[int, ...]):
        layers = []
        for inputs, outputs in itertools.pairwise(widths[:-1]):
            layers += [PointLinear(inputs, outputs), PointNorm(outputs), nn.ReLU()]
        super().__init__(*layers, PointLinear(*widths[-2:]))
        nn.init.zeros_(self[-1].bias)

    def forward(self, x: Tensor, valid: Tensor | None) -> Tensor:
        for layer in self:
            x = layer(x, valid) if isinstance(layer, PointNorm) else layer(x)
        return x


class KeypointEncoder(nn.Module):
    """Position and score of a keypoint as a vector that is added to its descriptor (eq. 2)."""

    def __init__(self, widths: tuple[int, ...]):
        super().__init__()
        self.encoder = PointMlp(widths)

    def forward(self, keypoints: Keypoints, size: tuple[int, int]) -> Tensor:
        """Return (B, N, D)."""
        height, width = size
        centre = keypoints.points.new_tensor([width / 2, height / 2])
        places = (keypoints.points - centre) / (POSITION_SCALE * max(size))
        values = torch.cat([places, keypoints.scores[..., None]], dim=2)
        return self.encoder(values.to(self.encoder[0].weight), keypoints.valid)


class AttentionalPropagation(nn.Module):
    """Update of every point of both images by its message from the points of a source (eq. 3)."""

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.attn = MultiHeadedAttention(channels, heads)
        self.mlp = PointMlp((2 * channels, 2 * channels, channels))

    def forward(self, x: Tensor, counts: list[int], valid: Validity, cross: bool) -> Tensor:
        """Return the update (B, N0 + N1, C) of `x` (B, N0 + N1, C); arguments as those of the attention."""
        message = self.attn(x, counts, valid, cross)
        return self.mlp(torch.cat([x, message], dim=2), _joined(valid, counts))

    def fold_merge(self) -> None:
        """Multiply the last map of the attention into the first one of the MLP, which follows directly."""
        if isinstance(self.attn.merge, nn.Identity):
            return
        first, merge = self.mlp[0], self.attn.merge
        of_message = first.weight[:, len(merge.bias) :, 0]  # (2 C, C)
        first.bias += of_message @ merge.bias
        of_message.copy_(of_message @ self.attn.merge_by_head())
        self.attn.merge = nn.Identity()


class MultiHeadedAttention(nn.Module):
    """Soft-max attention (eq. 4 and 5) within each image or from each image to the other.

    In the published files channel d * heads + h belongs to head h. Here the channels of a head follow each other, so
    that torch's attention reads them in place: the rows of the weights are put into that order.
    """

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.heads = heads
        self.merge = PointLinear(channels, channels)
        self.proj = nn.ModuleList(PointLinear(channels, channels) for _ in range(3))

    def forward(self, x: Tensor, counts: list[int], valid: Validity, cross: bool) -> Tensor:
        """Return the message to every point (B, N0 + N1, C); padding does not contribute.

        Args:
            x: (B, N0 + N1, C) points of image 0, then of image 1.
            counts: N0 and N1.
            cross: messages come from the other image.
        """
        weight = torch.cat([self._by_head(proj.weight[..., 0]) for proj in self.proj])
        bias = torch.cat([self._by_head(proj.bias) for proj in self.proj])
        # (B, heads, N, C / heads) for each image
        query, key, value = (
            part.transpose(1, 2).split(counts, dim=2)
            for part in F.linear(x, weight, bias).unflatten(2, (3, self.heads, -1)).unbind(2)
        )
        messages = []
        for image in range(2):
            source = 1 - image if cross else image
            mask = None
            if valid[source] is not None:
                # An image without keypoints would give NaN. Its padding is attended to instead, which affects no valid
                # pair.
                mask = (valid[source] | ~valid[source].any(1, keepdim=True))[:, None, None]
            messages.append(F.scaled_dot_product_attention(query[image], key[source], value[source], attn_mask=mask))
        message = torch.cat(messages, dim=2).transpose(1, 2).flatten(2)
        if isinstance(self.merge, nn.Identity):
            return message
        return F.linear(message, self.merge_by_head(), self.merge.bias)

    def merge_by_head(self) -> Tensor:
        """Return the (C, C) weight of the last map for messages whose channels are in order of the heads."""
        return self._by_head(self.merge.weight[..., 0].T).T

    def _by_head(self, rows: Tensor) -> Tensor:
        """Return the rows (C, ...) of a published weight with those of each head together."""
        return rows.unflatten(0, (-1, self.heads)).transpose(0, 1).flatten(0, 1)


def _joined(valid: Validity, counts: list[int]) -> Tensor | None:
    """Return which points of both images (B, N0 + N1) are no padding; None if all are."""
    if valid[0] is None and valid[1] is None:
        return None
    known = next(mask for mask in valid if mask is not None)
    full = (known.new_ones(len(known), count) for count in counts)
    return torch.cat([other if mask is None else mask for mask, other in zip(valid, full, strict=True)], dim=1)


def _no_matches(scores0: Tensor, scores1: Tensor) -> KeypointMatches:
    partner0, partner1 = (torch.full_like(scores, -1, dtype=torch.int64) for scores in (scores0, scores1))
    confidence0, confidence1 = (torch.zeros_like(scores, dtype=torch.float32) for scores in (scores0, scores1))
    return KeypointMatches(partner0, confidence0, partner1, confidence1)
