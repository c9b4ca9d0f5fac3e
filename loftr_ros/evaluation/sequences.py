"""Sequences of images with cameras, stamps and, where known, the truth: rendered, or read from folders."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from loftr_ros.datatypes import Camera, Frame
from loftr_ros.errors import InputError
from loftr_ros.evaluation.calibration import (
    Calibration,
    cam1_from_cam0,
    camera_from_yaml,
    camera_to_yaml,
    read_calibrations,
)
from loftr_ros.evaluation.poses import poses_from_tum, poses_to_tum
from loftr_ros.geometry import transform
from loftr_ros.image_files import SUFFIX_LIST
from loftr_ros.output_files import write_image
from loftr_ros.text_files import nanoseconds, stamps_to_ns

__all__ = [
    'Sequence',
    'camera_from_yaml',
    'camera_to_yaml',
    'nanoseconds',
    'open_sequence',
    'poses_from_tum',
    'rendered_drive',
    'save_sequence',
]

FIRST_STAMP_NS = 1_000_000_000
"""Where made-up stamps begin: in ROS a stamp of 0 means 'none'."""

DEFAULT_RATE_HZ = 10.0


@dataclasses.dataclass(frozen=True, eq=False)
class Sequence:
    """Images of one camera or of a stereo pair; they are loaded when asked for.

    Args:
        stamps_ns: (N,) int64.
        load: for one or two cameras, a function from the index of a frame to its image.
        world_from_cam0: (N, 4, 4) true poses of the (left) camera; None where unknown. The world is the source's own,
            only relative poses compare between sources.
        cam1_from_cam0: (4, 4) stereo extrinsics, None where unknown.
        load_depth0: from index to float32 (H, W) z of the (left) camera [m], 0 where unknown; None without depth.
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

    def __post_init__(self):
        object.__setattr__(self, 'stamps_ns', np.asarray(self.stamps_ns, np.int64))
        count = len(self.stamps_ns)
        if count == 0 or np.any(np.diff(self.stamps_ns) <= 0):
            raise InputError(f'{self.name} has {count} stamps; needs at least one, and each later than the last')
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
            raise InputError(f'{self.name} has no depth; open a sequence with depth images, or render one')
        return self.load_depth0(self._check(index))

    def _check(self, index: int) -> int:
        if not -len(self) <= index < len(self):
            raise IndexError(f'{self.name} has {len(self)} frames, got index {index}')
        return index % len(self)


def made_up_stamps(count: int, rate_hz: float) -> np.ndarray:
    """Return `count` stamps [ns] at a steady rate."""
    if not rate_hz > 0:
        raise InputError(f'rate_hz must be positive, got {rate_hz}')
    return FIRST_STAMP_NS + np.round(np.arange(count) * 1e9 / rate_hz).astype(np.int64)


def rate_of(stamps_ns: np.ndarray, otherwise_hz: float) -> float:
    """Return the rate of the median step [Hz]."""
    return float(1e9 / np.median(np.diff(stamps_ns))) if len(stamps_ns) > 1 else otherwise_hz


def stamps_in_names(files: list[Path], convention: str) -> tuple[list[Path], np.ndarray]:
    """Return the files in the order of the stamps that are their names, and the stamps [ns].

    Args:
        convention: unit of names that are too small to tell it, 's' or 'ns'.
    """
    try:
        stamps_ns = stamps_to_ns([file.stem for file in files], convention)
    except InputError as error:
        raise InputError(
            f'{files[0].parent} has images that are not named by their stamps [{convention}]: {error}; rename them'
        ) from error
    order = np.argsort(stamps_ns, kind='stable')
    files, stamps_ns = [files[i] for i in order], stamps_ns[order]
    for i in np.flatnonzero(np.diff(stamps_ns) == 0):
        raise InputError(f'{files[i]} and {files[i + 1].name} have the same stamp; needs one image for each stamp')
    return files, stamps_ns


# --- rendered ----------------------------------------------------------------------------------------------------


def rendered_drive(seed: int = 0, num_frames: int = 40, baseline_m: float = 0.12, size=(640, 480)) -> Sequence:
    """Return a stereo sequence of a robot in a furnished room, 10 Hz, with exact poses and depth.

    `size` is (width, height); the horizontal field of view is 67 degrees. Frames are rendered when they are asked for.
    """
    from loftr_ros.rendering import furnished_room, render, room_trajectory

    width, height = size
    focal_px = 0.75 * width
    matrix = [[focal_px, 0, (width - 1) / 2], [0, focal_px, (height - 1) / 2], [0, 0, 1]]
    camera = Camera(matrix, width, height)
    right_from_left = transform(np.eye(3), (-baseline_m, 0, 0))
    world_from_left = room_trajectory(num_frames, seed)
    world_from_right = world_from_left @ np.linalg.inv(right_from_left)
    scene = []  # built at the first image, so that opening is instant

    def draw(world_from_cam, index, side):
        if not scene:
            scene.append(furnished_room(seed))
        return render(scene[0], camera, world_from_cam[index], noise_sigma=1.5, seed=(seed, index, side))

    return Sequence(
        name=f'rendered_drive_{seed}',
        rate_hz=DEFAULT_RATE_HZ,
        stamps_ns=made_up_stamps(num_frames, DEFAULT_RATE_HZ),
        load=(lambda index: draw(world_from_left, index, 0)[0], lambda index: draw(world_from_right, index, 1)[0]),
        camera0=camera,
        camera1=camera,
        world_from_cam0=world_from_left,
        cam1_from_cam0=right_from_left,
        load_depth0=lambda index: draw(world_from_left, index, 0)[1],
    )


# --- our own folders ---------------------------------------------------------------------------------------------


def save_sequence(sequence: Sequence, folder, progress: Callable[[int], None] | None = None) -> None:
    """Write images (left/, right/), cameras (left.yaml, right.yaml), stamps.txt [ns] and poses.txt (TUM form).

    The right camera must lie beside the left one as after rectification, since camera_calibration's projection_matrix
    holds the baseline. An earlier sequence in the folder is replaced. `progress` gets the number of frames written.
    """
    folder = Path(folder)
    extrinsics = sequence.cam1_from_cam0
    if extrinsics is not None and not np.allclose(
        extrinsics, transform(np.eye(3), (extrinsics[0, 3], 0, 0)), atol=1e-9
    ):
        raise InputError(f'{sequence.name} is not rectified: cam1_from_cam0 is\n{extrinsics}\nrectify it before saving')
    earlier = _earlier_files(folder)
    written = {folder / 'stamps.txt'}
    sides = ('left', 'right')[: len(sequence.load)]
    for side, camera in zip(sides, (sequence.camera0, sequence.camera1), strict=False):
        (folder / side).mkdir(parents=True, exist_ok=True)
        if camera is not None:
            baseline_m = -extrinsics[0, 3] if side == 'right' and extrinsics is not None else 0.0
            camera_to_yaml(camera, folder / f'{side}.yaml', side, baseline_m)
            written.add(folder / f'{side}.yaml')
    np.savetxt(folder / 'stamps.txt', sequence.stamps_ns, fmt='%d')
    if sequence.world_from_cam0 is not None:
        poses_to_tum(folder / 'poses.txt', sequence.stamps_ns, sequence.world_from_cam0)
        written.add(folder / 'poses.txt')
    for index in range(len(sequence)):
        for side, frame in zip(sides, sequence.frames(index), strict=True):
            file = folder / side / f'{index:06d}.png'
            write_image(file, frame.image)
            written.add(file)
        if progress:
            progress(index + 1)
    for file in earlier - written:
        file.unlink()
    if 'right' not in sides and (folder / 'right').is_dir():
        (folder / 'right').rmdir()


def _earlier_files(folder: Path) -> set[Path]:
    """Return the files of an earlier sequence in the folder; InputError where images of another origin lie there."""
    images = {file for side in ('left', 'right') for file in (folder / side).glob('*')}
    foreign = sorted(file for file in images if not re.fullmatch(r'\d{6}\.png', file.name))
    if images and (foreign or not (folder / 'stamps.txt').is_file()):
        found = (foreign or sorted(images))[0]
        raise InputError(f'{folder} holds {found.name}, which is not of a saved sequence; choose another folder')
    names = ('left.yaml', 'right.yaml', 'stamps.txt', 'poses.txt')
    return images | {folder / name for name in names if images and (folder / name).is_file()}


# --- opening -----------------------------------------------------------------------------------------------------


def open_sequence(path, camera_files=None, rate_hz: float | None = None) -> Sequence:
    """Open a folder, recognised by what lies in it; nothing is decoded yet.

    Known: what `save_sequence` writes, KITTI odometry, TartanAir, EuRoC, TUM RGB-D, COLMAP's text models beside
    images/, and a folder of images (or left/ and right/).

    Args:
        camera_files: calibrations (YAML) of the camera, or of left and right, which win over the folder's own; one file
            each, or one of Kalibr for both.
        rate_hz: frame rate, where the folder has no stamps (10 Hz by default).
    """
    from loftr_ros.evaluation import layouts

    path = Path(path)
    if not path.is_dir():
        found = 'a file' if path.exists() else 'nothing'
        raise InputError(f'{path} is {found}; needs a folder of images or of a data set (a rosbag is for `bags`)')
    calibrations = [calibration for file in camera_files or () for calibration in read_calibrations(file)]
    for recognise, read in layouts.LAYOUTS:
        if recognise(path):
            sequence = read(path, rate_hz or DEFAULT_RATE_HZ)
            return _with_cameras(sequence, calibrations) if calibrations else sequence
    found = ', '.join(sorted(entry.name for entry in path.iterdir())[:8]) or 'nothing'
    raise InputError(
        f'{path} holds {found}; needs images ({SUFFIX_LIST}), left/ and right/, or the layout of KITTI '
        'odometry (calib.txt, image_0/), TartanAir (image_lcam_front/), EuRoC (cam0/sensor.yaml), TUM RGB-D (rgb/) '
        'or COLMAP (images/ and a model as text: `colmap model_converter --output_type TXT`)'
    )


def _with_cameras(sequence: Sequence, calibrations: list[Calibration]) -> Sequence:
    if len(calibrations) != len(sequence.load):
        raise InputError(
            f'{sequence.name} has {len(sequence.load)} cameras but {len(calibrations)} calibrations: give each its own'
        )
    extrinsics = cam1_from_cam0(*calibrations) if len(calibrations) == 2 else None
    return dataclasses.replace(
        sequence,
        camera0=calibrations[0].camera,
        camera1=calibrations[1].camera if len(calibrations) == 2 else None,
        cam1_from_cam0=sequence.cam1_from_cam0 if extrinsics is None else extrinsics,
    )
