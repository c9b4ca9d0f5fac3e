"""Sets of messages of several topics with equal or similar stamps, without ROS: for the node and for the bag reader."""

from __future__ import annotations

import itertools
from collections.abc import Sequence


class StampSync:
    """Collects messages of several topics until one of each has the same stamp, or stamps within `slop_ns` [ns].

    Of several possible sets with a new message it takes the one nearest in time. A full queue drops the message that
    arrived first, not the one with the smallest stamp, so that a bag that loops continues to make sets.

    Attributes:
        queues: for each topic, the messages that wait for the others: {stamp [ns]: message}.
    """

    def __init__(self, num_topics: int, queue_size: int, slop_ns: int = 0):
        self.queues: list[dict[int, object]] = [{} for _ in range(num_topics)]
        self.queue_size = queue_size
        self.slop_ns = slop_ns

    def add(self, stamp_ns: int, message, index: int) -> list | None:
        """Add a message of topic `index`; return the set that it completes, one message of each topic, or None."""
        queue = self.queues[index]
        queue.pop(stamp_ns, None)  # so that a repeated stamp is the newest
        queue[stamp_ns] = message
        while len(queue) > self.queue_size:
            del queue[next(iter(queue))]
        stamps = self._complete(stamp_ns, index)
        if stamps is None:
            return None
        return [waiting.pop(key) for waiting, key in zip(self.queues, stamps, strict=True)]

    def _complete(self, stamp_ns: int, index: int) -> Sequence[int] | None:
        """Return the stamp to take from each queue for a set with the new message, or None."""
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
