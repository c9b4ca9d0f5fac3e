"""COLMAP: a folder images/ and a reconstruction as text (cameras.txt, images.txt)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from loftr_ros.camera import Camera, CameraModel
from loftr_ros.datasets.poses import pose_from_numbers
from loftr_ros.datasets.sequence import Sequence, constant_rate_stamps
from loftr_ros.datasets.text_files import Row, number, numbers, read_table, read_text, whole_number
from loftr_ros.errors import InputError
from loftr_ros.geometry import invert_transform
from loftr_ros.image import CORNER_OFFSET_PX
from loftr_ros.image_files import image_loader, natural_order

COLMAP_MODELS = {
    'SIMPLE_PINHOLE': ('f', 'cx', 'cy'),
    'PINHOLE': ('fx', 'fy', 'cx', 'cy'),
    'SIMPLE_RADIAL': ('f', 'cx', 'cy', 'k1'),
    'RADIAL': ('f', 'cx', 'cy', 'k1', 'k2'),
    'OPENCV': ('fx', 'fy', 'cx', 'cy', 'k1', 'k2', 'p1', 'p2'),
    'OPENCV_FISHEYE': ('fx', 'fy', 'cx', 'cy', 'k1', 'k2', 'k3', 'k4'),
    'FULL_OPENCV': ('fx', 'fy', 'cx', 'cy', 'k1', 'k2', 'p1', 'p2', 'k3', 'k4', 'k5', 'k6'),
}
"""Parameters of the models that CameraModel can express, in COLMAP's order (src/colmap/sensor/models.h)."""


def is_colmap(path: Path) -> bool:
    return (path / 'images').is_dir() and bool(_models(path))


def _models(path: Path) -> list[Path]:
    """Return the folders with a model as text: the folder itself, or up to two levels below (sparse/0)."""
    cameras = (file for levels in ('', '*/', '*/*/') for file in path.glob(f'{levels}cameras.txt'))
    return sorted(file.parent for file in cameras if (file.parent / 'images.txt').is_file())


def read_colmap(path: Path, rate_hz: float) -> Sequence:
    """Read the registered images, in natural order; they need one common camera, and the scale is arbitrary."""
    models = _models(path)
    if len(models) > 1:
        found = ', '.join(str(model.relative_to(path)) for model in models)
        raise InputError(f'{path} contains several COLMAP models: {found}; needs one: move the others elsewhere')
    cameras, images = read_cameras(models[0] / 'cameras.txt'), _registered_images(models[0] / 'images.txt')
    files = sorted((path / 'images' / name for name in images), key=natural_order)
    missing = [file.name for file in files if not file.is_file()]
    if missing or not files:
        raise InputError(
            f'{models[0]} has the poses of {len(files)} images, of which images/ lacks {len(missing)} ({missing[:3]}); '
            'needs at least one image, and all of them in images/'
        )
    numbers = sorted({number for number, _ in images.values()})
    if len(numbers) > 1 or numbers[0] not in cameras:
        raise InputError(
            f'{models[0]} has images of the cameras {numbers}, and cameras.txt has {sorted(cameras)}; a sequence needs '
            'one camera: reconstruct with `--ImageReader.single_camera 1`, or split the model'
        )
    return Sequence(
        name=path.name,
        rate_hz=rate_hz,
        stamps_ns=constant_rate_stamps(len(files), rate_hz),
        load=(image_loader(files),),
        camera0=cameras[numbers[0]],
        frame_id0='camera_optical_frame',
        world_from_cam0=np.stack([images[file.relative_to(path / 'images').as_posix()][1] for file in files]),
    )


def _registered_images(path: Path) -> dict[str, tuple[int, np.ndarray]]:
    """Return the number of the camera and world_from_cam (4, 4) of each image name.

    Two lines for each image: IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME with cam_from_world, then its points.
    """
    images = {}
    lines = iter(enumerate(read_text(path).split('\n'), 1))
    for line_number, line in lines:
        if not line.strip() or line.startswith('#'):
            continue
        row = Row(path, line_number, line.split(maxsplit=9))
        try:
            if len(row.words) != 10:
                raise InputError(f'has {len(row.words)} fields')
            w, x, y, z, *translation = row.words[1:8]
            cam_from_world = pose_from_numbers((*translation, x, y, z, w))
            name, camera = row.words[9].strip(), whole_number(row.words[8])
        except InputError as error:
            needed = 'IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME'
            raise row.error(f'is not an image: {error}; needs "{needed}", got {line[:80]!r}') from error
        if name in images:
            raise row.error(f'repeats the image {name}; needs one pose for each image')
        images[name] = camera, invert_transform(cam_from_world)
        _check_points(Row(path, *next(((n, points.split()) for n, points in lines), (line_number + 1, []))), name)
    return images


def _check_points(row: Row, name: str) -> None:
    """Raise InputError unless the line has points or is empty: without it every second image would be skipped."""
    try:
        if len(row.words) % 3:
            raise InputError(f'has {len(row.words)} fields')
        if row.words:
            number(row.words[-1])
    except InputError as error:
        raise row.error(
            f'is not the line of points of {name}: {error}; needs X Y POINT3D_ID ..., or an empty line'
        ) from error


def read_cameras(path) -> dict[int, Camera]:
    """Return the cameras of cameras.txt by their number; rows: CAMERA_ID MODEL WIDTH HEIGHT PARAMS..."""
    cameras = {}
    for row in read_table(path, 'CAMERA_ID MODEL WIDTH HEIGHT PARAMS...').rows:
        try:
            if len(row.words) < 4:
                raise InputError(f'has {len(row.words)} fields; needs CAMERA_ID MODEL WIDTH HEIGHT PARAMS...')
            number = whole_number(row.words[0])
            if number in cameras:
                raise InputError(f'repeats camera {number}; needs one row for each camera')
            cameras[number] = _camera(row.words[1], map(whole_number, row.words[2:4]), numbers(row.words[4:]))
        except InputError as error:
            raise row.error(f'is not a camera: {error}') from error
    return cameras


def _camera(model: str, size, values: np.ndarray) -> Camera:
    if model not in COLMAP_MODELS:
        known = ', '.join(COLMAP_MODELS)
        raise InputError(f'model {model!r} is unknown; known: {known}; undistort with `colmap image_undistorter`')
    names = COLMAP_MODELS[model]
    if len(values) != len(names):
        raise InputError(f'{model} has {len(values)} parameters; needs {" ".join(names)}')
    named = dict(zip(names, values, strict=True))
    fx, fy = (named.get(name, named.get('f')) for name in ('fx', 'fy'))
    matrix = [[fx, 0, named['cx'] - CORNER_OFFSET_PX], [0, fy, named['cy'] - CORNER_OFFSET_PX], [0, 0, 1]]
    order = {
        'OPENCV_FISHEYE': (CameraModel.EQUIDISTANT, 'k1 k2 k3 k4'),
        'FULL_OPENCV': (CameraModel.RATIONAL_POLYNOMIAL, 'k1 k2 p1 p2 k3 k4 k5 k6'),
    }
    kind, coefficients = order.get(model, (CameraModel.PLUMB_BOB, 'k1 k2 p1 p2'))
    return Camera(matrix, *size, [named.get(name, 0.0) for name in coefficients.split()], kind)
