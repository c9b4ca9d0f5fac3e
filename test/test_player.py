"""`loftr_ros play` as a camera driver: bags and folders over DDS, from a separate process."""

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

rclpy = pytest.importorskip('rclpy')
pytest.importorskip('loftr_ros.msg')
pytest.importorskip('rosbags')
pytest.importorskip('mcap')

from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy  # noqa: E402
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime  # noqa: E402
from rosbags.rosbag2 import StoragePlugin, Writer  # noqa: E402
from rosbags.typesys import Stores, get_types_from_msg, get_typestore  # noqa: E402
from rosgraph_msgs.msg import Clock  # noqa: E402
from sensor_msgs.msg import CameraInfo, CompressedImage, Image  # noqa: E402
from std_msgs.msg import String  # noqa: E402

from loftr_ros import cli  # noqa: E402
from loftr_ros.camera import Camera  # noqa: E402
from loftr_ros.datasets import (  # noqa: E402
    bags,
    rendered_drive,
    save_sequence,
)
from loftr_ros.datasets.calibration import camera_to_yaml  # noqa: E402
from loftr_ros.messages import stamp_ns  # noqa: E402
from loftr_ros.ros import live_run  # noqa: E402

pytestmark = pytest.mark.ros
BAG = Path(__file__).parents[2] / 'shared' / 'data' / 'bags' / 'sample.db3'
RELIABLE = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)


class Listener:
    """Subscribes before the player starts and collects what it publishes until it ends."""

    def __init__(self, folder, topics):
        self.environment = live_run.isolate()
        self.folder = folder
        os.environ.update({k: v for k, v in self.environment.items() if k.startswith(('ROS_', 'FASTDDS_'))})
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node('listener', context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.messages = {topic: [] for topic in topics}
        for topic, message_type in topics.items():
            self.node.create_subscription(message_type, topic, self.messages[topic].append, RELIABLE)

    def hear(self, *arguments, seconds=60):
        player = live_run.Process(
            'loftr_ros.cli', ['play', *map(str, arguments)], self.environment, self.folder / 'log'
        )
        deadline = time.monotonic() + seconds
        try:
            while player.is_running and time.monotonic() < deadline:
                self.executor.spin_once(timeout_sec=0.05)
            for _ in range(20):
                self.executor.spin_once(timeout_sec=0.02)
            player.check()
            assert not player.is_running, player.log.read_text()
        finally:
            if player.is_running:
                player.stop()
            self.executor.shutdown()
            self.node.destroy_node()
            rclpy.try_shutdown(context=self.context)
        return self.messages


@pytest.fixture(scope='module')
def drive(tmp_path_factory):
    folder = tmp_path_factory.mktemp('drive') / 'drive'
    save_sequence(rendered_drive(num_frames=4, size=(160, 120)), folder)
    return folder


def test_a_bag_with_old_type_names_is_played_with_the_camera_info_that_it_lacks(tmp_path):
    if not BAG.is_file():
        pytest.skip(f'{BAG} is absent')
    types = bags.bag_topics(BAG)
    image_topic = next(topic for topic, name in types.items() if name.endswith('/Image'))
    compressed_topic = next(topic for topic, name in types.items() if name.endswith('/CompressedImage'))
    info_topic = image_topic.rpartition('/')[0] + '/camera_info'
    camera_to_yaml(Camera([[500, 0, 320], [0, 500, 240], [0, 0, 1]], 640, 480), tmp_path / 'camera.yaml')
    # Its messages are days apart, hence the speed.
    listener = Listener(tmp_path, {image_topic: Image, compressed_topic: CompressedImage, info_topic: CameraInfo})
    heard = listener.hear(BAG, '--camera-info', tmp_path / 'camera.yaml', '--rate', '1e9', '--wait', '1')
    image, info = heard[image_topic][-1], heard[info_topic][-1]
    assert (image.width, image.height, image.encoding) == (640, 480, 'bgr8')
    assert len(image.data) == 640 * 480 * 3 and len(heard[compressed_topic][-1].data) > 1000
    assert stamp_ns(info.header) == stamp_ns(image.header) and info.header.frame_id == image.header.frame_id
    assert info.k[0] == 500 and info.width == 640


def string_bag(folder, topics, profiles=()):
    """A bag with a text on each topic: {topic: (message type, message)}."""
    store = get_typestore(Stores.LATEST)
    with Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        for topic in topics:
            added = writer.add_connection(
                topic, 'std_msgs/msg/String', typestore=store, offered_qos_profiles=list(profiles)
            )
            for stamp_ns in (1, 2, 3):
                text = store.types['std_msgs/msg/String'](data=topic)
                writer.write(added, stamp_ns, store.serialize_cdr(text, added.msgtype))
    return folder


def test_latched_topics_are_played_latched_and_remapped(tmp_path):
    zero = QosTime(0, 0)
    latched = Qos(
        QosHistory.KEEP_LAST, 1, QosReliability.RELIABLE, QosDurability.TRANSIENT_LOCAL, zero, zero,
        QosLiveliness.AUTOMATIC, zero, False,
    )  # fmt: skip
    bag = string_bag(tmp_path / 'bag', ['/robot_description'], [latched])
    listener = Listener(tmp_path, {})
    listener.messages['/other'] = []
    profile = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    listener.node.create_subscription(String, '/other', listener.messages['/other'].append, profile)
    heard = listener.hear(bag, '--wait', '1', '--ros-args', '-r', '/robot_description:=/other')
    assert [message.data for message in heard['/other']] == ['/robot_description'] * 3


def test_topics_can_be_chosen_and_a_wrong_name_is_answered_with_those_of_the_bag(tmp_path, capsys):
    bag = string_bag(tmp_path / 'bag', ['/a', '/b', '/c'])
    assert cli.main(['play', str(bag), '--topics', '/a', '/c']) == 0
    assert 'published /a 3, /c 3 of bag' in capsys.readouterr().out
    assert cli.main(['play', str(bag), '--topics', '/x']) == 1
    assert 'no topic /x; it has /a, /b, /c' in capsys.readouterr().err


def test_option_clock_replaces_a_recorded_clock_and_an_illegal_name_is_skipped(tmp_path, capfd):
    bag = string_bag(tmp_path / 'bag', ['/clock', '/a', '/1 wrong'])
    assert cli.main(['play', str(bag), '--clock']) == 0
    captured = capfd.readouterr()
    assert 'published /a 3 of bag' in captured.out
    assert '/clock is not played' in captured.err and '/1 wrong is not played: its name' in captured.err


def test_the_outputs_of_a_matcher_node_are_not_played_unless_named(tmp_path, capfd):
    store = get_typestore(Stores.LATEST)
    store.register(get_types_from_msg('string data\n', 'loftr_ros/msg/Matches'))
    with Writer(tmp_path / 'bag', version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        for topic, kind in (('/matcher/matches', 'loftr_ros/msg/Matches'), ('/a', 'std_msgs/msg/String')):
            added = writer.add_connection(topic, kind, typestore=store)
            writer.write(added, 1, store.serialize_cdr(store.types[kind](data='x'), kind))
    assert cli.main(['play', str(tmp_path / 'bag')]) == 0
    assert 'published /a 1 of bag' in capfd.readouterr().out
    # Asked for, it meets the installed type, which is another one here.
    assert cli.main(['play', str(tmp_path / 'bag'), '--topics', '/matcher/matches']) == 1
    assert 'was recorded with other fields' in capfd.readouterr().err


@pytest.mark.parametrize('signals', [(signal.SIGINT,), (signal.SIGTERM,), (signal.SIGINT, signal.SIGINT)])
def test_signals_end_the_player_cleanly(drive, tmp_path, signals):
    process = live_run.Process(
        'loftr_ros.cli', ['play', str(drive), '--loop', '0'], live_run.isolate(), tmp_path / 'log'
    )
    time.sleep(4)
    for number in signals:
        process.signal(number)
        time.sleep(0.05)
    assert process.wait() == 0
    words = process.log.read_text()
    assert 'Traceback' not in words and 'published' in words


def test_options_of_the_other_kind_of_source_are_refused(drive, tmp_path, capsys):
    assert cli.main(['play', str(drive), '--topics', '/a']) == 1
    assert '--topics is only for bags' in capsys.readouterr().err
    assert cli.main(['play', str(string_bag(tmp_path / 'bag', ['/a'])), '--compressed']) == 1
    assert '--compressed is only for folders of images' in capsys.readouterr().err


def test_a_stereo_folder_is_played_on_the_topics_of_the_node_in_recorded_time(drive, tmp_path):
    topics = {
        'left/image_rect': Image,
        'left/camera_info': CameraInfo,
        'right/camera_info': CameraInfo,
        '/clock': Clock,
        'right/image_rect': Image,
    }
    heard = Listener(tmp_path, topics).hear(drive, '--clock', '--loop', '2', '--wait', '1', '--rig', 'stereo')
    stamps = [stamp_ns(message.header) for message in heard['left/image_rect']]
    clock = [message.clock.sec * 10**9 + message.clock.nanosec for message in heard['/clock']]
    # The second loop repeats the stamps of the first: time jumps back, as it does in a bag that loops.
    recorded = [10**9 + i * 10**8 for i in range(4)]
    assert stamps == 2 * recorded and clock[-4:] == recorded
    right = heard['right/camera_info'][-1]
    assert -right.p[3] / right.p[0] == pytest.approx(0.12)


def test_compressed_images_and_stamps_of_now(drive, tmp_path):
    topics = {'image/compressed': CompressedImage, 'camera_info': CameraInfo}
    before = time.time_ns()
    arguments = ('--compressed', '--rig', 'mono', '--rate', '20', '--stamps', tmp_path / 's.csv')
    # --wait asks for a listener on every topic, so that all four frames arrive.
    heard = Listener(tmp_path, topics).hear(drive, *arguments, '--wait', '1')
    stamps = [stamp_ns(message.header) for message in heard['image/compressed']]
    assert len(stamps) == 4 and all(before < stamp < time.time_ns() for stamp in stamps)
    written = np.loadtxt(tmp_path / 's.csv', delimiter=',', skiprows=1, dtype=np.int64)
    assert written[:, 1].tolist() == stamps and written[:, 0].tolist() == [0, 1, 2, 3]


def test_a_source_that_is_no_sequence_is_answered_in_one_line(tmp_path):
    environment = live_run.isolate()
    player = live_run.Process('loftr_ros.cli', ['play', str(tmp_path / 'absent')], environment, tmp_path / 'log')
    with pytest.raises(live_run.LiveRunError, match='absent'):
        while player.is_running:
            time.sleep(0.05)
        player.check()
    assert 'Traceback' not in (tmp_path / 'log').read_text()
