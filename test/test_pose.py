"""Relative pose of synthetic scenes whose motion is known, of scenes that have none to be seen, and of real images."""

import re
import sys

import cv2
import numpy as np
import pytest
from data import shared_data

from loftr_ros import geometry
from loftr_ros.config import PoseConfig
from loftr_ros.datatypes import (
    UNKNOWN_VARIANCE,
    Camera,
    CameraModel,
    Matches,
    PoseFailure,
    PoseStatus,
    RelativePose,
)
from loftr_ros.errors import InputError, MissingDependencyError
from loftr_ros.pose import estimate_relative_pose, least_squares, models, robust

ESTIMATORS = ('poselib', 'opencv')
SIZE = (640, 480)
TURN = geometry.rotation_from_vector([0.02, 0.08, -0.03])
SIDEWAYS = np.array([0.4, 0.1, 0.05])
NOWHERE = np.zeros(3)


def camera(focal: float = 525.0, **distortion) -> Camera:
    return Camera([[focal, 0, 320], [0, focal, 240], [0, 0, 1]], *SIZE, **distortion)


CAMERA = camera()


def matches_of(keypoints0, keypoints1, sigma_px=None) -> Matches:
    count = len(keypoints0)
    sigma_px = np.full(count, np.nan) if sigma_px is None else sigma_px
    return Matches(keypoints0, keypoints1, np.ones(count), sigma_px, np.full(count, -1))


def see(random, count, rotation, translation, cameras=(CAMERA, CAMERA), depth=(1.5, 6.0)):
    """Return pixels (count, 2) of random points that both cameras see, the depth uniform in `depth`."""
    pixels0 = random.uniform((0, 0), SIZE, size=(20 * count, 2))
    points = geometry.homogeneous(geometry.undistort_points(cameras[0], pixels0))
    points *= random.uniform(*depth, size=(20 * count, 1))
    pixels1 = geometry.project(cameras[1], points @ rotation.T + translation)
    seen = np.flatnonzero(np.all((pixels1 > 0) & (pixels1 < SIZE), axis=1))[:count]
    assert len(seen) == count
    return pixels0[seen], pixels1[seen]


def scene(
    seed, rotation=TURN, translation=SIDEWAYS, count=300, noise_px=0.5, wrong=0.0, cameras=(CAMERA, CAMERA), **options
):
    """Return matches with normal noise in both images; of the wrong ones half lie anywhere, half within 15 px."""
    random = np.random.default_rng(seed)
    pixels0, pixels1 = see(random, count, rotation, translation, cameras, **options)
    pixels0 = pixels0 + random.normal(size=pixels0.shape) * noise_px
    pixels1 = pixels1 + random.normal(size=pixels1.shape) * noise_px
    lost = int(wrong * count / 2)
    pixels1[:lost] = random.uniform((0, 0), SIZE, size=(lost, 2))
    pixels1[lost : 2 * lost] += random.uniform(-15, 15, size=(lost, 2))
    return matches_of(pixels0, pixels1)


def estimate(matches, cameras=(CAMERA, CAMERA), **settings):
    return estimate_relative_pose(matches, *cameras, PoseConfig(**settings))


def errors_deg(pose, rotation, translation) -> tuple[float, float]:
    return (
        np.rad2deg(geometry.rotation_angle(rotation @ pose.rotation.T)),
        float(np.rad2deg(geometry.angle_between(pose.translation, translation))),
    )


def squared_error_in_sigmas(pose, rotation, translation) -> float:
    """Return the normalised squared error over the five observable degrees of freedom."""
    basis = np.linalg.svd(pose.translation[None])[2][1:]
    to_five = np.zeros((5, 6))
    to_five[:2, :3], to_five[2:, 3:] = basis, np.eye(3)
    direction = translation / np.linalg.norm(translation)
    error = np.concatenate([basis @ direction, geometry.vector_from_rotation(rotation @ pose.rotation.T)])
    return error @ np.linalg.solve(to_five @ pose.covariance @ to_five.T, error)


def random_motion(random):
    translation = random.normal(size=3)
    return geometry.rotation_from_vector(random.normal(size=3) * 0.06), 0.4 * translation / np.linalg.norm(translation)


# --- accuracy and covariance -------------------------------------------------------------------------------------


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


@pytest.mark.parametrize('estimator', ESTIMATORS)
@pytest.mark.parametrize('noise_px', [0.5, 1.0])
def test_errors_are_as_large_as_the_covariance_says(estimator, noise_px):
    """200 scenes: the mean over chi-square of 5 degrees of freedom lies in 5 +- 2.58 sqrt(10 / 200), 99 %."""
    found = []
    for seed in range(200):
        rotation, translation = random_motion(np.random.default_rng(1000 + seed))
        pose = estimate(scene(seed, rotation, translation, 100, noise_px), estimator=estimator)
        assert pose.status is PoseStatus.OK
        found.append(squared_error_in_sigmas(pose, rotation, translation))
    assert 4.42 < np.mean(found) < 5.58


@pytest.mark.parametrize('estimator', ESTIMATORS)
def test_with_wrong_matches_the_covariance_is_still_of_the_right_size(estimator):
    """30 % wrong. Some of these lie on their lines by chance and pass: up to twice the variance is granted."""
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


def test_few_groups_and_perfect_matches_say_nothing_of_neighbours():
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
def test_a_camera_that_creeps_has_a_rotation_as_precise_as_it_says(step_m):
    """Points 3 to 50 m away; the unseen step passes for a turn. At most the 3.82 of chi-square with 3 degrees."""
    found = []
    for seed in range(60):
        matches = scene(seed, np.eye(3), np.array([-step_m, 0, 0]), 500, 0.1, depth=(3, 50))
        found.append(rotation_error_in_sigmas(estimate(matches), np.eye(3)))
    assert np.mean(found) < 3.82


def test_covariance_is_symmetric_positive_and_knows_nothing_along_the_translation():
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
    assert 490 < pose.num_inliers < 600  # half, and of the near misses one in four lies within 2 px of its line


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


@pytest.mark.parametrize('estimator', ESTIMATORS)
def test_points_on_one_plane_are_no_trouble(estimator):
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


# --- inliers, threshold, seed ------------------------------------------------------------------------------------


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


# --- nothing to see ----------------------------------------------------------------------------------------------


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
def test_standing_still_is_said(estimator, wrong, noise_px):
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
def test_a_wrong_focal_length_gives_a_finite_answer_whose_errors_tell(estimator):
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


# --- callers and dependencies ------------------------------------------------------------------------------------


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


# --- real images -------------------------------------------------------------------------------------------------


def sift_matches(image0, image1) -> Matches:
    detector = cv2.SIFT_create(2000)
    (keypoints0, descriptors0), (keypoints1, descriptors1) = (
        detector.detectAndCompute(image, None) for image in (image0, image1)
    )
    pairs = cv2.BFMatcher().knnMatch(descriptors0, descriptors1, k=2)
    good = [best for best, second in pairs if best.distance < 0.8 * second.distance]
    return matches_of(
        np.array([keypoints0[match.queryIdx].pt for match in good]),
        np.array([keypoints1[match.trainIdx].pt for match in good]),
    )


def euroc(name: str):
    """Return the images, the camera and body_from_cam of one camera of EuRoC V1_01."""
    folder = shared_data('euroc_v1_01_at_rest') / name
    text = (folder / 'sensor.yaml').read_text()

    def numbers(key):
        return [float(x) for x in re.search(key + r':\s*\[([^\]]*)\]', text).group(1).split(',')]

    fx, fy, cx, cy = numbers('intrinsics')
    images = [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in sorted(folder.glob('*.png'))]
    height, width = images[0].shape
    matrix = [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]
    return (
        images,
        Camera(matrix, width, height, numbers('distortion_coefficients')),
        np.reshape(numbers('data'), (4, 4)),
    )


@pytest.mark.parametrize('estimator', ESTIMATORS)
def test_distorted_stereo_images_give_the_stated_extrinsics(estimator):
    images0, camera0, body_from_cam0 = euroc('cam0')
    images1, camera1, body_from_cam1 = euroc('cam1')
    truth = geometry.invert_transform(body_from_cam1) @ body_from_cam0
    for index in (0, 10):
        pose = estimate(sift_matches(images0[index], images1[index]), (camera0, camera1), estimator=estimator)
        rotation_deg, direction_deg = errors_deg(pose, truth[:3, :3], truth[:3, 3])
        assert pose.status is PoseStatus.OK
        assert rotation_deg < 0.5
        assert direction_deg < 5


@pytest.mark.parametrize('estimator', ESTIMATORS)
def test_images_of_a_vehicle_at_rest_are_static(estimator):
    images, camera0, _ = euroc('cam0')
    for index in (0, 6, 14):  # 0 is still to 0.01 px, 6 trembles by 0.1 px, 14 by 0.7 px
        pose = estimate(sift_matches(images[index], images[index + 1]), (camera0, camera0), estimator=estimator)
        assert pose.status is PoseStatus.STATIC


def test_consecutive_images_of_a_car():
    """KITTI 06, 10 Hz: rotation to 0.2 degrees in the median, direction of travel to 2 degrees."""
    folder = shared_data('kitti06')
    paths = sorted((folder / 'image_l').iterdir())
    poses = [np.vstack([row.reshape(3, 4), [0, 0, 0, 1]]) for row in np.loadtxt(folder / 'poses.txt')]
    kitti = Camera([[707.0912, 0, 601.8873], [0, 707.0912, 183.1104], [0, 0, 1]], 1226, 370)
    found = []
    for index in (0, 20, 40):
        image0, image1 = (cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in paths[index : index + 2])
        pose = estimate(sift_matches(image0, image1), (kitti, kitti))
        truth = geometry.invert_transform(poses[index + 1]) @ poses[index]
        found.append(errors_deg(pose, truth[:3, :3], truth[:3, 3]))
    rotation_deg, direction_deg = np.median(found, axis=0)
    assert rotation_deg < 0.2
    assert direction_deg < 2
