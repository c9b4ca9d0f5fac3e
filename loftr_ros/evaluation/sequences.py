"""Sequences of images with cameras, stamps and, where known, the truth: rendered, or read from folders."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from loftr_ros.datatypes import Camera, Frame
from loftr_ros.errors import InputError
from loftr_ros.evaluation.calibration import (
    Calibration,
    cam1_from_cam0,
    camera_from_yaml,
    camera_to_yaml,
    read_calibration,
)
from loftr_ros.geometry import matrix_from_quaternion, quaternion_from_matrix, transform

__all__ = [
    'Sequence',
    'camera_from_yaml',
    'camera_to_yaml',
    'open_sequence',
    'poses_from_tum',
    'rendered_drive',
    'save_sequence',
]

IMAGE_SUFFIXES = ('.png', '.jpg', '.jpeg', '.ppm', '.pgm', '.bmp', '.tif', '.tiff', '.webp')
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
            cv2.imwrite(str(file), frame.image)
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


def poses_to_tum(path, stamps_ns, world_from_cam) -> None:
    """Write lines 'stamp [s] tx ty tz qx qy qz qw', the stamp with all its nanoseconds."""
    lines = []
    for stamp_ns, pose in zip(stamps_ns, world_from_cam, strict=True):
        seconds, nanoseconds = divmod(int(stamp_ns), 10**9)
        numbers = [*pose[:3, 3], *quaternion_from_matrix(pose[:3, :3])]
        lines.append(f'{seconds}.{nanoseconds:09d} ' + ' '.join(f'{x:.12f}' for x in numbers))
    Path(path).write_text('\n'.join(lines) + '\n')


def poses_from_tum(path) -> tuple[np.ndarray, np.ndarray]:
    """Return stamps_ns (N,) and (N, 4, 4) poses of a file in TUM form; lines that begin with # are comments."""
    stamps_ns, poses = [], []
    for number, line in enumerate(Path(path).read_text().splitlines(), 1):
        fields = line.split()
        if not fields or fields[0].startswith('#'):
            continue
        if len(fields) != 8:
            raise InputError(f'{path}:{number} has {len(fields)} fields; needs stamp tx ty tz qx qy qz qw')
        stamps_ns.append(nanoseconds(fields[0]))
        poses.append(pose_from_numbers(fields[1:]))
    return np.array(stamps_ns, np.int64), np.reshape(poses, (-1, 4, 4))


def pose_from_numbers(numbers) -> np.ndarray:
    """Return the (4, 4) pose of (tx, ty, tz, qx, qy, qz, qw)."""
    numbers = np.asarray(numbers, np.float64)
    return transform(matrix_from_quaternion(numbers[3:7]), numbers[:3])


def nanoseconds(seconds: str) -> int:
    """Return a decimal number of seconds in ns without the rounding of a float."""
    whole, _, fraction = seconds.partition('.')
    return int(whole) * 10**9 + int((fraction + '0' * 9)[:9])


# --- opening -----------------------------------------------------------------------------------------------------


def open_sequence(path, camera_files=None, rate_hz: float | None = None) -> Sequence:
    """Open a folder, recognised by what lies in it; nothing is decoded yet.

    Known: what `save_sequence` writes, KITTI odometry, TartanAir, EuRoC, TUM RGB-D, COLMAP's text models beside
    images/, and a folder of images (or left/ and right/).

    Args:
        camera_files: calibration (YAML) of the camera, or of left and right; they win over the folder's own.
        rate_hz: frame rate, where the folder has no stamps (10 Hz by default).
    """
    from loftr_ros.evaluation import layouts

    path = Path(path)
    if not path.is_dir():
        found = 'a file' if path.exists() else 'nothing'
        raise InputError(f'{path} is {found}; needs a folder of images or of a data set (a rosbag is for `bags`)')
    calibrations = [read_calibration(file) for file in camera_files or ()]
    for recognise, read in layouts.LAYOUTS:
        if recognise(path):
            sequence = read(path, rate_hz or DEFAULT_RATE_HZ)
            return _with_cameras(sequence, calibrations) if calibrations else sequence
    found = ', '.join(sorted(entry.name for entry in path.iterdir())[:8]) or 'nothing'
    raise InputError(
        f'{path} holds {found}; needs images ({", ".join(IMAGE_SUFFIXES)}), left/ and right/, or the layout of KITTI '
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


def list_images(folder) -> list[Path]:
    """Return the images of a folder in natural order (2 before 10); InputError when there is none."""
    files = [file for file in Path(folder).iterdir() if file.suffix.lower() in IMAGE_SUFFIXES]
    if not files:
        raise InputError(f'{folder} has no images; needs files that end with {", ".join(IMAGE_SUFFIXES)}')
    return sorted(files, key=natural_order)


def natural_order(file: Path) -> list:
    """Return a key to sort by: folder, then name with its numbers as numbers."""
    return [file.parent, *(int(t) if t.isdigit() else t for t in re.split(r'(\d+)', file.name))]


def image_loader(files) -> Callable[[int], np.ndarray]:
    """Return what reads the image of an index, for `Sequence.load`."""
    return lambda index: read_image(files[index])


def read_image(path) -> np.ndarray:
    """Return the image uint8 (H, W) or (H, W, 3), blue first."""
    image = cv2.imread(str(path), cv2.IMREAD_ANYCOLOR)
    if image is None:
        raise InputError(f'{path} is not an image that OpenCV can read; remove it or write it again')
    return image
