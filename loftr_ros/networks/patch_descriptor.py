"""Learned patch descriptors of GCM (arXiv 2403.05388, section III-C): the network of R2D2, and its smaller student."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from loftr_ros.networks.base import dtype_of

_MEAN = {1: (0.449,), 3: (0.485, 0.456, 0.406)}
_DEVIATION = {1: (0.226,), 3: (0.229, 0.224, 0.225)}
"""Mean and deviation of the images of ImageNet by number of channels; for one channel (grey), the mean over colours."""

FLAT = 2.5 / 255
"""Difference of grey values, of rounding and compression, that is not texture."""

TEXTURE_RADIUS = 8
"""Of the square in which a place needs texture [px]."""

_STRIP_PIXELS = 1 << 15
"""Number of pixels that are described at once; more need more memory and save no time on a CPU."""


class PatchDescriptor(nn.Module):
    """A descriptor for every pixel: L2-Net with dilations in place of strides (R2D2, arXiv 1906.06195, section 3.1).

    Three stages of 3x3 convolutions, then three 2x2 convolutions. A convolution with stride 2 in L2-Net here doubles
    the dilation of all later ones, so the output has the size of the image. The defaults are R2D2's network, the
    teacher; with one convolution in each stage it is the student, as in its published weights.

    Args:
        widths: channels of the three stages.
        convolutions: 3x3 convolutions in a stage, 2 for the teacher, 1 for the student.
        descriptor: length C of a descriptor.
        colours: channels of the input, 3 as R2D2 or 1. Images are grey: for 3 they are repeated.
        length: of the rows of F_0, at most 1. Learned descriptors of different places are at right angles, those of
            histograms are not. With rows of length 0.7 the ratio test is as strict as with the descriptor by rules.
    """

    supervision = 'patch_descriptor'

    def __init__(
        self,
        widths: tuple[int, int, int] = (32, 64, 128),
        convolutions: int = 2,
        descriptor: int = 128,
        colours: int = 3,
        length: float = 1.0,
    ):
        super().__init__()
        self.size, self.colours, self.length = descriptor, colours, length
        self.ops = nn.ModuleList()
        channels, dilation = colours, 1
        for stage, width in enumerate(widths):
            for number in range(convolutions):
                self._add(channels, width, 3, dilation, relu=True)
                # The first convolution of the stages 2 and 3 has the stride of L2-Net.
                dilation *= 2 if stage and not number else 1
                channels = width
        for _ in range(2):
            self._add(channels, channels, 2, dilation, relu=False)
            dilation *= 2
        self.ops.append(_Conv(channels, descriptor, 2, dilation))

    def _add(self, inputs: int, outputs: int, kernel: int, dilation: int, relu: bool) -> None:
        self.ops.extend([_Conv(inputs, outputs, kernel, dilation), nn.BatchNorm2d(outputs, affine=False)])
        if relu:
            self.ops.append(nn.ReLU(inplace=True))

    @property
    def radius(self) -> int:
        """Radius of the receptive field of a descriptor [px]."""
        convs = [op for op in self.ops if isinstance(op, nn.Conv2d)]
        return sum(conv.dilation[0] * (conv.kernel_size[0] - 1) // 2 for conv in convs)

    def dense(self, image: Tensor) -> Tensor:
        """Return the descriptors (B, C, H, W) of length 1 of `image` (B, 1, H, W), grey in [0, 1]."""
        mean, deviation = (
            torch.tensor(values[self.colours], dtype=image.dtype, device=image.device).view(1, -1, 1, 1)
            for values in (_MEAN, _DEVIATION)
        )
        x = ((image - mean) / deviation).to(dtype_of(self))
        for op in self.ops:
            x = op(x)
        return F.normalize(x.float(), dim=1)

    def forward(self, image: Tensor) -> Tensor:
        """Return F_0 (H, W, C) float16 with rows of length `length` of `image` (1, 1, H, W), grey in [0, 1].

        Computed in strips that overlap by the receptive field, so that the result does not depend on them. Rows of
        places without texture are 0: they would only describe the padding around the image.
        """
        height, width = image.shape[-2:]
        features = torch.empty(height, width, self.size, dtype=torch.float16, device=image.device)
        rows = max(1, _STRIP_PIXELS // width)
        for top in range(0, height, rows):
            bottom = min(top + rows, height)
            first, last = max(top - self.radius, 0), min(bottom + self.radius, height)
            strip = self.dense(image[:, :, first:last])[0, :, top - first : bottom - first]
            features[top:bottom] = self.length * strip.permute(1, 2, 0)
        return features.mul_(_has_texture(image)[..., None])

    @torch.no_grad()
    def prepare_for_inference(
        self, device: torch.device | str = 'cpu', dtype: torch.dtype = torch.float32, plain: bool = False
    ) -> PatchDescriptor:
        """Fold the batch norms into the convolutions, move to a device and a number format, in place; return self.

        The state dict has other names afterwards: load weights before. `plain` has no effect: all layers are plain.
        """
        kept = []
        for op in self.ops:
            if isinstance(op, nn.BatchNorm2d):
                gain = (op.running_var + op.eps).rsqrt()
                kept[-1].weight.mul_(gain.view(-1, 1, 1, 1))
                kept[-1].bias.sub_(op.running_mean).mul_(gain)
            else:
                kept.append(op)
        self.ops = nn.ModuleList(kept)
        return self.to(device, dtype, memory_format=torch.channels_last)


def _has_texture(image: Tensor) -> Tensor:
    """Return (H, W) bool, whether grey values around each pixel of (1, 1, H, W) differ by more than FLAT."""
    side = 2 * TEXTURE_RADIUS + 1
    most, least = (sign * F.max_pool2d(sign * image, side, 1, TEXTURE_RADIUS) for sign in (1, -1))
    return (most - least)[0, 0] > FLAT


class _Conv(nn.Conv2d):
    """A convolution that keeps the size of the image, also of one that is lower than its padding."""

    def __init__(self, inputs: int, outputs: int, kernel: int, dilation: int):
        super().__init__(inputs, outputs, kernel, padding=(kernel - 1) * dilation // 2, dilation=dilation)

    def forward(self, x: Tensor) -> Tensor:
        height = x.shape[2]
        # In bfloat16 on a CPU, torch 2.13 crashes if all taps of a row are in the padding.
        missing = max(0, self.padding[0] + 1 - height)
        return super().forward(F.pad(x, (0, 0, 0, missing)))[:, :, :height]
