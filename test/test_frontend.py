"""The frontend: choice of the keyframe, ids, and failures, with a matcher of known matches."""

import itertools

import numpy as np
import pytest

from loftr_ros.camera import Camera
from loftr_ros.config import Config
from loftr_ros.datatypes import (
    Frame,
    FrameSet,
    Matches,
    PoseFailure,
    PoseStatus,
    RelativePose,
    Scale,
)
from loftr_ros.errors import InputError
from loftr_ros.geometry import rotation_from_vector, transform
from loftr_ros.matchers import Matcher
from loftr_ros.odometry.frontend import POINT_ID_BITS, FrontEnd, match_pair
from loftr_ros.settings import override

REST = 10
CAMERA = Camera([[300, 0, 159.5], [0, 300, 119.5], [0, 0, 1]], 320, 240)
POINTS = np.random.default_rng(0).uniform([-2, -1.5, 4, 1], [2, 1.5, 8, 1], (300, 4)) * [1, 1, 1, 0] + [0, 0, 0, 1]


class KnowingMatcher(Matcher):
    """Reads from the image which view it is and returns the true projections; view 0 is a covered lens."""

    name = 'knowing'

    def __init__(self):
        self.extracted = []

    def extract(self, image):
        view = int(image[0, 0])
        self.extracted.append(view)
        return view

    def match(self, view0, view1):
        if 0 in (view0, view1):
            return Matches.empty()
        ids = np.arange(len(POINTS))
        first, last = sorted(min(view, REST) for view in (view0, view1))
        # A view sees the points of a moving window, so that overlap shrinks with distance.
        seen = (ids >= 10 * last) & (ids < 200 + 10 * first)
        pixels = [project(view)[seen] for view in (view0, view1)]
        ones = np.ones(seen.sum())
        return Matches(*pixels, ones, 0.1 * ones, ids[seen], ids[seen])


def pose(view):
    """Return the true cam_from_world of a view: 5 cm to the right and half a degree each, at rest from REST on."""
    view = min(view, REST)
    cam_from_world = np.eye(4)
    cam_from_world[:3, :3] = rotation_from_vector([0, np.radians(0.5) * view, 0])
    cam_from_world[:3, 3] = [-0.05 * view, 0, 0]
    return cam_from_world


def project(view):
    points = POINTS @ pose(view)[:3].T
    pixels = points[:, :2] / points[:, 2:] * 300 + [159.5, 119.5]
    return pixels + np.random.default_rng(view).normal(0, 0.1, pixels.shape)


def frame(view, camera=CAMERA, stamp_ns=0):
    return Frame(np.full((240, 320), view, np.uint8), camera, stamp_ns, 'camera')


STAMPS_NS = itertools.count(1_000_000_000, 100_000_000)


def single(view, camera=CAMERA, stamp_ns=None):
    """Return the next set of one camera, or one with a given stamp."""
    return FrameSet(frame(view, camera, next(STAMPS_NS) if stamp_ns is None else stamp_ns))


def front_end(**values):
    return FrontEnd(KnowingMatcher(), override(Config(), values))


def test_each_frame_is_extracted_once_and_the_keyframe_is_image_0():
    front = front_end()
    assert front.process(single(1)) is None
    results = [front.process(single(view)) for view in (2, 3, 4)]
    assert front.matcher.extracted == [1, 2, 3, 4]
    assert [(r.id0, r.id1) for r in results] == [(0, 1), (0, 2), (0, 3)]
    for result, view in zip(results, (2, 3, 4), strict=True):
        truth = pose(view) @ np.linalg.inv(pose(1))
        direction = truth[:3, 3] / np.linalg.norm(truth[:3, 3])
        # 0.1 px of noise at 300 px focal length over 200 points: far below 0.01 rad even at 5 cm of baseline.
        assert np.allclose(result.pose.rotation, truth[:3, :3], atol=0.01)
        assert result.pose.translation @ direction > 0.99


def test_the_keyframe_is_replaced_after_max_frames_but_not_by_standing_still():
    front = front_end(**{'keyframe.max_frames': 3, 'keyframe.min_inlier_ratio': 0.0})
    assert [r.id0 for r in map(front.process, map(single, range(1, 9))) if r] == [0, 0, 0, 3, 3, 3, 6]
    front = front_end(**{'keyframe.max_frames': 3})
    results = [front.process(single(view)) for view in range(REST, REST + 7)][1:]
    assert {r.pose.status for r in results} == {PoseStatus.STATIC} and {r.id0 for r in results} == {0}


def test_the_keyframe_is_replaced_when_few_of_its_points_are_left():
    front = front_end(**{'keyframe.max_frames': 100, 'keyframe.min_inlier_ratio': 0.7})
    results = [front.process(single(view)) for view in range(1, REST)][1:]
    first = results[0].pose.num_inliers
    change = next(i for i, r in enumerate(results) if r.id0 != 0)
    assert results[change - 1].pose.num_inliers < 0.7 * first <= results[change - 2].pose.num_inliers


def test_a_covered_lens_costs_one_pair_and_the_keyframe_is_kept():
    front = front_end()
    results = [front.process(single(view)) for view in (1, 2, 0, 3)]
    assert isinstance(results[2].pose, PoseFailure) and results[2].pose.status is PoseStatus.TOO_FEW_MATCHES
    assert results[3].id0 == 0 and isinstance(results[3].pose, RelativePose)
    assert not results[2].inliers.any() and len(results[2].track_ids) == 0


def test_a_keyframe_that_was_the_covered_lens_is_replaced_at_once():
    front = front_end()
    results = [front.process(single(view)) for view in (0, 1, 2)]
    assert isinstance(results[1].pose, PoseFailure)
    assert results[2].id0 == 1 and isinstance(results[2].pose, RelativePose)


def test_the_keyframe_is_replaced_after_too_many_failures():
    front = front_end(**{'keyframe.max_failures': 1})
    results = [front.process(single(view)) for view in (1, 2, 0, 0, 3, 4)]
    assert [r.id0 for r in results if r] == [0, 0, 0, 3, 4]
    assert isinstance(results[5].pose, RelativePose)


def test_a_requested_keyframe_is_the_next_frame_with_a_pose():
    front = front_end()
    results = [front.process(single(view)) for view in (1, 2)]
    front.request_keyframe()
    results += [front.process(single(view)) for view in (0, 3, 4, 5)]
    assert [r.id0 for r in results if r] == [0, 0, 0, 3, 3]


def test_a_pair_of_any_frames_is_matched_and_depth_makes_it_metric():
    front = front_end()
    truth = pose(4) @ np.linalg.inv(pose(2))
    result = match_pair(front.matcher, front.config, frame(2), frame(4), ids=(20, 40))
    assert (result.id0, result.id1, result.pose.scale) == (20, 40, Scale.UP_TO_SCALE)
    assert result.pose.translation @ truth[:3, 3] / np.linalg.norm(truth[:3, 3]) > 0.99
    in_view = POINTS @ pose(2)[:3].T
    depth_m = np.zeros((240, 320), np.float32)
    column, row = np.rint(in_view[:, :2] / in_view[:, 2:] * 300 + [159.5, 119.5]).astype(int).T
    for dx, dy in itertools.product((-1, 0, 1), repeat=2):  # flat around each point, so that it can be interpolated
        depth_m[np.clip(row + dy, 0, 239), np.clip(column + dx, 0, 319)] = in_view[:, 2]
    metric = match_pair(front.matcher, front.config, frame(2), frame(4), depth_m)
    assert metric.pose.scale is Scale.DEPTH
    np.testing.assert_allclose(metric.pose.translation, truth[:3, 3], atol=0.01)
    assert match_pair(front.matcher, front.config, frame(2, None), frame(4)).pose is None
    with pytest.raises(InputError, match='register the depth'):
        match_pair(front.matcher, front.config, frame(2), frame(4), depth_m[::2, ::2])


def test_track_ids_join_the_keyframe_and_its_point():
    front = front_end()
    front.process(single(1))
    first, second = front.process(single(2)), front.process(single(3))
    shared = set(first.track_ids) & set(second.track_ids)
    assert len(shared) == min(len(first.matches), len(second.matches))
    front.restart('the clock jumped')
    front.process(single(4))
    later = front.process(single(5))
    assert later.id0 == 3 and not set(later.track_ids) & set(first.track_ids)
    assert later.track_ids[0] == (3 << POINT_ID_BITS) | later.matches.point_id0[0]


def test_tracks_go_on_from_image_1_to_the_next_keyframe():
    front = front_end(**{'keyframe.max_frames': 3, 'keyframe.min_inlier_ratio': 0.0})
    results = [front.process(single(view)) for view in range(1, 6)]
    before, after = results[3], results[4]
    assert (before.id1, after.id0) == (3, 3)
    # All points that both results see: the window of the later one begins 10 points further on.
    shared = set(before.track_ids1) & set(after.track_ids)
    assert len(shared) > 100 and shared == set(after.track_ids) - set(after.track_ids[after.matches.point_id0 >= 210])
    assert not set(before.track_ids1) & set(before.track_ids)


def test_the_keyframe_keeps_the_points_of_all_its_results_and_a_new_keyframe_begins_anew():
    class Keeping(KnowingMatcher):
        def extract(self, image):
            return super().extract(image), ()

        def match(self, features0, features1):
            given.append(features0)
            return super().match(features0[0], features1[0])

        def keep_points(self, features0, matches):
            return features0[0], (*features0[1], len(matches))

    given = []
    front = FrontEnd(Keeping(), override(Config(), {'keyframe.max_frames': 2}))
    results = [front.process(single(view)) for view in (1, 2, 3, 4)][1:]
    count = len(results[0].matches)
    assert given == [(1, ()), (1, (count,)), (3, ())]


def test_without_a_camera_there_are_matches_and_no_pose():
    front = front_end()
    front.process(single(1, camera=None))
    result = front.process(single(2, camera=None))
    assert len(result.matches) > 100 and result.pose is None and not result.inliers.any()


def test_a_stereo_pair_gets_its_length_from_the_baseline():
    front = front_end()
    up_to_scale = front.process(FrameSet(frame(1, stamp_ns=1), frame(3, stamp_ns=1)))
    metric = front.process(FrameSet(frame(1, stamp_ns=2), frame(3, stamp_ns=2), transform(np.eye(3), (-0.1, 0, 0))))
    assert up_to_scale.pose.scale is Scale.UP_TO_SCALE and metric.pose.scale is Scale.BASELINE
    assert np.linalg.norm(up_to_scale.pose.translation) == pytest.approx(1)
    assert np.linalg.norm(metric.pose.translation) == pytest.approx(0.1)
    assert (metric.id0, metric.id1) == (1, 1)
    assert (metric.track_ids >= 0).all() and (metric.track_ids1 == -1).all()  # the right image is never image 0
    direction = metric.pose.translation / 0.1
    known = np.eye(3) - np.outer(direction, direction)
    # A length of 0.1 shrinks the standard deviation of the direction's end by 10; its own variance stays unknown.
    scaled, unit = (known @ r.pose.covariance[:3, :3] @ known for r in (metric, up_to_scale))
    assert np.allclose(scaled, unit / 100, rtol=1e-6, atol=1e-9)
    assert direction @ metric.pose.covariance[:3, :3] @ direction == pytest.approx(9999, rel=1e-6)


def test_a_new_matcher_starts_with_a_new_keyframe():
    front = front_end()
    front.process(single(1))
    front.configure(front.config, KnowingMatcher())
    assert front.process(single(2)) is None
    assert front.process(single(3)).id0 == 1


def test_a_late_or_repeated_frame_is_refused_and_changes_nothing():
    front = front_end()
    front.process(single(1, stamp_ns=1000))
    front.process(single(2, stamp_ns=2000))
    for stamp_ns in (2000, 1500):
        with pytest.raises(InputError, match='not newer than 2000'):
            front.process(single(3, stamp_ns=stamp_ns))
    result = front.process(single(3, stamp_ns=3000))
    assert (result.id0, result.id1) == (0, 2) and front.matcher.extracted == [1, 2, 3]


def test_time_that_starts_again_gives_a_new_keyframe_and_says_why():
    reasons = []
    front = FrontEnd(KnowingMatcher(), Config(), reasons.append)
    second_ns = 1_000_000_000
    for view, stamp_s in ((1, 10), (2, 11)):
        front.process(single(view, stamp_ns=stamp_s * second_ns))
    with pytest.raises(InputError):  # it may be a late frame
        front.process(single(1, stamp_ns=5 * second_ns))
    assert front.process(single(2, stamp_ns=6 * second_ns)) is None
    assert reasons == ['stamps went back by 5.000 s']
    assert front.process(single(3, stamp_ns=7 * second_ns)).id0 == 2
    front.restart('the clock jumped')
    for view, stamp_s, id0 in ((1, 1, None), (2, 2, 4), (3, 3, 4)):  # older stamps are no further jump
        result = front.process(single(view, stamp_ns=stamp_s * second_ns))
        assert (result and result.id0) == id0
    assert reasons[1:] == ['the clock jumped']


def test_a_set_of_frames_checks_its_baseline():
    with pytest.raises(InputError, match='two cameras'):
        FrameSet(frame(1), cam1_from_cam0=np.eye(4))
    with pytest.raises(InputError, match='not 0'):
        FrameSet(frame(1), frame(2), cam1_from_cam0=np.eye(4))
