"""How well the matches of a pair of frames agree with the true motion, and the pose that they give."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from loftr_ros import geometry
from loftr_ros.camera import Camera
from loftr_ros.config import PoseConfig
from loftr_ros.datasets.sequence import Sequence
from loftr_ros.datatypes import Frame, Matches, PoseFailure, RelativePose
from loftr_ros.errors import InputError
from loftr_ros.evaluation.metrics import (
    count_correct,
    direction_error_deg,
    error_auc,
    pose_error_deg,
    rotation_error_deg,
)
from loftr_ros.pose import estimate_relative_pose

CORRECT_PX = 2.0
"""Sampson error under the true pose up to which a match counts as correct."""

AUC_DEG = (5, 10, 20)


class PairScore(NamedTuple):
    """One pair of frames; errors are infinite without a pose."""

    rotation_deg: float
    direction_deg: float
    pose_deg: float  # the larger of both, the sign of the translation forgiven
    num_inliers: int
    num_correct: int
    num_matches: int


class Summary(NamedTuple):
    """Many pairs: areas under the curve of the pose error, medians of the rest, and pairs without a pose."""

    auc: np.ndarray  # (3,) up to AUC_DEG
    rotation_deg: float
    direction_deg: float
    num_inliers: float
    num_correct: float
    num_matches: float
    num_failures: int


def pairs(sequence: Sequence, step: int) -> Iterator[tuple[str, Frame, Frame, np.ndarray]]:
    """Yield `pair_at` for all pairs; the errors are those of `count_pairs`."""
    for index in range(count_pairs(sequence, step)):
        yield pair_at(sequence, step, index)


def count_pairs(sequence: Sequence, step: int) -> int:
    """Return the number of pairs of the frames i and i + step; step 0: left and right.

    Raises:
        InputError: the sequence has no true pose, camera, or second camera, or fewer frames than that.
    """
    truth, what = (sequence.cam1_from_cam0, 'extrinsics') if step == 0 else (sequence.world_from_cam0, 'true poses')
    if truth is None or sequence.camera0 is None or (step == 0 and sequence.camera1 is None):
        raise InputError(
            f'{sequence.name} has no {what} or no calibration; evaluation needs both: use KITTI odometry with poses, '
            'EuRoC, TartanAir, TUM RGB-D, ScanNet, a COLMAP model, or the output of `loftr_ros demo`'
        )
    if len(sequence) <= step:
        raise InputError(f'{sequence.name} has {len(sequence)} frames, needs more than {step}; take a smaller step')
    return -(-(len(sequence) - step) // max(step, 1))


def pair_at(sequence: Sequence, step: int, number: int) -> tuple[str, Frame, Frame, np.ndarray]:
    """Return name, frames and true cam1_from_cam0 (4, 4) of a pair, 0 .. `count_pairs` - 1."""
    if step == 0:
        return str(number), *sequence.frames(number), sequence.cam1_from_cam0
    first, second = number * step, (number + 1) * step
    frame0, frame1 = (sequence.frames(index)[0] for index in (first, second))
    truth = geometry.invert_transform(sequence.world_from_cam0[second]) @ sequence.world_from_cam0[first]
    return f'{first}-{second}', frame0, frame1, truth


def score_pair(
    matches: Matches,
    camera0: Camera,
    camera1: Camera,
    truth: np.ndarray,
    config: PoseConfig,
    pose: RelativePose | PoseFailure | None = None,
) -> PairScore:
    """Return the score of matches against the true cam1_from_cam0 (4, 4).

    Args:
        pose: of the matches; None: it is estimated here.
    """
    errors = geometry.epipolar_error_px(truth, matches.keypoints0, matches.keypoints1, camera0, camera1)
    correct = count_correct(errors, CORRECT_PX)
    if pose is None:
        pose = estimate_relative_pose(matches, camera0, camera1, config)
    if isinstance(pose, PoseFailure):
        return PairScore(np.inf, np.inf, np.inf, pose.num_inliers, correct, len(matches))
    rotation = rotation_error_deg(pose.rotation, truth[:3, :3])
    direction = direction_error_deg(pose.translation, truth[:3, 3])
    total = pose_error_deg(pose.cam1_from_cam0, truth)
    return PairScore(rotation, direction, total, pose.num_inliers, correct, len(matches))


def summarise(scores: list[PairScore]) -> Summary:
    rotation, direction, total, *counts = np.array(scores, np.float64).T
    return Summary(
        error_auc(total, AUC_DEG),
        float(np.median(rotation)),
        float(np.median(direction)),
        *(float(np.median(count)) for count in counts),
        int(np.isinf(total).sum()),
    )
