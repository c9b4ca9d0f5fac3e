"""Factors of GTSAM from motions: conventions, covariances, and a loop that closes."""

import numpy as np
import pytest

gtsam = pytest.importorskip('gtsam')

from loftr_ros.datatypes import UNKNOWN_VARIANCE, PoseStatus, RelativePose, Scale  # noqa: E402
from loftr_ros.errors import InputError  # noqa: E402
from loftr_ros.geometry import invert_transform, rotation_from_vector, transform  # noqa: E402
from loftr_ros.integrations.gtsam import between_factor, pair_factor, to_noise, to_pose3  # noqa: E402
from loftr_ros.transforms import UncertainTransform  # noqa: E402

WORLD_FROM_A = transform(rotation_from_vector((0.3, -0.2, 0.9)), (1.0, 2.0, -0.5))
A_FROM_B = transform(rotation_from_vector((-0.1, 0.5, 0.2)), (0.4, -0.3, 1.2))


def covariance(seed=0, scales=(0.02, 0.01, 0.03, 0.004, 0.006, 0.002)):
    rng = np.random.default_rng(seed)
    factor = np.diag(scales) @ (np.eye(6) + 0.3 * rng.normal(size=(6, 6)))
    return factor @ factor.T


def values(world_from_a, world_from_b):
    found = gtsam.Values()
    found.insert(0, to_pose3(world_from_a))
    found.insert(1, to_pose3(world_from_b))
    return found


def relative(scale, status=PoseStatus.OK, matrix=None, spread=None):
    """Return the RelativePose of camera a to camera b."""
    matrix = invert_transform(A_FROM_B) if matrix is None else matrix
    spread = covariance() if spread is None else spread
    return RelativePose(matrix, spread, np.ones(30, bool), 2.0, 0.3, scale, status, -20.0)


def test_true_poses_have_no_error():
    right = values(WORLD_FROM_A, WORLD_FROM_A @ A_FROM_B)
    assert between_factor(0, 1, UncertainTransform(A_FROM_B, covariance())).error(right) < 1e-18
    assert pair_factor(0, 1, relative(Scale.STEREO)).error(right) < 1e-18
    wrong = values(WORLD_FROM_A, WORLD_FROM_A @ invert_transform(A_FROM_B))
    assert pair_factor(0, 1, relative(Scale.STEREO)).error(wrong) > 100


def test_errors_are_weighted_by_the_covariance():
    """The mean of twice the error over samples is the number of degrees of freedom."""
    measured = UncertainTransform(A_FROM_B, covariance())
    factor = between_factor(0, 1, measured)
    rng = np.random.default_rng(1)
    found = []
    for step in rng.multivariate_normal(np.zeros(6), measured.covariance, 3000):
        true = transform(rotation_from_vector(step[3:]) @ measured.rotation, measured.translation + step[:3])
        found.append(2 * factor.error(values(WORLD_FROM_A, WORLD_FROM_A @ true)))
    assert np.mean(found) == pytest.approx(6, rel=0.05)


def up_to_scale():
    """Return a pose with a translation of length 1 and the covariance that has 5 degrees of freedom."""
    matrix = invert_transform(A_FROM_B)
    direction = matrix[:3, 3] / np.linalg.norm(matrix[:3, 3])
    matrix[:3, 3] = direction
    across = np.eye(6)
    across[:3, :3] -= np.outer(direction, direction)
    spread = across @ covariance() @ across
    spread[:3, :3] += UNKNOWN_VARIANCE * np.outer(direction, direction)
    return relative(Scale.UP_TO_SCALE, matrix=matrix, spread=spread), across


def test_a_pose_up_to_scale_holds_five_degrees_of_freedom_at_any_length():
    pose, across = up_to_scale()
    factor = pair_factor(0, 1, pose)
    for length in (0.1, 1.0, 30.0):
        longer = A_FROM_B.copy()
        longer[:3, 3] *= length
        assert factor.error(values(WORLD_FROM_A, WORLD_FROM_A @ longer)) < 1e-12
    rng = np.random.default_rng(2)
    found = []
    for step in rng.multivariate_normal(np.zeros(6), across @ covariance() @ across, 3000):
        true = transform(rotation_from_vector(step[3:]) @ pose.rotation, pose.translation + step[:3])
        found.append(2 * factor.error(values(WORLD_FROM_A, WORLD_FROM_A @ invert_transform(true))))
    assert np.mean(found) == pytest.approx(5, rel=0.05)


def test_a_pose_without_a_direction_gives_no_factor():
    still = transform(rotation_from_vector((0, 0.1, 0)), np.zeros(3))
    spread = covariance()
    spread[:3] = spread[:, :3] = 0
    spread[:3, :3] = UNKNOWN_VARIANCE * np.eye(3)
    pose = relative(Scale.UP_TO_SCALE, PoseStatus.PURE_ROTATION, still, spread)
    with pytest.raises(InputError, match='PURE_ROTATION has no direction'):
        pair_factor(0, 1, pose)


def test_a_loop_closure_shrinks_the_drift_and_a_wrong_one_is_found():
    rng = np.random.default_rng(3)
    count, noise = 40, covariance(scales=[0.01] * 3 + [0.005] * 3)
    step = transform(rotation_from_vector((0, 2 * np.pi / count, 0)), (0, 0, 0.3))
    truth = [np.eye(4)]
    for _ in range(count - 1):
        truth.append(truth[-1] @ step)
    graph, start = gtsam.NonlinearFactorGraph(), gtsam.Values()
    graph.add(gtsam.PriorFactorPose3(0, gtsam.Pose3(), gtsam.noiseModel.Isotropic.Sigma(6, 1e-6)))
    pose = np.eye(4)
    start.insert(0, to_pose3(pose))
    for index in range(1, count):
        error = rng.multivariate_normal(np.zeros(6), noise)
        measured = transform(rotation_from_vector(error[3:]) @ step[:3, :3], step[:3, 3] + error[:3])
        graph.add(between_factor(index - 1, index, UncertainTransform(measured, noise)))
        pose = pose @ measured
        start.insert(index, to_pose3(pose))

    def end_error(result):
        return np.linalg.norm(result.atPose3(count - 1).translation() - truth[-1][:3, 3])

    for last, first in ((count - 1, 0), (count - 2, 1), (count - 3, 2), (count - 1, 3)):
        last_from_first = UncertainTransform(invert_transform(truth[last]) @ truth[first], noise)
        graph.add(between_factor(last, first, last_from_first))
    closed = gtsam.LevenbergMarquardtOptimizer(graph, start).optimize()
    assert end_error(closed) < 0.2 * end_error(start)
    graph.add(between_factor(5, 25, UncertainTransform(np.eye(4), noise)))
    parameters = gtsam.GncLMParams()
    parameters.setKnownInliers(list(range(count)))
    assert end_error(gtsam.GncLMOptimizer(graph, start, parameters).optimize()) < 0.2 * end_error(start)


def test_the_noise_has_the_rotation_first():
    wide_turn = np.diag([1e-6] * 3 + [1.0] * 3)
    found = to_noise(UncertainTransform(np.eye(4), wide_turn)).covariance()
    np.testing.assert_allclose(np.diag(found), [1] * 3 + [1e-6] * 3)
