"""Fits of both models of a pair of images, full motion and rotation only, with the evidence for each."""

from __future__ import annotations

import dataclasses

import numpy as np

from loftr_ros import geometry
from loftr_ros.config import PoseConfig
from loftr_ros.pose import models
from loftr_ros.pose.acceptance import Order, log10_false_alarms, neighbour_order
from loftr_ros.pose.least_squares import minimise, noise_px
from loftr_ros.pose.models import ROTATION_THRESHOLD_RATIO, Points
from loftr_ros.pose.robust import motions_of_plane, robust_pose, robust_rotation

MAX_STD_RAD = 0.5
"""A pose with a larger standard deviation of rotation or direction is not determined: its covariance is linearised."""

MIN_CHEIRALITY_SIGMAS = 3.0
"""Standard deviations by which the points must be in front of the cameras and not behind them."""

SEARCHED = 500
"""Matches among which motions are searched and compared, spread over the image; all of them refine the result."""

PLANE_SHARE = 0.6
"""If a plane has more than this share of the inliers of the pose, the second motion of that plane is tried."""

DISTINCT_ROTATION_RAD, DISTINCT_DIRECTION_RAD = np.deg2rad(0.5), np.deg2rad(10.0)
"""Two motions count as one if rotation and direction differ by less, or by less than DISTINCT_SIGMAS."""

DISTINCT_SIGMAS = 4.0
UNDECIDED_SIGMAS = 4.0
"""The images decide between two motions if the errors of one are smaller by this many standard deviations."""

CLIP_SIGMAS = 3.0


@dataclasses.dataclass(frozen=True, eq=False)
class Fit:
    """A fitted model and the evidence for it.

    Args:
        errors: (n,) absolute [px], infinite where the model puts the point behind a camera.
        inliers: (n,) bool, errors up to the threshold.
        covariance: of the degrees of freedom of the model [rad^2].
        inflation: factor by which the dependence between errors of neighbours enlarged it.
        log10_false_alarms, order: see `acceptance`; unknown before the fit is judged.
        cheirality_sigmas: by how many standard deviations the points are in front of the cameras; 0 without
            translation.
        other, other_sigmas: another motion that explains the matches as well, and by how many standard deviations the
            sum of its squared errors is larger.
    """

    rotation: np.ndarray
    translation: np.ndarray
    errors: np.ndarray
    inliers: np.ndarray
    covariance: np.ndarray
    inflation: float
    log10_false_alarms: float = np.nan
    order: Order | None = None
    cheirality_sigmas: float = 0.0
    other: Fit | None = None
    other_sigmas: float = np.inf

    @property
    def count(self) -> int:
        return int(self.inliers.sum())

    def is_determined(self, points: Points, threshold: float) -> bool:
        """Whether the inliers determine the motion: they are not on one line, and the covariance is small enough."""
        if not np.all(np.isfinite(self.covariance)) or np.linalg.eigvalsh(self.covariance)[-1] > MAX_STD_RAD**2:
            return False
        across = [_width_across_line(rays[:2, self.inliers]) for rays in (points.rays0, points.rays1)]
        return max(across) * points.focal_px > threshold


def _width_across_line(points: np.ndarray) -> float:
    """Return the root mean square distance of points (2, n) from the line that fits them best."""
    return float(np.sqrt(max(np.linalg.eigvalsh(np.cov(points, ddof=0))[0], 0.0)))


# --- rotation alone ----------------------------------------------------------------------------------------------


def fit_rotation(points: Points, config: PoseConfig) -> Fit:
    """Return the rotation that most matches agree on, from some of them: to compare it with other motions."""
    sample = points.spread(SEARCHED)
    return _refine_rotation(robust_rotation(sample, config), sample, points, config, rough=True)


def judge_rotation(fit: Fit, points: Points, config: PoseConfig) -> Fit:
    """Return the fit of `fit_rotation`, now from all points, with the evidence for it."""
    threshold = ROTATION_THRESHOLD_RATIO * config.max_epipolar_error_px
    fit = _refine_rotation(fit.rotation, points, points, config)
    return _with_evidence(fit, points, 2, lambda some: _errors_of_rotation(fit.rotation, some) <= threshold)


def _refine_rotation(start, sample: Points, points: Points, config: PoseConfig, rough: bool = False) -> Fit:
    """Return the rotation that fits the sample best, with the errors of all points."""
    threshold = ROTATION_THRESHOLD_RATIO * config.max_epipolar_error_px
    white = models.whitening(start, sample)
    rotation, covariance, inflation = minimise(
        lambda state: models.rotation_model(state, sample, white),
        models.retract_rotation,
        start,
        sample.weights,
        sample.tiles,
        threshold,
        rough,
    )
    errors = _errors_of_rotation(rotation, points)
    return Fit(rotation, np.zeros(3), errors, errors <= threshold, covariance, inflation)


def _errors_of_rotation(rotation: np.ndarray, points: Points) -> np.ndarray:
    return np.linalg.norm(models.rotation_errors(rotation, points, models.whitening(rotation, points)), axis=0)


# --- rotation and translation ------------------------------------------------------------------------------------


def fit_epipolar(points: Points, rotation_only: Fit, config: PoseConfig) -> Fit | None:
    """Return the best refined epipolar model, judged, or None if the robust estimator found none.

    With little parallax, forward motion and sideways motion with rotation look alike, and the search may end in the
    wrong one. The rotation-only model has the right rotation for forward motion, so it gives a second initial pose. A
    plane allows two motions; if it contains most of the matches, both are tried, and the worse one is kept as `other`
    unless its errors exclude it.
    """
    threshold = config.max_epipolar_error_px
    sample = points.spread(SEARCHED)
    start = robust_pose(sample, config)
    if start is None:
        return None
    fits = [_refine(start, sample, threshold, rough=True)]
    if rotation_only.count / len(points) > fits[0].count / len(sample) / 2:
        direction = models.direction_of_translation(rotation_only.rotation, sample, threshold)
        fits.append(_refine((rotation_only.rotation, direction), sample, threshold, rough=True))
    most = max(fits, key=lambda fit: fit.count)
    motions, on_plane = motions_of_plane(sample.select(np.flatnonzero(most.inliers)), config)
    if on_plane > PLANE_SHARE * most.count:
        known_motions = [(fit.rotation, fit.translation) for fit in fits]
        for rotation, translation in motions:
            start = rotation, models.resolve_sign(rotation, translation, sample, threshold)
            # Both signs of a motion are one start; the plane's motion that was found already would end there again.
            if not any(_is_close(start, known) for known in known_motions):
                fits.append(_refine(start, sample, threshold, rough=True))
                known_motions += [start, (fits[-1].rotation, fits[-1].translation)]
    fits = [fit for fit in fits if fit.count]
    if not fits:
        return None
    best = _select(fits, sample)
    some = [best] if best.other is None else [best, best.other]
    best = _select([_refine((fit.rotation, fit.translation), points, threshold) for fit in some], points)
    return _judge_motion(best, points, threshold)


def _refine(start, points: Points, threshold: float, rough: bool = False) -> Fit:
    """Return the motion that fits the points best, from one whose translation has the right sign."""
    impossible = ~models.is_in_front(*start, points, threshold)

    def model(state):
        errors, jacobian, expected = models.epipolar_model(state, points)
        errors[:, impossible] = np.inf
        return errors, jacobian, expected

    (rotation, translation), covariance, inflation = minimise(
        model, models.retract_pose, start, points.weights, points.tiles, threshold, rough
    )
    translation = models.resolve_sign(rotation, translation, points, threshold)
    possible = models.is_in_front(rotation, translation, points, threshold)
    errors = np.where(possible, np.abs(models.epipolar_errors(rotation, translation, points)), np.inf)
    return Fit(rotation, translation, errors, errors <= threshold, covariance, inflation)


def _select(fits: list[Fit], points: Points) -> Fit:
    """Return the fit with the smallest errors, and as its `other` the next distinct one that they do not exclude.

    The errors count by the noise of the most precise fit: in thresholds, wrong matches that go together would outweigh
    the precision of the right ones. The errors of two motions are two projections of the same noise: even where both
    are right their sums of squares differ, and how much by chance the differences at the single matches tell (Vuong,
    Econometrica 1989).
    """
    sigma = min(noise_px(fit.errors[None, fit.inliers], np.inf) for fit in fits)
    squares = {id(fit): np.minimum(fit.errors / sigma, CLIP_SIGMAS) ** 2 for fit in fits}
    best, *others = sorted(fits, key=lambda fit: squares[id(fit)].sum())
    for fit in others:
        difference = squares[id(fit)] - squares[id(best)]
        scatter = _scatter_of_sum(difference, points.tiles, best.inflation)
        sigmas = float(difference.sum()) / max(scatter, np.finfo(float).tiny)
        if sigmas < UNDECIDED_SIGMAS and np.all(np.isfinite(fit.covariance)) and _are_distinct(best, fit):
            return dataclasses.replace(best, other=fit, other_sigmas=sigmas)
    return best


def _scatter_of_sum(values: np.ndarray, groups: np.ndarray, inflation: float) -> float:
    """Return the standard deviation of the sum of values (n,) that depend on each other within groups (n,).

    Both estimates below are too large, each for its own reason, so the smaller one counts: the sums of groups also
    differ where the values differ from place to place without any noise, and the inflation of a fit also where its
    errors have a mean near the epipole.
    """
    values = values - values.mean()
    independent = np.sum(values**2)
    sums = np.bincount(np.unique(groups, return_inverse=True)[1], values)
    by_group = np.sum(sums**2) * len(sums) / max(len(sums) - 1, 1)
    return float(np.sqrt(np.clip(by_group, independent, inflation * independent)))


def _is_close(one, another) -> bool:
    """Return whether two motions (rotation, unit translation) are closer than any that count as two."""
    turn = np.linalg.norm(geometry.vector_from_rotation(another[0] @ one[0].T))
    return bool(turn < DISTINCT_ROTATION_RAD and geometry.angle_between(one[1], another[1]) < DISTINCT_DIRECTION_RAD)


def _are_distinct(one: Fit, another: Fit) -> bool:
    step = np.concatenate(
        [
            geometry.vector_from_rotation(another.rotation @ one.rotation.T),
            models.tangent(one.translation).T @ another.translation,
        ]
    )
    if _is_close((one.rotation, one.translation), (another.rotation, another.translation)):
        return False
    if not np.all(np.isfinite(one.covariance)):
        return False
    return bool(step @ np.linalg.pinv(one.covariance) @ step > DISTINCT_SIGMAS**2)


def _judge_motion(fit: Fit, points: Points, threshold: float) -> Fit:
    """Return the fit with the evidence for it."""

    def agrees(some: Points) -> np.ndarray:
        near = np.flatnonzero(np.abs(models.epipolar_errors(fit.rotation, fit.translation, some)) <= threshold)
        agree = np.zeros(len(some), bool)
        agree[near] = models.is_in_front(fit.rotation, fit.translation, some.select(near), threshold)
        return agree

    fit = _with_evidence(fit, points, 5, agrees)
    return dataclasses.replace(fit, cheirality_sigmas=_cheirality_sigmas(fit, points))


def _with_evidence(fit: Fit, points: Points, freedom: int, agrees) -> Fit:
    order = neighbour_order(fit.inliers, points)
    log10 = log10_false_alarms(fit.inliers, points, freedom, agrees, order)
    return dataclasses.replace(fit, log10_false_alarms=log10, order=order)


def _cheirality_sigmas(fit: Fit, points: Points) -> float:
    """Return how significantly the inliers are in front of the cameras, not behind, in standard deviations.

    Each inlier votes with its parallax in standard deviations. The variance of the sum includes the error of the
    rotation, which changes all votes alike and dominates where all parallaxes are small. A second count uses only the
    inliers that are significant by themselves: these are few where most points are far. The larger result is returned.
    """
    if not np.all(np.isfinite(fit.covariance)):
        return 0.0
    parallax, along = models.parallax_px(fit.rotation, fit.translation, points)
    white = models.whitening(fit.rotation, points)
    turns = np.einsum('in,pin->pn', along, models.rotation_model(fit.rotation, points, white)[1])  # (3, n) px by rad
    errors = np.abs(models.epipolar_errors(fit.rotation, fit.translation, points))
    near = (errors <= fit.errors[fit.inliers].max(initial=0)) & np.isfinite(parallax)
    parallax, turns = parallax[near], turns[:, near]
    if not len(parallax):
        return 0.0
    noise = noise_px(fit.errors[None, fit.inliers], np.inf)
    of_rotation = fit.covariance[:3, :3]
    sigma = np.sqrt(noise**2 + np.sum(turns * (of_rotation @ turns), axis=0))
    common = (turns / sigma).sum(axis=1)
    variance = fit.inflation * np.sum((noise / sigma) ** 2) + common @ of_rotation @ common
    votes = parallax / sigma
    most = max(CLIP_SIGMAS, 2 * float(np.median(np.abs(votes))))
    by_sum = np.clip(votes, -most, most).sum() / np.sqrt(variance)
    clear = votes[np.abs(votes) > CLIP_SIGMAS]
    if not len(clear):
        return float(by_sum)
    # An error of the rotation changes all votes alike, so together they are not more certain than a single one.
    by_clear = np.clip(np.sign(clear).sum() / np.sqrt(len(clear)), *np.median(np.abs(clear)) * np.array([-1, 1]))
    return float(max(by_sum, by_clear, key=abs))
