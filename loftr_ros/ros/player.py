"""Plays sequences and bags over ROS, paced by the wall clock."""

from __future__ import annotations

import contextlib
import csv
import signal
import time
from pathlib import Path

import numpy as np
import rclpy
from rclpy.duration import Duration
from rclpy.exceptions import InvalidTopicNameException
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message
from rclpy.signals import SignalHandlerOptions
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from loftr_ros.datasets import Sequence, bag_cameras, bags, open_sequence
from loftr_ros.errors import InputError
from loftr_ros.ros import compat, conversions, message_types
from loftr_ros.ros.inputs import CAMERAS, DEPTH_TOPIC
from loftr_ros.ros.signals import SIGNALS

DEPTH = 100
"""Messages that wait for a slow reader; with 10 a busy node loses frames of a replay."""
SETTLE_S = 2.0
"""Time between the discovery of the subscribers and the first message."""
LINGER_S = 0.5
"""Time after the last message: best-effort readers acknowledge nothing."""


def play(options) -> int:
    """Run `loftr_ros play`; options as its command line defines them."""
    is_bag = bags.is_bag(options.source)
    unused = ['topics'] if not is_bag else ['compressed', 'stamps'] + ['rig'] * (options.rig != 'auto')
    given = [f'--{name}' for name in unused if getattr(options, name)]
    if given:
        raise InputError(f'{", ".join(given)} is only for {"folders of images" if is_bag else "bags"}')
    sequence = None if is_bag else open_sequence(options.source, camera_files=options.camera_info)
    # Without rclpy's handlers, because they destroy the context while a publisher uses it.
    rclpy.init(args=options.ros_arguments, signal_handler_options=SignalHandlerOptions.NO)
    with _interruptible():
        node = Node('camera_driver')
        player = None
        try:
            player = BagPlayer(node, options) if is_bag else SequencePlayer(node, sequence, options)
            player.wait_for_subscribers(options.wait)
            loop = 0
            while options.loop == 0 or loop < options.loop:
                player.play_once()
                loop += 1
            player.finish()
        except KeyboardInterrupt:
            pass
        finally:
            if player is not None:
                print(player.summary())
            node.destroy_node()
            rclpy.try_shutdown()
    return 0


@contextlib.contextmanager
def _interruptible():
    """Turn the first SIGINT or SIGTERM into KeyboardInterrupt and ignore later ones, because the process then ends."""

    def interrupt(*_):
        for number in before:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number in before:
        signal.signal(number, interrupt)
    yield
    for number, handler in before.items():
        if signal.getsignal(number) is interrupt:
            signal.signal(number, handler)


def _baseline(cam1_from_cam0: np.ndarray | None) -> tuple[float, int]:
    """Return the signed length of a baseline [m] and its axis (0: x, 1: y), as P of a rectified pair contains them.

    The length is that of the full translation, also if the images are not rectified: rectification does not change it.
    """
    if cam1_from_cam0 is None:
        return 0.0, 0
    way = -cam1_from_cam0[:3, 3]
    axis = int(np.argmax(np.abs(way[:2])))
    return float(np.copysign(np.linalg.norm(way), way[axis])), axis


class _Player:
    """The common part of both players: /clock and waiting for subscribers."""

    def __init__(self, node: Node, options):
        self._node = node
        self._options = options
        self._clock = node.create_publisher(Clock, '/clock', DEPTH) if options.clock else None
        self._publishers = {}

    def _publish_clock(self, stamp_ns: int) -> None:
        if self._clock is not None:
            self._clock.publish(Clock(clock=conversions.time_msg(stamp_ns)))

    def finish(self) -> None:
        """Wait until the readers have received the last messages, which are lost when the process ends."""
        for publisher in self._publishers.values():
            publisher.wait_for_all_acked(Duration(seconds=5))
        time.sleep(LINGER_S)

    def wait_for_subscribers(self, number: int, timeout_s: float = 60.0) -> None:
        """Return when there are `number` subscribers, so that the first image reaches them."""
        deadline = time.monotonic() + timeout_s
        while self._listeners() < number:
            if time.monotonic() > deadline:
                raise InputError(f'after {timeout_s:.0f} s there are not {number} subscribers: is the node running?')
            rclpy.spin_once(self._node, timeout_sec=0.05)
        # Discovery ends on the two sides at different times; the subscribers must have found these publishers too.
        time.sleep(SETTLE_S if number else 0.0)


class SequencePlayer(_Player):
    """Publishes the images of a sequence, with camera_info and depth, on the topics of a rig."""

    def __init__(self, node: Node, sequence: Sequence, options):
        super().__init__(node, options)
        rig = options.rig
        if rig == 'auto':
            rig = 'stereo' if sequence.is_stereo else 'mono'
        if (rig == 'stereo' and not sequence.is_stereo) or (rig == 'rgbd' and rig not in sequence.rigs()):
            raise InputError(f'{sequence.name} is no {rig} sequence; play it with --rig {sequence.rigs()[-1]}')
        self._sequence = sequence
        self._topics = CAMERAS[rig]
        self._bridge = compat.CvBridge()
        self._published = 0
        self._baseline = _baseline(sequence.cam1_from_cam0)
        image_type = CompressedImage if options.compressed else Image
        for image_topic, info_topic in self._topics:
            suffix = '/compressed' if options.compressed else ''
            self._publishers[image_topic] = node.create_publisher(
                image_type, node.resolve_topic_name(image_topic) + suffix, DEPTH
            )
            self._publishers[info_topic] = node.create_publisher(CameraInfo, node.resolve_topic_name(info_topic), DEPTH)
        self._has_depth = rig == 'rgbd'
        if self._has_depth:
            self._publishers[DEPTH_TOPIC] = node.create_publisher(Image, DEPTH_TOPIC, DEPTH)
        self._stamps = None
        if options.stamps:
            self._stamps = csv.writer(options.stamps.open('w', newline='', buffering=1))
            self._stamps.writerow(['index', 'stamp_ns'])

    def _listeners(self) -> int:
        """Return the smallest number of subscribers of a topic: a set needs all topics."""
        return min(publisher.get_subscription_count() for publisher in self._publishers.values())

    def play_once(self) -> None:
        """Publish every frame once, each with its camera_info of the same stamp."""
        sequence = self._sequence
        offsets_s = (sequence.stamps_ns - sequence.stamps_ns[0]) / 1e9
        if self._options.rate > 0:
            offsets_s = np.arange(len(sequence)) / self._options.rate
        started = time.monotonic()
        for index in range(len(sequence)):
            frames = sequence.frames(index)
            time.sleep(max(0.0, started + offsets_s[index] - time.monotonic()))
            recorded_ns = int(sequence.stamps_ns[index])
            stamp_ns = recorded_ns if self._options.clock else self._node.get_clock().now().nanoseconds
            self._publish_clock(stamp_ns)
            # With one camera, the right images of a stereo sequence are not published.
            for frame, baseline, topics in zip(frames, ((), self._baseline), self._topics, strict=False):
                header = conversions.header(stamp_ns, frame.frame_id)
                self._publishers[topics[0]].publish(self._image_msg(frame.image, header))
                if frame.camera is not None:
                    info = conversions.info_from_camera(frame.camera, header, *baseline)
                    self._publishers[topics[1]].publish(info)
            if self._has_depth:
                header = conversions.header(stamp_ns, frames[0].frame_id)
                self._publishers[DEPTH_TOPIC].publish(self._depth_msg(sequence.depth0(index), header))
            self._published += 1
            if self._stamps:
                self._stamps.writerow([index, stamp_ns])

    def _image_msg(self, image, header):
        if self._options.compressed:
            message = self._bridge.cv2_to_compressed_imgmsg(image)
            message.header = header
            return message
        return self._bridge.cv2_to_imgmsg(image, 'mono8' if image.ndim == 2 else 'bgr8', header)

    def _depth_msg(self, depth_m, header):
        return self._bridge.cv2_to_imgmsg(np.asarray(depth_m, np.float32), '32FC1', header)

    def summary(self) -> str:
        return f'published {self._published} frames of {self._sequence.name}'


class BagPlayer(_Player):
    """Publishes the messages of a bag as they were recorded."""

    def __init__(self, node: Node, options):
        super().__init__(node, options)
        with bags.open_bag(options.source) as bag:
            for name, topic in self._chosen(bag.topics).items():
                reason = self._announce(topic, bag)
                if reason:
                    node.get_logger().warning(f'{name} is not played: {reason}')
        if not self._publishers:
            raise InputError(f'{options.source} has no topic that can be played')
        self._published = dict.fromkeys(self._publishers, 0)
        self._add_camera_infos()

    def _chosen(self, topics: dict[str, bags.Topic]) -> dict[str, bags.Topic]:
        """Return the topics of --topics; by default all except the outputs of this package's node."""
        if self._options.topics:
            missing = [name for name in self._options.topics if name not in topics]
            if missing:
                raise InputError(f'the bag has no topic {", ".join(missing)}; it has {", ".join(topics)}')
            return {name: topics[name] for name in self._options.topics}
        own = {name for name, topic in topics.items() if topic.message_type.startswith('loftr_ros/')}
        own |= {f'{name.rpartition("/")[0]}/matches_image' for name in own} & set(topics)
        if own:
            self._node.get_logger().info(
                f'{", ".join(sorted(own))}: outputs of a matcher node, not played unless --topics names them'
            )
        return {name: topic for name, topic in topics.items() if name not in own}

    def _announce(self, topic: bags.Topic, bag: bags.Bag) -> str:
        """Create a publisher with the recorded quality of service; return the reason if this is impossible."""
        if topic.name == '/clock' and self._clock is not None:
            return '--clock publishes the time of the recording there'
        try:
            cls = message_types.message_class(topic.message_type)
            recorded = bag.layout(topic.name)
        except InputError as error:
            return str(error)
        different = '' if recorded is None else message_types.difference(recorded, message_types.layout_of(cls))
        if different:
            return (
                f'{topic.message_type} was recorded with other fields than the installed package has ({different}); '
                'install the version that it was recorded with'
            )
        profile = QoSProfile(
            depth=DEPTH,
            reliability=ReliabilityPolicy.RELIABLE if topic.is_reliable else ReliabilityPolicy.BEST_EFFORT,
            durability=DurabilityPolicy.TRANSIENT_LOCAL if topic.is_latched else DurabilityPolicy.VOLATILE,
        )
        try:
            self._publishers[topic.name] = self._node.create_publisher(cls, topic.name, profile)
        except (InvalidTopicNameException, ValueError) as error:
            return f'its name is not allowed: {" ".join(str(error).split())}'
        return ''

    def _add_camera_infos(self) -> None:
        """Create a publisher of camera_info for each camera that has none in the bag and has a --camera-info file."""
        images = {
            topic: publisher.msg_type is CompressedImage
            for topic, publisher in self._publishers.items()
            if publisher.msg_type in (Image, CompressedImage)
        }
        names = {image: info for image, info in bag_cameras.cameras(images).items() if info not in self._publishers}
        self._infos = {
            topic: (self._node.create_publisher(CameraInfo, names[topic], DEPTH), camera)
            for topic, camera in bag_cameras.read(names, self._options.camera_info).items()
        }

    def _listeners(self) -> int:
        """Return the largest number of subscribers of a topic: few programs subscribe to all topics of a bag."""
        return max(publisher.get_subscription_count() for publisher in self._publishers.values())

    def _publish_info(self, topic: str, data: bytes) -> None:
        publisher, camera = self._infos[topic]
        header = deserialize_message(data, self._publishers[topic].msg_type).header
        publisher.publish(conversions.info_from_camera(camera, header))

    def play_once(self) -> None:
        first_ns, started = None, time.monotonic()
        speed = self._options.rate or 1.0
        topics = list(self._publishers)
        for topic, _, stamp_ns, data in bags.read_bag(self._options.source, topics, serialized=True):
            if first_ns is None:
                first_ns = stamp_ns
            time.sleep(max(0.0, started + (stamp_ns - first_ns) / 1e9 / speed - time.monotonic()))
            self._publish_clock(stamp_ns)
            self._publishers[topic].publish(bytes(data))
            self._published[topic] += 1
            if topic in self._infos:
                self._publish_info(topic, bytes(data))

    def summary(self) -> str:
        counts = ', '.join(f'{topic} {number}' for topic, number in self._published.items())
        return f'published {counts} of {Path(self._options.source).name}'
