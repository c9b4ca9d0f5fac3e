"""Pairs of images with a true motion or homography, in the lists and folders of other projects.

* SuperGlue's list (a text file): path0 path1 turn0 turn1 K0 (9) K1 (9) cam1_from_cam0 (16) in each row.
* LoFTR's index (.npz): image_paths, intrinsics, poses and pair_infos, as its authors prepare MegaDepth.
* HPatches, a scene or a folder of scenes: 1.ppm to 6.ppm and H_1_2 to H_1_6; or img1.ppm and H1to2p (Oxford affine).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from loftr_ros.camera import Camera
from loftr_ros.datasets.poses import rigid_transform
from loftr_ros.datasets.text_files import read_matrix
from loftr_ros.datatypes import Frame
from loftr_ros.errors import InputError
from loftr_ros.geometry import invert_transform
from loftr_ros.image_files import is_image_file, read_image

COLUMNS = 38
HOMOGRAPHY_NAME = re.compile(r'H_?1(?:_|to)(\d+)p?')
FIRST_IMAGE_NAME = re.compile(r'(img)?1')


class ImagePair(NamedTuple):
    """Two images, their names, and how the second one follows from the first one: by a motion or by a homography."""

    names: tuple[str, str]
    frame0: Frame
    frame1: Frame
    cam1_from_cam0: np.ndarray | None = None  # (4, 4)
    image1_from_image0: np.ndarray | None = None  # (3, 3)

    @property
    def name(self) -> str:
        return ' '.join(self.names)


@dataclasses.dataclass(frozen=True, eq=False)
class PairSet:
    """Pairs that are read one by one.

    Args:
        load: number of a pair, 0 .. count - 1, to the pair; it may raise InputError.
        has_motion: whether all pairs have a true motion; otherwise all have a homography.
    """

    name: str
    count: int
    load: Callable[[int], ImagePair]
    has_motion: bool = True


def is_pair_list(path: Path) -> bool:
    """Whether `read_pair_list` reads the path: a file .txt or .npz, or a folder of homographies."""
    if path.is_file():
        return path.suffix in ('.txt', '.npz')
    return path.is_dir() and bool(_scenes(path))


def read_pair_list(path: Path, images: Path | None = None) -> PairSet:
    """Return the pairs of a list or a folder of homographies.

    Args:
        images: folder that paths in a list are relative to; None: the folder of the list.

    Raises:
        InputError: the list is not complete, with the place.
    """
    if path.is_dir():
        return _homographies(path)
    images = images or path.parent
    return _superglue_list(path, images) if path.suffix == '.txt' else _loftr_index(path, images)


# --- SuperGlue's list ------------------------------------------------------------------------------------------------


def _superglue_list(path: Path, images: Path) -> PairSet:
    rows = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        cells = line.split()
        if not cells or cells[0].startswith('#'):
            continue
        try:
            values = np.array(cells[2:], np.float64)
        except ValueError:
            values = np.empty(0)
        if len(cells) != COLUMNS or len(values) != COLUMNS - 2 or not np.isfinite(values).all():
            raise InputError(
                f'{path}, line {number}: needs {COLUMNS} columns (two paths, two turns, K0, K1 and cam1_from_cam0), '
                f'got {len(cells)}'
            )
        pose = rigid_transform(values[20:].reshape(4, 4), f'{path}, line {number}: the motion')
        turns = values[:2].astype(int) % 4
        rows.append((cells[:2], turns, (values[2:11].reshape(3, 3), values[11:20].reshape(3, 3)), pose))
    if not rows:
        raise InputError(f'{path} has no pair')

    def load(index: int) -> ImagePair:
        names, turns, matrices, pose = rows[index]
        frames, turned = zip(
            *(
                _turned(read_image(images / name), matrix, turn)
                for name, matrix, turn in zip(names, matrices, turns, strict=True)
            ),
            strict=True,
        )
        return ImagePair(tuple(names), *frames, turned[1] @ pose @ turned[0].T)

    return PairSet(path.stem, len(rows), load)


def _turned(image: np.ndarray, matrix: np.ndarray, quarter_turns: int) -> tuple[Frame, np.ndarray]:
    """Return the image turned counter-clockwise, as it is seen upright, and turned_from_camera (4, 4)."""
    turned_from_camera = np.eye(4)
    for _ in range(quarter_turns):
        # Pixel (x, y) goes to (y, w - 1 - x): the new camera has x = old y and y = -old x.
        (fx, _, cx), (_, fy, cy) = matrix[:2]
        matrix = np.array([[fy, 0, cy], [0, fx, image.shape[1] - 1 - cx], [0, 0, 1]])
        image = np.ascontiguousarray(np.rot90(image))
        turned_from_camera = np.array([[0, 1, 0, 0], [-1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]) @ turned_from_camera
    return Frame(image, Camera(matrix, image.shape[1], image.shape[0])), turned_from_camera


# --- LoFTR's index ---------------------------------------------------------------------------------------------------


def _loftr_index(path: Path, images: Path) -> PairSet:
    # Lists of paths and pairs are stored as pickles, which can run code (docs/training.md warns of that).
    with np.load(path, allow_pickle=True) as index:
        missing = {'image_paths', 'intrinsics', 'poses', 'pair_infos'} - set(index.files)
        if missing:
            raise InputError(f'{path} has no {", ".join(sorted(missing))}; needs an index of MegaDepth as LoFTR has it')
        names, matrices, poses = (index[name] for name in ('image_paths', 'intrinsics', 'poses'))
        pairs = [tuple(info[0]) for info in index['pair_infos']]
    if not pairs:
        raise InputError(f'{path} has no pair')

    def frame(number: int) -> Frame:
        image = read_image(images / str(names[number]))
        return Frame(image, Camera(np.asarray(matrices[number], np.float64), image.shape[1], image.shape[0]))

    def load(index: int) -> ImagePair:
        first, second = pairs[index]
        motion = np.asarray(poses[second], np.float64) @ invert_transform(np.asarray(poses[first], np.float64))
        return ImagePair((str(names[first]), str(names[second])), frame(first), frame(second), motion)

    return PairSet(path.stem, len(pairs), load)


# --- homographies ----------------------------------------------------------------------------------------------------


def _scenes(path: Path) -> list[Path]:
    """Return the folder or the folders in it that contain homographies."""
    folders = [path, *sorted(folder for folder in path.iterdir() if folder.is_dir())]
    return [folder for folder in folders if any(map(_second_image, folder.iterdir()))]


def _second_image(file: Path) -> str:
    """Return the number of the second image of a file with a homography; empty for other files."""
    found = HOMOGRAPHY_NAME.fullmatch(file.name)
    return found[1] if found else ''


def _homographies(path: Path) -> PairSet:
    pairs = []
    for folder in _scenes(path):
        pictures = {file.stem: file for file in folder.iterdir() if is_image_file(file)}
        first = next((file for stem, file in pictures.items() if FIRST_IMAGE_NAME.fullmatch(stem)), None)
        for file in sorted(folder.iterdir()):
            number = _second_image(file)
            if not number:
                continue
            second = pictures.get(number) or pictures.get(f'img{number}')
            if first is None or second is None:
                raise InputError(f'{file} is a homography of images 1 and {number}, but {folder} does not have both')
            pairs.append((first, second, file))

    def load(index: int) -> ImagePair:
        first, second, file = pairs[index]
        frames = (Frame(read_image(image), None) for image in (first, second))
        names = tuple(f'{image.parent.name}/{image.name}' for image in (first, second))
        return ImagePair(names, *frames, image1_from_image0=read_matrix(file, ((3, 3),)))

    return PairSet(path.name, len(pairs), load, has_motion=False)
