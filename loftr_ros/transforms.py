"""Rigid transforms with a covariance: inverse and product."""

from __future__ import annotations

import dataclasses

import numpy as np

from loftr_ros.geometry import invert_transform, skew


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
