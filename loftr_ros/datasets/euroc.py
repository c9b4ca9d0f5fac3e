"""EuRoC MAV: cam0/ and cam1/ with sensor.yaml and data/, and the poses of the body."""

from __future__ import annotations

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
    files = [list_images(f / 'data' if (f / 'data').is_dir() else f) for f in folders]
    named = [stamps_in_names(side, 'ns') for side in files]
    files, stamps_ns = [side for side, _ in named], named[0][1]
    if len(files) == 2:  # either camera may have dropped frames
        _, index0, index1 = np.intersect1d(stamps_ns, named[1][1], return_indices=True)
        files, stamps_ns = [[files[0][i] for i in index0], [files[1][i] for i in index1]], stamps_ns[index0]
        if not len(stamps_ns):
            raise InputError(f'{root} has no image name that cam0 and cam1 share; needs images with the same stamps')
        left_out = sum(len(side) for side, _ in named) - 2 * len(stamps_ns)
        if left_out:
            logger.warning(
                '%s: %d images are left out because the other camera has no image with their stamp', path, left_out
            )
    calibrations = [read_calibration(f / 'sensor.yaml') for f in folders]
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
