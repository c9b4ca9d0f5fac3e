"""The protocols of matchers and of keypoint detectors."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import numpy as np

from loftr_ros.datatypes import Matches
from loftr_ros.image import PreparedImage

Features = Any
"""What a matcher computes from one image. Only this matcher uses its content."""


class Matcher(Protocol):
    """A matcher of two images, in two steps, so that each frame of a video is extracted only once.

    The matcher is responsible for resizing, padding, colour, device, precision and the conversion to original pixels.
    A derived class inherits the defaults of `notes`, `keep_points` and `point_ids_at`.
    """

    name: str
    notes: Mapping[str, str] = MappingProxyType({})
    """Messages to the user by subject: the precision in use, an image size reduced because memory is short."""

    rotation_invariant: bool = False
    """Whether a turn or zoom of an image leaves its matches, so that none must be searched for."""

    def extract(self, image: np.ndarray) -> Features:
        """Return the features of one image. `image`: uint8 (H, W) or (H, W, 3) blue first, any size."""
        ...

    def match(self, features0: Features, features1: Features) -> Matches:
        """Return the matches in pixels of the original images. They do not depend on earlier calls."""
        ...

    def keep_points(self, features0: Features, matches: Matches) -> Features:
        """Return features of image 0 with which later matches have the same points as `matches`.

        The points of a keyframe can be tracked with them. `features0` does not change. Only a matcher whose points in
        image 0 depend on image 1 must override this method.
        """
        return features0

    def point_ids_at(self, features: Features, keypoints: np.ndarray) -> np.ndarray:
        """Return the `point_id0` (N,) that points at pixels (N, 2) have if this image is image 0; -1 where unknown.

        Together with `keep_points` it lets a track of another image go on here. Only a matcher that can place its
        points anywhere must override this method; matchers with keypoints have `Matches.point_id1` instead.
        """
        return np.full(len(keypoints), -1, np.int64)


MEMBERS = ('name', 'notes', 'extract', 'match', 'keep_points', 'point_ids_at')
"""Members of every matcher."""


class DetectedKeypoints(NamedTuple):
    """N keypoints of a prepared image."""

    points: np.ndarray  # (N, 2) x, y [px]; the centre of the top-left pixel is (0, 0)
    scores: np.ndarray  # (N,), higher is better
    descriptors: np.ndarray  # (N, D) float32, or uint8 of bits


class Detector(Protocol):
    """Finds and describes keypoints. A derived class inherits the defaults."""

    name: str
    descriptor_length: int
    """Number of values of a descriptor, or of bytes if it is binary."""

    is_binary: bool = False
    """Whether descriptors are bits, compared by the Hamming distance; otherwise by the Euclidean distance."""

    rotation_invariant: bool = False
    """Whether the descriptor of a point stays the same when the image is turned."""

    side_multiple: int = 1
    """Both sides of prepared images are padded to a multiple of this [px]."""

    log10_dependence: float = 0.0
    """See `Matches.log10_dependence`, for matches of nearest descriptors."""

    def detect(self, image: PreparedImage) -> DetectedKeypoints:
        """Return the keypoints of one image; none in its padding."""
        ...


DETECTOR_MEMBERS = (
    *('name', 'descriptor_length', 'is_binary', 'rotation_invariant', 'side_multiple', 'log10_dependence'),
    'detect',
)
"""Members of every detector."""


def match_images(matcher: Matcher, image0: np.ndarray, image1: np.ndarray) -> Matches:
    """Extract both images and match them."""
    return matcher.match(matcher.extract(image0), matcher.extract(image1))
