"""Calibration files: each known form is read, and what is missing or cannot be is refused with the remedy."""

import numpy as np
import pytest

from loftr_ros.datasets import open_sequence
from loftr_ros.datasets.calibration import (
    cam1_from_cam0,
    camera_from_yaml,
    read_calibration,
    read_calibrations,
)
from loftr_ros.datasets.colmap import read_cameras
from loftr_ros.datatypes import Camera, CameraModel
from loftr_ros.errors import InputError
from loftr_ros.geometry import invert_transform, rotation_from_vector, transform

MATRIX = [[500.0, 0, 320.5], [0, 510.0, 239.5], [0, 0, 1]]

ROS = """image_width: 640
image_height: 480
camera_name: left
camera_matrix: {rows: 3, cols: 3, data: [500, 0, 320.5, 0, 510, 239.5, 0, 0, 1]}
distortion_model: plumb_bob
distortion_coefficients: {rows: 1, cols: 5, data: [-0.3, 0.1, 1e-3, -0.002, 0.05]}
rectification_matrix: {rows: 3, cols: 3, data: [1, 0, 0, 0, 1, 0, 0, 0, 1]}
projection_matrix: {rows: 3, cols: 4, data: [450, 0, 320, -54, 0, 450, 240, 0, 0, 0, 1, 0]}
"""
INFO = """header: {stamp: {sec: 1, nanosec: 2}, frame_id: cam}
height: 480
width: 640
distortion_model: plumb_bob
d: [-0.3, 0.1, 0.001, -0.002, 0.05]
k: [500.0, 0.0, 320.5, 0.0, 510.0, 239.5, 0.0, 0.0, 1.0]
r: [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
p: [450.0, 0.0, 320.0, -54.0, 0.0, 450.0, 240.0, 0.0, 0.0, 0.0, 1.0, 0.0]
binning_x: 0
binning_y: 0
roi: {x_offset: 0, y_offset: 0, height: 0, width: 0, do_rectify: false}
---
"""
OPENCV = """%YAML:1.0
---
image_width: 640
image_height: 480
camera_matrix: !!opencv-matrix
   rows: 3
   cols: 3
   dt: d
   data: [ 500., 0., 320.5, 0., 510., 239.5, 0., 0., 1. ]
distortion_coefficients: !!opencv-matrix
   rows: 5
   cols: 1
   dt: d
   data: [ -0.3, 0.1, 1.0e-03, -2.0e-03, 0.05 ]
"""
EUROC = """%YAML:1.0
T_BS: {cols: 4, rows: 4, data: [0, 0, 1, 0.5, -1, 0, 0, 0, 0, -1, 0, 0, 0, 0, 0, 1]}
camera_model: pinhole
resolution: [640, 480]
intrinsics: [500, 510, 320.5, 239.5]
distortion_model: radial-tangential
distortion_coefficients: [-0.3, 0.1, 0.001, -0.002]
"""
KALIBR = """camera_model: pinhole
intrinsics: [500, 510, 320.5, 239.5]
distortion_model: radtan
distortion_coeffs: [-0.3, 0.1, 0.001, -0.002]
resolution: [640, 480]
"""
FORMS = {'ros': ROS, 'camera_info': INFO, 'opencv': OPENCV, 'euroc': EUROC, 'kalibr': KALIBR}


def write(folder, text, name='camera.yaml'):
    (folder / name).write_text(text)
    return folder / name


@pytest.mark.parametrize('text', FORMS.values(), ids=FORMS)
def test_each_form_gives_the_same_camera(tmp_path, text):
    camera = camera_from_yaml(write(tmp_path, text))
    assert camera.matrix.tolist() == MATRIX and (camera.width, camera.height) == (640, 480)
    assert camera.distortion[:4].tolist() == [-0.3, 0.1, 0.001, -0.002] and camera.model is CameraModel.PLUMB_BOB


@pytest.mark.parametrize('text', [ROS, INFO], ids=['camera_calibration', 'camera_info'])
def test_r_and_p_of_a_file_say_where_the_camera_sits(tmp_path, text):
    calibration = read_calibration(write(tmp_path, text))
    assert calibration.camera.projection[0].tolist() == [450, 0, 320, -54]
    # P moves points by -54 / 450 m, so the camera is 0.12 m to the right of the first.
    assert np.allclose(calibration.rig_from_cam, transform(np.eye(3), (0.12, 0, 0)))


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize(
    'fields',
    [
        ('distortion_coefficients', 'd', 'distortion_coeffs'),
        ('distortion_model',),
        ('image_height', 'height', 'resolution'),
    ],
)
def test_a_missing_field_has_no_default(tmp_path, form, fields):
    text = FORMS[form]
    for field in fields:
        text = text.replace(f'\n{field}:', f'\nother_{field}:')
    path = write(tmp_path, text)
    if form == 'opencv' and fields == ('distortion_model',):
        assert len(camera_from_yaml(path).distortion) == 5  # of 5 coefficients OpenCV has one model only
        return
    with pytest.raises(InputError, match=r'camera\.yaml: has no (distortion|image_height|resolution).*add'):
        read_calibration(path)


def test_an_undistorted_camera_says_none(tmp_path):
    text = KALIBR.replace('radtan', 'none').replace('distortion_coeffs: [-0.3, 0.1, 0.001, -0.002]\n', '')
    assert not camera_from_yaml(write(tmp_path, text)).is_distorted
    with pytest.raises(InputError, match="distortion_model is 'none'; needs one of"):
        camera_from_yaml(write(tmp_path, KALIBR.replace('radtan', 'none')))


@pytest.mark.parametrize('coefficients', ['[]', '[0, 0, 0, 0]', '[0, 0, 0, 0, 0]'])
@pytest.mark.parametrize('form', ['ros', 'camera_info', 'euroc', 'kalibr'])
def test_a_fisheye_without_coefficients_is_a_fisheye(tmp_path, form, coefficients):
    lines = FORMS[form].splitlines()
    names = ('distortion_coefficients:', 'd:', 'distortion_coeffs:')
    lines = [next((f'{n} {coefficients}' for n in names if line.startswith(n)), line) for line in lines]
    text = '\n'.join(lines).replace('plumb_bob', 'equidistant').replace('radial-tangential', 'fisheye')
    camera = camera_from_yaml(write(tmp_path, text.replace('radtan', 'equidistant')))
    assert (camera.model, camera.distortion.tolist()) == (CameraModel.EQUIDISTANT, [0, 0, 0, 0])
    assert camera.is_distorted


@pytest.mark.parametrize(
    ('form', 'old', 'new', 'words'),
    [
        ('ros', 'rows: 3, cols: 3, data: [500', 'rows: 1, cols: 9, data: [500', r'camera_matrix needs a 3x3 matrix'),
        ('ros', '0, 0, 1]}\nd', '0, 0]}\nd', r'4 camera_matrix needs data of the shape \(3, 3\)'),
        ('ros', '0, 0, 1]}\nd', '0, 0, 2]}\nd', 'last row 0 0 1'),
        ('ros', '[500, 0, 320.5, 0, 510, 239.5, 0, 0, 1]', '[500, 0, 0, 0, 510, 0, 320.5, 239.5, 1]', 'transpose it'),
        ('ros', '[500, 0, 320.5, 0, 510', '[500, 0, 320.5, 3, 510', '0 below fx'),
        ('ros', '-0.002, 0.05]', '-0.002, .nan]', 'nan.* is not finite'),
        ('ros', 'cols: 5, data: [-0.3, 0.1, 1e-3, -0.002, 0.05]', 'cols: 2, data: [-0.3, 0.1]', 'takes 4 or 5 coeff'),
        ('ros', 'data: [1, 0, 0, 0, 1', 'data: [1, 0, 0, 0, -1', 'rectification matrix R is not a rotation'),
        ('ros', 'data: [1, 0, 0, 0, 1', 'data: [1, 0.1, 0, 0, 1', 'rectification matrix R is not a rotation'),
        ('ros', 'rectification_matrix', 'rectification', 'has no rectification_matrix.*add R, or take P out'),
        ('ros', '0, 0, 1, 0]}\n', '0, 0, 1, 5]}\n', 'P needs the last row 0 0 1 0'),
        ('ros', '240, 0, 0, 0, 1', '240, 0, 320, 240, 1', 'projection matrix P: camera matrix needs the last row'),
        ('ros', 'plumb_bob', 'division', "distortion_model is 'division'; needs one of plumb_bob"),
        ('ros', 'image_width: 640', 'image_width: 640.5', '1 image_width needs a whole number'),
        ('ros', 'image_width: 640', 'image_width: -640', 'image_width needs a positive number'),
        ('ros', 'image_width: 640', 'image_width: true', 'image_width needs a whole number'),
        ('camera_info', 'binning_x: 0', 'binning_x: 2', 'binning_x is 2; needs a camera_info of the full image'),
        ('camera_info', 'x_offset: 0', 'x_offset: 8', 'roi is .*; needs a camera_info of the full image'),
        ('camera_info', 'k: [500.0, 0.0', 'k: [0.0, 0.0', 'positive finite focal lengths'),
        ('euroc', '0, 0, 0, 1]}', '0, 0, 1, 1]}', 'T_BS needs the last row 0 0 0 1'),
        ('euroc', '[0, 0, 1, 0.5', '[0, 0, 2, 0.5', '3x3 part of T_BS is not a rotation'),
        ('euroc', 'camera_model: pinhole', 'camera_model: omni', "camera_model is 'omni'; needs pinhole"),
        ('euroc', '510, 320.5', '510, 0.1, 320.5', r'intrinsics needs 4 numbers in a row, got shape \(5,\)'),
        ('euroc', '[640, 480]', '640', 'resolution needs a list of numbers'),
        ('opencv', '   rows: 5\n   cols: 1', '   rows: 4\n   cols: 1', r'shape \(4, 1\) of rows and cols'),
    ],
)
def test_a_value_that_cannot_be_is_refused(tmp_path, form, old, new, words):
    assert old in FORMS[form]
    with pytest.raises(InputError, match=rf'camera\.yaml.*{words}'):
        read_calibration(write(tmp_path, FORMS[form].replace(old, new, 1)))


def test_four_coefficients_of_opencv_need_their_model(tmp_path):
    text = OPENCV.replace('rows: 5', 'rows: 4').replace(', 0.05 ]', ' ]')
    with pytest.raises(InputError, match='has no distortion_model, and OpenCV has two models of 4 coefficients'):
        read_calibration(write(tmp_path, text))
    assert camera_from_yaml(write(tmp_path, text + 'fisheye_model: 1\n')).model is CameraModel.EQUIDISTANT
    assert camera_from_yaml(write(tmp_path, text + 'fisheye_model: 0\n')).model is CameraModel.PLUMB_BOB


POSE1 = transform(rotation_from_vector((0, 0.1, 0)), (-0.2, 0.01, 0))


def chain(*extra):
    return ''.join(
        f'cam{i}:\n' + ''.join(f'  {line}\n' for line in (KALIBR + text).splitlines()) for i, text in enumerate(extra)
    )


def rows(matrix):
    return str(np.asarray(matrix).tolist())


def test_a_camchain_of_kalibr_gives_its_cameras_and_where_they_sit(tmp_path):
    path = write(tmp_path, chain('', f'T_cn_cnm1: {rows(POSE1)}', f'T_cn_cnm1: {rows(POSE1)}'))
    calibrations = read_calibrations(path)
    assert len(calibrations) == 3
    assert np.allclose(cam1_from_cam0(*calibrations[:2]), POSE1)
    assert np.allclose(cam1_from_cam0(calibrations[0], calibrations[2]), POSE1 @ POSE1)
    with pytest.raises(InputError, match='contains 3 cameras; needs one'):
        read_calibration(path)
    imu0 = transform(rotation_from_vector((1, 0.2, 0)), (0.1, 0, 0))
    path = write(tmp_path, chain(f'T_cam_imu: {rows(imu0)}', f'T_cam_imu: {rows(POSE1 @ imu0)}'))
    assert np.allclose(cam1_from_cam0(*read_calibrations(path)), POSE1)
    scaled = POSE1 * 2
    with pytest.raises(InputError, match='T_cn_cnm1 of cam1 needs the last row'):
        read_calibrations(write(tmp_path, chain('', f'T_cn_cnm1: {rows(scaled)}')))
    with pytest.raises(InputError, match='cam1 contains'):
        read_calibrations(write(tmp_path, chain('') + 'cam1: 7\n'))


def test_one_camchain_is_the_calibration_of_both_sides_of_a_folder(tmp_path):
    import cv2

    for side in ('left', 'right'):
        (tmp_path / 'data' / side).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / 'data' / side / '0.png'), np.zeros((480, 640), np.uint8))
    path = write(tmp_path, chain('', f'T_cn_cnm1: {rows(POSE1)}'))
    sequence = open_sequence(tmp_path / 'data', camera_files=[path])
    assert np.allclose(sequence.cam1_from_cam0, POSE1) and sequence.camera1.matrix.tolist() == MATRIX


def test_cameras_that_were_calibrated_apart_have_no_pose_to_each_other(tmp_path):
    alone = read_calibration(write(tmp_path, ROS.replace('-54', '0')))
    assert cam1_from_cam0(alone, alone) is None
    right = read_calibration(write(tmp_path, ROS))
    assert np.allclose(cam1_from_cam0(alone, right), invert_transform(transform(np.eye(3), (0.12, 0, 0))))
    with pytest.raises(InputError, match='first rectified camera and the body; needs both in the same'):
        cam1_from_cam0(right, read_calibration(write(tmp_path, EUROC)))


@pytest.mark.parametrize(
    'text', ['', 'a: 1', '[1, 2]', 'camera_matrix: 3', 'k: {}', 'cam0: {}', '<?xml version="1.0"?>']
)
def test_another_file_is_refused(tmp_path, text):
    with pytest.raises(InputError, match=r'camera\.yaml.*(needs|is not YAML)'):
        read_calibrations(write(tmp_path, text))


# --- COLMAP --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('line', 'words'),
    [
        ('1 PINHOLE 640 480 500 510 320 ', 'PINHOLE has 3 parameters; needs fx fy cx cy'),
        ('1 PINHOLE 640 480 500 510 320 x', "'x' is not a number"),
        ('1 PINHOLE 640.5 480 500 510 320 240', "'640.5' is not a whole number"),
        ('1 PINHOLE 640', 'has 3 fields; needs CAMERA_ID'),
        ('1 PINHOLE 640 480 -500 510 320 240', 'positive finite focal lengths'),
        ('1 PINHOLE 640 480 500 510 320 240\n1 PINHOLE 640 480 500 510 320 240', 'repeats camera 1'),
        ('# only a remark', 'has no row of numbers'),
    ],
)
def test_a_camera_of_colmap_that_cannot_be_is_refused_by_its_line(tmp_path, line, words):
    with pytest.raises(InputError, match=rf'cameras\.txt.*{words}'):
        read_cameras(write(tmp_path, line, 'cameras.txt'))


def test_full_opencv_of_colmap_is_the_rational_polynomial(tmp_path):
    path = write(tmp_path, '4 FULL_OPENCV 640 480 5e2 510 321 240 .1 .2 .3 .4 .5 .6 .7 .8\n', 'cameras.txt')
    camera = read_cameras(path)[4]
    assert camera.model is CameraModel.RATIONAL_POLYNOMIAL and camera.matrix.tolist() == MATRIX
    assert camera.distortion.tolist() == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]


# --- Camera itself -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('matrix', 'remedy'),
    [
        (np.transpose(MATRIX), 'transpose it'),
        (2 * np.array(MATRIX), 'divide it by 2'),
        (np.array(MATRIX) + [[0, 0, 0], [5, 0, 0], [0, 0, 0]], 'give it as fx s cx'),
        (np.array(MATRIX) + [[0, 0, 0], [0, 0, 0], [0, 0.1, 0]], 'give it as fx s cx'),
    ],
)
def test_a_camera_matrix_of_another_form_is_refused_with_the_remedy(matrix, remedy):
    with pytest.raises(InputError, match=f'last row 0 0 1 and 0 below fx.*{remedy}'):
        Camera(matrix, 640, 480)
    assert Camera(np.array(MATRIX) + [[0, 0.3, 0], [0, 0, 0], [0, 0, 1e-12]], 640, 480).matrix[0, 1] == 0.3  # skew


@pytest.mark.parametrize(
    ('model', 'given', 'kept'),
    [
        ('equidistant', (), [0.0] * 4),
        ('equidistant', [0.1, 0.2, 0.3, 0.4, 0.0], [0.1, 0.2, 0.3, 0.4]),
        ('equidistant', [0.1, 0.2, 0.0, 0.0, 0.0, 0.0], [0.1, 0.2, 0.0, 0.0]),
        ('plumb_bob', [0.1, 0.2, 0.3, 0.4, 0.5, 0.0, 0.0, 0.0], [0.1, 0.2, 0.3, 0.4, 0.5]),
        ('plumb_bob', [0.0] * 3, []),
        ('rational_polynomial', [0.1] * 8 + [0.0] * 2, [0.1] * 8),
    ],
)
def test_zeros_too_many_or_too_few_change_no_lens(model, given, kept):
    assert Camera(MATRIX, 640, 480, given, CameraModel(model)).distortion.tolist() == kept


@pytest.mark.parametrize(
    ('model', 'given'),
    [
        ('equidistant', [0.1, 0.2, 0.3, 0.4, 0.5]),
        ('equidistant', [0.1, 0.2]),
        ('plumb_bob', [0.1, 0.2, 0.3]),
        ('plumb_bob', [0.1] * 8),
        ('rational_polynomial', [0.1] * 5),
    ],
)
def test_coefficients_of_another_number_are_refused(model, given):
    with pytest.raises(InputError, match=rf'{model} takes .* coefficients, got {len(given)}: .*name the model'):
        Camera(MATRIX, 640, 480, given, CameraModel(model))
