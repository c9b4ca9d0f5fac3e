"""The node's subscriptions: complete sets of image, camera_info and depth, or the reason why none arrive."""

from __future__ import annotations

import time
from collections.abc import Callable

from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from loftr_ros.config import Config
from loftr_ros.errors import ConfigError
from loftr_ros.messages import stamp_ns
from loftr_ros.ros import qos, silence
from loftr_ros.ros.compat import Subscriber, make_synchronizer
from loftr_ros.ros.diagnostics import Statistics
from loftr_ros.ros.silence import SILENCE_S

CAMERAS = {
    'mono': (('image', 'camera_info'),),
    'stereo': (('left/image_rect', 'left/camera_info'), ('right/image_rect', 'right/camera_info')),
    'rgbd': (('image', 'camera_info'),),
}
"""Relative names of image and camera_info of each camera, by rig."""
DEPTH_TOPIC = 'depth/image'
DEPTH_INFO_TOPIC = 'depth/camera_info'
"""Only of a depth image that is not registered."""


def rig_of(config: Config) -> str:
    """Return mono, stereo or rgbd: the cameras that the node subscribes to."""
    pairing = config.input.pairing
    return {'temporal': 'mono', 'stereo': 'stereo', 'odometry': config.odometry.rig}[pairing]


def has_separate_depth(config: Config) -> bool:
    """Return whether the node registers the depth image itself, and therefore needs its camera_info."""
    return rig_of(config) == 'rgbd' and bool(config.odometry.camera_from_depth)


def unused_settings(config: Config) -> list[str]:
    """Return a sentence for each setting that is given and has no effect on the rig."""
    rig, settings = rig_of(config), config.odometry
    given = (
        ('speed', settings.speed != 'none', 'mono'),
        ('camera_from_depth', bool(settings.camera_from_depth), 'rgbd'),
    )
    used_rig = rig if config.input.pairing == 'odometry' else ''
    return [
        f'odometry.{name} has no effect: it is for the odometry of a {needed} rig'
        for name, is_given, needed in given
        if is_given and used_rig != needed
    ]


def _topics(node, config: Config) -> dict[str, type]:
    """Return the full names of the topics and their types; that of a transport depends on its topic after remapping."""
    rig, topics = rig_of(config), {}
    compressed = config.input.image_transport == 'compressed'
    for image, info in CAMERAS[rig]:
        image = node.resolve_topic_name(image) + ('/compressed' if compressed else '')
        topics[image] = CompressedImage if compressed else Image
        topics[node.resolve_topic_name(info)] = CameraInfo
    if rig == 'rgbd':
        compressed = config.input.depth_transport == 'compressed'
        depth = node.resolve_topic_name(DEPTH_TOPIC) + ('/compressedDepth' if compressed else '')
        topics[depth] = CompressedImage if compressed else Image
        if has_separate_depth(config):
            topics[node.resolve_topic_name(DEPTH_INFO_TOPIC)] = CameraInfo
    return topics


class CameraInputs:
    """Subscribes to the cameras of a rig and calls `on_set(image, info, ...)` for each complete set.

    A set ends with the image and camera_info of the right camera, or with the depth image, and its camera_info if it is
    not registered.

    Raises:
        ConfigError: a parameter below `qos_overrides` cannot be applied.
    """

    def __init__(self, node, config: Config, statistics: Statistics, on_set: Callable, callback_group=None):
        self._node = node
        self._statistics = statistics
        self._sync = config.sync
        self._on_set = on_set
        self._callback_group = callback_group
        self._clock = silence.ClockWatch(node)
        self._last_set_s = time.monotonic()
        self._warned: set[str] = set()
        self._image_qos = config.input.image_qos
        topics = _topics(node, config)
        self._topics = list(topics)
        self._types = [f'sensor_msgs/msg/{message_type.__name__}' for message_type in topics.values()]
        subscribers = [self._subscribe(message_type, topic) for topic, message_type in topics.items()]
        self._profiles = [subscriber.sub.qos_profile for subscriber in subscribers]
        slop = config.sync.approximate_sync_tolerance_seconds if config.sync.approximate_sync else None
        self._synchronizer = make_synchronizer(subscribers, config.sync.queue_size, self._deliver, slop=slop)

    def _subscribe(self, message_type, topic: str) -> Subscriber:
        def on_mismatch(event):
            text = qos.mismatch(topic, event)
            self._node.get_logger().error(text)
            self._statistics.set_error(f'qos {topic}', text)

        try:
            return Subscriber(
                self._node,
                message_type,
                topic,
                qos_profile=qos.profile(self._image_qos),
                event_callbacks=qos.SubscriptionEventCallbacks(incompatible_qos=on_mismatch),
                qos_overriding_options=qos.overridable(),
                callback_group=self._callback_group,
            )
        except Exception as error:  # rclpy raises ValueError, TypeError and others, depending on the mistake
            raise ConfigError(f'qos_overrides of {topic} cannot be applied: {error}') from error

    @property
    def received(self) -> dict[str, int]:
        """Number of messages by topic."""
        return dict(zip(self._topics, self._synchronizer.received, strict=True))

    def _deliver(self, *messages) -> None:
        self._last_set_s = time.monotonic()
        self._warn_if_doubtful(messages)
        self._on_set(*messages)

    def _warn_if_doubtful(self, messages: tuple) -> None:
        """Warn, once for each topic, if a wide tolerance of the stamps may pair messages of different frames."""
        if not self._sync.approximate_sync or len(self._warned) == len(self._topics) - 1:
            return
        stamps_ns = [stamp_ns(message.header) for message in messages]
        texts = silence.explain_doubtful_set(self._topics, stamps_ns, self._synchronizer.arrivals, self._sync)
        for topic in texts.keys() - self._warned:
            self._warned.add(topic)
            self._node.get_logger().warning(texts[topic])

    def reset(self) -> None:
        """Drop messages that wait for partners, after a jump of time."""
        self._synchronizer.reset()

    def clock_fault(self) -> str:
        """Return what is wrong with /clock under use_sim_time; empty if nothing is."""
        return self._clock.fault()

    def waiting_for(self) -> str:
        """Return why no set has arrived for SILENCE_S; empty if one has."""
        if time.monotonic() - self._last_set_s < SILENCE_S:
            return ''
        counts = ', '.join(f'{topic} {number}' for topic, number in self.received.items())
        return f'for {SILENCE_S:.0f} s no complete set of messages. Received: {counts}. {self._cause()}'

    def _cause(self) -> str:
        causes = [text for text in (self._clock.fault(),) if text]
        for index, topic in enumerate(self._topics):
            last_s = self._synchronizer.last_arrival_s[index]
            if last_s is None or time.monotonic() - last_s > SILENCE_S:
                reason = silence.explain_graph(self._node, topic, self._types[index], self._profiles[index])
                ago = '' if last_s is None else f' (its last message came {time.monotonic() - last_s:.0f} s ago)'
                causes.append(reason + ago)
        if not causes:
            arrivals = [list(own) for own in self._synchronizer.arrivals]
            causes = [silence.explain_stamps(self._topics, arrivals, self._sync) or 'a set should arrive soon']
        return '; '.join(causes)
