"""Acceptance of poses: wrong matches, clusters of them, mirror images, planes, and the sign of the translation."""

import dataclasses

import cv2
import numpy as np
import pytest
from pose_scenes import (
    CAMERA,
    ESTIMATORS,
    NOWHERE,
    SIDEWAYS,
    SIZE,
    TURN,
    errors_deg,
    estimate,
    matches_of,
    scene,
    see,
    squared_error_in_sigmas,
)

from loftr_ros import geometry
from loftr_ros.camera import Camera
from loftr_ros.config import Config, MatcherConfig
from loftr_ros.datasets import rendered_drive
from loftr_ros.datatypes import PoseFailure, PoseStatus, RelativePose, Scale
from loftr_ros.matchers import create_matcher, match_images
from loftr_ros.pose import estimate_relative_pose


def clumps(seed: int, count: int, size: int, spread_px: float = 15.0):
    """Return wrong matches: patches of image 0, each matched as a whole with some patch of image 1."""
    random = np.random.default_rng(seed)
    centres0, centres1 = (random.uniform((40, 40), (600, 440), (count, 1, 2)) for _ in range(2))
    steps = random.uniform(-spread_px, spread_px, (count, size, 2))
    noise = random.normal(size=(2, count, size, 2)) * 0.3
    return matches_of((centres0 + steps + noise[0]).reshape(-1, 2), (centres1 + steps + noise[1]).reshape(-1, 2))


@pytest.mark.parametrize('estimator', ESTIMATORS)
@pytest.mark.parametrize('count, size', [(200, 1), (60, 8), (30, 30), (12, 60)])
def test_wrong_matches_in_clusters_give_no_pose(estimator, count, size):
    for seed in range(5):
        answer = estimate(clumps(seed, count, size), estimator=estimator)
        assert isinstance(answer, PoseFailure), (seed, answer.log10_false_alarms)


def test_more_inliers_give_fewer_false_alarms():
    log10 = [estimate(scene(0, count=count)).log10_false_alarms for count in (60, 120, 300)]
    assert log10[0] > log10[1] > log10[2]
    assert estimate(scene(0, count=60)).log10_false_alarms < -20


def test_a_dense_matcher_needs_more_than_independent_keypoints():
    """22 right ones among 40 matches: enough where wrong ones are wrong each by itself."""
    matches = scene(1, count=44, noise_px=0.3, wrong=0.5)
    assert isinstance(estimate(matches), PoseFailure)
    pose = estimate(dataclasses.replace(matches, log10_dependence=0.0))
    assert isinstance(pose, RelativePose) and max(errors_deg(pose, TURN, SIDEWAYS)) < 2


def test_the_dependence_of_wrong_matches_is_added_to_log10_false_alarms():
    matches = scene(0, count=120)
    found = [
        estimate(dataclasses.replace(matches, log10_dependence=value)).log10_false_alarms for value in (0.0, 24.0, 36.0)
    ]
    np.testing.assert_allclose(np.diff(found), [24, 12], rtol=1e-9)


def test_points_of_images_must_keep_their_order_more_than_simulated_ones():
    """Points at random depths do not keep the order of their neighbours, as no visible surface does."""
    shift = np.array([1.2, 0, 0])
    pixels = see(np.random.default_rng(0), 300, np.eye(3), shift, depth=(1.2, 12.0))
    simulated = matches_of(*pixels)
    assert isinstance(estimate(simulated), RelativePose)
    assert isinstance(estimate(dataclasses.replace(simulated, from_images=True)), PoseFailure)


def test_the_bound_on_false_alarms_is_a_setting():
    matches = scene(0, count=120)
    found = estimate(matches).log10_false_alarms
    assert isinstance(estimate(matches, max_log10_false_alarms=found + 1e-6), RelativePose)
    answer = estimate(matches, max_log10_false_alarms=found - 1)
    assert isinstance(answer, PoseFailure) and 'pose.max_log10_false_alarms' in answer.reason


def plane_seen_twice(seed: int, shift, normal=(0.3, 0.2, 1.0), count: int = 400, noise_px: float = 0.1):
    """Return matches of a plane 3 m away from a camera that moves by `shift` without turning."""
    random = np.random.default_rng(seed)
    normal = np.array(normal) / np.linalg.norm(normal)
    rays = geometry.homogeneous(geometry.undistort_points(CAMERA, random.uniform((20, 20), (620, 460), (count, 2))))
    points = rays * (3 / (rays @ normal))[:, None]
    pixels = geometry.project(CAMERA, points), geometry.project(CAMERA, points + shift)
    return matches_of(*(p + random.normal(size=p.shape) * noise_px for p in pixels))


@pytest.mark.parametrize('estimator', ESTIMATORS)
def test_a_mirror_image_is_no_motion(estimator):
    """Horizontal lines stay horizontal lines, as a step to the side would keep them."""
    for seed in range(5):
        matches = plane_seen_twice(seed, np.zeros(3))
        mirrored = np.array(matches.keypoints1)
        mirrored[:, 0] = SIZE[0] - 1 - mirrored[:, 0]
        assert isinstance(estimate(matches_of(matches.keypoints0, mirrored), estimator=estimator), PoseFailure)


@pytest.mark.parametrize('estimator', ESTIMATORS)
def test_a_plane_with_two_motions_is_reported_as_ambiguous(estimator):
    """The truth is one of the two poses, and within what the covariance spans."""
    shift = np.array([0, 0, -0.3])
    for seed in range(5):
        pose = estimate(plane_seen_twice(seed, shift), estimator=estimator)
        assert pose.status is PoseStatus.AMBIGUOUS and not pose.has_translation
        both = [errors_deg(pose, np.eye(3), shift)]
        other = dataclasses.replace(pose, cam1_from_cam0=pose.other_cam1_from_cam0)
        both.append(errors_deg(other, np.eye(3), shift))
        assert max(min(both)) < 2
        assert max(max(both)) > 5
        assert squared_error_in_sigmas(pose, np.eye(3), shift) < 20.5  # 99.9 % of chi-square, 5


def test_a_given_length_scales_both_motions_of_a_plane():
    pose = estimate(plane_seen_twice(0, np.array([0, 0, -0.3]))).with_length(0.12, Scale.BASELINE)
    assert np.linalg.norm(pose.translation) == pytest.approx(0.12)
    assert np.linalg.norm(pose.other_cam1_from_cam0[:3, 3]) == pytest.approx(0.12)


def test_points_off_the_plane_decide_between_its_motions():
    shift = np.array([0, 0, -0.3])
    plane = plane_seen_twice(0, shift)
    pixels0, pixels1 = see(np.random.default_rng(1), 100, np.eye(3), shift, depth=(1.5, 2.5))
    matches = matches_of(np.vstack([plane.keypoints0, pixels0]), np.vstack([plane.keypoints1, pixels1]))
    pose = estimate(matches)
    assert pose.status is PoseStatus.OK
    assert max(errors_deg(pose, np.eye(3), shift)) < 1


@pytest.mark.parametrize('estimator', ESTIMATORS)
@pytest.mark.parametrize('side', [1, -1])
def test_small_steps_to_the_side_keep_their_sign(estimator, side):
    """All disparities stay below 2.5 px, so that no point is far from infinity."""
    near_camera = Camera([[285, 0, 319.5], [0, 285, 239.5], [0, 0, 1]], *SIZE)
    for seed in range(10):
        random = np.random.default_rng(seed)
        pixels0 = random.uniform(30, (610, 450), (2000, 2))
        disparity = 285 * 0.0154 / random.uniform(1.7, 2.3, 2000)
        pixels1 = pixels0 - side * np.column_stack([disparity, 0 * disparity])
        noisy = (p + random.normal(size=p.shape) * 0.1 for p in (pixels0, pixels1))
        pose = estimate(matches_of(*noisy), (near_camera, near_camera), estimator=estimator)
        assert not pose.has_translation or side * pose.translation[0] < -0.9


def test_a_pure_rotation_has_no_direction():
    statuses = [estimate(scene(seed, translation=NOWHERE)).status for seed in range(20)]
    assert set(statuses) == {PoseStatus.PURE_ROTATION}


@pytest.mark.parametrize('name', ['default', 'gcm'])
def test_images_of_different_rooms_have_no_pose(name):
    frames = [rendered_drive(seed=seed).frames(5)[0] for seed in range(3)]
    matcher = create_matcher(MatcherConfig(name=name))
    features = [matcher.extract(frame.image) for frame in frames]
    for i, j in ((0, 1), (1, 2), (2, 0)):
        matches = matcher.match(features[i], features[j])
        answer = estimate_relative_pose(matches, frames[i].camera, frames[j].camera, Config().pose)
        assert isinstance(answer, PoseFailure)


def test_a_photograph_and_its_mirror_image_have_no_pose():
    frame = rendered_drive(seed=3).frames(0)[0]
    mirrored = np.ascontiguousarray(frame.image[:, ::-1])
    matches = match_images(create_matcher(MatcherConfig()), frame.image, mirrored)
    answer = estimate_relative_pose(matches, frame.camera, frame.camera, Config().pose)
    assert isinstance(answer, PoseFailure)


def test_a_wall_matched_by_the_default_is_ambiguous_or_right():
    """The second image is the exact homography of a textured wall to which the camera comes nearer."""
    matrix = np.array([[525, 0, 319.5], [0, 525, 239.5], [0, 0, 1]])
    normal, shift = np.array([0.3, 0.2, 1]) / np.linalg.norm([0.3, 0.2, 1]), np.array([0, 0, -0.3])
    homography = matrix @ (np.eye(3) + np.outer(shift, normal) / 3) @ np.linalg.inv(matrix)
    random = np.random.default_rng(0)
    noises = (cv2.GaussianBlur(random.standard_normal((960, 1280)).astype(np.float32), (0, 0), s) for s in (1.2, 3, 8))
    wall = sum(noise / noise.std() for noise in noises)
    wall = np.clip(128 + 30 * wall, 0, 255).astype(np.uint8)
    move = homography @ np.array([[1, 0, -320], [0, 1, -240], [0, 0, 1.0]])
    image1 = cv2.warpPerspective(wall, move, SIZE, flags=cv2.INTER_CUBIC)
    matches = match_images(create_matcher(MatcherConfig()), wall[240:720, 320:960], image1)
    wall_camera = Camera(matrix, *SIZE)
    pose = estimate_relative_pose(matches, wall_camera, wall_camera, Config().pose)
    assert pose.status is PoseStatus.AMBIGUOUS
    poses = (pose.cam1_from_cam0, pose.other_cam1_from_cam0)
    directions = [np.degrees(geometry.angle_between(p[:3, 3], shift)) for p in poses]
    assert min(directions) < 2 < max(directions)
