"""`loftr_ros play` as a camera driver: bags and folders, over DDS, from a process of its own."""

import os
import time
from pathlib import Path

import numpy as np
import pytest

rclpy = pytest.importorskip('rclpy')
pytest.importorskip('loftr_ros.msg')

from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.qos import QoSProfile, ReliabilityPolicy  # noqa: E402
from rosgraph_msgs.msg import Clock  # noqa: E402
from sensor_msgs.msg import CameraInfo, CompressedImage, Image  # noqa: E402

from loftr_ros.datatypes import Camera  # noqa: E402
from loftr_ros.evaluation import bags  # noqa: E402
from loftr_ros.evaluation.calibration import camera_to_yaml  # noqa: E402
from loftr_ros.evaluation.sequences import rendered_drive, save_sequence  # noqa: E402
from loftr_ros.ros import live_run  # noqa: E402
from loftr_ros.ros.conversions import stamp_ns  # noqa: E402

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
    # Its messages lie days apart, hence the speed.
    listener = Listener(tmp_path, {image_topic: Image, compressed_topic: CompressedImage, info_topic: CameraInfo})
    heard = listener.hear(BAG, '--camera-info', tmp_path / 'camera.yaml', '--rate', '1e9', '--wait', '1')
    image, info = heard[image_topic][-1], heard[info_topic][-1]
    assert (image.width, image.height, image.encoding) == (640, 480, 'bgr8')
    assert len(image.data) == 640 * 480 * 3 and len(heard[compressed_topic][-1].data) > 1000
    assert stamp_ns(info.header) == stamp_ns(image.header) and info.header.frame_id == image.header.frame_id
    assert info.k[0] == 500 and info.width == 640


def test_a_stereo_folder_is_played_on_the_topics_of_the_node_in_recorded_time(drive, tmp_path):
    topics = {
        'left/image_rect': Image,
        'left/camera_info': CameraInfo,
        'right/camera_info': CameraInfo,
        '/clock': Clock,
        'right/image_rect': Image,
    }
    heard = Listener(tmp_path, topics).hear(drive, '--clock', '--loop', '2', '--wait', '1', '--pairing', 'stereo')
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
    arguments = ('--compressed', '--pairing', 'temporal', '--rate', '20', '--stamps', tmp_path / 's.csv')
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
