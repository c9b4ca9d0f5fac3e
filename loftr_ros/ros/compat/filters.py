"""Stand-ins for message_filters (ros2/message_filters), for environments where it is not installed.

Names, arguments and results are upstream's. Mended against it (each shown by a test): stamps that differ by exactly
`slop` are a set, so that slop 0 pairs equal stamps; callbacks run outside the lock, and one that raises leaves nothing
locked; the queues lose the message that came first, not the one with the smallest stamp, so that a bag that loops goes
on. Upstream's own tests pass with these classes.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable, Sequence

logger = logging.getLogger(__name__)


def stamp_ns_of(message) -> int | None:
    """Return the stamp of a message's header [ns], or None where it has none."""
    stamp = getattr(getattr(message, 'header', None), 'stamp', None)
    return None if stamp is None else _nanoseconds(stamp)


def _nanoseconds(stamp) -> int:
    """Return an rclpy Time, a Time message or integer nanoseconds as integer nanoseconds."""
    if hasattr(stamp, 'nanoseconds'):
        return stamp.nanoseconds
    return stamp if isinstance(stamp, int) else stamp.sec * 1_000_000_000 + stamp.nanosec


def _arrival_ns() -> int:
    from rclpy.clock import ROSClock

    return ROSClock().now().nanoseconds


class SimpleFilter:
    """Calls the registered callbacks with each output."""

    def __init__(self):
        self.callbacks: dict[int, tuple[Callable, tuple]] = {}

    def registerCallback(self, cb: Callable, *args) -> int:  # noqa: N802, upstream's name
        """Call `cb(*output, *args)` with every output; return the number of the connection."""
        connection = len(self.callbacks)
        self.callbacks[connection] = (cb, args)
        return connection

    def signalMessage(self, *msg) -> None:  # noqa: N802
        """Hand an output to every callback, in the order of registration."""
        for cb, args in list(self.callbacks.values()):
            cb(*msg, *args)


class Subscriber(SimpleFilter):
    """A subscription as a filter, `Subscriber(node, Image, 'image', ...)`; keywords as for create_subscription."""

    def __init__(self, node, msg_type, topic: str, qos_profile=10, **kwargs):
        super().__init__()
        self.node = node
        self.topic = topic
        self.sub = node.create_subscription(msg_type, topic, self.callback, qos_profile, **kwargs)

    def callback(self, msg) -> None:
        self.signalMessage(msg)

    def getTopic(self) -> str:  # noqa: N802
        return self.topic

    def __getattr__(self, key):
        """Serve the attributes of the subscription, as upstream does."""
        if key == 'sub':
            raise AttributeError(key)
        return getattr(self.sub, key)


class Cache(SimpleFilter):
    """Keeps the last `cache_size` messages and answers by time; passes every message on."""

    def __init__(self, f: SimpleFilter, cache_size: int = 1, allow_headerless: bool = False):
        super().__init__()
        self.cache_size = cache_size
        self.allow_headerless = allow_headerless
        self.cache_msgs: list = []
        self.cache_times: list[int] = []  # [ns]
        self.connectInput(f)

    def connectInput(self, f: SimpleFilter) -> None:  # noqa: N802
        self.incoming_connection = f.registerCallback(self.add)

    def add(self, msg) -> None:
        stamp_ns = stamp_ns_of(msg)
        if stamp_ns is None:
            if not self.allow_headerless:
                _warn_headerless(msg)
                return
            stamp_ns = _arrival_ns()
        self.cache_msgs.append(msg)
        self.cache_times.append(stamp_ns)
        if len(self.cache_msgs) > self.cache_size:
            del self.cache_msgs[0], self.cache_times[0]
        self.signalMessage(msg)

    def getInterval(self, from_stamp, to_stamp) -> list:  # noqa: N802
        """Return the messages from one time to another, both inclusive."""
        from_ns, to_ns = _nanoseconds(from_stamp), _nanoseconds(to_stamp)
        assert from_ns <= to_ns, f'from_stamp {from_ns} lies after to_stamp {to_ns}'
        return [m for m, time_ns in zip(self.cache_msgs, self.cache_times, strict=True) if from_ns <= time_ns <= to_ns]

    def getElemAfterTime(self, stamp):  # noqa: N802
        """Return the oldest message at or after a time, or None."""
        later = (i for i, time_ns in enumerate(self.cache_times) if time_ns >= _nanoseconds(stamp))
        index = next(later, None)
        return None if index is None else self.cache_msgs[index]

    def getElemBeforeTime(self, stamp):  # noqa: N802
        """Return the newest message at or before a time, or None."""
        earlier = [i for i, time_ns in enumerate(self.cache_times) if time_ns <= _nanoseconds(stamp)]
        return self.cache_msgs[earlier[-1]] if earlier else None

    def getLatestTime(self):  # noqa: N802
        """Return the stamp of the last message as rclpy Time, or None."""
        return self._time(-1)

    getLastestTime = getLatestTime  # noqa: N815, upstream's older spelling

    def getOldestTime(self):  # noqa: N802
        """Return the stamp of the first message as rclpy Time, or None."""
        return self._time(0)

    def getLast(self):  # noqa: N802
        return self.cache_msgs[-1] if self.cache_msgs else None

    def _time(self, index: int):
        if not self.cache_times:
            return None
        stamp = getattr(getattr(self.cache_msgs[index], 'header', None), 'stamp', None)
        if hasattr(stamp, 'nanoseconds'):
            return stamp  # an rclpy Time keeps its clock
        from rclpy.clock import ClockType
        from rclpy.time import Time

        return Time(nanoseconds=self.cache_times[index], clock_type=ClockType.ROS_TIME)


class TimeSynchronizer(SimpleFilter):
    """Puts messages of equal stamps together and calls back with one message of each filter of `fs`.

    `queues` holds, for each filter, the messages that wait for their partners: {stamp [ns]: message}.
    """

    def __init__(self, fs: Sequence[SimpleFilter], queue_size: int):
        super().__init__()
        self.queue_size = queue_size
        self.lock = threading.Lock()
        self.connectInput(fs)

    def connectInput(self, fs: Sequence[SimpleFilter]) -> None:  # noqa: N802
        self.queues: list[dict[int, object]] = [{} for _ in fs]
        self.input_connections = [
            f.registerCallback(self.add, waiting, index)
            for index, (f, waiting) in enumerate(zip(fs, self.queues, strict=True))
        ]

    def add(self, msg, my_queue: dict, my_queue_index: int | None = None) -> None:
        """Take a message of one filter; when it completes a set, take the set out and call back."""
        stamp_ns = self._stamp_ns(msg)
        if stamp_ns is None:
            _warn_headerless(msg)
            return
        if my_queue_index is None:
            my_queue_index = next(index for index, waiting in enumerate(self.queues) if waiting is my_queue)
        with self.lock:
            my_queue.pop(stamp_ns, None)  # so that a repeated stamp takes the newest place
            my_queue[stamp_ns] = msg
            while len(my_queue) > self.queue_size:
                del my_queue[next(iter(my_queue))]
            stamps = self._complete(stamp_ns, my_queue_index)
            if stamps is None:
                return
            messages = [waiting.pop(key) for waiting, key in zip(self.queues, stamps, strict=True)]
        self.signalMessage(*messages)

    def _stamp_ns(self, msg) -> int | None:
        return stamp_ns_of(msg)

    def _complete(self, stamp_ns: int, index: int) -> Sequence[int] | None:
        """Return the stamp to take from each queue for a set with the new message, or None."""
        if all(stamp_ns in waiting for waiting in self.queues):
            return [stamp_ns] * len(self.queues)
        return None


class ApproximateTimeSynchronizer(TimeSynchronizer):
    """Puts messages together whose stamps differ by at most `slop` [s].

    Args:
        allow_headerless: take messages without a stamp at the time of their arrival.
        sync_arrival_time: take all messages at the time of their arrival, whatever their stamps say.
    """

    def __init__(
        self,
        fs: Sequence[SimpleFilter],
        queue_size: int,
        slop: float,
        allow_headerless: bool = False,
        sync_arrival_time: bool = False,
    ):
        self.slop_ns = round(slop * 1e9)
        self.allow_headerless = allow_headerless
        self.sync_arrival_time = sync_arrival_time
        super().__init__(fs, queue_size)

    def _stamp_ns(self, msg) -> int | None:
        stamp_ns = None if self.sync_arrival_time else stamp_ns_of(msg)
        if stamp_ns is None and (self.allow_headerless or self.sync_arrival_time):
            return _arrival_ns()
        return stamp_ns

    def _complete(self, stamp_ns: int, index: int) -> Sequence[int] | None:
        """Of all sets with the new message, take the one whose members lie nearest to it, the first filter first."""
        candidates = []
        for i, waiting in enumerate(self.queues):
            if i == index:
                candidates.append([stamp_ns])
                continue
            near = [key for key in waiting if abs(key - stamp_ns) <= self.slop_ns]
            if not near:
                return None
            candidates.append(sorted(near, key=lambda key: abs(key - stamp_ns)))
        for stamps in itertools.product(*candidates):
            if max(stamps) - min(stamps) <= self.slop_ns:
                return stamps
        return None


def _warn_headerless(msg) -> None:
    logger.warning(
        'dropped a %s without header.stamp: messages without a stamp need allow_headerless=True', type(msg).__name__
    )
