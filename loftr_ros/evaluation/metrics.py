"""How good matches, homographies and poses are. A failure counts as an infinite error, never as a missing one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from loftr_ros.geometry import angle_between, rotation_angle


def warp_points(homography: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return points (N, 2) mapped by `homography` (3, 3); infinite where they pass the horizon."""
    mapped = np.c_[points, np.ones(len(points))] @ np.asarray(homography, dtype=np.float64).T
    with np.errstate(divide='ignore', invalid='ignore'):
        mapped = mapped[:, :2] / mapped[:, 2:]
    return np.where(np.isfinite(mapped), mapped, np.inf)


def transfer_errors_px(homography: np.ndarray, keypoints0: np.ndarray, keypoints1: np.ndarray) -> np.ndarray:
    """Return (N,) distances in image 1 between the mapped keypoints0 and keypoints1; `homography` is 1_from_0."""
    return np.linalg.norm(warp_points(homography, keypoints0) - keypoints1, axis=1)


def disparity_errors_px(disparity: np.ndarray, keypoints0: np.ndarray, keypoints1: np.ndarray) -> np.ndarray:
    """Return (N,) distances in the rectified right image between where the left keypoints0 belong and keypoints1.

    Args:
        disparity: (H, W) x_left - x_right of the left pixels [px]. Where it is not finite the error is NaN: unknown.
    """
    rows, columns = np.array(np.shape(disparity)) - 1
    x, y = (np.rint(np.asarray(keypoints0)[:, axis]).astype(int) for axis in (0, 1))
    known = disparity[np.clip(y, 0, rows), np.clip(x, 0, columns)].astype(np.float64)
    known[~np.isfinite(known)] = np.nan
    offset = keypoints1 - keypoints0
    return np.hypot(offset[:, 0] + known, offset[:, 1])


def count_correct(errors_px: np.ndarray, threshold_px: float) -> int:
    """Return how many matches have at most that error; an unknown error (NaN) is none."""
    return int(np.count_nonzero(np.asarray(errors_px) <= threshold_px))


def mean_matching_accuracy(errors_px: np.ndarray, thresholds_px: Sequence[float]) -> np.ndarray:
    """Return for each threshold the share of matches of one pair with at most that error; 0 without matches."""
    errors_px = np.asarray(errors_px, dtype=np.float64)
    if not len(errors_px):
        return np.zeros(len(thresholds_px))
    return (errors_px[None] <= np.asarray(thresholds_px)[:, None]).mean(1)


def corner_error_px(estimate: np.ndarray | None, truth: np.ndarray, width: int, height: int) -> float:
    """Return the mean error of the four corner pixels of image 0 (HPatches); infinite without an estimate."""
    if estimate is None:
        return float('inf')
    corners = np.array([[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]], dtype=np.float64)
    error = np.linalg.norm(warp_points(estimate, corners) - warp_points(truth, corners), axis=1).mean()
    return float(error) if np.isfinite(error) else float('inf')


def rotation_error_deg(estimate: np.ndarray, truth: np.ndarray) -> float:
    """Return the angle of `estimate @ truth.T`, rotations (3, 3)."""
    return float(np.degrees(rotation_angle(np.asarray(estimate) @ np.asarray(truth).T)))


def direction_error_deg(estimate: np.ndarray, truth: np.ndarray, *, up_to_sign: bool = False) -> float:
    """Return the angle between two translations (3,); a zero `estimate` has no direction and an infinite error.

    Args:
        up_to_sign: forgive a reversed direction, as the pose AUC of the literature does.
    """
    if not np.linalg.norm(estimate) > 0:
        return float('inf')
    angle = float(np.degrees(angle_between(np.asarray(estimate), np.asarray(truth))))
    return min(angle, 180 - angle) if up_to_sign else angle


def pose_error_deg(estimate: np.ndarray | None, truth: np.ndarray) -> float:
    """Return the larger of rotation and direction error of cam1_from_cam0 (4, 4); infinite without an estimate.

    The definition of SuperGlue and LoFTR: the sign of the translation is forgiven.
    """
    if estimate is None:
        return float('inf')
    direction = direction_error_deg(estimate[:3, 3], truth[:3, 3], up_to_sign=True)
    return max(rotation_error_deg(estimate[:3, :3], truth[:3, :3]), direction)


def error_auc(errors: Sequence[float], thresholds: Sequence[float]) -> np.ndarray:
    """Return for each threshold the area under the recall curve up to it, as a share of the threshold.

    Recall rises linearly from (0, 0) through (error_i, i / n) and stays level to the threshold, the definition of
    SuperGlue. Infinite errors are failures and never recalled. Raises ValueError without errors.
    """
    errors = np.sort(np.asarray(errors, dtype=np.float64))
    if not len(errors):
        raise ValueError('needs at least one error to average over, got none')
    if np.isnan(errors).any():
        raise ValueError('errors must not be NaN; a failure is infinite')
    recall = np.arange(1, len(errors) + 1) / len(errors)
    areas = []
    for threshold in thresholds:
        count = int(np.searchsorted(errors, threshold))
        x = np.concatenate(([0.0], errors[:count], [threshold]))
        y = np.concatenate(([0.0], recall[:count], [recall[count - 1] if count else 0.0]))
        areas.append(float(((x[1:] - x[:-1]) * (y[1:] + y[:-1]) / 2).sum() / threshold))
    return np.array(areas)
