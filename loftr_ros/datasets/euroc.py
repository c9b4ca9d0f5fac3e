"""EuRoC MAV: cam0/ and cam1/ with sensor.yaml and data/, and the poses of the body."""

from __future__ import annotations

import functools
import logging
from pathlib import Path

import numpy as np

from loftr_ros.datasets.association import nearest_stamps, stamps_in_names
from loftr_ros.datasets.calibration import calibrated_sequence, read_calibration
from loftr_ros.datasets.poses import EUROC_COLUMNS, read_stamped_poses
from loftr_ros.datasets.sequence import Sequence
from loftr_ros.errors import InputError
from loftr_ros.image_files import list_images

logger = logging.getLogger(__name__)

POSE_SLACK_NS = 5_000_000
"""Largest difference between the stamps of an image and of its pose."""


def is_euroc(path: Path) -> bool:
    return any((path / sub / 'cam0' / 'sensor.yaml').is_file() for sub in ('.', 'mav0'))


def read_euroc(path: Path, rate_hz: float) -> Sequence:
    """Read the distorted images, whose names are stamps [ns]; the poses are those of the camera, not of the body."""
    root = path if (path / 'cam0').is_dir() else path / 'mav0'
    folders = [root / name for name in ('cam0', 'cam1') if (root / name / 'sensor.yaml').is_file()]
    files, stamps_ns = _synchronized_images(folders)
    calibrations = [read_calibration(folder / 'sensor.yaml') for folder in folders]
    truth = root / 'state_groundtruth_estimate0' / 'data.csv'
    poses = None
    if truth.is_file():
        if calibrations[0].rig_from_cam is None:
            raise InputError(f'{folders[0] / "sensor.yaml"} has no T_BS, the pose of the camera in the body; add it')
        truth_ns, body_poses = read_stamped_poses(truth, EUROC_COLUMNS, 'ns')
        keep, nearest = nearest_stamps(stamps_ns, truth_ns, POSE_SLACK_NS, truth, 'pose')
        poses = body_poses[nearest] @ calibrations[0].rig_from_cam
        stamps_ns, files = stamps_ns[keep], [[side[i] for i in keep] for side in files]
    return calibrated_sequence(path.name, rate_hz, stamps_ns, files, calibrations, poses)


def _synchronized_images(folders: list[Path]) -> tuple[list[list[Path]], np.ndarray]:
    """Return the images of each camera that have the stamp of one in all cameras, and these stamps (N,) [ns]."""
    sides = []
    for folder in folders:
        data = folder / 'data'
        sides.append(stamps_in_names(list_images(data if data.is_dir() else folder), 'ns'))
    stamps_ns = functools.reduce(np.intersect1d, [stamps for _, stamps in sides])
    if not len(stamps_ns):
        names = ' and '.join(folder.name for folder in folders)
        raise InputError(f'{folders[0].parent} has no image name that {names} share; needs images with the same stamps')
    left_out = sum(len(stamps) - len(stamps_ns) for _, stamps in sides)
    if left_out:
        logger.warning(
            '%s: %d images are left out because the other camera has no image with their stamp',
            *(folders[0].parent, left_out),
        )
    return [[files[i] for i in np.searchsorted(stamps, stamps_ns)] for files, stamps in sides], stamps_ns
