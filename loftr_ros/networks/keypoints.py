"""Keypoints of a batch of images as tensors: the output of detectors and the input of matching networks."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Keypoints(NamedTuple):
    """N keypoints of each of B images. Where an image has fewer, the last rows are padding."""

    points: Tensor  # (B, N, 2) float32 x, y [px]
    scores: Tensor  # (B, N) float32, higher is better
    descriptors: Tensor  # (B, N, D)
    valid: Tensor | None = None  # (B, N) bool, False for padding; None: no padding
