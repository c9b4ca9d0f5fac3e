"""Odometry of a sequence or a bag, frame by frame by the same `Odometer` as in the node, compared with the truth."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from loftr_ros.config import Config
from loftr_ros.datatypes import FrameSet, Scale
from loftr_ros.errors import InputError
from loftr_ros.evaluation.trajectory import AbsoluteErrors, Drift, absolute_errors, drift, path_lengths
from loftr_ros.geometry import vector_from_rotation
from loftr_ros.matchers.base import Matcher
from loftr_ros.odometry.frontend import PairResult
from loftr_ros.odometry.motion import Motion
from loftr_ros.odometry.odometer import Odometer


class Row(NamedTuple):
    """One set of frames: all that does not depend on the speed of the machine."""

    number: int
    stamp_ns: int
    status: str
    segment: int
    keyframe: int
    is_keyframe: bool
    relocalised: bool
    matches: int
    inliers: int
    tracks: int


@dataclasses.dataclass(frozen=True, eq=False)
class OdometryRun:
    """The motions of a sequence, without images, so that memory does not grow with them.

    Args:
        matcher: its name.
        poses: (N, 4, 4) origin_from_cam, NaN where unknown.
        covariances: (N, 6, 6) of the poses, NaN where unknown.
        match_s, compute_s: (N,) time of matching and of everything else [s].
        examples: pairs for pictures, by what they are: the one with the most inliers, with the fewest, without a pose.
        dropped: reasons of the sets of frames that were refused.
    """

    matcher: str
    scale: Scale
    rows: list[Row]
    poses: np.ndarray
    covariances: np.ndarray
    match_s: np.ndarray
    compute_s: np.ndarray
    examples: dict[str, PairResult]
    dropped: list[str]

    @property
    def stamps_ns(self) -> np.ndarray:
        return np.array([row.stamp_ns for row in self.rows], np.int64)

    @property
    def has_pose(self) -> np.ndarray:
        """(N,) bool."""
        return np.isfinite(self.poses[:, 0, 0])


def run_odometry(
    frame_sets: Iterable[FrameSet],
    matcher: Matcher,
    config: Config,
    progress: Callable[[int], None] = lambda done: None,
    speeds: Iterable[tuple[int, float]] = (),
) -> OdometryRun:
    """Compute the motion of all sets of frames, none of which is skipped.

    Args:
        progress: called with the number of sets done.
        speeds: stamps [ns] and speeds of the camera [m/s], in order. Once they give a single camera its unit, poses
            from before are left out.
    """
    odometer = Odometer(matcher, config)
    waiting = collections.deque(speeds)
    without_unit = []
    rows, poses, covariances, times, dropped = [], [], [], [], []
    examples: dict[str, PairResult] = {}
    for frames in frame_sets:
        while waiting and waiting[0][0] <= frames.stamp_ns:
            odometer.add_speed(*waiting.popleft())
        try:
            motion = odometer.process(frames)
        except InputError as error:
            dropped.append(f'{frames.stamp_ns}: {error}')
            continue
        rows.append(_row(motion))
        without_unit.append(motion.scale is Scale.UP_TO_SCALE)
        known = motion.origin_from_cam is not None
        poses.append(motion.origin_from_cam.matrix if known else np.full((4, 4), np.nan))
        covariances.append(motion.origin_from_cam.covariance if known else np.full((6, 6), np.nan))
        times.append((0.0 if motion.pair is None else motion.pair.match_s, motion.compute_s))
        _keep_example(examples, motion)
        progress(len(rows) + len(dropped))
    scale, poses = odometer.scale, np.reshape(poses, (-1, 4, 4))
    if scale is Scale.UP_TO_SCALE and not all(without_unit):
        scale = Scale.EXTERNAL  # the unit was known at least for a while
    if scale is Scale.EXTERNAL:
        poses[without_unit] = np.nan
    return OdometryRun(
        matcher.name,
        scale,
        rows,
        poses,
        np.reshape(covariances, (-1, 6, 6)),
        *np.reshape(times, (-1, 2)).T,
        examples,
        dropped,
    )


def _row(motion: Motion) -> Row:
    pair = motion.pair
    return Row(
        motion.number,
        motion.stamp_ns,
        motion.status.name,
        motion.segment,
        motion.number if pair is None else pair.id0,
        motion.is_keyframe,
        motion.relocalised,
        0 if pair is None else len(pair.matches),
        0 if pair is None else int(pair.inliers.sum()),
        len(motion.tracks),
    )


def _keep_example(examples: dict[str, PairResult], motion: Motion) -> None:
    pair = motion.pair
    if pair is None:
        return
    if motion.origin_from_cam is None:
        examples.setdefault('without a pose', pair)
        return
    count = pair.inliers.sum()
    if 'with the most inliers' not in examples or count > examples['with the most inliers'].inliers.sum():
        examples['with the most inliers'] = pair
    if 'with the fewest inliers' not in examples or count < examples['with the fewest inliers'].inliers.sum():
        examples['with the fewest inliers'] = pair


@dataclasses.dataclass(frozen=True, eq=False)
class OdometryScore:
    """A run compared with the truth.

    Args:
        rows: (M,) numbers of the rows with a pose and a truth.
        truth: (M, 4, 4) of these rows.
        from_first_m: (M,) position errors relative to the first frame, without alignment, in the unit of the motion.
        nees: (M,) squared errors of the poses relative to the first frame over their covariance, for each degree of
            freedom; about 1 on average where the covariance is right. Empty without a unit of length.
    """

    rows: np.ndarray
    truth: np.ndarray
    errors: AbsoluteErrors
    drift: Drift
    from_first_m: np.ndarray
    nees: np.ndarray

    @property
    def path_m(self) -> float:
        return float(path_lengths(self.truth)[-1])

    @property
    def ate_percent(self) -> float:
        """ATE as a share of the path; NaN for a camera that does not move."""
        return 100 * self.errors.ate_m / self.path_m if self.path_m else np.nan


def score(run: OdometryRun, truth: np.ndarray) -> OdometryScore:
    """Compare a run with true poses (N, 4, 4) world_from_cam of its rows, NaN where unknown.

    Raises:
        InputError: fewer than three rows have both.
    """
    rows = np.flatnonzero(run.has_pose & np.isfinite(truth[:, 0, 0]))
    if len(rows) < 3:
        raise InputError(
            f'{len(rows)} frames have a pose and a true pose, needed are 3; {int(run.has_pose.sum())} of '
            f'{len(run.rows)} frames have a pose'
        )
    poses, truth = run.poses[rows], truth[rows]
    with_scale = run.scale is Scale.UP_TO_SCALE and len(np.unique(poses[:, :3, 3], axis=0)) > 1
    errors = absolute_errors(poses, truth, with_scale=with_scale)
    true = np.linalg.inv(truth[0]) @ truth
    found = np.linalg.inv(poses[0]) @ poses
    steps = np.linalg.norm(true[:, :3, 3] - found[:, :3, 3], axis=1)
    nees = np.empty(0)
    if run.scale is not Scale.UP_TO_SCALE:
        nees = _nees(found[1:], true[1:], run.covariances[rows][1:])
    return OdometryScore(rows, truth, errors, drift(poses, truth, errors.alignment.scale), steps, nees)


def _nees(found: np.ndarray, true: np.ndarray, covariances: np.ndarray) -> np.ndarray:
    values = []
    for pose, goal, covariance in zip(found, true, covariances, strict=True):
        error = np.concatenate([goal[:3, 3] - pose[:3, 3], vector_from_rotation(goal[:3, :3] @ pose[:3, :3].T)])
        values.append(error @ np.linalg.solve(covariance, error) / 6)
    return np.array(values)
