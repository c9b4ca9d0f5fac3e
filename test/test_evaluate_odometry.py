"""`loftr_ros evaluate --odometry`: folders and bags, with truth and without, broken ones, and the report."""

import contextlib
import dataclasses
import json
import re
import shutil
import subprocess
import weakref

import numpy as np
import pytest
from bag_files import header, image_message

from loftr_ros import cli
from loftr_ros.camera import Camera
from loftr_ros.config import Config
from loftr_ros.datasets import rendered_drive, save_sequence
from loftr_ros.datasets.bag_transforms import StaticTransforms
from loftr_ros.datasets.poses import poses_from_tum, poses_to_tum
from loftr_ros.datatypes import Frame, FrameSet, Matches
from loftr_ros.errors import InputError
from loftr_ros.evaluation.compared import create_compared
from loftr_ros.evaluation.odometry_run import run_odometry, score
from loftr_ros.evaluation.sources import open_source
from loftr_ros.geometry import quaternion_from_matrix, rotation_from_vector, transform
from loftr_ros.matchers import Matcher
from loftr_ros.settings import override

pytest.importorskip('rosbags')

from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

QUICK = ['--matchers', 'sift+lk']
SIZE = (320, 240)


@pytest.fixture(scope='module')
def drive():
    return rendered_drive(seed=1, num_frames=8, size=SIZE)


@pytest.fixture(scope='module')
def folder(drive, tmp_path_factory):
    path = tmp_path_factory.mktemp('evaluation') / 'drive'
    save_sequence(drive, path)
    return path


@contextlib.contextmanager
def recorder(store, path):
    """Yield a function that writes (topic, message, stamp_ns) to a new bag."""
    with Writer(path, version=9, storage_plugin=StoragePlugin.SQLITE3) as writer:

        def write(topic, message, stamp_ns):
            connections = {connection.topic: connection for connection in writer.connections}
            connection = connections.get(topic) or writer.add_connection(topic, message.__msgtype__, typestore=store)
            writer.write(connection, stamp_ns, store.serialize_cdr(message, message.__msgtype__))

        yield write


@pytest.fixture(scope='module')
def bag(drive, tmp_path_factory):
    """A bag of the drive with image, camera_info, depth [mm] and the truth; one image has an unknown encoding."""
    path = tmp_path_factory.mktemp('evaluation') / 'bag'
    store = get_typestore(Stores.LATEST)
    with recorder(store, path) as write:
        for index in range(len(drive)):
            frame, stamp_ns = drive.frames(index)[0], int(drive.stamps_ns[index])
            image = image_message(store, stamp_ns, frame.image, 'bgr8' if index != 5 else 'strange')
            depth = np.rint(drive.depth0(index) * 1000).astype('<u2')[..., None].view(np.uint8)  # (H, W, 2)
            write('/camera/color/image_raw', image, stamp_ns)
            write('/camera/color/camera_info', info(store, stamp_ns, drive.camera0), stamp_ns)
            write('/camera/aligned_depth_to_color/image_raw', image_message(store, stamp_ns, depth, '16UC1'), stamp_ns)
            write('/truth', odometry(store, stamp_ns, drive.world_from_cam0[index]), stamp_ns)
            write(
                '/tf',
                transforms(store, stamp_ns, {'camera': drive.world_from_cam0[index], 'door': np.eye(4)}),
                stamp_ns,
            )
    return path


@pytest.fixture(scope='module')
def unregistered_bag(drive, tmp_path_factory):
    """A bag whose depth camera is upside down and crops the image; /tf_static leads from one to the other in steps."""
    path = tmp_path_factory.mktemp('unregistered') / 'bag'
    store = get_typestore(Stores.LATEST)
    camera = drive.camera0
    left, top, width, height = 11, 7, camera.width - 30, camera.height - 20
    matrix = camera.matrix.copy()  # of the cropped image after half a turn
    matrix[:2, 2] = (width - 1, height - 1) - (matrix[:2, 2] - (left, top))
    half_turn = np.diag([-1.0, -1.0, 1.0, 1.0])
    body_from_image = transform(rotation_from_vector((0.3, -1.2, 0.4)), (0.1, 0.02, -0.3))
    steps = {
        ('body', 'cam'): body_from_image,
        ('body', 'eye'): body_from_image @ half_turn,
        ('eye', 'depth'): np.eye(4),
    }
    with recorder(store, path) as write:
        for (parent, child), pose in steps.items():
            write('/tf_static', transforms(store, 0, {child: pose}, parent), 0)
        for index in range(len(drive)):
            stamp_ns = int(drive.stamps_ns[index])
            write('/color/image', image_message(store, stamp_ns, drive.frames(index)[0].image, 'bgr8'), stamp_ns)
            write('/color/camera_info', info(store, stamp_ns, camera), stamp_ns)
            depth = np.rint(drive.depth0(index)[top : top + height, left : left + width][::-1, ::-1] * 1000)
            depth = depth.astype('<u2')[..., None].view(np.uint8)
            write('/depth/image', image_message(store, stamp_ns, depth, '16UC1', 'depth'), stamp_ns)
            write('/depth/camera_info', info(store, stamp_ns, Camera(matrix, width, height)), stamp_ns)
    return path


def info(store, stamp_ns, camera):
    roi = store.types['sensor_msgs/msg/RegionOfInterest'](x_offset=0, y_offset=0, height=0, width=0, do_rectify=False)
    return store.types['sensor_msgs/msg/CameraInfo'](
        header=header(store, stamp_ns),
        height=camera.height,
        width=camera.width,
        distortion_model='plumb_bob',
        d=np.zeros(5),
        k=camera.matrix.ravel(),
        r=np.eye(3).ravel(),
        p=np.column_stack([camera.matrix, np.zeros(3)]).ravel(),
        binning_x=0,
        binning_y=0,
        roi=roi,
    )


def odometry(store, stamp_ns, pose, speed=0.0):
    def make(name, **values):
        return store.types[f'geometry_msgs/msg/{name}'](**values)

    zero, ahead = (make('Vector3', x=x, y=0.0, z=0.0) for x in (0.0, speed))
    position = make('Point', **dict(zip('xyz', pose[:3, 3].tolist(), strict=True)))
    turn = make('Quaternion', **dict(zip('xyzw', quaternion_from_matrix(pose[:3, :3]).tolist(), strict=True)))
    pose_message = make('Pose', position=position, orientation=turn)
    return store.types['nav_msgs/msg/Odometry'](
        header=header(store, stamp_ns),
        child_frame_id='camera',
        pose=make('PoseWithCovariance', pose=pose_message, covariance=np.zeros(36)),
        twist=make('TwistWithCovariance', twist=make('Twist', linear=ahead, angular=zero), covariance=np.zeros(36)),
    )


def transforms(store, stamp_ns, poses, parent='map'):
    """Return a message with the transforms from a frame to these frames."""

    def make(name, **values):
        return store.types[f'geometry_msgs/msg/{name}'](**values)

    stamped = []
    for child, pose in poses.items():
        place = make('Vector3', **dict(zip('xyz', pose[:3, 3].tolist(), strict=True)))
        turn = make('Quaternion', **dict(zip('xyzw', quaternion_from_matrix(pose[:3, :3]).tolist(), strict=True)))
        transform = make('Transform', translation=place, rotation=turn)
        frame = header(store, stamp_ns, parent)
        stamped.append(make('TransformStamped', header=frame, child_frame_id=child, transform=transform))
    return store.types['tf2_msgs/msg/TFMessage'](transforms=stamped)


def evaluate(*arguments):
    return cli.main(['evaluate', *map(str, arguments), *QUICK])


@pytest.mark.parametrize('rig', ['mono', 'stereo', 'rgbd'])
def test_a_folder_gives_figures_and_files(folder, drive, tmp_path, rig, capsys):
    assert evaluate(folder, '--odometry', rig, '-o', tmp_path) == 0
    results = tmp_path / 'sift+lk'
    summary = json.loads((results / 'summary.json').read_text())
    assert summary['frames'] == summary['frames_with_pose'] == 8
    assert summary['ate_percent_of_path'] < (10 if rig == 'mono' else 3) and summary['drift_is_kitti'] is False
    assert summary['alignment'] == ('Sim3' if rig == 'mono' else 'SE3')
    stamps_ns, poses = poses_from_tum(results / 'trajectory.tum')
    np.testing.assert_array_equal(stamps_ns, drive.stamps_ns)
    rows = np.loadtxt(results / 'trajectory.kitti').reshape(-1, 3, 4)
    np.testing.assert_allclose(rows, poses[:, :3], atol=1e-6)
    np.testing.assert_allclose(poses_from_tum(results / 'truth.tum')[1], drive.world_from_cam0, atol=1e-6)
    run = json.loads((results / 'run.json').read_text())
    assert run['faults_of_the_source'] == run['dropped'] == [] and run['machine'] and 'match_ms_p50' in run['times']
    assert f"rig: '{rig}'" in (results / 'config.yaml').read_text()
    assert '8/8' in capsys.readouterr().out


def test_the_same_input_gives_the_same_bytes(folder, tmp_path):
    for name in 'ab':
        assert evaluate(folder, '--odometry', 'stereo', '-o', tmp_path / name) == 0
    for file in ('frames.csv', 'summary.json', 'trajectory.tum', 'trajectory.kitti', 'config.yaml'):
        first, second = (tmp_path / name / 'sift+lk' / file for name in 'ab')
        assert first.read_bytes() == second.read_bytes(), file


@pytest.mark.parametrize('truth', ['/truth', '/tf:map:camera', 'file'])
def test_a_bag_is_evaluated_with_its_own_truth_and_what_could_not_be_read_is_told(bag, drive, tmp_path, truth, capsys):
    if truth == 'file':
        truth = tmp_path / 'truth.txt'
        poses_to_tum(truth, drive.stamps_ns, drive.world_from_cam0)
    assert evaluate(bag, '--odometry', 'rgbd', '--truth', truth, '-o', tmp_path) == 3
    printed = capsys.readouterr().out
    assert re.search(r"NOT READ .*the encoding 'strange'", printed)
    summary = json.loads((tmp_path / 'sift+lk' / 'summary.json').read_text())
    assert (summary['frames'], summary['frames_with_pose_and_truth']) == (7, 7)
    assert summary['ate_percent_of_path'] < 2
    assert 'strange' in json.loads((tmp_path / 'sift+lk' / 'run.json').read_text())['faults_of_the_source'][0]


def test_the_speed_in_a_bag_gives_one_camera_its_metres(tmp_path, capsys):
    store, path = get_typestore(Stores.LATEST), tmp_path / 'bag'
    long = rendered_drive(seed=1, num_frames=20, size=SIZE)
    with recorder(store, path) as write:
        for index in range(len(long)):
            stamp_ns = int(long.stamps_ns[index])
            write('/image', image_message(store, stamp_ns, long.frames(index)[0].image, 'bgr8'), stamp_ns)
            write('/camera_info', info(store, stamp_ns, long.camera0), stamp_ns)
            write('/truth', odometry(store, stamp_ns, long.world_from_cam0[index]), stamp_ns)
            write('/wheel', odometry(store, stamp_ns, np.eye(4), speed=0.7), stamp_ns)  # STEP_M at 10 Hz
    arguments = (path, '--odometry', 'mono', '--truth', '/truth', '-o', tmp_path / 'results')
    assert evaluate(*arguments, '--speed-topic', '/wheel') == 0
    summary = json.loads((tmp_path / 'results' / 'sift+lk' / 'summary.json').read_text())
    assert summary['alignment'] == 'SE3' and summary['ate_percent_of_path'] < 3
    assert 8 <= summary['frames_with_pose'] <= 12  # those before the unit was known are left out
    assert evaluate(*arguments, '--speed-topic', '/image') == 1
    assert 'no speed on /image; topics with one: /truth, /wheel' in capsys.readouterr().err
    assert evaluate(path, '--odometry', 'stereo', '--speed-topic', '/wheel') == 1
    assert 'for the odometry of a mono rig' in capsys.readouterr().err


def test_depth_is_registered_by_the_transforms_of_the_bag(unregistered_bag, drive, tmp_path, capsys):
    truth = tmp_path / 'truth.txt'
    poses_to_tum(truth, drive.stamps_ns, drive.world_from_cam0)
    arguments = (unregistered_bag, '--odometry', 'rgbd', '--truth', truth, '-o', tmp_path)
    for pose in ('tf', '0 0 0 0 0 3.14159265'):
        assert evaluate(*arguments, '--set', f'odometry.camera_from_depth={pose}') == 0
        summary = json.loads((tmp_path / 'sift+lk' / 'summary.json').read_text())
        assert summary['frames_with_pose_and_truth'] == 8
        assert summary['ate_percent_of_path'] < 2
    assert evaluate(*arguments) == 1
    assert 'set odometry.camera_from_depth' in capsys.readouterr().err


def test_static_transforms_that_a_bag_lacks_are_named(unregistered_bag):
    look_up = StaticTransforms(unregistered_bag).look_up
    np.testing.assert_allclose(look_up('depth', 'depth'), np.eye(4))
    np.testing.assert_allclose(look_up('/depth', 'cam') @ look_up('cam', 'depth'), np.eye(4), atol=1e-9)
    with pytest.raises(InputError, match="does not connect 'lidar' with 'cam'; it has the frames cam, depth, eye"):
        look_up('cam', 'lidar')


def test_a_truncated_bag_is_evaluated_up_to_the_fault(bag, tmp_path, capsys):
    broken = tmp_path / 'bag'
    shutil.copytree(bag, broken)
    [file] = broken.glob('*.db3')
    data = bytearray(file.read_bytes())
    data[len(data) * 2 // 3 :] = bytes(len(data) - len(data) * 2 // 3)
    file.write_bytes(data)
    status = evaluate(broken, '--odometry', 'rgbd', '-o', tmp_path / 'out')
    printed = ''.join(capsys.readouterr())
    assert status in (1, 3) and ('NOT READ' in printed or str(file.name) in printed)


def test_without_truth_there_is_a_trajectory_and_no_error(bag, tmp_path, capsys):
    assert evaluate(bag, '--odometry', 'rgbd', '-o', tmp_path) == 3
    summary = json.loads((tmp_path / 'sift+lk' / 'summary.json').read_text())
    assert 'ate_m' not in summary and summary['frames_with_pose'] == 7
    assert 'without a true trajectory' in (tmp_path / 'sift+lk' / 'report.html').read_text()


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (['--odometry', 'stereo'], 'a stereo rig has 2 image topics, got 1: /camera/color/image_raw'),
        (['--odometry', 'rgbd', '--truth', '/nothing'], 'no trajectory on /nothing; topics with one: /tf, /truth'),
        (['--odometry', 'rgbd', '--truth', '/tf'], 'has the transforms map:camera, map:door; name one'),
        (['--odometry', 'rgbd', '--truth', '/tf:map:robot'], 'has the transforms map:camera, map:door; name one'),
        (['--odometry', 'rgbd', '--truth', '/truth:map:camera'], 'no trajectory on /truth:map:camera'),
        (['--odometry', 'mono', '--export', 'colmap'], '--export colmap is for pairs of images'),
        (['--odometry', 'mono', '--topics', '/wrong'], 'no image topic /wrong'),
        (['--truth', '/truth'], '--truth is only for --odometry'),
    ],
)
def test_what_a_bag_does_not_have_is_said(bag, arguments, words, capsys):
    assert evaluate(bag, *arguments) not in (0, 3)
    assert words in capsys.readouterr().err


def test_a_sequence_without_depth_is_no_rgbd_sequence(tmp_path, drive, capsys):
    save_sequence(dataclasses.replace(drive, load_depth0=None), tmp_path / 'drive')
    assert evaluate(tmp_path / 'drive', '--odometry', 'rgbd') not in (0, 3)
    assert 'can be mono, stereo' in capsys.readouterr().err


def test_the_report_needs_no_other_file_and_shows_all_pictures(folder, tmp_path):
    assert evaluate(folder, '--odometry', 'stereo', '-o', tmp_path) == 0
    text = (tmp_path / 'sift+lk' / 'report.html').read_text()
    assert text.count('<img ') == 6 and 'http' not in re.sub(r'base64,[^"]*', '', text)
    assert 'drift' in text and 'weights_sha256' in text
    browser = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')
    if browser is None:
        pytest.skip('no browser to open it with')
    flags = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run']
    flags += ['--disable-background-networking', '--disable-component-update', '--disable-sync']
    ended = subprocess.run(
        [
            browser,
            *flags,
            f'--user-data-dir={tmp_path / "profile"}',
            '--dump-dom',
            (tmp_path / 'sift+lk/report.html').as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.stdout.count('<img ') == 6 and '<h2>Trajectory</h2>' in ended.stdout


class StillMatcher(Matcher):
    """Finds the same few points in every image."""

    name = 'still'
    points = np.random.default_rng(0).uniform(8, 56, (40, 2))

    def extract(self, image):
        return None

    def match(self, features0, features1):
        ones = np.ones(len(self.points))
        return Matches(self.points, self.points, ones, 0.1 * ones, np.arange(len(self.points)))


def test_images_are_not_kept():
    camera = Camera([[64, 0, 32], [0, 64, 32], [0, 0, 1]], 64, 64)
    config = override(Config(), {'input.pairing': 'odometry'})
    images, alive = [], []

    def frame_sets(count):
        for index in range(count):
            frame = Frame(np.zeros((64, 64), np.uint8), camera, (index + 1) * 100_000_000)
            images.append(weakref.ref(frame.image))
            alive.append(sum(image() is not None for image in images))
            yield FrameSet(frame)

    run = run_odometry(frame_sets(200), StillMatcher(), config)
    assert len(run.rows) == 200 and max(alive) < 12


def test_true_poses_are_those_of_the_nearest_stamp(tmp_path, folder, drive):
    late = tmp_path / 'late.tum'
    shift_ns = np.array([0, 15, -15, 0, 330, 0, 0, 0]) * 1_000_000
    poses_to_tum(late, drive.stamps_ns + shift_ns, drive.world_from_cam0)
    source = open_source(folder, 'mono', Config(), truth=str(late))
    found = source.truth_at(drive.stamps_ns)
    known = np.isfinite(found[:, 0, 0])
    assert known.tolist() == [index != 4 for index in range(8)]
    np.testing.assert_allclose(found[known], drive.world_from_cam0[known], atol=1e-9)


def test_the_covariance_is_judged_against_the_error(folder):
    config = override(Config(), {'input.pairing': 'odometry', 'odometry.rig': 'stereo'})
    source = open_source(folder, 'stereo', config)
    run = run_odometry(source.frame_sets, create_compared('sift+lk', config.matcher), config)
    result = score(run, source.truth_at(run.stamps_ns))
    assert len(result.nees) == 7 and 0.05 < result.nees.mean() < 5
    wide = np.concatenate([run.covariances[:1], 100 * run.covariances[1:]])
    judged = score(dataclasses.replace(run, covariances=wide), source.truth_at(run.stamps_ns))
    np.testing.assert_allclose(judged.nees, result.nees / 100)
