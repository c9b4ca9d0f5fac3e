"""Robust least squares for any model, with the covariance of the result. Knows no cameras and no matches.

A model gives errors (k, n), their derivatives (p, k, n) with respect to the p degrees of freedom of its state, and the
expected derivatives: without the part that is proportional to the error and therefore has mean 0. Errors are in pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

BAND = 2.0
"""Errors up to this multiple of the threshold are used: more than the noise of any inlier, so that the cut does not
make the covariance too small."""

SIGMAS_OF_LOSS = 3.0
SIGMAS_OF_BAND = 5.0
"""Scale and cut of the loss once the noise is known; 98 % efficient for normal errors."""

MAX_LEVERAGE = 4.0
"""No measurement influences the result more than this many average ones."""

MIN_SIGMA_PX = 0.1
"""Smallest noise that is believed [px]: lens calibrations are no better."""

MEDIAN_OF_NORMAL = {1: 0.6745, 2: 1.1774, 3: 1.5382}
"""Median length of a standard normal vector, by its dimension k."""

MAX_STEPS = 12
SMALL_GAIN = 1e-4
"""The descent ends when a step reduces the loss by less: about a thirtieth of a standard deviation of the result."""

ROUGH_GAIN = 1e-2
"""The same where another pass follows: about a third of a standard deviation."""

SMALL_STEP = 1e-6
"""The descent also ends with a step shorter than this [rad]: 1e-3 px, far below any noise."""

Model = Callable[[Any], tuple[np.ndarray, np.ndarray, np.ndarray]]
"""State -> errors, derivatives, expected derivatives."""


class Estimate(NamedTuple):
    """Result of `minimise`.

    Args:
        state: the state with the smallest loss that was found.
        covariance: (p, p) of its degrees of freedom; NaN where the measurements do not determine them.
        inflation: factor, at least 1, by which dependence within groups enlarged the covariance.
    """

    state: Any
    covariance: np.ndarray
    inflation: float


def minimise(
    model: Model,
    retract: Callable[[Any, np.ndarray], Any],
    state: Any,
    weights: np.ndarray,
    groups: np.ndarray,
    threshold_px: float,
    rough: bool = False,
) -> Estimate:
    """Minimise a truncated Cauchy loss by the Levenberg-Marquardt method.

    Two passes: the first uses the threshold as the scale of the loss, the second the scale that the errors show, with
    bounded leverage of each measurement.

    Args:
        model: see above; its errors may be infinite.
        retract: (state, step (p,)) -> state; applies a step to the state.
        state: where to start.
        weights: (n,) relative precision of each measurement, an inverse standard deviation.
        groups: (n,) int; errors of one group may depend on each other, errors of different groups do not.
        threshold_px: errors of inliers are smaller [px].
        rough: the result is only compared with others, or where another minimisation starts.
    """
    band = BAND * threshold_px
    state, here = _descend(model, retract, state, model(state), weights, threshold_px, band, ROUGH_GAIN)
    errors, _, expected = here
    sigma = noise_px(errors, band)
    scale, band = min(threshold_px, SIGMAS_OF_LOSS * sigma), min(band, SIGMAS_OF_BAND * sigma)
    weights = _bound_leverage(expected, weights, _length(errors) <= band)
    gain = ROUGH_GAIN if rough else SMALL_GAIN
    state, (errors, _, expected) = _descend(model, retract, state, here, weights, scale, band, gain)
    return Estimate(state, *_covariance(errors, expected, weights, groups, scale, band))


def noise_px(errors: np.ndarray, band: float) -> float:
    """Return the standard deviation of errors (k, n) along one axis [px], from their median length within `band`."""
    length = _length(errors)
    length = length[length <= band]
    return max(float(np.median(length)) / MEDIAN_OF_NORMAL[len(errors)], MIN_SIGMA_PX) if len(length) else band


def _length(errors: np.ndarray) -> np.ndarray:
    return np.sqrt(np.einsum('kn,kn->n', errors, errors))


def _descend(model, retract, state, here, weights, scale, band, small_gain):
    """Return the state with the smallest loss that was found, and the result of the model there; `here`: at `state`."""
    damping = 1e-4
    cost = _loss(here[0], weights, scale, band)
    for _ in range(MAX_STEPS):
        errors, jacobian, _ = here
        near, pull, _ = _influence(errors, weights, scale, band)
        root = weights[near] * np.sqrt(pull)
        rows = (jacobian[:, :, near] * root).reshape(len(jacobian), -1)
        normal, gradient = rows @ rows.T, rows @ (errors[:, near] * root).ravel()
        # A minimum of the diagonal keeps a direction fixed that no measurement constrains.
        ridge = damping * np.maximum(np.diag(normal), 1e-9 * np.trace(normal) + 1e-12)
        step = -np.linalg.solve(normal + np.diag(ridge), gradient)
        if np.linalg.norm(step) < SMALL_STEP or damping > 1e3:
            break
        candidate = retract(state, step)
        there = model(candidate)
        new_cost = _loss(there[0], weights, scale, band)
        if new_cost <= cost:
            gain, state, cost, here, damping = cost - new_cost, candidate, new_cost, there, damping / 10
            if gain < small_gain:
                break
        else:
            damping *= 10
    return state, here


def _influence(errors, weights, scale, band):
    """Return which errors are within the band (indices), their weights and the mean derivatives of their influence."""
    length = _length(errors)
    near = np.flatnonzero(length <= band)
    squares = (length[near] * weights[near] / scale) ** 2
    pull = 1 / (1 + squares)
    return near, pull, pull - 2 / len(errors) * squares * pull**2


def _loss(errors, weights, scale, band) -> float:
    return float(np.log1p((np.minimum(_length(errors), band) * weights / scale) ** 2).sum())


def _bound_leverage(jacobian, weights, near) -> np.ndarray:
    """Return weights (n,) with which no measurement has more than MAX_LEVERAGE times the mean leverage.

    For example, a wrong match that is on its epipolar line by chance, far from its true place, looks like a very near
    point and would decide the direction of translation alone (a Mallows-type estimator; Maronna et al., Robust
    Statistics, 5.11).
    """
    weights = weights.copy()
    near = np.flatnonzero(near)
    count, size = len(near), len(jacobian)
    if count <= size:
        return weights
    jacobian = jacobian[:, :, near]
    for _ in range(5):
        rows = jacobian * weights[near]
        flat = rows.reshape(size, -1)
        inverse = np.linalg.pinv(flat @ flat.T, hermitian=True)
        leverage = np.einsum('pkn,pkn->n', (inverse @ flat).reshape(rows.shape), rows)
        excess = leverage * (count / (MAX_LEVERAGE * size))
        if excess.max() <= 1.01:
            break
        weights[near] /= np.sqrt(np.maximum(1, excess))
    return weights


def _covariance(errors, jacobian, weights, groups, scale, band) -> tuple[np.ndarray, float]:
    """Return the (p, p) covariance of an M-estimate (Huber, Robust Statistics, 7.6), NaN where it is singular.

    It is that of independent errors, inflated for the dependence within groups. The inflation is returned as well.
    """
    near, pull, slope = _influence(errors, weights, scale, band)
    size = len(jacobian)
    freedom = len(near) * len(errors) - size
    if freedom <= 0 or slope.mean() <= 0:
        return np.full((size, size), np.nan), 1.0
    rows = jacobian[:, :, near] * weights[near]
    flat = rows.reshape(size, -1)
    normal = flat @ flat.T
    if np.linalg.cond(normal) > 1e12:
        return np.full((size, size), np.nan), 1.0
    influence = errors[:, near] * (weights[near] * pull)
    spread = np.sum(influence**2) / freedom
    scores = np.sum(rows * influence, axis=1)
    score_covariance, inflation = _covariance_of_sum(spread * normal, scores, groups[near])
    inverse = np.linalg.inv(normal) / slope.mean()
    covariance = inverse @ score_covariance @ inverse
    return (covariance + covariance.T) / 2, inflation


def _covariance_of_sum(independent, scores, groups) -> tuple[np.ndarray, float]:
    """Return the (p, p) covariance of the sum of scores (p, n) that depend on each other within groups.

    Also return its inflation, at least 1, relative to `independent`, the (p, p) covariance without dependence.

    Summed by group first (Liang and Zeger, Biometrika 1986, equation 5), dependent scores do not cancel. Their scatter
    gives the inflation and half of the shape, because few groups tell little about each direction. Few groups also
    estimate a variance badly: squared errors divided by it have the mean of an F distribution, d / (d - 2) with d
    degrees of freedom. The excess over 1 is enlarged by that.
    """
    _, number = np.unique(groups, return_inverse=True)
    count, size = number.max() + 1, len(scores)
    freedom = count - size
    if freedom <= 0 or not np.any(scores):
        return independent, 1.0  # the scores sum to 0: the sums of so few groups tell nothing
    sums = np.stack([np.bincount(number, score, count) for score in scores], axis=1)
    scatter = sums.T @ sums * count / freedom
    ratio = float(np.trace(np.linalg.solve(independent, scatter))) / size
    if ratio <= 1:
        return independent, 1.0
    inflation = 1 + (ratio - 1) * freedom / max(freedom - 2, 1)
    return inflation * (independent + scatter / ratio) / 2, inflation
