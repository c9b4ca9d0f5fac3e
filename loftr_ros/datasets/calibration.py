"""Calibration files of cameras: ROS (camera_calibration, camera_info), OpenCV, EuRoC and Kalibr.

No field that changes a pixel has a default: a file without distortion, for example, is refused with the remedy.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np

from loftr_ros.camera import DISTORTION_MODELS, Camera, CameraModel
from loftr_ros.datasets.poses import rigid_transform, rotation_matrix
from loftr_ros.datasets.sequence import Sequence, rate_of
from loftr_ros.datasets.text_files import Fields, read_text, read_yaml, whole_number
from loftr_ros.errors import InputError
from loftr_ros.geometry import invert_transform, transform
from loftr_ros.image_files import image_loader

NEEDED = (
    'camera_matrix (camera_calibration, OpenCV), k (camera_info), intrinsics (EuRoC sensor.yaml, Kalibr) or cam0 '
    '(Kalibr camchain)'
)
ADD_MODEL = f'add it: one of {", ".join(DISTORTION_MODELS)}, or none for undistorted images'
ADD_COEFFICIENTS = 'add them, or distortion_model: none for undistorted images'


@dataclasses.dataclass(frozen=True, eq=False)
class Calibration:
    """A camera and its pose in a rig.

    Args:
        rig_from_cam: (4, 4) pose of the camera in the frame of the rig; None where the file does not contain it.
        rig: name of that frame, for messages; poses of two cameras are only related if their frames are the same.
    """

    camera: Camera
    rig_from_cam: np.ndarray | None = None
    rig: str = ''


RECTIFIED_RIG, BODY_RIG, CHAIN_RIG = 'the first rectified camera', 'the body', 'the first camera of the chain'


def cam1_from_cam0(calibration0: Calibration, calibration1: Calibration) -> np.ndarray | None:
    """Return the (4, 4) transform between two cameras of a rig, or None where their files do not contain it."""
    if calibration0.rig_from_cam is None or calibration1.rig_from_cam is None:
        return None
    if calibration0.rig != calibration1.rig:
        raise InputError(
            f'the calibrations of two cameras have their poses relative to {calibration0.rig} and {calibration1.rig}; '
            'needs both in the same frame, from one calibration of the pair'
        )
    cam1_from_cam0 = invert_transform(calibration1.rig_from_cam) @ calibration0.rig_from_cam
    # Cameras that were calibrated one by one have a P without a baseline: their extrinsics are unknown.
    return cam1_from_cam0 if cam1_from_cam0[:3, 3].any() or calibration0.rig != RECTIFIED_RIG else None


def calibrated_sequence(
    name: str,
    rate_hz: float,
    stamps_ns: np.ndarray,
    files: list[list[Path]],
    calibrations: list[Calibration | None],
    poses: np.ndarray | None,
) -> Sequence:
    """Return the sequence of one camera or of a stereo pair, from the files and the calibration of each camera."""
    cameras = [calibration.camera if calibration else None for calibration in calibrations]
    return Sequence(
        name=name,
        rate_hz=rate_of(stamps_ns, rate_hz),
        stamps_ns=stamps_ns,
        load=tuple(image_loader(side) for side in files),
        camera0=cameras[0],
        camera1=cameras[1] if len(cameras) == 2 else None,
        world_from_cam0=poses,
        cam1_from_cam0=cam1_from_cam0(*calibrations) if len(cameras) == 2 and all(cameras) else None,
    )


# --- YAML ----------------------------------------------------------------------------------------------------------


def camera_from_yaml(path) -> Camera:
    """Return the camera of a calibration file, for images that are not rectified."""
    return read_calibration(path).camera


def camera_to_yaml(camera: Camera, path, name: str = 'camera', baseline_m: float = 0.0) -> None:
    """Write the camera in the format of camera_calibration.

    Args:
        baseline_m: distance from the left camera along x [m], for the projection_matrix of a camera that has none.
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
    """Return the calibration of a file with one camera."""
    calibrations = read_calibrations(path)
    if len(calibrations) > 1:
        raise InputError(f'{path} contains {len(calibrations)} cameras; needs one: write each into its own file')
    return calibrations[0]


def read_calibrations(path) -> list[Calibration]:
    """Return the calibrations of a file: of one camera, or of the cameras of a Kalibr camchain in order.

    Raises:
        InputError: the format is unknown, a field is missing, or a value is impossible.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f'{path} is not a file; needs a calibration (YAML), as camera_calibration writes it')
    document = read_yaml(path)
    chain = sorted((name for name in document if re.fullmatch(r'cam\d+', str(name))), key=lambda name: int(name[3:]))
    if chain:
        return _from_chain(path, document, chain)
    fields = Fields(path, document)
    if 'camera_matrix' in fields or 'k' in fields:
        return [_checked(fields, _from_ros)]
    if 'intrinsics' in fields:
        return [_checked(fields, _from_intrinsics)]
    raise fields.error(f'contains {fields.names}; needs {NEEDED}')


def _checked(fields: Fields, parse) -> Calibration:
    """Return the result of `parse`; an error of Camera, for example, gets the name of the file."""
    try:
        return parse(fields)
    except InputError as error:
        raise error if str(fields.path) in str(error) else fields.error(error) from error


def _from_ros(fields: Fields) -> Calibration:
    camera = Camera(
        fields.matrix(3, 3, 'camera_matrix', 'k'),
        fields.positive_whole_number('image_width', 'width', remedy='add the size of the images [px]'),
        fields.positive_whole_number('image_height', 'height', remedy='add the size of the images [px]'),
        *_distortion(fields, 'distortion_coefficients', 'distortion_coeffs', 'dist_coeffs', 'd'),
    )
    _check_full_image(fields, camera)
    if not any(name in fields for name in ('projection_matrix', 'p')):
        return Calibration(camera)
    projection = fields.matrix(3, 4, 'projection_matrix', 'p')
    if not projection.any():
        return Calibration(camera)  # an uncalibrated P
    rectification = fields.matrix(3, 3, 'rectification_matrix', 'r', remedy='add R, or take P out')
    calibration = rectified_calibration(camera, rectification, projection)
    camera = dataclasses.replace(camera, rectification=rectification, projection=projection)
    return dataclasses.replace(calibration, camera=camera)


def _check_full_image(fields: Fields, camera: Camera) -> None:
    """Raise InputError for a camera_info of binned images or of a region of interest."""
    whole = {'x_offset': 0, 'y_offset': 0, 'width': camera.width, 'height': camera.height}
    for name in ('binning_x', 'binning_y', 'roi'):
        value = fields.get(name) if name in fields else 0
        is_full = value in (0, 1)
        if isinstance(value, dict):
            is_full = all(value.get(side, 0) in (0, full) for side, full in whole.items())
        if not is_full:
            raise fields.error(f'{name} is {value}; needs a camera_info of the full image, without binning and roi')


def rectified_calibration(camera: Camera, rectification: np.ndarray, projection: np.ndarray) -> Calibration:
    """Return the calibration of a camera with R and P; InputError if they are not valid."""
    rectification = rotation_matrix(rectification, 'the rectification matrix R')
    try:
        Camera(projection[:, :3], camera.width, camera.height)
    except InputError as error:
        raise InputError(f'the projection matrix P: {error}') from error
    if projection[2, 3]:
        raise InputError(f'the projection matrix P needs the last row 0 0 1 0, got {projection[2].tolist()}')
    # A point x of the first rectified camera is x + K'^-1 P[:, 3] in this rectified camera, which is R x_cam.
    offset = np.linalg.solve(projection[:, :3], projection[:, 3])
    return Calibration(camera, transform(rectification, -offset), RECTIFIED_RIG)


def _distortion(fields: Fields, *names: str) -> tuple[np.ndarray, CameraModel]:
    """Return coefficients and model; OpenCV's files name no model, so a flag or the number of coefficients decides."""
    if 'distortion_model' not in fields and _is_opencv_file(fields):
        coefficients = fields.numbers(*names, remedy=ADD_COEFFICIENTS)
        return coefficients, _opencv_model(fields, coefficients)
    name = str(fields.get('distortion_model', remedy=ADD_MODEL) or '')
    if name in ('none', 'pinhole') and not any(n in fields for n in names):
        return np.empty(0), CameraModel.PLUMB_BOB
    coefficients = fields.numbers(*names, remedy=ADD_COEFFICIENTS)
    if name in ('', 'none', 'pinhole') and not coefficients.any():
        return np.empty(0), CameraModel.PLUMB_BOB  # drivers of ideal cameras give no name
    if name not in DISTORTION_MODELS:
        raise fields.error(f'distortion_model is {name!r}; needs one of {", ".join(DISTORTION_MODELS)} or none')
    return coefficients, DISTORTION_MODELS[name]


def _is_opencv_file(fields: Fields) -> bool:
    return '!!opencv-matrix' in read_text(fields.path)


def _opencv_model(fields: Fields, coefficients: np.ndarray) -> CameraModel:
    if 'fisheye_model' in fields:
        if whole_number(fields.get('fisheye_model')):
            return CameraModel.EQUIDISTANT
    elif len(coefficients) == 4:
        raise fields.error(f'has no distortion_model, and OpenCV has two models of 4 coefficients: {ADD_MODEL}')
    return CameraModel.PLUMB_BOB if len(coefficients) <= 5 else CameraModel.RATIONAL_POLYNOMIAL


def _from_intrinsics(fields: Fields) -> Calibration:
    """Read the fields of EuRoC's sensor.yaml and of one camera of Kalibr."""
    if 'camera_model' in fields and fields.get('camera_model') != 'pinhole':
        raise fields.error(f'camera_model is {fields.get("camera_model")!r}; needs pinhole: calibrate with that model')
    fx, fy, cx, cy = fields.numbers('intrinsics', count=4)
    size = fields.numbers('resolution', count=2, remedy='add resolution: [width, height] of the images [px]')
    camera = Camera(
        [[fx, 0, cx], [0, fy, cy], [0, 0, 1]],
        *(whole_number(side) for side in size),
        *_distortion(fields, 'distortion_coefficients', 'distortion_coeffs'),
    )
    if 'T_BS' in fields:
        return Calibration(camera, rigid_transform(fields.matrix(4, 4, 'T_BS'), 'T_BS'), BODY_RIG)
    if 'T_cam_imu' in fields:
        cam_from_imu = rigid_transform(fields.matrix(4, 4, 'T_cam_imu'), 'T_cam_imu')
        return Calibration(camera, invert_transform(cam_from_imu), BODY_RIG)
    return Calibration(camera)


def _from_chain(path: Path, document: dict, names: list[str]) -> list[Calibration]:
    """Read Kalibr's camchain: cam0, cam1, ..., each with T_cam_imu, or with T_cn_cnm1 from the previous camera."""
    for name in names:
        if not isinstance(document[name], dict):
            raise InputError(f'{path}: {name} contains {document[name]!r:.80}; needs the fields of a camera')
    all_fields = [Fields(path, document[name], name) for name in names]
    cameras = [_checked(fields, _from_intrinsics) for fields in all_fields]
    if all(camera.rig_from_cam is not None for camera in cameras):
        return cameras
    rig_from_cam = [np.eye(4)]
    for fields in all_fields[1:]:
        if 'T_cn_cnm1' not in fields:
            return [Calibration(camera.camera) for camera in cameras]
        cam_from_previous = rigid_transform(fields.matrix(4, 4, 'T_cn_cnm1'), f'{path}: T_cn_cnm1 of {fields.within}')
        rig_from_cam.append(rig_from_cam[-1] @ invert_transform(cam_from_previous))
    return [Calibration(c.camera, pose, CHAIN_RIG) for c, pose in zip(cameras, rig_from_cam, strict=True)]
