"""The types `View` and `PosedSet`: images with depth and pose, each with a camera of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from loftr_ros.datasets.sequence import Sequence
from loftr_ros.errors import InputError
from loftr_ros.image import to_grey


@dataclasses.dataclass(frozen=True, eq=False)
class View:
    """An image with depth and pose.

    Args:
        image: uint8 (H, W) grey.
        matrix: (3, 3) camera matrix of the image [px].
        depth: float32 (h, w) z [m, or the unit of the pose], 0 where unknown.
        depth_matrix: (3, 3) camera matrix of the depth [px]; its camera has the same pose.
        world_from_cam: (4, 4).
    """

    image: np.ndarray
    matrix: np.ndarray
    depth: np.ndarray
    depth_matrix: np.ndarray
    world_from_cam: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class PosedSet:
    """Views of one scene; they are loaded when they are asked for.

    Args:
        view: function from an index to the view.
        pairs: (P, 2) indices of views that overlap; None where only neighbours are likely to.
    """

    name: str
    count: int
    view: Callable[[int], View]
    pairs: np.ndarray | None = None

    def part(self, held_back: bool, share: int) -> PosedSet | None:
        """Return the last of `share` parts of the views, or the others; pairs of one view of each are dropped."""
        border = self.count - self.count // share
        first, last = (border, self.count) if held_back else (0, border)
        if self.pairs is not None:
            pairs = self.pairs[((self.pairs >= first) & (self.pairs < last)).all(axis=1)]
            return dataclasses.replace(self, pairs=pairs) if len(pairs) else None
        if last - first < 2:
            return None
        return dataclasses.replace(self, count=last - first, view=lambda index: self.view(first + index))


def posed_set(sequence: Sequence) -> PosedSet:
    """Return the views of a sequence with depth, poses and an undistorted camera; InputError where one is missing."""
    camera, poses = sequence.camera0, sequence.world_from_cam0
    known = {'depth': sequence.has_depth, 'poses': poses is not None, 'camera': camera is not None}
    missing = [name for name, is_known in known.items() if not is_known]
    if missing:
        raise InputError(f'{sequence.name} has no {" and no ".join(missing)}; needs all of depth, poses and camera')
    if camera.is_distorted:
        raise InputError(f'{sequence.name} has a distorted camera; undistort images and depth before')
    depth_matrix = camera.matrix if sequence.depth_matrix0 is None else sequence.depth_matrix0

    def view(index: int) -> View:
        image = to_grey(sequence.load[0](index))
        return View(image, camera.matrix, sequence.depth0(index), depth_matrix, poses[index])

    return PosedSet(sequence.name, len(sequence), view)
