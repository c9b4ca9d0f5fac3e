"""The protocol of every matcher."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np

from loftr_ros.datatypes import Matches

Features = Any
"""What a matcher keeps of one image; opaque to everybody else."""


class Matcher(Protocol):
    """Two images in, matches out, in two steps so that a video extracts each frame once.

    Resizing, padding, colour, device, precision and the way back to original pixels are the matcher's own business.
    A class derived from this one has the defaults of `notes` and `keep_points`.
    """

    name: str
    notes: Mapping[str, str] = MappingProxyType({})
    """What a user should see of the state, by subject: the precision in use, a size reduced for lack of memory."""

    def extract(self, image: np.ndarray) -> Features:
        """Return all that depends on one image alone. `image`: uint8 (H, W) or (H, W, 3) blue first, any size."""
        ...

    def match(self, features0: Features, features1: Features) -> Matches:
        """Return the matches of two images in their original pixels, whatever was matched before."""
        ...

    def keep_points(self, features0: Features, matches: Matches) -> Features:
        """Return features of the same image 0 that, matched again, give the places in `matches` the same points.

        So the points of a keyframe can be followed. `features0` does not change. Only a matcher whose points in image 0
        depend on image 1 needs more than the default.
        """
        return features0


MEMBERS = ('name', 'notes', 'extract', 'match', 'keep_points')
"""What every matcher has."""


def match_images(matcher: Matcher, image0: np.ndarray, image1: np.ndarray) -> Matches:
    """Extract both images and match them."""
    return matcher.match(matcher.extract(image0), matcher.extract(image1))
