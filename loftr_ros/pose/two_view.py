"""Two images with known cameras: fit both models, decide, and say what was seen."""

from __future__ import annotations

import dataclasses

import numpy as np

from loftr_ros import geometry
from loftr_ros.config import PoseConfig
from loftr_ros.datatypes import UNKNOWN_VARIANCE, Camera, Matches, PoseFailure, PoseStatus, RelativePose
from loftr_ros.errors import InputError
from loftr_ros.pose import models
from loftr_ros.pose.models import ROTATION_THRESHOLD_RATIO, Points
from loftr_ros.pose.refinement import MEDIAN_OF_NORMAL, MIN_SIGMA_PX, minimise
from loftr_ros.pose.robust import robust_pose, robust_rotation

MAX_STD_RAD = 0.5
"""With a larger standard deviation of rotation or direction a pose is not determined: the covariance is linear."""

STATIC_SHARE = 0.5
"""Image motion that does not count as motion, as a share of the threshold."""

SIDEBAND = 3.0
"""Upper end, in thresholds, of the band of errors from which chance agreement is counted."""

ALONG_TO_ACROSS = 2.0
"""Variance of the errors along the epipolar lines over that across, above which there was parallax; 1 without any."""


@dataclasses.dataclass(frozen=True, eq=False)
class Fit:
    """A model and what the points say of it.

    Args:
        errors: (n,) absolute [px], infinite where the model puts the point behind a camera.
        inliers: (n,) bool, errors up to the threshold.
        covariance: of the degrees of freedom of the model [rad^2].
        inflation: how many times the errors of neighbours, which go together, enlarged it.
    """

    rotation: np.ndarray
    translation: np.ndarray
    errors: np.ndarray
    inliers: np.ndarray
    covariance: np.ndarray
    inflation: float

    @property
    def count(self) -> int:
        return int(self.inliers.sum())

    def is_determined(self, points: Points, threshold: float) -> bool:
        """Whether the inliers fix the motion: not on one line in both images, and with a covariance to believe."""
        if not np.all(np.isfinite(self.covariance)) or np.linalg.eigvalsh(self.covariance)[-1] > MAX_STD_RAD**2:
            return False
        across = [_width_across_line(p[self.inliers, :2]) for p in (points.points0, points.points1)]
        return max(across) * points.focal_px > threshold


def estimate_relative_pose(
    matches: Matches, camera0: Camera, camera1: Camera, config: PoseConfig
) -> RelativePose | PoseFailure:
    """Return the motion from camera 0 to camera 1, or why the matches give none.

    Inliers have a Sampson error of at most `config.max_epipolar_error_px` and lie in front of both cameras. The
    translation has length 1. The covariance is first-order, from the refinement's derivatives and the scatter of its
    errors; `matches.sigma_px`, where finite, says how precise one match is compared with another. Errors of neighbours
    often go together (lens, rolling shutter, blur): how much more they scatter then is measured and enlarges it. What
    shifts a whole image alike, as a wrong calibration does, no error shows.

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
    turned = _fit_rotation(points, config)
    moved = _fit_epipolar(points, turned, config)
    candidates = [fit for fit in (moved, turned) if fit is not None]
    sure = [fit for fit in candidates if _is_more_than_chance(fit, np.ones(len(points), dtype=bool), config)]
    good = [fit for fit in sure if fit.is_determined(points, config.max_epipolar_error_px)]
    if moved in good and (turned not in good or _shows_translation(moved, turned, config)):
        return _moved_pose(moved, points, len(matches), config)
    if turned in good:
        return _turned_pose(turned, points, len(matches), camera1, config)
    return _failure(candidates, sure, len(matches), config)


def _fit_epipolar(points: Points, turned: Fit, config: PoseConfig) -> Fit | None:
    """Return the best refined epipolar model, or None when the robust estimator found none.

    With little parallax, forward motion and motion to the side with a turn look alike, and the search may end in the
    wrong one. The rotation of the model without translation is right for forward motion: a second place to start.
    """
    threshold = config.max_epipolar_error_px
    start = robust_pose(points, config)
    if start is None:
        return None
    best = _refine_epipolar(start, points, threshold)
    if turned.count > best.count / 2:
        direction = models.direction_of_translation(turned.rotation, points, threshold)
        other = _refine_epipolar((turned.rotation, direction), points, threshold)
        best = min(best, other, key=lambda fit: models.cost(fit.rotation, fit.translation, points, threshold))
    return best


def _refine_epipolar(start, points: Points, threshold: float) -> Fit:
    impossible = ~models.plausible(*start, points, threshold)

    def model(state):
        errors, jacobian, expected = models.epipolar_model(state, points)
        errors[impossible] = np.inf
        return errors, jacobian, expected

    (rotation, translation), covariance, inflation = minimise(
        model, models.move_pose, start, points.weights, points.tiles, threshold
    )
    possible = models.plausible(rotation, translation, points, threshold)
    errors = np.where(possible, np.abs(models.epipolar_errors(rotation, translation, points)), np.inf)
    return Fit(rotation, translation, errors, errors <= threshold, covariance, inflation)


def _fit_rotation(points: Points, config: PoseConfig) -> Fit:
    """Return the rotation that most matches agree on."""
    threshold = ROTATION_THRESHOLD_RATIO * config.max_epipolar_error_px
    start = robust_rotation(points, config)
    white = models.whitening(start, points)
    rotation, covariance, inflation = minimise(
        lambda state: models.rotation_model(state, points, white),
        models.move_rotation,
        start,
        points.weights,
        points.tiles,
        threshold,
    )
    errors = np.linalg.norm(models.rotation_errors(rotation, points, white), axis=1)
    return Fit(rotation, np.zeros(3), errors, errors <= threshold, covariance, inflation)


def _width_across_line(points: np.ndarray) -> float:
    """Return the root mean square distance of points (n, 2) from the line that fits them best."""
    return float(np.linalg.svd(points - points.mean(axis=0), compute_uv=False)[-1] / np.sqrt(len(points)))


def _is_more_than_chance(fit: Fit, among: np.ndarray, config: PoseConfig) -> bool:
    """Return whether the inliers `among` (n,) the points are enough, and more than wrong matches alone would give.

    How many of those fall within the threshold by chance, the errors of one to SIDEBAND thresholds tell. Six sigma,
    since the search has picked the best of many thousand models.
    """
    threshold = config.max_epipolar_error_px
    beside = np.sum(among & (fit.errors > threshold) & (fit.errors <= SIDEBAND * threshold))
    chance = beside / (SIDEBAND - 1)
    agreeing = np.sum(among & fit.inliers)
    return bool(agreeing >= config.min_inliers and agreeing > chance + 6 * np.sqrt(1.5 * chance))


def _shows_translation(moved: Fit, turned: Fit, config: PoseConfig) -> bool:
    """Decide between the epipolar model and the one without translation.

    Either of two findings speaks for translation. Of the matches that no rotation explains, more lie on their epipolar
    lines than chance puts there. Or, among the matches that both models explain, the errors of the rotation are larger
    along the epipolar lines, where parallax moves a point, than across, where only noise does. Medians of both, so that
    neither the size nor the tails of the noise matter.
    """
    if _is_more_than_chance(moved, ~turned.inliers, config):
        return True
    both = moved.inliers & turned.inliers
    count = int(both.sum())
    if count < config.min_inliers:
        return False
    across = np.median(moved.errors[both] ** 2)
    along = np.median(np.maximum(turned.errors[both] ** 2 - moved.errors[both] ** 2, 0))
    noise = max(across, (MEDIAN_OF_NORMAL[1] * MIN_SIGMA_PX) ** 2)
    # The logarithm of the ratio of two such medians scatters by 3.3 / sqrt(count) for normal noise; three sigma. Errors
    # that go together count as fewer.
    return bool(along > noise * ALONG_TO_ACROSS * np.exp(3 * 3.3 / np.sqrt(count / moved.inflation)))


def _moved_pose(fit: Fit, points: Points, num_matches: int, config: PoseConfig) -> RelativePose:
    to_six = np.zeros((6, 5))
    to_six[3:, :3] = np.eye(3)
    to_six[:3, 3:] = models.tangent(fit.translation)
    covariance = to_six @ fit.covariance @ to_six.T
    covariance[:3, :3] += UNKNOWN_VARIANCE * np.outer(fit.translation, fit.translation)
    parallax = _median_parallax_deg(fit, points)
    return RelativePose(
        cam1_from_cam0=geometry.transform(fit.rotation, fit.translation),
        covariance=covariance,
        inliers=_in_matches(fit.inliers, points, num_matches),
        median_parallax_deg=parallax,
        epipolar_rmse_px=float(np.sqrt(np.mean(fit.errors[fit.inliers] ** 2))),
        status=PoseStatus.LOW_PARALLAX if parallax < config.min_parallax_deg else PoseStatus.OK,
    )


def _turned_pose(fit: Fit, points: Points, num_matches: int, camera1: Camera, config: PoseConfig) -> RelativePose:
    covariance = np.zeros((6, 6))
    covariance[:3, :3] = UNKNOWN_VARIANCE * np.eye(3)
    covariance[3:, 3:] = fit.covariance
    rmse = float(np.sqrt(np.mean(fit.errors[fit.inliers] ** 2) / 2))
    # The motion that the rotation itself makes in the image, free of the noise of the single match.
    rays = points.points0[fit.inliers]
    motion = geometry.project(camera1, rays @ fit.rotation.T) - geometry.project(camera1, rays)
    still_px = max(rmse, STATIC_SHARE * config.max_epipolar_error_px)
    is_still = np.nanmedian(np.linalg.norm(motion, axis=1)) <= still_px
    return RelativePose(
        cam1_from_cam0=geometry.transform(fit.rotation, np.zeros(3)),
        covariance=covariance,
        inliers=_in_matches(fit.inliers, points, num_matches),
        median_parallax_deg=_median_parallax_deg(fit, points),
        epipolar_rmse_px=rmse,
        status=PoseStatus.STATIC if is_still else PoseStatus.PURE_ROTATION,
    )


def _failure(candidates: list[Fit], sure: list[Fit], num_matches: int, config: PoseConfig) -> PoseFailure:
    count = max(fit.count for fit in candidates)
    if count < config.min_inliers:
        reason = f'{count} matches agree on one motion, at least {config.min_inliers} needed (pose.min_inliers)'
    elif not sure:
        reason = f'{count} matches agree on one motion, no more than wrong matches would by chance'
    else:
        reason = f'{count} matches agree, but they do not determine the motion: they lie on a line or too near together'
    return PoseFailure(PoseStatus.TOO_FEW_INLIERS, reason, num_matches, count)


def _median_parallax_deg(fit: Fit, points: Points) -> float:
    rays0, rays1 = points.points0[fit.inliers, :2], points.points1[fit.inliers, :2]
    return float(np.rad2deg(np.median(geometry.parallax_angles(fit.rotation, rays0, rays1))))


def _in_matches(inliers: np.ndarray, points: Points, num_matches: int) -> np.ndarray:
    mask = np.zeros(num_matches, dtype=bool)
    mask[points.rows[inliers]] = True
    return mask
