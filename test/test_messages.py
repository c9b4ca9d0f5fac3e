"""Images from messages, which are plain objects here, with known results."""

import array

import cv2
import numpy as np
import pytest
from pictures import forms
from stamped_messages import MATRIX, image_msg, info_msg, message, p_of

from loftr_ros.camera import Camera
from loftr_ros.errors import InputError
from loftr_ros.levels import Levels
from loftr_ros.messages import (
    FrameReader,
    image_from_msg,
    stamp_ns,
)

BGR = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
GREY = BGR[..., 1]
FORMS = forms(BGR)


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
