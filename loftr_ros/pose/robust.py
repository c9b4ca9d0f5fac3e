"""Initial poses that many matches agree on, found by random search with a seed."""

from __future__ import annotations

import logging

import numpy as np

from loftr_ros import geometry
from loftr_ros.config import PoseConfig
from loftr_ros.errors import MissingDependencyError
from loftr_ros.pose import models
from loftr_ros.pose.models import ROTATION_THRESHOLD_RATIO, Points

logger = logging.getLogger(__name__)

MAX_ITERATIONS = 10000
MIN_ITERATIONS = 50
"""PoseLib's default of 1000 takes four times as long; least squares afterwards make up for the difference."""

MIN_MODEL_INLIERS = 6
"""Five matches fit any essential matrix exactly; with fewer inliers than this a result has no meaning."""

MIN_PLANE_MOTION = 1e-6
"""Ratio of translation to distance of the plane below which a homography is a rotation."""

PLANE_ITERATIONS = 1000
"""Samples of four matches: 99.9 % safe if 30 % of the matches are on the plane."""

ROTATION_HYPOTHESES = 200
ROTATION_SCORED = 200
"""Pairs of matches that propose a rotation, and matches that score it: safe at 99.9 % down to 20 % inliers."""


def robust_pose(points: Points, config: PoseConfig) -> tuple[np.ndarray, np.ndarray] | None:
    """Return (rotation, unit translation) by the configured estimator, or None if it found no model.

    Both estimators work in pixels of one ideal camera, so that the threshold has the same meaning for both.
    """
    pose = (_by_poselib if config.estimator == 'poselib' else _by_opencv)(points, config)
    if pose is None:
        return None
    return pose[0], models.resolve_sign(*pose, points, config.max_epipolar_error_px)


def _by_poselib(points: Points, config: PoseConfig):
    try:
        import poselib
    except ImportError as error:
        raise MissingDependencyError(
            'poselib is not installed; pip install poselib, or set pose.estimator to opencv (less accurate)'
        ) from error
    options = {
        'max_epipolar_error': config.max_epipolar_error_px,
        'success_prob': config.confidence,
        'seed': config.seed,
        'min_iterations': MIN_ITERATIONS,
        'max_iterations': MAX_ITERATIONS,
    }
    unknown = set(options) - set(poselib.RansacOptions())
    if unknown:  # PoseLib itself would silently ignore them
        raise MissingDependencyError(
            f'poselib {poselib.__version__} does not know {sorted(unknown)}; install poselib==2.0.5 or set '
            'pose.estimator to opencv'
        )
    focal = points.focal_px
    camera = {'model': 'SIMPLE_PINHOLE', 'width': 0, 'height': 0, 'params': [focal, 0.0, 0.0]}
    pixels = points.pixels(focal)
    pose, info = poselib.estimate_relative_pose(*pixels, camera, camera, options, {})
    # Without a model PoseLib returns the identity; only the number of inliers shows it.
    length = np.linalg.norm(pose.t)
    if info['num_inliers'] < MIN_MODEL_INLIERS or not np.all(np.isfinite(pose.Rt)) or not length > 0:
        return None
    return geometry.nearest_rotation(pose.R), pose.t / length


def _by_opencv(points: Points, config: PoseConfig):
    """Compare the four decompositions here: cv2.recoverPose drops points beyond 50 baselines."""
    try:
        import cv2
    except ImportError as error:
        raise MissingDependencyError('a pose needs poselib or cv2: pip install poselib') from error
    params = _usac(config, config.max_epipolar_error_px, MAX_ITERATIONS)
    focal = points.focal_px
    matrix = np.diag([focal, focal, 1.0])
    pixels = points.pixels(focal)
    try:
        essential, _ = cv2.findEssentialMat(*pixels, matrix, matrix, None, None, params)
    except cv2.error as error:
        logger.debug('findEssentialMat failed: %s', error)
        return None
    if essential is None or essential.shape != (3, 3) or not np.all(np.isfinite(essential)):
        return None
    candidates = [*geometry.decompose_essential(essential), *motions_of_plane(points, config)[0]]
    return min(candidates, key=lambda pose: models.cost(*pose, points, config.max_epipolar_error_px))


def _usac(config: PoseConfig, threshold_px: float, max_iterations: int):
    """Return cv2.UsacParams: only these take a seed, and for a homography they are eight times as fast as the names."""
    import cv2

    params = cv2.UsacParams()
    params.threshold = threshold_px
    params.confidence = config.confidence
    params.randomGeneratorState = config.seed % 2**31
    params.maxIterations = max_iterations
    params.sampler = cv2.SAMPLING_UNIFORM
    params.score = cv2.SCORE_METHOD_MSAC
    params.loMethod = cv2.LOCAL_OPTIM_INNER_LO
    return params


def motions_of_plane(points: Points, config: PoseConfig) -> tuple[list[tuple[np.ndarray, np.ndarray]], int]:
    """Return the motions (rotation, unit translation) that the plane with most matches allows, and its match count.

    Two views of a plane allow two motions, each with both signs (Faugeras and Lustman, 1988).
    """
    import cv2

    if len(points) < MIN_MODEL_INLIERS:
        return [], 0
    focal = points.focal_px
    pixels = points.pixels(focal)
    threshold_px = ROTATION_THRESHOLD_RATIO * config.max_epipolar_error_px
    homography, inliers = cv2.findHomography(*pixels, _usac(config, threshold_px, PLANE_ITERATIONS))
    if homography is None:
        return [], 0
    _, rotations, translations, _ = cv2.decomposeHomographyMat(homography, np.diag([focal, focal, 1.0]))
    moving = [
        (geometry.nearest_rotation(rotation), translation.ravel() / np.linalg.norm(translation))
        for rotation, translation in zip(rotations, translations, strict=True)
        # OpenCV gives NaN where the homography is singular.
        if np.isfinite(rotation).all() and np.linalg.norm(translation) > MIN_PLANE_MOTION
    ]
    return moving, int(inliers.sum())


def robust_rotation(points: Points, config: PoseConfig) -> np.ndarray:
    """Return the best of many rotations, each from two matches, by the truncated sum of squared angles."""
    random = np.random.default_rng(config.seed)
    rays0, rays1 = ((rays / np.linalg.norm(rays, axis=0)).T for rays in (points.rays0, points.rays1))
    pairs = random.integers(len(points), size=(ROTATION_HYPOTHESES, 2))
    frames0, frames1 = (_frames(rays[pairs[:, 0]], rays[pairs[:, 1]]) for rays in (rays0, rays1))
    hypotheses = np.concatenate([frames1 @ frames0.transpose(0, 2, 1), np.eye(3)[None]])
    some = random.permutation(len(points))[:ROTATION_SCORED]
    products = rays1[some, :, None] * rays0[some, None]  # (some, 3, 3); with a rotation R their sum is x1 . R x0
    miss = 2 - 2 * hypotheses.reshape(-1, 9) @ products.reshape(-1, 9).T  # squared lengths of x1 - R x0
    # The difference of two rays contains the noise of both images.
    limit = 2 * (ROTATION_THRESHOLD_RATIO * config.max_epipolar_error_px / points.focal_px) ** 2
    return hypotheses[np.argmin(np.minimum(miss, limit).sum(axis=1))]


def _frames(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return rotations (n, 3, 3) whose columns are the bisector of unit vectors a, b (n, 3), their difference, normal.

    Equal vectors define no frame: they get the identity, which is scored like any hypothesis.
    """
    columns = np.stack([a + b, a - b, np.cross(a + b, a - b)], axis=2)
    length = np.linalg.norm(columns, axis=1, keepdims=True)
    defined = length.min(axis=2) > 1e-9
    return np.where(defined[:, :, None], columns / np.where(length > 0, length, 1), np.eye(3))
