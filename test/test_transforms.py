"""Transforms with a covariance, compared with random samples."""

import numpy as np
import pytest

from loftr_ros.geometry import rotation_from_vector, transform, vector_from_rotation
from loftr_ros.transforms import UncertainTransform

FIRST = transform(rotation_from_vector((0.3, -0.8, 0.5)), (1.0, -2.0, 3.0))
SECOND = transform(rotation_from_vector((-0.6, 0.1, 0.9)), (-0.5, 0.7, 2.0))


def covariance(seed):
    root = np.random.default_rng(seed).normal(size=(6, 6)) * 1e-3
    return root @ root.T


def disturbed(matrix, error):
    return transform(rotation_from_vector(error[3:]) @ matrix[:3, :3], matrix[:3, 3] + error[:3])


def error_of(true, matrix):
    return np.concatenate([true[:3, 3] - matrix[:3, 3], vector_from_rotation(true[:3, :3] @ matrix[:3, :3].T)])


@pytest.mark.parametrize('what', ['inverse', 'product'])
def test_the_covariance_is_that_of_samples(what):
    a, b = UncertainTransform(FIRST, covariance(1)), UncertainTransform(SECOND, covariance(2))
    result = a.inverse() if what == 'inverse' else a @ b
    rng = np.random.default_rng(0)
    errors = []
    for _ in range(4000):
        first = disturbed(FIRST, rng.multivariate_normal(np.zeros(6), a.covariance))
        second = disturbed(SECOND, rng.multivariate_normal(np.zeros(6), b.covariance))
        errors.append(error_of(np.linalg.inv(first) if what == 'inverse' else first @ second, result.matrix))
    sampled = np.cov(np.array(errors).T)
    # 4000 samples give each entry within 10 % of the largest variances.
    scale = np.sqrt(np.outer(np.diag(sampled), np.diag(sampled)))
    assert np.abs(result.covariance - sampled).max() / scale.max() < 0.1
    assert np.abs((result.covariance - sampled) / scale).max() < 0.1


def test_an_inverse_undoes_a_transform_and_its_inverse_is_the_transform():
    a = UncertainTransform(FIRST, covariance(3))
    np.testing.assert_allclose(a.inverse().inverse().covariance, a.covariance, atol=1e-12)
    np.testing.assert_allclose((a @ a.inverse()).matrix, np.eye(4), atol=1e-12)


def test_an_exact_transform_has_no_covariance():
    assert not UncertainTransform.exact(FIRST).inverse().covariance.any()
