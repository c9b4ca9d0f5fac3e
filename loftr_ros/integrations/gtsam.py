"""Motions as factors of GTSAM: `BetweenFactorPose3` where their length is known, otherwise `EssentialMatrixConstraint`.

Poses of the graph are world_from_cam of optical frames, or of any frame that the caller uses throughout. GTSAM has the
rotation first, and its errors are in the axes of the second pose; here covariances are those of ROS.

Loop closures may be wrong: optimise with `gtsam.GncLMOptimizer`, which finds out which (Yang et al., RA-L 2020). Robust
noise models alone also reject right ones after a long drift.
"""

from __future__ import annotations

import numpy as np

from loftr_ros.datatypes import UNKNOWN_VARIANCE, RelativePose, Scale
from loftr_ros.errors import InputError, MissingDependencyError
from loftr_ros.geometry import invert_transform, rotation_from_vector, transform
from loftr_ros.transforms import UncertainTransform

try:
    import gtsam
except ImportError as error:
    raise MissingDependencyError('gtsam is not installed: pip install gtsam') from error

STEP = 1e-6
"""Of numeric derivatives."""


def to_pose3(matrix: np.ndarray) -> gtsam.Pose3:
    """Return a (4, 4) transform as a Pose3."""
    return gtsam.Pose3(np.asarray(matrix, np.float64))


def to_noise(a_from_b: UncertainTransform) -> gtsam.noiseModel.Base:
    """Return the noise of a Pose3 from the covariance of ROS.

    R_true = exp(rot) R and t_true = t + d in the axes of a become R exp(R^T rot) and t + R (R^T d) in those of b.
    """
    back = a_from_b.rotation.T
    jacobian = np.zeros((6, 6))
    jacobian[:3, 3:] = jacobian[3:, :3] = back  # and the rotation goes first
    return _model(jacobian @ a_from_b.covariance @ jacobian.T)


def between_factor(key_a: int, key_b: int, a_from_b: UncertainTransform) -> gtsam.BetweenFactorPose3:
    """Return the factor between two poses whose relative pose is known in full."""
    return gtsam.BetweenFactorPose3(key_a, key_b, to_pose3(a_from_b.matrix), to_noise(a_from_b))


def pair_factor(key0: int, key1: int, pose: RelativePose):
    """Return the factor between the poses of the cameras of two matched images.

    A pose of known length gives a BetweenFactorPose3, one up to scale an EssentialMatrixConstraint with 5 degrees of
    freedom (rotation, then direction).

    Raises:
        InputError: its translation is unknown (PURE_ROTATION, STATIC) or one of two (AMBIGUOUS).
    """
    if pose.other_cam1_from_cam0 is not None:
        raise InputError(f'a pose with the status {pose.status.name} is one of two motions and gives no factor')
    if pose.scale is not Scale.UP_TO_SCALE:
        cam0_from_cam1 = UncertainTransform(pose.cam1_from_cam0, pose.covariance).inverse()
        return between_factor(key0, key1, cam0_from_cam1)
    if not pose.has_translation or np.linalg.eigvalsh(pose.covariance[:3, :3])[1] >= UNKNOWN_VARIANCE / 2:
        raise InputError(f'a pose with the status {pose.status.name} has no direction and gives no factor')
    return gtsam.EssentialMatrixConstraint(key0, key1, _essential(pose.cam1_from_cam0), _essential_noise(pose))


def _essential(cam1_from_cam0: np.ndarray) -> gtsam.EssentialMatrix:
    cam0_from_cam1 = invert_transform(cam1_from_cam0)
    return gtsam.EssentialMatrix(gtsam.Rot3(cam0_from_cam1[:3, :3]), gtsam.Unit3(cam0_from_cam1[:3, 3]))


def _essential_noise(pose: RelativePose) -> gtsam.noiseModel.Base:
    """Return the noise with 5 degrees of freedom, by numeric derivatives: the length of the translation drops out."""
    measured = _essential(pose.cam1_from_cam0)
    across = np.eye(6)
    across[:3, :3] -= np.outer(pose.translation, pose.translation) / np.sum(pose.translation**2)
    columns = []
    for step in STEP * np.eye(6):
        rotation = rotation_from_vector(step[3:]) @ pose.rotation
        columns.append(measured.localCoordinates(_essential(transform(rotation, pose.translation + step[:3]))) / STEP)
    jacobian = np.transpose(columns) @ across
    return _model(jacobian @ (across @ pose.covariance @ across.T) @ jacobian.T)


def _model(covariance: np.ndarray) -> gtsam.noiseModel.Base:
    return gtsam.noiseModel.Gaussian.Covariance((covariance + covariance.T) / 2)
