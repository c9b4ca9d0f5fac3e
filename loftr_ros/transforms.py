"""Rigid transforms: with a covariance, their inverse and product; and as text."""

from __future__ import annotations

import dataclasses

import numpy as np

from loftr_ros import geometry
from loftr_ros.errors import ConfigError
from loftr_ros.geometry import invert_transform, skew

FROM_TF = 'tf'
"""Text in place of a pose which says that TF has it."""


@dataclasses.dataclass(frozen=True, eq=False)
class UncertainTransform:
    """A rigid transform `a_from_b` and the covariance of its error.

    Args:
        matrix: (4, 4).
        covariance: (6, 6) of (x, y, z, rotX, rotY, rotZ) about the fixed axes of frame a: R_true = exp(rot) @ R,
            t_true = t + (x, y, z). This is the covariance of ROS messages.
    """

    matrix: np.ndarray
    covariance: np.ndarray

    @classmethod
    def exact(cls, matrix: np.ndarray) -> UncertainTransform:
        """Return a transform without error."""
        return cls(np.asarray(matrix, np.float64), np.zeros((6, 6)))

    @property
    def rotation(self) -> np.ndarray:
        return self.matrix[:3, :3]

    @property
    def translation(self) -> np.ndarray:
        return self.matrix[:3, 3]

    def inverse(self) -> UncertainTransform:
        """Return b_from_a."""
        back = self.rotation.T
        jacobian = np.zeros((6, 6))
        jacobian[:3, :3] = jacobian[3:, 3:] = -back
        jacobian[:3, 3:] = -back @ skew(self.translation)
        return UncertainTransform(invert_transform(self.matrix), _symmetric(jacobian @ self.covariance @ jacobian.T))

    def scaled(self, factor: float) -> UncertainTransform:
        """Return the transform in another unit of length."""
        unit = np.diag([factor] * 3 + [1.0] * 3)
        matrix = self.matrix.copy()
        matrix[:3, 3] *= factor
        return UncertainTransform(matrix, unit @ self.covariance @ unit)

    def with_relative_error(self, sigma: float) -> UncertainTransform:
        """Return the transform with a further error of the length of its translation, relative."""
        covariance = self.covariance.copy()
        covariance[:3, :3] += sigma**2 * np.outer(self.translation, self.translation)
        return UncertainTransform(self.matrix, covariance)

    def __matmul__(self, other: UncertainTransform) -> UncertainTransform:
        """Return a_from_c of a_from_b and b_from_c whose errors are independent."""
        lever = -skew(self.rotation @ other.translation)
        own, others = np.eye(6), np.zeros((6, 6))
        own[:3, 3:] = lever
        others[:3, :3] = others[3:, 3:] = self.rotation
        covariance = own @ self.covariance @ own.T + others @ other.covariance @ others.T
        return UncertainTransform(self.matrix @ other.matrix, _symmetric(covariance))


def _symmetric(matrix: np.ndarray) -> np.ndarray:
    return (matrix + matrix.T) / 2


def parse_pose(text: str, alternatives: tuple[str, ...] = ()) -> np.ndarray:
    """Return the transform (4, 4) of 'x y z roll pitch yaw' [m, rad] or 'x y z qx qy qz qw'.

    Numbers are as the arguments of tf2_ros static_transform_publisher: R = Rz(yaw) Ry(pitch) Rx(roll).

    Args:
        alternatives: words that the caller takes as well, for the error.

    Raises:
        ConfigError: the text is something else.
    """
    try:
        values = [float(word) for word in text.replace(',', ' ').split()]
    except ValueError:
        values = []
    if len(values) not in (6, 7) or not np.all(np.isfinite(values)):
        known = ['"x y z roll pitch yaw"', '"x y z qx qy qz qw"', *(f'"{word}"' for word in alternatives)]
        raise ConfigError(f'a pose is {", ".join(known[:-1])} or {known[-1]}, got {text!r}')
    if len(values) == 6:
        roll, pitch, yaw = np.diag(values[3:])
        turns = [geometry.rotation_from_vector(vector) for vector in (yaw, pitch, roll)]
        return geometry.transform(turns[0] @ turns[1] @ turns[2], values[:3])
    length = np.linalg.norm(values[3:])
    if abs(length - 1) > 0.01:
        raise ConfigError(f'the quaternion qx qy qz qw of a pose needs the length 1, got {length:g} in {text!r}')
    return geometry.transform(geometry.matrix_from_quaternion(values[3:]), values[:3])
