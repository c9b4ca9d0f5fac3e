"""The form of all training data: two images, and for every pixel of one its position in the other.

It represents homographies, panoramas and scenes with depth. Coordinates are (x, y) [px], the centre of the top-left
pixel at (0, 0).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from loftr_ros.errors import InputError

UNKNOWN = -1
"""Keypoint label of a pixel of which it is not known whether it is a keypoint."""


@dataclasses.dataclass(frozen=True, eq=False)
class Pair:
    """One sample.

    Args:
        image0: uint8 (H0, W0) grey.
        image1: uint8 (H1, W1) grey.
        points01: float32 (H0, W0, 2), the place (x, y) [px] in image 1 of the centre of every pixel of image 0. NaN
            where it is not visible there: outside, occluded, in padding, under a pasted occluder, in a warped border.
        points10: float32 (H1, W1, 2), the same from image 1 to image 0.
        keypoints0, keypoints1: int8 (H, W), 1 for a keypoint, 0 for none, UNKNOWN; None for a pair without labels.
    """

    image0: np.ndarray
    image1: np.ndarray
    points01: np.ndarray
    points10: np.ndarray
    keypoints0: np.ndarray | None = None
    keypoints1: np.ndarray | None = None

    def __post_init__(self):
        for number, points_name in ((0, 'points01'), (1, 'points10')):
            image_name, keypoints_name = f'image{number}', f'keypoints{number}'
            image, points, keypoints = (getattr(self, name) for name in (image_name, points_name, keypoints_name))
            if image.dtype != np.uint8 or image.ndim != 2:
                raise InputError(f'{image_name} must be uint8 (H, W), got {image.dtype} {image.shape}; make it grey')
            if points.dtype != np.float32 or points.shape != (*image.shape, 2):
                raise InputError(
                    f'{points_name} must be float32 {(*image.shape, 2)}, one place for every pixel of {image_name}, '
                    f'got {points.dtype} {points.shape}'
                )
            if keypoints is not None and (keypoints.dtype != np.int8 or keypoints.shape != image.shape):
                raise InputError(
                    f'{keypoints_name} must be int8 {image.shape}, one label for every pixel of {image_name}, '
                    f'got {keypoints.dtype} {keypoints.shape}'
                )


@dataclasses.dataclass(frozen=True, eq=False)
class PairBatch:
    """Samples of one size, stacked.

    Args:
        image0, image1: (B, 1, H, W) float32 in [0, 1].
        points01, points10: (B, H, W, 2) float32 [px], NaN where not visible, as in Pair.
        keypoints0, keypoints1: (B, H, W) int8 as in Pair; None if no pair has labels.
    """

    image0: Tensor
    image1: Tensor
    points01: Tensor
    points10: Tensor
    keypoints0: Tensor | None = None
    keypoints1: Tensor | None = None

    def __len__(self) -> int:
        return len(self.image0)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> PairBatch:
        """Return the batch on `device`."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> PairBatch:
        """Return the batch in page-locked memory; the hook that DataLoader(pin_memory=True) calls."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> PairBatch:
        tensors = (getattr(self, field.name) for field in dataclasses.fields(self))
        return PairBatch(*(None if tensor is None else change(tensor) for tensor in tensors))


def collate(pairs: Sequence[Pair]) -> PairBatch:
    """Return the batch of `pairs`, for DataLoader(collate_fn=...). All images 0 have one size, all images 1 another.

    Raises:
        InputError: no pair, or sizes that differ.
    """
    sizes = {(pair.image0.shape, pair.image1.shape) for pair in pairs}
    if len(sizes) != 1:
        raise InputError(f'a batch needs pairs of one size, got {sorted(sizes)}; crop or pad the images to one size')
    image0, image1 = (
        torch.from_numpy(np.stack([getattr(pair, name) for pair in pairs])[:, None]).float().div_(255)
        for name in ('image0', 'image1')
    )
    points01, points10 = (
        torch.from_numpy(np.stack([getattr(pair, name) for pair in pairs])) for name in ('points01', 'points10')
    )
    labelled = any(pair.keypoints0 is not None for pair in pairs)
    keypoints = (_stack_labels(pairs, number) for number in (0, 1)) if labelled else (None, None)
    return PairBatch(image0, image1, points01, points10, *keypoints)


def _stack_labels(pairs: Sequence[Pair], number: int) -> Tensor:
    images = (getattr(pair, f'image{number}') for pair in pairs)
    labels = (getattr(pair, f'keypoints{number}') for pair in pairs)
    stacked = [
        np.full(image.shape, UNKNOWN, np.int8) if label is None else label
        for image, label in zip(images, labels, strict=True)
    ]
    return torch.from_numpy(np.stack(stacked))
