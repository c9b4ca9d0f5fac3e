"""Pairs from folders of images with depth and poses.

What `loftr_ros.datasets.sequence.open_sequence` reads with depth (TUM RGB-D, TartanAir), the export of ScanNet, and
MegaDepth as LoFTR's authors prepare it.
"""

from __future__ import annotations

import dataclasses
import glob
from collections.abc import Callable
from pathlib import Path

import numpy as np

from loftr_ros.datasets import open_sequence
from loftr_ros.datasets.poses import rigid_transform
from loftr_ros.datasets.text_files import read_matrix
from loftr_ros.datatypes import Camera
from loftr_ros.errors import ConfigError, InputError
from loftr_ros.image import to_grey
from loftr_ros.image_files import list_images, read_image, read_raw
from loftr_ros.training.batch import Pair
from loftr_ros.training.config import PosedConfig
from loftr_ros.training.homography import sample_view
from loftr_ros.training.supervision import bilinear, inverse_depth, points_from_depth

ATTEMPTS = 8
"""Pairs of neighbours that are tried until one overlaps enough."""

OVERVIEW_PX = 128
"""Longer side at which the overlap of whole images is measured."""

SCANNET_DEPTH_M = 1 / 1000


@dataclasses.dataclass(frozen=True, eq=False)
class View:
    """An image with depth and pose.

    Args:
        image: uint8 (H, W) grey. matrix: (3, 3) of its camera [px].
        depth: float32 (h, w) z [m, or the unit of the pose], 0 where unknown. depth_matrix: (3, 3), from the same eye.
        world_from_cam: (4, 4).
    """

    image: np.ndarray
    matrix: np.ndarray
    depth: np.ndarray
    depth_matrix: np.ndarray
    world_from_cam: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class PosedSet:
    """`count` views of one place; `pairs` (P, 2) of those that overlap, None where neighbours are to be tried."""

    name: str
    count: int
    view: Callable[[int], View]
    pairs: np.ndarray | None = None

    def part(self, held_back: bool, share: int) -> PosedSet | None:
        """Return the last of `share` parts of the views, or the others; pairs across the border belong to neither."""
        border = self.count - self.count // share
        first, last = (border, self.count) if held_back else (0, border)
        if self.pairs is not None:
            pairs = self.pairs[((self.pairs >= first) & (self.pairs < last)).all(axis=1)]
            return dataclasses.replace(self, pairs=pairs) if len(pairs) else None
        if last - first < 2:
            return None
        return dataclasses.replace(self, count=last - first, view=lambda index: self.view(first + index))


# --- pairs ----------------------------------------------------------------------------------------------------------


def posed_pair(views: PosedSet, size: tuple[int, int], rng: np.random.Generator, config: PosedConfig) -> Pair:
    """Return crops of `size` (height, width) of two views around a point that both see."""
    best = (None, None, -1.0)
    for _ in range(ATTEMPTS):
        view0, view1 = (views.view(int(index)) for index in _draw(views, rng, config.max_step))
        points01 = _overview(view0, view1, config.tolerance)
        overlap = float(np.isfinite(points01[..., 0]).mean())
        if overlap > best[2]:
            best = ((view0, view1), points01, overlap)
        if overlap >= (config.min_overlap if views.pairs is None else 1e-3):
            break
    chosen, points01, _ = best
    crops = [
        _crop_matrix(view.image.shape, size, share, rng)
        for view, share in zip(chosen, _common_point(points01, chosen, rng), strict=True)
    ]
    return crop_pair(*chosen, *crops, size, config.tolerance)


def crop_pair(
    view0: View, view1: View, crop0: np.ndarray, crop1: np.ndarray, size: tuple[int, int], tolerance: float
) -> Pair:
    """Return the pair of which image i shows at pixel x what view i shows at inv(crop_i) x (3, 3)."""
    sides = []
    for view, crop in ((view0, crop0), (view1, crop1)):
        camera = Camera(crop @ view.matrix, size[1], size[0])
        image = sample_view(view.image, np.linalg.inv(crop), size)
        sides.append((image, _sample_depth(view, camera, tolerance), camera))
    (image0, depth0, camera0), (image1, depth1, camera1) = sides
    cam1_from_cam0 = np.linalg.inv(view1.world_from_cam) @ view0.world_from_cam
    points01 = points_from_depth(depth0, depth1, camera0, camera1, cam1_from_cam0, tolerance)
    points10 = points_from_depth(depth1, depth0, camera1, camera0, np.linalg.inv(cam1_from_cam0), tolerance)
    return Pair(image0, image1, points01, points10)


def _draw(views: PosedSet, rng: np.random.Generator, max_step: int) -> tuple[int, int]:
    if views.pairs is not None:
        return tuple(views.pairs[rng.integers(len(views.pairs))])
    step = int(rng.integers(1, min(max_step, views.count - 1) + 1))
    first = int(rng.integers(views.count - step))
    return first, first + step


def _overview(view0: View, view1: View, tolerance: float) -> np.ndarray:
    """Return `points01` of the two whole images, reduced to OVERVIEW_PX."""
    depths, cameras = [], []
    for view in (view0, view1):
        height, width = view.image.shape
        scale = OVERVIEW_PX / max(height, width)
        matrix = _resize_matrix(scale) @ view.matrix
        cameras.append(Camera(matrix, max(1, round(width * scale)), max(1, round(height * scale))))
        depths.append(_sample_depth(view, cameras[-1], tolerance))
    cam1_from_cam0 = np.linalg.inv(view1.world_from_cam) @ view0.world_from_cam
    return points_from_depth(*depths, *cameras, cam1_from_cam0, tolerance)


def _common_point(points01: np.ndarray, views, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return a place in either image, as shares of its size (x, y), that show the same; the centres when none does."""
    seen = np.argwhere(np.isfinite(points01[..., 0]))
    if not len(seen):
        return np.full(2, 0.5), np.full(2, 0.5)
    row, column = seen[rng.integers(len(seen))]
    places = (np.array([column, row]), points01[row, column])
    return tuple(
        (place + 0.5) * max(view.image.shape) / OVERVIEW_PX / view.image.shape[::-1]
        for place, view in zip(places, views, strict=True)
    )


def _crop_matrix(image: tuple[int, int], size: tuple[int, int], share: np.ndarray, rng: np.random.Generator):
    """Return crop_from_image (3, 3): resized so that a crop of `size` holds half of the image or more of one side.

    The place `share` of the image comes to the middle as far as the image's border allows.
    """
    height, width = size
    cover = max(height / image[0], width / image[1])
    # As for photographs, at most 1.25 times as large: an enlarged image has no detail to match.
    scale = max(cover, min(cover * 2 ** rng.uniform(0, 1), 1.25))
    resized = scale * np.array(image[::-1])
    left_top = np.clip(share * resized - (width / 2, height / 2), 0, np.maximum(resized - (width, height), 0))
    crop = _resize_matrix(scale)
    crop[:2, 2] -= left_top
    return crop


def _resize_matrix(scale: float) -> np.ndarray:
    """(3, 3) from a pixel to its place in the image resized by `scale`; pixels count from their centres."""
    return np.array([[scale, 0, scale / 2 - 0.5], [0, scale, scale / 2 - 0.5], [0, 0, 1]])


def _sample_depth(view: View, camera: Camera, tolerance: float) -> np.ndarray:
    """Return float32 (H, W), the depth at the pixels of `camera`; 0 where unknown and across the edges of objects."""
    x, y = np.meshgrid(np.arange(camera.width), np.arange(camera.height))
    rays = np.stack([x.ravel(), y.ravel(), np.ones(x.size)], axis=1)
    places = (rays @ (view.depth_matrix @ np.linalg.inv(camera.matrix)).T)[:, :2]
    inverse = inverse_depth(view.depth)
    value = bilinear(inverse, places)
    column, row = np.clip(np.rint(places).astype(int), 0, np.array(view.depth.shape[::-1]) - 1).T
    with np.errstate(invalid='ignore'):
        same = np.abs(value - inverse[row, column]) <= tolerance * value  # False for NaN
    depth = np.divide(1.0, value, out=np.zeros_like(value), where=same)
    return depth.astype(np.float32).reshape(camera.height, camera.width)


# --- folders --------------------------------------------------------------------------------------------------------


def open_posed(patterns: str) -> list[PosedSet]:
    """Return the sets in folders or glob patterns separated by ':'.

    Raises:
        InputError: a pattern names no folder, or a folder has no depth or no poses.
    """
    sets = []
    for pattern in filter(None, patterns.split(':')):
        folders = sorted(Path(place) for place in glob.glob(str(Path(pattern).expanduser())))
        folders = [folder for folder in folders if folder.is_dir()]
        if not folders:
            raise InputError(f'data.posed names {pattern}, which is no folder; give folders with depth and poses')
        for folder in folders:
            if (folder / 'scene_info').is_dir():
                sets += _open_megadepth(folder)
            elif (folder / 'color').is_dir() and (folder / 'pose').is_dir():
                sets.append(_open_scannet(folder))
            else:
                sets.append(_open_sequence(folder))
    return sets


def _open_sequence(folder: Path) -> PosedSet:
    sequence = open_sequence(folder)
    camera, poses = sequence.camera0, sequence.world_from_cam0
    missing = [
        name
        for name, there in (
            ('depth', sequence.has_depth),
            ('poses', poses is not None),
            ('camera', camera is not None),
        )
        if not there
    ]
    if missing:
        raise InputError(f'{folder} has no {" and no ".join(missing)}; data.posed needs all of depth, poses and camera')
    if camera.is_distorted:
        raise InputError(f'{folder} has a distorted camera; undistort images and depth before')

    def view(index: int) -> View:
        image = to_grey(sequence.load[0](index))
        return View(image, camera.matrix, sequence.depth0(index), camera.matrix, poses[index])

    return PosedSet(folder.name, len(sequence), view)


def _open_scannet(folder: Path) -> PosedSet:
    """color/N.jpg, depth/N.png [mm], pose/N.txt (camera to world, -inf where lost), intrinsic/intrinsic_*.txt."""
    shapes = ((4, 4), (3, 3))
    matrices = [
        read_matrix(folder / 'intrinsic' / f'intrinsic_{kind}.txt', shapes)[:3, :3] for kind in ('color', 'depth')
    ]
    files = list_images(folder / 'color')
    poses = [_scannet_pose(folder / 'pose' / f'{file.stem}.txt') for file in files]
    good = [i for i, pose in enumerate(poses) if pose is not None]

    def view(number: int) -> View:
        file = files[good[number]]
        depth_file = folder / 'depth' / f'{file.stem}.png'
        depth = read_raw(depth_file, np.uint16, 1, 'depth of ScanNet (PNG with one 16-bit channel)')
        depth_m = depth.astype(np.float32) * np.float32(SCANNET_DEPTH_M)
        return View(to_grey(read_image(file)), matrices[0], depth_m, matrices[1], poses[good[number]])

    return PosedSet(folder.name, len(good), view)


def _scannet_pose(path: Path) -> np.ndarray | None:
    """Return the (4, 4) pose of a file, None where the camera was lost."""
    pose = read_matrix(path, ((4, 4),), finite=False)
    return rigid_transform(pose, f'{path}: the pose') if np.isfinite(pose).all() else None


def _open_megadepth(folder: Path) -> list[PosedSet]:
    """scene_info/*.npz as LoFTR's authors give them; their paths are relative to `folder`."""
    files = sorted((folder / 'scene_info').glob('*.npz'))
    if not files:
        raise InputError(f'{folder / "scene_info"} holds no .npz; take the indices that LoFTR gives for MegaDepth')
    _h5py()  # say now that it is missing, not in a data worker
    return [_megadepth_scene(folder, file) for file in files]


def _megadepth_scene(folder: Path, file: Path) -> PosedSet:
    # Lists of paths and pairs are pickles there, which can run code: docs/training.md says so.
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
        ratio = np.array(depth.shape[::-1]) / image.shape[::-1]  # 1, but for depth of another size
        to_depth = np.array([[ratio[0], 0, ratio[0] / 2 - 0.5], [0, ratio[1], ratio[1] / 2 - 0.5], [0, 0, 1]])
        return View(image, matrix, depth, to_depth @ matrix, np.linalg.inv(poses[index]))

    return PosedSet(file.stem, len(images), view, pairs)


def _h5py():
    try:
        import h5py
    except ImportError as error:
        raise ConfigError('the depth of MegaDepth is in HDF5 files; pip install h5py') from error
    return h5py
