"""Motion of the robot from that of its camera: poses in text, the trajectory and velocity of the base, covariances."""

import numpy as np
import pytest

from loftr_ros.datatypes import UNKNOWN_VARIANCE, Frame, Scale
from loftr_ros.errors import ConfigError
from loftr_ros.geometry import invert_transform, rotation_from_vector, transform, vector_from_rotation
from loftr_ros.odometry.base_frame import odom_from_base, parse_mounting, velocity_of_base
from loftr_ros.odometry.motion import Motion, MotionStatus, Velocity
from loftr_ros.odometry.tracks import Tracks
from loftr_ros.transforms import UncertainTransform, parse_pose

IMAGE = np.zeros((8, 8), np.uint8)
BASE_FROM_CAM = parse_pose('0.4 -0.1 0.7 -1.9 0.05 -1.5')


def motion(origin_from_cam, velocity=None, scale=Scale.STEREO):
    frame = Frame(IMAGE, None, 1)
    return Motion(
        frame, 1, 0, MotionStatus.OK, origin_from_cam, velocity, scale, None, Tracks.empty(), False, False, 0.0
    )


def spread(rng, scales):
    factor = rng.normal(size=(6, 6)) * 0.3 + np.diag(np.ones(6))
    return np.diag(scales) @ factor @ factor.T @ np.diag(scales)


def test_forward_looks_along_x_of_the_base():
    base_from_cam = parse_mounting('forward')
    np.testing.assert_allclose(base_from_cam[:3, 2], [1, 0, 0])  # the optical axis
    np.testing.assert_allclose(base_from_cam[:3, 0], [0, -1, 0])  # right of the image
    np.testing.assert_allclose(base_from_cam[:3, 3], 0)


@pytest.mark.parametrize('text', ['1 2 3 0.1 0.2 0.3', '1, 2, 3, 0.1, 0.2, 0.3', '1 2 3 {} {} {} {}'])
def test_a_pose_is_read_as_static_transform_publisher_does(text):
    # tf2::Quaternion::setRPY(0.1, 0.2, 0.3).
    quaternion = (0.03427080, 0.10602051, 0.14357218, 0.98334744)
    pose = parse_pose(text.format(*quaternion))
    np.testing.assert_allclose(pose[:3, 3], [1, 2, 3])
    c, s = np.cos([0.1, 0.2, 0.3]), np.sin([0.1, 0.2, 0.3])
    yaw = np.array([[c[2], -s[2], 0], [s[2], c[2], 0], [0, 0, 1]])
    pitch = np.array([[c[1], 0, s[1]], [0, 1, 0], [-s[1], 0, c[1]]])
    roll = np.array([[1, 0, 0], [0, c[0], -s[0]], [0, s[0], c[0]]])
    np.testing.assert_allclose(pose[:3, :3], yaw @ pitch @ roll, atol=1e-6)


@pytest.mark.parametrize('text', ['1 2 3', 'x y z 0 0 0', '1 2 3 0 0 nan', '0 0 0 0 0 0 0', 'Forward', '0 0 0 1 1 1 1'])
def test_a_text_that_is_no_pose_is_refused(text):
    with pytest.raises(ConfigError, match='pose'):
        parse_pose(text)
    with pytest.raises(ConfigError, match='pose'):
        parse_mounting(text)


def test_the_base_starts_at_the_origin_and_moves_with_the_camera():
    start = odom_from_base(motion(UncertainTransform.exact(np.eye(4))), BASE_FROM_CAM)
    np.testing.assert_allclose(start.matrix, np.eye(4), atol=1e-12)
    # A robot that drives 2 m forward and turns left by 90 degrees.
    truth = transform(rotation_from_vector((0, 0, np.pi / 2)), (2, 0, 0))
    camera = invert_transform(BASE_FROM_CAM) @ truth @ BASE_FROM_CAM
    found = odom_from_base(motion(UncertainTransform.exact(camera)), BASE_FROM_CAM)
    np.testing.assert_allclose(found.matrix, truth, atol=1e-12)


def test_the_covariance_of_the_base_is_that_of_its_errors():
    rng = np.random.default_rng(0)
    covariance = spread(rng, [0.02] * 3 + [0.01] * 3)
    camera = UncertainTransform(transform(rotation_from_vector((0.2, -0.4, 0.1)), (1.0, 0.3, 4.0)), covariance)
    estimate = odom_from_base(motion(camera), BASE_FROM_CAM)
    errors = []
    for step in rng.multivariate_normal(np.zeros(6), covariance, 20_000):
        true_camera = transform(rotation_from_vector(step[3:]) @ camera.rotation, camera.translation + step[:3])
        true = BASE_FROM_CAM @ true_camera @ invert_transform(BASE_FROM_CAM)
        turn = vector_from_rotation(true[:3, :3] @ estimate.rotation.T)
        errors.append([*(true[:3, 3] - estimate.translation), *turn])
    unit = np.sqrt(np.diag(estimate.covariance))
    units = np.outer(unit, unit)
    np.testing.assert_allclose(np.cov(np.transpose(errors)) / units, estimate.covariance / units, atol=0.05)


def test_the_velocity_of_the_base_is_that_of_its_origin_in_its_own_axes():
    twist = np.array([0.3, -0.1, 0.8, 0.05, 0.6, -0.2])  # of the camera, in its own axes
    moving = motion(UncertainTransform.exact(np.eye(4)), Velocity(twist, np.eye(6)))
    found = velocity_of_base(moving, BASE_FROM_CAM)
    step_s = 1e-6
    step = transform(rotation_from_vector(twist[3:] * step_s), twist[:3] * step_s)  # cam_from_cam_later
    base = BASE_FROM_CAM @ step @ invert_transform(BASE_FROM_CAM)
    measured = [*(base[:3, 3] / step_s), *(vector_from_rotation(base[:3, :3]) / step_s)]
    np.testing.assert_allclose(found.twist, measured, atol=1e-5)


def test_the_covariance_of_the_velocity_is_carried_along():
    covariance = spread(np.random.default_rng(1), [0.1] * 3 + [0.05] * 3)
    origin = UncertainTransform.exact(np.eye(4))

    def twist_of_base(twist):
        return velocity_of_base(motion(origin, Velocity(twist, covariance)), BASE_FROM_CAM).twist

    jacobian = np.transpose([twist_of_base(column) for column in np.eye(6)])
    found = velocity_of_base(motion(origin, Velocity(np.ones(6), covariance)), BASE_FROM_CAM).covariance
    np.testing.assert_allclose(found, jacobian @ covariance @ jacobian.T, atol=1e-12)


def test_a_single_camera_does_not_claim_metres():
    pose = UncertainTransform(np.eye(4), 1e-4 * np.eye(6))
    single = motion(pose, Velocity(np.ones(6), 1e-4 * np.eye(6)), Scale.UP_TO_SCALE)
    for covariance in (
        odom_from_base(single, BASE_FROM_CAM).covariance,
        velocity_of_base(single, BASE_FROM_CAM).covariance,
    ):
        np.testing.assert_allclose(covariance[:3, :3], UNKNOWN_VARIANCE * np.eye(3))
        np.testing.assert_allclose(covariance[3:, :3], 0)
        np.testing.assert_allclose(covariance[3:, 3:], 1e-4 * np.eye(3), atol=1e-12)


def test_an_unknown_velocity_stays_unknown():
    assert velocity_of_base(motion(UncertainTransform.exact(np.eye(4))), BASE_FROM_CAM) is None
