"""ScanNet as its SDK exports it: color/N.jpg, depth/N.png, pose/N.txt and intrinsic/intrinsic_*.txt."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from loftr_ros.camera import Camera
from loftr_ros.datasets.poses import rigid_transform
from loftr_ros.datasets.sequence import Sequence, constant_rate_stamps
from loftr_ros.datasets.text_files import read_matrix
from loftr_ros.errors import InputError
from loftr_ros.image_files import image_loader, image_size, list_images, read_depth

logger = logging.getLogger(__name__)

DEPTH_UNIT_M = 1 / 1000
"""Depth images contain millimetres."""


def is_scannet(path: Path) -> bool:
    return (path / 'color').is_dir() and (path / 'pose').is_dir()


def read_scannet(path: Path, rate_hz: float) -> Sequence:
    """Read the frames with a pose; the images are undistorted, and depth images may be of another size."""
    all_files = list_images(path / 'color')
    all_poses = [_pose(path / 'pose' / f'{file.stem}.txt') for file in all_files]
    files = [file for file, pose in zip(all_files, all_poses, strict=True) if pose is not None]
    poses = [pose for pose in all_poses if pose is not None]
    if not files:
        raise InputError(f'{path / "pose"} has no pose for any of {len(all_files)} images; needs at least one')
    if len(files) < len(all_files):
        logger.warning('%s: %d images without a pose are left out', path, len(all_files) - len(files))
    return Sequence(
        name=path.name,
        rate_hz=rate_hz,
        stamps_ns=constant_rate_stamps(len(files), rate_hz),
        load=(image_loader(files),),
        camera0=Camera(_matrix(path, 'color'), *image_size(files[0])),
        frame_id0='camera_optical_frame',
        world_from_cam0=np.stack(poses),
        load_depth0=lambda index: read_depth(path / 'depth' / f'{files[index].stem}.png', DEPTH_UNIT_M, 'ScanNet'),
        depth_matrix0=_matrix(path, 'depth'),
    )


def _matrix(path: Path, kind: str) -> np.ndarray:
    """Return the camera matrix (3, 3) of the 'color' or the 'depth' images."""
    return read_matrix(path / 'intrinsic' / f'intrinsic_{kind}.txt', ((4, 4), (3, 3)))[:3, :3]


def _pose(path: Path) -> np.ndarray | None:
    """Return the pose world_from_cam (4, 4) of a file; None where the tracking was lost, which is written as -inf."""
    pose = read_matrix(path, ((4, 4),), finite=False)
    return rigid_transform(pose, f'{path}: the pose') if np.isfinite(pose).all() else None
