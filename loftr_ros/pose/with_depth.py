"""Motion from matches whose points in image 0 have a known depth, so that the translation has its true length.

Depths are inverse depths with a standard deviation each. The error of a match in image 1 is whitened with the noise of
the match and that of the depth, which moves the point along its epipolar line. A match with an unknown depth therefore
counts across its epipolar line only, as in the essential matrix, and no match needs to be left out.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from loftr_ros import geometry
from loftr_ros.camera import Camera
from loftr_ros.config import PoseConfig
from loftr_ros.datatypes import Matches, PoseFailure, PoseStatus, RelativePose, Scale
from loftr_ros.errors import MissingDependencyError
from loftr_ros.pose import models
from loftr_ros.pose.acceptance import log10_false_alarms, neighbour_order
from loftr_ros.pose.inverse_depth import MIN_INVERSE_DEPTH, InverseDepth, depth_along_line
from loftr_ros.pose.least_squares import minimise
from loftr_ros.pose.models import ROTATION_THRESHOLD_RATIO, Points
from loftr_ros.pose.robust import MAX_ITERATIONS, MIN_ITERATIONS, robust_pose

SEARCHED = 500
"""Matches among which the motion is searched, spread over the image."""

TRACKED_SHARE = 0.5
"""If this share of the matches supports what a guess leads to, no other motion is searched."""

NEAR_THRESHOLDS = 5.0
"""A guess is used if TRACKED_SHARE of the matches agree with it within this number of thresholds. From a worse guess,
least squares can end at a wrong motion: on rendered drives 65 mm off, with 70 % of the matches as inliers."""

PREFERENCE = 1.25
"""Another motion must have this many times the support; on a floor of tiles a wrong one had up to 1.2 times."""

MAX_ROUNDS = 6
SMALL_MOVE = 0.2
"""The rounds of a refinement end when the points move by less than this share of the threshold."""

LENGTH_QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)

FREEDOM = 3
"""Number of matches with depth that determine a motion."""

MAX_STD_RAD = 0.1
"""A rotation with a larger standard deviation is not determined."""


@dataclasses.dataclass(frozen=True, eq=False)
class _Problem:
    """Points with inverse depth (n,), its standard deviation, and the standard deviation of each match [px]."""

    points: Points
    depth: InverseDepth
    sigma_px: np.ndarray

    def select(self, index: np.ndarray) -> _Problem:
        return _Problem(self.points.select(index), self.depth.select(index), self.sigma_px[index])

    def spread(self, count: int) -> _Problem:
        """Return `count` points at most, spread over the image."""
        some = self.points.spread(count)
        return self.select(np.searchsorted(self.points.rows, some.rows))

    def cost(self, pose: np.ndarray, threshold: float) -> float:
        """Return the truncated sum of squared errors of a pose."""
        return float(np.minimum(self.squared_errors(pose), threshold**2).sum())

    def support(self, pose: np.ndarray, threshold: float) -> float:
        """Return the share of the points that agree with a pose."""
        return float(np.mean(self.squared_errors(pose) <= threshold**2))

    def project(self, pose: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the points in camera 1 times their inverse depth in camera 0 (3, n), its z (n,), the image (2, n)."""
        rotation, translation = pose[:3, :3], pose[:3, 3]
        point = rotation @ self.points.rays0 + translation[:, None] * self.depth.value
        z = np.where(point[2] > 0, point[2], np.inf)
        return point, z, point[:2] / z

    def whitening(self, pose: np.ndarray) -> np.ndarray:
        """Return (2, 2, n), from a difference of normalised points in image 1 to an error [px] with equal noise.

        The noise of the depth has the direction v of the epipolar line: the covariance is that of 1 px of noise,
        I + s v v^T with a unit vector v, whose inverse root is I - (1 - 1 / sqrt(1 + s)) v v^T.
        """
        _, z, image = self.project(pose)
        along = (pose[:2, 3, None] - image * pose[2, 3]) / z  # derivative of the image by the inverse depth
        along = np.einsum('ijn,jn->in', self.points.to_px1, along)
        length = np.maximum(np.sqrt(np.sum(along**2, axis=0)), np.finfo(float).tiny)
        with np.errstate(invalid='ignore'):  # infinity times 0: an unknown depth without parallax does not matter
            share = np.nan_to_num(length * self.depth.sigma / self.sigma_px, nan=0.0, posinf=1e9)
        shrink = 1 - 1 / np.sqrt(1 + share**2)
        direction = along / length
        white = self.points.to_px1.copy()
        across = np.einsum('in,ijn->jn', direction, self.points.to_px1)
        white -= shrink * direction[:, None] * across[None]
        return white

    def with_triangulated(self, pose: np.ndarray) -> _Problem:
        """Return the problem in which unknown depths are those that agree best with a motion.

        They do not count, but the derivatives of a point depend on its place on the epipolar line.
        """
        unknown = ~np.isfinite(self.depth.sigma)
        if not unknown.any():
            return self
        value = self.depth.value.copy()
        value[unknown] = np.maximum(depth_along_line(self.points, pose)[0][unknown], MIN_INVERSE_DEPTH)
        return dataclasses.replace(self, depth=InverseDepth(value, self.depth.sigma))

    def squared_errors(self, pose: np.ndarray) -> np.ndarray:
        """Return the squares of the errors (n,) [px^2], whitened for the pose itself."""
        _, z, image = self.project(pose)
        return np.sum(models.projection_errors(image, z, self.points, self.whitening(pose)) ** 2, axis=0)

    def model(self, pose: np.ndarray, white: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return errors (2, n), derivatives (6, 2, n) by the steps of `_retract`, and the same as expected."""
        point, z, image = self.project(pose)
        x, y = image
        rotated = point - pose[:3, 3, None] * self.depth.value
        zero, near = np.zeros_like(x), self.depth.value
        by_point = np.array([[near, zero], [zero, near], [-x * near, -y * near]])  # x, y, z of the translation
        a, b, c = rotated
        by_rotation = np.array([[-x * b, -c - y * b], [c + x * a, y * a], [-b, a]])
        slope = np.concatenate([by_point, by_rotation]) / z  # (6, 2, n): the image by translation and rotation
        jacobian = -np.einsum('ijn,pjn->pin', white, slope)
        return models.projection_errors(image, z, self.points, white), jacobian, jacobian


def estimate_pose_with_depth(
    matches: Matches,
    camera0: Camera,
    camera1: Camera,
    depth: InverseDepth,
    config: PoseConfig,
    scale: Scale,
    guesses: Sequence[np.ndarray] = (),
) -> RelativePose | PoseFailure:
    """Return the motion from camera 0 to camera 1 with its length, or why the matches give none.

    Inliers have a whitened error up to the threshold of `config.max_epipolar_error_px`. The covariance is full: it has
    no unknown direction. The status is always OK; a translation may be smaller than its deviation.

    Args:
        depth: of keypoints0, N. At least `config.min_inliers` must be reliable.
        scale: where the depths come from.
        guesses: (4, 4) motions that are expected, for example from the last velocity. What they lead to is preferred to
            another motion with only slightly more support: tiles and other repeated patterns match one period off.
    """
    points = models.usable_points(matches, camera0, camera1)
    problem = _problem(points, depth, matches.sigma_px)
    num_reliable = np.count_nonzero(problem.depth.reliable)
    if num_reliable < config.min_inliers:
        return PoseFailure(
            PoseStatus.TOO_FEW_MATCHES,
            f'{num_reliable} of {len(matches)} matches have a depth, at least {config.min_inliers} needed '
            '(pose.min_inliers)',
            len(matches),
        )
    threshold = ROTATION_THRESHOLD_RATIO * config.max_epipolar_error_px
    best = _best(problem, config, threshold, guesses)
    if best is None:
        return PoseFailure(PoseStatus.TOO_FEW_INLIERS, 'no motion explains the matches', len(matches))
    return _judged(*best, len(matches), config, threshold, scale)


def _best(problem: _Problem, config: PoseConfig, threshold: float, guesses: Sequence[np.ndarray]):
    """Return pose, covariance and problem of the motion to use, None if the search finds none."""
    some = problem.spread(SEARCHED)
    expected = None
    guesses = [pose for pose in guesses if some.support(pose, NEAR_THRESHOLDS * threshold) >= TRACKED_SHARE]
    if guesses:
        expected = _refined(problem, min(guesses, key=lambda pose: some.cost(pose, threshold)), threshold)
        if some.support(expected[0], threshold) >= TRACKED_SHARE:
            return expected
    found = _search(problem, some, config, threshold)
    if found is None:
        return expected
    other = _refined(problem, found, threshold)
    if expected is None or some.support(other[0], threshold) > PREFERENCE * some.support(expected[0], threshold):
        return other
    return expected


def _refined(problem: _Problem, pose: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray, _Problem]:
    """Return the best pose near a pose, its covariance and the problem with the depths that belong to it.

    Whitening and unknown depths belong to a pose. So a part of the points is used until they no longer move.
    """
    some = problem.spread(SEARCHED)
    for _ in range(MAX_ROUNDS):
        before = some.project(pose)[2]
        pose, _, _ = _refined_once(some, pose, threshold, rough=True)
        moved_px = some.points.focal_px * np.linalg.norm(some.project(pose)[2] - before, axis=0)
        if np.median(moved_px) < SMALL_MOVE * threshold:
            break
    return _refined_once(problem, pose, threshold)


def _refined_once(
    problem: _Problem, pose: np.ndarray, threshold: float, rough: bool = False
) -> tuple[np.ndarray, np.ndarray, _Problem]:
    problem = problem.with_triangulated(pose)
    model = functools.partial(problem.model, white=problem.whitening(pose))
    points = problem.points
    pose, covariance, _ = minimise(model, _retract, pose, points.weights, points.tiles, threshold, rough)
    return pose, covariance, problem


def _problem(points: Points, depth: InverseDepth, sigma_px: np.ndarray) -> _Problem:
    depth = depth.select(points.rows)
    value, sigma = depth.value.copy(), depth.sigma.copy()
    known = np.isfinite(value) & (value > 0) & np.isfinite(sigma)
    value[~known] = np.median(value[known]) if known.any() else 1.0  # any value: only the direction of its line counts
    sigma[~known] = np.inf
    noise = sigma_px[points.rows].astype(np.float64)
    noise_known = np.isfinite(noise) & (noise > 0)
    noise[~noise_known] = np.median(noise[noise_known]) if noise_known.any() else 1.0
    return _Problem(points, InverseDepth(value, sigma), noise)


def _retract(pose: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Apply a step (6,): translation, then a rotation vector from the left. The order is that of covariances."""
    return geometry.transform(models.retract_rotation(pose[:3, :3], step[3:]), pose[:3, 3] + step[:3])


def _search(problem: _Problem, some: _Problem, config: PoseConfig, threshold: float) -> np.ndarray | None:
    """Return the best pose (4, 4) of random searches among the points with depth and among all points.

    All points judge them, because those with depth may be a minority on one repeated pattern.
    """
    near = problem.select(np.flatnonzero(problem.depth.reliable)).spread(SEARCHED)
    found = (_by_poselib if config.estimator == 'poselib' else _by_opencv)(near, config, threshold)
    candidates = [] if found is None else [found]
    direction = robust_pose(some.points, config)
    if direction is not None:
        candidates += [geometry.transform(direction[0], length * direction[1]) for length in _lengths(near, direction)]
    return min(candidates, key=lambda pose: some.cost(pose, threshold)) if candidates else None


def _lengths(near: _Problem, direction: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Return lengths of the translation that some of the depths give."""
    value, _, _ = depth_along_line(near.points, geometry.transform(*direction))
    lengths = (value / near.depth.value)[value > 0]
    return np.quantile(lengths, LENGTH_QUANTILES) if len(lengths) else np.empty(0)


def _by_poselib(problem: _Problem, config: PoseConfig, threshold: float) -> np.ndarray | None:
    try:
        import poselib
    except ImportError as error:
        raise MissingDependencyError(
            'poselib is not installed; pip install poselib, or set pose.estimator to opencv (less accurate)'
        ) from error
    focal = problem.points.focal_px
    camera = {'model': 'SIMPLE_PINHOLE', 'width': 0, 'height': 0, 'params': [focal, 0.0, 0.0]}
    options = {
        'max_reproj_error': threshold,
        'success_prob': config.confidence,
        'seed': config.seed,
        'min_iterations': MIN_ITERATIONS,
        'max_iterations': MAX_ITERATIONS,
    }
    pose, info = poselib.estimate_absolute_pose(
        problem.points.pixels(focal)[1], _places(problem), camera, options, {'max_iterations': 0}
    )
    if info['num_inliers'] <= FREEDOM or not np.all(np.isfinite(pose.Rt)):
        return None
    return geometry.transform(geometry.nearest_rotation(pose.R), pose.t)


def _by_opencv(problem: _Problem, config: PoseConfig, threshold: float) -> np.ndarray | None:
    import cv2

    focal = problem.points.focal_px
    params = cv2.UsacParams()
    params.threshold, params.confidence = threshold, config.confidence
    params.randomGeneratorState, params.maxIterations = config.seed % 2**31, MAX_ITERATIONS
    matrix = np.diag([focal, focal, 1.0])
    try:
        found, _, turn, translation, _ = cv2.solvePnPRansac(
            _places(problem), problem.points.pixels(focal)[1], matrix, None, params=params
        )
    except cv2.error:
        return None
    if not found or not np.isfinite(translation).all() or not np.isfinite(turn).all():
        return None
    return geometry.transform(geometry.rotation_from_vector(turn.ravel()), translation.ravel())


def _places(problem: _Problem) -> np.ndarray:
    """Return the points (n, 3) in camera 0."""
    return np.ascontiguousarray((problem.points.rays0 / problem.depth.value).T)


def _judged(pose, covariance, problem: _Problem, num_matches: int, config: PoseConfig, threshold: float, scale: Scale):
    """Return the pose if more matches support it than wrong ones would, and if they determine it."""
    points = problem.points
    inliers = problem.squared_errors(pose) <= threshold**2
    count = int(inliers.sum())

    def fail(reason: str) -> PoseFailure:
        return PoseFailure(PoseStatus.TOO_FEW_INLIERS, reason, num_matches, count)

    if count < config.min_inliers:
        return fail(f'{count} matches agree on one motion, at least {config.min_inliers} needed (pose.min_inliers)')
    order = neighbour_order(inliers, points)
    if order.is_impossible:
        return fail(
            f'{count} matches agree, but no camera sees surfaces in this order: another place, or a mirror image'
        )
    by_row = np.empty(points.rows[-1] + 1, int)
    by_row[points.rows] = np.arange(len(points))

    def agrees(some: Points) -> np.ndarray:
        # Depth and noise belong to the point of image 0.
        own = by_row[some.rows]
        paired = _Problem(some, problem.depth.select(own), problem.sigma_px[own])
        return paired.squared_errors(pose) <= threshold**2

    false_alarms = log10_false_alarms(inliers, points, FREEDOM, agrees, order)
    if false_alarms > config.max_log10_false_alarms:
        return fail(
            f'{count} matches agree on one motion, and wrong matches alone could do so: log10 of false alarms is '
            f'{false_alarms:.1f}, at most {config.max_log10_false_alarms:g} needed (pose.max_log10_false_alarms)'
        )
    if not np.isfinite(covariance).all() or np.linalg.eigvalsh(covariance[3:, 3:])[-1] > MAX_STD_RAD**2:
        return fail(f'{count} matches agree, but they do not determine the motion: they are on a line or too close')
    rotation, translation = pose[:3, :3], pose[:3, 3]
    in_matches = np.zeros(num_matches, bool)
    in_matches[points.rows[inliers]] = True
    rays0, rays1 = (rays[:2, inliers].T for rays in (points.rays0, points.rays1))
    length = np.linalg.norm(translation)
    if length > 0:
        errors = models.epipolar_errors(rotation, translation / length, points)[inliers]
    else:
        errors = models.rotation_errors(rotation, points, models.whitening(rotation, points))[0, inliers]
    return RelativePose(
        pose,
        covariance,
        in_matches,
        float(np.rad2deg(np.median(geometry.parallax_angles(rotation, rays0, rays1)))),
        float(np.sqrt(np.mean(errors**2))),
        scale,
        log10_false_alarms=false_alarms,
    )
