"""SuperPoint (arXiv 1712.07629): keypoints and their descriptors from one pass of a convolutional network."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from loftr_ros.networks.keypoints import Keypoints
from loftr_ros.networks.repvgg import conv_with, fold_batch_norm

CELL = 8
"""Side of the cell of pixels that one position of the feature maps describes [px]; its centre is at 3.5 px."""

DUSTBIN = CELL * CELL
"""Channel of the detector for "no keypoint in this cell" (section 3.2)."""


class DenseOutput(NamedTuple):
    """Output of both heads for a batch of images of H x W, for training."""

    logits: Tensor  # (B, 65, H / 8, W / 8): the 64 pixels of a cell row by row, then the dustbin
    descriptors: Tensor  # (B, D, H / 8, W / 8), of length 1 over D


class SuperPointFeatures(NamedTuple):
    """Features of a batch of images for every pixel."""

    heatmap: Tensor  # (B, H, W) float32 probability of a keypoint, 0 in padding
    descriptors: Tensor  # (B, D, H / 8, W / 8), of length 1 over D


class SuperPoint(nn.Module):
    """The network of the paper (section 3), or a small one of the same shape.

    Args:
        widths: channels of the convolutions conv1 to conv4, two each.
        head: channels of the first convolution of both heads.
        descriptor: length D of a descriptor.
        downsample: 'pool' halves the size by max-pooling after conv1, conv2 and conv3, as in the paper; 'stride' by the
            first convolution of conv1, conv2 and conv3: a seventh of the work for the same widths.
        batch_norm: put batch normalisation after each convolution except the last of a head. The published weights have
            none.
        sampling: how positions of pixels are found in the descriptor map. 'official' repeats the formula of the
            published weights, which is wrong by up to 3.5 px at the right and the bottom border; 'exact' is the centre
            of the cell.
    """

    side_multiple = CELL
    supervision = 'superpoint'

    def __init__(
        self,
        widths: tuple[int, int, int, int] = (64, 64, 128, 128),
        head: int = 256,
        descriptor: int = 256,
        downsample: str = 'pool',
        batch_norm: bool = False,
        sampling: str = 'official',
    ):
        super().__init__()
        self.downsample, self.sampling = downsample, sampling
        self.descriptor_channels = descriptor
        channels = 1
        for stage, width in enumerate(widths, start=1):
            stride = 2 if downsample == 'stride' and stage <= 3 else 1
            self._add(f'{stage}a', channels, width, 3, stride, batch_norm)
            self._add(f'{stage}b', width, width, 3, 1, batch_norm)
            channels = width
        for name, outputs in (('P', DUSTBIN + 1), ('D', descriptor)):
            self._add(f'{name}a', channels, head, 3, 1, batch_norm)
            self._add(f'{name}b', head, outputs, 1, 1, False)

    def _add(self, name: str, inputs: int, outputs: int, kernel: int, stride: int, batch_norm: bool) -> None:
        """Add the convolution `conv<name>`, and `bn<name>` after it."""
        conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=not batch_norm)
        nn.init.kaiming_normal_(conv.weight, nonlinearity='relu')
        self.add_module(f'conv{name}', conv)
        self.add_module(f'bn{name}', nn.BatchNorm2d(outputs) if batch_norm else nn.Identity())

    def forward(self, image: Tensor, **detection) -> Keypoints:
        """Return the keypoints of `image`; see `extract` and `detect`."""
        return self.detect(self.extract(image), **detection)

    def extract(self, image: Tensor, mask: Tensor | None = None) -> SuperPointFeatures:
        """Return the heat map and the descriptors of `image`.

        Args:
            image: (B, 1, H, W) grey in [0, 1], sides multiples of 8.
            mask: (B, H, W) bool, False for padding below and right of the image; None without padding.
        """
        output = self.dense(image)
        heatmap = heat_map(output.logits)
        return SuperPointFeatures(heatmap if mask is None else heatmap * mask, output.descriptors)

    def dense(self, image: Tensor) -> DenseOutput:
        """Return the output of both heads for `image` (B, 1, H, W) in [0, 1], sides multiples of 8."""
        x = image
        for stage in range(1, 5):
            x = self._block(f'{stage}b', self._block(f'{stage}a', x))
            if self.downsample == 'pool' and stage < 4:
                x = F.max_pool2d(x, 2)
        # float32 from here on, because sub-pixel positions and lengths need more than eight bits.
        logits, descriptors = (getattr(self, f'conv{head}b')(self._block(f'{head}a', x)).float() for head in 'PD')
        return DenseOutput(logits, F.normalize(descriptors, dim=1))

    def _block(self, name: str, x: Tensor) -> Tensor:
        return F.relu(getattr(self, f'bn{name}')(getattr(self, f'conv{name}')(x)))

    def detect(
        self,
        features: SuperPointFeatures,
        *,
        threshold: float = 0.005,
        budget: int = 1024,
        nms_radius: int = 4,
        border: int = 4,
        subpixel: bool = False,
        size: tuple[int, int] | None = None,
    ) -> Keypoints:
        """Return the keypoints of images from the features of `extract`: `budget` rows each, the highest score first.

        Args:
            threshold: least score.
            budget: most keypoints of an image, those of the highest scores.
            nms_radius: of two keypoints within this distance in x and in y only the better one is kept [px].
            border: width of the margin without keypoints [px].
            subpixel: move each keypoint to the mean of the scores in the 5 x 5 pixels around it.
            size: (height, width) of the part of the images that is no padding; None: all.
        """
        heatmap = features.heatmap
        height, width = size or heatmap.shape[1:]
        maxima = suppress_non_maxima(heatmap, nms_radius)
        inner = maxima[:, border : max(height - border, 0), border : max(width - border, 0)]
        points, scores, valid = strongest(inner, threshold, budget)
        points = torch.where(valid[..., None], points + border, 0)
        if subpixel:
            points = torch.where(valid[..., None], refine(heatmap, points), 0.0)
        descriptors = self.descriptors_at(features.descriptors, points.float())
        return Keypoints(points.float(), scores, descriptors * valid[..., None], valid)

    def descriptors_at(self, descriptors: Tensor, points: Tensor) -> Tensor:
        """Return the descriptors (B, N, D) of length 1 at `points` (B, N, 2) [px], bilinear in the map of `dense`."""
        rows, columns = descriptors.shape[2:]
        sides = points.new_tensor([columns, rows])
        # grid_sample counts from the centre of the first cell, -1, to that of the last, 1.
        length = CELL * sides - CELL / 2 - 0.5 if self.sampling == 'official' else (CELL * (sides - 1)).clamp(min=1)
        grid = (points - (CELL - 1) / 2) / length * 2 - 1
        padding = 'zeros' if self.sampling == 'official' else 'border'
        sampled = F.grid_sample(
            descriptors, grid[:, None].to(descriptors), mode='bilinear', align_corners=True, padding_mode=padding
        )
        return F.normalize(sampled[:, :, 0], dim=1).transpose(1, 2)  # (B, N, D)

    @torch.no_grad()
    def prepare_for_inference(
        self, device: torch.device | str = 'cpu', dtype: torch.dtype = torch.float32, plain: bool = False
    ) -> SuperPoint:
        """Fold the batch norms into the convolutions, convert to a device and number format, in place; return self."""
        for name, norm in list(self.named_children()):
            if isinstance(norm, nn.BatchNorm2d):
                conv = getattr(self, f'conv{name[2:]}')
                setattr(self, f'conv{name[2:]}', conv_with(*fold_batch_norm(conv.weight, norm), conv.stride))
                setattr(self, name, nn.Identity())
        return self.to(device, dtype, memory_format=torch.channels_last)


def heat_map(logits: Tensor) -> Tensor:
    """Return the probability of a keypoint at every pixel (B, H, W): soft-max of each cell without its dustbin."""
    return F.pixel_shuffle(logits.softmax(1)[:, :DUSTBIN], CELL)[:, 0]


def suppress_non_maxima(heatmap: Tensor, radius: int, rounds: int = 2) -> Tensor:
    """Return `heatmap` (B, H, W) with 0 at every pixel that is not the maximum of its (2 radius + 1)^2 neighbours.

    A suppressed pixel does not suppress others: in each of `rounds` rounds the pixels without a maximum near them are
    compared again. Two rounds give almost the result of greedy suppression in order of score.
    """
    if radius < 1:
        return heatmap
    is_maximum = heatmap == window_maximum(heatmap, radius)
    for _ in range(rounds):
        suppressed = window_maximum(is_maximum.to(heatmap.dtype), radius) > 0
        rest = heatmap.masked_fill(suppressed, 0)
        is_maximum = is_maximum | ((rest == window_maximum(rest, radius)) & ~suppressed)
    return heatmap * is_maximum


def window_maximum(x: Tensor, radius: int) -> Tensor:
    """Return the maximum of the (2 radius + 1)^2 values around each value of `x` (B, H, W), all at least 0.

    The same as max_pool2d in a fraction of its time on a CPU: maxima over 1, 2, 4, ... values along rows, then columns.
    """
    x = F.pad(x, (radius, radius, radius, radius))
    for dim in (2, 1):
        covered = 1
        while covered < 2 * radius + 1:
            step = min(covered, 2 * radius + 1 - covered)
            length = x.shape[dim] - step
            x = torch.maximum(x.narrow(dim, 0, length), x.narrow(dim, step, length))
            covered += step
    return x


def strongest(heatmap: Tensor, threshold: float, budget: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return points (B, budget, 2) int64, scores (B, budget) and validity (B, budget) of the pixels above `threshold`.

    The highest score comes first, equal scores are in row-major order.
    """
    batch, _, width = heatmap.shape
    points = torch.zeros(batch, budget, 2, dtype=torch.int64, device=heatmap.device)
    scores = heatmap.new_zeros(batch, budget)
    for number, values in enumerate(heatmap.flatten(1)):
        index = (values > threshold).nonzero()[:, 0]
        best, order = values[index].sort(descending=True, stable=True)
        index = index[order[:budget]]
        points[number, : len(index)] = torch.stack([index % width, index // width], dim=1)
        scores[number, : len(index)] = best[:budget]
    return points, scores, scores > threshold


def refine(heatmap: Tensor, points: Tensor, radius: int = 2) -> Tensor:
    """Return points (B, N, 2) moved to the mean of the scores around them, by less than `radius` + 1 pixels.

    Args:
        heatmap: (B, H, W). points: (B, N, 2) int64, whole pixels.
    """
    offset = torch.arange(-radius, radius + 1, device=points.device)
    padded = F.pad(heatmap, (radius, radius, radius, radius))
    x = points[..., 0, None, None] + radius + offset  # (B, N, 1, side)
    y = points[..., 1, None, None] + radius + offset[:, None]  # (B, N, side, 1)
    batch = torch.arange(len(heatmap), device=points.device)[:, None, None, None]
    weight = padded[batch, y, x]  # (B, N, side, side)
    total = weight.sum((2, 3)).clamp(min=torch.finfo(weight.dtype).tiny)
    along = offset.to(weight)
    shift_x = (weight.sum(2) * along).sum(-1) / total
    shift_y = (weight.sum(3) * along).sum(-1) / total
    return points + torch.stack([shift_x, shift_y], dim=-1)
