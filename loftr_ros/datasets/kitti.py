"""KITTI odometry: image_0/ and image_1/ (or image_2/ and image_3/), calib.txt, times.txt and poses.txt."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from loftr_ros.camera import Camera
from loftr_ros.datasets.association import check_pairs, rows_of_images
from loftr_ros.datasets.calibration import Calibration, calibrated_sequence, rectified_calibration
from loftr_ros.datasets.poses import read_matrix_poses
from loftr_ros.datasets.sequence import FIRST_STAMP_NS, Sequence, constant_rate_stamps
from loftr_ros.datasets.text_files import numbers, read_stamps, read_text
from loftr_ros.errors import InputError
from loftr_ros.image_files import image_size, list_images

SIDES = (
    ('image_0', 'image_1', 'P0', 'P1'),
    ('image_2', 'image_3', 'P2', 'P3'),
    ('image_l', 'image_r', 'P0', 'P1'),
)
"""Folders of the left and the right images, and the labels of their projection matrices in calib.txt."""


def is_kitti(path: Path) -> bool:
    return (path / 'calib.txt').is_file() and any((path / left).is_dir() for left, *_ in SIDES)


def read_kitti(path: Path, rate_hz: float) -> Sequence:
    left, right, *labels = next(sides for sides in SIDES if (path / sides[0]).is_dir())
    files = [list_images(path / side) for side in (left, right) if (path / side).is_dir()]
    if len(files) == 2:
        check_pairs(*files, path)
    calibrations = [_calibration(path / 'calib.txt', label, files[0][0]) for label in labels][: len(files)]
    stamps_ns = constant_rate_stamps(len(files[0]), rate_hz)
    if (path / 'times.txt').is_file():
        times_ns = read_stamps(path / 'times.txt', 's')
        stamps_ns = FIRST_STAMP_NS + times_ns[rows_of_images(files[0], len(times_ns), path / 'times.txt')]
    poses = None
    # In the downloaded archives the poses of sequences/NN/ are in poses/NN.txt, beside sequences/.
    official = path.resolve().parent.parent / 'poses' / f'{path.resolve().name}.txt'
    pose_file = next((file for file in (path / 'poses.txt', official) if file.is_file()), None)
    if pose_file:
        poses = read_matrix_poses(pose_file)
        # The poses are those of camera 0; the projection matrices contain the offsets of the other cameras.
        poses = poses[rows_of_images(files[0], len(poses), pose_file)] @ calibrations[0].rig_from_cam
    return calibrated_sequence(path.name, rate_hz, stamps_ns, files, calibrations, poses)


def _calibration(path: Path, label: str, image_file: Path) -> Calibration:
    """Read the 3x4 projection matrix `label`; in a file without labels P0 is first, then P1."""
    text = read_text(path)
    labelled = {line.split(':')[0].strip(): line.partition(':')[2] for line in text.split('\n') if ':' in line}
    if labelled and label not in labelled:
        raise InputError(f'{path} contains {", ".join(labelled)}; needs {label}')
    # Numbers of fixed width may follow each other without a blank or a line break.
    text = re.sub(r'([eE][-+]\d\d)(?=[-+\d])', r'\1 ', labelled[label] if labelled else text)
    first = 0 if labelled else 12 * int(label[1:])
    try:
        values = numbers(text.replace(',', ' ').split())[first:]
        if len(values) < 12 or len(values) % 12 or (labelled and len(values) > 12):
            raise InputError(f'{len(values)} numbers')
        projection = np.reshape(values[:12], (3, 4))
        camera = Camera(projection[:, :3], *image_size(image_file))
        calibration = rectified_calibration(camera, np.eye(3), projection)
    except InputError as error:
        raise InputError(f'{path}: {label}: {error}; needs the 12 numbers of a 3x4 projection matrix') from error
    return calibration
