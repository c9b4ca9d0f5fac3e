"""Sets of messages to sets of frames: images, calibrations and, for a stereo pair, the baseline."""

from __future__ import annotations

from loftr_ros.datatypes import Frame, FrameSet
from loftr_ros.levels import Levels
from loftr_ros.ros import compat, conversions


class FrameReader:
    """Converts the messages of a set. Keeps, of each camera, the range of grey values of images with 16 bits.

    Attributes:
        baseline_fault: why the last stereo pair had no baseline; empty where it had one.
    """

    def __init__(self):
        self.baseline_fault = ''
        self._bridge = compat.CvBridge()
        self._levels = (Levels(), Levels())  # of the left and the right camera

    def read(self, messages: tuple, rectified: bool) -> FrameSet:
        """Return the frames of (image, camera_info) of one camera, or of the left and then the right camera.

        Raises:
            InputError: a message is invalid.
        """
        pairs = zip(messages[::2], messages[1::2], self._levels, strict=False)
        frames = [
            Frame(
                conversions.image_from_msg(image, self._bridge, levels),
                conversions.camera_from_info(info, rectified=rectified),
                conversions.stamp_ns(image.header),
                image.header.frame_id,
            )
            for image, info, levels in pairs
        ]
        if len(frames) == 1:
            return FrameSet(frames[0])
        baseline_m, self.baseline_fault = conversions.baseline_from_infos(messages[1], messages[3])
        return FrameSet(*frames, baseline_m or None)
