"""Pairs of images for the acceptance of a pose: unrelated ones, for which every pose is false, and related ones.

Unrelated: rooms of different seeds, plain rooms, photographs of different folders, two different sequences, a
photograph and its mirror image, a photograph turned upside down (whose true pose is a rotation by 180 degrees).
Related: rendered drives, plain rooms, real sequences at several steps, two directions of a panorama.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from plain_rooms import CAMERA as PLAIN_CAMERA
from plain_rooms import plain_room_pair

from loftr_ros.camera import Camera
from loftr_ros.datasets import open_sequence, rendered_drive
from loftr_ros.datatypes import Frame
from loftr_ros.evaluation.relative_pose import pairs as pairs_of
from loftr_ros.geometry import rotation_from_vector, transform
from loftr_ros.image_files import image_size, read_colour, read_grey
from loftr_ros.training.homography import panorama_view

LONGER_PX = 640
FOCAL_SHARE = 0.9
"""Focal length of the camera that a photograph is given, over its longer side; 58 degrees, as of a phone."""

DRIVE_STEPS = (1, 2, 4, 8, 12, 16, 20)
SEQUENCE_STEPS = {
    'kitti06': (1, 3, 6, 10),
    'lund_door': (1, 2, 3),
    'tartanair_stereo_rgbd': (1, 3),
    'tum_fr1_rgbd': (3,),
}
PANORAMA_TURNS_DEG = (2, 8, 20)
UPSIDE_DOWN = 'upside down'


class View(NamedTuple):
    """An image and its camera; `key` names it, so that features are extracted once."""

    key: str
    load: Callable[[], np.ndarray]
    camera: Camera


class PosePair(NamedTuple):
    """Two views and the true cam1_from_cam0 (4, 4); None: they show different places, every pose is false.

    A translation of 0 means a pure rotation.
    """

    kind: str
    view0: View
    view1: View
    truth: np.ndarray | None

    @property
    def is_related(self) -> bool:
        return self.truth is not None and self.kind != UPSIDE_DOWN


def unrelated_pairs(images: Path, data: Path, count: int, seed: int = 0) -> Iterator[PosePair]:
    """Yield about `count` pairs for which the answer is a failure, or, upside down, a rotation."""
    rng = np.random.default_rng(seed)
    photographs = _photographs(images, rng)
    rooms = [_drive_view(1000 + 17 * seed + number, frame) for number in range(count // 20) for frame in (0, 15)]
    plain = [_plain_view(1000 + 31 * seed + number) for number in range(count // 16)]
    others = [view for name in SEQUENCE_STEPS for view in _sequence_views(data / name)]
    share = count // 10
    yield from _of_different_places('rooms', rooms, rooms, 2 * share, rng)
    yield from _of_different_places('plain rooms', plain, plain, 2 * share, rng)
    yield from _of_different_places('photographs', photographs, photographs, 3 * share, rng)
    yield from _of_different_places('sequences', others, [*others, *rooms], share, rng)
    half_turn = transform(np.diag([-1.0, -1.0, 1.0]), np.zeros(3))
    for view in photographs[:share]:
        yield PosePair(UPSIDE_DOWN, view, _changed(view, 'turned', _turn), half_turn)
    for view in photographs[-share:]:
        yield PosePair('mirrored', view, _changed(view, 'mirrored', _mirror), None)


def related_pairs(images: Path, data: Path, rooms: int, seed: int = 0) -> Iterator[PosePair]:
    """Yield pairs of known motion: of `rooms` rendered drives and twice as many plain rooms, and of real images."""
    for number in range(2000 + 17 * seed, 2000 + 17 * seed + rooms):
        for step in DRIVE_STEPS:
            yield drive_pair(number, 0, step)
    for number in range(2000 + 31 * seed, 2000 + 31 * seed + 2 * rooms):
        view0, view1 = _plain_view(number), _plain_view(number, 1)
        yield PosePair('plain rooms', view0, view1, _plain_room(number)[2])
    for name, steps in SEQUENCE_STEPS.items():
        sequence = open_sequence(data / name)
        for step in steps:
            for pair, frame0, frame1, truth in pairs_of(sequence, step):
                first, _, second = pair.partition('-')
                views = (_frame_view(f'{name} {index}', f) for index, f in ((first, frame0), (second, frame1)))
                yield PosePair(f'{name}, {step} apart', *views, truth)
    yield from _panorama_pairs(images, np.random.default_rng(seed))


def drive_pair(seed: int, start: int, step: int) -> PosePair:
    """Return the frames `start` and `start + step` of the rendered drive of a seed."""
    poses = _drive(seed).world_from_cam0
    truth = np.linalg.inv(poses[start + step]) @ poses[start]
    return PosePair('drive', _drive_view(seed, start), _drive_view(seed, start + step), truth)


def _of_different_places(kind: str, some: list[View], others: list[View], count: int, rng) -> Iterator[PosePair]:
    """Yield `count` pairs, or all, in random order. The key begins with the place, up to a space or slash."""
    candidates = [(view0, view1) for view0 in some for view1 in others if _place(view0) != _place(view1)]
    for number in rng.permutation(len(candidates))[:count]:
        yield PosePair(kind, *candidates[number], None)


def _place(view: View) -> str:
    return view.key.split('/')[0].split(' ')[0]


def _photographs(images: Path, rng) -> list[View]:
    """Return the photographs of the folder in random order, without textures and panoramas."""
    paths = [path for path in sorted(images.glob('*/*.jpg')) if not path.parent.name.startswith(('pano_', 'tex_'))]
    return [_photograph(paths[number]) for number in rng.permutation(len(paths))]


def _photograph(path: Path) -> View:
    size = image_size(path)
    size = tuple(round(side * LONGER_PX / max(size)) for side in size)

    def load():
        return cv2.resize(read_colour(path), size, interpolation=cv2.INTER_AREA)

    return View(f'{path.parent.name}/{path.stem}', load, _camera(size))


def _camera(size: tuple[int, int]) -> Camera:
    focal = FOCAL_SHARE * max(size)
    return Camera([[focal, 0, (size[0] - 1) / 2], [0, focal, (size[1] - 1) / 2], [0, 0, 1]], *size)


def _changed(view: View, how: str, change) -> View:
    return View(f'{view.key} {how}', lambda: change(view.load()), view.camera)


def _turn(image: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(image[::-1, ::-1])


def _mirror(image: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(image[:, ::-1])


@functools.lru_cache(maxsize=2)
def _drive(seed: int):
    return rendered_drive(seed)


def _drive_view(seed: int, frame: int) -> View:
    return View(f'room{seed} {frame}', lambda: _drive(seed).frames(frame)[0].image, _drive(seed).camera0)


@functools.lru_cache(maxsize=4)
def _plain_room(seed: int):
    return plain_room_pair(seed)


def _plain_view(seed: int, side: int = 0) -> View:
    return View(f'plain{seed} {side}', lambda: _plain_room(seed)[side], PLAIN_CAMERA)


def _frame_view(key: str, frame: Frame) -> View:
    return View(key, lambda: frame.image, frame.camera)


def _sequence_views(folder: Path) -> list[View]:
    sequence = open_sequence(folder)
    return [
        View(f'{folder.name} {index}', lambda i=index: sequence.frames(i)[0].image, sequence.camera0)
        for index in range(0, len(sequence), 3)
    ]


def _panorama_pairs(images: Path, rng) -> Iterator[PosePair]:
    size = (480, 640)
    camera = _camera(size[::-1])
    for path in sorted(images.glob('pano_*/*.jpg')):
        grey = read_grey(path)
        for turn_deg in PANORAMA_TURNS_DEG:
            axis = rng.normal(size=3)
            cam0_from_1 = rotation_from_vector(np.deg2rad(turn_deg) * axis / np.linalg.norm(axis))
            pano_from_0 = rotation_from_vector([0, rng.uniform(-np.pi, np.pi), 0])
            views = []
            for side, pano_from_cam in enumerate((pano_from_0, pano_from_0 @ cam0_from_1)):
                load = functools.partial(panorama_view, grey, camera.matrix, pano_from_cam, size)
                views.append(View(f'{path.stem} {turn_deg} {side}', load, camera))
            yield PosePair('panoramas', *views, transform(cam0_from_1.T, np.zeros(3)))
