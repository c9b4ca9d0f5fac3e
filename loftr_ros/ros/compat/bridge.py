"""Stand-in for cv_bridge (ros-perception/vision_opencv), for environments where it is missing or broken.

Names, arguments, the table of conversions and its refusals are upstream's (cv_bridge.cpp, core.py). Mended against it
(each shown by a test): rows padded to a length that is no multiple of a pixel, big-endian images under NumPy 2,
compressed grey images converted to colour, messages shorter than their size says. Added: the names `uyvy` and `yuyv`,
which replace `yuv422` and `yuv422_yuy2` in sensor_msgs. Left out: 32SC1 labels to colours. nv12, nv21 and nv24 are
refused, as by upstream.
"""

from __future__ import annotations

import array
import re
import sys
from typing import NamedTuple

import cv2
import numpy as np


class CvBridgeError(TypeError):
    """A message or an image cannot be converted."""


class _Encoding(NamedTuple):
    depth: str  # OpenCV's name: 8U, 16S, 32F ...
    channels: int
    colour: str = ''  # order of the channels; empty: numbers without a meaning as colour

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(_DTYPES[self.depth])


_DTYPES = {
    '8U': 'uint8',
    '8S': 'int8',
    '16U': 'uint16',
    '16S': 'int16',
    '32S': 'int32',
    '32F': 'float32',
    '64F': 'float64',
}
_DEPTHS = {dtype: depth for depth, dtype in _DTYPES.items()}


def _table() -> dict[str, _Encoding]:
    """Return the encodings of sensor_msgs/image_encodings that name the meaning of their channels."""
    table = {
        'yuv422': _Encoding('8U', 2, 'UYVY'),
        'uyvy': _Encoding('8U', 2, 'UYVY'),
        'yuv422_yuy2': _Encoding('8U', 2, 'YUY2'),
        'yuyv': _Encoding('8U', 2, 'YUY2'),
    }
    for bits in (8, 16):
        table[f'mono{bits}'] = _Encoding(f'{bits}U', 1, 'GRAY')
        for order in ('rgb', 'bgr', 'rgba', 'bgra'):
            table[f'{order}{bits}'] = _Encoding(f'{bits}U', len(order), order.upper())
        # OpenCV names a pattern after its second row, second and third column; sensor_msgs after its first 2x2 pixels.
        for pattern, opencv in (('rggb', 'BG'), ('bggr', 'RG'), ('gbrg', 'GR'), ('grbg', 'GB')):
            table[f'bayer_{pattern}{bits}'] = _Encoding(f'{bits}U', 1, f'Bayer{opencv}')
    return table


_ENCODINGS = _table()
_ORDERS = ('GRAY', 'RGB', 'BGR', 'RGBA', 'BGRA')
_TARGETS = {  # what each colour can become, besides itself
    **{order: _ORDERS for order in _ORDERS},
    **{yuv: _ORDERS for yuv in ('UYVY', 'YUY2')},
    **{f'Bayer{pattern}': ('GRAY', 'RGB', 'BGR') for pattern in ('BG', 'RG', 'GR', 'GB')},
}
_GENERIC = re.compile(r'(8U|8S|16U|16S|32S|32F|64F)(?:C(\d+))?')


def _encoding(name: str) -> _Encoding:
    known = _ENCODINGS.get(name)
    if known is not None:
        return known
    generic = _GENERIC.fullmatch(name)
    if generic is None or generic[2] == '0':
        raise CvBridgeError(
            f'unrecognized image encoding {name!r}; known are {", ".join(_ENCODINGS)} '
            'and OpenCV types such as 8UC3, 32FC1'
        )
    return _Encoding(generic[1], int(generic[2] or 1))


def _colour_code(source: str, target: str) -> int:
    """Return OpenCV's constant for a change of channel order."""
    name = f'YUV2{target}_{source}' if source in ('UYVY', 'YUY2') else f'{source}2{target}'
    return getattr(cv2, f'COLOR_{name}')


def _convert_depth(image: np.ndarray, depth: str) -> np.ndarray:
    """Round and saturate to another depth; 8 and 16 bits unsigned scale so that white stays white."""
    target = np.dtype(_DTYPES[depth])
    if image.dtype == target:
        return image
    if (image.dtype, target) == (np.uint8, np.uint16):
        return image.astype(np.uint16) * np.uint16(257)
    if (image.dtype, target) == (np.uint16, np.uint8):
        return cv2.convertScaleAbs(image, alpha=255 / 65535)
    if target.kind == 'f':
        return image.astype(target)
    limits = np.iinfo(target)
    # OpenCV turns what is not a number into the smallest integer, which saturates.
    rounded = np.nan_to_num(np.rint(image.astype(np.float64)), nan=limits.min, posinf=limits.max, neginf=limits.min)
    return np.clip(rounded, limits.min, limits.max).astype(target)


def convert(image: np.ndarray, source_name: str, target_name: str) -> np.ndarray:
    """Convert between encodings by upstream's table, or raise CvBridgeError where it has no entry."""
    if source_name == target_name:
        return image
    source, target = _encoding(source_name), _encoding(target_name)
    if not (source.colour and target.colour):
        if target.colour:
            raise CvBridgeError(
                f'[{source_name}] is not a color format, but [{target_name}] is; the conversion does not make sense. '
                'Publish the image with its color encoding, or ask for passthrough'
            )
        if source.channels != target.channels:
            raise CvBridgeError(
                f'[{source_name}] has {source.channels} channels and [{target_name}] {target.channels}; '
                'without a meaning as color the number must be equal'
            )
        return _convert_depth(image, target.depth)
    if source.colour == target.colour:
        if source.colour.startswith('Bayer'):
            raise CvBridgeError(f'unsupported conversion from [{source_name}] to [{target_name}]')
        return _convert_depth(image, target.depth)
    if target.colour not in _TARGETS[source.colour]:
        raise CvBridgeError(f'unsupported conversion from [{source_name}] to [{target_name}]')
    try:
        image = cv2.cvtColor(image, _colour_code(source.colour, target.colour))
    except cv2.error as error:
        raise CvBridgeError(f'cannot convert [{source_name}] {image.shape} to [{target_name}]: {error}') from error
    return _convert_depth(image, target.depth)


def _pixels(msg) -> np.ndarray:
    """Return a message's image, (H, W) or (H, W, channels), native byte order; a view where rows have no padding."""
    encoding = _encoding(msg.encoding)
    dtype = encoding.dtype
    pixel = dtype.itemsize * encoding.channels
    if not (msg.height and msg.width):
        raise CvBridgeError(f'image is empty: {msg.width}x{msg.height}; check the camera driver')
    if msg.step < msg.width * pixel:
        raise CvBridgeError(
            f'step is {msg.step} bytes but {msg.width} pixels of {msg.encoding} need {msg.width * pixel}; '
            'the publisher must set step to the bytes of a row'
        )
    data = np.asarray(msg.data, np.uint8) if isinstance(msg.data, list) else msg.data
    needed = (msg.height - 1) * msg.step + msg.width * pixel
    if len(data) < needed:
        raise CvBridgeError(
            f'data has {len(data)} bytes but {msg.width}x{msg.height} of {msg.encoding} with step {msg.step} '
            f'needs {msg.height * msg.step}'
        )
    dtype = dtype.newbyteorder('>' if msg.is_bigendian else '<')
    shape, strides = (msg.height, msg.width), (msg.step, pixel)
    if encoding.channels > 1:
        shape, strides = (*shape, encoding.channels), (*strides, dtype.itemsize)
    image = np.ndarray(shape, dtype, data, strides=strides)
    return np.ascontiguousarray(image, dtype.newbyteorder('='))


class CvBridge:
    """Converts between image messages and OpenCV images."""

    def __init__(self):
        self._channel_step = cv2.CV_8UC2 - cv2.CV_8UC1  # differs between OpenCV 4 and 5

    def dtype_with_channels_to_cvtype2(self, dtype, n_channels: int) -> str:
        """Return the name of an OpenCV type: (uint8, 3) -> '8UC3'."""
        name = np.dtype(dtype).name
        if name not in _DEPTHS:
            raise CvBridgeError(f'images of {name} have no encoding; convert to one of {", ".join(_DEPTHS)}')
        return f'{_DEPTHS[name]}C{n_channels}'

    def cvtype2_to_dtype_with_channels(self, cvtype: int) -> tuple[str, int]:
        """Return what an OpenCV type number holds: cv2.CV_8UC3 -> ('uint8', 3)."""
        channels, depth = divmod(cvtype, self._channel_step)
        for name, dtype in _DTYPES.items():
            if getattr(cv2, f'CV_{name}') == depth:
                return dtype, channels + 1
        raise CvBridgeError(f'{cvtype} is not an OpenCV type that an encoding names')

    def encoding_to_cvtype2(self, encoding: str) -> int:
        """Return the OpenCV type number of an encoding: 'bgr8' -> cv2.CV_8UC3."""
        known = _encoding(encoding)
        return getattr(cv2, f'CV_{known.depth}') + (known.channels - 1) * self._channel_step

    def encoding_to_dtype_with_channels(self, encoding: str) -> tuple[str, int]:
        """Return what a pixel of an encoding holds: 'bgr8' -> ('uint8', 3)."""
        known = _encoding(encoding)
        return known.dtype.name, known.channels

    def imgmsg_to_cv2(self, img_msg, desired_encoding: str = 'passthrough') -> np.ndarray:
        """Return the image of a sensor_msgs/Image, (H, W) for one channel, else (H, W, channels).

        With 'passthrough' and rows without padding it is a view of the message's data, read-only where that is.

        Raises:
            CvBridgeError: the message does not hold what it says, or the conversion is not in the table.
        """
        image = _pixels(img_msg)
        return image if desired_encoding == 'passthrough' else convert(image, img_msg.encoding, desired_encoding)

    def cv2_to_imgmsg(self, cvim: np.ndarray, encoding: str = 'passthrough', header=None):
        """Return a sensor_msgs/Image; `encoding` names what the image holds, nothing is converted.

        Raises:
            CvBridgeError: the image is not of the type that `encoding` has, or is empty.
        """
        from sensor_msgs.msg import Image

        if not isinstance(cvim, np.ndarray):
            raise CvBridgeError(f'the image must be a numpy array, got {type(cvim).__name__}')
        if cvim.ndim not in (2, 3) or cvim.size == 0:
            raise CvBridgeError(f'the image must be (H, W) or (H, W, channels) and not empty, got {cvim.shape}')
        channels = cvim.shape[2] if cvim.ndim == 3 else 1
        opencv_type = self.dtype_with_channels_to_cvtype2(cvim.dtype, channels)
        if encoding != 'passthrough':
            needed = _encoding(encoding)
            if f'{needed.depth}C{needed.channels}' != opencv_type:
                raise CvBridgeError(f'encoding specified as {encoding}, but image has incompatible type {opencv_type}')
        message = Image()
        if header is not None:
            message.header = header
        message.height, message.width = cvim.shape[:2]
        message.encoding = opencv_type if encoding == 'passthrough' else encoding
        native_big = cvim.dtype.byteorder in '=|' and sys.byteorder == 'big'
        message.is_bigendian = int(cvim.dtype.byteorder == '>' or native_big)
        message.step = cvim.shape[1] * channels * cvim.dtype.itemsize
        message.data = array.array('B', cvim.tobytes())
        return message

    def compressed_imgmsg_to_cv2(self, cmprs_img_msg, desired_encoding: str = 'passthrough') -> np.ndarray:
        """Return the image of a sensor_msgs/CompressedImage as it was coded: grey, BGR or BGRA, 8 or 16 bits.

        Raises:
            CvBridgeError: the data are no image that OpenCV reads, or the conversion is not in the table.
        """
        data = np.frombuffer(cmprs_img_msg.data, np.uint8) if len(cmprs_img_msg.data) else None
        image = None if data is None else cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
        if image is None:
            raise CvBridgeError(
                f'cannot decode {len(cmprs_img_msg.data)} bytes of format {cmprs_img_msg.format!r}; '
                'needed is a file of an image format that OpenCV reads, such as jpeg or png'
            )
        if desired_encoding == 'passthrough':
            return image
        order = 'mono' if image.ndim == 2 else {3: 'bgr', 4: 'bgra'}[image.shape[2]]
        return convert(image, f'{order}{8 * image.dtype.itemsize}', desired_encoding)

    def cv2_to_compressed_imgmsg(self, cvim: np.ndarray, dst_format: str = 'jpg'):
        """Return a sensor_msgs/CompressedImage coded as `dst_format`, an extension that OpenCV writes.

        Raises:
            CvBridgeError: OpenCV cannot write the image in this format.
        """
        from sensor_msgs.msg import CompressedImage

        if not isinstance(cvim, np.ndarray):
            raise CvBridgeError(f'the image must be a numpy array, got {type(cvim).__name__}')
        try:
            written, data = cv2.imencode(f'.{dst_format}', cvim)
        except cv2.error as error:
            raise CvBridgeError(f'cannot write {cvim.dtype} {cvim.shape} as {dst_format}: {error}') from error
        if not written:
            raise CvBridgeError(f'OpenCV cannot write {cvim.dtype} {cvim.shape} as {dst_format}; use jpg or png')
        message = CompressedImage()
        message.format = dst_format
        message.data = array.array('B', data.tobytes())
        return message
