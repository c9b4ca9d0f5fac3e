"""Detectors as plug-ins of the matchers `nearest_neighbours` and `superglue`."""

import importlib
import inspect

import cv2
import numpy as np
import pytest

torch = pytest.importorskip('torch')

from test_keypoint_matchers import SHIFT, shifted_texture  # noqa: E402
from tiny_networks import save_tiny  # noqa: E402

from loftr_ros.config import KeypointConfig, MatcherConfig  # noqa: E402
from loftr_ros.errors import ConfigError  # noqa: E402
from loftr_ros.image import prepare  # noqa: E402
from loftr_ros.matchers import DetectedKeypoints, Detector, create_matcher, match_images  # noqa: E402
from loftr_ros.matchers.detectors import DETECTORS, create_detector  # noqa: E402

HERE = [name for name in DETECTORS if name != 'akaze' or hasattr(cv2, 'AKAZE_create')]  # OpenCV 5 has no AKAZE


class CornerDetector(Detector):
    """The corners of OpenCV's goodFeaturesToTrack, described by the 8 x 8 pixels around them."""

    name = 'corners'
    descriptor_length = 64

    def __init__(self, config, max_keypoints):
        self.count = config.keypoints.max_keypoints or max_keypoints

    def detect(self, image):
        pixels = image.pixels[: image.height, : image.width]
        found = cv2.goodFeaturesToTrack(pixels, self.count, 0.01, 5)
        points = np.zeros((0, 2)) if found is None else found[:, 0].astype(np.float64)
        inside = ((points >= 4) & (points < [image.width - 4, image.height - 4])).all(axis=1)
        points = points[inside]
        patches = [cv2.getRectSubPix(pixels, (8, 8), point.astype(np.float32)).ravel() for point in points]
        descriptors = np.array(patches, np.float32).reshape(-1, 64)
        return DetectedKeypoints(points, np.linspace(1, 0, len(points)), descriptors - 128)


@pytest.fixture
def theirs(monkeypatch, tmp_path):
    """Install a package that registers CornerDetector as `corners`."""
    lines = inspect.getsource(CornerDetector)
    head = 'import cv2\nimport numpy as np\nfrom loftr_ros.matchers import DetectedKeypoints, Detector\n\n\n'
    (tmp_path / 'their_detectors.py').write_text(
        head + lines + '\n\nclass Bare:\n    def __init__(self, *_):\n        pass\n'
    )
    info = tmp_path / 'their_detectors-1.0.dist-info'
    info.mkdir()
    (info / 'METADATA').write_text('Metadata-Version: 2.1\nName: their_detectors\nVersion: 1.0\n')
    (info / 'entry_points.txt').write_text(
        '[loftr_ros.matchers.detectors]\ncorners = their_detectors:CornerDetector\nbare = their_detectors:Bare\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()


def config(name='nearest_neighbours', detector='superpoint', weights='', **keypoints):
    keypoints = KeypointConfig(detector=detector, **keypoints)
    own = {'device': 'cpu', 'precision': 'fp32', 'subpixel': 'none', 'rotation_search': 'off'}
    return MatcherConfig(name=name, weights=weights, keypoints=keypoints, **own)


@pytest.mark.parametrize('name', HERE)
def test_a_detector_keeps_its_budget_and_describes_each_keypoint(name):
    image = prepare(shifted_texture()[0], resize_max=1024, multiple=8)
    detector = create_detector(name, config(max_keypoints=20), 2048)
    found = detector.detect(image)
    assert 15 <= len(found.points) == len(found.scores) == len(found.descriptors) <= 20  # ORB shares them out by level
    assert found.descriptors.shape[1] == detector.descriptor_length
    assert found.descriptors.dtype == (np.uint8 if detector.is_binary else np.float32)
    none = detector.detect(prepare(np.zeros((64, 64), np.uint8), resize_max=1024, multiple=8))
    assert len(none.points) == 0 and none.descriptors.shape == (0, detector.descriptor_length)


@pytest.mark.parametrize('name', [*HERE, 'corners'])
def test_nearest_neighbours_match_the_keypoints_of_any_detector(name, theirs):
    matcher = create_matcher(config(detector=name))
    matches = match_images(matcher, *shifted_texture())
    moved = matches.keypoints0 - matches.keypoints1
    assert len(matches) > 30 and matcher.name == f'nearest_neighbours:{name}'
    assert (np.abs(moved - SHIFT).max(axis=1) < 1).mean() > 0.8
    one = match_images(create_matcher(config(detector=name, max_keypoints=1)), *shifted_texture())
    assert len(one) == 0  # no second neighbour for the ratio


def test_superglue_matches_the_keypoints_of_another_detector(theirs, tmp_path):
    weights = save_tiny('superglue', tmp_path, detector=save_tiny('superpoint', tmp_path))
    length = create_matcher(config('superglue', weights=weights)).detector.descriptor_length
    for detector, words in (('sift', 'length 128'), ('orb', 'binary ones'), ('corners', 'length 64')):
        if detector == 'corners' and length == 64:
            matcher = create_matcher(config('superglue', detector, weights))
            matches = match_images(matcher, *shifted_texture())
            assert matches.point_id0.max(initial=0) < 1024
            continue
        with pytest.raises(ConfigError, match=f'needs descriptors of length {length}.*{words}.*nearest_neighbours'):
            create_matcher(config('superglue', detector, weights))


def test_an_unknown_or_incomplete_detector_is_refused(theirs):
    with pytest.raises(ConfigError, match=r"keypoints\.detector is 'sfit'; did you mean sift\? known are .*corners"):
        create_matcher(config(detector='sfit'))
    with pytest.raises(ConfigError, match=r"'bare' of another package has no name, .*loftr_ros\.matchers\.Detector"):
        create_matcher(config(detector='bare'))
    with pytest.raises(ConfigError, match=r'superpoint_nn; set matcher\.name to nearest_neighbours'):
        create_matcher(config('superpoint_nn', 'sift'))


@pytest.mark.parametrize('settings', [{'nms_radius_px': 8}, {'border_px': 0}, {'threshold': 0.1}, {'max_ratio': 0.8}])
def test_a_setting_that_opencv_does_not_have_is_refused(settings):
    with pytest.raises(ConfigError, match=rf'matcher\.keypoints\.{next(iter(settings))}: sift of OpenCV has no such'):
        create_matcher(config('sift', **settings))


@pytest.mark.parametrize('count', [0, 100, 3000])
def test_the_number_of_sift_keypoints_is_a_setting(count):
    matcher = create_matcher(config('sift', max_keypoints=count))
    rng = np.random.default_rng(0)
    image = cv2.GaussianBlur(rng.integers(0, 256, (600, 800)).astype(np.uint8), (0, 0), 1.2)
    assert len(matcher.extract(image).features.points) == (count or 2048)
