"""MegaDepth as LoFTR's authors prepare it: scene_info/*.npz beside the images and the depth in HDF5 files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from loftr_ros.datasets.posed import PosedSet, View
from loftr_ros.errors import ConfigError, InputError
from loftr_ros.image import scale_matrix, to_grey
from loftr_ros.image_files import read_image


def is_megadepth(path: Path) -> bool:
    return (path / 'scene_info').is_dir()


def read_megadepth(path: Path) -> list[PosedSet]:
    """Return the scenes of a folder: photographs of many cameras, with the pairs that overlap."""
    files = sorted((path / 'scene_info').glob('*.npz'))
    if not files:
        raise InputError(f'{path / "scene_info"} has no .npz; needs the index files that LoFTR provides for MegaDepth')
    _h5py()  # raises here if it is missing, not in a data worker
    return [_scene(path, file) for file in files]


def _scene(folder: Path, file: Path) -> PosedSet:
    """Return the scene of an index file, whose paths are relative to `folder`."""
    # Lists of paths and pairs are stored as pickles, which can run code (docs/training.md warns of that).
    with np.load(file, allow_pickle=True) as info:
        images, depths, matrices, poses, pair_infos = (
            info[name] for name in ('image_paths', 'depth_paths', 'intrinsics', 'poses', 'pair_infos')
        )
    pairs = np.array([tuple(info[0]) for info in pair_infos], np.int64).reshape(-1, 2)

    def view(index: int) -> View:
        image = to_grey(read_image(folder / images[index]))
        with _h5py().File(folder / depths[index], 'r') as store:
            depth = np.asarray(store['depth'], np.float32)
        matrix = np.asarray(matrices[index], np.float64)
        ratio = np.array(depth.shape[::-1]) / image.shape[::-1]  # 1, unless the depth is of another size
        return View(image, matrix, depth, scale_matrix(ratio) @ matrix, np.linalg.inv(poses[index]))

    return PosedSet(file.stem, len(images), view, pairs)


def _h5py():
    try:
        import h5py
    except ImportError as error:
        raise ConfigError('the depth of MegaDepth is in HDF5 files; pip install h5py') from error
    return h5py
