"""The node in a separate process, with good and bad frames from another process over DDS."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

rclpy = pytest.importorskip('rclpy')
pytest.importorskip('loftr_ros.msg')

from camera_driver import SECOND_NS, Camera  # noqa: E402
from diagnostic_msgs.msg import DiagnosticStatus  # noqa: E402
from loftr_ros.msg import RelativePose  # noqa: E402
from rcl_interfaces.msg import Log, ParameterType, ParameterValue  # noqa: E402
from rclpy.qos import ReliabilityPolicy  # noqa: E402
from rosgraph_msgs.msg import Clock  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402

from loftr_ros.datasets import rendered_drive, save_sequence  # noqa: E402
from loftr_ros.geometry import angle_between, rotation_angle  # noqa: E402
from loftr_ros.messages import image_from_msg, stamp_ns  # noqa: E402
from loftr_ros.ros import conversions, live_run  # noqa: E402

pytestmark = pytest.mark.ros

SIZE = (320, 240)


@pytest.fixture(scope='module')
def drive():
    return rendered_drive(seed=1, num_frames=12, size=SIZE)


def test_a_drive_gives_true_poses_over_dds_and_every_frame_is_accounted_for(tmp_path, drive):
    save_sequence(drive, tmp_path / 'drive')
    parameters = {'input.process_every_frame': 'true', 'input.image_qos': 'RELIABLE', 'keyframe.max_frames': '3'}
    recording = live_run.run(tmp_path / 'drive', [], 'temporal', 10.0, tmp_path, parameters)
    counts = [recording.count(key) for key in ('paired', 'processed')]
    assert [len(recording.stamps_ns), *counts] == [12, 12, 12], recording.diagnostics
    assert len(recording.matches) == len(recording.poses) == 11  # the first frame is the first keyframe
    directions_deg = []
    for message, pose in zip((m for m, _ in recording.matches), recording.poses, strict=True):
        assert stamp_ns(message.header) > stamp_ns(message.header0)
        assert (message.id0, message.id1) == (pose.id0, pose.id1)
        index0, index1 = (recording.stamps_ns[stamp_ns(h)] for h in (pose.header0, pose.header))
        assert (message.id0, message.id1) == (index0, index1)
        assert pose.status in (RelativePose.STATUS_OK, RelativePose.STATUS_LOW_PARALLAX)
        assert pose.scale == RelativePose.SCALE_UP_TO_SCALE
        truth = np.linalg.inv(drive.world_from_cam0[index1]) @ drive.world_from_cam0[index0]
        estimate = conversions.relative_pose_from_msg(pose).cam1_from_cam0
        # QVGA: 1 px is 0.24 deg.
        assert rotation_angle(estimate[:3, :3].T @ truth[:3, :3]) < np.radians(0.2)
        directions_deg.append(np.degrees(angle_between(estimate[:3, 3], truth[:3, 3])))
        count = len(message.confidence)
        assert len(message.points0) == len(message.points1) == 2 * count and len(message.track_ids) == count
        assert pose.num_inliers == sum(message.inliers) and pose.num_matches == count
        assert (message.width0, message.height0, message.width1, message.height1) == (*SIZE, *SIZE)
    assert np.median(directions_deg) < 1 and max(directions_deg) < 4
    keyframes = [message.id0 for message, _ in recording.matches]
    assert keyframes == sorted(keyframes) and len(set(keyframes)) > 2
    first, second = (set(m.track_ids) for m, _ in recording.matches[:2])
    assert len(first & second) > 0.6 * len(first), 'points of one keyframe must keep their ids'


def test_a_stereo_pair_has_its_length_from_camera_info(tmp_path, drive):
    save_sequence(drive, tmp_path / 'drive')
    parameters = {'input.process_every_frame': 'true', 'input.image_qos': 'RELIABLE'}
    recording = live_run.run(tmp_path / 'drive', [], 'stereo', 10.0, tmp_path, parameters)
    assert len(recording.poses) == 12, recording.diagnostics
    for pose in recording.poses:
        assert pose.id0 == pose.id1 and pose.scale == RelativePose.SCALE_BASELINE
        t = pose.transform.translation
        assert np.linalg.norm([t.x, t.y, t.z]) == pytest.approx(0.12)
        assert angle_between([t.x, t.y, t.z], drive.cam1_from_cam0[:3, 3]) < np.radians(10)


def bad_frames(drive):
    """Yield (name, how to spoil the messages, words of the warning)."""

    def encoding(message, _info):
        message.encoding = 'rgb9'

    def empty(message, _info):
        message.data, message.width, message.height, message.step = [], 0, 0, 0

    def short(message, _info):
        message.data = message.data[:100]

    def size(_message, info):
        info.width, info.height = 640, 480

    def zeros(_message, info):
        info.k, info.p = np.zeros(9), np.zeros(12)

    yield 'wrong encoding', encoding, 'rgb9'
    yield 'empty', empty, ''
    yield 'short', short, ''
    yield 'size unlike camera_info', size, 'calibrated for 640x480'
    yield 'K of zeros', zeros, 'calibrate'


def test_bad_frames_are_dropped_with_a_reason_and_the_node_goes_on(tmp_path, drive):
    frames = [drive.frames(i)[0] for i in range(3)]
    camera = frames[0].camera
    with Camera(tmp_path, {}) as robot:
        for i in range(2):
            stamp = robot.send(frames[i].image, camera, SECOND_NS + i * SECOND_NS // 10)
        robot.wait(lambda: robot.diagnostics['processed'] == '2', 'the first pose to be reported')
        for number, (name, spoil, words) in enumerate(bad_frames(drive), start=1):
            stamp = robot.send(frames[0].image, camera, stamp + SECOND_NS // 10, change=spoil)
            robot.wait(lambda n=number: int(robot.diagnostics['dropped']) == n, f'{name} to be dropped')
            assert words in robot.diagnostics['last_drop'], name
            assert robot.status.level == DiagnosticStatus.ERROR and words in robot.status.message, name
        # A covered lens is no bad frame: it is processed, and there is no pose in it.
        stamp = robot.send(np.zeros_like(frames[0].image), camera, stamp + SECOND_NS // 10)
        robot.wait(lambda: len(robot.poses) == 2, 'the pose of the covered lens')
        covered = robot.poses[1]
        assert covered.status == RelativePose.STATUS_TOO_FEW_MATCHES
        assert np.isnan(covered.transform.rotation.w) and np.isnan(covered.transform.translation.x)
        # The keyframe from before all this still serves.
        robot.send(frames[2].image, camera, stamp + SECOND_NS // 10)
        robot.wait(lambda: len(robot.poses) == 3, 'the pose after the bad frames')
        assert robot.poses[2].status < RelativePose.STATUS_PURE_ROTATION and robot.poses[2].id0 == 0
        robot.wait(lambda: robot.status.level == DiagnosticStatus.OK, 'the level to follow')
        log = robot.process.log.read_text()
        assert 'Traceback' not in log and 'frame dropped' in log


def test_late_frames_are_dropped_and_a_loop_starts_again(tmp_path, drive):
    frames = [drive.frames(i)[0] for i in range(4)]
    camera = frames[0].camera
    with Camera(tmp_path, {}) as robot:
        for loop, poses in enumerate((3, 5)):
            for i, frame in enumerate(frames):
                robot.send(frame.image, camera, 10 * SECOND_NS + i * SECOND_NS)
            robot.wait(lambda n=poses: len(robot.poses) == n, f'the poses of loop {loop}')
        robot.wait_for_all(8)
        # The first frame of the second loop may be a late one, and is dropped; the second shows that time jumped.
        assert (robot.diagnostics['time_jumps'], robot.diagnostics['dropped']) == ('1', '1')
        assert [pose.id0 for pose in robot.poses] == [0, 0, 0, 4, 4]
        robot.send(frames[0].image, camera, 13 * SECOND_NS - SECOND_NS // 10)
        robot.wait(lambda: robot.diagnostics['dropped'] == '2', 'the late frame to be dropped')
        assert 'not newer' in robot.diagnostics['last_drop']


def test_parameters_change_at_run_time_and_bad_values_are_answered_with_a_reason(tmp_path, drive):
    frames = [drive.frames(i)[0] for i in range(3)]
    integer = lambda value: ParameterValue(type=ParameterType.PARAMETER_INTEGER, integer_value=value)  # noqa: E731
    with Camera(tmp_path, {}) as robot:
        for i in range(2):
            robot.send(frames[i].image, frames[i].camera, (i + 1) * SECOND_NS)
        robot.wait(lambda: robot.matches, 'the first matches')
        assert len(robot.matches[0].confidence) > 50
        assert robot.set('matcher.max_matches', integer(50)).successful
        for i in range(2):
            robot.send(frames[i].image, frames[i].camera, (i + 3) * SECOND_NS)
        robot.wait(lambda: len(robot.matches) >= 2, 'matches after the change')
        assert len(robot.matches[-1].confidence) == 50
        refused = robot.set('matcher.name', text_value('gmc'))
        assert not refused.successful and 'did you mean gcm?' in refused.reason
        refused = robot.set('pose.estimator', text_value('ransac'))
        assert not refused.successful and 'poselib' in refused.reason
        refused = robot.set('pose.min_inliers', text_value('many'))
        assert not refused.successful and 'must be of type int' in refused.reason
        refused = robot.set('input.pairing', text_value('stereo'))
        assert not refused.successful and 'read-only' in refused.reason
        assert 'parameters changed: matcher.max_matches = 50' in robot.process.log.read_text()


def test_compressed_images_and_a_picture_only_for_those_who_look(tmp_path, drive):
    frames = [drive.frames(i)[0] for i in range(3)]
    with Camera(tmp_path, {'input.image_transport': 'compressed'}, compressed=True) as robot:
        robot.node.create_subscription(Image, 'matcher/matches_image', robot.pictures.append, 10)
        for i, frame in enumerate(frames):
            robot.send(frame.image, frame.camera, (i + 1) * SECOND_NS)
        robot.wait(lambda: robot.pictures and len(robot.poses) == 2, 'poses and a picture')
        picture = image_from_msg(robot.pictures[0])
        assert picture.shape[1] >= 2 * SIZE[0] and picture.std() > 10
        assert robot.poses[0].status < RelativePose.STATUS_PURE_ROTATION


def test_silence_is_explained(tmp_path):
    with Camera(tmp_path, {}) as robot:
        robot.wait(lambda: robot.status.message.startswith('No data'), 'the explanation', seconds=20)
        assert '/camera_info 0' in robot.status.message
        assert '/camera_info has a publisher, but nothing arrives from it' in robot.status.message


def test_a_set_of_stamps_that_are_far_apart_is_a_warning_once_for_each_topic(tmp_path, drive):
    def shift(_message, info):
        """Give camera_info a stamp that is 0.45 of the frame period later."""
        info.header = conversions.header(stamp_ns(info.header) + 45 * SECOND_NS // 100, '')

    frame = drive.frames(0)[0]
    wide = {'sync.approximate_sync': 'true', 'sync.approximate_sync_tolerance_seconds': '0.5'}
    with Camera(tmp_path, wide) as robot:
        for i in range(10):
            robot.send(frame.image, frame.camera, (i + 1) * SECOND_NS, change=shift)
        robot.wait_for_all(10)
    warnings = [line for line in robot.process.log.read_text().splitlines() if 'different frames' in line]
    assert len(warnings) == 1 and '/image and /camera_info' in warnings[0]
    assert 'sync.approximate_sync_tolerance_seconds to 0.4 (now 0.5)' in warnings[0]


def test_a_silent_clock_is_reported_and_frames_are_matched_nevertheless(tmp_path, drive):
    with Camera(tmp_path, {'use_sim_time': 'true'}) as robot:
        robot.wait(lambda: '/clock' in robot.status.message, 'the explanation', seconds=20)
        assert robot.status.level == DiagnosticStatus.ERROR and 'set use_sim_time to false' in robot.status.message
        for i in range(2):
            robot.send(drive.frames(i)[0].image, drive.frames(i)[0].camera, (i + 1) * SECOND_NS)
        robot.wait(lambda: robot.poses, 'the pose')
        robot.wait(lambda: robot.status.level == DiagnosticStatus.WARN, 'the level to follow')
        assert '/clock' in robot.status.message


def test_overrides_of_the_quality_of_service_are_applied(tmp_path):
    override = {'qos_overrides./image.subscription.reliability': 'best_effort'}
    idle = {'qos_overrides./left.subscription.depth': '3', 'qos_overrides./image.subscription.lifespan': '3'}
    with Camera(tmp_path, override | idle) as robot:
        found = {
            topic: robot.node.get_subscriptions_info_by_topic(topic)[0].qos_profile.reliability
            for topic in ('/image', '/camera_info')
        }
        assert found == {'/image': ReliabilityPolicy.BEST_EFFORT, '/camera_info': ReliabilityPolicy.RELIABLE}
        log = robot.process.log.read_text()
        for name in idle:
            assert f'parameter {name} has no effect' in log
        assert 'reliability has no effect' not in log


@pytest.mark.parametrize('signals', [(signal.SIGINT, signal.SIGINT), (signal.SIGTERM,), (signal.SIGINT,) * 5])
def test_signals_end_the_node_cleanly_while_frames_come(tmp_path, drive, signals):
    frames = [drive.frames(i)[0] for i in range(2)]
    with Camera(tmp_path, {}) as robot:
        for i in range(30):  # more than it can match meanwhile: a pair is in work when the signal comes
            robot.send(frames[i % 2].image, frames[0].camera, (i + 1) * SECOND_NS // 10)
        robot.wait(lambda: len(robot.matches) > 1, 'the first matches')
        for number in signals:
            robot.process.signal(number)
            time.sleep(0.05)
        assert robot.process.wait() == 0
    log = robot.process.log.read_text()
    assert 'Traceback' not in log and 'terminate' not in log


@pytest.mark.parametrize('gap_s', [0.1, 0.3, 0.5])
def test_a_late_second_interrupt_changes_nothing(tmp_path, gap_s):
    with Camera(tmp_path, {}) as robot:
        for _ in range(30):
            if not robot.process.is_running:
                break
            robot.process.signal(signal.SIGINT)
            time.sleep(gap_s)
        assert robot.process.wait() == 0


STUCK = """
import sys, time
from loftr_ros.ros import matcher_node, worker
def process(self, messages):
    print('in work', flush=True)
    time.sleep(1000)
worker.Worker._process = process
sys.exit(matcher_node.main(sys.argv[1:]))
"""

SLOW = """
import os, sys, time
from loftr_ros.ros import matcher_node, worker
create = worker.create_matcher
def create_slowly(config):
    if config.name == 'gcm':
        print('loading', flush=True)
        while not os.path.exists({go!r}):
            time.sleep(0.02)
    return create(config)
worker.create_matcher = create_slowly
sys.exit(matcher_node.main(sys.argv[1:]))
"""


def changed_node(folder, monkeypatch, source):
    """Write a module that changes the node and runs it; return its name."""
    (folder / 'changed_node.py').write_text(source)
    monkeypatch.setenv('PYTHONPATH', f'{folder}{os.pathsep}{os.environ.get("PYTHONPATH", "")}')
    return 'changed_node'


def text_value(value):
    return ParameterValue(type=ParameterType.PARAMETER_STRING, string_value=value)


def test_while_a_matcher_is_created_frames_are_matched_and_the_clock_runs(tmp_path, drive, monkeypatch):
    go = tmp_path / 'go'
    module = changed_node(tmp_path, monkeypatch, SLOW.format(go=str(go)))
    frames = [drive.frames(i)[0] for i in range(3)]
    with Camera(tmp_path, {'use_sim_time': 'true'}, module=module) as robot:
        clock = robot.node.create_publisher(Clock, '/clock', 10)

        def tick(seconds):
            """Publish a time until the node has it."""

            def has_time():
                clock.publish(Clock(clock=conversions.time_msg(seconds * SECOND_NS)))
                return robot.stamp_s == seconds

            robot.wait(has_time, f'the time {seconds} s')

        tick(100)
        answer = robot.request('matcher.name', text_value('gcm'))
        robot.wait(lambda: 'loading' in robot.process.log.read_text(), 'the new matcher to be created')
        tick(200)
        for i, frame in enumerate(frames[:2]):
            robot.send(frame.image, frame.camera, (i + 198) * SECOND_NS)
        robot.wait(lambda: robot.matches, 'matches of the old matcher')
        assert not robot.matches[0].matcher.startswith('gcm') and robot.matches[0].age_s == pytest.approx(1.0)
        assert not answer.done()
        go.touch()
        robot.wait(answer.done, 'the answer')
        assert answer.result().results[0].successful
        for i, frame in enumerate(frames[:2]):
            robot.send(frame.image, frame.camera, (i + 200) * SECOND_NS)
        robot.wait(lambda: len(robot.matches) == 2, 'matches of the new matcher')
        assert robot.matches[1].matcher.startswith('gcm')


def test_a_matcher_that_is_being_created_does_not_keep_the_node_from_ending(tmp_path, monkeypatch):
    module = changed_node(tmp_path, monkeypatch, SLOW.format(go=str(tmp_path / 'never')))
    with Camera(tmp_path, {}, module=module) as robot:
        robot.request('matcher.name', text_value('gcm'))
        robot.wait(lambda: 'loading' in robot.process.log.read_text(), 'the new matcher to be created')
        robot.process.signal(signal.SIGINT)
        assert robot.process.wait() == 0
    assert 'Traceback' not in robot.process.log.read_text()


def test_a_pair_that_takes_long_does_not_keep_the_node_from_ending(tmp_path, drive, monkeypatch):
    frame = drive.frames(0)[0]
    with Camera(tmp_path, {}, module=changed_node(tmp_path, monkeypatch, STUCK)) as robot:
        robot.send(frame.image, frame.camera, SECOND_NS)
        robot.wait(lambda: 'in work' in robot.process.log.read_text(), 'the pair')
        robot.process.signal(signal.SIGINT)
        assert robot.process.wait() == 0
    assert 'Traceback' not in robot.process.log.read_text()


@pytest.mark.parametrize('after_s', [0.3, 1.0, 2.0])
def test_an_interrupt_while_the_node_starts_ends_it_without_output(tmp_path, after_s):
    process = live_run.Process('loftr_ros.ros.start', [], live_run.isolate(), tmp_path / 'node.log')
    time.sleep(after_s)
    process.signal(signal.SIGINT)
    assert process.wait() == 0
    assert 'Traceback' not in process.log.read_text()


def test_a_node_that_cannot_start_says_why(tmp_path):
    environment = live_run.isolate()
    broken = tmp_path / 'broken.yaml'
    broken.write_text('/**:\n  ros__parameters:\n    pose: [1,\n')
    for arguments, words in (
        (['-p', 'matcher.name:=loftrr'], 'known are'),
        (['-p', 'pose.min_inliers:=1'], 'must be in 6 .. inf'),
        (['-p', 'qos_overrides./image.subscription.reliability:=best'], 'qos_overrides of /image'),
        (['--params-file', str(broken)], 'broken.yaml'),
    ):
        ended = subprocess.run(
            [sys.executable, '-m', 'loftr_ros.ros.matcher_node', '--ros-args', *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert ended.returncode == 1 and words in ended.stderr and 'Traceback' not in ended.stderr, ended.stderr


def test_rosout_tells_why_a_node_cannot_start(tmp_path):
    heard = []
    with Camera(tmp_path, {}) as robot:
        robot.node.create_subscription(Log, '/rosout', lambda message: heard.append(message.msg), 100)
        arguments = ['--ros-args', '-p', 'matcher.name:=loftrr', '-r', '__node:=other']
        other = live_run.Process('loftr_ros.ros.matcher_node', arguments, dict(os.environ), tmp_path / 'other.log')
        robot.wait(lambda: any('cannot start' in text and 'known are' in text for text in heard), 'the reason')
        assert other.wait() == 1
