"""Stand-ins for the part of message_filters (ros2/message_filters) that this package uses.

Names, arguments and results are upstream's, with three differences, each shown by a test: stamps that differ by exactly
`slop` form a set, so that slop 0 pairs equal stamps; callbacks run outside the lock, so that one that raises does not
leave it locked; a full queue drops the message that arrived first (`loftr_ros.sync`).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from loftr_ros.messages import stamp_ns
from loftr_ros.sync import StampSync

logger = logging.getLogger(__name__)


def stamp_ns_of(message) -> int | None:
    """Return the stamp of a message's header [ns], or None if it has no header."""
    header = getattr(message, 'header', None)
    return None if getattr(header, 'stamp', None) is None else stamp_ns(header)


class SimpleFilter:
    """Calls the registered callbacks with each output."""

    def __init__(self):
        self.callbacks: list[tuple[Callable, tuple]] = []

    def registerCallback(self, cb: Callable, *args) -> int:  # noqa: N802, upstream's name
        """Call `cb(*output, *args)` with every output; return the number of the connection."""
        self.callbacks.append((cb, args))
        return len(self.callbacks) - 1

    def signalMessage(self, *msg) -> None:  # noqa: N802
        """Pass an output to every callback, in the order of registration."""
        for cb, args in list(self.callbacks):
            cb(*msg, *args)


class Subscriber(SimpleFilter):
    """A subscription as a filter, `Subscriber(node, Image, 'image', ...)`; keywords as for create_subscription."""

    def __init__(self, node, msg_type, topic: str, qos_profile=10, **kwargs):
        super().__init__()
        self.sub = node.create_subscription(msg_type, topic, self.signalMessage, qos_profile, **kwargs)


class ApproximateTimeSynchronizer(SimpleFilter):
    """Forms sets with one message from each filter of `fs`, whose stamps differ by at most `slop` [s]."""

    def __init__(self, fs: Sequence[SimpleFilter], queue_size: int, slop: float):
        super().__init__()
        self.lock = threading.Lock()
        self._sync = StampSync(len(fs), queue_size, round(slop * 1e9))
        for index, f in enumerate(fs):
            f.registerCallback(self._add, index)

    @property
    def queues(self) -> list[dict[int, object]]:
        """For each filter, the messages that wait for partners: {stamp [ns]: message}."""
        return self._sync.queues

    def _add(self, msg, index: int) -> None:
        stamp = stamp_ns_of(msg)
        if stamp is None:
            logger.warning('dropped a %s without header.stamp: it cannot be synchronized', type(msg).__name__)
            return
        with self.lock:
            messages = self._sync.add(stamp, msg, index)
        if messages is not None:
            self.signalMessage(*messages)


class TimeSynchronizer(ApproximateTimeSynchronizer):
    """Forms sets with one message from each filter of `fs`, whose stamps are equal."""

    def __init__(self, fs: Sequence[SimpleFilter], queue_size: int):
        super().__init__(fs, queue_size, 0.0)
