"""Messages of images and cameras as plain objects, which need no ROS."""

import array
import types

import numpy as np

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


def p_of(tx=0.0, ty=0.0, focal=500.0, cx=320.0):
    """Return P of a camera_info."""
    return np.array([focal, 0, cx, tx, 0, focal, 240, ty, 0, 0, 1, 0])
