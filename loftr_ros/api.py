"""`loftr_ros.match`: two images in one of the usual forms in, matches out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from loftr_ros.datatypes import Matches
from loftr_ros.image import as_image
from loftr_ros.image_files import read_image
from loftr_ros.levels import Levels
from loftr_ros.matchers import Matcher, create_matcher, match_images

if TYPE_CHECKING:
    from torch import Tensor

    Image = str | Path | np.ndarray | Tensor


def match(image0: Image, image1: Image, matcher: Matcher | str = 'default', *, rgb: bool | None = None) -> Matches:
    """Return the matches of two images, in pixels of these images.

    Args:
        image0: reference image: the path of a file, or an array or a tensor as `loftr_ros.image.as_image` takes it.
        image1: image to match with it, in the same forms.
        matcher: what `create_matcher` returned; or the name of a matcher, which is then created for this call only and
            reads its weights again at the next one.
        rgb: whether colour arrays and tensors have red first. Default: arrays have blue first, tensors red first.

    Raises:
        InputError: an image cannot be read or is of another form.
        ConfigError: no matcher has that name.
    """
    levels = Levels()  # the same for both images: the grey values of 16-bit files stay comparable
    images = [
        read_image(image, levels) if isinstance(image, (str, os.PathLike)) else as_image(image, rgb)
        for image in (image0, image1)
    ]
    return match_images(create_matcher(matcher) if isinstance(matcher, str) else matcher, *images)
