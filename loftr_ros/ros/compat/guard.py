"""Keeps a synchronizer, upstream's or the stand-in, from stopping the node, and counts what it does."""

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
"""Messages of each topic whose arrival is remembered, to explain why none make a set."""


class GuardedSynchronizer:
    """Calls back with each set of messages; an exception in the callback ends neither the node nor the pairing.

    Upstream's synchronizers call back under their lock and do not release it when the callback raises, and their
    queues keep the largest stamps, so that after a jump back nothing pairs. Therefore the callback's exceptions end
    here, and waiting messages from the future are dropped when a topic jumps back (`odometry.stamps`). The callback
    must only hand the messages on: with upstream's, reception waits for it.

    Args:
        filters: one input filter a topic.
        create: makes the synchronizer of these filters.
        on_error: takes an exception of the callback; default: it is logged.

    Attributes:
        received: messages of each filter.
        arrivals: of each filter, (number of the arrival among all, stamp [ns]) of its last ARRIVALS messages.
        last_arrival_s: of each filter, when its last message came, by time.monotonic; None before the first.
        paired: complete sets.
        failed: sets whose callback raised.
        jumps: times that a topic's stamps jumped back.
    """

    def __init__(self, filters: Sequence, create: Callable, callback: Callable, on_error: Callable | None = None):
        self.received = [0] * len(filters)
        self.arrivals = [collections.deque(maxlen=ARRIVALS) for _ in filters]
        self.last_arrival_s: list[float | None] = [None] * len(filters)
        self.paired = self.failed = self.jumps = 0
        self._callback = callback
        self._on_error = on_error or (lambda error: logger.error('callback of a set of messages', exc_info=error))
        self._lock = threading.Lock()
        self._watch = JumpWatch(len(filters))
        self._reset_wanted = False
        # Before the synchronizer's own, so that the queues are in order when it takes the message.
        for index, source in enumerate(filters):
            source.registerCallback(self._arrive, index)
        self._synchronizer = create(filters)
        self._synchronizer.registerCallback(self._complete)

    @property
    def dropped(self) -> list[int]:
        """Messages of each filter that found no partners in time; those still waiting do not count."""
        waiting = [len(messages) for messages in self._synchronizer.queues]
        return [n - self.paired - w for n, w in zip(self.received, waiting, strict=True)]

    def reset(self) -> None:
        """Drop all waiting messages when the next one comes, for example after a jump of the clock.

        Only noted here, since the caller may be inside the callback, where upstream's lock is held.
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

    Those of topics that have jumped already, which are slightly newer, stay.
    """
    for waiting in queues:
        for stale_ns in [key for key in waiting if key > stamp_ns + JUMP_NS]:
            del waiting[stale_ns]
