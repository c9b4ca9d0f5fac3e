"""Matching of pairs of images with a true motion or homography: one row for each pair, and the figures of all."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from loftr_ros import geometry
from loftr_ros.config import PoseConfig
from loftr_ros.datasets import Sequence, open_sequence
from loftr_ros.datasets.pair_lists import ImagePair, PairSet, is_pair_list, read_pair_list
from loftr_ros.datatypes import Matches, PoseFailure
from loftr_ros.errors import InputError
from loftr_ros.evaluation.metrics import (
    corner_error_px,
    count_correct,
    error_auc,
    mean_matching_accuracy,
    pose_error_deg,
    transfer_errors_px,
)
from loftr_ros.evaluation.relative_pose import AUC_DEG, CORRECT_PX, count_pairs, pair_at, score_pair
from loftr_ros.matchers.base import Matcher
from loftr_ros.pose import estimate_relative_pose

PRECISION = (1e-4, 5e-4)
"""Squared epipolar distances of normalised points up to which LoFTR counts a match as correct, outdoors and indoors."""

MMA_PX = tuple(range(1, 11))
CORNER_AUC_PX = (3, 5, 10)
CORRECT_TRANSFER_PX = 3.0
"""Error under the true homography up to which a match counts as correct."""

HOMOGRAPHY_PX = 3.0
"""Threshold of OpenCV's RANSAC for the homography of a pair."""

LOFTR_PX, LOFTR_CONFIDENCE = 0.5, 0.99999
"""Threshold and confidence of OpenCV's RANSAC in the evaluations of SuperGlue and LoFTR."""

BINS = 10
"""Number of ranges of the confidence."""


class PairRow(NamedTuple):
    """One pair: all that does not depend on the speed of the machine. NaN where the truth is of the other kind."""

    pair: str
    status: str  # of the pose; '' with a homography
    matches: int
    inliers: int
    correct: int
    precision_1e4: float
    precision_5e4: float
    rotation_deg: float
    direction_deg: float
    pose_deg: float
    pose_deg_opencv: float
    rotation_nees: float  # for each of three degrees of freedom
    corner_px: float
    accuracy: tuple[float, ...]  # share of the matches within each of MMA_PX


@dataclasses.dataclass(frozen=True, eq=False)
class PairRun:
    """The rows of a run, without images.

    Args:
        matcher: its name.
        has_motion: whether the truth is a motion; otherwise it is a homography.
        numbers: of the rows in the PairSet.
        match_s, pose_s: (N,) time of extraction and matching of both images, and of the pose [s].
        count_of_confidence, correct_of_confidence: (BINS,) matches of all pairs by confidence, and the correct ones.
        dropped: pairs that could not be read, with the reason.
    """

    matcher: str
    has_motion: bool
    rows: list[PairRow]
    numbers: list[int]
    match_s: np.ndarray
    pose_s: np.ndarray
    count_of_confidence: np.ndarray
    correct_of_confidence: np.ndarray
    dropped: list[str]


def pairs_of_sequence(sequence: Sequence, step: int) -> PairSet:
    """Return the pairs of frames i and i + step of a sequence; step 0: left and right.

    Raises:
        InputError: see relative_pose.count_pairs.
    """

    def load(index: int) -> ImagePair:
        name, frame0, frame1, motion = pair_at(sequence, step, index)
        names = name.split('-') if step else (f'{name}_left', f'{name}_right')
        return ImagePair(tuple(names), frame0, frame1, motion)

    return PairSet(sequence.name, count_pairs(sequence, step), load)


def open_pairs(source: Path, images: Path | None, step: int) -> PairSet:
    """Return the pairs of a list, or those of the frames i and i + step of a sequence.

    Args:
        images: folder that paths in a list are relative to; None: that of the list.

    Raises:
        InputError: neither can be read, or it has no truth.
    """
    if is_pair_list(source):
        return read_pair_list(source, images)
    if images:
        raise InputError(f'--images is only for a list of pairs (.txt, .npz), and {source} is none')
    return pairs_of_sequence(open_sequence(source), step)


def run_pairs(
    pairs: PairSet,
    numbers: Iterable[int],
    matcher: Matcher,
    config: PoseConfig,
    progress: Callable[[int], None] = lambda done: None,
    keep: Callable[[ImagePair, Matches], None] = lambda pair, matches: None,
) -> PairRun:
    """Match the pairs with these numbers; pairs that cannot be read are listed and left out.

    Args:
        progress: called with the number of pairs done.
        keep: called with each pair and its matches.
    """
    rows, read, times, dropped = [], [], [], []
    of_confidence = np.zeros((2, BINS), np.int64)
    for done, index in enumerate(numbers, 1):
        try:
            pair = pairs.load(index)
        except InputError as error:
            dropped.append(str(error))
            continue
        started = time.perf_counter()
        matches = match_pair(matcher, pair)
        matched = time.perf_counter()
        errors = errors_px(pair, matches)
        row, pose_s = _score(pair, matches, errors, config)
        rows.append(row)
        read.append(index)
        times.append((matched - started, pose_s))
        bins = np.minimum((matches.confidence * BINS).astype(int), BINS - 1)
        for kind, some in enumerate((bins, bins[errors <= correct_px(pairs.has_motion)])):
            of_confidence[kind] += np.bincount(some, minlength=BINS)
        keep(pair, matches)
        progress(done)
    match_s, pose_s = np.array(times).reshape(-1, 2).T
    return PairRun(matcher.name, pairs.has_motion, rows, read, match_s, pose_s, *of_confidence, dropped)


def join(runs: list[PairRun]) -> PairRun:
    """Return the runs of one matcher over segments of a PairSet as one run."""
    first = runs[0]
    return PairRun(
        first.matcher,
        first.has_motion,
        [row for run in runs for row in run.rows],
        [number for run in runs for number in run.numbers],
        np.concatenate([run.match_s for run in runs]),
        np.concatenate([run.pose_s for run in runs]),
        np.sum([run.count_of_confidence for run in runs], axis=0),
        np.sum([run.correct_of_confidence for run in runs], axis=0),
        [text for run in runs for text in run.dropped],
    )


def match_pair(matcher: Matcher, pair: ImagePair) -> Matches:
    return matcher.match(matcher.extract(pair.frame0.image), matcher.extract(pair.frame1.image))


def errors_px(pair: ImagePair, matches: Matches) -> np.ndarray:
    """Return the errors (N,) under the truth [px]: Sampson errors, or distances in image 1 under the homography."""
    if pair.cam1_from_cam0 is None:
        return transfer_errors_px(pair.image1_from_image0, matches.keypoints0, matches.keypoints1)
    cameras = pair.frame0.camera, pair.frame1.camera
    return geometry.epipolar_error_px(pair.cam1_from_cam0, matches.keypoints0, matches.keypoints1, *cameras)


def correct_px(has_motion: bool) -> float:
    return CORRECT_PX if has_motion else CORRECT_TRANSFER_PX


def _score(pair: ImagePair, matches: Matches, errors: np.ndarray, config: PoseConfig) -> tuple[PairRow, float]:
    """Return the row of a pair, whose matches have these errors (N,) [px], and the time of its pose [s]."""
    nan = float('nan')
    accuracy = tuple(mean_matching_accuracy(errors, MMA_PX).tolist())
    if pair.cam1_from_cam0 is None:
        homography, inliers = _homography(matches)
        height, width = pair.frame0.image.shape[:2]
        corner = corner_error_px(homography, pair.image1_from_image0, width, height)
        correct = count_correct(errors, CORRECT_TRANSFER_PX)
        return PairRow(pair.name, '', len(matches), inliers, correct, *[nan] * 7, corner, accuracy), 0.0
    cameras, truth = (pair.frame0.camera, pair.frame1.camera), pair.cam1_from_cam0
    started = time.perf_counter()
    pose = estimate_relative_pose(matches, *cameras, config)
    pose_s = time.perf_counter() - started
    score = score_pair(matches, *cameras, truth, config, pose)
    row = PairRow(
        pair.name,
        pose.status.name,
        len(matches),
        score.num_inliers,
        score.num_correct,
        *epipolar_precision(truth, matches, *cameras),
        score.rotation_deg,
        score.direction_deg,
        score.pose_deg,
        pose_error_deg(pose_of_opencv(matches, *cameras), truth),
        nan if isinstance(pose, PoseFailure) else rotation_nees(pose, truth),
        nan,
        accuracy,
    )
    return row, pose_s


def _homography(matches: Matches) -> tuple[np.ndarray | None, int]:
    if len(matches) < 4:
        return None, 0
    homography, inliers = cv2.findHomography(
        matches.keypoints0, matches.keypoints1, cv2.RANSAC, HOMOGRAPHY_PX, confidence=0.9999
    )
    return homography, 0 if inliers is None else int(inliers.sum())


def epipolar_precision(truth: np.ndarray, matches: Matches, camera0, camera1) -> tuple[float, ...]:
    """Return for each of PRECISION the share of the matches up to that symmetric squared epipolar distance.

    The distances are in normalised coordinates (LoFTR, section 4.2; SuperGlue, section 5.2); 0 without matches.
    """
    if not len(matches):
        return (0.0,) * len(PRECISION)
    rays0, rays1 = (
        geometry.homogeneous(geometry.undistort_points(camera, points)).T
        for camera, points in ((camera0, matches.keypoints0), (camera1, matches.keypoints1))
    )
    essential = geometry.essential_from_pose(truth)
    line1, line0 = essential @ rays0, essential.T @ rays1
    product = np.sum(rays1 * line1, axis=0)
    distance = product**2 * (1 / np.sum(line1[:2] ** 2, axis=0) + 1 / np.sum(line0[:2] ** 2, axis=0))
    return tuple(float(np.mean(distance <= limit)) for limit in PRECISION)


def pose_of_opencv(matches: Matches, camera0, camera1) -> np.ndarray | None:
    """Return cam1_from_cam0 as SuperGlue and LoFTR evaluate: by OpenCV's RANSAC with 0.5 px; None without a pose."""
    points0, points1 = (
        geometry.undistort_points(camera, points)
        for camera, points in ((camera0, matches.keypoints0), (camera1, matches.keypoints1))
    )
    usable = np.isfinite(points0).all(axis=1) & np.isfinite(points1).all(axis=1)
    points0, points1 = points0[usable], points1[usable]
    if len(points0) < 5:
        return None
    focal = np.mean([camera.matrix[axis, axis] for camera in (camera0, camera1) for axis in (0, 1)])
    essentials, mask = cv2.findEssentialMat(
        points0, points1, np.eye(3), threshold=LOFTR_PX / focal, prob=LOFTR_CONFIDENCE, method=cv2.RANSAC
    )
    if essentials is None:
        return None
    best, pose = 0, None
    for essential in np.split(essentials, len(essentials) // 3):
        count, rotation, translation, _ = cv2.recoverPose(essential, points0, points1, np.eye(3), 1e9, mask=mask.copy())
        if count > best:
            best, pose = count, geometry.transform(rotation, translation.ravel())
    return pose


def rotation_nees(pose, truth: np.ndarray) -> float:
    """Return the squared error of the rotation over its covariance, for each of the three degrees of freedom."""
    error = geometry.vector_from_rotation(truth[:3, :3] @ pose.rotation.T)
    return float(error @ np.linalg.solve(pose.covariance[3:, 3:], error)) / 3


def summarise(run: PairRun) -> dict:
    """Return the figures of a run; times are not in it, so that the same input gives the same summary."""
    rows = run.rows
    summary = {
        'matcher': run.matcher,
        'pairs': len(rows),
        'pairs_dropped': len(run.dropped),
        'matches_median': _median(row.matches for row in rows),
        'inliers_median': _median(row.inliers for row in rows),
        'correct_median': _median(row.correct for row in rows),
        'correct_up_to_px': correct_px(run.has_motion),
    }
    if run.has_motion:
        found = [row for row in rows if np.isfinite(row.pose_deg)]
        nees = [row.rotation_nees for row in rows if np.isfinite(row.rotation_nees)]
        statuses = [row.status for row in rows]
        summary |= {
            'pairs_with_pose': len(found),
            'statuses': {status: statuses.count(status) for status in sorted(set(statuses))},
            'pose_auc_5_10_20_deg': _auc((row.pose_deg for row in rows), AUC_DEG),
            'pose_auc_5_10_20_deg_opencv_ransac_0.5px': _auc((row.pose_deg_opencv for row in rows), AUC_DEG),
            'rotation_deg_median': _median(row.rotation_deg for row in rows),
            'direction_deg_median': _median(row.direction_deg for row in rows),
            'epipolar_precision_1e-4': float(np.mean([row.precision_1e4 for row in rows])),
            'epipolar_precision_5e-4': float(np.mean([row.precision_5e4 for row in rows])),
            'rotation_nees_mean': float(np.mean(nees)) if nees else None,
            'rotation_nees_median': float(np.median(nees)) if nees else None,
        }
    else:
        summary |= {
            'pairs_with_homography': int(sum(np.isfinite(row.corner_px) for row in rows)),
            'homography_auc_3_5_10_px': _auc((row.corner_px for row in rows), CORNER_AUC_PX),
            'mma_1_to_10_px': np.mean([row.accuracy for row in rows], axis=0).tolist(),
        }
    summary['matches_of_confidence'] = run.count_of_confidence.tolist()
    summary['correct_of_confidence'] = run.correct_of_confidence.tolist()
    return summary


def _median(values) -> float:
    return float(np.median(list(values)))


def _auc(errors, limits) -> list[float]:
    return error_auc(list(errors), limits).tolist()


def times(run: PairRun) -> dict[str, float]:
    """Return percentiles of the times of a pair [ms]."""
    return {
        f'{name}_ms_p{share}': float(np.percentile(1e3 * values, share)) if len(values) else float('nan')
        for name, values in (('match', run.match_s), ('pose', run.pose_s))
        for share in (50, 95)
    }
