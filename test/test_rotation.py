"""The search for turned and zoomed images: exact points, and no search where it is not needed."""

import cv2
import numpy as np
import pytest
from test_matchers import texture

from loftr_ros.config import MatcherConfig
from loftr_ros.datatypes import Matches
from loftr_ros.image import transform_points, turn_matrix, warp_image
from loftr_ros.matchers import Matcher, create_matcher, match_images
from loftr_ros.matchers.rotation import RotationSearchMatcher, agreement


@pytest.mark.parametrize(('angle', 'quarter_turns'), [(0, 0), (90, -1), (180, 2), (270, 1), (-90, 1)])
def test_quarter_turns_move_whole_pixels(angle, quarter_turns):
    image = texture(40, 61)
    matrix, size = turn_matrix(61, 40, angle)
    turned = warp_image(image, matrix, size)
    np.testing.assert_array_equal(turned, np.rot90(image, quarter_turns))
    x, y = np.round(transform_points(matrix, np.array([[17, 5]]))[0]).astype(int)
    assert turned[y, x] == image[5, 17]


@pytest.mark.parametrize('scale', [1.0, 0.5])
def test_a_blob_is_where_the_map_of_a_turn_by_37_degrees_puts_it(scale):
    true = np.array([151.3, 90.8])
    y, x = np.mgrid[:240, :320]
    image = (255 * np.exp(-((x - true[0]) ** 2 + (y - true[1]) ** 2) / (2 * 8**2))).astype(np.uint8)
    matrix, size = turn_matrix(320, 240, 37)
    shrink = np.diag([scale, scale, 1])
    shrink[:2, 2] = scale / 2 - 0.5
    copy = warp_image(image, shrink @ matrix, size).astype(np.float64)
    copy[copy < 20] = 0  # the mean around the image
    y, x = np.mgrid[: copy.shape[0], : copy.shape[1]]
    centroid = np.array([(x * copy).sum(), (y * copy).sum()]) / copy.sum()
    # 8-bit rounding moves the centroid by some hundredths of a pixel, a forgotten half pixel by 0.25 and more.
    np.testing.assert_allclose(centroid, transform_points(shrink @ matrix, true[None])[0], atol=0.06)


def searching(mode: str = 'on_failure', **settings) -> Matcher:
    return create_matcher(MatcherConfig(rotation_search=mode, device='cpu', **settings))


@pytest.fixture(scope='module')
def matcher() -> Matcher:
    return searching()


@pytest.mark.parametrize('angle', [90, 180, 37, -120])
def test_matches_of_a_turned_image_are_exact(matcher, angle):
    image = texture(240, 320)
    matrix, size = turn_matrix(320, 240, angle)
    turned = warp_image(image, matrix, size)
    matches = match_images(matcher, image, turned)
    assert len(matches) > 300
    errors = np.linalg.norm(matches.keypoints1 - transform_points(matrix, matches.keypoints0), axis=1)
    # Lucas-Kanade in the original images: a tenth of a pixel, although the network matched an interpolated one.
    assert np.median(errors) < 0.1
    assert (errors < 3).mean() > 0.95


def test_matches_of_an_image_at_a_third_of_the_scale_are_found(matcher):
    image = texture(480, 640, seed=3)
    small = cv2.resize(image, (214, 160), interpolation=cv2.INTER_AREA)
    matches = match_images(matcher, image, small)
    errors = np.linalg.norm(matches.keypoints1 - (matches.keypoints0 + 0.5) * (214 / 640, 1 / 3) + 0.5, axis=1)
    assert len(matches) > 200 and (errors < 1.5).mean() > 0.95


def test_points_of_image_0_keep_their_numbers_when_image_1_is_turned(matcher):
    image = texture(240, 320)
    features0 = matcher.extract(image)
    place, seen = {}, 0
    for angle in (0, 90, 37):
        matches = matcher.match(features0, matcher.extract(warp_image(image, *turn_matrix(320, 240, angle))))
        features0 = matcher.keep_points(features0, matches)
        for number, point in zip(matches.point_id0.tolist(), matches.keypoints0.tolist(), strict=True):
            assert place.setdefault(number, point) == point
            seen += 1
        assert len(matches) > 300
    assert len(place) < 0.8 * seen  # many points were seen more than once


def test_images_of_different_places_give_what_they_give_without_a_search(matcher):
    image0, image1 = texture(240, 320, 1), texture(240, 320, 2)
    plain = match_images(create_matcher(MatcherConfig(device='cpu')), image0, image1)
    found = match_images(matcher, image0, image1)
    np.testing.assert_array_equal(found.keypoints1, plain.keypoints1)


class Counting(Matcher):
    """Gives the points of a grid that both images have, and counts its calls."""

    name = 'counting'

    def __init__(self, count: int):
        self.count, self.extracted, self.matched = count, 0, 0

    def extract(self, image):
        self.extracted += 1
        return image.shape

    def match(self, features0, features1):
        self.matched += 1
        points = np.random.default_rng(0).uniform(0, 100, (self.count, 2))
        return Matches(points, points + 3, point_id1=np.arange(self.count))


@pytest.mark.parametrize('count', [1000, 50])
def test_matches_that_agree_are_not_searched_for(count):
    inner = Counting(count)
    matches = match_images(RotationSearchMatcher(inner), texture(120, 160), texture(120, 160))
    assert len(matches) == count and (inner.extracted, inner.matched) == (2, 1)


def test_images_without_a_common_map_cost_no_further_match():
    inner = Counting(0)
    match_images(RotationSearchMatcher(inner), texture(240, 320, 1), texture(240, 320, 2))
    assert (inner.extracted, inner.matched) == (2, 1)


def test_keypoints_of_an_image_are_found_once():
    matcher = RotationSearchMatcher(Counting(0))
    features = [matcher.extract(texture(120, 160)) for _ in range(2)]
    matcher.match(*features)
    assert features[0].guide is features[0].guide
    assert len(features[0].guide.points) > 100


def test_a_search_for_each_pair_is_made_only_where_it_was_asked_for():
    inner = Counting(500)
    matches = match_images(RotationSearchMatcher(inner, always=True), texture(120, 160), texture(120, 160))
    assert inner.matched == 2
    assert (matches.point_id1 >= 0).all()  # the warped image was not better than the image as it is


@pytest.mark.parametrize('size', [(1, 1), (5, 7), (9, 700), (101, 163)])
def test_images_of_any_size_are_searched(size):
    image = np.repeat(texture(*size)[..., None], 3, axis=2)
    matches = match_images(searching('always', match_threshold=0.0), image, image[::-1, ::-1])
    for points in (matches.keypoints0, matches.keypoints1):
        assert ((points >= 0) & (points <= np.array(size)[::-1] - 1)).all()


def test_an_affine_map_that_mirrors_is_no_agreement():
    points = np.random.default_rng(0).uniform(0, 300, (100, 2))
    assert agreement(Matches(points, points + 5), 300).count == 100
    assert agreement(Matches(points, points * [-1, 1] + [300, 0]), 300).count == 0


def test_matchers_that_are_invariant_to_rotation_are_not_wrapped():
    assert create_matcher(MatcherConfig(name='sift', subpixel='none', rotation_search='on_failure')).name == 'sift'
    assert not isinstance(searching(name='orb', subpixel='none'), RotationSearchMatcher)
    assert isinstance(searching(subpixel='none'), RotationSearchMatcher)
