"""Robust least squares on problems without cameras: the answer and its covariance, also with wrong measurements."""

import ast
import inspect

import numpy as np
import pytest

from loftr_ros.pose import least_squares
from loftr_ros.pose.least_squares import minimise, noise_px

SIGMA = 0.5
THRESHOLD = 2.0
NUM_TRIALS = 200


def locate(measurements, groups=None, threshold=THRESHOLD):
    """Return the place (k,) from measurements of it (n, k), each axis with noise: the errors are k-dimensional."""
    count, size = measurements.shape
    jacobian = np.broadcast_to(np.eye(size)[..., None], (size, size, count))
    groups = np.arange(count) if groups is None else groups
    start = np.median(measurements, axis=0)
    return minimise(
        lambda place: ((place - measurements).T, jacobian, jacobian),
        np.add,
        start,
        np.ones(count),
        groups,
        threshold,
    )


def normalised_error(estimate, truth):
    """Return the squared error over the covariance, by degree of freedom; its mean is 1."""
    error = estimate.state - truth
    return error @ np.linalg.solve(estimate.covariance, error) / len(error)


def test_least_squares_imports_nothing_else_of_the_package():
    tree = ast.parse(inspect.getsource(least_squares))
    names = [getattr(node, 'module', None) or node.names[0].name for node in ast.walk(tree) if hasattr(node, 'names')]
    assert 'numpy' in names and not [name for name in names if name.startswith('loftr_ros')]


@pytest.mark.parametrize('size', [1, 2, 3])
def test_noise_is_estimated_for_errors_of_any_dimension(size):
    errors = np.random.default_rng(size).normal(size=(size, 20_000)) * SIGMA
    assert noise_px(errors, np.inf) == pytest.approx(SIGMA, rel=0.02)  # a median of 20000 values has 1 %


@pytest.mark.parametrize('size', [1, 2, 3])
def test_errors_are_as_large_as_the_covariance_says_in_spite_of_wrong_measurements(size):
    truth = np.array([3.0, -2.0, 5.0])[:size]
    errors, inflations = [], []
    for seed in range(NUM_TRIALS):
        random = np.random.default_rng(seed)
        measurements = truth + random.normal(size=(100, size)) * SIGMA
        measurements[:30] = truth + random.uniform(-50, 50, (30, size))
        estimate = locate(measurements)
        errors.append(normalised_error(estimate, truth))
        inflations.append(estimate.inflation)
    # The mean of 200 chi-square values by degree of freedom has a standard deviation of 0.1 or less.
    assert 0.75 < np.mean(errors) < 1.3
    assert np.median(inflations) < 1.5


def test_dependence_within_groups_enlarges_the_covariance_to_the_true_error():
    truth = np.zeros(2)
    groups = np.repeat(np.arange(25), 20)
    errors = []
    for seed in range(NUM_TRIALS):
        random = np.random.default_rng(seed)
        common = random.normal(size=(25, 2)) * 0.3
        measurements = common[groups] + random.normal(size=(500, 2)) * 0.3
        estimate = locate(measurements, groups)
        assert estimate.inflation > 2  # 20 errors with half of their variance in common: about 10
        errors.append(normalised_error(estimate, truth))
    assert 0.75 < np.mean(errors) < 1.3


def test_a_curved_problem_ends_at_the_minimum():
    """A circle: (centre, radius) from points on a half of it, far from the start."""
    random = np.random.default_rng(0)
    angle = random.uniform(0, np.pi, 200)
    centre, radius = np.array([4.0, -1.0]), 10.0
    points = centre + radius * np.column_stack([np.cos(angle), np.sin(angle)]) + random.normal(size=(200, 2)) * 0.05

    def model(state):
        ray = points - state[:2]
        length = np.linalg.norm(ray, axis=1, keepdims=True)
        jacobian = np.concatenate([-ray / length, -np.ones((200, 1))], axis=1).T[:, None]
        return length.T - state[2], jacobian, jacobian

    estimate = minimise(model, np.add, np.array([3.0, 0.0, 9.0]), np.ones(200), np.arange(200), 5.0)
    # MIN_SIGMA_PX does not enlarge the covariance, which comes from the scatter of the errors.
    sigma = np.sqrt(np.diag(estimate.covariance))
    assert np.all(np.abs(estimate.state - [*centre, radius]) < 4 * sigma) and sigma.max() < 0.05


def test_too_few_measurements_have_a_covariance_of_nan():
    assert np.isnan(locate(np.zeros((1, 2))).covariance).all()
