"""A synchronizer, upstream's or the stand-in, that survives exceptions and jumps of time and counts its messages."""

from __future__ import annotations

import collections
import logging
import threading
import time
from collections.abc import Callable, Sequence

from loftr_ros.odometry.stamps import JUMP_NS, JumpWatch
from loftr_ros.ros.compat.filters import stamp_ns_of

logger = logging.getLogger(__name__)

ARRIVALS = 200
"""Number of recorded arrivals for each topic, used to explain why no sets are formed."""


class GuardedSynchronizer:
    """Calls `callback` with each set of messages; an exception in it ends neither the node nor the synchronization.

    Upstream's synchronizers run the callback under their lock and do not release it when the callback raises. Their
    queues keep the largest stamps, so that no set is formed after a jump back. Therefore exceptions of the callback are
    caught here, and waiting messages from the future are dropped when a topic jumps back (`odometry.stamps`). The
    callback must return quickly: with upstream's synchronizers, reception waits for it.

    Args:
        filters: one input filter for each topic.
        create: returns the synchronizer of these filters.
        on_error: takes an exception of the callback; default: it is logged.

    Attributes:
        received: number of messages of each filter.
        arrivals: for each filter, (number of the arrival among all, stamp [ns]) of its last ARRIVALS messages.
        last_arrival_s: for each filter, time.monotonic() at its last message; None before the first.
        paired: number of complete sets.
        failed: number of sets whose callback raised.
        jumps: number of times that the stamps of a topic jumped back.
    """

    def __init__(self, filters: Sequence, create: Callable, callback: Callable, on_error: Callable | None = None):
        self.received = [0] * len(filters)
        self.arrivals = [collections.deque(maxlen=ARRIVALS) for _ in filters]
        self.last_arrival_s: list[float | None] = [None] * len(filters)
        self.paired = self.failed = self.jumps = 0
        self._callback = callback
        self._on_error = on_error or (lambda error: logger.error('the callback of a set failed', exc_info=error))
        self._lock = threading.Lock()
        self._watch = JumpWatch(len(filters))
        self._reset_wanted = False
        # Registered before the synchronizer's own callback, so that stale messages are gone when it adds this one.
        for index, source in enumerate(filters):
            source.registerCallback(self._arrive, index)
        self._synchronizer = create(filters)
        self._synchronizer.registerCallback(self._complete)

    @property
    def dropped(self) -> list[int]:
        """Number of messages of each filter that were dropped without partners; waiting ones are not counted."""
        waiting = [len(messages) for messages in self._synchronizer.queues]
        return [n - self.paired - w for n, w in zip(self.received, waiting, strict=True)]

    def reset(self) -> None:
        """Drop all waiting messages when the next one arrives, for example after a jump of the clock.

        They are not dropped here, because the caller may be inside the callback, where upstream's lock is held.
        """
        with self._lock:
            self._reset_wanted = True

    def _arrive(self, message, index: int) -> None:
        stamp_ns = stamp_ns_of(message)
        with self._lock:
            self.received[index] += 1
            self.last_arrival_s[index] = time.monotonic()
            if stamp_ns is not None:
                self.arrivals[index].append((sum(self.received), stamp_ns))
            reset, self._reset_wanted = self._reset_wanted, False
            if reset:
                self._watch = JumpWatch(len(self.received))
            jumped = stamp_ns is not None and self._watch.went_back(stamp_ns, index)
            self.jumps += jumped
        if reset or jumped:
            with self._synchronizer.lock:
                if reset:
                    for messages in self._synchronizer.queues:
                        messages.clear()
                else:
                    _drop_future(self._synchronizer.queues, stamp_ns)

    def _complete(self, *messages) -> None:
        with self._lock:
            self.paired += 1
        try:
            self._callback(*messages)
        except Exception as error:
            with self._lock:
                self.failed += 1
            self._on_error(error)


def _drop_future(queues: Sequence[dict], stamp_ns: int) -> None:
    """Remove the messages from before a jump back to `stamp_ns`.

    Messages of topics that have already jumped are slightly newer than `stamp_ns` and are kept.
    """
    for waiting in queues:
        for stale_ns in [key for key in waiting if key > stamp_ns + JUMP_NS]:
            del waiting[stale_ns]
