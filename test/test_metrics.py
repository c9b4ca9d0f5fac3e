"""Metrics of errors that are known by construction."""

import subprocess
import sys

import numpy as np
import pytest

from loftr_ros.evaluation.metrics import (
    corner_error_px,
    count_correct,
    direction_error_deg,
    disparity_errors_px,
    error_auc,
    mean_matching_accuracy,
    pose_error_deg,
    rotation_error_deg,
    transfer_errors_px,
)
from loftr_ros.geometry import rotation_from_vector, transform

SHIFT = np.array([[1, 0, 10], [0, 1, -5], [0, 0, 1.0]])


def test_a_match_that_is_off_by_3_and_4_px_has_an_error_of_5():
    assert transfer_errors_px(SHIFT, np.array([[1.0, 9]]), np.array([[14.0, 8]])).tolist() == [5.0]


def test_a_point_on_the_horizon_has_an_infinite_error():
    horizon = np.array([[1, 0, 0], [0, 1, 0], [1, 0, -5.0]])
    assert transfer_errors_px(horizon, np.array([[5.0, 5]]), np.array([[0.0, 0]])).tolist() == [np.inf]


def test_matching_accuracy_includes_the_threshold_and_is_zero_without_matches():
    assert mean_matching_accuracy([0.5, 1, 2, np.inf], (1, 3, 5)).tolist() == [0.5, 0.75, 0.75]
    assert mean_matching_accuracy([], (1, 3)).tolist() == [0, 0]


def test_disparity_moves_a_left_point_to_the_left_in_the_right_image_and_rows_stay():
    disparity = np.full((4, 8), np.inf)
    disparity[2, 5] = 3
    left = np.array([[5.2, 2], [4.9, 1.8], [5, 2], [4, 2], [7.4, 3.4]])
    right = left - [[3, 0], [4, 0], [3, -2], [3, 0], [3, 0]]
    assert disparity_errors_px(disparity, left, right) == pytest.approx([0, 1, 2, np.nan, np.nan], nan_ok=True)


def test_correct_matches_include_the_threshold_but_not_unknown_errors():
    assert count_correct([0.5, 2, 2.1, np.inf, np.nan], 2) == 2
    assert count_correct([], 2) == 0


def test_corner_error_of_a_shift_is_its_length_and_of_a_failure_infinite():
    assert corner_error_px(np.eye(3), SHIFT, 640, 480) == pytest.approx(np.hypot(10, 5))
    assert corner_error_px(None, SHIFT, 640, 480) == np.inf


def test_rotation_error_is_the_angle_between_the_two():
    turn = rotation_from_vector(np.radians([0, 0.3, 0]))
    assert rotation_error_deg(turn, np.eye(3)) == pytest.approx(0.3, abs=1e-6)
    assert rotation_error_deg(turn, turn) == pytest.approx(0, abs=1e-5)


def test_direction_error_ignores_length_and_knows_the_sign():
    assert direction_error_deg(np.array([2.0, 0, 0]), np.array([1.0, 1, 0])) == pytest.approx(45)
    assert direction_error_deg(np.array([-1.0, 0, 0]), np.array([1.0, 0, 0])) == pytest.approx(180)
    assert direction_error_deg(np.array([-1.0, 0, 0]), np.array([1.0, 0, 0]), up_to_sign=True) == pytest.approx(0)
    assert direction_error_deg(np.zeros(3), np.array([1.0, 0, 0])) == np.inf


def test_pose_error_is_the_larger_of_the_two_and_infinite_for_a_failure():
    truth = transform(np.eye(3), [1, 0, 0])
    estimate = transform(rotation_from_vector(np.radians([2, 0, 0])), [np.cos(0.1), np.sin(0.1), 0])
    assert pose_error_deg(estimate, truth) == pytest.approx(np.degrees(0.1))
    assert pose_error_deg(None, truth) == np.inf


def test_auc_of_a_single_error_is_its_triangle_and_the_rest():
    # Recall rises to 1 at 2 and stays: (2 / 2 + 8) / 10.
    assert error_auc([2.0], (10,)) == pytest.approx([0.9])


def test_auc_of_perfect_and_failed_pairs_is_their_share():
    assert error_auc([0, 0, np.inf, np.inf], (5, 10, 20)) == pytest.approx([0.5, 0.5, 0.5])
    assert error_auc([np.inf], (5,)) == pytest.approx([0])


def test_auc_needs_errors_that_are_numbers():
    with pytest.raises(ValueError, match='at least one'):
        error_auc([], (5,))
    with pytest.raises(ValueError, match='NaN'):
        error_auc([np.nan], (5,))


def test_metrics_work_without_torch():
    code = 'import sys, loftr_ros.evaluation.metrics; sys.exit("torch" in sys.modules)'
    assert subprocess.run([sys.executable, '-c', code], check=False).returncode == 0
