"""Errors of a trajectory: absolute (ATE), relative (RPE) and drift as KITTI's odometry benchmark defines it.

Trajectories are (N, 4, 4) world_from_cam; row i of both has the same time. Their worlds need not be the same.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np

from loftr_ros.errors import InputError
from loftr_ros.geometry import nearest_rotation

KITTI_LENGTHS_M = tuple(range(100, 900, 100))
SHORT_PATH_SHARES = tuple(share / 10 for share in range(1, 9))
"""Lengths for a path that is too short for KITTI's, as shares of it."""
FIRST_FRAMES_STEP = 10
"""KITTI starts a segment at every tenth frame."""


class Alignment(NamedTuple):
    """truth = scale * rotation @ estimate + translation, of positions."""

    scale: float
    rotation: np.ndarray
    translation: np.ndarray

    def apply(self, poses: np.ndarray) -> np.ndarray:
        """Return poses (N, 4, 4) in the world of the truth."""
        aligned = np.tile(np.eye(4), (len(poses), 1, 1))
        aligned[:, :3, :3] = self.rotation @ poses[:, :3, :3]
        aligned[:, :3, 3] = self.scale * poses[:, :3, 3] @ self.rotation.T + self.translation
        return aligned


def align(estimated: np.ndarray, truth: np.ndarray, *, with_scale: bool) -> Alignment:
    """Return the alignment of positions (N, 3) with the least sum of squared distances (Umeyama, PAMI 1991).

    Positions on a line leave the turn about it open; any of them is returned.

    Raises:
        InputError: with_scale, and the estimated positions are all the same.
    """
    estimated, truth = np.asarray(estimated, np.float64), np.asarray(truth, np.float64)
    centres = estimated.mean(axis=0), truth.mean(axis=0)
    left, right = estimated - centres[0], truth - centres[1]
    u, singular, vt = np.linalg.svd(right.T @ left)
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    rotation = (u * sign) @ vt
    scale = 1.0
    if with_scale:
        spread = np.sum(left**2)
        if not spread > 0:
            raise InputError('a trajectory that does not move has no scale; align it without')
        scale = float(singular @ sign / spread)
    return Alignment(scale, rotation, centres[1] - scale * rotation @ centres[0])


@dataclasses.dataclass(frozen=True, eq=False)
class AbsoluteErrors:
    """Errors of each pose after an alignment of all positions, and one of all orientations.

    They are aligned apart because positions on a line, such as those of a straight road, leave the turn about it open.

    Args:
        alignment: of the positions.
        aligned: (N, 4, 4) the estimated poses in the world of the truth.
        position_m: (N,) distances of the positions.
        rotation_deg: (N,) angles between the orientations.
    """

    alignment: Alignment
    aligned: np.ndarray
    position_m: np.ndarray
    rotation_deg: np.ndarray

    @property
    def ate_m(self) -> float:
        """Root mean square of the position errors (Sturm et al., IROS 2012)."""
        return float(np.sqrt(np.mean(self.position_m**2)))


def absolute_errors(estimated: np.ndarray, truth: np.ndarray, *, with_scale: bool) -> AbsoluteErrors:
    """Return the absolute errors after the best alignment, with_scale for a camera without a unit of length."""
    estimated, truth = _checked(estimated, truth)
    alignment = align(estimated[:, :3, 3], truth[:, :3, 3], with_scale=with_scale)
    aligned = alignment.apply(estimated)
    # The rotation with the least sum of squared differences of the matrices (chordal mean).
    between = np.sum(truth[:, :3, :3] @ np.swapaxes(estimated[:, :3, :3], 1, 2), axis=0)
    aligned[:, :3, :3] = nearest_rotation(between) @ estimated[:, :3, :3]
    return AbsoluteErrors(
        alignment,
        aligned,
        np.linalg.norm(aligned[:, :3, 3] - truth[:, :3, 3], axis=1),
        _angles_deg(np.swapaxes(aligned[:, :3, :3], 1, 2) @ truth[:, :3, :3]),
    )


class RelativeErrors(NamedTuple):
    """Errors of motions (M,), one for each pair of frames."""

    translation_m: np.ndarray
    rotation_deg: np.ndarray


def relative_errors(
    estimated: np.ndarray, truth: np.ndarray, first: np.ndarray, last: np.ndarray, scale: float = 1.0
) -> RelativeErrors:
    """Return the errors of the motions from frames `first` (M,) to `last` (M,): RPE (Sturm et al., IROS 2012).

    Args:
        scale: of the estimated positions, for a camera without a unit of length.
    """
    estimated, truth = _checked(estimated, truth)
    estimated = estimated.copy()
    estimated[:, :3, 3] *= scale
    found, true = (np.linalg.inv(poses[first]) @ poses[last] for poses in (estimated, truth))
    errors = np.linalg.inv(found) @ true
    return RelativeErrors(np.linalg.norm(errors[:, :3, 3], axis=1), _angles_deg(errors[:, :3, :3]))


@dataclasses.dataclass(frozen=True)
class Drift:
    """Mean errors of motions over paths of given lengths, divided by the length.

    Args:
        lengths_m: of the paths that were used.
        num_segments: number of motions; without any both values are NaN.
        is_kitti: whether the lengths are those of KITTI, 100 to 800 m. Otherwise they are 10 to 80 % of the path, and
            the figures cannot be compared with those of KITTI.
    """

    translation_percent: float
    rotation_deg_per_m: float
    lengths_m: tuple[float, ...]
    num_segments: int
    is_kitti: bool


def drift(estimated: np.ndarray, truth: np.ndarray, scale: float = 1.0) -> Drift:
    """Return the drift as KITTI's development kit computes it; with shorter lengths where the path is shorter.

    Args:
        scale: of the estimated positions, for a camera without a unit of length.
    """
    estimated, truth = _checked(estimated, truth)
    distance = path_lengths(truth)
    lengths = [length for length in KITTI_LENGTHS_M if length <= distance[-1]]
    is_kitti, step = bool(lengths), FIRST_FRAMES_STEP
    if not is_kitti:
        lengths, step = [share * distance[-1] for share in SHORT_PATH_SHARES if distance[-1] > 0], 1
    first, last, length_of = [], [], []
    for start in range(0, len(truth), step):
        for length in lengths:
            end = int(np.searchsorted(distance, distance[start] + length))
            if end < len(truth):
                first.append(start)
                last.append(end)
                length_of.append(length)
    if not first:
        return Drift(np.nan, np.nan, (), 0, is_kitti)
    errors = relative_errors(estimated, truth, np.array(first), np.array(last), scale)
    return Drift(
        float(100 * np.mean(errors.translation_m / length_of)),
        float(np.mean(errors.rotation_deg / length_of)),
        tuple(sorted(set(length_of))),
        len(first),
        is_kitti,
    )


def path_lengths(poses: np.ndarray) -> np.ndarray:
    """Return the length of the path up to each pose, (N,)."""
    steps = np.linalg.norm(np.diff(np.asarray(poses)[:, :3, 3], axis=0), axis=1)
    return np.concatenate([[0.0], np.cumsum(steps)])


def _checked(estimated, truth) -> tuple[np.ndarray, np.ndarray]:
    estimated, truth = np.asarray(estimated, np.float64), np.asarray(truth, np.float64)
    if estimated.ndim != 3 or estimated.shape[1:] != (4, 4) or estimated.shape != truth.shape or not len(truth):
        raise InputError(
            f'two trajectories must both have shape (N, 4, 4), N > 0, got {estimated.shape} and {truth.shape}; select '
            'the frames that both have'
        )
    return estimated, truth


def _angles_deg(rotations: np.ndarray) -> np.ndarray:
    """Return the angles of rotations (N, 3, 3); by sine and cosine, because the cosine alone is inexact near 0."""
    antisymmetric = (rotations - np.swapaxes(rotations, 1, 2))[:, (2, 0, 1), (1, 2, 0)]
    sine = np.linalg.norm(antisymmetric, axis=1) / 2
    cosine = (np.trace(rotations, axis1=1, axis2=2) - 1) / 2
    return np.degrees(np.arctan2(sine, cosine))
