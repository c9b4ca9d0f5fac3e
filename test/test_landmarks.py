"""Depth of the points of a keyframe, and what the points around a pixel tell about it."""

import numpy as np
import pytest

from loftr_ros.odometry.landmarks import PointDepths
from loftr_ros.pose.inverse_depth import InverseDepth

SIZE = (320, 240)


def plane(pixels):
    """Inverse depth of a slanted plane [1/m]."""
    return 0.3 + 0.0006 * pixels[:, 0] - 0.0004 * pixels[:, 1]


@pytest.fixture
def known():
    rng = np.random.default_rng(0)
    return rng.uniform((5, 5), (315, 235), (900, 2))


def landmarks(pixels, value, sigma=0.002, seed=1):
    noise = np.random.default_rng(seed).normal(0, sigma, len(pixels))
    depths = PointDepths(SIZE)
    depths.add(pixels, InverseDepth(value + noise, np.full(len(pixels), sigma)))
    return depths


def test_between_points_on_a_plane_the_depth_is_that_of_the_plane(known):
    asked = np.random.default_rng(2).uniform((15, 15), (305, 225), (400, 2))
    found = landmarks(known, plane(known)).filled(asked)
    assert found.reliable.mean() > 0.95
    error = np.abs(found.value - plane(asked))[found.reliable] / found.sigma[found.reliable]
    assert np.median(error) < 1.2 and np.quantile(error, 0.99) < 4


def test_points_with_a_depth_keep_it(known):
    depths = landmarks(known, plane(known))
    exact = depths.at(known)
    filled = depths.filled(known)
    np.testing.assert_array_equal(exact.value, filled.value)


def test_at_a_depth_edge_nothing_is_interpolated(known):
    near = known[:, 0] < 160
    depths = landmarks(known, np.where(near, 1.0, 0.25))
    rows = np.arange(20.5, 220, 7)
    edge = np.column_stack([np.full(len(rows), 160.0), rows])
    exact, filled = depths.at(edge), depths.filled(edge)
    unknown = ~exact.reliable
    assert unknown.sum() > 20
    values = filled.value[unknown & filled.reliable]
    assert np.all((np.abs(values - 1) < 0.05) | (np.abs(values - 0.25) < 0.02)) and len(values) < 0.3 * unknown.sum()
    inside = np.column_stack([np.full(len(rows), 100.0), rows])
    assert np.abs(depths.filled(inside).value - 1)[depths.filled(inside).reliable].max() < 0.02


def test_far_from_all_points_the_depth_is_unknown():
    corner = np.random.default_rng(0).uniform(5, 60, (80, 2))
    depths = landmarks(corner, plane(corner))
    assert not depths.filled(np.array([[200.0, 200.0], [310.0, 5.0]])).reliable.any()
    assert not PointDepths(SIZE).filled(np.array([[200.0, 200.0]])).reliable.any()
