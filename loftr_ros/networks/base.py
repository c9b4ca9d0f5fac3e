"""The interface of all networks that match images, and the matches that they return."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn


class NetworkMatches(NamedTuple):
    """M matches of a batch of image pairs; sorted by pair, then by index0.

    A place is a coarse cell (number row * columns + column) or a keypoint: what the network matches first.
    """

    batch_index: Tensor  # (M,) int64, which pair of the batch
    index0: Tensor  # (M,) int64, number of the place in image 0
    index1: Tensor  # (M,) int64, number of the place in image 1
    keypoints0: Tensor  # (M, 2) float32 x, y [px of the network's image]
    keypoints1: Tensor  # (M, 2) float32 x, y [px of the network's image], sub-pixel
    confidence: Tensor  # (M,) float32 in [0, 1]
    sigma: Tensor  # (M,) float32 standard deviation of keypoints1 along each axis [px], NaN where unknown


class MatchingNetwork(nn.Module):
    """A network in two steps: `extract` once for each image, `match` once for each pair.

    Images are (B, 1, H, W), grey in [0, 1], the centre of the top-left pixel at (0, 0). Each network defines its
    features as a named tuple, for a batch of images of one size.
    """

    side_multiple: int
    """Both sides of an image must be multiples of this [px]."""

    supervision: ClassVar[str]
    """Kind of ground truth and loss for training, a key of `training.steps.STEPS`."""

    def extract(self, image: Tensor, mask: Tensor | None = None) -> Any:
        """Return the features that depend on this image only.

        Args:
            image: (B, 1, H, W).
            mask: (B, H, W) bool, False for padding below and right of the image; None without padding.
        """
        raise NotImplementedError

    def match(
        self, features0: Any, features1: Any, threshold: float = 0.2, border: int = 2, max_matches: int = 0
    ) -> NetworkMatches:
        """Return the matches of image pairs; row b of features0 belongs to row b of features1.

        Args:
            threshold: only matches with a larger confidence are returned.
            border: number of coarse cells along each side of both images that are not matched.
            max_matches: largest number of matches of a pair, spread over image 0; only they are refined and returned.
                Where image 0 has many more cells, on a CPU not all of them are compared. 0 = all.
        """
        raise NotImplementedError

    def transform(self, features0: Any, features1: Any) -> tuple[Tensor, Tensor]:
        """Return the features of both images that `match` compares, after attention between the images."""
        raise NotImplementedError

    def training_output(
        self, image0: Tensor, image1: Tensor, batch_index: Tensor, index0: Tensor, index1: Tensor
    ) -> Any:
        """Return the differentiable input of the losses, refined at true matches.

        Args:
            image0, image1: (B, 1, H, W) of one size each.
            batch_index, index0, index1: (M,) int64 places that truly correspond.
        """
        raise NotImplementedError

    def prepare_for_inference(
        self, device: torch.device | str = 'cpu', dtype: torch.dtype = torch.float32, plain: bool = False
    ) -> MatchingNetwork:
        """Fuse layers permanently, convert to a device and a number format, all in place; return self.

        This changes the names in the state dict: load weights before.

        Args:
            plain: use only layers that engines other than torch support and run fast.
        """
        raise NotImplementedError

    def forward(self, image0: Tensor, image1: Tensor, threshold=0.2, border=2, mask0=None, mask1=None):
        """Extract both images and match them; see `match`."""
        return self.match(self.extract(image0, mask0), self.extract(image1, mask1), threshold, border)

    def point_ids(self, features0: Any, matches: NetworkMatches) -> Tensor:
        """Return (M,) int64 numbers that identify the points in image 0 across matches with several images 1."""
        return matches.index0

    def keep_points(self, features0: Any, point_ids: Tensor) -> Any:
        """Return features of image 0 with which these points (N,) keep their position in every later match."""
        return features0

    def point_ids_at(self, features: Any, points: Tensor) -> Tensor:
        """Return (N,) int64, the `point_ids` of points (N, 2) [px] of image 0; -1 where the network has no point."""
        return torch.full((len(points),), -1, dtype=torch.int64)


def dtype_of(network: nn.Module) -> torch.dtype:
    """Return the number format of the weights."""
    return next(network.parameters()).dtype
