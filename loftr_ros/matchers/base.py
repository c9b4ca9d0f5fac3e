"""The protocol of every matcher."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np

from loftr_ros.datatypes import Matches

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


def match_images(matcher: Matcher, image0: np.ndarray, image1: np.ndarray) -> Matches:
    """Extract both images and match them."""
    return matcher.match(matcher.extract(image0), matcher.extract(image1))
