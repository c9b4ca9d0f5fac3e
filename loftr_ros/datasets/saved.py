"""The package's own layout: left/ and optionally right/, depth/, left.yaml, right.yaml, stamps.txt, poses.txt (TUM)."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from loftr_ros.datasets.association import check_pairs, nearest_stamps, rows_of_images
from loftr_ros.datasets.calibration import calibrated_sequence, camera_to_yaml, read_calibration
from loftr_ros.datasets.poses import poses_from_tum, poses_to_tum
from loftr_ros.datasets.sequence import Sequence, constant_rate_stamps
from loftr_ros.datasets.text_files import read_stamps
from loftr_ros.errors import InputError
from loftr_ros.geometry import transform
from loftr_ros.image_files import list_images, read_depth
from loftr_ros.output_files import write_image

FOLDERS = ('left', 'right', 'depth')

DEPTH_UNIT_M = 1e-3
MAX_DEPTH = 2**16 - 1

POSE_SLACK_NS = 1_000_000
"""Largest difference between a stamp in stamps.txt and one in poses.txt, which may have fewer digits."""


def is_saved(path: Path) -> bool:
    return (path / 'left').is_dir()


def read_saved(path: Path, rate_hz: float) -> Sequence:
    sides = [side for side in ('left', 'right') if (path / side).is_dir()]
    files = [list_images(path / side) for side in sides]
    if len(files) == 2:
        check_pairs(*files, path)
    calibrations = [
        read_calibration(path / f'{side}.yaml') if (path / f'{side}.yaml').is_file() else None for side in sides
    ]
    stamps_ns = constant_rate_stamps(len(files[0]), rate_hz)
    if (path / 'stamps.txt').is_file():
        stamps_ns = read_stamps(path / 'stamps.txt', 'ns')
        if len(stamps_ns) != len(files[0]):
            raise InputError(f'{path} has {len(files[0])} images and {len(stamps_ns)} stamps; write the folder again')
    poses = _saved_poses(path, stamps_ns) if (path / 'poses.txt').is_file() else None
    sequence = calibrated_sequence(path.name, rate_hz, stamps_ns, files, calibrations, poses)
    if not (path / 'depth').is_dir():
        return sequence
    depth_files = list_images(path / 'depth')
    check_pairs(files[0], depth_files, path)
    return dataclasses.replace(
        sequence, load_depth0=lambda index: read_depth(depth_files[index], DEPTH_UNIT_M, 'a saved sequence')
    )


def _saved_poses(path: Path, stamps_ns: np.ndarray) -> np.ndarray:
    """Return the pose of each image, found by its stamp or, in a folder without stamps.txt, by its index."""
    truth_ns, poses = poses_from_tum(path / 'poses.txt')
    if not (path / 'stamps.txt').is_file():
        return poses[rows_of_images(list_images(path / 'left'), len(poses), path / 'poses.txt')]
    keep, chosen = nearest_stamps(stamps_ns, truth_ns, POSE_SLACK_NS, path / 'poses.txt', 'pose')
    if len(keep) < len(stamps_ns):
        raise InputError(
            f'{path / "poses.txt"} has a pose for {len(keep)} of {len(stamps_ns)} stamps; needs one for each'
        )
    return poses[chosen]


def save_sequence(sequence: Sequence, folder, progress: Callable[[int], None] | None = None) -> None:
    """Write images (left/, right/), depth/ [mm], left.yaml, right.yaml, stamps.txt [ns] and poses.txt (TUM format).

    A stereo pair must be rectified, because the projection_matrix of camera_calibration contains only a baseline along
    x. An earlier sequence in the folder is replaced. `progress` is called with the number of frames written so far.

    Raises:
        InputError: the pair is not rectified, or the folder contains images that `save_sequence` did not write.
    """
    folder = Path(folder)
    extrinsics = sequence.cam1_from_cam0
    if extrinsics is not None and not np.allclose(
        extrinsics, transform(np.eye(3), (extrinsics[0, 3], 0, 0)), atol=1e-9
    ):
        raise InputError(f'{sequence.name} is not rectified: cam1_from_cam0 is\n{extrinsics}\nrectify it before saving')
    earlier = _earlier_files(folder)
    written = {folder / 'stamps.txt'}
    sides = FOLDERS[: len(sequence.load)]
    has_depth = 'rgbd' in sequence.rigs()
    if has_depth:
        (folder / 'depth').mkdir(parents=True, exist_ok=True)
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
        if has_depth:
            file = folder / 'depth' / f'{index:06d}.png'
            write_image(file, np.rint(sequence.depth0(index) / DEPTH_UNIT_M).clip(0, MAX_DEPTH).astype(np.uint16))
            written.add(file)
        if progress:
            progress(index + 1)
    for file in earlier - written:
        file.unlink()
    for name in ('right', 'depth'):
        if (folder / name).is_dir() and not any((folder / name).iterdir()):
            (folder / name).rmdir()


def _earlier_files(folder: Path) -> set[Path]:
    """Return the files of an earlier sequence in the folder; InputError if it contains other images."""
    images = {file for name in FOLDERS for file in (folder / name).glob('*')}
    other = sorted(file for file in images if not re.fullmatch(r'\d{6}\.png', file.name))
    if images and (other or not (folder / 'stamps.txt').is_file()):
        found = (other or sorted(images))[0]
        raise InputError(
            f'{folder} contains {found.name}, which is not part of a saved sequence; choose another folder'
        )
    names = ('left.yaml', 'right.yaml', 'stamps.txt', 'poses.txt')
    return images | {folder / name for name in names if images and (folder / name).is_file()}
