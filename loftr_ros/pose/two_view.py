"""Relative pose of two images with known cameras: fits both models, decides between them, and gives the status."""

from __future__ import annotations

import numpy as np

from loftr_ros import geometry
from loftr_ros.camera import Camera
from loftr_ros.config import PoseConfig
from loftr_ros.datatypes import UNKNOWN_VARIANCE, Matches, PoseFailure, PoseStatus, RelativePose
from loftr_ros.errors import InputError
from loftr_ros.pose import models
from loftr_ros.pose.fits import MIN_CHEIRALITY_SIGMAS, Fit, fit_epipolar, fit_rotation, judge_rotation
from loftr_ros.pose.least_squares import MEDIAN_OF_NORMAL, MIN_SIGMA_PX
from loftr_ros.pose.models import Points

STATIC_SHARE = 0.5
"""Image motion below this share of the threshold counts as none."""

SIDEBAND = 3.0
"""Errors from one threshold to this many thresholds show how many matches agree by chance."""

ALONG_TO_ACROSS = 2.0
"""If the variance of the errors along the epipolar lines exceeds that across by this factor, there was parallax."""

CLIP_SIGMAS = 3.0

DEFAULT_CONFIG = PoseConfig()


def estimate_relative_pose(
    matches: Matches, camera0: Camera, camera1: Camera, config: PoseConfig = DEFAULT_CONFIG
) -> RelativePose | PoseFailure:
    """Return the motion from camera 0 to camera 1, or why the matches give none.

    Inliers have a Sampson error of at most `config.max_epipolar_error_px` and are in front of both cameras. The
    translation has length 1. The covariance is first-order, from the derivatives and the scatter of the errors;
    `matches.sigma_px`, where finite, is the precision of one match relative to another. Errors of neighbours often
    depend on each other (lens, rolling shutter, blur): this is measured and enlarges the covariance. An effect that
    shifts the whole image equally, such as a wrong calibration, is not visible in the errors.

    With PURE_ROTATION and STATIC the rotation comes from the model without translation; the translation is 0, its
    variance UNKNOWN_VARIANCE on all axes, and `epipolar_rmse_px` is the error of that model along one axis.

    Raises:
        InputError: a camera is missing.
        MissingDependencyError: neither PoseLib nor OpenCV is installed, or PoseLib has other options than we set.
    """
    for name, camera in (('camera0', camera0), ('camera1', camera1)):
        if not isinstance(camera, Camera):
            raise InputError(
                f'{name} must be a Camera, got {camera!r}; a pose needs the calibration: publish a camera_info with '
                'the images or state the intrinsics'
            )
    points = models.usable_points(matches, camera0, camera1)
    if len(points) < config.min_inliers:
        return PoseFailure(
            PoseStatus.TOO_FEW_MATCHES,
            f'{len(points)} usable matches of {len(matches)}, at least {config.min_inliers} needed (pose.min_inliers)',
            len(matches),
        )
    rotation_only = fit_rotation(points, config)
    full_motion = fit_epipolar(points, rotation_only, config)
    is_motion = (
        full_motion is not None
        and full_motion.cheirality_sigmas >= MIN_CHEIRALITY_SIGMAS
        and _is_accepted(full_motion, config)
        and full_motion.is_determined(points, config.max_epipolar_error_px)
    )
    if is_motion and _shows_translation(full_motion, rotation_only, config):
        return _pose_of_motion(full_motion, points, len(matches), config)
    rotation_only = judge_rotation(rotation_only, points, config)
    candidates = [fit for fit in (full_motion, rotation_only) if fit is not None]
    significant = [fit for fit in candidates if _is_accepted(fit, config)]
    if full_motion is not None and full_motion.order.is_impossible and full_motion.count > rotation_only.count:
        significant = []  # most matches agree on an impossible motion, so the remaining ones are not reliable either
    determined = [fit for fit in significant if fit.is_determined(points, config.max_epipolar_error_px)]
    if is_motion and rotation_only not in determined:
        return _pose_of_motion(full_motion, points, len(matches), config)
    if rotation_only in determined:
        return _pose_of_rotation(rotation_only, full_motion, points, len(matches), camera1, config)
    return _failure(candidates, significant, determined, len(matches), config)


def _is_accepted(fit: Fit, config: PoseConfig) -> bool:
    """Return whether there are enough inliers, more than wrong matches would give, in a possible order."""
    return (
        fit.count >= config.min_inliers
        and fit.log10_false_alarms <= config.max_log10_false_alarms
        and not fit.order.is_impossible
    )


def _is_more_than_chance(fit: Fit, among: np.ndarray, config: PoseConfig) -> bool:
    """Return whether the inliers `among` (n,) the points are enough, and more than wrong matches alone would give.

    The number of errors between one and SIDEBAND thresholds shows how many are within the threshold by chance. Six
    sigma, because the search has selected the best of many thousand models.
    """
    threshold = config.max_epipolar_error_px
    beside = np.sum(among & (fit.errors > threshold) & (fit.errors <= SIDEBAND * threshold))
    chance = beside / (SIDEBAND - 1)
    agreeing = np.sum(among & fit.inliers)
    return bool(agreeing >= config.min_inliers and agreeing > chance + 6 * np.sqrt(1.5 * chance))


def _shows_translation(full_motion: Fit, rotation_only: Fit, config: PoseConfig) -> bool:
    """Decide between the epipolar model and the one without translation.

    Either of two findings shows a translation. Of the matches that no rotation explains, more are on their epipolar
    lines than by chance. Or, among the matches that both models explain, the errors of the rotation are larger along
    the epipolar lines, where parallax moves a point, than across them, where only noise does. Medians of both are
    compared, so that neither the size nor the tails of the noise matter.
    """
    if _is_more_than_chance(full_motion, ~rotation_only.inliers, config):
        return True
    along, across = _squared_errors(full_motion, rotation_only)
    if len(along) < config.min_inliers:
        return False
    independent = len(along) / full_motion.inflation
    noise = max(np.median(across), (MEDIAN_OF_NORMAL[1] * MIN_SIGMA_PX) ** 2)
    # For normal noise the logarithm of the ratio of two such medians has the standard deviation 3.3 / sqrt(count);
    # three sigma. Errors that depend on each other count as fewer.
    return bool(np.median(along) > noise * ALONG_TO_ACROSS * np.exp(3 * 3.3 / np.sqrt(independent)))


def _squared_errors(full_motion: Fit, rotation_only: Fit) -> tuple[np.ndarray, np.ndarray]:
    """Return squared errors of the rotation along the epipolar lines and across [px^2], where both models fit."""
    both = full_motion.inliers & rotation_only.inliers
    across = full_motion.errors[both] ** 2
    return np.maximum(rotation_only.errors[both] ** 2 - across, 0), across


def _excess(along: np.ndarray, across: np.ndarray) -> tuple[float, float]:
    """Return by how much the variance along exceeds that across [px^2], and the latter; each error is clipped."""
    sigma2 = max(np.median(across) / MEDIAN_OF_NORMAL[1] ** 2, MIN_SIGMA_PX**2)
    variance = float(np.mean(np.minimum(across, CLIP_SIGMAS**2 * sigma2)))
    return float(np.mean(np.minimum(along, CLIP_SIGMAS**2 * sigma2))) - variance, max(variance, MIN_SIGMA_PX**2)


def _pose_of_motion(fit: Fit, points: Points, num_matches: int, config: PoseConfig) -> RelativePose:
    covariance = _covariance_of_motion(fit)
    parallax = _median_parallax_deg(fit, points)
    status = PoseStatus.LOW_PARALLAX if parallax < config.min_parallax_deg else PoseStatus.OK
    other = None
    if fit.other is not None:
        status, other = PoseStatus.AMBIGUOUS, geometry.transform(fit.other.rotation, fit.other.translation)
        covariance = _mixture_covariance(fit, covariance)
    covariance[:3, :3] += UNKNOWN_VARIANCE * np.outer(fit.translation, fit.translation)
    return RelativePose(
        cam1_from_cam0=geometry.transform(fit.rotation, fit.translation),
        covariance=covariance,
        inliers=_in_matches(fit.inliers, points, num_matches),
        median_parallax_deg=parallax,
        epipolar_rmse_px=float(np.sqrt(np.mean(fit.errors[fit.inliers] ** 2))),
        status=status,
        log10_false_alarms=fit.log10_false_alarms,
        other_cam1_from_cam0=other,
    )


def _covariance_of_motion(fit: Fit) -> np.ndarray:
    """Return the (6, 6) covariance, 0 along the translation."""
    to_six = np.zeros((6, 5))
    to_six[3:, :3] = np.eye(3)
    to_six[:3, 3:] = models.tangent(fit.translation)
    return to_six @ fit.covariance @ to_six.T


def _mixture_covariance(fit: Fit, covariance: np.ndarray) -> np.ndarray:
    """Return the second moments, about the motion of `fit`, of the mixture of `fit` and its other motion."""
    other = fit.other
    share = 1 / (1 + np.exp(fit.other_sigmas))
    turn = geometry.vector_from_rotation(other.rotation @ fit.rotation.T)
    step = np.concatenate([other.translation - fit.translation, turn])
    return (1 - share) * covariance + share * (_covariance_of_motion(other) + np.outer(step, step))


def _pose_of_rotation(
    fit: Fit, full_motion: Fit | None, points: Points, num_matches: int, camera1: Camera, config: PoseConfig
) -> RelativePose:
    rmse = float(np.sqrt(np.mean(fit.errors[fit.inliers] ** 2) / 2))
    covariance = np.zeros((6, 6))
    covariance[:3, :3] = UNKNOWN_VARIANCE * np.eye(3)
    covariance[3:, 3:] = fit.covariance + _of_unseen_translation(fit, full_motion, points, rmse)
    # The motion that the rotation itself makes in the image, free of the noise of the single match.
    rays = points.rays0[:, fit.inliers]
    motion = geometry.project(camera1, (fit.rotation @ rays).T) - geometry.project(camera1, rays.T)
    still_px = max(rmse, STATIC_SHARE * config.max_epipolar_error_px)
    is_still = np.nanmedian(np.linalg.norm(motion, axis=1)) <= still_px
    return RelativePose(
        cam1_from_cam0=geometry.transform(fit.rotation, np.zeros(3)),
        covariance=covariance,
        inliers=_in_matches(fit.inliers, points, num_matches),
        median_parallax_deg=_median_parallax_deg(fit, points),
        epipolar_rmse_px=rmse,
        status=PoseStatus.STATIC if is_still else PoseStatus.PURE_ROTATION,
        log10_false_alarms=fit.log10_false_alarms,
    )


def _of_unseen_translation(fit: Fit, full_motion: Fit | None, points: Points, rmse: float) -> np.ndarray:
    """Return the (3, 3) covariance of the rotation [rad^2] caused by a translation that is too small to be visible.

    A sideways translation moves all points equally by some s px, which looks like a rotation by s / f about x or y. s
    is about as large as its spread over near and far points, which the errors along the epipolar lines show, down to
    their own scatter.
    """
    variance, excess, independent = rmse**2, 0.0, fit.count / fit.inflation
    if full_motion is not None:
        along, across = _squared_errors(full_motion, fit)
        if len(along):
            excess, variance = _excess(along, across)
            independent = len(along) / max(full_motion.inflation, fit.inflation)
    unseen_px2 = max(excess, 0.0) + variance * np.sqrt(2 / independent)
    return np.diag([1.0, 1.0, 0.0]) * unseen_px2 / points.focal_px**2


def _failure(
    candidates: list[Fit], significant: list[Fit], determined: list[Fit], num_matches: int, config: PoseConfig
) -> PoseFailure:
    best = max(candidates, key=lambda fit: fit.count)
    count = best.count
    if count < config.min_inliers:
        reason = f'{count} matches agree on one motion, at least {config.min_inliers} needed (pose.min_inliers)'
    elif determined:
        reason = f'{count} matches agree, but they do not tell the direction of the motion from its opposite'
    elif significant:
        reason = (
            f'{count} matches agree, but they do not determine the motion: they are on a line or too close together'
        )
    elif best.log10_false_alarms > config.max_log10_false_alarms:
        reason = (
            f'{count} matches agree on one motion, and wrong matches alone could do so: log10 of false alarms is '
            f'{best.log10_false_alarms:.1f}, at most {config.max_log10_false_alarms:g} needed '
            '(pose.max_log10_false_alarms)'
        )
    else:
        reason = f'{count} matches agree, but no camera sees surfaces in this order: another place, or a mirror image'
    return PoseFailure(PoseStatus.TOO_FEW_INLIERS, reason, num_matches, count)


def _median_parallax_deg(fit: Fit, points: Points) -> float:
    points0, points1 = (rays[:2, fit.inliers].T for rays in (points.rays0, points.rays1))
    return float(np.rad2deg(np.median(geometry.parallax_angles(fit.rotation, points0, points1))))


def _in_matches(inliers: np.ndarray, points: Points, num_matches: int) -> np.ndarray:
    mask = np.zeros(num_matches, dtype=bool)
    mask[points.rows[inliers]] = True
    return mask
