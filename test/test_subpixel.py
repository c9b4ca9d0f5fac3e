"""Lucas-Kanade refinement of points in image 1: accuracy, sigma, and places without texture."""

import cv2
import numpy as np
import pytest
from test_matchers import texture

from loftr_ros.config import MatcherConfig
from loftr_ros.datatypes import Matches
from loftr_ros.errors import InputError
from loftr_ros.matchers import create_matcher, match_images
from loftr_ros.matchers.subpixel import MAX_MOVE_PX, MAX_SIGMA_PX, SubpixelMatcher, local_warps, lucas_kanade

SHIFT = np.array([3.3, -2.6])
HEIGHT, WIDTH = 200, 300


def moved(image: np.ndarray, shift) -> np.ndarray:
    """Return float64, the image moved by `shift` px exactly (it is taken as periodic)."""
    y, x = np.meshgrid(np.fft.fftfreq(image.shape[0]), np.fft.fftfreq(image.shape[1]), indexing='ij')
    return np.fft.ifft2(np.fft.fft2(image.astype(float)) * np.exp(-2j * np.pi * (x * shift[0] + y * shift[1]))).real


def to_uint8(image: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def grid(margin: int = 30) -> np.ndarray:
    y, x = np.mgrid[margin : HEIGHT - margin : 7, margin : WIDTH - margin : 7]
    return np.stack([x.ravel(), y.ravel()], axis=1).astype(float)


def guesses(points: np.ndarray) -> np.ndarray:
    """Return the true places, wrong by what a network is wrong by."""
    return points + SHIFT + np.random.default_rng(0).uniform(-0.7, 0.7, points.shape)


def test_a_fraction_of_a_pixel_is_found_whatever_the_light():
    image = texture(HEIGHT, WIDTH)
    points = grid()
    for gain, offset in ((1.0, 0.0), (0.5, 60.0)):
        refined = lucas_kanade(image, to_uint8(gain * moved(image, SHIFT) + offset), points, guesses(points))
        assert refined.is_refined.mean() > 0.9
        errors = (refined.points1 - points - SHIFT)[refined.is_refined]
        assert np.median(np.linalg.norm(errors, axis=1)) < 0.05
        assert np.abs(errors.mean(axis=0)).max() < 0.01


@pytest.mark.parametrize('noise', [4.0, 12.0])
def test_sigma_is_what_noise_makes_of_the_points(noise):
    rng = np.random.default_rng(1)
    image, points = texture(HEIGHT, WIDTH), grid()
    pair = [to_uint8(view + rng.normal(0, noise, view.shape)) for view in (image, moved(image, SHIFT))]
    refined = lucas_kanade(*pair, points, guesses(points))
    assert refined.is_refined.mean() > 0.3
    assert refined.sigma_px[refined.is_refined].max() <= MAX_SIGMA_PX
    scaled = (refined.points1 - points - SHIFT)[refined.is_refined] / refined.sigma_px[refined.is_refined, None]
    # Its floor, which no noise explains, makes it cautious.
    assert 0.3 < np.sqrt(np.mean(scaled**2)) < 1.2


def test_a_point_without_a_sure_place_is_not_moved():
    image = texture(HEIGHT, WIDTH)
    image[:, 150:] = 128
    image[:, 200] = 200  # an edge: no place along it
    other = to_uint8(moved(texture(HEIGHT, WIDTH, seed=9), SHIFT))
    plain = np.array([[170.0, 100.0], [200.0, 100.0], [250.0, 60.0]])
    at_border = np.array([[2.0, 2.0], [3.0, 100.0], [50.0, HEIGHT - 1.0], [np.nan, 5.0]])
    for points0, image1 in ((plain, image), (at_border, image), (grid()[:50], other)):
        guess = points0 + 0.4
        refined = lucas_kanade(image, image1, points0, guess)
        assert refined.is_refined.mean() < 0.2
        np.testing.assert_array_equal(refined.points1[~refined.is_refined], guess[~refined.is_refined])
        assert np.isnan(refined.sigma_px[~refined.is_refined]).all()


def test_a_point_moves_at_most_by_the_largest_correction():
    image, points = texture(HEIGHT, WIDTH), grid()
    refined = lucas_kanade(image, image, points, points + [2.5, 0])
    assert not refined.is_refined.any()
    refined = lucas_kanade(image, image, points, points + [2.5, 0], max_move_px=3.0)
    assert refined.is_refined.mean() > 0.8
    assert np.median(np.abs(refined.points1 - points)) < 0.05


WARP = np.array([[1.18, -0.25, 20.0], [0.25, 1.18, -30.0]])


def test_a_turned_and_enlarged_patch_is_found_too():
    image, points = texture(HEIGHT, WIDTH), grid()
    warped = cv2.warpAffine(image, WARP, (WIDTH, HEIGHT), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    truth = points @ WARP[:, :2].T + WARP[:, 2]
    refined = lucas_kanade(image, warped, points, truth + np.random.default_rng(0).uniform(-0.7, 0.7, points.shape))
    inside = ((truth > 8) & (truth < [WIDTH - 8, HEIGHT - 8])).all(axis=1)
    assert refined.is_refined[inside].mean() > 0.9
    assert np.median(np.linalg.norm(refined.points1 - truth, axis=1)[refined.is_refined]) < 0.05


def test_the_warp_is_that_of_the_matches_around_not_of_wrong_ones():
    rng = np.random.default_rng(0)
    points0 = rng.uniform(0, 600, (1500, 2))
    left = points0[:, 0] < 300
    points1 = np.where(left[:, None], points0 + 7, points0 @ WARP[:, :2].T) + rng.normal(0, 0.5, points0.shape)
    wrong = rng.random(1500) < 0.25
    points1[wrong] = rng.uniform(0, 600, (wrong.sum(), 2))
    warps = local_warps(points0, points1)
    for part, truth in ((points0[:, 0] < 200, np.eye(2)), (points0[:, 0] > 400, WARP[:, :2])):
        assert np.percentile(np.abs(warps[part] - truth).max(axis=(1, 2)), 95) < 0.03


def test_without_agreement_there_is_no_warp():
    rng = np.random.default_rng(0)
    few = rng.uniform(0, 600, (5, 2))
    many = rng.uniform(0, 600, (800, 2))
    for points0, points1 in ((few, 2 * few), (many, rng.permutation(many)), (many, many * [-1, 1] + [600, 0])):
        warps = local_warps(points0, points1)
        assert np.mean((warps == np.eye(2)).all(axis=(1, 2))) > 0.9
    assert local_warps(np.empty((0, 2)), np.empty((0, 2))).shape == (0, 2, 2)


def test_images_may_differ_in_size_and_there_may_be_no_point():
    image, points = texture(HEIGHT, WIDTH), grid()
    refined = lucas_kanade(image, image[:150, :220], points, points + 0.3)
    outside = (points > [220, 150]).any(axis=1)
    assert not refined.is_refined[outside].any() and refined.is_refined.any()
    assert lucas_kanade(image, image, np.empty((0, 2)), np.empty((0, 2))).points1.shape == (0, 2)


class Rough:
    """A matcher whose points of image 1 are wrong, the second half hopelessly."""

    name = 'rough'

    def __init__(self):
        self.notes = {'precision': 'poor'}

    def extract(self, image):
        return image.shape

    def match(self, features0, features1):
        points = grid()
        wrong = np.where(np.arange(len(points))[:, None] < len(points) // 2, 0.5, 9.0)
        return Matches(points, points + wrong, np.ones(len(points)), np.full(len(points), 0.8), np.arange(len(points)))


def test_a_matcher_keeps_its_name_and_gets_better_points():
    matcher = SubpixelMatcher(Rough(), resize_max=1024)
    assert (matcher.name, matcher.notes) == ('rough', {'precision': 'poor'})
    image = texture(HEIGHT, WIDTH)
    matches = match_images(matcher, np.repeat(image[..., None], 3, axis=2), image)
    half = len(matches) // 2
    assert np.median(np.abs(matches.keypoints1 - matches.keypoints0)[:half]) < 0.05
    assert np.median(matches.sigma_px[:half]) < 0.2
    assert np.mean(matches.sigma_px[half:] == np.float32(0.8)) > 0.98
    np.testing.assert_array_equal(matches.point_id0, np.arange(len(matches)))


def test_a_reduced_image_allows_a_larger_correction():
    """Half of the size in the matcher is twice the error in the image."""
    points = grid()
    image = texture(HEIGHT, WIDTH)
    rough = Rough()
    rough.match = lambda *_: Matches(points, points + [2.2, 0], *np.ones((2, len(points))), np.arange(len(points)))
    assert MAX_MOVE_PX < 2.2
    for resize_max, error in ((0, 2.2), (WIDTH, 2.2), (WIDTH // 2, 0.0)):
        matches = match_images(SubpixelMatcher(rough, resize_max), image, image)
        assert np.median(matches.keypoints1 - matches.keypoints0, axis=0)[0] == pytest.approx(error, abs=0.05)


def test_the_setting_subpixel_enables_the_refinement():
    image = texture(HEIGHT, WIDTH)
    refined, plain = (create_matcher(MatcherConfig(name='gcm', subpixel=kind)) for kind in ('lucas_kanade', 'none'))
    assert np.isnan(match_images(plain, image, image).sigma_px).all()
    assert np.isfinite(match_images(refined, image, image).sigma_px).mean() > 0.8
    with pytest.raises(InputError):
        refined.extract(np.zeros((4, 4), np.float32))
