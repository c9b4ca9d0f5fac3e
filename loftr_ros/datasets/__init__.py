"""Readers of image folders and data sets: the table of layouts, and `open_sequence`, which chooses one of them.

To add a layout, write a module with a function that recognises it and one that reads it, and add a row to LAYOUTS.
"""

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
    """How a data set arranges its files.

    Args:
        contents: its name and the files that identify it, for error messages.
        matches: whether a path has this layout.
        read: returns the sequence of a path; the second argument is the frame rate [Hz] for files without stamps.
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
"""In the order in which they are tried: specific layouts first, any folder with images last."""


def open_sequence(path, camera_files=None, rate_hz: float | None = None) -> Sequence:
    """Open a folder that has one of the LAYOUTS. Images are read when a frame is asked for.

    Args:
        camera_files: calibration files (YAML) of the camera, or of the left and the right camera, instead of those in
            the folder: one file for each camera, or one file of Kalibr for both.
        rate_hz: frame rate for a folder without stamps, 10 Hz by default.

    Raises:
        InputError: no layout matches, or a file of the folder cannot be used.
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
            f'{sequence.name} has {len(sequence.load)} cameras but {len(calibrations)} calibrations; needs one for each'
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
