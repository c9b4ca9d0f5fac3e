"""Conversions between messages and the types of the package, on examples with known results."""

import time
import types

import numpy as np
import pytest

pytest.importorskip('sensor_msgs.msg', reason='sensor_msgs is not installed')
pytest.importorskip('loftr_ros.msg', reason='the package is not built with colcon')

from loftr_ros.camera import Camera
from loftr_ros.camera_messages import camera_from_info, extrinsics_from_infos
from loftr_ros.datatypes import (
    UNKNOWN_VARIANCE,
    Frame,
    Matches,
    PoseFailure,
    PoseStatus,
    RelativePose,
    Scale,
)
from loftr_ros.geometry import rotation_from_vector
from loftr_ros.messages import stamp_ns
from loftr_ros.ros import conversions

pytestmark = pytest.mark.ros
MATRIX = np.array([[500.0, 0, 320.5], [0, 510.0, 239.5], [0, 0, 1]])


# Stamps


@pytest.mark.parametrize('nanoseconds', [0, 1, 999_999_999, 1_000_000_000, 1_700_000_000_123_456_789])
def test_stamps_keep_every_nanosecond(nanoseconds):
    header = conversions.header(nanoseconds, 'cam')
    assert stamp_ns(header) == nanoseconds
    assert header.frame_id == 'cam'


# Cameras


@pytest.mark.parametrize('distortion', [(), (-0.3, 0.1, 0.001, -0.002)])
def test_a_camera_comes_back_from_its_camera_info(distortion):
    camera = Camera(MATRIX, 640, 480, distortion)
    info = conversions.info_from_camera(camera, conversions.header(7, 'cam'))
    for rectified in (False, True):
        back = camera_from_info(info, rectified=rectified)
        np.testing.assert_array_equal(back.matrix, MATRIX)
        assert (back.width, back.height) == (640, 480)
    assert camera_from_info(info, rectified=False).distortion.tolist() == list(distortion)


@pytest.mark.parametrize('axis', [0, 1])
def test_the_baseline_is_the_one_that_was_written(axis):
    camera = Camera(MATRIX, 640, 480)
    left, right = (
        conversions.info_from_camera(camera, conversions.header(7, 'cam'), baseline_m=b, axis=axis) for b in (0, 0.12)
    )
    assert right.p[3 + 4 * axis] == pytest.approx(-0.12 * MATRIX[axis, axis])
    extrinsics, reason = extrinsics_from_infos(left, right, rectified=True)
    expected = np.eye(4)
    expected[axis, 3] = -0.12
    assert reason == '' and extrinsics == pytest.approx(expected)


def test_rectification_and_projection_of_a_calibration_are_published():
    rectification = np.array([[0.8, 0, 0.6], [0, 1, 0], [-0.6, 0, 0.8]])
    projection = np.array([[240, 0, 160, -24], [0, 240, 120, 0], [0, 0, 1, 0]])
    camera = Camera(MATRIX, 640, 480, rectification=rectification, projection=projection)
    info = conversions.info_from_camera(camera, conversions.header(7, 'cam'), baseline_m=5.0)
    np.testing.assert_array_equal(info.r, rectification.ravel())
    np.testing.assert_array_equal(info.p, projection.ravel())
    np.testing.assert_array_equal(info.k, MATRIX.ravel())


# Matches and poses


def pair(count=3):
    rng = np.random.default_rng(count)
    matches = Matches(
        rng.random((count, 2)) * 600,
        rng.random((count, 2)) * 400,
        rng.random(count),
        np.full(count, np.nan),
        np.arange(count),
    )
    return types.SimpleNamespace(
        matches=matches,
        inliers=np.arange(count) % 2 == 0,
        track_ids=np.arange(count) + (7 << 32),
        track_ids1=np.arange(count)[::-1] + (9 << 32),
        id0=7,
        id1=9,
        match_s=0.25,
        frame0=Frame(np.zeros((480, 640), np.uint8), None),
        frame1=Frame(np.zeros((300, 400, 3), np.uint8), None),
    )


HEADERS = (conversions.header(2_000_000_001, 'cam1'), conversions.header(1_000_000_000, 'cam0'))


@pytest.mark.parametrize('count', [0, 1, 3, 2000])
def test_matches_come_back_from_their_message(count):
    result = pair(count)
    msg = conversions.matches_to_msg(result, *HEADERS, matcher='gcm', age_s=0.5)
    back = conversions.matches_from_msg(msg)
    for name in ('keypoints0', 'keypoints1', 'confidence', 'sigma_px'):
        np.testing.assert_array_equal(getattr(back, name), getattr(result.matches, name))
    np.testing.assert_array_equal(back.point_id0, result.track_ids)
    np.testing.assert_array_equal(back.point_id1, result.track_ids1)
    np.testing.assert_array_equal(conversions.inliers_from_msg(msg), result.inliers)


def test_a_message_of_matches_says_whose_they_are():
    msg = conversions.matches_to_msg(pair(), *HEADERS, matcher='gcm', age_s=0.5)
    assert (msg.header.frame_id, msg.header0.frame_id) == ('cam1', 'cam0')
    assert (msg.id0, msg.id1) == (7, 9)
    assert (msg.width0, msg.height0, msg.width1, msg.height1) == (640, 480, 400, 300)
    assert (msg.matcher, msg.match_s, msg.age_s) == ('gcm', 0.25, 0.5)
    assert list(msg.points0[:2]) == pair().matches.keypoints0[0].tolist()


def test_many_matches_are_written_without_a_loop():
    result = pair(20_000)
    times = []
    for _ in range(5):
        started = time.perf_counter()
        conversions.matches_to_msg(result, *HEADERS)
        times.append(time.perf_counter() - started)
    # Below 1 ms on one core; a Python loop over 40,000 coordinates takes more than 10 ms anywhere.
    assert min(times) < 0.005


@pytest.mark.parametrize('vector', [(0, 0, 0), (0.3, -0.2, 0.1), (3.1, 0, 0), (0, 0, -1.5)])
def test_a_pose_comes_back_from_its_message(vector):
    cam1_from_cam0 = np.eye(4)
    cam1_from_cam0[:3, :3] = rotation_from_vector(vector)
    cam1_from_cam0[:3, 3] = 0.6, 0.0, -0.8
    covariance = np.arange(36.0).reshape(6, 6)
    pose = RelativePose(
        cam1_from_cam0, covariance, [True, True, False], 1.5, 0.25, Scale.BASELINE, PoseStatus.LOW_PARALLAX
    )
    msg = conversions.relative_pose_to_msg(pose, *HEADERS, 7, 9)
    assert (msg.id0, msg.id1, msg.header.frame_id, msg.header0.frame_id) == (7, 9, 'cam1', 'cam0')
    assert (msg.num_matches, msg.num_inliers) == (3, 2)
    back = conversions.relative_pose_from_msg(msg)
    np.testing.assert_allclose(back.cam1_from_cam0, cam1_from_cam0, atol=1e-15)
    np.testing.assert_array_equal(back.covariance, covariance)
    assert (back.scale, back.status, back.num_matches, back.num_inliers) == (pose.scale, pose.status, 3, 2)
    assert (back.median_parallax_deg, back.epipolar_rmse_px) == (1.5, 0.25)


def test_a_quarter_turn_to_the_left_about_z_has_the_quaternion_of_the_books():
    cam1_from_cam0 = np.eye(4)
    cam1_from_cam0[:3, :3] = [[0, -1, 0], [1, 0, 0], [0, 0, 1]]
    pose = RelativePose(cam1_from_cam0, np.eye(6), [True], 1.0, 1.0)
    rotation = conversions.relative_pose_to_msg(pose, *HEADERS, 0, 1).transform.rotation
    np.testing.assert_allclose((rotation.x, rotation.y, rotation.z, rotation.w), (0, 0, 0.5**0.5, 0.5**0.5), atol=1e-15)


def test_a_failure_is_not_written_as_an_identity():
    failure = PoseFailure(PoseStatus.TOO_FEW_INLIERS, 'only 4 of 30 agree', 30, 4)
    msg = conversions.relative_pose_to_msg(failure, *HEADERS, 7, 9)
    transform = msg.transform
    values = [transform.translation.x, transform.translation.z, transform.rotation.x, transform.rotation.w]
    assert np.isnan(values).all()
    np.testing.assert_array_equal(np.reshape(msg.covariance, (6, 6)), np.eye(6) * UNKNOWN_VARIANCE)
    assert np.isnan(msg.median_parallax_deg) and np.isnan(msg.epipolar_rmse_px)
    back = conversions.relative_pose_from_msg(msg)
    assert isinstance(back, PoseFailure)
    assert (back.status, back.num_matches, back.num_inliers) == (PoseStatus.TOO_FEW_INLIERS, 30, 4)


def test_the_constants_of_the_message_are_those_of_the_types():
    message = conversions.RelativePoseMsg
    assert {s.name: s.value for s in PoseStatus} == {s.name: getattr(message, f'STATUS_{s.name}') for s in PoseStatus}
    assert {s.name: s.value for s in Scale} == {s.name: getattr(message, f'SCALE_{s.name}') for s in Scale}
    assert message.UNKNOWN_VARIANCE == UNKNOWN_VARIANCE
