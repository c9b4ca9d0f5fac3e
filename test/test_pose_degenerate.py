"""The status for pure rotation, no motion, and matches that do not determine a motion."""

import numpy as np
import pytest
from pose_scenes import (
    CAMERA,
    ESTIMATORS,
    NOWHERE,
    SIDEWAYS,
    SIZE,
    TURN,
    camera,
    errors_deg,
    estimate,
    matches_of,
    scene,
    see,
)

from loftr_ros import geometry
from loftr_ros.datatypes import UNKNOWN_VARIANCE, PoseFailure, PoseStatus, RelativePose


@pytest.mark.parametrize('estimator', ESTIMATORS)
@pytest.mark.parametrize('wrong', [0, 0.3])
@pytest.mark.parametrize('noise_px', [0, 0.3, 1.0])
def test_turning_on_the_spot_gives_the_rotation_and_no_translation(estimator, wrong, noise_px):
    for seed in range(3):
        pose = estimate(scene(seed, translation=NOWHERE, noise_px=noise_px, wrong=wrong), estimator=estimator)
        assert pose.status is PoseStatus.PURE_ROTATION
        assert np.rad2deg(geometry.rotation_angle(TURN @ pose.rotation.T)) < 0.1
        np.testing.assert_array_equal(pose.translation, 0)
        np.testing.assert_array_equal(pose.covariance[:3, :3], UNKNOWN_VARIANCE * np.eye(3))
        assert not pose.has_translation


@pytest.mark.parametrize('estimator', ESTIMATORS)
@pytest.mark.parametrize('wrong', [0, 0.3])
@pytest.mark.parametrize('noise_px', [0, 0.3, 1.0])
def test_a_camera_at_rest_has_the_status_static(estimator, wrong, noise_px):
    for seed in range(3):
        matches = scene(seed, np.eye(3), NOWHERE, noise_px=noise_px, wrong=wrong)
        assert estimate(matches, estimator=estimator).status is PoseStatus.STATIC


def test_less_and_less_translation_goes_from_a_pose_to_pure_rotation():
    """Depth 1.5 to 6 m, 0.5 px noise: 5 cm are seen, 2 cm are below 0.5 degrees, 2 mm drown in the noise."""
    scenes = [scene(12, TURN, np.array([metres, 0, 0]), 500) for metres in (0.05, 0.02, 0.002)]
    found = [estimate(matches, min_parallax_deg=0.5).status for matches in scenes]
    assert found == [PoseStatus.OK, PoseStatus.LOW_PARALLAX, PoseStatus.PURE_ROTATION]


def test_a_few_near_points_before_a_far_scene_show_the_translation():
    """A tenth of the points are near; the rest is 1 km away and a pure rotation explains it."""
    random = np.random.default_rng(13)
    near, far = see(random, 40, TURN, SIDEWAYS), see(random, 360, TURN, SIDEWAYS, depth=(1e3, 1e3))
    pixels = [np.vstack(p) + random.normal(size=(400, 2)) * 0.3 for p in zip(near, far, strict=True)]
    pose = estimate(matches_of(*pixels))
    assert pose.status is PoseStatus.LOW_PARALLAX
    assert errors_deg(pose, TURN, SIDEWAYS)[1] < 3


@pytest.mark.parametrize('estimator', ESTIMATORS)
@pytest.mark.parametrize('count', [60, 2000])
def test_random_matches_are_no_motion(estimator, count):
    random = np.random.default_rng(14)
    answer = estimate(matches_of(*random.uniform((0, 0), SIZE, size=(2, count, 2))), estimator=estimator)
    assert isinstance(answer, PoseFailure)
    assert answer.status is PoseStatus.TOO_FEW_INLIERS
    assert answer.num_matches == count


@pytest.mark.parametrize('estimator', ESTIMATORS)
@pytest.mark.parametrize('shape', ['equal', 'line in the images', 'line in space', 'small spot'])
def test_matches_that_cannot_determine_a_motion_are_no_motion(estimator, shape):
    along = np.linspace(-1, 1, 60)[:, None]
    if shape == 'equal':
        pixels = np.full((60, 2), 100.0), np.full((60, 2), 105.0)
    elif shape == 'line in the images':
        pixels = [np.array([320, 240]) + along * np.array([300, 100])] * 2
    elif shape == 'line in space':
        points = along * np.array([1, 0.4, 0.8]) + np.array([0, 0, 4.0])
        noise = np.random.default_rng(15).normal(size=(2, 60, 2)) * 0.3
        pixels = (
            geometry.project(CAMERA, points) + noise[0],
            geometry.project(CAMERA, points @ TURN.T + SIDEWAYS) + noise[1],
        )
    else:
        pixels = [300 + p * 1e-3 for p in see(np.random.default_rng(16), 60, TURN, SIDEWAYS)]
    answer = estimate(matches_of(*pixels), estimator=estimator)
    assert isinstance(answer, PoseFailure)
    assert answer.status is PoseStatus.TOO_FEW_INLIERS


@pytest.mark.parametrize('count', [0, 1, 5, 19])
def test_too_few_matches_are_a_failure_that_says_so(count):
    answer = estimate(scene(17, count=20).select(slice(count)))
    assert answer == PoseFailure(PoseStatus.TOO_FEW_MATCHES, answer.reason, count)
    assert f'{count} usable matches' in answer.reason and 'min_inliers' in answer.reason


@pytest.mark.parametrize('estimator', ESTIMATORS)
def test_six_good_matches_are_enough_where_the_settings_say_so(estimator):
    pose = estimate(scene(18, count=6, noise_px=0), estimator=estimator, min_inliers=6, max_log10_false_alarms=30)
    assert isinstance(pose, RelativePose)
    # Six matches of 3e-5 px leave one degree of freedom: far looser than 300.
    assert max(errors_deg(pose, TURN, SIDEWAYS)) < 0.1


@pytest.mark.parametrize('estimator', ESTIMATORS)
def test_a_wrong_focal_length_gives_a_finite_pose_with_large_errors(estimator):
    matches = scene(19, noise_px=0.1)
    right = estimate(matches, estimator=estimator)
    wrong = estimate(matches, (camera(250), camera(250)), estimator=estimator)
    assert isinstance(wrong, RelativePose)
    assert np.all(np.isfinite(wrong.cam1_from_cam0)) and np.all(np.isfinite(wrong.covariance))
    assert wrong.epipolar_rmse_px > 2 * right.epipolar_rmse_px
    assert np.trace(wrong.covariance[3:, 3:]) > np.trace(right.covariance[3:, 3:])


def test_matches_that_are_not_finite_change_nothing():
    good = scene(20)
    with_holes = np.array(good.keypoints0)
    with_holes[::5, 0], with_holes[1::5, 1] = np.nan, np.inf
    kept = np.isfinite(with_holes).all(axis=1)
    with np.errstate(all='raise'):
        pose = estimate(matches_of(with_holes, good.keypoints1))
    np.testing.assert_array_equal(pose.cam1_from_cam0, estimate(good.select(kept)).cam1_from_cam0)
    assert pose.num_matches == 300
    assert not pose.inliers[~kept].any()


@pytest.mark.filterwarnings('error')
def test_matches_on_both_epipoles_do_not_spoil_the_pose():
    """Straight ahead, without noise: the point in the middle of both images has no epipolar line."""
    points = np.random.default_rng(0).uniform([-3, -2, 5], [3, 2, 40], (300, 3))
    points[:2] = [0, 0, 10], [0, 0, 20]
    forward = np.array([0, 0, -1.0])
    pixels = [geometry.project(CAMERA, points + shift) for shift in (0, forward)]
    inside = np.all([(p >= 0).all(axis=1) & (p <= np.subtract(SIZE, 1)).all(axis=1) for p in pixels], axis=0)
    pose = estimate(matches_of(*(p[inside] for p in pixels)))
    assert pose.status is PoseStatus.OK and np.isfinite(pose.covariance).all()
    assert max(errors_deg(pose, np.eye(3), forward)) < 1e-3
