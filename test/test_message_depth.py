"""Depth images from messages, with known results."""

import types

import cv2
import numpy as np
import pytest
from stamped_messages import image_msg, info_msg, message

from loftr_ros.errors import InputError
from loftr_ros.messages import (
    FrameReader,
    depth_from_msg,
)

BGR = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
GREY = BGR[..., 1]
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


def test_depth_of_another_camera_comes_with_its_calibration_and_place():
    place = np.eye(4)
    place[0, 3] = -0.015
    asked = []

    def cam_from_depth(*frames):
        asked.append(frames)
        return place

    depth, reader = image_msg(np.full((3, 4), 1500, np.uint16), '16UC1'), FrameReader(cam_from_depth)
    depth.header.frame_id = 'depth'
    messages = image_msg(GREY, 'mono8'), info_msg(width=8, height=6), depth, info_msg(width=4, height=3)
    frames = reader.read(messages, rectified=True)
    assert asked == [('cam', 'depth')]
    assert (frames.depth_camera.width, frames.depth_camera.height) == (4, 3)
    assert frames.depth_m.shape == (3, 4) and not frames.is_stereo
    np.testing.assert_array_equal(frames.cam0_from_depth, place)
    with pytest.raises(InputError, match='calibration of this depth'):
        reader.read((*messages[:3], info_msg(width=8, height=6)), rectified=True)
