"""The node's subscriptions: complete sets of image and camera_info messages, and an explanation while none come."""

from __future__ import annotations

import time
from collections.abc import Callable

from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from loftr_ros.config import Config
from loftr_ros.ros import qos
from loftr_ros.ros.compat import Subscriber, make_synchronizer
from loftr_ros.ros.diagnostics import SILENCE_S, Statistics

TOPICS = {
    'stereo': (('left/image_rect', 'left/camera_info'), ('right/image_rect', 'right/camera_info')),
    'temporal': (('image', 'camera_info'),),
}
"""Relative names, image then camera_info of each camera, by `input.pairing`."""


class CameraInputs:
    """Subscribes to the cameras of a pairing and calls `on_set(image, info[, image, info])` for each complete set."""

    def __init__(self, node, config: Config, statistics: Statistics, on_set: Callable):
        self._node = node
        self._statistics = statistics
        self._sync = config.sync
        self._on_set = on_set
        self._last_set_s = time.monotonic()
        self._qos = qos.profile(config.input.image_qos)
        compressed = config.input.image_transport == 'compressed'
        topics = {}
        for image_topic, info_topic in TOPICS[config.input.pairing]:
            # The transport's topic follows the image topic, also where that is remapped.
            image_topic = node.resolve_topic_name(image_topic) + ('/compressed' if compressed else '')
            topics[image_topic] = CompressedImage if compressed else Image
            topics[node.resolve_topic_name(info_topic)] = CameraInfo
        self._topics = list(topics)
        subscribers = [self._subscribe(message_type, topic) for topic, message_type in topics.items()]
        slop = config.sync.approximate_sync_tolerance_seconds if config.sync.approximate_sync else None
        self._synchronizer = make_synchronizer(subscribers, config.sync.queue_size, self._deliver, slop=slop)

    def _subscribe(self, message_type, topic: str) -> Subscriber:
        def on_mismatch(event):
            text = qos.mismatch(topic, event)
            self._node.get_logger().error(text)
            self._statistics.set_error(f'qos {topic}', text)

        return Subscriber(
            self._node,
            message_type,
            topic,
            qos_profile=self._qos,
            event_callbacks=qos.SubscriptionEventCallbacks(incompatible_qos=on_mismatch),
        )

    @property
    def received(self) -> dict[str, int]:
        """Number of messages by topic."""
        return dict(zip(self._topics, self._synchronizer.received, strict=True))

    def _deliver(self, *messages) -> None:
        self._last_set_s = time.monotonic()
        self._on_set(*messages)

    def reset(self) -> None:
        """Forget messages that wait for partners, after a jump of time."""
        self._synchronizer.reset()

    def waiting_for(self) -> str:
        """Say why no set has come for SILENCE_S, or return an empty text."""
        if time.monotonic() - self._last_set_s < SILENCE_S:
            return ''
        received = self.received
        counts = ', '.join(f'{topic} {number}' for topic, number in received.items())
        silent = [topic for topic, number in received.items() if number == 0]
        if silent:
            cause = f'nothing has come on {", ".join(silent)}: check the names (ros2 topic list) and remappings'
        elif self._sync.approximate_sync:
            cause = (
                'every topic has data but no stamps lie within '
                f'{self._sync.approximate_sync_tolerance_seconds} s: raise sync.approximate_sync_tolerance_seconds'
            )
        else:
            cause = (
                'the topics have gone silent, or their stamps are never equal: check the driver, '
                'or set sync.approximate_sync to true'
            )
        return f'for {SILENCE_S:.0f} s no complete set of messages. Received: {counts}. {cause}'
