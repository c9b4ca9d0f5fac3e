"""The unit of length of one camera from measured speeds: their integral, the estimate, and the odometry with it."""

import types

import numpy as np
import pytest
from test_odometer import KnowingMatcher, config, errors, frames, path

from loftr_ros.datatypes import Scale
from loftr_ros.errors import InputError
from loftr_ros.geometry import transform
from loftr_ros.odometry.map_unit import LEAST_STEPS, MapUnit, SpeedLog
from loftr_ros.odometry.odometer import Odometer
from loftr_ros.speeds import speed_from_msg
from loftr_ros.transforms import UncertainTransform

SECOND_NS = 1_000_000_000
EPOCH_NS = 1_790_000_000 * SECOND_NS
ORIGIN = UncertainTransform.exact(np.eye(4))


def log(*pairs):
    speeds = SpeedLog()
    for second, speed in pairs:
        speeds.add(EPOCH_NS + round(second * 1e9), speed)
    return speeds


def distance(speeds, start, end):
    return speeds.distance_m(EPOCH_NS + round(start * 1e9), EPOCH_NS + round(end * 1e9))


def test_the_way_is_the_integral_of_the_speed():
    speeds = log((0.0, 1.0), (0.2, 3.0), (0.1, 2.0), (0.4, -3.0), (0.4, -5.0))  # 0.1 late; at 0.4 the last one
    assert distance(speeds, 0.0, 0.2) == pytest.approx(0.4)
    assert distance(speeds, 0.05, 0.15) == pytest.approx(0.2)
    assert distance(speeds, 0.2, 0.3) == pytest.approx(0.35)
    assert speeds.reach(EPOCH_NS + SECOND_NS * 4 // 10) and not speeds.reach(EPOCH_NS + SECOND_NS // 2)


def test_where_speeds_are_missing_the_way_is_unknown():
    assert np.isnan(distance(log(), 0, 1)) and not log().reach(0)
    speeds = log((0.0, 1.0), (0.1, 1.0), (0.9, 1.0), (1.0, 1.0))
    assert np.isnan(distance(speeds, -0.1, 0.1)) and np.isnan(distance(speeds, 0.95, 1.1))
    assert np.isnan(distance(speeds, 0.0, 1.0))  # nothing is known about the gap
    assert distance(speeds, 0.9, 1.0) == pytest.approx(0.1)


def test_speeds_after_a_jump_back_in_time_replace_those_before():
    speeds = log((10.0, 5.0), (10.1, 5.0), (0.0, 1.0), (0.1, 1.0))
    assert distance(speeds, 0.0, 0.1) == pytest.approx(0.1)
    assert not speeds.reach(EPOCH_NS + SECOND_NS)


def add_steps(unit, ratios, first=0):
    """Add steps of 0.1 s at 1 m/s, in which the map sees 0.1 m divided by the ratio."""
    for number, ratio in enumerate(ratios, first):
        unit.add_step(EPOCH_NS + number * SECOND_NS // 10, EPOCH_NS + (number + 1) * SECOND_NS // 10, 0.1 / ratio)


def test_the_unit_is_the_ratio_of_the_last_steps():
    unit = MapUnit(log(*((i / 10, 1.0) for i in range(101))), 0.02, ORIGIN)
    noise = np.exp(np.random.default_rng(0).normal(0, 0.03, 100))
    add_steps(unit, 0.25 * noise[: LEAST_STEPS - 1])
    assert unit.metres is None
    add_steps(unit, 0.25 * noise[LEAST_STEPS - 1 : 50], LEAST_STEPS - 1)
    assert unit.metres == pytest.approx(0.25, rel=0.02)
    assert 0.02 < unit.relative_sigma < 0.025 and 0.02 < unit.scatter < 0.045
    add_steps(unit, 0.3 * noise[50:], 50)  # it has drifted
    assert unit.metres == pytest.approx(0.3, rel=0.02)


def test_wrong_steps_do_not_change_the_unit():
    unit = MapUnit(log(*((i / 10, 1.0) for i in range(41))), 0.02, ORIGIN)
    ratios = np.full(40, 0.25)
    ratios[::4] = 0.5  # slipping wheels
    add_steps(unit, ratios)
    assert unit.metres == pytest.approx(0.25)


def test_steps_without_motion_or_without_agreement_give_no_unit():
    still = MapUnit(log(*((i / 10, 0.001) for i in range(41))), 0.02, ORIGIN)
    add_steps(still, np.full(40, 1.0))
    assert still.metres is None
    for seed in range(30):
        scattered = MapUnit(log(*((i / 10, 1.0) for i in range(41))), 0.02, ORIGIN)
        add_steps(scattered, np.exp(np.random.default_rng(seed).normal(0, 1.0, 40)))
        assert scattered.metres is None


def test_a_unit_that_later_steps_contradict_becomes_uncertain():
    unit = MapUnit(log(*((i / 10, 1.0) for i in range(81))), 0.02, ORIGIN)
    add_steps(unit, np.full(20, 0.25))
    assert unit.relative_sigma == pytest.approx(0.02)
    add_steps(unit, 0.25 * np.exp(np.random.default_rng(0).normal(0, 0.6, 60)), 20)
    assert unit.relative_sigma > 0.2


@pytest.mark.parametrize(
    ('speeds', 'words'),
    [
        ([(i / 10 - 100, 1.0) for i in range(41)], 'the newest is 100 s before the newest image'),
        ([(i / 10 + 100, 1.0) for i in range(41)], 'the newest is 100 s after the newest image'),
        ([(i / 10, 0.0) for i in range(41)], 'the speeds are 0 while the camera moves'),
        ([(i / 10, 5.0 ** (i % 2)) for i in range(41)], 'camera and speed differ by'),
    ],
    ids=['before', 'after', 'zero', 'scatter'],
)
def test_why_speeds_give_no_unit_is_told(speeds, words):
    unit = MapUnit(log(*speeds), 0.02, ORIGIN)
    ratios = np.exp(np.random.default_rng(0).normal(0, 0.5 if 'differ' in words else 0.0, 40))
    add_steps(unit, ratios[:10])
    assert unit.fault == ''
    add_steps(unit, ratios[10:], 10)
    assert unit.metres is None and words in unit.fault


def test_steps_wait_for_late_speeds():
    speeds = log(*((i / 10, 1.0) for i in range(8)))
    unit = MapUnit(speeds, 0.02, ORIGIN)
    add_steps(unit, np.full(10, 0.5))
    assert unit.metres is None
    for i in range(8, 12):
        speeds.add(EPOCH_NS + i * SECOND_NS // 10, 1.0)
    add_steps(unit, [0.5], 10)
    assert unit.metres == pytest.approx(0.5)


def drive_with_speeds(poses, bias=1.0, noise=0.0, seed=0):
    matcher = KnowingMatcher(poses)
    odometer = Odometer(matcher, config('mono'))
    rng = np.random.default_rng(seed)
    steps = np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1)
    motions = []
    for view in range(len(poses)):
        stamp_ns = frames(view, 'mono', matcher).stamp_ns
        for share in range(5) if view else ():
            speed = steps[view - 1] / 0.1 * bias * np.exp(rng.normal(0, noise))
            odometer.add_speed(stamp_ns - (4 - share) * 25_000_000, speed)
        motions.append(odometer.process(frames(view, 'mono', matcher)))
    return motions


def test_the_lengths_of_one_camera_become_metres_from_the_first_image_on():
    poses = path(50)
    motions = drive_with_speeds(poses)
    begin = next(i for i, m in enumerate(motions) if m.scale is Scale.EXTERNAL)
    assert LEAST_STEPS < begin < LEAST_STEPS + 6
    assert all(m.scale is Scale.EXTERNAL for m in motions[begin:])
    assert sum(m.is_keyframe for m in motions) >= 3
    shift, turn = errors(motions[begin:], poses[begin:])
    assert shift.max() < 0.05 and turn.max() < 3e-3  # of 4.7 m
    last = motions[-1]
    speed = np.linalg.norm(poses[-1][:3, 3] - poses[-2][:3, 3]) / 0.1
    assert np.linalg.norm(last.velocity.twist[:3]) == pytest.approx(speed, rel=0.02)
    pair = last.pair
    assert pair.pose.scale is Scale.EXTERNAL
    between = np.linalg.norm(poses[pair.id1][:3, 3] - poses[pair.id0][:3, 3])
    assert np.linalg.norm(pair.pose.translation) == pytest.approx(between, rel=0.02)
    places = np.column_stack([last.tracks.rays, np.ones(len(last.tracks))]) * last.tracks.depth_m[:, None]
    places = places @ poses[-1][:3, :3].T + poses[-1][:3, 3]
    nearest = np.linalg.norm(places[:, None] - KnowingMatcher(poses).points, axis=2).min(axis=1)
    assert np.nanmedian(nearest) < 0.1


def test_the_covariance_contains_the_error_of_the_speed():
    poses = path(40)
    values = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        motions = drive_with_speeds(poses, np.exp(rng.normal(0, 0.02)), 0.03, seed)
        for motion, pose in zip(motions, poses, strict=True):
            if motion.scale is Scale.EXTERNAL:
                error = motion.origin_from_cam.translation - pose[:3, 3]
                covariance = motion.origin_from_cam.covariance[:3, :3]
                values.append(error @ np.linalg.solve(covariance, error) / 3)
    assert 0.2 < np.mean(values) < 1.5


def test_a_motion_that_starts_again_has_no_unit_until_speeds_give_one():
    poses = path(40)
    matcher = KnowingMatcher(poses)
    odometer = Odometer(matcher, config('mono', **{'odometry.restart_after': 3}))
    speed = np.linalg.norm(poses[1][:3, 3]) / 0.1
    motions = []
    for view in range(len(poses)):
        current = frames(view, 'mono', matcher, covered=16 <= view < 20)
        if view == 20:  # another place: no earlier keyframe is found again
            matcher.points = matcher.points + [0.0, 0.0, 0.5]
            odometer._recent.clear()
        odometer.add_speed(current.stamp_ns, speed)
        motions.append(odometer.process(current))
    scales = [m.scale for m in motions]
    assert scales[15] is Scale.EXTERNAL and scales[-1] is Scale.EXTERNAL
    again = [m for m in motions[20:] if m.segment == 1]
    assert again[0].scale is Scale.UP_TO_SCALE and again[-1].scale is Scale.EXTERNAL
    before = motions[15].origin_from_cam.translation
    moved = again[-1].origin_from_cam.translation - before
    assert np.linalg.norm(moved) == pytest.approx(np.linalg.norm(poses[-1][:3, 3] - poses[20][:3, 3]), rel=0.15)


def twist_msg(linear, angular, covariance=False):
    def vector(values):
        return types.SimpleNamespace(**dict(zip('xyz', values, strict=True)))

    twist = types.SimpleNamespace(linear=vector(linear), angular=vector(angular))
    header = types.SimpleNamespace(stamp=types.SimpleNamespace(sec=3, nanosec=5), frame_id='base_link')
    return types.SimpleNamespace(
        header=header, twist=types.SimpleNamespace(twist=twist, covariance=[]) if covariance else twist
    )


@pytest.mark.parametrize('covariance', [False, True])
def test_a_camera_off_the_axis_is_faster_in_a_turn(covariance):
    message = twist_msg((0.5, 0, 0), (0, 0, 1.0), covariance)
    assert speed_from_msg(message) == (3 * SECOND_NS + 5, pytest.approx(0.5))
    assert speed_from_msg(message, transform(np.eye(3), (0.3, -0.2, 1.0)))[1] == pytest.approx(np.hypot(0.7, 0.3))
    with pytest.raises(InputError, match='finite'):
        speed_from_msg(twist_msg((np.nan, 0, 0), (0, 0, 0), covariance))
