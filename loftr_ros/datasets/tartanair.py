"""TartanAir V2: image_lcam_*/ and image_rcam_*/, depth_lcam_*/ and pose_lcam_*.txt."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from loftr_ros.camera import Camera
from loftr_ros.datasets.association import check_pairs, number_in_name, rows_of_images
from loftr_ros.datasets.poses import pose_from_numbers
from loftr_ros.datasets.sequence import Sequence, constant_rate_stamps
from loftr_ros.datasets.text_files import read_table
from loftr_ros.errors import InputError
from loftr_ros.geometry import transform
from loftr_ros.image_files import image_loader, image_size, list_images, read_raw

TARTANAIR_BASELINE_M = 0.25

# Poses are in NED axes (x forward, y right, z down), ours in optical ones, in a world with z up.
NED_FROM_OPTICAL = np.array([[0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]], np.float64)
ROS_FROM_NED = np.diag([1.0, -1.0, -1.0, 1.0])


def is_tartanair(path: Path) -> bool:
    return bool(list(path.glob('image_lcam_*')))


def read_tartanair(path: Path, rate_hz: float) -> Sequence:
    """Read one view, image_lcam_front if there is one. Pose files may have more rows than there are images."""
    folder = sorted(path.glob('image_lcam_*'), key=lambda f: (f.name != 'image_lcam_front', f.name))[0]
    view = folder.name.removeprefix('image_lcam_')
    files = [list_images(folder)]
    right = path / f'image_rcam_{view}'
    if right.is_dir():
        files.append(list_images(right))
        check_pairs(*files, path)
    poses = None
    pose_file = path / f'pose_lcam_{view}.txt'
    if pose_file.is_file():
        poses = _ned_poses(pose_file)
        poses = poses[rows_of_images(files[0], len(poses), pose_file)]
    depths = path / f'depth_lcam_{view}'
    depth_files = _depth_files(files[0], list_images(depths)) if depths.is_dir() else None
    width, height = image_size(files[0][0])
    # Every view has 90 degrees. The axis is in the middle: half a pixel less than the authors write, because the centre
    # of the first pixel is (0, 0) here; so the motions of stereo and RGB-D are nearer to the truth by a tenth.
    focal, middle = width / 2, (width - 1) / 2
    camera = Camera([[focal, 0, middle], [0, focal, (height - 1) / 2], [0, 0, 1]], width, height)
    return Sequence(
        name=path.name,
        rate_hz=rate_hz,
        stamps_ns=constant_rate_stamps(len(files[0]), rate_hz),
        load=tuple(image_loader(f) for f in files),
        camera0=camera,
        camera1=camera if len(files) == 2 else None,
        world_from_cam0=poses,
        cam1_from_cam0=transform(np.eye(3), (-TARTANAIR_BASELINE_M, 0, 0)) if len(files) == 2 else None,
        load_depth0=None if depth_files is None else lambda index: _depth_m(depth_files[index]),
    )


def _ned_poses(path: Path) -> np.ndarray:
    """Return (N, 4, 4) poses of the optical frame in ROS axes (REP-103) of rows tx ty tz qx qy qz qw."""
    needed = 'tx ty tz qx qy qz qw'
    poses = []
    for row in read_table(path, needed).rows:
        try:
            poses.append(pose_from_numbers(row.numbers(needed, (7,))))
        except InputError as error:
            raise error if str(path) in str(error) else row.error(f'{error}; needs {needed}') from error
    return ROS_FROM_NED @ np.stack(poses) @ NED_FROM_OPTICAL


def _depth_files(files: list[Path], depth_files: list[Path]) -> list[Path]:
    """Return the depth file of each image: the one with the same number."""
    by_number = {number_in_name(file): file for file in depth_files}
    missing = [file.name for file in files if number_in_name(file) not in by_number]
    if missing or None in by_number:
        raise InputError(
            f'{depth_files[0].parent} lacks the depth of {len(missing)} of {len(files)} images ({missing[:3]}); '
            'needs a file with the number of each'
        )
    return [by_number[number_in_name(file)] for file in files]


def _depth_m(path: Path) -> np.ndarray:
    """Return float32 (H, W) [m], which is stored as the four 8-bit channels of a PNG."""
    channels = read_raw(path, np.uint8, 4, 'depth of TartanAir V2 (PNG with four 8-bit channels)')
    return np.ascontiguousarray(channels).view('<f4')[..., 0].astype(np.float32)
