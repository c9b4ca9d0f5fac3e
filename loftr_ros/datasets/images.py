"""Plain folders of images, without calibration and poses."""

from __future__ import annotations

import re
from pathlib import Path

from loftr_ros.datasets.association import stamps_in_names
from loftr_ros.datasets.sequence import Sequence, constant_rate_stamps, rate_of
from loftr_ros.image_files import image_loader, is_image_file, list_images

EPOCH_NAME = re.compile(r'1\d{9}(\.\d+|\d{3}|\d{6}|\d{9})', re.ASCII)
"""File names that are times from 2001 to 2033, in s with decimals, ms, us or ns."""


def is_images(path: Path) -> bool:
    return path.is_dir() and any(is_image_file(file) for file in path.iterdir())


def read_images(path: Path, rate_hz: float) -> Sequence:
    """Read images in natural order; if all names are times since 1970, they are the stamps."""
    files = list_images(path)
    stamps_ns = constant_rate_stamps(len(files), rate_hz)
    if all(EPOCH_NAME.fullmatch(file.stem) for file in files):
        files, stamps_ns = stamps_in_names(files, 's')
        rate_hz = rate_of(stamps_ns, rate_hz)
    return Sequence(path.name, rate_hz, stamps_ns, (image_loader(files),), frame_id0='camera_optical_frame')
