"""The only reader of image files in the package: which files are images, their order, and their pixels.

Pixels are returned as they are stored. The orientation of EXIF is not applied, because calibrations and COLMAP models
refer to the stored pixels. Alpha is dropped; 16 bits are converted to 8 (levels.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from loftr_ros.errors import InputError
from loftr_ros.image import to_colour, to_grey
from loftr_ros.levels import Levels, check_no_depth

SUFFIXES = ('.png', '.jpg', '.jpeg', '.ppm', '.pgm', '.bmp', '.tif', '.tiff', '.webp')
SUFFIX_LIST = ', '.join(SUFFIXES)
RANGE_SAMPLES = 5
"""Number of images, spread over a sequence, that determine the range of grey values of 16-bit images."""


def is_image_file(path: Path, below: Path | None = None) -> bool:
    """Whether the path is a file with the suffix of an image, and neither hidden nor in a hidden folder under `below`.

    macOS writes `._NAME`, which is not an image, beside NAME on other file systems, and `__MACOSX` into archives.
    """
    parts = (path.relative_to(below) if below else Path(path.name)).parts
    hidden = any(part.startswith('.') or part == '__MACOSX' for part in parts)
    return path.suffix.lower() in SUFFIXES and not hidden and path.is_file()


def list_images(folder) -> list[Path]:
    """Return the images in a folder in natural order (2 before 10); InputError if there is none."""
    files = [file for file in Path(folder).iterdir() if is_image_file(file)]
    if not files:
        raise InputError(f'{folder} has no images; needs files that end with {SUFFIX_LIST}')
    return sorted(files, key=natural_order)


def images_below(folder: Path) -> list[Path]:
    """Return the images in a folder and in the folders below it, without hidden ones; the list may be empty."""
    return sorted(file for file in folder.rglob('*') if is_image_file(file, folder))


def natural_order(file: Path) -> tuple:
    """Return a sort key: the folder, then the name with its numbers compared as numbers."""
    parts = re.split(r'(\d+)', file.name, flags=re.ASCII)
    return file.parent, [int(part) if i % 2 else part for i, part in enumerate(parts)], file.name


def read_image(path, levels: Levels | None = None) -> np.ndarray:
    """Return the image uint8 (H, W) or (H, W, 3), blue first.

    Args:
        levels: converter of 16-bit images that all images of a camera share; by default each image has its own range.

    Raises:
        InputError: the file is missing, is not an image, has more than 16 bits, or contains depth.
    """
    return _to_8_bits(_read_pixels(path), path, levels or Levels())


def read_grey(path) -> np.ndarray:
    """Return the image uint8 (H, W)."""
    return to_grey(read_image(path))


def read_colour(path) -> np.ndarray:
    """Return the image uint8 (H, W, 3), blue first."""
    return to_colour(read_image(path))


def image_size(path) -> tuple[int, int]:
    """Return width and height [px] of the image."""
    height, width = read_image(path).shape[:2]
    return width, height


def decode_image(data, name: str) -> np.ndarray:
    """Return the pixels of an encoded image (the bytes of a JPEG or PNG file, for example), without alpha.

    Returns:
        (H, W) or (H, W, 3), blue first, uint8 or uint16 as it was encoded; see `levels.Levels` for 16 bits.

    Raises:
        InputError: the bytes are not an image; `name` is their name in the message.
    """
    return _decode(data, name, cv2.IMREAD_ANYDEPTH | cv2.IMREAD_ANYCOLOR | cv2.IMREAD_IGNORE_ORIENTATION)


def read_raw(path, dtype, channels: int, what: str) -> np.ndarray:
    """Return the pixels of a file that contains other data, such as depth: (H, W), or (H, W, channels) for several.

    Raises:
        InputError: type or number of channels differ; `what` describes in the message what is needed.
    """
    pixels = _decode(_read_bytes(path), path, cv2.IMREAD_UNCHANGED)
    found = pixels.shape[2] if pixels.ndim == 3 else 1
    if pixels.dtype != dtype or found != channels:
        raise InputError(f'{path} has {found} channels of {pixels.dtype}; needs {what}')
    return pixels


def read_depth(path, unit_m: float, source: str) -> np.ndarray:
    """Return the depth of a PNG with one 16-bit channel, float32 (H, W) [m].

    Args:
        unit_m: metres of one step.
        source: what the file belongs to, for messages.
    """
    depth = read_raw(path, np.uint16, 1, f'depth of {source} (PNG with one 16-bit channel)')
    return depth.astype(np.float32) * np.float32(unit_m)


def image_loader(files: list[Path]) -> Callable[[int], np.ndarray]:
    """Return a function that reads the image of an index; all 16-bit images get one range, in any order of reading."""
    levels = Levels(fixed=True)

    def load(index: int) -> np.ndarray:
        pixels = _read_pixels(files[index])
        if levels.range is None and pixels.dtype == np.uint16:
            chosen = np.unique(np.linspace(0, len(files) - 1, RANGE_SAMPLES).astype(int))
            images = [pixels, *(_read_pixels(files[i]) for i in chosen)]
            levels.begin([image for image in images if image.dtype == np.uint16])
        return _to_8_bits(pixels, files[index], levels)

    return load


def _to_8_bits(pixels: np.ndarray, path, levels: Levels) -> np.ndarray:
    check_no_depth(pixels, str(path))
    try:
        return levels.to_8_bits(pixels)
    except InputError as error:
        raise InputError(f'{path}: {error}') from error


def _read_pixels(path) -> np.ndarray:
    return decode_image(_read_bytes(path), path)


def _read_bytes(path) -> np.ndarray:
    try:
        return np.fromfile(path, np.uint8)
    except OSError as error:
        problem = f'cannot be read: {error.strerror or error}' if Path(path).is_file() else 'is not a file'
        raise InputError(f'{path} {problem}; give an image file') from error


def _decode(data, name, flags: int) -> np.ndarray:
    data = np.frombuffer(data, np.uint8) if len(data) else np.empty(0, np.uint8)
    try:
        image = cv2.imdecode(data, flags) if len(data) else None
    except cv2.error as error:
        raise InputError(f'{name} is not an image that OpenCV can read: {error.err}') from error
    if image is None:
        found = f'its {len(data)} bytes are of no format that it knows' if len(data) else 'it is empty'
        raise InputError(
            f'{name} is not an image that OpenCV can read: {found}; needs an image file: remove it or write it again'
        )
    return image
