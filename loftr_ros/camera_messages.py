"""Cameras and their place from camera_info messages, without ROS."""

from __future__ import annotations

import numpy as np

from loftr_ros.camera import DISTORTION_MODELS, Camera, CameraModel
from loftr_ros.errors import InputError


def camera_from_info(info, *, rectified: bool) -> Camera:
    """Return the camera that took the image which belongs to a camera_info.

    A rectified image has the intrinsics P and no distortion, a raw one K and D. K and P hold for the full sensor; the
    image is its `roi` (all zeros: everything), binned. As in image_geometry, on which camera_info's other users rely,
    `x = (x_full - x_offset) / binning` without a half pixel: exact where binning skips pixels, (b - 1) / (2 b) px off
    where it averages them. P moves by the raw roi.

    Raises:
        InputError: not calibrated, or the distortion model is unknown.
    """
    name, columns = ('P', 4) if rectified else ('K', 3)
    values = np.reshape(_field(info, name), (3, columns))[:, :3]
    if not (np.isfinite(values).all() and values[0, 0] > 0 and values[1, 1] > 0):
        other = _field(info, 'K' if rectified else 'P')
        remedy = 'calibrate the camera (camera_calibration) and load the result into its driver'
        if other[0] > 0:
            remedy = (
                f'{"K" if rectified else "P"} is filled: set input.rectified to {str(not rectified).lower()}, or '
                + remedy
            )
        raise InputError(
            f'camera_info of {info.header.frame_id!r} has fx={values[0, 0]:g}, fy={values[1, 1]:g} in {name}, '
            f'needed are positive focal lengths: {remedy}'
        )
    binning = np.maximum((info.binning_x, info.binning_y), 1)
    roi = info.roi
    is_full = not (roi.x_offset or roi.y_offset or roi.width or roi.height)
    size = np.array((info.width, info.height) if is_full else (roi.width, roi.height)) // binning
    matrix = values.astype(np.float64)
    matrix[:2, 2] -= (roi.x_offset, roi.y_offset)
    matrix[:2] /= binning[:, None]
    distortion, model = ((), CameraModel.PLUMB_BOB) if rectified else _distortion(info)
    try:
        return Camera(matrix, int(size[0]), int(size[1]), distortion, model)
    except InputError as error:
        raise InputError(f'camera_info of {info.header.frame_id!r}, {name}: {error}') from error


def _field(info, name: str):
    """Return D, K or P of a camera_info; these names are in lower case in ROS 2."""
    return getattr(info, name.lower()) if hasattr(info, name.lower()) else getattr(info, name)


def _distortion(info) -> tuple[np.ndarray, CameraModel]:
    """Return coefficients and model of raw images."""
    coefficients = np.asarray(_field(info, 'D'), dtype=np.float64)
    model = DISTORTION_MODELS.get(info.distortion_model)
    if model is None:
        if not coefficients.any():
            return coefficients, CameraModel.PLUMB_BOB  # simulators write zeros and no name
        raise InputError(
            f'camera_info of {info.header.frame_id!r} has the distortion model {info.distortion_model!r} with '
            f'{len(coefficients)} coefficients; known are {", ".join(DISTORTION_MODELS)}. Rectify the images '
            '(image_proc) and set input.rectified, or name the model in camera_info'
        )
    return coefficients, model


MAX_FOCAL_RATIO = 1.02
"""The two P of a rectified pair have one focal length; beyond this they are not of one pair."""
MAX_OFF_AXIS = 0.05
"""Share of the baseline that may be off the axis of a rectified pair: KITTI's P have a millimetre or two there."""


def extrinsics_from_infos(left_info, right_info, *, rectified: bool) -> tuple[np.ndarray | None, str]:
    """Return right_from_left (4, 4) [m] of the cameras of a calibrated pair, or None and the reason why there is none.

    Rectified cameras differ by the translation in both P. Raw ones are turned by the R of each camera_info besides.

    P = K' [1 | t] has the way t from a common origin to each camera, which is the left camera for most drivers but not
    for all (KITTI's colour cameras, rigs with more than two). The pair may be side by side or one above the other.
    """
    offsets, focals = [], []
    for name, info in (('left', left_info), ('right', right_info)):
        projection = np.reshape(np.asarray(_field(info, 'P'), np.float64), (3, 4))
        matrix = projection[:, :3]
        if not (np.isfinite(projection).all() and matrix[0, 0] > 0 and matrix[1, 1] > 0):
            return None, f'P of the {name} camera_info has no finite, positive focal lengths: {_CALIBRATE}'
        if not np.array_equal(matrix[2], (0, 0, 1)):
            return None, f'the last row of P of the {name} camera_info is {projection[2].tolist()}, needed is 0 0 1'
        offsets.append(np.linalg.solve(matrix, projection[:, 3]))
        focals.append(matrix[0, 0])
    if max(focals) > MAX_FOCAL_RATIO * min(focals):
        return None, f'P of left and right have the focal lengths {focals[0]:g} and {focals[1]:g}: {_CALIBRATE}'
    vector = offsets[1] - offsets[0]
    baseline_m = float(np.linalg.norm(vector))
    right_from_left = np.eye(4)
    right_from_left[:3, 3] = vector
    if baseline_m == 0:
        return None, f'P of left and right put both cameras at one place: {_CALIBRATE}'
    if max(np.abs(vector[:2])) ** 2 < (1 - MAX_OFF_AXIS**2) * baseline_m**2:
        return None, f'P of left and right are {vector.round(4).tolist()} m apart, along neither x nor y: {_CALIBRATE}'
    if rectified:
        return right_from_left, ''
    turns = [np.reshape(np.asarray(_field(info, 'R'), np.float64), (3, 3)) for info in (left_info, right_info)]
    for name, turn in zip(('left', 'right'), turns, strict=True):
        if not np.allclose(turn @ turn.T, np.eye(3), atol=1e-3):
            return None, f'R of the {name} camera_info is not a rotation, got {turn.tolist()}: {_CALIBRATE}'
    right_from_left[:3, :3] = turns[1].T @ turns[0]
    right_from_left[:3, 3] = turns[1].T @ vector
    return right_from_left, ''


_CALIBRATE = 'calibrate the two cameras as one pair (camera_calibration with two cameras) for a translation in metres'
