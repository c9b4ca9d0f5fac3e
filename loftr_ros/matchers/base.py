"""The protocol that every matcher keeps."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from loftr_ros.datatypes import Matches

Features = Any
"""What a matcher keeps of one image; opaque to everybody else."""


class Matcher(Protocol):
    """Two images in, matches out, in two steps so that a video extracts each frame once.

    Resizing, padding, colour, device, precision and the way back to original pixels are the matcher's own business.
    """

    name: str

    def extract(self, image: np.ndarray) -> Features:
        """Return all that depends on one image alone. `image`: uint8 (H, W) or (H, W, 3) blue first, any size."""
        ...

    def match(self, features0: Features, features1: Features) -> Matches:
        """Return the matches of two images in their original pixels, whatever was matched before."""
        ...

    # A matcher whose places in image 0 depend on image 1 may also have
    # `keep_points(features0, matches) -> Features`, see `keep_points` below.


def keep_points(matcher: Matcher, features0: Features, matches: Matches) -> Features:
    """Return features of the same image 0 that, matched again, give the places in `matches` the same points.

    So the points of a keyframe can be followed. `features0` stays as it is.
    """
    keep = getattr(matcher, 'keep_points', None)
    return features0 if keep is None else keep(features0, matches)


def match_images(matcher: Matcher, image0: np.ndarray, image1: np.ndarray) -> Matches:
    """Extract both images and match them."""
    return matcher.match(matcher.extract(image0), matcher.extract(image1))
