"""Camera: matrices and distortion coefficients that are refused, and those that are completed."""

import numpy as np
import pytest

from loftr_ros.camera import Camera, CameraModel
from loftr_ros.errors import InputError

MATRIX = [[500.0, 0, 320.5], [0, 510.0, 239.5], [0, 0, 1]]


@pytest.mark.parametrize(
    ('matrix', 'remedy'),
    [
        (np.transpose(MATRIX), 'transpose it'),
        (2 * np.array(MATRIX), 'divide it by 2'),
        (np.array(MATRIX) + [[0, 0, 0], [5, 0, 0], [0, 0, 0]], 'give it as fx s cx'),
        (np.array(MATRIX) + [[0, 0, 0], [0, 0, 0], [0, 0.1, 0]], 'give it as fx s cx'),
    ],
)
def test_a_camera_matrix_of_another_form_is_refused_with_the_remedy(matrix, remedy):
    with pytest.raises(InputError, match=f'last row 0 0 1 and 0 below fx.*{remedy}'):
        Camera(matrix, 640, 480)
    assert Camera(np.array(MATRIX) + [[0, 0.3, 0], [0, 0, 0], [0, 0, 1e-12]], 640, 480).matrix[0, 1] == 0.3  # skew


@pytest.mark.parametrize(
    ('model', 'given', 'kept'),
    [
        ('equidistant', (), [0.0] * 4),
        ('equidistant', [0.1, 0.2, 0.3, 0.4, 0.0], [0.1, 0.2, 0.3, 0.4]),
        ('equidistant', [0.1, 0.2, 0.0, 0.0, 0.0, 0.0], [0.1, 0.2, 0.0, 0.0]),
        ('plumb_bob', [0.1, 0.2, 0.3, 0.4, 0.5, 0.0, 0.0, 0.0], [0.1, 0.2, 0.3, 0.4, 0.5]),
        ('plumb_bob', [0.0] * 3, []),
        ('rational_polynomial', [0.1] * 8 + [0.0] * 2, [0.1] * 8),
    ],
)
def test_extra_or_missing_zero_coefficients_do_not_change_the_distortion(model, given, kept):
    assert Camera(MATRIX, 640, 480, given, CameraModel(model)).distortion.tolist() == kept


@pytest.mark.parametrize(
    ('model', 'given'),
    [
        ('equidistant', [0.1, 0.2, 0.3, 0.4, 0.5]),
        ('equidistant', [0.1, 0.2]),
        ('plumb_bob', [0.1, 0.2, 0.3]),
        ('plumb_bob', [0.1] * 8),
        ('rational_polynomial', [0.1] * 5),
    ],
)
def test_a_wrong_number_of_coefficients_is_refused(model, given):
    with pytest.raises(InputError, match=rf'{model} takes .* coefficients, got {len(given)}: .*name the model'):
        Camera(MATRIX, 640, 480, given, CameraModel(model))
