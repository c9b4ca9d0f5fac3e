"""The type `Sequence`: images with cameras, stamps and, where known, true poses and depth."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from loftr_ros.camera import Camera
from loftr_ros.datatypes import Frame, FrameSet
from loftr_ros.errors import InputError

FIRST_STAMP_NS = 1_000_000_000
"""The first stamp of sequences without stamps; in ROS a stamp of 0 means that there is none."""

DEFAULT_RATE_HZ = 10.0


@dataclasses.dataclass(frozen=True, eq=False)
class Sequence:
    """Images of one camera or of a stereo pair, loaded on request, and what is known about them.

    Args:
        rate_hz: frame rate [Hz].
        stamps_ns: (N,) int64, increasing.
        load: one function for each camera (the left one first), from the index of a frame to its image.
        camera0: the (left) camera of the images as they are loaded; None where it is not calibrated.
        camera1: the right camera.
        world_from_cam0: (N, 4, 4) true poses of the (left) camera; None where unknown. Each data set has a world frame
            of its own, so only relative poses can be compared between data sets.
        cam1_from_cam0: (4, 4) stereo extrinsics; None where unknown.
        load_depth0: function from an index to the depth of the (left) camera, float32 (H, W), z [m], 0 where unknown;
            None without depth.
        depth_matrix0: (3, 3) camera matrix of the depth images; None where it is that of camera0.
    """

    name: str
    rate_hz: float
    stamps_ns: np.ndarray
    load: tuple[Callable[[int], np.ndarray], ...]
    camera0: Camera | None = None
    camera1: Camera | None = None
    frame_id0: str = 'left_camera_optical_frame'
    frame_id1: str = 'right_camera_optical_frame'
    world_from_cam0: np.ndarray | None = None
    cam1_from_cam0: np.ndarray | None = None
    load_depth0: Callable[[int], np.ndarray] | None = None
    depth_matrix0: np.ndarray | None = None

    def __post_init__(self):
        object.__setattr__(self, 'stamps_ns', np.asarray(self.stamps_ns, np.int64))
        count = len(self.stamps_ns)
        if count == 0 or np.any(np.diff(self.stamps_ns) <= 0):
            raise InputError(f'{self.name} has {count} stamps; needs at least one, and each later than the one before')
        if len(self.load) not in (1, 2):
            raise InputError(f'{self.name} has {len(self.load)} cameras; needs one or two')
        if self.world_from_cam0 is not None and np.shape(self.world_from_cam0) != (count, 4, 4):
            raise InputError(
                f'{self.name} has {count} images but poses of shape {np.shape(self.world_from_cam0)}; '
                'needs one pose for each image'
            )

    def __len__(self) -> int:
        return len(self.stamps_ns)

    @property
    def is_stereo(self) -> bool:
        return len(self.load) == 2

    @property
    def has_depth(self) -> bool:
        return self.load_depth0 is not None

    def frames(self, index: int) -> tuple[Frame, ...]:
        """Load the frame of the camera, or of the left and the right camera, at `index`."""
        index = self._check(index)
        cameras, frame_ids = (self.camera0, self.camera1), (self.frame_id0, self.frame_id1)
        stamp_ns = int(self.stamps_ns[index])
        return tuple(Frame(load(index), cameras[i], stamp_ns, frame_ids[i]) for i, load in enumerate(self.load))

    def depth0(self, index: int) -> np.ndarray:
        """Load the depth of the (left) camera: float32 (H, W), z [m], 0 where unknown."""
        if self.load_depth0 is None:
            raise InputError(f'{self.name} has no depth; needs a sequence with depth images, or a rendered one')
        return self.load_depth0(self._check(index))

    def rigs(self) -> tuple[str, ...]:
        """Return the rigs of `odometry.rig` that the sequence has the data of."""
        has = {'stereo': self.cam1_from_cam0 is not None, 'rgbd': self.has_depth and self.depth_matrix0 is None}
        return ('mono', *(rig for rig, present in has.items() if present))

    def frame_set(self, index: int, rig: str) -> FrameSet:
        """Load what a rig sees at `index`: one image, a stereo pair, or an image with its depth.

        Raises:
            InputError: the sequence does not have the data of the rig.
        """
        if rig not in self.rigs():
            raise InputError(
                f'{self.name} is no {rig} sequence, it can be {", ".join(self.rigs())}; stereo needs the transform '
                'between the cameras, rgbd a depth for each pixel of the image'
            )
        frames = self.frames(index)
        if rig == 'stereo':
            return FrameSet(*frames, self.cam1_from_cam0)
        return FrameSet(frames[0], depth_m=self.depth0(index) if rig == 'rgbd' else None)

    def _check(self, index: int) -> int:
        if not -len(self) <= index < len(self):
            raise IndexError(f'{self.name} has {len(self)} frames, got index {index}')
        return index % len(self)


def constant_rate_stamps(count: int, rate_hz: float) -> np.ndarray:
    """Return `count` stamps [ns] at a constant rate, for images without stamps."""
    if not rate_hz > 0:
        raise InputError(f'rate_hz must be positive, got {rate_hz}')
    return FIRST_STAMP_NS + np.round(np.arange(count) * 1e9 / rate_hz).astype(np.int64)


def rate_of(stamps_ns: np.ndarray, otherwise_hz: float) -> float:
    """Return the rate [Hz] of the median difference of stamps, or `otherwise_hz` for a single stamp."""
    return float(1e9 / np.median(np.diff(stamps_ns))) if len(stamps_ns) > 1 else otherwise_hz
