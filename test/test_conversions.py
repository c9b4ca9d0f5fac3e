"""Conversions between messages and the package's types, against answers by construction."""

import array
import re
import time
import types

import cv2
import numpy as np
import pytest

pytest.importorskip('sensor_msgs.msg', reason='sensor_msgs is not installed')
pytest.importorskip('loftr_ros.msg', reason='the package is not built with colcon')

from sensor_msgs.msg import CameraInfo, CompressedImage, Image, RegionOfInterest

from loftr_ros.datatypes import (
    UNKNOWN_VARIANCE,
    Camera,
    CameraModel,
    Frame,
    Matches,
    PoseFailure,
    PoseStatus,
    RelativePose,
    Scale,
)
from loftr_ros.errors import InputError
from loftr_ros.geometry import rotation_from_vector, undistort_points
from loftr_ros.levels import Levels
from loftr_ros.ros import compat, conversions
from loftr_ros.ros.compat.bridge import CvBridge

pytestmark = pytest.mark.ros
BRIDGES = {'chosen': compat.CvBridge(), 'stand-in': CvBridge()}
EITHER = pytest.mark.parametrize('bridge', BRIDGES.values(), ids=BRIDGES)
BGR = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
GREY = BGR[..., 1]
MATRIX = np.array([[500.0, 0, 320.5], [0, 510.0, 239.5], [0, 0, 1]])


def image_msg(pixels, encoding, padding=0, big_endian=False):
    pixels = np.ascontiguousarray(pixels)
    stored = pixels.astype(pixels.dtype.newbyteorder('>' if big_endian else '<'))
    rows = np.frombuffer(stored.tobytes(), np.uint8).reshape(len(pixels), -1)
    rows = np.pad(rows, ((0, 0), (0, padding)))
    return Image(
        header=conversions.header(5, 'cam'),
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
        'header': conversions.header(5, 'cam'),
        'width': 640,
        'height': 480,
        'k': MATRIX.ravel(),
        'p': projection.ravel(),
        'd': [-0.3, 0.1, 0.001, -0.002, 0.05],
        'distortion_model': 'plumb_bob',
    }
    return CameraInfo(**(values | changes))


# Stamps


@pytest.mark.parametrize('nanoseconds', [0, 1, 999_999_999, 1_000_000_000, 1_700_000_000_123_456_789])
def test_stamps_keep_every_nanosecond(nanoseconds):
    header = conversions.header(nanoseconds, 'cam')
    assert conversions.stamp_ns(header) == nanoseconds
    assert header.frame_id == 'cam'


# Images


@EITHER
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
def test_pictures_come_out_as_grey_or_bgr_of_8_bits(encoding, pixels, expected, big_endian, padding, bridge):
    image = conversions.image_from_msg(image_msg(pixels, encoding, padding, big_endian), bridge)
    assert image.dtype == np.uint8 and image.flags.c_contiguous
    np.testing.assert_array_equal(image, expected)


@EITHER
@pytest.mark.parametrize(('bits', 'scale'), [(8, 1), (16, 257)])
def test_a_mosaic_becomes_colour(bits, scale, bridge):
    mosaic = np.full((8, 8), 100 * scale, f'uint{bits}')
    mosaic[::2, ::2], mosaic[1::2, 1::2] = 200 * scale, 50 * scale
    image = conversions.image_from_msg(image_msg(mosaic, f'bayer_rggb{bits}'), bridge)
    assert image.dtype == np.uint8
    assert (image[2:-2, 2:-2] == (50, 100, 200)).all()


@EITHER
@pytest.mark.parametrize(('encoding', 'luma'), [('yuv422', 1), ('uyvy', 1), ('yuv422_yuy2', 0), ('yuyv', 0)])
def test_yuv_becomes_colour(encoding, luma, bridge):
    pixels = np.full((2, 4, 2), 128, np.uint8)
    pixels[..., luma] = 235  # white in limited range
    image = conversions.image_from_msg(image_msg(pixels, encoding), bridge)
    assert image.shape == (2, 4, 3) and (image == 255).all()


def test_an_unpadded_grey_picture_shares_the_memory_of_the_message():
    msg = image_msg(GREY, 'mono8')
    assert np.shares_memory(conversions.image_from_msg(msg, CvBridge()), np.frombuffer(msg.data, np.uint8))


@EITHER
@pytest.mark.parametrize('encoding', ['32FC1', '32FC3', '16SC1', '8UC2', '64FC1', 'nv12', '', 'rubbish'])
def test_what_is_no_picture_is_refused_with_the_encodings_that_are(encoding, bridge):
    with pytest.raises(InputError, match=rf"'cam' has the encoding '{encoding}'; needed is a picture: mono8, .*bayer"):
        conversions.image_from_msg(image_msg(np.zeros((2, 2), np.float32), encoding), bridge)


@EITHER
@pytest.mark.parametrize(
    ('change', 'words'),
    [
        ({'data': array.array('B')}, 'data has 0 bytes'),
        ({'data': array.array('B', bytes(100))}, 'data has 100 bytes but 8x6 of rgb8 with step 24 needs 144'),
        ({'height': 0}, 'image is empty'),
        ({'width': 0}, 'image is empty'),
        ({'step': 0}, 'step is 0'),
        ({'step': 23}, 'step is 23 bytes but 8 pixels of rgb8 need 24'),
    ],
)
def test_an_empty_or_short_message_is_refused(change, words, bridge):
    msg = image_msg(BGR, 'rgb8')
    for name, value in change.items():
        setattr(msg, name, value)
    with pytest.raises(InputError, match=words):
        conversions.image_from_msg(msg, bridge)


@pytest.mark.parametrize('error', [TypeError('buffer is too small'), RuntimeError('Unrecognized'), AttributeError('x')])
def test_whatever_a_bridge_raises_becomes_an_input_error(error):
    def fail(*_):
        raise error

    broken = types.SimpleNamespace(imgmsg_to_cv2=fail)
    with pytest.raises(InputError, match=f"image of 'cam' cannot be converted: {error}"):
        conversions.image_from_msg(image_msg(BGR, 'bgr8'), broken)


@pytest.mark.parametrize(
    'msg',
    [
        image_msg(BGR, 'rgb8', padding=1),
        image_msg(BGR.astype(np.uint16) * 257, 'rgb16', big_endian=True),
        image_msg(BGR[..., :2], 'uyvy'),
    ],
    ids=['padded', 'big-endian', 'uyvy'],
)
def test_what_some_cv_bridge_misread_does_not_go_through_it(msg):
    never = types.SimpleNamespace(imgmsg_to_cv2=lambda *_: pytest.fail('it was asked'))
    np.testing.assert_array_equal(conversions.image_from_msg(msg, never), CvBridge().imgmsg_to_cv2(msg, 'bgr8'))


def test_a_plain_message_goes_through_the_bridge_that_was_given():
    asked = types.SimpleNamespace(imgmsg_to_cv2=lambda _msg, encoding: f'as {encoding}')
    assert conversions.image_from_msg(image_msg(BGR, 'rgb8'), asked) == 'as bgr8'


def compressed(pixels, extension='png', text='png'):
    data = array.array('B', cv2.imencode(f'.{extension}', pixels)[1].tobytes())
    return CompressedImage(header=conversions.header(5, 'cam'), format=text, data=data)


@EITHER
@pytest.mark.parametrize(
    ('pixels', 'expected'),
    [
        (GREY, GREY),
        (BGR, BGR),
        (np.dstack([BGR, GREY]), BGR),
        (GREY.astype(np.uint16) * 257, GREY),
        (BGR.astype(np.uint16) * 257, BGR),
    ],
    ids=['grey', 'colour', 'alpha', '16 bit grey', '16 bit colour'],
)
def test_compressed_pictures_come_out_as_grey_or_bgr_of_8_bits(pixels, expected, bridge):
    image = conversions.image_from_msg(compressed(pixels), bridge)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, expected)


@EITHER
def test_a_compressed_mosaic_becomes_colour(bridge):
    mosaic = np.full((8, 8), 100, np.uint8)
    mosaic[::2, ::2], mosaic[1::2, 1::2] = 200, 50
    image = conversions.image_from_msg(compressed(mosaic, text='bayer_rggb8; png compressed '), bridge)
    assert (image[2:-2, 2:-2] == (50, 100, 200)).all()


@EITHER
@pytest.mark.parametrize(
    ('text', 'data', 'words'),
    [
        ('jpeg', b'', 'is empty'),
        ('jpeg', b'no image', 'decode'),
        ('16UC1; compressedDepth png', b'x' * 40, 'compressed depth'),
    ],
)
def test_compressed_data_that_are_no_picture_are_refused(text, data, words, bridge):
    msg = CompressedImage(header=conversions.header(5, 'cam'), format=text, data=array.array('B', data))
    with pytest.raises(InputError, match=words):
        conversions.image_from_msg(msg, bridge)


@EITHER
def test_a_range_of_16_bits_is_kept_for_the_images_of_a_topic(bridge):
    view = np.random.default_rng(1).integers(0, 256, (60, 80))
    levels, pictures = Levels(), [(21000 + gain * view).astype(np.uint16) for gain in (2, 1)]
    images = [conversions.image_from_msg(image_msg(p, 'mono16'), bridge, levels) for p in pictures]
    # Half the contrast in the scene is half the contrast in the picture.
    assert np.ptp(images[0]) > 200 and np.ptp(images[1]) == pytest.approx(np.ptp(images[0]) / 2, abs=1)
    from_png = conversions.image_from_msg(compressed(pictures[0], text='mono16; png compressed '), bridge, Levels())
    np.testing.assert_array_equal(from_png, images[0])


@EITHER
def test_16_bits_that_are_depth_are_refused_but_not_those_of_a_thermal_camera(bridge):
    depth = np.linspace(500, 5000, 48 * 64).reshape(48, 64).astype(np.uint16)
    depth[:, :8] = 0
    with pytest.raises(InputError, match=r"'cam' looks like depth, not like a grey image.*mono16"):
        conversions.image_from_msg(image_msg(depth, '16UC1'), bridge)
    with pytest.raises(InputError, match="'cam' looks like depth"):
        conversions.image_from_msg(compressed(depth, text='16UC1; png compressed '), bridge)
    assert conversions.image_from_msg(image_msg(depth, 'mono16'), bridge).max() > 60, 'it says that it is a picture'
    thermal = np.where(depth, 29000 + depth // 10, 0).astype(np.uint16)
    assert len(np.unique(conversions.image_from_msg(image_msg(thermal, '16UC1'), bridge))) > 150
    msg = image_msg(thermal, '16UC1')
    msg.header.frame_id = 'camera_depth_optical_frame'
    with pytest.raises(InputError, match='frame of a depth camera; subscribe to its picture'):
        conversions.image_from_msg(msg, bridge)


# Cameras


def test_an_ideal_fisheye_is_no_pinhole():
    info = info_msg(distortion_model='equidistant', d=[])
    camera = conversions.camera_from_info(info, rectified=False)
    pixels = np.array([[600.0, 240.0], [500.0, 400.0]])
    expected = cv2.fisheye.undistortPoints(pixels[None], MATRIX, np.zeros(4))[0]
    np.testing.assert_allclose(undistort_points(camera, pixels), expected, atol=1e-6)


@pytest.mark.parametrize('model', ['equidistant', 'plumb_bob'])
def test_a_last_coefficient_of_zero_too_many_is_left_out(model):
    given = [0.1, 0.2, 0.003, 0.004, 0.0] + [0.0] * 3 * (model == 'plumb_bob')
    info = info_msg(distortion_model=model, d=given)
    count = 4 if model == 'equidistant' else 5
    assert conversions.camera_from_info(info, rectified=False).distortion.tolist() == given[:count]


@pytest.mark.parametrize('rectified', [True, False])
def test_a_camera_matrix_of_another_form_is_refused_with_the_name_of_the_frame(rectified):
    matrix = MATRIX.T
    info = info_msg(k=matrix.ravel(), p=np.hstack([matrix, np.zeros((3, 1))]).ravel())
    with pytest.raises(InputError, match=rf"'cam', {'P' if rectified else 'K'}: .*it is transposed"):
        conversions.camera_from_info(info, rectified=rectified)


def test_a_rectified_camera_takes_p_and_no_distortion():
    camera = conversions.camera_from_info(info_msg(), rectified=True)
    np.testing.assert_allclose(camera.matrix, MATRIX * [[0.9], [0.9], [1]])
    assert not camera.is_distorted
    assert (camera.width, camera.height) == (640, 480)


def test_a_raw_camera_takes_k_and_d():
    camera = conversions.camera_from_info(info_msg(), rectified=False)
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
    camera = conversions.camera_from_info(info_msg(distortion_model=name, d=coefficients), rectified=False)
    assert camera.model is model
    assert camera.distortion.tolist() == coefficients
    assert camera.is_distorted


@pytest.mark.parametrize(('name', 'coefficients'), [('', []), ('', [0.0] * 5), ('rational_polynomial', [0.0] * 5)])
def test_zeros_of_any_number_are_no_distortion(name, coefficients):
    info = info_msg(distortion_model=name, d=coefficients)
    assert not conversions.camera_from_info(info, rectified=False).is_distorted


@pytest.mark.parametrize('name', ['', 'division', 'Plumb_Bob'])
def test_an_unknown_distortion_model_is_refused_with_the_known_ones(name):
    info = info_msg(distortion_model=name)
    with pytest.raises(
        InputError, match=f"model '{name}' with 5 .*plumb_bob, rational_polynomial, equidistant, fisheye"
    ):
        conversions.camera_from_info(info, rectified=False)
    conversions.camera_from_info(info, rectified=True)  # where distortion is gone, its name does not matter


@pytest.mark.parametrize(('rectified', 'empty', 'full'), [(True, 'P', 'K'), (False, 'K', 'P')])
def test_zeros_in_one_matrix_are_refused_and_the_other_named(rectified, empty, full):
    info = info_msg(**{empty.lower(): np.zeros(12 if empty == 'P' else 9)})
    with pytest.raises(InputError, match=f'fx=0, fy=0 in {empty}.* {full} is filled: set input.rectified to'):
        conversions.camera_from_info(info, rectified=rectified)


@pytest.mark.parametrize('rectified', [True, False])
def test_an_uncalibrated_camera_is_refused_with_the_remedy(rectified):
    info = info_msg(k=np.zeros(9), p=np.zeros(12))
    with pytest.raises(InputError, match='positive focal lengths: calibrate the camera'):
        conversions.camera_from_info(info, rectified=rectified)


@pytest.mark.parametrize('rectified', [True, False])
def test_binning_and_roi_move_a_point_as_they_move_its_pixel(rectified):
    roi = RegionOfInterest(x_offset=100, y_offset=60, width=400, height=300)
    point = np.array([0.1, -0.2, 2.0])
    full = conversions.camera_from_info(info_msg(d=[]), rectified=rectified)
    part = conversions.camera_from_info(info_msg(d=[], roi=roi, binning_x=2, binning_y=4), rectified=rectified)
    pixel, pixel_part = (camera.matrix @ point for camera in (full, part))
    np.testing.assert_allclose(pixel_part[:2] / 2.0, (pixel[:2] / 2.0 - (100, 60)) / (2, 4))
    assert (part.width, part.height) == (200, 75)


def test_binning_of_the_full_image_divides_its_size():
    camera = conversions.camera_from_info(info_msg(binning_x=2, binning_y=2), rectified=True)
    assert (camera.width, camera.height) == (320, 240)
    assert camera.distortion.size == 0


@pytest.mark.parametrize('distortion', [(), (-0.3, 0.1, 0.001, -0.002)])
def test_a_camera_comes_back_from_its_camera_info(distortion):
    camera = Camera(MATRIX, 640, 480, distortion)
    info = conversions.info_from_camera(camera, conversions.header(7, 'cam'))
    for rectified in (False, True):
        back = conversions.camera_from_info(info, rectified=rectified)
        np.testing.assert_array_equal(back.matrix, MATRIX)
        assert (back.width, back.height) == (640, 480)
    assert conversions.camera_from_info(info, rectified=False).distortion.tolist() == list(distortion)


def p_of(tx=0.0, ty=0.0, focal=500.0, cx=320.0):
    return np.array([focal, 0, cx, tx, 0, focal, 240, ty, 0, 0, 1, 0])


def baseline(left_p, right_p):
    return conversions.baseline_from_infos(info_msg(p=left_p), info_msg(p=right_p))


@pytest.mark.parametrize('axis', [0, 1])
def test_the_baseline_is_the_one_that_was_written(axis):
    camera = Camera(MATRIX, 640, 480)
    left, right = (
        conversions.info_from_camera(camera, conversions.header(7, 'cam'), baseline_m=b, axis=axis) for b in (0, 0.12)
    )
    assert right.p[3 + 4 * axis] == pytest.approx(-0.12 * MATRIX[axis, axis])
    assert conversions.baseline_from_infos(left, right) == (pytest.approx(0.12), '')


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
    assert length_m == 0 and re.search(reason, words)


def test_rectification_and_projection_of_a_calibration_are_published():
    rectification = np.array([[0.8, 0, 0.6], [0, 1, 0], [-0.6, 0, 0.8]])
    projection = np.array([[240, 0, 160, -24], [0, 240, 120, 0], [0, 0, 1, 0]])
    camera = Camera(MATRIX, 640, 480, rectification=rectification, projection=projection)
    info = conversions.info_from_camera(camera, conversions.header(7, 'cam'), baseline_m=5.0)
    np.testing.assert_array_equal(info.r, rectification.ravel())
    np.testing.assert_array_equal(info.p, projection.ravel())
    np.testing.assert_array_equal(info.k, MATRIX.ravel())


# Matches and poses


def pair(count=3):
    rng = np.random.default_rng(count)
    matches = Matches(
        rng.random((count, 2)) * 600,
        rng.random((count, 2)) * 400,
        rng.random(count),
        np.full(count, np.nan),
        np.arange(count),
    )
    return types.SimpleNamespace(
        matches=matches,
        inliers=np.arange(count) % 2 == 0,
        track_ids=np.arange(count) + (7 << 32),
        id0=7,
        id1=9,
        match_s=0.25,
        frame0=Frame(np.zeros((480, 640), np.uint8), None),
        frame1=Frame(np.zeros((300, 400, 3), np.uint8), None),
    )


HEADERS = (conversions.header(2_000_000_001, 'cam1'), conversions.header(1_000_000_000, 'cam0'))


@pytest.mark.parametrize('count', [0, 1, 3, 2000])
def test_matches_come_back_from_their_message(count):
    result = pair(count)
    msg = conversions.matches_to_msg(result, *HEADERS, matcher='gcm', age_s=0.5)
    back = conversions.matches_from_msg(msg)
    for name in ('keypoints0', 'keypoints1', 'confidence', 'sigma_px'):
        np.testing.assert_array_equal(getattr(back, name), getattr(result.matches, name))
    np.testing.assert_array_equal(back.point_id0, result.track_ids)
    np.testing.assert_array_equal(conversions.inliers_from_msg(msg), result.inliers)


def test_a_message_of_matches_says_whose_they_are():
    msg = conversions.matches_to_msg(pair(), *HEADERS, matcher='gcm', age_s=0.5)
    assert (msg.header.frame_id, msg.header0.frame_id) == ('cam1', 'cam0')
    assert (msg.id0, msg.id1) == (7, 9)
    assert (msg.width0, msg.height0, msg.width1, msg.height1) == (640, 480, 400, 300)
    assert (msg.matcher, msg.match_s, msg.age_s) == ('gcm', 0.25, 0.5)
    assert list(msg.points0[:2]) == pair().matches.keypoints0[0].tolist()


def test_many_matches_are_written_without_a_loop():
    result = pair(20_000)
    times = []
    for _ in range(5):
        started = time.perf_counter()
        conversions.matches_to_msg(result, *HEADERS)
        times.append(time.perf_counter() - started)
    # Below 1 ms on one core; a Python loop over 40,000 coordinates takes more than 10 ms anywhere.
    assert min(times) < 0.005


@pytest.mark.parametrize('vector', [(0, 0, 0), (0.3, -0.2, 0.1), (3.1, 0, 0), (0, 0, -1.5)])
def test_a_pose_comes_back_from_its_message(vector):
    cam1_from_cam0 = np.eye(4)
    cam1_from_cam0[:3, :3] = rotation_from_vector(vector)
    cam1_from_cam0[:3, 3] = 0.6, 0.0, -0.8
    covariance = np.arange(36.0).reshape(6, 6)
    pose = RelativePose(
        cam1_from_cam0, covariance, [True, True, False], 1.5, 0.25, Scale.BASELINE, PoseStatus.LOW_PARALLAX
    )
    msg = conversions.relative_pose_to_msg(pose, *HEADERS, 7, 9)
    assert (msg.id0, msg.id1, msg.header.frame_id, msg.header0.frame_id) == (7, 9, 'cam1', 'cam0')
    assert (msg.num_matches, msg.num_inliers) == (3, 2)
    back = conversions.relative_pose_from_msg(msg)
    np.testing.assert_allclose(back.cam1_from_cam0, cam1_from_cam0, atol=1e-15)
    np.testing.assert_array_equal(back.covariance, covariance)
    assert (back.scale, back.status, back.num_matches, back.num_inliers) == (pose.scale, pose.status, 3, 2)
    assert (back.median_parallax_deg, back.epipolar_rmse_px) == (1.5, 0.25)


def test_a_quarter_turn_to_the_left_about_z_has_the_quaternion_of_the_books():
    cam1_from_cam0 = np.eye(4)
    cam1_from_cam0[:3, :3] = [[0, -1, 0], [1, 0, 0], [0, 0, 1]]
    pose = RelativePose(cam1_from_cam0, np.eye(6), [True], 1.0, 1.0)
    rotation = conversions.relative_pose_to_msg(pose, *HEADERS, 0, 1).transform.rotation
    np.testing.assert_allclose((rotation.x, rotation.y, rotation.z, rotation.w), (0, 0, 0.5**0.5, 0.5**0.5), atol=1e-15)


def test_a_failure_is_never_an_identity():
    failure = PoseFailure(PoseStatus.TOO_FEW_INLIERS, 'only 4 of 30 agree', 30, 4)
    msg = conversions.relative_pose_to_msg(failure, *HEADERS, 7, 9)
    transform = msg.transform
    values = [transform.translation.x, transform.translation.z, transform.rotation.x, transform.rotation.w]
    assert np.isnan(values).all()
    np.testing.assert_array_equal(np.reshape(msg.covariance, (6, 6)), np.eye(6) * UNKNOWN_VARIANCE)
    assert np.isnan(msg.median_parallax_deg) and np.isnan(msg.epipolar_rmse_px)
    back = conversions.relative_pose_from_msg(msg)
    assert isinstance(back, PoseFailure)
    assert (back.status, back.num_matches, back.num_inliers) == (PoseStatus.TOO_FEW_INLIERS, 30, 4)


def test_the_constants_of_the_message_are_those_of_the_types():
    message = conversions.RelativePoseMsg
    assert {s.name: s.value for s in PoseStatus} == {s.name: getattr(message, f'STATUS_{s.name}') for s in PoseStatus}
    assert {s.name: s.value for s in Scale} == {s.name: getattr(message, f'SCALE_{s.name}') for s in Scale}
    assert message.UNKNOWN_VARIANCE == UNKNOWN_VARIANCE
