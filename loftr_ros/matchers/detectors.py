"""The table of keypoint detectors.

The matchers `nearest_neighbours` and `superglue` use any of them, by `keypoints.detector`. Another package registers
its own in the entry-point group `loftr_ros.matchers.detectors`: a class or function, called as those of DETECTORS.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points

from loftr_ros.config import MatcherConfig
from loftr_ros.errors import ConfigError, did_you_mean
from loftr_ros.matchers.base import DETECTOR_MEMBERS, Detector

DETECTORS = {
    'superpoint': 'loftr_ros.matchers.superpoint_detector:superpoint_detector',
    'sift': 'loftr_ros.matchers.opencv_detectors:SiftDetector',
    'orb': 'loftr_ros.matchers.opencv_detectors:OrbDetector',
    'akaze': 'loftr_ros.matchers.opencv_detectors:AkazeDetector',
}
"""Name -> 'module:attribute', which is called with a MatcherConfig and the number of keypoints if it gives none."""

ENTRY_POINT_GROUP = 'loftr_ros.matchers.detectors'


def detector_names() -> list[str]:
    """Return every name that `create_detector` accepts, including those of other packages."""
    return list(dict.fromkeys([*DETECTORS, *sorted(_third_party())]))


def create_detector(name: str, config: MatcherConfig, max_keypoints: int) -> Detector:
    """Return a detector.

    Args:
        max_keypoints: of an image, if `config.keypoints.max_keypoints` is 0.

    Raises:
        ConfigError: no detector has that name, or it refuses a setting.
    """
    if name in DETECTORS:
        module, _, attribute = DETECTORS[name].partition(':')
        return getattr(import_module(module), attribute)(config, max_keypoints)
    third_party = _third_party()
    if name not in third_party:
        raise ConfigError(f'matcher.keypoints.detector is {name!r}; {did_you_mean(name, detector_names())}')
    detector = third_party[name].load()(config, max_keypoints)
    missing = [member for member in DETECTOR_MEMBERS if not hasattr(detector, member)]
    if missing:
        raise ConfigError(
            f'the detector {name!r} of another package has no {", ".join(missing)}; derive its class from '
            'loftr_ros.matchers.Detector'
        )
    return detector


def _third_party() -> dict:
    return {entry.name: entry for entry in entry_points(group=ENTRY_POINT_GROUP)}
