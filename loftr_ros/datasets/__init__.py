"""Folders and data sets as sequences of frames: `open_sequence` recognises the layout, one file reads each."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from loftr_ros.datasets import colmap, euroc, images, kitti, megadepth, saved, scannet, tartanair, tum
from loftr_ros.datasets.calibration import Calibration, cam1_from_cam0, read_calibrations
from loftr_ros.datasets.posed import PosedSet, posed_set
from loftr_ros.datasets.rendered import rendered_drive
from loftr_ros.datasets.saved import save_sequence
from loftr_ros.datasets.sequence import DEFAULT_RATE_HZ, Sequence
from loftr_ros.errors import InputError
from loftr_ros.image_files import SUFFIX_LIST

__all__ = ['LAYOUTS', 'Layout', 'Sequence', 'open_posed', 'open_sequence', 'rendered_drive', 'save_sequence']


class Layout(NamedTuple):
    """How the files of a data set are arranged.

    Args:
        contents: name and the files by which a user recognises it.
        matches: whether a path has this layout.
        read: the sequence of a path; the second argument is the frame rate [Hz] where the files have no stamps.
    """

    contents: str
    matches: Callable[[Path], bool]
    read: Callable[[Path, float], Sequence]


LAYOUTS = (
    Layout('KITTI odometry (calib.txt, image_0/)', kitti.is_kitti, kitti.read_kitti),
    Layout('TartanAir (image_lcam_front/)', tartanair.is_tartanair, tartanair.read_tartanair),
    Layout('EuRoC (cam0/sensor.yaml)', euroc.is_euroc, euroc.read_euroc),
    Layout(
        'COLMAP (images/ and a model as text: `colmap model_converter --output_type TXT`)',
        *(colmap.is_colmap, colmap.read_colmap),
    ),
    Layout('TUM RGB-D (rgb/)', tum.is_tum, tum.read_tum),
    Layout('ScanNet (color/ and pose/)', scannet.is_scannet, scannet.read_scannet),
    Layout('left/ and right/', saved.is_saved, saved.read_saved),
    Layout(f'images ({SUFFIX_LIST})', images.is_images, images.read_images),
)
"""The first that matches is read: the more specific ones first, any folder with images last."""


def open_sequence(path, camera_files=None, rate_hz: float | None = None) -> Sequence:
    """Open a folder, recognised by what lies in it; nothing is decoded yet.

    Known: what `save_sequence` writes, KITTI odometry, TartanAir, EuRoC, TUM RGB-D, COLMAP's text models beside
    images/, and a folder of images (or left/ and right/).

    Args:
        camera_files: calibrations (YAML) of the camera, or of left and right, which win over the folder's own; one file
            each, or one of Kalibr for both.
        rate_hz: frame rate, where the folder has no stamps (10 Hz by default).
    """
    path = Path(path)
    if not path.is_dir():
        found = 'a file' if path.exists() else 'nothing'
        raise InputError(f'{path} is {found}; needs a folder of images or of a data set (a rosbag is for `bags`)')
    calibrations = [calibration for file in camera_files or () for calibration in read_calibrations(file)]
    for layout in LAYOUTS:
        if layout.matches(path):
            sequence = layout.read(path, rate_hz or DEFAULT_RATE_HZ)
            return _with_cameras(sequence, calibrations) if calibrations else sequence
    found = ', '.join(sorted(entry.name for entry in path.iterdir())[:8]) or 'nothing'
    known = '; '.join(layout.contents for layout in LAYOUTS)
    raise InputError(f'{path} contains {found}; needs one of these layouts: {known}')


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


def open_posed(path) -> list[PosedSet]:
    """Open a folder of images with depth and poses: the scenes of MegaDepth, or one sequence that has both."""
    path = Path(path)
    return megadepth.read_megadepth(path) if megadepth.is_megadepth(path) else [posed_set(open_sequence(path))]
