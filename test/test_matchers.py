"""Every matcher follows the protocol for images of any kind."""

import dataclasses
import importlib
import subprocess
import sys

import cv2
import numpy as np
import pytest
from tiny_networks import SETTINGS as TINY_NETWORKS
from tiny_networks import save_tiny

from loftr_ros.config import MatcherConfig
from loftr_ros.datatypes import Matches
from loftr_ros.errors import ConfigError, InputError, MissingDependencyError
from loftr_ros.matchers import MATCHERS, create_matcher, match_images, matcher_names


def texture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Return blotches of several sizes, uint8 (H, W)."""
    rng = np.random.default_rng(seed)
    image = np.zeros((height, width), np.float32)
    for sigma in (1.5, 4, 10):
        noise = cv2.GaussianBlur(rng.standard_normal((height, width)).astype(np.float32), (0, 0), sigma)
        image += noise / max(float(noise.std()), 1e-6)
    return np.clip(128 + 40 * image, 0, 255).astype(np.uint8)


WEIGHTS = {}
"""Files of the matchers that need weights; random ones, since none are at hand everywhere."""


@pytest.fixture(scope='module', autouse=True)
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp('weights')
    WEIGHTS.update({name: save_tiny(name, folder) for name in TINY_NETWORKS})
    WEIGHTS['superglue'] = save_tiny('superglue', folder, detector='superpoint_small', descriptor=64)


def make(name: str, **settings):
    """Return the matcher itself: with random weights a search for turns (test_rotation.py) would often find one."""
    own = {'name': name, 'device': 'cpu', 'weights': WEIGHTS.get(name, ''), 'rotation_search': 'off'}
    settings = {**own, **settings}
    return create_matcher(MatcherConfig(**settings))


def assert_valid(matches: Matches, image0: np.ndarray, image1: np.ndarray):
    assert isinstance(matches, Matches)
    for points, image in ((matches.keypoints0, image0), (matches.keypoints1, image1)):
        height, width = image.shape[:2]
        assert np.isfinite(points).all()
        assert (points >= 0).all() and (points <= [width - 1, height - 1]).all()
    assert ((matches.confidence >= 0) & (matches.confidence <= 1)).all()
    known = matches.sigma_px[~np.isnan(matches.sigma_px)]
    assert (known > 0).all()
    assert (matches.point_id0 >= -1).all()
    assert matches.from_images or not len(matches)


HERE = [name for name in MATCHERS if name != 'akaze' or hasattr(cv2, 'AKAZE_create')]  # OpenCV 5 has no AKAZE
every_matcher = pytest.mark.parametrize('name', HERE)

SIZES = {
    'equal': ((120, 160), (120, 160)),
    'no multiple of anything': ((101, 163), (101, 163)),
    'two sizes': ((120, 160), (90, 200)),
    'tiny': ((5, 7), (9, 4)),
    'one pixel': ((1, 1), (1, 1)),
    'wide': ((9, 700), (9, 700)),
    'tall and wide': ((700, 9), (9, 700)),
}


@every_matcher
@pytest.mark.parametrize('sizes', SIZES.values(), ids=SIZES)
def test_images_of_any_size_give_valid_matches(name, sizes):
    image0, image1 = texture(*sizes[0]), texture(*sizes[1])
    assert_valid(match_images(make(name, match_threshold=0.0), image0, image1), image0, image1)


@every_matcher
def test_grey_colour_and_views_into_other_arrays_are_taken(name):
    matcher = make(name)
    grey = texture(96, 128)
    colour = cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR)
    view = texture(96, 256)[:, ::2]
    read_only = grey.copy()
    read_only.flags.writeable = False
    for image in (colour, view, colour[..., ::-1], read_only):
        assert_valid(match_images(matcher, grey, image), grey, image)


@every_matcher
@pytest.mark.parametrize('level', [0, 128, 255])
def test_images_without_texture_give_few_or_no_matches(name, level):
    flat = np.full((96, 128), level, np.uint8)
    for image0, image1 in ((flat, flat), (flat, texture(96, 128)), (texture(96, 128), flat)):
        matches = match_images(make(name), image0, image1)
        assert_valid(matches, image0, image1)
        assert len(matches) < 10


@every_matcher
def test_an_image_of_another_type_is_refused(name):
    with pytest.raises(InputError, match='must be uint8'):
        make(name).extract(np.zeros((64, 64), np.float32))


@every_matcher
def test_the_same_images_give_the_same_matches(name):
    image0, image1 = texture(120, 160), np.roll(texture(120, 160), 3, axis=1)
    first, second = (match_images(make(name), image0, image1) for _ in range(2))
    assert_same(first, second)


def assert_same(found: Matches, wanted: Matches):
    for field in dataclasses.fields(Matches):
        np.testing.assert_array_equal(getattr(found, field.name), getattr(wanted, field.name), err_msg=field.name)


@every_matcher
def test_what_two_images_give_does_not_depend_on_what_was_matched_before(name):
    matcher = make(name, match_threshold=0.0)
    image_a = texture(160, 200)
    image_b, image_c = (np.roll(image_a, shift, axis=(0, 1)) for shift in ((1, 3), (5, 2)))
    a, b, c = (matcher.extract(image) for image in (image_a, image_b, image_c))
    first = matcher.match(a, b)
    assert len(first) > 20
    matcher.match(a, c)
    matcher.match(c, a)
    matcher.keep_points(a, matcher.match(a, c))
    assert_same(matcher.match(a, b), first)
    # An image that was matched with C before it met B for the first time.
    again = matcher.extract(image_a)
    matcher.match(again, c)
    assert_same(matcher.match(again, b), first)


@every_matcher
def test_max_matches_keeps_the_best_and_spreads_them(name):
    image0, image1 = texture(120, 160), np.roll(texture(120, 160), 3, axis=1)
    every = match_images(make(name, max_matches=0, match_threshold=0.0), image0, image1)
    few = match_images(make(name, max_matches=20, match_threshold=0.0), image0, image1)
    assert len(every) > len(few) == 20
    assert few.confidence[0] == every.confidence[0]
    tiles = [len(np.unique(m.keypoints0 // 16, axis=0)) for m in (few, every)]
    # A match in each tile before a second one in any; coarse cells do not end where these tiles do.
    assert tiles[0] >= 0.75 * min(20, tiles[1])


@every_matcher
def test_no_match_is_below_the_threshold(name):
    image0, image1 = texture(120, 160), np.roll(texture(120, 160), 3, axis=1)
    every = match_images(make(name, max_matches=0, match_threshold=0.0), image0, image1).confidence
    middle = float(np.median(every))
    some = match_images(make(name, max_matches=0, match_threshold=middle), image0, image1).confidence
    assert (some >= middle).all() and len(some) == (every >= np.float32(middle)).sum()


@every_matcher
def test_a_place_of_image_0_keeps_its_cell_whatever_image_1_is(name):
    matcher = make(name, max_matches=0)
    image = texture(160, 200)
    features0 = matcher.extract(image)
    place = {}
    for shift in (0, 3, 7):
        matches = matcher.match(features0, matcher.extract(np.roll(image, shift, axis=1)))
        features0 = matcher.keep_points(features0, matches)
        assert len(matches)
        for cell, point in zip(matches.point_id0.tolist(), matches.keypoints0.tolist(), strict=True):
            if cell >= 0:
                assert place.setdefault(cell, point) == point
    cells = matches.point_id0[matches.point_id0 >= 0]
    assert len(np.unique(cells)) == len(cells)


def test_an_unknown_matcher_is_answered_with_the_nearest_and_the_list():
    with pytest.raises(ConfigError, match=r"matcher\.name is 'gmc'; did you mean gcm\? known are .*gcm"):
        create_matcher(MatcherConfig(name='gmc'))


def test_another_package_adds_a_matcher_by_an_entry_point(monkeypatch, tmp_path):
    (tmp_path / 'their_package.py').write_text(
        'import numpy as np\n'
        'from loftr_ros.datatypes import Matches\n'
        'from loftr_ros.matchers import Matcher\n'
        'class Theirs(Matcher):\n'
        '    def __init__(self, config):\n'
        '        self.name, self.most = config.name, config.max_matches\n'
        '    def extract(self, image):\n'
        '        return image.shape\n'
        '    def match(self, shape0, shape1):\n'
        '        points = np.arange(2 * self.most).reshape(-1, 2) + 20\n'
        '        return Matches(points, points + 1, *3 * [np.ones(self.most)])\n'
    )
    (tmp_path / 'theirs-1.0.dist-info').mkdir()
    (tmp_path / 'theirs-1.0.dist-info' / 'METADATA').write_text('Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n')
    (tmp_path / 'theirs-1.0.dist-info' / 'entry_points.txt').write_text(
        '[loftr_ros.matchers]\ntheirs = their_package:Theirs\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    assert matcher_names()[-1] == 'theirs'
    for subpixel in ('none', 'lucas_kanade'):
        matcher = create_matcher(MatcherConfig(name='theirs', max_matches=3, subpixel=subpixel, rotation_search='off'))
        flat = np.zeros((60, 80), np.uint8)
        matches = match_images(matcher, flat, flat)
        assert matcher.name == 'theirs' and matches.keypoints1.tolist() == [[21, 22], [23, 24], [25, 26]]
        # The defaults of Matcher.
        theirs = matcher.matcher if subpixel != 'none' else matcher
        assert theirs.keep_points((60, 80), matches) == (60, 80) and matcher.notes == {}


def test_importing_the_table_does_not_import_torch():
    code = 'import sys, loftr_ros.matchers; sys.exit("torch" in sys.modules)'
    assert subprocess.run([sys.executable, '-c', code], check=False).returncode == 0


@pytest.mark.parametrize('name', ['gpu', 'cuda:x', 'cpu:0', ''])
def test_a_device_of_another_form_is_refused(name):
    with pytest.raises(ConfigError, match=r'matcher\.device must be auto, cpu, cuda or cuda:N'):
        create_matcher(MatcherConfig(device=name))


def test_a_gpu_that_is_not_there_is_refused_with_the_remedy():
    with pytest.raises(ConfigError, match=r"matcher\.device is 'cuda:99'.*use auto or cpu"):
        create_matcher(MatcherConfig(device='cuda:99'))


@pytest.mark.skipif(hasattr(cv2, 'AKAZE_create'), reason='this OpenCV has AKAZE')
def test_a_detector_that_this_opencv_lacks_is_answered_with_the_remedy():
    with pytest.raises(MissingDependencyError, match='has no AKAZE; install opencv-python<5'):
        make('akaze')
