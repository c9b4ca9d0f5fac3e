"""The node with pairing odometry over DDS: trajectory, tracks, services, and what it says when it is lost."""

import itertools

import numpy as np
import pytest

rclpy = pytest.importorskip('rclpy')
pytest.importorskip('loftr_ros.msg')
pytest.importorskip('nav_msgs')

from camera_driver import BRIDGE, SECOND_NS, Camera  # noqa: E402
from diagnostic_msgs.msg import DiagnosticStatus  # noqa: E402
from geometry_msgs.msg import TwistStamped  # noqa: E402
from loftr_ros.msg import OdometryInfo, RelativePose, Tracks  # noqa: E402
from loftr_ros.srv import MatchImages  # noqa: E402
from nav_msgs.msg import Odometry, Path  # noqa: E402
from sensor_msgs.msg import CameraInfo, Image, PointCloud, PointCloud2  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402

from loftr_ros import Config, Odometer, create_matcher  # noqa: E402
from loftr_ros.camera import Camera as ImageCamera  # noqa: E402
from loftr_ros.datasets import open_sequence, rendered_drive, save_sequence  # noqa: E402
from loftr_ros.datatypes import UNKNOWN_VARIANCE  # noqa: E402
from loftr_ros.geometry import rotation_angle  # noqa: E402
from loftr_ros.messages import stamp_ns  # noqa: E402
from loftr_ros.odometry.base_frame import odom_from_base, parse_mounting  # noqa: E402
from loftr_ros.ros import conversions, live_run  # noqa: E402
from loftr_ros.ros.odometry_messages import pose_from_msg  # noqa: E402
from loftr_ros.settings import override  # noqa: E402

pytestmark = pytest.mark.ros

SIZE = (320, 240)
MOUNTING = '0.2 0.05 0.4 -1.6 0.02 -1.55'
QUICK = {'matcher.max_matches': '300'}
OUTPUTS = {'odometry': Odometry, 'odometry_info': OdometryInfo, 'tracks': Tracks, 'path': Path, 'points': PointCloud2}
OUTPUTS['features'] = PointCloud


@pytest.fixture(scope='module')
def drive():
    return rendered_drive(seed=1, num_frames=12, size=SIZE)


@pytest.fixture(scope='module')
def folder(drive, tmp_path_factory):
    path = tmp_path_factory.mktemp('drive')
    save_sequence(drive, path / 'drive')
    return path


@pytest.mark.parametrize(('rig', 'scale'), [('stereo', RelativePose.SCALE_STEREO), ('rgbd', RelativePose.SCALE_DEPTH)])
def test_a_rig_with_depth_publishes_the_metric_path_of_the_robot(folder, drive, rig, scale):
    parameters = {
        'input.process_every_frame': 'true',
        'input.image_qos': 'RELIABLE',
        'odometry.base_from_camera': f'"{MOUNTING}"',
        **QUICK,
    }
    recording = live_run.run(folder / 'drive', [], 'odometry', 10.0, folder, parameters, rig=rig)
    assert [len(messages) for messages in (recording.odometry, recording.infos, recording.tracks)] == [12, 12, 12]
    assert len(recording.matches) == len(recording.poses) == 11
    assert [info.status for info in recording.infos] == [OdometryInfo.STATUS_STARTING] + 11 * [OdometryInfo.STATUS_OK]
    assert {info.scale for info in recording.infos} == {scale}
    base_from_cam = parse_mounting(MOUNTING)
    origin = base_from_cam @ np.linalg.inv(drive.world_from_cam0[0])
    for index, message in enumerate(recording.odometry):
        assert (message.header.frame_id, message.child_frame_id) == ('odom', 'base_link')
        assert recording.stamps_ns[stamp_ns(message.header)] == index
        truth = origin @ drive.world_from_cam0[index] @ np.linalg.inv(base_from_cam)
        error = np.linalg.inv(truth) @ pose_from_msg(message)
        # QVGA with a baseline of 12 cm, over a path of 0.75 m.
        assert np.linalg.norm(error[:3, 3]) < 0.02
        assert rotation_angle(error[:3, :3]) < np.radians(0.2)
        assert np.linalg.eigvalsh(np.reshape(message.pose.covariance, (6, 6)))[0] > 0
    assert recording.odometry[0].twist.covariance[0] == UNKNOWN_VARIANCE
    check_velocity(recording.odometry)
    check_tracks(recording.tracks)


def test_the_node_publishes_what_the_offline_evaluation_computes(folder):
    settings = {'odometry.base_from_camera': 'forward', 'matcher.max_matches': 300}
    parameters = {**settings, 'input.process_every_frame': 'true', 'input.image_qos': 'RELIABLE'}
    recording = live_run.run(
        folder / 'drive', [], 'odometry', 10.0, folder, parameters, rig='stereo', recorded_stamps=True
    )
    config = override(Config(), {**settings, 'input.pairing': 'odometry', 'odometry.rig': 'stereo'})
    sequence = open_sequence(folder / 'drive')
    odometer = Odometer(create_matcher(config.matcher), config)
    motions = [odometer.process(sequence.frame_set(index, 'stereo')) for index in range(len(sequence))]
    forward = parse_mounting('forward')
    for motion, message, info in zip(motions, recording.odometry, recording.infos, strict=True):
        assert (stamp_ns(message.header), info.status) == (motion.stamp_ns, motion.status)
        pose = odom_from_base(motion, forward)
        np.testing.assert_allclose(pose_from_msg(message), pose.matrix, atol=1e-12)
        np.testing.assert_array_equal(np.reshape(message.pose.covariance, (6, 6)), pose.covariance)
    pairs = [motion.pair for motion in motions if motion.pair is not None]
    for pair, (message, _) in zip(pairs, recording.matches, strict=True):
        found = conversions.matches_from_msg(message)
        for name in ('keypoints0', 'keypoints1', 'confidence', 'sigma_px'):
            np.testing.assert_array_equal(getattr(found, name), np.float32(getattr(pair.matches, name)), name)
        np.testing.assert_array_equal(conversions.inliers_from_msg(message), pair.inliers)
    for motion, message in zip(motions, recording.tracks, strict=True):
        np.testing.assert_array_equal(message.ids, motion.tracks.ids)


def check_velocity(messages):
    """The twist is the motion between two messages, in the axes of the robot at the second one."""
    for first, second in itertools.pairwise(messages):
        if second.twist.covariance[0] == UNKNOWN_VARIANCE:
            continue  # after a change of the keyframe
        elapsed_s = (stamp_ns(second.header) - stamp_ns(first.header)) / SECOND_NS
        moved = pose_from_msg(second)[:3, 3] - pose_from_msg(first)[:3, 3]
        linear = second.twist.twist.linear
        found = pose_from_msg(second)[:3, :3] @ [linear.x, linear.y, linear.z]
        # The base is on an arc: its velocity at the end differs from the mean.
        np.testing.assert_allclose(found, moved / elapsed_s, atol=0.1 * np.linalg.norm(moved) / elapsed_s + 0.01)


def check_tracks(messages):
    assert not len(messages[0].ids)
    for message in messages[1:]:
        count = len(message.ids)
        assert count > 50 and len(set(message.ids)) == count
        assert [len(a) for a in (message.points, message.rays, message.velocity)] == 3 * [2 * count]
        assert (len(message.depth), len(message.sigma_px)) == (count, count)
        assert np.isfinite(message.depth).mean() > 0.3
    both = set(messages[1].ids) & set(messages[6].ids)
    assert len(both) > 30


def test_a_covered_lens_is_lost_and_the_pose_comes_back(tmp_path, drive):
    parameters = {'input.pairing': 'odometry', 'odometry.base_from_camera': 'forward', **QUICK}
    with Camera(tmp_path, parameters, outputs=OUTPUTS) as robot:
        covered = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
        images = [drive.frames(i)[0].image for i in range(6)] + 4 * [covered] + [drive.frames(6)[0].image]
        for number, image in enumerate(images):
            robot.send(image, drive.camera0, (number + 1) * SECOND_NS // 10)
        robot.wait(lambda: len(robot.heard['odometry_info']) == len(images), 'all messages')
        robot.wait(lambda: len(robot.heard['odometry']) == len(images), 'all messages')
        infos = robot.heard['odometry_info']
        assert [info.status for info in infos[6:10]] == 2 * [OdometryInfo.STATUS_TOO_FEW] + 2 * [
            OdometryInfo.STATUS_LOST
        ]
        assert infos[10].status < OdometryInfo.STATUS_TOO_FEW and infos[10].relocalised and infos[10].segment == 0
        for message in robot.heard['odometry'][6:10]:
            turn = message.pose.pose.orientation
            assert (turn.x, turn.y, turn.z, turn.w) == (0, 0, 0, 0) and pose_from_msg(message) is None
            for covariance in (message.pose.covariance, message.twist.covariance):
                np.testing.assert_array_equal(np.reshape(covariance, (6, 6)), UNKNOWN_VARIANCE * np.eye(6))
        last = robot.heard['odometry'][-1]
        # One camera: the orientation is known, the unit of length is not.
        variances = np.diag(np.reshape(last.pose.covariance, (6, 6)))
        assert (variances[:3] == UNKNOWN_VARIANCE).all() and (variances[3:] < 1e-3).all()
        truth = np.linalg.inv(drive.world_from_cam0[0]) @ drive.world_from_cam0[6]
        forward = parse_mounting('forward')
        error = np.linalg.inv(forward @ truth @ np.linalg.inv(forward)) @ pose_from_msg(last)
        assert rotation_angle(error[:3, :3]) < np.radians(0.3)
        topics = [robot.heard[name] for name in ('path', 'points', 'features', 'tracks')]
        robot.wait(
            lambda: all(heard and heard[-1].header.stamp == last.header.stamp for heard in topics),
            'the last frame on every topic',
        )
        path, cloud, features, tracks = (heard[-1] for heard in topics)
        assert len(path.poses) == 7, 'the frames with a pose'
        assert path.header.frame_id == cloud.header.frame_id == 'odom'
        assert features.header == tracks.header
        check_features(features, tracks)
        points = np.frombuffer(cloud.data, [('x', 'f4'), ('y', 'f4'), ('z', 'f4'), ('rgb', 'u4')])
        assert len(points) == cloud.width > 50 and (points['x'] > 0).all()  # all in front of the robot


def test_depth_of_another_camera_is_registered_by_the_node(tmp_path, drive):
    parameters = {
        'input.pairing': 'odometry',
        'odometry.rig': 'rgbd',
        'odometry.camera_from_depth': '"0 0 0 0 0 3.14159265"',  # upside down
        'odometry.base_from_camera': 'forward',
        **QUICK,
    }
    matrix = drive.camera0.matrix.copy()
    matrix[:2, 2] = (SIZE[0] - 1, SIZE[1] - 1) - matrix[:2, 2]
    depth_camera = ImageCamera(matrix, *SIZE)
    with Camera(tmp_path, parameters, outputs=OUTPUTS) as robot:
        publishers = [
            robot.node.create_publisher(kind, f'depth/{name}', 10)
            for name, kind in (('image', Image), ('camera_info', CameraInfo))
        ]
        robot.wait(lambda: all(each.get_subscription_count() for each in publishers), 'subscriptions to depth')
        for number in range(5):
            stamp_ns = (number + 1) * SECOND_NS // 10
            header = conversions.header(stamp_ns, 'depth_optical_frame')
            depth = np.ascontiguousarray(np.float32(drive.depth0(number))[::-1, ::-1])
            publishers[0].publish(BRIDGE.cv2_to_imgmsg(depth, '32FC1', header))
            publishers[1].publish(conversions.info_from_camera(depth_camera, header))
            robot.send(drive.frames(number)[0].image, drive.camera0, stamp_ns)
        robot.wait(lambda: len(robot.heard['odometry']) == 5, 'all messages')
        forward = parse_mounting('forward')
        truth = np.linalg.inv(drive.world_from_cam0[0]) @ drive.world_from_cam0[4]
        error = np.linalg.inv(forward @ truth @ np.linalg.inv(forward)) @ pose_from_msg(robot.heard['odometry'][-1])
        assert np.linalg.norm(error[:3, 3]) < 0.01 < 0.2 < np.linalg.norm(truth[:3, 3])
        assert robot.heard['odometry_info'][-1].scale == RelativePose.SCALE_DEPTH


def test_the_speed_of_the_robot_gives_one_camera_its_metres(tmp_path, drive):
    parameters = {'input.pairing': 'odometry', 'odometry.base_from_camera': 'forward', **QUICK}
    with Camera(tmp_path, {**parameters, 'odometry.speed': 'TwistStamped'}, outputs=OUTPUTS) as robot:
        speeds = robot.node.create_publisher(TwistStamped, 'speed', 100)
        robot.wait(speeds.get_subscription_count, 'the subscription to the speed')
        steps = np.linalg.norm(np.diff(drive.world_from_cam0[:, :3, 3], axis=0), axis=1)
        sent = []
        for number in range(12):
            stamp_ns = (number + 1) * SECOND_NS // 10
            message = TwistStamped(header=conversions.header(stamp_ns, 'base_link'))
            message.twist.linear.x = float(steps[max(number - 1, 0)] * 10)
            speeds.publish(message)
            sent.append(robot.send(drive.frames(number)[0].image, drive.camera0, stamp_ns))
            heard = [robot.heard[name] for name in ('odometry', 'odometry_info', 'points', 'path')]
            robot.wait(lambda h=heard: all(len(messages) == len(sent) for messages in h), 'all topics')
        scales = [info.scale for info in robot.heard['odometry_info']]
        assert scales[0] == RelativePose.SCALE_UP_TO_SCALE and scales[-1] == RelativePose.SCALE_EXTERNAL
        last = robot.heard['odometry'][-1]
        forward = parse_mounting('forward')
        truth = forward @ np.linalg.inv(drive.world_from_cam0[0]) @ drive.world_from_cam0[11] @ np.linalg.inv(forward)
        np.testing.assert_allclose(pose_from_msg(last)[:3, 3], truth[:3, 3], atol=0.03)  # of 0.75 m
        assert last.pose.covariance[0] < 0.01
        assert robot.heard['points'][0].width == 0  # before the map
        assert len(robot.heard['path'][-1].poses) == scales.count(RelativePose.SCALE_EXTERNAL)


def check_features(features, tracks):
    """As VINS-Fusion reads them: it needs z == 1, and channels 6 to 8 if there are more than five."""
    columns = [np.array(channel.values) for channel in features.channels]
    assert len(columns) == 9 and all(len(column) == len(tracks.ids) > 50 for column in columns)
    np.testing.assert_array_equal(columns[0], np.array(tracks.ids))
    np.testing.assert_array_equal(columns[1], 0)
    np.testing.assert_array_equal(np.column_stack(columns[2:4]).ravel(), tracks.points)
    np.testing.assert_array_equal(np.column_stack(columns[4:6]).ravel(), np.nan_to_num(tracks.velocity))
    rays = np.array([(point.x, point.y, point.z) for point in features.points])
    np.testing.assert_array_equal(rays[:, :2].ravel(), tracks.rays)
    assert (rays[:, 2] == 1).all() and np.isfinite(columns).all()


def test_services_pause_reset_choose_a_keyframe_and_verify_a_loop(tmp_path, drive):
    parameters = {'input.pairing': 'odometry', 'odometry.base_from_camera': 'forward', **QUICK}
    with Camera(tmp_path, parameters, outputs=OUTPUTS) as robot:
        infos = robot.heard['odometry_info']

        def send(*indices):
            for index in indices:
                robot.send(drive.frames(index)[0].image, drive.camera0, (index + 1) * SECOND_NS // 10)
            last_ns = (indices[-1] + 1) * SECOND_NS // 10
            for messages in (infos, robot.heard['odometry']):
                robot.wait(lambda m=messages: m and stamp_ns(m[-1].header) == last_ns, 'the last frame')

        send(0, 1, 2, 3)
        assert infos[-1].keyframe_id == 0
        assert robot.call(Trigger, 'set_keyframe').success
        send(4, 5)
        assert infos[-2].is_keyframe and infos[-1].keyframe_id == infos[-2].id

        assert robot.call(Trigger, 'pause').success
        before = len(infos)
        robot.send(drive.frames(6)[0].image, drive.camera0, 7 * SECOND_NS // 10)
        robot.wait(lambda: 'Paused' in robot.status.message, 'the diagnostics')
        assert robot.status.level == DiagnosticStatus.WARN and len(infos) == before
        assert robot.call(Trigger, 'pause').message == 'was paused already'
        assert robot.call(Trigger, 'resume').success
        send(7)
        assert infos[-1].status < OdometryInfo.STATUS_TOO_FEW

        assert robot.call(Trigger, 'reset').success
        send(8)
        assert infos[-1].status == OdometryInfo.STATUS_STARTING
        np.testing.assert_allclose(pose_from_msg(robot.heard['odometry'][-1]), np.eye(4), atol=1e-9)

        frames = [drive.frames(index)[0] for index in (2, 6)]
        headers = [conversions.header(frame.stamp_ns, 'camera') for frame in frames]
        images = [BRIDGE.cv2_to_imgmsg(f.image, 'bgr8', h) for f, h in zip(frames, headers, strict=True)]
        info = conversions.info_from_camera(drive.camera0, headers[0])
        fields = {
            'image0': images[0],
            'image1': images[1],
            'camera_info0': info,
            'camera_info1': info,
            'id0': 2,
            'id1': 6,
        }
        truth = np.linalg.inv(drive.world_from_cam0[6]) @ drive.world_from_cam0[2]
        answer = robot.call(MatchImages, 'match_pair', **fields)
        assert answer.success and (answer.relative_pose.id0, answer.matches.id1) == (2, 6)
        found = conversions.relative_pose_from_msg(answer.relative_pose)
        assert rotation_angle(found.rotation @ truth[:3, :3].T) < np.radians(0.5)
        depth = BRIDGE.cv2_to_imgmsg(np.float32(drive.depth0(2)), '32FC1', headers[0])
        metric = conversions.relative_pose_from_msg(
            robot.call(MatchImages, 'match_pair', depth0=depth, **fields).relative_pose
        )
        np.testing.assert_allclose(metric.translation, truth[:3, 3], atol=0.02)
        without = robot.call(MatchImages, 'match_pair', image0=images[0], image1=images[1])
        assert without.success and 'camera_info' in without.message and len(without.matches.points0)
        bad = robot.call(MatchImages, 'match_pair', image0=images[0])
        assert not bad.success and 'encoding' in bad.message


@pytest.mark.parametrize(
    ('parameters', 'words'),
    [
        ({'odometry.base_from_camera': '"1 2 3"'}, 'a pose is'),
        ({'odometry.base_frame': 'odom', 'odometry.base_from_camera': 'forward'}, 'must be two frames'),
    ],
)
def test_a_node_that_cannot_know_where_its_camera_is_does_not_start(tmp_path, parameters, words):
    environment = live_run.isolate()
    arguments = ['--ros-args', '-p', 'input.pairing:=odometry', '-p', 'matcher.name:=orb']
    for name, value in parameters.items():
        arguments += ['-p', f'{name}:={value}']
    node = live_run.Process('loftr_ros.ros.matcher_node', arguments, environment, tmp_path / 'node.log')
    assert node.wait(60) == 1
    assert words in (tmp_path / 'node.log').read_text()
