"""Calibration files: each format is read; missing fields and impossible values are refused with the remedy."""

import cv2
import numpy as np
import pytest

from loftr_ros.camera import Camera, CameraModel
from loftr_ros.datasets import open_sequence
from loftr_ros.datasets.calibration import (
    cam1_from_cam0,
    camera_from_yaml,
    camera_to_yaml,
    read_calibration,
    read_calibrations,
)
from loftr_ros.errors import InputError
from loftr_ros.geometry import invert_transform, rotation_from_vector, transform

MATRIX = [[500.0, 0, 320.5], [0, 510.0, 239.5], [0, 0, 1]]
CAMERA = Camera([[50, 0, 15.5], [0, 51, 11.5], [0, 0, 1]], 32, 24)

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
def test_r_and_p_of_a_file_give_the_extrinsics(tmp_path, text):
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


def test_an_undistorted_camera_may_have_the_distortion_model_none(tmp_path):
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
def test_an_impossible_value_is_refused(tmp_path, form, old, new, words):
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


def test_a_camchain_of_kalibr_gives_cameras_and_extrinsics(tmp_path):
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


def test_separately_calibrated_cameras_have_no_extrinsics(tmp_path):
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


@pytest.mark.parametrize(
    ('model', 'coefficients'),
    [
        (CameraModel.PLUMB_BOB, (0.1, -0.2, 0.001, 0.002, 0.05)),
        (CameraModel.RATIONAL_POLYNOMIAL, (0.1, 0.2, 0.001, 0.002, 0.3, 0.4, 0.5, 0.6)),
        (CameraModel.EQUIDISTANT, (0.1, 0.2, 0.3, 0.4)),
    ],
)
def test_a_camera_survives_its_yaml(tmp_path, model, coefficients):
    camera = Camera(CAMERA.matrix, 32, 24, coefficients, model)
    camera_to_yaml(camera, tmp_path / 'camera.yaml')
    again = camera_from_yaml(tmp_path / 'camera.yaml')
    assert (again.matrix == camera.matrix).all() and (again.distortion == camera.distortion).all()
    assert (again.model, again.width, again.height) == (model, 32, 24)


def test_rectification_and_projection_survive_the_yaml(tmp_path):
    rectification = np.array([[0.8, 0, 0.6], [0, 1, 0], [-0.6, 0, 0.8]])
    projection = np.array([[24.0, 0, 16, -2.4], [0, 24, 12, 0], [0, 0, 1, 0]])
    camera = Camera(CAMERA.matrix, 32, 24, rectification=rectification, projection=projection)
    camera_to_yaml(camera, tmp_path / 'camera.yaml')
    again = camera_from_yaml(tmp_path / 'camera.yaml')
    np.testing.assert_array_equal(again.rectification, rectification)
    np.testing.assert_array_equal(again.projection, projection)


def test_rectification_matrices_give_the_extrinsics_of_raw_images(tmp_path):
    """x_rect = R x_cam for each camera, and the rectified ones differ by the baseline along x."""
    import yaml

    rotations = [rotation_from_vector((0.01, 0.02, -0.03)), rotation_from_vector((-0.02, 0.05, 0.01))]
    for side, rotation, baseline_m in zip(('left', 'right'), rotations, (0.0, 0.2), strict=True):
        file = tmp_path / f'{side}.yaml'
        camera_to_yaml(CAMERA, file, side, baseline_m)
        document = yaml.safe_load(file.read_text())
        document['rectification_matrix']['data'] = [float(x) for x in rotation.ravel()]
        file.write_text(yaml.safe_dump(document))
        (tmp_path / side).mkdir()
        cv2.imwrite(str(tmp_path / side / '0.png'), np.zeros((24, 32), np.uint8))
    point0 = np.array([0.3, -0.2, 2.0])
    point1 = rotations[1].T @ (rotations[0] @ point0 + (-0.2, 0, 0))
    have = open_sequence(tmp_path).cam1_from_cam0 @ [*point0, 1]
    assert np.allclose(have[:3], point1)
