"""Stand-in for the part of cv_bridge that this package uses: conversion of images to messages.

Names, arguments and results are those of cv_bridge (ros-perception/vision_opencv, core.py). `loftr_ros.messages`
decodes images, not cv_bridge: some of its versions fail for padded rows, big-endian or compressed Bayer images.
"""

from __future__ import annotations

import array
import sys

import cv2
import numpy as np
from sensor_msgs.msg import CompressedImage, Image


class CvBridge:
    """Converts OpenCV images to messages."""

    def cv2_to_imgmsg(self, cvim: np.ndarray, encoding: str, header=None) -> Image:
        """Return the image uint8 (H, W) or (H, W, 3) as a message; `encoding` names its content, mono8 or bgr8."""
        message = Image(encoding=encoding, height=cvim.shape[0], width=cvim.shape[1])
        if header is not None:
            message.header = header
        message.is_bigendian = int(sys.byteorder == 'big')
        message.step = cvim.nbytes // len(cvim)
        message.data = array.array('B', cvim.tobytes())
        return message

    def cv2_to_compressed_imgmsg(self, cvim: np.ndarray, dst_format: str = 'jpg') -> CompressedImage:
        """Return the image as a compressed message."""
        _, data = cv2.imencode(f'.{dst_format}', cvim)
        return CompressedImage(format=dst_format, data=array.array('B', data.tobytes()))
