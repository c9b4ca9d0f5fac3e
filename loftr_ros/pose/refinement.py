"""Least squares that survive wrong matches, and the covariance that belongs to them. Knows nothing of cameras.

A model gives errors (n, k) [px], derivatives (n, k, p) by its p degrees of freedom, and these derivatives as expected,
without what is proportional to the error and so has the mean 0.
"""

from __future__ import annotations

import numpy as np

BAND = 2.0
"""Errors up to this multiple of the threshold are looked at: beyond the noise of any inlier, so that cutting there does
not make the covariance too small."""

SIGMAS_OF_LOSS = 3.0
SIGMAS_OF_BAND = 5.0
"""Scale and cut of the loss once the noise is known; with normal errors 98 % efficient."""

MAX_LEVERAGE = 4.0
"""No match has more influence on the pose than this many average ones."""

MIN_SIGMA_PX = 0.1
"""Smallest noise that is believed [px]: lens calibrations are no better."""

MEDIAN_OF_NORMAL = {1: 0.6745, 2: 1.1774}
"""Median length of a standard normal vector, by its dimension."""

MAX_STEPS = 12
SMALL_GAIN = 1e-5
"""The descent ends when a step lowers the loss by less: about a hundredth of a standard deviation of the pose."""

SMALL_STEP = 1e-6
"""Or with a step below this [rad]: 1e-3 px, far below any noise."""


def minimise(model, move, state, weights: np.ndarray, groups: np.ndarray, threshold_px: float):
    """Minimise a truncated Cauchy loss by Levenberg-Marquardt; return the state, its covariance (p, p) and inflation.

    Twice: with the threshold as the scale of the loss, then with the scale that the errors show, and with the leverage
    of the single match bounded.

    Args:
        model: state -> errors, derivatives, expected derivatives (see above); errors may be infinite.
        move: (state, step (p,)) -> state.
        weights: (n,) relative precision of each match, inverse standard deviation.
        groups: (n,) int; errors of one group may depend on each other, those of different groups do not.
    """
    band = BAND * threshold_px
    state = _descend(model, move, state, weights, threshold_px, band)
    errors, _, expected = model(state)
    sigma = noise_px(errors, band)
    scale, band = min(threshold_px, SIGMAS_OF_LOSS * sigma), min(band, SIGMAS_OF_BAND * sigma)
    weights = _bound_leverage(expected, weights, _length(errors) <= band)
    state = _descend(model, move, state, weights, scale, band)
    errors, _, expected = model(state)
    return state, *_covariance(errors, expected, weights, groups, scale, band)


def noise_px(errors: np.ndarray, band: float) -> float:
    """Return the standard deviation of errors (n, k) along one axis [px], from their median length within `band`."""
    length = _length(errors)
    length = length[length <= band]
    return max(float(np.median(length)) / MEDIAN_OF_NORMAL[errors.shape[1]], MIN_SIGMA_PX) if len(length) else band


def _length(errors: np.ndarray) -> np.ndarray:
    return np.sqrt(np.einsum('nk,nk->n', errors, errors))


def _descend(model, move, state, weights, scale, band):
    damping = 1e-4
    errors, jacobian, _ = model(state)
    cost = _loss(errors, weights, scale, band)
    for _ in range(MAX_STEPS):
        near, pull, _ = _influence(errors, weights, scale, band)
        root = (weights[near] * np.sqrt(pull))[:, None]
        rows = (jacobian[near] * root[:, :, None]).reshape(-1, jacobian.shape[2])
        normal, gradient = rows.T @ rows, rows.T @ (errors[near] * root).ravel()
        # A floor under the diagonal keeps a direction that no match constrains at rest.
        ridge = damping * np.maximum(np.diag(normal), 1e-9 * np.trace(normal) + 1e-12)
        step = -np.linalg.solve(normal + np.diag(ridge), gradient)
        if np.linalg.norm(step) < SMALL_STEP or damping > 1e3:
            break
        candidate = move(state, step)
        there = model(candidate)
        new_cost = _loss(there[0], weights, scale, band)
        if new_cost <= cost:
            gain, state, cost, damping = cost - new_cost, candidate, new_cost, damping / 10
            errors, jacobian, _ = there
            if gain < SMALL_GAIN:
                break
        else:
            damping *= 10
    return state


def _influence(errors, weights, scale, band):
    """Return which errors are within the band (n,), and of these the weight and mean derivative of the influence."""
    length = _length(errors)
    near = length <= band
    squares = (length[near] * weights[near] / scale) ** 2
    pull = 1 / (1 + squares)
    return near, pull, pull - 2 / errors.shape[1] * squares * pull**2


def _loss(errors, weights, scale, band) -> float:
    return float(np.log1p((np.minimum(_length(errors), band) * weights / scale) ** 2).sum())


def _bound_leverage(jacobian, weights, near) -> np.ndarray:
    """Return weights (n,) under which no match has more than MAX_LEVERAGE times the mean leverage.

    A wrong match that lies on its epipolar line by chance, far from where it belongs, passes for a very near point and
    would decide the direction alone (a Mallows-type estimator; Maronna et al., Robust Statistics, 5.11).
    """
    weights = weights.copy()
    count, size = near.sum(), jacobian.shape[2]
    if count <= size:
        return weights
    for _ in range(5):
        rows = jacobian[near] * weights[near, None, None]
        flat = rows.reshape(-1, size)
        inverse = np.linalg.pinv(flat.T @ flat, hermitian=True)
        leverage = np.einsum('nki,nki->n', rows @ inverse, rows)
        weights[near] *= np.sqrt(np.minimum(1, MAX_LEVERAGE * size / count / np.maximum(leverage, 1e-12)))
    return weights


def _covariance(errors, jacobian, weights, groups, scale, band) -> tuple[np.ndarray, float]:
    """Return the (p, p) covariance of an M-estimate (Huber, Robust Statistics, 7.6), NaN where it is singular.

    That of independent errors, inflated because errors go together within groups; the inflation is returned as well.
    """
    near, pull, slope = _influence(errors, weights, scale, band)
    size = jacobian.shape[2]
    freedom = near.sum() * errors.shape[1] - size
    if freedom <= 0 or slope.mean() <= 0:
        return np.full((size, size), np.nan), 1.0
    rows = jacobian[near] * weights[near, None, None]
    normal = np.einsum('nki,nkj->ij', rows, rows)
    if np.linalg.cond(normal) > 1e12:
        return np.full((size, size), np.nan), 1.0
    influence = errors[near] * (weights[near] * pull)[:, None]
    spread = np.sum(influence**2) / freedom
    scores = np.einsum('nki,nk->ni', rows, influence)
    score_covariance, inflation = _of_dependent(spread * normal, scores, groups[near])
    inverse = np.linalg.inv(normal) / slope.mean()
    covariance = inverse @ score_covariance @ inverse
    return (covariance + covariance.T) / 2, inflation


def _of_dependent(independent, scores, groups) -> tuple[np.ndarray, float]:
    """Return the (p, p) covariance of the sum of scores (n, p) that depend on each other within groups.

    Also return its inflation, at least 1, over `independent`, the (p, p) covariance if they did not. Summed by group
    first (Liang and Zeger, Biometrika 1986, equation 5), scores that go together do not cancel. Their scatter gives the
    inflation, and half of the shape: few groups tell little about each direction. Because they estimate a variance
    badly, squared errors over it have the mean of an F distribution, d / (d - 2) with d degrees of freedom; the excess
    over 1 is enlarged by that.
    """
    _, number = np.unique(groups, return_inverse=True)
    count, size = number.max() + 1, scores.shape[1]
    freedom = count - size
    if freedom <= 0 or not np.any(scores):
        return independent, 1.0  # the scores sum to 0: so few sums say nothing
    sums = np.stack([np.bincount(number, score, count) for score in scores.T], axis=1)
    scatter = sums.T @ sums * count / freedom
    ratio = float(np.trace(np.linalg.solve(independent, scatter))) / size
    if ratio <= 1:
        return independent, 1.0
    inflation = 1 + (ratio - 1) * freedom / max(freedom - 2, 1)
    return inflation * (independent + scatter / ratio) / 2, inflation
