"""Matchers: from two images to matches.

`create_matcher(config.matcher)` makes the matcher of that name. Names are in the table `MATCHERS`, or another package
registers a class or function in the entry-point group `loftr_ros.matchers`. Both are called with the MatcherConfig.
torch is imported only when a matcher is made.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points

from loftr_ros.config import MatcherConfig
from loftr_ros.errors import ConfigError, did_you_mean
from loftr_ros.matchers.base import MEMBERS, DetectedKeypoints, Detector, Features, Matcher, match_images
from loftr_ros.matchers.rotation import RotationSearchMatcher
from loftr_ros.matchers.subpixel import SubpixelMatcher

__all__ = [
    'MATCHERS',
    'DetectedKeypoints',
    'Detector',
    'Features',
    'Matcher',
    'create_matcher',
    'match_images',
    'matcher_names',
]

MATCHERS = {
    # The small Efficient LoFTR that is shipped, with the first weights of the table.
    'default': 'loftr_ros.matchers.detector_free:EfficientLoftrMatcher',
    'gcm': 'loftr_ros.matchers.gcm:GcmMatcher',
    'loftr': 'loftr_ros.matchers.detector_free:LoftrMatcher',
    'efficient_loftr': 'loftr_ros.matchers.detector_free:EfficientLoftrMatcher',
    'sift': 'loftr_ros.matchers.nearest_neighbours:sift',
    'orb': 'loftr_ros.matchers.nearest_neighbours:orb',
    'akaze': 'loftr_ros.matchers.nearest_neighbours:akaze',
    'nearest_neighbours': 'loftr_ros.matchers.nearest_neighbours:RatioMatcher',
    'superglue': 'loftr_ros.matchers.superglue:SuperGlueMatcher',
    'superpoint_nn': 'loftr_ros.matchers.superpoint:NearestNeighbourMatcher',
}
"""Name -> 'module:attribute', which is called with a MatcherConfig."""

ENTRY_POINT_GROUP = 'loftr_ros.matchers'


def matcher_names() -> list[str]:
    """Return every name that `create_matcher` accepts, including those of other packages."""
    return list(dict.fromkeys([*MATCHERS, *sorted(_third_party())]))


def create_matcher(config: MatcherConfig | str = 'default') -> Matcher:
    """Return the matcher `config.name`, with the search and the refinement of points that `config` selects.

    Args:
        config: the settings, or only the name of a matcher; then all other settings have their defaults.

    Raises:
        ConfigError: no matcher has that name, or it refuses a setting.
    """
    if isinstance(config, str):
        config = MatcherConfig(name=config)
    matcher = _create(config)
    if config.rotation_search != 'off' and not getattr(matcher, 'rotation_invariant', False):
        matcher = RotationSearchMatcher(matcher, config.rotation_search == 'always')
    return SubpixelMatcher(matcher, config.resize_max) if config.subpixel == 'lucas_kanade' else matcher


def _create(config: MatcherConfig) -> Matcher:
    if config.name in MATCHERS:
        module, _, attribute = MATCHERS[config.name].partition(':')
        return getattr(import_module(module), attribute)(config)
    third_party = _third_party()
    if config.name in third_party:
        return _checked(third_party[config.name].load()(config), config.name)
    raise ConfigError(f'matcher.name is {config.name!r}; {did_you_mean(config.name, matcher_names())}')


def _checked(matcher: Matcher, name: str) -> Matcher:
    missing = [member for member in MEMBERS if not hasattr(matcher, member)]
    if missing:
        raise ConfigError(
            f'the matcher {name!r} of another package has no {", ".join(missing)}; derive its class from '
            'loftr_ros.matchers.Matcher'
        )
    return matcher


def _third_party() -> dict:
    return {entry.name: entry for entry in entry_points(group=ENTRY_POINT_GROUP)}
