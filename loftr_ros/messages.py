"""Decoding of messages of cameras into images, depth and frames, without ROS.

A message is any object with the fields of its ROS type: of rclpy, or of a bag that is read without ROS.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np

from loftr_ros.camera import Camera
from loftr_ros.camera_messages import camera_from_info, extrinsics_from_infos
from loftr_ros.datatypes import Frame, FrameSet
from loftr_ros.errors import InputError
from loftr_ros.geometry import matrix_from_quaternion, transform
from loftr_ros.levels import Levels, check_no_depth

SECOND_NS = 1_000_000_000


def transform_from_msg(message) -> np.ndarray:
    """Return the (4, 4) transform of a geometry_msgs Transform, or of a Pose: parent_from_child."""
    is_pose = hasattr(message, 'position')
    place, turn = (message.position, message.orientation) if is_pose else (message.translation, message.rotation)
    rotation = matrix_from_quaternion([turn.x, turn.y, turn.z, turn.w])
    return transform(rotation, [place.x, place.y, place.z])


def stamp_ns(header) -> int:
    """Return the stamp of a header [ns]."""
    return header.stamp.sec * SECOND_NS + header.stamp.nanosec


class FrameReader:
    """Decodes sets of messages into frames. Keeps, for each camera, the grey-value range of its 16-bit images.

    Args:
        cam_from_depth: returns the (4, 4) transform from the frame of a depth image to that of its image, given as the
            frame_ids of the image and of the depth, or raises InputError. None: depth images are registered.

    Attributes:
        baseline_fault: why the last stereo pair had no baseline; empty if it had one.
        depth_fault: why the last depth image may not be registered to its image; empty if it is.
    """

    def __init__(self, cam_from_depth: Callable[[str, str], np.ndarray] | None = None):
        self.baseline_fault = self.depth_fault = ''
        self._cam_from_depth = cam_from_depth
        self._levels = (Levels(), Levels())  # of the left and the right camera

    def read(self, messages: tuple, rectified: bool) -> FrameSet:
        """Return the frames of one camera, of one with a depth camera, or of a left and a right camera.

        Args:
            messages: image and camera_info, then the depth image, with its own camera_info if it is not registered, or
                image and camera_info of the right camera; a Camera in place of camera_info where the calibration is
                known otherwise.

        Raises:
            InputError: a message is invalid.
        """
        has_depth = len(messages) == 3 or self._cam_from_depth is not None
        cameras = messages[:2] if has_depth else messages
        pairs = zip(cameras[::2], cameras[1::2], self._levels, strict=False)
        frames = [
            Frame(
                image_from_msg(image, levels),
                info if isinstance(info, Camera) else camera_from_info(info, rectified=rectified),
                stamp_ns(image.header),
                image.header.frame_id,
            )
            for image, info, levels in pairs
        ]
        if has_depth and self._cam_from_depth is None:
            return FrameSet(frames[0], depth_m=self._registered_depth(messages[2], frames[0]))
        if has_depth:
            depth, info = messages[2:]
            depth_camera = info if isinstance(info, Camera) else camera_from_info(info, rectified=rectified)
            cam_from_depth = self._cam_from_depth(frames[0].frame_id, depth.header.frame_id)
            return FrameSet(
                frames[0], depth_m=depth_from_msg(depth), depth_camera=depth_camera, cam0_from_depth=cam_from_depth
            )
        if len(frames) == 1:
            return FrameSet(frames[0])
        if isinstance(messages[1], Camera) or isinstance(messages[3], Camera):
            extrinsics, self.baseline_fault = None, 'a camera_info is missing: only it contains P of a rectified pair'
        else:
            extrinsics, self.baseline_fault = extrinsics_from_infos(messages[1], messages[3], rectified=rectified)
        return FrameSet(*frames, extrinsics)

    def _registered_depth(self, msg, frame: Frame) -> np.ndarray:
        depth_m = depth_from_msg(msg)
        size, needed = depth_m.shape[::-1], frame.image.shape[1::-1]
        if size != needed:
            raise InputError(
                f'depth image of {msg.header.frame_id!r} has {size[0]}x{size[1]} pixels and its image '
                f'{needed[0]}x{needed[1]}; needed is depth that is registered to the image, with a value for each of '
                'its pixels: RealSense align_depth.enable and aligned_depth_to_color, or set odometry.camera_from_depth'
            )
        self.depth_fault = ''
        if msg.header.frame_id != frame.frame_id:
            self.depth_fault = (
                f'the depth image is in the frame {msg.header.frame_id!r} and its image in {frame.frame_id!r}: depth '
                'that is not registered to the image gives wrong motions; if it is not, set odometry.camera_from_depth'
            )
        return depth_m


class _Encoding(NamedTuple):
    """How a pixel of a picture is stored, and OpenCV's conversion to BGR; None where it is grey or BGR already."""

    dtype: str
    channels: int
    to_bgr: int | None = None


def _encodings() -> dict[str, _Encoding]:
    """Return the encodings of sensor_msgs/image_encodings that are pictures.

    8UC1, 8UC3, 8UC4 and 16UC1 do not name the order of their channels: they are read as grey, BGR and BGRA.
    """
    found = {}
    for bits, dtype in ((8, 'u1'), (16, 'u2')):
        found[f'mono{bits}'] = _Encoding(dtype, 1)
        found[f'bgr{bits}'] = _Encoding(dtype, 3)
        found[f'rgb{bits}'] = _Encoding(dtype, 3, cv2.COLOR_RGB2BGR)
        found[f'bgra{bits}'] = _Encoding(dtype, 4, cv2.COLOR_BGRA2BGR)
        found[f'rgba{bits}'] = _Encoding(dtype, 4, cv2.COLOR_RGBA2BGR)
        # OpenCV names a pattern after the second and third pixel of its second row, ROS after its first 2x2 pixels.
        for pattern, opencv in (('rggb', 'BG'), ('bggr', 'RG'), ('gbrg', 'GR'), ('grbg', 'GB')):
            found[f'bayer_{pattern}{bits}'] = _Encoding(dtype, 1, getattr(cv2, f'COLOR_Bayer{opencv}2BGR'))
    for name in ('yuv422', 'uyvy'):
        found[name] = _Encoding('u1', 2, cv2.COLOR_YUV2BGR_UYVY)
    for name in ('yuv422_yuy2', 'yuyv'):
        found[name] = _Encoding('u1', 2, cv2.COLOR_YUV2BGR_YUY2)
    found['8UC1'], found['16UC1'] = found['mono8'], found['mono16']
    found['8UC3'], found['8UC4'] = found['bgr8'], found['bgra8']
    return found


ENCODINGS = _encodings()
"""Encodings that `image_from_msg` decodes."""


def image_from_msg(msg, levels: Levels | None = None) -> np.ndarray:
    """Return the image of an Image or CompressedImage as uint8, (H, W) grey or (H, W, 3) BGR.

    16 bits become 8 by `levels`, which keeps one range for the images of a topic. 16UC1 is read as mono16, unless it
    looks like depth. Alpha is dropped. EXIF orientation is not applied. The image may share the message's memory.

    Args:
        levels: of the topic; without it, each 16-bit image has a range of its own.

    Raises:
        InputError: the message is empty, too short, not a picture, or cannot be decoded.
    """
    levels = levels or Levels()
    try:
        return _raw(msg, levels) if hasattr(msg, 'encoding') else _compressed(msg, levels)
    except cv2.error as error:
        raise InputError(f'image of {msg.header.frame_id!r} cannot be converted: {error}') from error


def _raw(msg, levels: Levels) -> np.ndarray:
    encoding = ENCODINGS.get(msg.encoding)
    if encoding is None:
        raise InputError(
            f'image of {msg.header.frame_id!r} has the encoding {msg.encoding!r}; needed is a picture: '
            f'{", ".join(ENCODINGS)}. For depth, float or other data subscribe to the picture that belongs to it'
        )
    image = _pixels(msg, encoding)
    if msg.encoding == '16UC1':
        _check_no_depth(msg, image)
    if encoding.to_bgr is not None:
        image = cv2.cvtColor(image, encoding.to_bgr)
    return levels.to_8_bits(image)


def _pixels(msg, encoding: _Encoding) -> np.ndarray:
    """Return a message's pixels, (H, W) or (H, W, channels), native byte order; a view if rows have no padding."""
    name = f'image of {msg.header.frame_id!r}'
    dtype = np.dtype(encoding.dtype).newbyteorder('>' if msg.is_bigendian else '<')
    pixel = dtype.itemsize * encoding.channels
    if not (msg.height and msg.width):
        raise InputError(f'{name} is empty: {msg.width}x{msg.height}; check the camera driver')
    if msg.step < msg.width * pixel:
        raise InputError(
            f'{name}: step is {msg.step} bytes but {msg.width} pixels of {msg.encoding} need {msg.width * pixel}; '
            'the publisher must set step to the bytes of a row'
        )
    data = np.asarray(msg.data, np.uint8) if isinstance(msg.data, list) else msg.data
    needed = (msg.height - 1) * msg.step + msg.width * pixel
    if len(data) < needed:
        raise InputError(
            f'{name}: data has {len(data)} bytes but {msg.width}x{msg.height} of {msg.encoding} with step {msg.step} '
            f'needs {msg.height * msg.step}'
        )
    shape, strides = (msg.height, msg.width), (msg.step, pixel)
    if encoding.channels > 1:
        shape, strides = (*shape, encoding.channels), (*strides, dtype.itemsize)
    image = np.ndarray(shape, dtype, data, strides=strides)
    return np.ascontiguousarray(image, dtype.newbyteorder('='))


def _check_no_depth(msg, image: np.ndarray) -> None:
    name = f'image of {msg.header.frame_id!r}'
    if 'depth' in msg.header.frame_id.lower():
        raise InputError(
            f'{name} is 16UC1 in the frame of a depth camera; subscribe to its picture (of infrared: mono8 or mono16)'
        )
    check_no_depth(image, name)


def _compressed(msg, levels: Levels) -> np.ndarray:
    name = f'compressed image of {msg.header.frame_id!r}'
    if 'compressedDepth' in msg.format:
        raise InputError(f'{name} is compressed depth; subscribe to the picture')
    if not len(msg.data):
        raise InputError(f'{name} is empty; check the camera driver')
    image = cv2.imdecode(np.frombuffer(msg.data, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise InputError(
            f'{name}: {len(msg.data)} bytes of format {msg.format!r} cannot be decoded; needed is an image format that '
            'OpenCV reads, such as jpeg or png'
        )
    if image.ndim == 3 and image.shape[2] == 4:
        image = cv2.cvtColor(image, cv2.COLOR_BGRA2BGR)
    source, *_ = re.split(r'[;\s]', msg.format)
    if image.dtype == np.uint16 and source != 'mono16':
        _check_no_depth(msg, image)
    image = levels.to_8_bits(image)
    if image.ndim == 2 and source.startswith('bayer_') and source in ENCODINGS:
        # image_transport compresses the raw Bayer pattern as a grey image.
        return cv2.cvtColor(image, ENCODINGS[source].to_bgr)
    return image


# --- depth -----------------------------------------------------------------------------------------------------------

DEPTH_ENCODINGS = {'16UC1': _Encoding('u2', 1), 'mono16': _Encoding('u2', 1), '32FC1': _Encoding('f4', 1)}
MILLIMETRE = np.float32(1e-3)

COMPRESSED_DEPTH_HEADER = 12
"""Bytes before the PNG of compressed_depth_image_transport: its format as int32, and two float32 of 32FC1 images."""


def depth_from_msg(msg) -> np.ndarray:
    """Return the depth of an Image, or of a CompressedImage of compressed_depth_image_transport.

    As REP-118: 16UC1 in millimetres, 32FC1 in metres.

    Returns:
        (H, W) float32 z [m]; NaN where unknown.

    Raises:
        InputError: the message is empty, too short, not depth, or cannot be decoded.
    """
    depth = _raw_depth(msg) if hasattr(msg, 'encoding') else _compressed_depth(msg)
    if depth.dtype == np.uint16:
        depth = depth * MILLIMETRE
    return np.where(np.isfinite(depth) & (depth > 0), depth, np.float32(np.nan))


def _raw_depth(msg) -> np.ndarray:
    encoding = DEPTH_ENCODINGS.get(msg.encoding)
    if encoding is None:
        raise InputError(
            f'depth image of {msg.header.frame_id!r} has the encoding {msg.encoding!r}; needed is 16UC1 [mm] or 32FC1 '
            '[m] (REP-118): subscribe to the depth topic, not to its picture or disparity'
        )
    return _pixels(msg, encoding)


def _compressed_depth(msg) -> np.ndarray:
    """Decode the PNG. That of 32FC1 contains the inverse depth in steps: z = a / (value - b), 0 where unknown."""
    name = f'compressed depth image of {msg.header.frame_id!r}'
    source, *_ = re.split(r'[;\s]', msg.format)
    if 'compressedDepth' not in msg.format or source not in DEPTH_ENCODINGS or 'rvl' in msg.format:
        raise InputError(
            f'{name} has the format {msg.format!r}; needed is 16UC1 or 32FC1 with "compressedDepth png": subscribe to '
            'the topic that ends with /compressedDepth, or set input.depth_transport to raw'
        )
    data = np.frombuffer(msg.data, np.uint8)
    depth = None
    if len(data) > COMPRESSED_DEPTH_HEADER:
        depth = cv2.imdecode(data[COMPRESSED_DEPTH_HEADER:], cv2.IMREAD_UNCHANGED)
    if depth is None or depth.dtype != np.uint16 or depth.ndim != 2:
        raise InputError(f'{name}: {len(data)} bytes of format {msg.format!r} cannot be decoded as a 16-bit PNG')
    if source != '32FC1':
        return depth
    scale, offset = data[4:COMPRESSED_DEPTH_HEADER].view('<f4')
    with np.errstate(divide='ignore', invalid='ignore'):
        return np.where(depth > 0, scale / (depth - offset), np.float32(np.nan)).astype(np.float32)
