"""Matchers by the names that evaluations and benchmarks use: with weights, and with or without Lucas-Kanade."""

from __future__ import annotations

import dataclasses

from loftr_ros.config import MatcherConfig
from loftr_ros.matchers import Matcher, create_matcher

RATIO = 0.8
"""Lowe's ratio, for keypoints of OpenCV in comparisons."""

KEYPOINTS = ('sift', 'orb', 'akaze')
LK = '+lk'
"""Ending of a name of KEYPOINTS: refined by Lucas-Kanade, as the other matchers are."""

BASELINES = [name + ending for name in ('sift', 'orb') for ending in ('', LK)]
"""The names that other matchers are compared with."""


def create_compared(name: str, config: MatcherConfig) -> Matcher:
    """Return the matcher of a name such as `default`, `loftr:WEIGHTS`, `sift` or `sift+lk`.

    Those of KEYPOINTS have the ratio RATIO and all their matches; `config.subpixel` holds for the others only.
    """
    plain = name.removesuffix(LK)
    if plain in KEYPOINTS:
        subpixel = 'lucas_kanade' if name.endswith(LK) else 'none'
        matcher = create_matcher(
            dataclasses.replace(config, name=plain, match_threshold=1 - RATIO, max_matches=0, subpixel=subpixel)
        )
        matcher.name = name
        return matcher
    plain, _, weights = name.partition(':')
    return create_matcher(dataclasses.replace(config, name=plain, weights=weights or config.weights))
