"""Cameras and extrinsics from camera_info messages, with known results."""

import re
import types

import cv2
import numpy as np
import pytest
from stamped_messages import MATRIX, info_msg, p_of

from loftr_ros.camera import CameraModel
from loftr_ros.camera_messages import camera_from_info, extrinsics_from_infos
from loftr_ros.errors import InputError
from loftr_ros.geometry import rotation_from_vector, undistort_points


def test_an_ideal_fisheye_is_no_pinhole():
    info = info_msg(distortion_model='equidistant', d=[])
    camera = camera_from_info(info, rectified=False)
    pixels = np.array([[600.0, 240.0], [500.0, 400.0]])
    expected = cv2.fisheye.undistortPoints(pixels[None], MATRIX, np.zeros(4))[0]
    np.testing.assert_allclose(undistort_points(camera, pixels), expected, atol=1e-6)


@pytest.mark.parametrize('model', ['equidistant', 'plumb_bob'])
def test_a_last_coefficient_of_zero_too_many_is_left_out(model):
    given = [0.1, 0.2, 0.003, 0.004, 0.0] + [0.0] * 3 * (model == 'plumb_bob')
    info = info_msg(distortion_model=model, d=given)
    count = 4 if model == 'equidistant' else 5
    assert camera_from_info(info, rectified=False).distortion.tolist() == given[:count]


@pytest.mark.parametrize('rectified', [True, False])
def test_a_camera_matrix_of_another_form_is_refused_with_the_name_of_the_frame(rectified):
    matrix = MATRIX.T
    info = info_msg(k=matrix.ravel(), p=np.hstack([matrix, np.zeros((3, 1))]).ravel())
    with pytest.raises(InputError, match=rf"'cam', {'P' if rectified else 'K'}: .*it is transposed"):
        camera_from_info(info, rectified=rectified)


def test_a_rectified_camera_takes_p_and_no_distortion():
    camera = camera_from_info(info_msg(), rectified=True)
    np.testing.assert_allclose(camera.matrix, MATRIX * [[0.9], [0.9], [1]])
    assert not camera.is_distorted
    assert (camera.width, camera.height) == (640, 480)


def test_a_raw_camera_takes_k_and_d():
    camera = camera_from_info(info_msg(), rectified=False)
    np.testing.assert_array_equal(camera.matrix, MATRIX)
    assert camera.distortion.tolist() == [-0.3, 0.1, 0.001, -0.002, 0.05]
    assert camera.model is CameraModel.PLUMB_BOB


@pytest.mark.parametrize(
    ('name', 'coefficients', 'model'),
    [
        ('rational_polynomial', [0.1] * 8, CameraModel.RATIONAL_POLYNOMIAL),
        ('equidistant', [0.1] * 4, CameraModel.EQUIDISTANT),
        ('fisheye', [0.1] * 4, CameraModel.EQUIDISTANT),
        ('equidistant', [0.0] * 4, CameraModel.EQUIDISTANT),
    ],
)
def test_distortion_models_are_known_by_name(name, coefficients, model):
    camera = camera_from_info(info_msg(distortion_model=name, d=coefficients), rectified=False)
    assert camera.model is model
    assert camera.distortion.tolist() == coefficients
    assert camera.is_distorted


@pytest.mark.parametrize(('name', 'coefficients'), [('', []), ('', [0.0] * 5), ('rational_polynomial', [0.0] * 5)])
def test_zeros_of_any_number_are_no_distortion(name, coefficients):
    info = info_msg(distortion_model=name, d=coefficients)
    assert not camera_from_info(info, rectified=False).is_distorted


@pytest.mark.parametrize('name', ['', 'division', 'Plumb_Bob'])
def test_an_unknown_distortion_model_is_refused_with_the_known_ones(name):
    info = info_msg(distortion_model=name)
    with pytest.raises(
        InputError, match=f"model '{name}' with 5 .*plumb_bob, rational_polynomial, equidistant, fisheye"
    ):
        camera_from_info(info, rectified=False)
    camera_from_info(info, rectified=True)  # where distortion is gone, its name does not matter


@pytest.mark.parametrize(('rectified', 'empty', 'full'), [(True, 'P', 'K'), (False, 'K', 'P')])
def test_zeros_in_one_matrix_are_refused_and_the_other_named(rectified, empty, full):
    info = info_msg(**{empty.lower(): np.zeros(12 if empty == 'P' else 9)})
    with pytest.raises(InputError, match=f'fx=0, fy=0 in {empty}.* {full} is filled: set input.rectified to'):
        camera_from_info(info, rectified=rectified)


@pytest.mark.parametrize('rectified', [True, False])
def test_an_uncalibrated_camera_is_refused_with_the_remedy(rectified):
    info = info_msg(k=np.zeros(9), p=np.zeros(12))
    with pytest.raises(InputError, match='positive focal lengths: calibrate the camera'):
        camera_from_info(info, rectified=rectified)


@pytest.mark.parametrize('rectified', [True, False])
def test_binning_and_roi_move_a_point_as_they_move_its_pixel(rectified):
    roi = types.SimpleNamespace(x_offset=100, y_offset=60, width=400, height=300)
    point = np.array([0.1, -0.2, 2.0])
    full = camera_from_info(info_msg(d=[]), rectified=rectified)
    part = camera_from_info(info_msg(d=[], roi=roi, binning_x=2, binning_y=4), rectified=rectified)
    pixel, pixel_part = (camera.matrix @ point for camera in (full, part))
    np.testing.assert_allclose(pixel_part[:2] / 2.0, (pixel[:2] / 2.0 - (100, 60)) / (2, 4))
    assert (part.width, part.height) == (200, 75)


def test_binning_of_the_full_image_divides_its_size():
    camera = camera_from_info(info_msg(binning_x=2, binning_y=2), rectified=True)
    assert (camera.width, camera.height) == (320, 240)
    assert camera.distortion.size == 0


def baseline(left_p, right_p):
    extrinsics, reason = extrinsics_from_infos(info_msg(p=left_p), info_msg(p=right_p), rectified=True)
    return None if extrinsics is None else float(np.linalg.norm(extrinsics[:3, 3])), reason


def test_the_baseline_is_the_way_between_the_cameras_wherever_the_origin_of_both_p_lies():
    assert baseline(p_of(tx=30), p_of(tx=-35)) == (pytest.approx(0.13), '')
    assert baseline(p_of(ty=10, cx=300), p_of(ty=-40)) == (pytest.approx(0.10), '')
    assert baseline(p_of(tx=40), p_of()) == (pytest.approx(0.08), '')
    # Colour cameras of KITTI: 62.2 mm and 470.6 mm from camera 0, a millimetre or two off the axis.
    left = [721.5377, 0, 609.5593, 44.85728, 0, 721.5377, 172.854, 0.2163791, 0, 0, 1, 0.002745884]
    right = [721.5377, 0, 609.5593, -339.5242, 0, 721.5377, 172.854, 2.199936, 0, 0, 1, 0.002729905]
    assert baseline(left, right) == (pytest.approx(0.5327, abs=1e-4), '')


@pytest.mark.parametrize(
    ('left_p', 'right_p', 'reason'),
    [
        (p_of(), p_of(), 'one place'),
        (p_of(tx=-60), p_of(tx=-60), 'one place'),
        (np.zeros(12), p_of(tx=-60), 'left.*focal'),
        (p_of(), np.full(12, np.nan), 'right.*focal'),
        (p_of(), p_of(tx=np.inf), 'right.*finite'),
        (p_of(), p_of(tx=-60, focal=600), '500 and 600'),
        (p_of(), p_of(tx=-60, ty=30), 'neither x nor y'),
        (p_of(), [*p_of(tx=-60)[:10], 0, 0], 'last row'),
    ],
)
def test_without_a_consistent_pair_of_p_there_is_no_baseline_but_a_reason(left_p, right_p, reason):
    length_m, words = baseline(left_p, right_p)
    assert length_m is None and re.search(reason, words)


def test_raw_cameras_are_turned_by_the_r_of_both_camera_infos():
    turn = rotation_from_vector((0.01, -0.03, 0.02))
    left = info_msg(p=p_of(), r=np.eye(3).ravel())
    right = info_msg(p=p_of(tx=-60), r=turn.ravel())
    extrinsics, reason = extrinsics_from_infos(left, right, rectified=False)
    point = np.array([0.3, -0.2, 4.0])  # in the left camera, which R leaves as it is
    rectified_right = point + [-60 / p_of()[0], 0, 0]
    assert reason == ''
    np.testing.assert_allclose(extrinsics[:3, :3] @ point + extrinsics[:3, 3], turn.T @ rectified_right, atol=1e-9)
