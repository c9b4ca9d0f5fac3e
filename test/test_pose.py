"""Relative pose of synthetic scenes whose motion is known, with each estimator."""

import sys

import numpy as np
import pytest
from pose_scenes import (
    CAMERA,
    ESTIMATORS,
    SIDEWAYS,
    TURN,
    camera,
    errors_deg,
    estimate,
    matches_of,
    scene,
    see,
    squared_error_in_sigmas,
)

from loftr_ros import geometry
from loftr_ros.camera import CameraModel
from loftr_ros.config import PoseConfig
from loftr_ros.datatypes import PoseStatus
from loftr_ros.errors import InputError, MissingDependencyError
from loftr_ros.pose import models, robust


@pytest.mark.parametrize('estimator', ESTIMATORS)
@pytest.mark.parametrize('translation', [SIDEWAYS, [0, 0, 0.5], [0, 0, -0.5], [0, -0.3, 0.1]])
def test_perfect_matches_give_the_motion(estimator, translation):
    translation = np.array(translation)
    pose = estimate(scene(0, translation=translation, noise_px=0), estimator=estimator)
    assert pose.status is PoseStatus.OK
    assert pose.num_inliers == 300
    assert np.linalg.norm(pose.translation) == pytest.approx(1)
    # float32 keypoints are rounded to 3e-5 px, 3e-6 degrees; the descent ends at errors of about 4e-4 px.
    assert max(errors_deg(pose, TURN, translation)) < 1e-3


def test_a_wrong_match_that_passes_for_a_very_near_point_does_not_decide():
    """Three matches of 300 are moved 200 px along their lines and 1.5 px across; with full influence they give 77."""
    pixels0, pixels1 = see(np.random.default_rng(24), 300, np.eye(3), np.array([0.1, 0, 0]))
    middle = np.argsort(np.abs(pixels1[:, 0] - 220))[:3]
    pixels1[middle] += [200, 1.5]
    noise = np.random.default_rng(25).normal(size=(300, 2)) * 0.3
    pose = estimate(matches_of(pixels0, pixels1 + noise))
    assert pose.inliers[middle].all()
    assert squared_error_in_sigmas(pose, np.eye(3), np.array([0.1, 0, 0])) < 20.5  # 99.9 % of chi-square, 5


@pytest.mark.parametrize('estimator', ESTIMATORS)
def test_half_of_the_matches_may_be_wrong(estimator):
    matches = scene(4, count=1000, wrong=0.5)
    pose = estimate(matches, estimator=estimator)
    assert max(errors_deg(pose, TURN, SIDEWAYS)) < 0.5
    assert 490 < pose.num_inliers < 600  # half, and of the near misses one in four is within 2 px of its line


@pytest.mark.parametrize('estimator', ESTIMATORS)
@pytest.mark.parametrize('seed', range(3))
def test_driving_straight_ahead(estimator, seed):
    """f = 700, 1 m between frames, points at 5 to 60 m, a fifth wrong; and 0.2 m, where little parallax is left."""
    cameras = (camera(700), camera(700))
    rotation = geometry.rotation_from_vector([0, 0.005, 0])
    for metres, bound_deg in ((1.0, 0.5), (0.2, 5.0)):
        translation = np.array([0, 0, -metres])
        matches = scene(seed, rotation, translation, 500, wrong=0.2, cameras=cameras, depth=(5, 60))
        pose = estimate(matches, cameras, estimator=estimator)
        rotation_deg, direction_deg = errors_deg(pose, rotation, translation)
        assert pose.has_translation
        assert rotation_deg < 0.1
        assert direction_deg < bound_deg


def test_little_parallax_is_rarely_ambiguous():
    """Where the search also ends in another motion with clearly larger errors, the right one is the only one."""
    cameras = (camera(700), camera(700))
    rotation, translation = geometry.rotation_from_vector([0, 0.005, 0]), np.array([0, 0, -0.2])
    poses = []
    for seed in range(30):
        matches = scene(seed, rotation, translation, 500, wrong=0.2, cameras=cameras, depth=(5, 60))
        poses.append(estimate(matches, cameras))
    assert sum(pose.status is PoseStatus.AMBIGUOUS for pose in poses) <= 6
    assert max(errors_deg(pose, rotation, translation)[1] for pose in poses if pose.has_translation) < 5


@pytest.mark.parametrize('estimator', ESTIMATORS)
def test_points_on_one_plane_give_the_motion(estimator):
    for seed in range(5):
        pose = estimate(scene(seed, translation=np.array([0.5, 0, 0.05]), depth=(4, 4)), estimator=estimator)
        assert pose.status is PoseStatus.OK
        assert errors_deg(pose, TURN, [0.5, 0, 0.05])[1] < 6


@pytest.mark.parametrize('estimator', ESTIMATORS)
def test_points_at_infinity_stay_inliers(estimator):
    """Half of the points are 10 km away; noise puts half of those behind the camera, and they still count."""
    random = np.random.default_rng(5)
    near, far = see(random, 150, TURN, SIDEWAYS), see(random, 150, TURN, SIDEWAYS, depth=(1e4, 1e4))
    pixels = [np.vstack(p) + random.normal(size=(300, 2)) * 0.3 for p in zip(near, far, strict=True)]
    pose = estimate(matches_of(*pixels), estimator=estimator)
    assert pose.status is not PoseStatus.PURE_ROTATION
    assert pose.inliers[150:].mean() > 0.98
    assert errors_deg(pose, TURN, SIDEWAYS)[1] < 2


@pytest.mark.parametrize('estimator', ESTIMATORS)
def test_distorted_images_of_two_lenses(estimator):
    cameras = (
        camera(460, distortion=(-0.28, 0.07, 2e-4, 1e-5)),
        camera(300, distortion=(-0.01, 0.02, -0.015, 0.004), model=CameraModel.EQUIDISTANT),
    )
    pose = estimate(scene(6, cameras=cameras, noise_px=0.3), cameras, estimator=estimator)
    assert pose.num_inliers == 300
    assert max(errors_deg(pose, TURN, SIDEWAYS)) < 0.5
    assert pose.epipolar_rmse_px == pytest.approx(0.3, abs=0.04)  # the noise, whatever the lens does to it


@pytest.mark.parametrize('estimator', ESTIMATORS)
@pytest.mark.parametrize('focals', [(525, 525), (400, 800)])
@pytest.mark.parametrize('threshold', [1.0, 3.0])
def test_the_threshold_is_a_sampson_error_in_pixels(estimator, focals, threshold):
    """60 of 360 matches are moved across their lines by 0.8 or 1.25 thresholds: the first stay, the others go."""
    cameras = tuple(camera(focal) for focal in focals)
    pixels0, pixels1 = see(np.random.default_rng(7), 360, TURN, SIDEWAYS, cameras)
    truth = geometry.transform(TURN, SIDEWAYS)
    wanted = np.zeros(360)
    wanted[:30], wanted[30:60] = 0.8 * threshold, 1.25 * threshold
    # The error is linear in a move of image 1 to within a per cent here: one step, measured and scaled.
    moved = pixels1.copy()
    for _ in range(3):
        step = np.array([0.1, 1.0]) / np.linalg.norm([0.1, 1.0])
        probe = geometry.epipolar_error_px(truth, pixels0, pixels1 + 0.01 * step, *cameras) / 0.01
        moved[:60] = pixels1[:60] + step * (wanted / probe)[:60, None]
    pose = estimate(matches_of(pixels0, moved), cameras, estimator=estimator, max_epipolar_error_px=threshold)
    np.testing.assert_array_equal(pose.inliers, wanted < threshold)


def test_both_estimators_end_in_the_same_pose():
    matches = scene(8, wrong=0.3)
    poses = [estimate(matches, estimator=estimator).cam1_from_cam0 for estimator in ESTIMATORS]
    # Least squares take both to one minimum, to a hundredth of a standard deviation of about 2e-3 rad.
    np.testing.assert_allclose(*poses, atol=2e-5)


@pytest.mark.parametrize('estimator', ESTIMATORS)
def test_the_same_input_gives_the_same_bytes(estimator):
    matches = scene(9, wrong=0.4)
    first, second = (estimate(matches, estimator=estimator, seed=5) for _ in range(2))
    assert first.cam1_from_cam0.tobytes() == second.cam1_from_cam0.tobytes()
    assert first.covariance.tobytes() == second.covariance.tobytes()
    assert first.inliers.tobytes() == second.inliers.tobytes()


@pytest.mark.parametrize('estimator', ESTIMATORS)
def test_seed_and_threshold_reach_the_estimator(estimator):
    """Estimators ignore options that they do not know: what we set must change what comes out."""
    points = models.usable_points(scene(10, wrong=0.6, noise_px=1.0), CAMERA, CAMERA)

    def start(**settings):
        return np.concatenate(
            [part.ravel() for part in robust.robust_pose(points, PoseConfig(estimator=estimator, **settings))]
        )

    np.testing.assert_array_equal(start(), start())
    assert any(np.any(start(seed=seed) != start()) for seed in range(1, 6))
    assert np.any(start(max_epipolar_error_px=0.7) != start())


def test_matches_that_would_lie_behind_the_cameras_are_no_inliers():
    """Moved along the line to the other side of infinity: the epipolar error stays 0, the depth is negative."""
    pixels0, pixels1 = see(np.random.default_rng(11), 300, np.eye(3), np.array([0.4, 0, 0]))
    pixels1[:50, 0] = 2 * pixels0[:50, 0] - pixels1[:50, 0]
    pose = estimate(matches_of(pixels0, pixels1))
    assert pose.status is PoseStatus.OK
    np.testing.assert_array_equal(pose.inliers, np.arange(300) >= 50)


def test_a_missing_camera_is_the_callers_mistake():
    with pytest.raises(InputError, match=r'camera1 must be a Camera, got None.*camera_info'):
        estimate(scene(21), (CAMERA, None))


def test_without_poselib_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, 'poselib', None)  # import then raises ImportError
    with pytest.raises(MissingDependencyError, match=r'pip install poselib.*pose\.estimator to opencv'):
        estimate(scene(22), estimator='poselib')


def test_a_poselib_with_other_option_names_is_refused(monkeypatch):
    poselib = pytest.importorskip('poselib')
    monkeypatch.setattr(poselib, 'RansacOptions', lambda: {'seed': 0, 'success_prob': 0.9999})
    with pytest.raises(MissingDependencyError, match=r"\['max_epipolar_error', 'max_iterations', 'min_iterations'\]"):
        estimate(scene(23), estimator='poselib')
