"""Errors of trajectories whose answer is known."""

import numpy as np
import pytest

from loftr_ros.errors import InputError
from loftr_ros.evaluation.trajectory import absolute_errors, align, drift, path_lengths, relative_errors
from loftr_ros.geometry import rotation_from_vector, transform


def arc(count=40, step_m=0.5, turn=0.02):
    """Return a path of equal steps with a constant turn, (count, 4, 4)."""
    poses = [np.eye(4)]
    for _ in range(count - 1):
        poses.append(poses[-1] @ transform(rotation_from_vector((0, turn, 0.3 * turn)), (0, 0.02, step_m)))
    return np.array(poses)


def moved(poses, scale=1.0):
    """Return the poses in another world, with another unit of length."""
    other = transform(rotation_from_vector((0.4, -1.1, 2.0)), (3.0, -7.0, 11.0))
    result = other @ poses
    result[:, :3, 3] = other[:3, 3] + scale * (result[:, :3, 3] - other[:3, 3])
    return result


@pytest.mark.parametrize('scale', [1.0, 0.05, 30.0])
def test_another_world_and_unit_are_no_error(scale):
    truth = arc()
    errors = absolute_errors(moved(truth, scale), truth, with_scale=True)
    assert errors.ate_m < 1e-9 and errors.rotation_deg.max() < 1e-6
    assert errors.alignment.scale == pytest.approx(1 / scale)
    np.testing.assert_allclose(errors.aligned, truth, atol=1e-9)


def test_without_scale_a_wrong_unit_is_an_error():
    truth = arc()
    errors = absolute_errors(moved(truth, 1.1), truth, with_scale=False)
    centred = truth[:, :3, 3] - truth[:, :3, 3].mean(axis=0)
    assert errors.ate_m == pytest.approx(0.1 * np.sqrt((centred**2).sum(axis=1).mean()))
    assert errors.alignment.scale == 1


def test_the_turn_about_a_straight_road_is_no_error_of_the_orientation():
    truth = np.tile(np.eye(4), (20, 1, 1))
    truth[:, 2, 3] = np.arange(20)
    estimated = moved(truth)
    rng = np.random.default_rng(0)
    estimated[:, :3, 3] += rng.normal(0, 1e-6, (20, 3))  # so that the turn about the line is any
    estimated[7, :3, :3] = estimated[7, :3, :3] @ rotation_from_vector((0, 0, np.radians(1)))
    errors = absolute_errors(estimated, truth, with_scale=False)
    assert errors.ate_m < 1e-5
    assert errors.rotation_deg[7] == pytest.approx(0.95, abs=1e-3)  # the other 19 share a twentieth of it
    np.testing.assert_allclose(np.delete(errors.rotation_deg, 7), 0.05, atol=1e-3)


def test_a_reflection_is_never_an_alignment():
    truth = arc()
    mirrored = truth[:, :3, 3] * (-1, 1, 1)
    assert np.linalg.det(align(mirrored, truth[:, :3, 3], with_scale=True).rotation) == pytest.approx(1)


def test_one_wrong_position_of_four():
    truth = np.tile(np.eye(4), (4, 1, 1))
    truth[:, :3, 3] = [[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]]
    estimated = truth.copy()
    estimated[:, 2, 3] = [0.3, 0.3, -0.3, -0.3]  # no alignment makes it smaller
    errors = absolute_errors(estimated, truth, with_scale=False)
    np.testing.assert_allclose(errors.position_m, 0.3, atol=1e-12)
    assert errors.ate_m == pytest.approx(0.3)


def test_a_path_of_one_place_has_no_scale():
    with pytest.raises(InputError, match='does not move'):
        absolute_errors(np.tile(np.eye(4), (3, 1, 1)), arc(3), with_scale=True)


@pytest.mark.parametrize(('turn_deg', 'shift_m'), [(2.0, 0.0), (0.0, 0.05)])
def test_relative_errors_are_those_of_the_motion_between_two_frames(turn_deg, shift_m):
    truth = arc(12)
    estimated = moved(truth)
    step = transform(rotation_from_vector((0, np.radians(turn_deg), 0)), (shift_m, 0, 0))
    estimated[6:] = estimated[6] @ step @ np.linalg.inv(estimated[6]) @ estimated[6:]  # between frames 5 and 6
    errors = relative_errors(estimated, truth, np.arange(11), np.arange(1, 12))
    wrong = np.arange(11) == 5
    np.testing.assert_allclose(errors.rotation_deg, turn_deg * wrong, atol=1e-6)
    np.testing.assert_allclose(errors.translation_m, shift_m * wrong, atol=1e-9)


def test_the_drift_of_a_wrong_unit_and_a_constant_turn():
    straight = np.tile(np.eye(4), (1001, 1, 1))
    straight[:, 2, 3] = np.arange(1001)
    longer = straight.copy()
    longer[:, 2, 3] *= 1.02
    found = drift(longer, straight)
    assert found.is_kitti and found.lengths_m == tuple(range(100, 900, 100))
    assert found.translation_percent == pytest.approx(2) and found.rotation_deg_per_m < 1e-6
    # From every tenth frame, as far as the path reaches: 91 + 81 + ... + 21.
    assert found.num_segments == sum(range(21, 92, 10))
    turning = straight.copy()
    turning[:, :3, :3] = [rotation_from_vector((0, 0, np.radians(0.01) * i)) for i in range(1001)]
    assert drift(turning, straight).rotation_deg_per_m == pytest.approx(0.01)
    assert drift(longer, straight, scale=1 / 1.02).translation_percent < 1e-9


def test_a_short_path_uses_shares_of_its_length_and_says_so():
    truth = arc(41, step_m=0.5)
    estimated = truth.copy()
    estimated[:, :3, 3] *= 1.03
    found = drift(estimated, truth)
    assert not found.is_kitti and found.num_segments > 100
    assert found.lengths_m[-1] == pytest.approx(0.8 * path_lengths(truth)[-1])
    # Steps are whole: a segment is up to one step longer than its length.
    assert 2.5 < found.translation_percent < 4.5


def test_a_path_of_one_place_has_no_drift():
    still = np.tile(np.eye(4), (5, 1, 1))
    found = drift(still, still)
    assert found.num_segments == 0 and np.isnan(found.translation_percent)


def test_trajectories_of_different_lengths_are_refused():
    with pytest.raises(InputError, match='select the frames that both have'):
        absolute_errors(arc(4), arc(5), with_scale=False)
