"""Calibration files of cameras: those of ROS camera_calibration, sensor.yaml of EuRoC, and cameras.txt of COLMAP."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from loftr_ros.datatypes import Camera, CameraModel
from loftr_ros.errors import InputError
from loftr_ros.geometry import invert_transform, transform

MODELS = {
    'plumb_bob': CameraModel.PLUMB_BOB,
    'radtan': CameraModel.PLUMB_BOB,
    'radial-tangential': CameraModel.PLUMB_BOB,
    'rational_polynomial': CameraModel.RATIONAL_POLYNOMIAL,
    'equidistant': CameraModel.EQUIDISTANT,
    'fisheye': CameraModel.EQUIDISTANT,
}

COLMAP_MODELS = {
    'SIMPLE_PINHOLE': ('f', 'cx', 'cy'),
    'PINHOLE': ('fx', 'fy', 'cx', 'cy'),
    'SIMPLE_RADIAL': ('f', 'cx', 'cy', 'k1'),
    'RADIAL': ('f', 'cx', 'cy', 'k1', 'k2'),
    'OPENCV': ('fx', 'fy', 'cx', 'cy', 'k1', 'k2', 'p1', 'p2'),
    'OPENCV_FISHEYE': ('fx', 'fy', 'cx', 'cy', 'k1', 'k2', 'k3', 'k4'),
}
"""Parameters of the camera models that CameraModel can express, in COLMAP's order (src/colmap/sensor/models.h)."""


@dataclasses.dataclass(frozen=True, eq=False)
class Calibration:
    """A camera and where it sits.

    Args:
        rig_from_cam: (4, 4) pose of the camera in what several cameras share (the first rectified camera, or the body);
            None where the file does not say.
    """

    camera: Camera
    rig_from_cam: np.ndarray | None = None


def camera_from_yaml(path) -> Camera:
    """Return the camera of a calibration file, for the images as they were taken (not rectified)."""
    return read_calibration(path).camera


def camera_to_yaml(camera: Camera, path, name: str = 'camera', baseline_m: float = 0.0) -> None:
    """Write the camera as camera_calibration does.

    projection_matrix is the camera's own, or else K with the way from the left camera.
    """
    import yaml

    rectification, projection = camera.rectification, camera.projection
    if projection is None:
        projection = np.column_stack([camera.matrix, np.zeros(3)])
        projection[0, 3] = -camera.matrix[0, 0] * baseline_m
    coefficients = camera.distortion if len(camera.distortion) else np.zeros(5)
    document = {
        'image_width': camera.width,
        'image_height': camera.height,
        'camera_name': name,
        'camera_matrix': _matrix_node(camera.matrix),
        'distortion_model': camera.model.value,
        'distortion_coefficients': _matrix_node(np.reshape(coefficients, (1, -1))),
        'rectification_matrix': _matrix_node(np.eye(3) if rectification is None else rectification),
        'projection_matrix': _matrix_node(projection),
    }
    Path(path).write_text(yaml.safe_dump(document, sort_keys=False, default_flow_style=None))


def _matrix_node(matrix: np.ndarray) -> dict:
    return {'rows': matrix.shape[0], 'cols': matrix.shape[1], 'data': [float(x) for x in matrix.ravel()]}


def read_calibration(path) -> Calibration:
    """Read a file of camera_calibration (camera_matrix, ...) or of EuRoC (intrinsics, T_BS)."""
    import yaml

    path = Path(path)
    if not path.is_file():
        raise InputError(f'{path} is not a file; give the calibration (YAML) that camera_calibration wrote')
    # OpenCV and EuRoC begin with '%YAML:1.0', which is not YAML.
    lines = [line for line in path.read_text().splitlines() if not line.startswith('%')]
    try:
        document = yaml.safe_load('\n'.join(lines))
    except yaml.YAMLError as error:
        raise InputError(f'{path} is not YAML: {error}; write it again with camera_calibration') from error
    forms = {'camera_matrix': _from_ros, 'intrinsics': _from_euroc}
    for key, parse in forms.items():
        if isinstance(document, dict) and key in document:
            try:
                return parse(document)
            except (KeyError, TypeError, ValueError) as error:
                raise InputError(f'{path} is no complete calibration: {type(error).__name__} {error}') from error
    found = ', '.join(map(str, document)) if isinstance(document, dict) else type(document).__name__
    raise InputError(
        f'{path} holds {found}; needs camera_matrix (camera_calibration) or intrinsics (EuRoC sensor.yaml)'
    )


def cam1_from_cam0(calibration0: Calibration, calibration1: Calibration) -> np.ndarray | None:
    """Return the (4, 4) transform between two cameras of a rig, or None where their files do not say."""
    if calibration0.rig_from_cam is None or calibration1.rig_from_cam is None:
        return None
    return invert_transform(calibration1.rig_from_cam) @ calibration0.rig_from_cam


def _model(name: str) -> CameraModel:
    if name not in MODELS:
        raise InputError(f'distortion model {name!r} is unknown; known: {", ".join(MODELS)}')
    return MODELS[name]


def _camera(matrix, size, model: CameraModel, coefficients) -> Camera:
    # Zeros mean none, except for the fish-eye whose rays bend without any.
    coefficients = np.asarray(coefficients, np.float64).ravel()
    if not coefficients.any() and model is not CameraModel.EQUIDISTANT:
        coefficients = ()
    return Camera(matrix, int(size[0]), int(size[1]), coefficients, model)


def _from_ros(document: dict) -> Calibration:
    matrix = np.reshape(np.asarray(document['camera_matrix']['data'], np.float64), (3, 3))
    camera = _camera(
        matrix,
        (document['image_width'], document['image_height']),
        _model(document.get('distortion_model') or 'plumb_bob'),
        document.get('distortion_coefficients', {}).get('data', ()),
    )
    if 'projection_matrix' not in document:
        return Calibration(camera)
    projection = np.reshape(np.asarray(document['projection_matrix']['data'], np.float64), (3, 4))
    rectification = np.reshape(document.get('rectification_matrix', {}).get('data', np.eye(3)), (3, 3))
    if not projection[0, 0] > 0:
        return Calibration(camera)
    camera = dataclasses.replace(camera, rectification=rectification, projection=projection)
    # A point of the first rectified camera: x_rect = x + K'^-1 P[:, 3], and x_rect = R x_cam.
    offset = np.linalg.solve(projection[:, :3], projection[:, 3])
    return Calibration(camera, transform(rectification, -offset))


def _from_euroc(document: dict) -> Calibration:
    fx, fy, cx, cy = (float(x) for x in document['intrinsics'])
    camera = _camera(
        [[fx, 0, cx], [0, fy, cy], [0, 0, 1]],
        document['resolution'],
        _model(document.get('distortion_model', 'radial-tangential')),
        document.get('distortion_coefficients', ()),
    )
    if 'T_BS' not in document:
        return Calibration(camera)
    return Calibration(camera, np.reshape(np.asarray(document['T_BS']['data'], np.float64), (4, 4)))


def cameras_from_colmap(path) -> dict[int, Camera]:
    """Return the cameras of COLMAP's cameras.txt by their number; lines: CAMERA_ID MODEL WIDTH HEIGHT PARAMS..."""
    cameras = {}
    for number, line in enumerate(Path(path).read_text().splitlines(), 1):
        fields = line.split()
        if not fields or fields[0].startswith('#'):
            continue
        try:
            cameras[int(fields[0])] = _from_colmap(fields[1], fields[2:4], [float(x) for x in fields[4:]])
        except (IndexError, ValueError, InputError) as error:
            raise InputError(f'{path}:{number} is no camera: {error}') from error
    return cameras


def _from_colmap(model: str, size, values: list[float]) -> Camera:
    if model not in COLMAP_MODELS:
        known = ', '.join(COLMAP_MODELS)
        raise InputError(f'model {model!r} is unknown; known: {known}; undistort with `colmap image_undistorter`')
    names = COLMAP_MODELS[model]
    if len(values) != len(names):
        raise InputError(f'{model} has {len(values)} parameters; needs {" ".join(names)}')
    named = dict(zip(names, values, strict=True))
    fx, fy = (named.get(name, named.get('f')) for name in ('fx', 'fy'))
    # COLMAP counts from the corner of the top-left pixel, we from its centre.
    matrix = [[fx, 0, named['cx'] - 0.5], [0, fy, named['cy'] - 0.5], [0, 0, 1]]
    fisheye = model == 'OPENCV_FISHEYE'
    coefficients = [named.get(name, 0.0) for name in ('k1', 'k2', *(('k3', 'k4') if fisheye else ('p1', 'p2')))]
    return _camera(matrix, size, CameraModel.EQUIDISTANT if fisheye else CameraModel.PLUMB_BOB, coefficients)
