"""TUM RGB-D: rgb/ and depth/ with stamps as names and groundtruth.txt, or numbered images and ground_truth.json."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NamedTuple

import numpy as np

from loftr_ros.camera import Camera
from loftr_ros.datasets.association import nearest_stamps, stamps_in_names
from loftr_ros.datasets.poses import poses_from_tum, rigid_transform
from loftr_ros.datasets.sequence import Sequence, constant_rate_stamps, rate_of
from loftr_ros.datasets.text_files import Fields, read_json, read_yaml
from loftr_ros.errors import InputError
from loftr_ros.image_files import image_loader, image_size, list_images, read_depth

logger = logging.getLogger(__name__)

DEPTH_UNIT_M = 1 / 5000
RATE_HZ = 30.0
SLACK_NS = 20_000_000
"""Images, depth and poses have different stamps; the nearest ones within this belong together."""

KINECTS = {
    'fr1': (517.3, 516.5, 318.6, 239.5),
    'fr2': (520.9, 521.0, 325.1, 249.7),
    'fr3': (535.4, 539.2, 320.1, 247.6),
}
"""Intrinsics (fx, fy, cx, cy) from the web page of the data set, without the small distortion."""
KINECT_SIZE = (640, 480)


def is_tum(path: Path) -> bool:
    return (path / 'rgb').is_dir()


class _Images(NamedTuple):
    files: list[Path]
    stamps_ns: np.ndarray
    depth_files: list[Path | None]
    poses: np.ndarray | None = None

    def select(self, keep: np.ndarray, **others) -> _Images:
        """Return the images of these indices, with other fields replaced."""
        selected = _Images([self.files[i] for i in keep], self.stamps_ns[keep], [self.depth_files[i] for i in keep])
        return selected._replace(**others)


def read_tum(path: Path, rate_hz: float) -> Sequence:
    """Read the original data set, or numbered images with their poses in ground_truth.json."""
    images = _numbered(path) if (path / 'ground_truth.json').is_file() else _stamped(path)
    missing = images.depth_files.count(None)
    if 0 < missing < len(images.files):
        logger.warning('%s has no depth for %d images; the depth of the others is not used', path, missing)
    return Sequence(
        name=path.name,
        rate_hz=rate_of(images.stamps_ns, rate_hz),
        stamps_ns=images.stamps_ns,
        load=(image_loader(images.files),),
        camera0=_camera(path, images.files[0]),
        frame_id0='camera_optical_frame',
        world_from_cam0=images.poses,
        load_depth0=None if missing else lambda index: read_depth(images.depth_files[index], DEPTH_UNIT_M, 'TUM RGB-D'),
    )


def _numbered(path: Path) -> _Images:
    """Return the images with the depth of the same name and the poses of ground_truth.json."""
    files = list_images(path / 'rgb')
    depth_files = {file.stem: file for file in _depth_images(path)}
    return _Images(
        files,
        constant_rate_stamps(len(files), RATE_HZ),
        [depth_files.get(file.stem) for file in files],
        _json_poses(path / 'ground_truth.json', files),
    )


def _stamped(path: Path) -> _Images:
    """Return the images whose names are stamps, with the nearest depth and the nearest pose of groundtruth.txt."""
    files, stamps_ns = stamps_in_names(list_images(path / 'rgb'), 's')
    images = _Images(files, stamps_ns, [None] * len(files))
    if depth_files := _depth_images(path):
        depth_files, depth_ns = stamps_in_names(depth_files, 's')
        keep, nearest = nearest_stamps(images.stamps_ns, depth_ns, SLACK_NS, path / 'depth', 'depth')
        images = images.select(keep, depth_files=[depth_files[i] for i in nearest])
    if (path / 'groundtruth.txt').is_file():
        truth_ns, truth = poses_from_tum(path / 'groundtruth.txt')
        keep, nearest = nearest_stamps(images.stamps_ns, truth_ns, SLACK_NS, path / 'groundtruth.txt', 'pose')
        images = images.select(keep, poses=truth[nearest])
    return images


def _depth_images(path: Path) -> list[Path]:
    return list_images(path / 'depth') if (path / 'depth').is_dir() else []


def _json_poses(path: Path, files: list[Path]) -> np.ndarray:
    """Return the poses (N, 4, 4) of the images: {"STEM": {"transformation": [4 rows of 4]}}."""
    truth = read_json(path)
    poses = []
    for file in files:
        entry = truth.get(file.stem)
        if not isinstance(entry, dict):
            raise InputError(
                f'{path} has no entry {file.stem!r} for {file.name}; needs a transformation for each image'
            )
        matrix = Fields(path, entry, file.stem).matrix(4, 4, 'transformation')
        poses.append(rigid_transform(matrix, f'{path}: the transformation of {file.stem}'))
    return np.stack(poses)


def _camera(path: Path, image_file: Path) -> Camera | None:
    """Return the camera of camera_intrinsics.yaml, or of the Kinect in the folder's name (fr1, fr2, fr3), or None."""
    own = path / 'camera_intrinsics.yaml'
    width, height = image_size(image_file)
    if own.is_file():
        try:
            return Camera(Fields(own, read_yaml(own)).matrix(3, 3, 'intrinsics'), width, height)
        except InputError as error:
            raise error if str(own) in str(error) else InputError(f'{own}: {error}') from error
    short = path.name.lower().replace('freiburg', 'fr')
    for name, (fx, fy, cx, cy) in KINECTS.items():
        if name in short and (width, height) == KINECT_SIZE:
            return Camera([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], width, height)
        if name in short:
            logger.warning(
                '%s has images of %dx%d, but the camera of %s takes 640x480; its intrinsics are not used: write %s',
                *(path, width, height, name, own),
            )
    return None
