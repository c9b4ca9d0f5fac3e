"""Association of images, depth, poses and stamps: by stamps, or by the numbers in file names."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import numpy as np

from loftr_ros.datasets.text_files import stamps_to_ns
from loftr_ros.errors import InputError

logger = logging.getLogger(__name__)


def stamps_in_names(files: list[Path], convention: str) -> tuple[list[Path], np.ndarray]:
    """Return the files in the order of the stamps in their names, and the stamps (N,) int64 [ns].

    Args:
        convention: 's' or 'ns', the unit of stamps whose size does not tell it.
    """
    try:
        stamps_ns = stamps_to_ns([file.stem for file in files], convention)
    except InputError as error:
        raise InputError(
            f'{files[0].parent} has images that are not named by their stamps [{convention}]: {error}; rename them'
        ) from error
    order = np.argsort(stamps_ns, kind='stable')
    files, stamps_ns = [files[i] for i in order], stamps_ns[order]
    for i in np.flatnonzero(np.diff(stamps_ns) == 0):
        raise InputError(f'{files[i]} and {files[i + 1].name} have the same stamp; needs one image for each stamp')
    return files, stamps_ns


def check_pairs(left: list[Path], right: list[Path], name) -> None:
    """Raise InputError unless each left image has a right one: equal counts, and equal numbers if names share any."""
    if len(left) != len(right):
        raise InputError(f'{name} has {len(left)} left and {len(right)} right images; needs a right one for each left')
    numbers_left, numbers_right = ([re.findall(r'\d+', file.stem)[-1:] for file in side] for side in (left, right))
    if any(number in numbers_right for number in numbers_left):
        for file0, file1, number0, number1 in zip(left, right, numbers_left, numbers_right, strict=True):
            if number0 != number1:
                raise InputError(
                    f'{name} has the right image {file1.name} beside the left image {file0.name}; needs the same '
                    'numbers on both sides: delete the images without a partner'
                )


def nearest_rows(stamps_ns: np.ndarray, others_ns: np.ndarray) -> np.ndarray:
    """Return the index of the nearest other stamp for each stamp; of two as near, the earlier one."""
    order = np.argsort(others_ns)
    sorted_ns = others_ns[order]
    after = np.clip(np.searchsorted(sorted_ns, stamps_ns), 1, max(len(sorted_ns) - 1, 1))
    before = after - 1
    after = np.minimum(after, len(sorted_ns) - 1)
    return order[np.where(stamps_ns - sorted_ns[before] <= sorted_ns[after] - stamps_ns, before, after)]


def nearest_stamps(stamps_ns: np.ndarray, others_ns: np.ndarray, slack_ns: int, path, what: str):
    """Return the indices of the stamps that have another one within `slack_ns`, and the index of the nearest for each.

    A warning says how many stamps have none. `path` and `what` name the origin and the kind of `others_ns` in messages.

    Raises:
        InputError: no stamp has another one.
    """
    nearest = nearest_rows(stamps_ns, others_ns)
    keep = np.flatnonzero(np.abs(others_ns[nearest] - stamps_ns) <= slack_ns)
    if not len(keep):
        spans = [f'{s.min() / 1e9:.3f} .. {s.max() / 1e9:.3f} s' for s in (stamps_ns, others_ns)]
        raise InputError(
            f'{path}: no image has {what} within {slack_ns / 1e6:g} ms: the stamps of the images are {spans[0]}, those '
            f'of {what} {spans[1]}; use files of the same recording and clock'
        )
    if len(keep) < len(stamps_ns):
        logger.warning(
            '%s: %d of %d images have no %s within %g ms and are left out',
            *(path, len(stamps_ns) - len(keep), len(stamps_ns), what, slack_ns / 1e6),
        )
    return keep, nearest[keep]


def rows_of_images(files: list[Path], count: int, path) -> np.ndarray:
    """Return the row of `path` for each image: row i for file i if the counts agree, else row N for image number N."""
    if count == len(files):
        return np.arange(count)
    numbers_of = [number_in_name(file) for file in files]
    if count < len(files) or any(n is None or n >= count for n in numbers_of):
        raise InputError(
            f'{path} has {count} rows for {len(files)} images, {files[0].name} to {files[-1].name}; '
            'needs a row for each image, or row N (from 0) for the image with the number N'
        )
    return np.array(numbers_of)


def number_in_name(file: Path) -> int | None:
    """Return the number at the beginning of a file's name (000012_left.png: 12), or None."""
    match = re.match(r'\d+', file.name, re.ASCII)
    return int(match[0]) if match else None
