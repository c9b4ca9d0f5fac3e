"""Decoding of messages, which are plain objects here, with known results."""

import array
import re
import types

import cv2
import numpy as np
import pytest
from pictures import forms

from loftr_ros.camera import Camera, CameraModel
from loftr_ros.errors import InputError
from loftr_ros.geometry import rotation_from_vector, undistort_points
from loftr_ros.levels import Levels
from loftr_ros.messages import (
    FrameReader,
    camera_from_info,
    depth_from_msg,
    extrinsics_from_infos,
    image_from_msg,
    stamp_ns,
)

BGR = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
GREY = BGR[..., 1]
FORMS = forms(BGR)
MATRIX = np.array([[500.0, 0, 320.5], [0, 510.0, 239.5], [0, 0, 1]])


def message(stamp=(0, 5), **fields):
    stamp = types.SimpleNamespace(sec=stamp[0], nanosec=stamp[1])
    return types.SimpleNamespace(header=types.SimpleNamespace(stamp=stamp, frame_id='cam'), **fields)


def image_msg(pixels, encoding, padding=0, big_endian=False):
    pixels = np.ascontiguousarray(pixels)
    stored = pixels.astype(pixels.dtype.newbyteorder('>' if big_endian else '<'))
    rows = np.frombuffer(stored.tobytes(), np.uint8).reshape(len(pixels), -1)
    rows = np.pad(rows, ((0, 0), (0, padding)))
    return message(
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding=encoding,
        is_bigendian=int(big_endian),
        step=rows.shape[1],
        data=array.array('B', rows.tobytes()),
    )


def info_msg(**changes):
    projection = np.hstack([MATRIX * [[0.9], [0.9], [1]], [[0], [0], [0]]])
    values = {
        'width': 640,
        'height': 480,
        'k': MATRIX.ravel(),
        'p': projection.ravel(),
        'd': [-0.3, 0.1, 0.001, -0.002, 0.05],
        'distortion_model': 'plumb_bob',
        'binning_x': 0,
        'binning_y': 0,
        'roi': types.SimpleNamespace(x_offset=0, y_offset=0, width=0, height=0),
    }
    return message(**(values | changes))


def test_stamps_keep_every_nanosecond():
    assert stamp_ns(message((1_700_000_000, 123_456_789)).header) == 1_700_000_000_123_456_789


# Frames


def test_a_set_of_messages_becomes_frames_with_the_baseline_of_both_p():
    left, right = (info_msg(width=8, height=6, p=p_of(tx=tx)) for tx in (0, -60))
    reader = FrameReader()
    frames = reader.read((image_msg(GREY, 'mono8'), left, image_msg(BGR, 'bgr8'), right), rectified=True)
    np.testing.assert_array_equal(frames.frame0.image, GREY)
    np.testing.assert_array_equal(frames.frame1.image, BGR)
    assert (frames.frame0.stamp_ns, frames.frame0.frame_id) == (5, 'cam')
    assert frames.baseline_m == pytest.approx(0.12) and reader.baseline_fault == ''


def test_a_camera_may_be_given_instead_of_camera_info():
    camera = Camera(MATRIX, 8, 6)
    reader = FrameReader()
    assert reader.read((image_msg(GREY, 'mono8'), camera), rectified=False).frame0.camera is camera
    pair = reader.read(
        (image_msg(GREY, 'mono8'), camera, image_msg(GREY, 'mono8'), info_msg(width=8, height=6)), rectified=True
    )
    assert pair.baseline_m is None and 'camera_info is missing' in reader.baseline_fault


# Images


@pytest.mark.parametrize('padding', [0, 1, 4])
@pytest.mark.parametrize('big_endian', [False, True])
@pytest.mark.parametrize(
    ('encoding', 'pixels', 'expected'),
    [
        ('mono8', GREY, GREY),
        ('8UC1', GREY, GREY),
        ('mono16', GREY.astype(np.uint16) * 257, GREY),
        ('16UC1', GREY.astype(np.uint16) * 257, GREY),
        ('bgr8', BGR, BGR),
        ('8UC3', BGR, BGR),
        ('rgb8', BGR[..., ::-1], BGR),
        ('bgra8', np.dstack([BGR, GREY]), BGR),
        ('8UC4', np.dstack([BGR, GREY]), BGR),
        ('rgba8', np.dstack([BGR[..., ::-1], GREY]), BGR),
        ('bgr16', BGR.astype(np.uint16) * 257, BGR),
        ('rgb16', BGR[..., ::-1].astype(np.uint16) * 257, BGR),
        ('rgba16', np.dstack([BGR[..., ::-1], GREY]).astype(np.uint16) * 257, BGR),
        ('bgra16', np.dstack([BGR, GREY]).astype(np.uint16) * 257, BGR),
    ],
)
def test_pictures_come_out_as_grey_or_bgr_of_8_bits(encoding, pixels, expected, big_endian, padding):
    image = image_from_msg(image_msg(pixels, encoding, padding, big_endian))
    assert image.dtype == np.uint8 and image.flags.c_contiguous
    np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize(('bits', 'scale'), [(8, 1), (16, 257)])
def test_a_bayer_image_becomes_colour(bits, scale):
    mosaic = np.full((8, 8), 100 * scale, f'uint{bits}')
    mosaic[::2, ::2], mosaic[1::2, 1::2] = 200 * scale, 50 * scale
    image = image_from_msg(image_msg(mosaic, f'bayer_rggb{bits}'))
    assert image.dtype == np.uint8
    assert (image[2:-2, 2:-2] == (50, 100, 200)).all()


@pytest.mark.parametrize(('encoding', 'luma'), [('yuv422', 1), ('uyvy', 1), ('yuv422_yuy2', 0), ('yuyv', 0)])
def test_yuv_becomes_colour(encoding, luma):
    pixels = np.full((2, 4, 2), 128, np.uint8)
    pixels[..., luma] = 235  # white in limited range
    image = image_from_msg(image_msg(pixels, encoding))
    assert image.shape == (2, 4, 3) and (image == 255).all()


def test_an_unpadded_grey_picture_shares_the_memory_of_the_message():
    msg = image_msg(GREY, 'mono8')
    assert np.shares_memory(image_from_msg(msg), np.frombuffer(msg.data, np.uint8))


@pytest.mark.parametrize('encoding', ['32FC1', '32FC3', '16SC1', '8UC2', '64FC1', 'nv12', '', 'rubbish'])
def test_another_encoding_is_refused_with_the_known_encodings(encoding):
    with pytest.raises(InputError, match=rf"'cam' has the encoding '{encoding}'; needed is a picture: mono8, .*bayer"):
        image_from_msg(image_msg(np.zeros((2, 2), np.float32), encoding))


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        ({'data': array.array('B')}, 'data has 0 bytes'),
        ({'data': array.array('B', bytes(100))}, 'data has 100 bytes but 8x6 of rgb8 with step 24 needs 144'),
        ({'height': 0}, 'is empty'),
        ({'width': 0}, 'is empty'),
        ({'step': 0}, 'step is 0'),
        ({'step': 23}, 'step is 23 bytes but 8 pixels of rgb8 need 24'),
    ],
)
def test_an_empty_or_short_message_is_refused(change, words):
    msg = image_msg(BGR, 'rgb8')
    for name, value in change.items():
        setattr(msg, name, value)
    with pytest.raises(InputError, match=words):
        image_from_msg(msg)


def compressed(pixels, extension='png', text='png'):
    data = array.array('B', cv2.imencode(f'.{extension}', pixels)[1].tobytes())
    return message(format=text, data=data)


@pytest.mark.parametrize(('pixels', 'expected'), FORMS.values(), ids=FORMS)
def test_compressed_pictures_come_out_as_grey_or_bgr_of_8_bits(pixels, expected):
    image = image_from_msg(compressed(pixels))
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, expected)


def test_a_compressed_bayer_image_becomes_colour():
    mosaic = np.full((8, 8), 100, np.uint8)
    mosaic[::2, ::2], mosaic[1::2, 1::2] = 200, 50
    image = image_from_msg(compressed(mosaic, text='bayer_rggb8; png compressed '))
    assert (image[2:-2, 2:-2] == (50, 100, 200)).all()


@pytest.mark.parametrize(
    ('text', 'data', 'words'),
    [
        ('jpeg', b'', 'is empty'),
        ('jpeg', b'no image', 'decode'),
        ('16UC1; compressedDepth png', b'x' * 40, 'compressed depth'),
    ],
)
def test_compressed_data_that_are_no_picture_are_refused(text, data, words):
    msg = message(format=text, data=array.array('B', data))
    with pytest.raises(InputError, match=words):
        image_from_msg(msg)


def test_a_range_of_16_bits_is_kept_for_the_images_of_a_topic():
    view = np.random.default_rng(1).integers(0, 256, (60, 80))
    levels, pictures = Levels(), [(21000 + gain * view).astype(np.uint16) for gain in (2, 1)]
    images = [image_from_msg(image_msg(p, 'mono16'), levels) for p in pictures]
    # Half the contrast in the scene is half the contrast in the picture.
    assert np.ptp(images[0]) > 200 and np.ptp(images[1]) == pytest.approx(np.ptp(images[0]) / 2, abs=1)
    from_png = image_from_msg(compressed(pictures[0], text='mono16; png compressed '), Levels())
    np.testing.assert_array_equal(from_png, images[0])


def test_16_bits_that_are_depth_are_refused_but_not_those_of_a_thermal_camera():
    depth = np.linspace(500, 5000, 48 * 64).reshape(48, 64).astype(np.uint16)
    depth[:, :8] = 0
    with pytest.raises(InputError, match=r"'cam' looks like depth, not like a grey image.*mono16"):
        image_from_msg(image_msg(depth, '16UC1'))
    with pytest.raises(InputError, match="'cam' looks like depth"):
        image_from_msg(compressed(depth, text='16UC1; png compressed '))
    assert image_from_msg(image_msg(depth, 'mono16')).max() > 60, 'it says that it is a picture'
    thermal = np.where(depth, 29000 + depth // 10, 0).astype(np.uint16)
    assert len(np.unique(image_from_msg(image_msg(thermal, '16UC1')))) > 150
    msg = image_msg(thermal, '16UC1')
    msg.header.frame_id = 'camera_depth_optical_frame'
    with pytest.raises(InputError, match='frame of a depth camera; subscribe to its picture'):
        image_from_msg(msg)


# Cameras


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


def p_of(tx=0.0, ty=0.0, focal=500.0, cx=320.0):
    return np.array([focal, 0, cx, tx, 0, focal, 240, ty, 0, 0, 1, 0])


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


# Depth

METRES = np.array([[0.5, 1.25, 0.0, 2.0], [3.0, np.nan, 65.5, 0.001]], np.float32)
KNOWN = np.where(METRES > 0, METRES, np.nan)


def compressed_depth_msg(png, form, header=b'\0' * 12):
    return types.SimpleNamespace(header=message((0, 5)).header, format=form, data=header + png.tobytes())


@pytest.mark.parametrize('big_endian', [False, True])
@pytest.mark.parametrize(
    ('encoding', 'pixels'),
    [('16UC1', np.rint(np.nan_to_num(METRES) * 1000).astype(np.uint16)), ('32FC1', METRES)],
)
def test_depth_is_metres_and_nan_where_it_is_unknown(encoding, pixels, big_endian):
    found = depth_from_msg(image_msg(pixels, encoding, big_endian=big_endian, padding=3))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, KNOWN, rtol=1e-6)


def test_infinite_and_negative_depth_is_unknown():
    found = depth_from_msg(image_msg(np.array([[np.inf, -1.0, 2.0]], np.float32), '32FC1'))
    np.testing.assert_array_equal(found, [[np.nan, np.nan, 2.0]])


def test_a_picture_is_no_depth():
    for encoding, pixels in (('mono8', GREY), ('bgr8', BGR)):
        with pytest.raises(InputError, match=f"{encoding}'; needed is 16UC1"):
            depth_from_msg(image_msg(pixels, encoding))


def test_compressed_depth_in_millimetres():
    pixels = np.rint(np.nan_to_num(METRES) * 1000).astype(np.uint16)
    png = cv2.imencode('.png', pixels)[1]
    for form in ('16UC1; compressedDepth', '16UC1; compressedDepth png'):
        np.testing.assert_allclose(depth_from_msg(compressed_depth_msg(png, form)), KNOWN, rtol=1e-6)


def test_compressed_depth_in_metres_is_inverse_depth_in_steps():
    # As compressed_depth_image_transport writes it: value = a / z + b, with a and b in the header.
    a, b = 100.0 * 101.0, 1.0 - 100.0 * 101.0 / 10.0
    inside = np.array([[0.5, 1.0], [5.0, np.nan]], np.float32)
    steps = np.where(np.isnan(inside), 0, np.rint(a / np.nan_to_num(inside, nan=1.0) + b)).astype(np.uint16)
    png = cv2.imencode('.png', steps)[1]
    header = np.int32(1).tobytes() + np.float32([a, b]).tobytes()
    found = depth_from_msg(compressed_depth_msg(png, '32FC1; compressedDepth', header))
    np.testing.assert_allclose(found, inside, rtol=1e-3)


@pytest.mark.parametrize(
    ('form', 'words'),
    [('16UC1; compressedDepth rvl', 'depth_transport'), ('bgr8; jpeg compressed bgr8', 'compressedDepth')],
)
def test_another_compression_of_depth_is_named(form, words):
    with pytest.raises(InputError, match=words):
        depth_from_msg(compressed_depth_msg(np.zeros(40, np.uint8), form))


def test_damaged_compressed_depth_is_refused():
    with pytest.raises(InputError, match='cannot be decoded'):
        depth_from_msg(compressed_depth_msg(np.zeros(3, np.uint8), '16UC1; compressedDepth'))


def test_a_set_with_depth_becomes_frames_with_depth():
    depth = np.full(GREY.shape, 1500, np.uint16)
    info, reader = info_msg(width=8, height=6), FrameReader()
    frames = reader.read((image_msg(GREY, 'mono8'), info, image_msg(depth, '16UC1')), rectified=True)
    np.testing.assert_allclose(frames.depth_m, 1.5)
    assert not frames.is_stereo and reader.depth_fault == ''


def test_depth_that_is_not_registered_is_refused_or_warned_about():
    info, reader = info_msg(width=8, height=6), FrameReader()
    small = image_msg(np.ones((3, 4), np.uint16), '16UC1')
    with pytest.raises(InputError, match=r'4x3 pixels and its image 8x6.*register'):
        reader.read((image_msg(GREY, 'mono8'), info, small), rectified=True)
    other = image_msg(np.ones(GREY.shape, np.uint16), '16UC1')
    other.header.frame_id = 'depth_optical_frame'
    reader.read((image_msg(GREY, 'mono8'), info, other), rectified=True)
    assert "'depth_optical_frame' and its image in 'cam'" in reader.depth_fault
