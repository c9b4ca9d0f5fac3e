"""The covariance of a pose against its errors on synthetic scenes, and the weights of precise matches."""

import numpy as np
import pytest
from pose_scenes import (
    CAMERA,
    ESTIMATORS,
    NOWHERE,
    SIDEWAYS,
    TURN,
    errors_deg,
    estimate,
    matches_of,
    random_motion,
    scene,
    see,
    squared_error_in_sigmas,
)

from loftr_ros import geometry
from loftr_ros.datatypes import UNKNOWN_VARIANCE, PoseStatus
from loftr_ros.pose import least_squares


@pytest.mark.parametrize('estimator', ESTIMATORS)
@pytest.mark.parametrize('noise_px', [0.5, 1.0])
def test_errors_are_as_large_as_the_covariance_says(estimator, noise_px):
    """200 scenes: the mean over chi-square of 5 degrees of freedom is in 5 +- 2.58 sqrt(10 / 200), 99 %."""
    found = []
    for seed in range(200):
        rotation, translation = random_motion(np.random.default_rng(1000 + seed))
        pose = estimate(scene(seed, rotation, translation, 100, noise_px), estimator=estimator)
        assert pose.status is PoseStatus.OK
        found.append(squared_error_in_sigmas(pose, rotation, translation))
    assert 4.42 < np.mean(found) < 5.58


@pytest.mark.parametrize('estimator', ESTIMATORS)
def test_with_wrong_matches_the_covariance_is_still_of_the_right_size(estimator):
    """30 % wrong. Some of these are on their lines by chance and pass: up to twice the variance is granted."""
    found = []
    for seed in range(60):
        rotation, translation = random_motion(np.random.default_rng(1000 + seed))
        pose = estimate(scene(seed, rotation, translation, 200, wrong=0.3), estimator=estimator)
        found.append(squared_error_in_sigmas(pose, rotation, translation))
    assert 3.5 < np.mean(found) < 10
    assert np.median(found) < 1.5 * 4.35  # 4.35: the median of chi-square with 5 degrees of freedom


def test_errors_that_neighbours_share_enlarge_the_covariance(monkeypatch):
    """Every 60 px of the image have an error of their own: taken as independent, five times the variance is missing."""

    def mean_squared_error():
        found = []
        for seed in range(60):
            random = np.random.default_rng(1000 + seed)
            rotation, translation = random_motion(random)
            pixels0, pixels1 = see(random, 600, rotation, translation, (CAMERA, CAMERA))
            column, row = (pixels0 // 60).astype(int).T
            shared = random.normal(size=(20, 20, 2)) * 0.5
            pixels1 = pixels1 + shared[row, column] + random.normal(size=pixels1.shape) * 0.2
            pose = estimate(matches_of(pixels0, pixels1))
            found.append(squared_error_in_sigmas(pose, rotation, translation))
        return np.mean(found)

    assert 3.5 < mean_squared_error() < 8
    monkeypatch.setattr(least_squares, '_covariance_of_sum', lambda independent, *_: (independent, 1.0))
    assert mean_squared_error() > 20


def test_few_groups_or_perfect_matches_do_not_inflate_the_covariance():
    scores = np.random.default_rng(0).normal(size=(40, 5))
    normal = scores.T @ scores
    assert least_squares._covariance_of_sum(normal, scores, np.arange(40) % 5)[1] == 1
    assert least_squares._covariance_of_sum(normal, 0 * scores, np.arange(40))[1] == 1


def test_scores_that_their_group_shares_scatter_by_the_size_of_the_group():
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(400, 3)) * (1, 2, 3)
    scores, groups = np.repeat(shared, 8, axis=0), np.repeat(np.arange(400), 8)
    covariance, inflation = least_squares._covariance_of_sum(scores.T @ scores, scores.T, groups)
    np.testing.assert_allclose(inflation, 8, rtol=0.03)
    np.testing.assert_allclose(np.diag(covariance), 400 * 64 * np.array([1, 4, 9]), rtol=0.2)


def rotation_error_in_sigmas(pose, rotation) -> float:
    """Return the normalised squared error of the rotation, 3 degrees of freedom."""
    error = geometry.vector_from_rotation(rotation @ pose.rotation.T)
    return error @ np.linalg.solve(pose.covariance[3:, 3:], error)


def test_the_rotation_without_translation_is_no_less_precise_than_its_covariance_says():
    """60 scenes, chi-square of 3 degrees of freedom: at most 3 + 2.58 sqrt(6 / 60), 99 %.

    What a translation too small to be seen could do is granted on top; about the optical axis it does nothing, and
    there the square is of one degree of freedom: 1 +- 2.58 sqrt(2 / 60).
    """
    found, about_axis = [], []
    for seed in range(60):
        pose = estimate(scene(seed, translation=NOWHERE, count=60))
        found.append(rotation_error_in_sigmas(pose, TURN))
        about_axis.append(geometry.vector_from_rotation(TURN @ pose.rotation.T)[2] ** 2 / pose.covariance[5, 5])
    assert 0.8 < np.mean(found) < 3.82
    assert 0.53 < np.mean(about_axis) < 1.47


@pytest.mark.parametrize('step_m', [0.001, 0.003, 0.01])
def test_the_covariance_of_the_rotation_is_right_for_a_very_slow_camera(step_m):
    """Points 3 to 50 m away; the unseen step passes for a turn. At most the 3.82 of chi-square with 3 degrees."""
    found = []
    for seed in range(60):
        matches = scene(seed, np.eye(3), np.array([-step_m, 0, 0]), 500, 0.1, depth=(3, 50))
        found.append(rotation_error_in_sigmas(estimate(matches), np.eye(3)))
    assert np.mean(found) < 3.82


def test_covariance_is_symmetric_positive_and_unknown_along_the_translation():
    pose = estimate(scene(3))
    np.testing.assert_array_equal(pose.covariance, pose.covariance.T)
    assert np.linalg.eigvalsh(pose.covariance)[0] > 0
    along = pose.translation @ pose.covariance[:3, :3] @ pose.translation
    assert along == pytest.approx(UNKNOWN_VARIANCE)
    across = np.cross(pose.translation, [0, 0, 1.0])
    assert across @ pose.covariance[:3, :3] @ across < 1e-3


def test_precise_matches_count_more_when_sigma_says_so():
    """Half of the matches have 0.1 px noise, half 1.5 px: the informed mean error is well below the other."""
    informed, plain = [], []
    for seed in range(20):
        random = np.random.default_rng(seed)
        pixels0, pixels1 = see(random, 200, TURN, SIDEWAYS)
        sigma = np.where(np.arange(200) % 2, 0.1, 1.5)
        noisy = [p + random.normal(size=p.shape) * sigma[:, None] for p in (pixels0, pixels1)]
        for errors, given in ((informed, sigma), (plain, None)):
            pose = estimate(matches_of(*noisy, given), max_epipolar_error_px=5.0)
            errors.append(errors_deg(pose, TURN, SIDEWAYS)[1])
    assert np.mean(informed) < 0.6 * np.mean(plain)
